"""Seeds that depend on what is drawn, never on the order in which it is drawn."""

from hashlib import blake2b


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from the parts; different parts, independent seeds."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
