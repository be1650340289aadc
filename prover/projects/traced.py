"""What LeanDojo knows of a Lean file, as plain data: places are offsets into ``text``, counted in characters."""

from typing import Literal

from prover.records import Record

ProofForm = Literal["term", "equations", "structure"]
"""What follows the statement: ``:= TERM`` (``by`` included), ``| PATTERN => ..``, or ``where FIELD := ..``."""

UNFAMILIAR = "unfamiliar"
"""The kind of a theorem's command whose syntax is not what LeanDojo knows."""


class TracedCommand(Record, frozen=True):
    """One command. ``kind`` is the last part of Lean's own name for its syntax (``declaration`` is told apart:
    ``theorem``, ``example``); of ``A in B`` it is that of ``B``, which begins at ``inner``."""

    kind: str
    start: int
    end: int
    inner: int


class TracedTactic(Record, frozen=True):
    """One tactic with the goals before and after it, as Lean prints them; ``premises`` are full names, in order."""

    tactic: str
    before: str
    after: str
    premises: tuple[str, ...] = ()


class TracedTheorem(Record, frozen=True):
    """A theorem or lemma: its command (an index), its name as it is written, and where its parts stand.

    ``keyword`` is where ``theorem`` begins, ``signature`` where its name ends (universe parameters included), ``value``
    where its statement ends and ``:=``, ``|`` or ``where`` begins, ``end`` where the whole ends. ``tail`` is where
    what follows a proof's term begins (``termination_by``, ``where``), None where nothing does.
    """

    command: int
    name: str
    keyword: int
    signature: int
    value: int
    end: int
    form: ProofForm = "term"
    tail: int | None = None
    tactics: tuple[TracedTactic, ...] = ()


class TracedFile(Record, frozen=True):
    """A file of the project: its text and what is in it, or in ``error`` why LeanDojo cannot read its trace."""

    path: str
    text: str = ""
    header_end: int = 0
    """Where the imports end."""
    commands: tuple[TracedCommand, ...] = ()
    theorems: tuple[TracedTheorem, ...] = ()
    error: str | None = None

    @property
    def module(self) -> str:
        return self.path.removesuffix(".lean").replace("/", ".")
