"""Linking lean.wasm, on a module made by hand of as many exports as it takes."""

import struct

import pytest

from lean_env.errors import ToolchainError
from lean_env.link import link

MANY = 100_000


def number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + number(len(body)) + body


def export(name: bytes, kind: int, index: int) -> bytes:
    return bytes([len(name)]) + name + bytes([kind, index])


EXPORTS = (
    export(b"in_table", 0, 1),
    export(b"not_in_table", 0, 2),
    export(b"used", 0, 3),
    export(b"data", 3, 0),
    export(b"changes", 3, 1),
    export(b"table", 1, 0),
    export(b"differs", 3, 0),
    *(export(b"alias%d" % n, 0, 2) for n in range(MANY)),
)
MODULE = b"\0asm\1\0\0\0" + b"".join(
    (
        section(0, b"\x08dylink.0\4\7differs"),
        section(1, bytes([1, 0x60, 0, 0])),
        section(2, bytes([1, 3]) + b"env" + bytes([1]) + b"f" + bytes([0, 0])),  # function 0 is imported
        section(3, bytes([3, 0, 0, 0])),
        section(4, bytes([1, 0x70, 0, 2])),
        section(6, bytes([2, 0x7F, 0, 0x41, 0xE4, 0, 0x0B, 0x7F, 1, 0x41, 7, 0x0B])),  # 100, and one that may change
        section(7, number(len(EXPORTS)) + b"".join(EXPORTS)),
        section(9, bytes([1, 0, 0x41, 1, 0x0B, 1, 1])),  # place 1 holds function 1
        section(10, bytes([3, 2, 0, 0x0B, 2, 0, 0x0B, 2, 0, 0x0B])),
    )
)


def symbols(data: bytes) -> dict[bytes, int]:
    (count,) = struct.unpack_from("<I", data)
    numbers = struct.unpack_from(f"<{2 * count + 1}I", data, 4)
    names = data[8 * count + 8 :]
    found = [names[numbers[i] : numbers[i + 1]] for i in range(count)]
    assert found == sorted(found)
    return dict(zip(found, numbers[count + 1 :]))


def test_exports_become_places_in_the_table() -> None:
    linked = link(MODULE, "run(used)")
    found = symbols(linked.symbols)
    assert {name: place for name, place in found.items() if not name.startswith(b"alias")} == {
        b"in_table": 1, b"not_in_table": 2, b"used": 3, b"data": 100, b"differs": 100,
    }  # fmt: skip
    assert {place for name, place in found.items() if name.startswith(b"alias")} == {2}
    kept = (EXPORTS[2], *EXPORTS[4:7])
    assert section(7, bytes([len(kept)]) + b"".join(kept)) in linked.wasm
    assert section(4, bytes([1, 0x70, 0, 4])) in linked.wasm, "two functions more"
    assert section(9, bytes([2, 0, 0x41, 1, 0x0B, 1, 1, 0, 0x41, 2, 0x0B, 2, 2, 3])) in linked.wasm
    assert section(10, bytes([3, 2, 0, 0x0B, 2, 0, 0x0B, 2, 0, 0x0B])) in linked.wasm


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (b"MZ", "does not begin as WebAssembly does"),
        (MODULE[:18], "sections .* are missing"),
        (MODULE.replace(section(4, bytes([1, 0x70, 0, 2])), section(4, bytes([1, 0x6F, 0, 2]))), "another table"),
    ],
)
def test_another_module_is_refused(module: bytes, what: str) -> None:
    with pytest.raises(ToolchainError, match=f"lean.wasm is not the one we know: .*{what}"):
        link(module, "")
