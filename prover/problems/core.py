"""The core library as problems: each theorem to be proved anew, without itself.

**Leakage.** A proof may use the rest of the library but not the theorem: its name, what Lean derives from it
(``X._simp_1``...), and every other theorem that states the same, or the same with the sides of the conclusion
exchanged, are forbidden constants, and the header takes them out of the sets that ``simp`` and ``grind`` use.

**Split.** By a hash of module and namespace, with List, Array and Vector taken for one, since they repeat each
other's theorems in modules of the same name. What crosses that line all the same is caught by name: all theorems with
one base name (``map_append`` in any namespace, primes left off) go to one split, train before valid before test. So
no held-out theorem has a namesake in the training split, and whole topics are held out, not single theorems of a
family. Groups are few and large, so the salt matters: of 1,500 it is the one that gives 650 to 1,000 problems to
valid and to test with the mix of namespaces nearest to the whole's, chosen before anything was trained.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from prover.config import CoreProblems
from prover.problems.library import LibraryTheorem, twins
from prover.problems.retrieve import Retriever
from prover.records import Problem

Split = Literal["train", "valid", "test"]

TARGET = "target"
"""The name under which every theorem is stated."""
STATEMENT_CHARS = 200
"""Longest statement that becomes a problem, characters."""
_SALT = "1378"
_HELD_OUT = 0.1
_PRELUDE = "set_option autoImplicit false"

_NAMESPACES = frozenset(
    "Nat Int Rat Bool Fin BitVec List Array Vector Option Ordering Char Prod Sum Function Decidable Classical And Or"
    " Not Iff Eq Ne Exists Subtype BEq".split()
)
_SKIPPED_MODULES = re.compile(r"\.Range\.Polymorphic\b|\.Slice\b|^Init\.Data\.Int\.Linear$|^Init\.(Grind|Omega)\b")
"""Machinery of tactics and of range notation: long runs of near-identical statements."""
_SEQUENCES = re.compile(r"\b(?:List|Array|Vector)\b")
_PRIMES = "'₀₁₂₃₄₅₆₇₈₉"


def core_problems(config: CoreProblems, theorems: Sequence[LibraryTheorem]) -> Iterator[Problem]:
    """Problems of one split in the order of a fixed hash: a limit draws a stable sample, a larger one adds to it."""
    same = twins(theorems)
    chosen = [t for t, split in assign_splits(usable(theorems)).items() if split == config.split]
    chosen.sort(key=lambda t: _hash(t.name))
    retriever = Retriever(theorems) if config.premises else None
    for theorem in chosen[: config.limit]:
        yield _problem(theorem, same.get(theorem.name, ()), config, retriever)


def usable(theorems: Iterable[LibraryTheorem]) -> list[LibraryTheorem]:
    """Those that can be stated and are worth stating; of several with one type the first in import order."""
    found: list[LibraryTheorem] = []
    stated: set[str] = set()
    for theorem in theorems:
        top, dot, _ = theorem.name.partition(".")
        if (
            theorem.returns
            and theorem.text is not None
            and len(theorem.text) <= STATEMENT_CHARS
            and not theorem.instance
            and (not dot or top in _NAMESPACES)
            and not _SKIPPED_MODULES.search(theorem.module)
            and theorem.type not in stated
        ):
            stated |= {theorem.type, theorem.flipped}
            found.append(theorem)
    return found


def assign_splits(theorems: Iterable[LibraryTheorem]) -> dict[LibraryTheorem, Split]:
    """The split of each theorem (see the module's docstring)."""
    first = {theorem: _split_of_group(theorem) for theorem in theorems}
    family: dict[str, Split] = {}
    for split in ("test", "valid", "train"):  # the last one written stays
        family |= {_base_name(theorem.name): split for theorem, at in first.items() if at == split}
    return {theorem: family[_base_name(theorem.name)] for theorem in first}


def _split_of_group(theorem: LibraryTheorem) -> Split:
    group = _SEQUENCES.sub("Sequence", f"{theorem.module} {theorem.namespace}")
    at = int(_hash(f"{_SALT} {group}")[:8], 16) / 2**32
    return "test" if at < _HELD_OUT else "valid" if at < 2 * _HELD_OUT else "train"


def _base_name(name: str) -> str:
    last = name.rpartition(".")[2]
    return last.rstrip(_PRIMES) or last


def _problem(
    theorem: LibraryTheorem, same: Sequence[LibraryTheorem], config: CoreProblems, retriever: Retriever | None
) -> Problem:
    group = (theorem, *same)
    removals = [
        f"attribute [-{attribute}] {other.name}"
        for other in group
        for attribute, there in (("simp", other.simp), ("grind", other.grind))
        if there
    ]
    forbidden = tuple(name for other in group for name in (other.name, f"{other.name}.*"))
    statement = f"theorem {TARGET}{theorem.text}"
    premises = None
    if retriever is not None:
        types = {theorem.type, theorem.flipped}

        def allowed(other: LibraryTheorem) -> bool:
            return other.order < theorem.order and other.type not in types and other.name not in forbidden

        premises = retriever.retrieve(statement, config.premises, allowed=allowed)
    return Problem(
        id=f"core/{theorem.name}",
        header="\n".join([_PRELUDE, *removals]),
        formal_statement=statement,
        source="core",
        split=config.split,
        forbidden_constants=forbidden,
        premises=premises,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
