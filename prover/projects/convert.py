"""Theorems of a traced file as Problems, with the proofs and tactics that the file has for them.

**Soundness.** Nothing here says that a proof holds or that a statement still means what it meant in its file: both are
text that Lean has to elaborate anew (:mod:`prover.stages.problems`, :mod:`prover.stages.verify`). What is seen to here
is that a proof cannot be the theorem itself: the header ends before it (:mod:`prover.projects.context`), and its name
and those of the project's theorems with the same statement, word for word, are forbidden constants.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from lean_env.source import tokens
from prover.projects.context import Context
from prover.projects.source_text import mentioned, parts_of, shifted_proof, without_comments
from prover.projects.traced import UNFAMILIAR, TracedFile, TracedTheorem
from prover.records import Problem, StateTactic

Reason = Literal[
    "unreadable trace",
    "unfamiliar syntax",
    "prelude",
    "module system",
    "mutual",
    "within another command",
    "unnamed",
    "equations",
    "structure",
    "sorry",
    "term with a tail",
    "twin",
]
"""Why a file or theorem gives no problem, or a problem no proof. ``equations`` and ``structure``: it does not follow
``:=``; ``term with a tail``: it is no ``by``, and ``where`` or ``termination_by`` come after it; ``twin``: it mentions
another theorem with the same statement."""

_INFORMAL = re.compile(r"/--(.*?)-/", re.DOTALL)
_UNPROVED = frozenset({"sorry", "admit", "sorryAx", "stop"})
_OWN_NAME = ("protected", "nonrec")
"""Modifiers that decide what a theorem's name means within its own proof."""


class Seed(NamedTuple):
    """A theorem as a problem; ``proof`` is None where the file's cannot stand behind ``:=``, for the reason given."""

    problem: Problem
    proof: str | None
    reason: Reason | None
    tactics: tuple[StateTactic, ...]


Twins = Mapping[bytes, frozenset[str]]
"""Full names of the theorems with one statement; the key is :func:`statement_key`."""


class Conversion(NamedTuple):
    """What all files of a project are converted with."""

    source: str
    split: str
    options: tuple[str, ...]
    all_lemmas: bool
    twins: Twins


def find_twins(files: Iterable[TracedFile]) -> dict[bytes, frozenset[str]]:
    """The statements that more than one theorem has."""
    names: defaultdict[bytes, set[str]] = defaultdict(set)
    for file in files:
        context = Context(file)
        for theorem in file.theorems:
            names[statement_key(file, theorem)].add(full_name(context, theorem))
    return {key: frozenset(found) for key, found in names.items() if len(found) > 1}


def statement_key(file: TracedFile, theorem: TracedTheorem) -> bytes:
    """A digest of the statement without its name, comments and spaces."""
    text = file.text[theorem.signature : theorem.value]
    words = " ".join(token.text for token in tokens(text) if token.kind not in ("space", "comment", "doc"))
    return hashlib.sha256(words.encode()).digest()[:12]


def full_name(context: Context, theorem: TracedTheorem) -> str:
    if theorem.name.startswith("_root_."):
        return theorem.name.removeprefix("_root_.")
    return ".".join((*context.scope(theorem.command), theorem.name))


def convert(file: TracedFile, how: Conversion) -> Iterator[Seed | Reason]:
    """A seed for each theorem of the file in its order, or why there is none."""
    refused = _refused(file)
    if refused is not None:
        for _ in range(max(1, len(file.theorems))):
            yield refused
        return
    context = Context(file, how.options, all_lemmas=how.all_lemmas)
    for theorem in file.theorems:
        kind = file.commands[theorem.command].kind
        if kind == "mutual":
            yield "mutual"
        elif kind != "theorem":
            yield "within another command"
        elif not theorem.name or theorem.name == "None":
            yield "unnamed"
        else:
            yield _seed(file, context, theorem, how)
    for command in file.commands:
        if command.kind == UNFAMILIAR:
            yield "unfamiliar syntax"


def _refused(file: TracedFile) -> Reason | None:
    if file.error is not None:
        return "unreadable trace"
    words = {token.text for token in tokens(file.text[: file.header_end]) if token.kind == "ident"}
    if "prelude" in words:
        return "prelude"
    return "module system" if words & {"module", "public", "meta"} else None


def _seed(file: TracedFile, context: Context, theorem: TracedTheorem, how: Conversion) -> Seed:
    command = file.commands[theorem.command]
    name = full_name(context, theorem)
    ident = f"{how.source}/{file.module}:{name}"
    modifiers = file.text[command.inner : theorem.keyword]
    proof, reason = _proof(file.text, theorem)
    body = file.text[theorem.value : theorem.end]
    own = theorem.name.rpartition(".")[2]
    kept = [word for word in _OWN_NAME if own in mentioned(body) and word in mentioned(without_comments(modifiers))]
    signature = without_comments(file.text[theorem.keyword : theorem.value])
    statement = " ".join([*kept, re.sub(r"^(?:theorem|lemma)\b", "theorem", signature)])
    informal = _INFORMAL.findall(modifiers)
    twins = sorted(how.twins.get(statement_key(file, theorem), frozenset()) - {name})
    if proof is not None and {parts_of(twin)[-1] for twin in twins} & mentioned(proof):
        proof, reason = None, "twin"
    problem = Problem(
        id=ident,
        header=context.header(theorem.command),
        formal_statement=statement,
        informal_statement=" ".join(informal[-1].split()) if informal else None,
        source=how.source,
        split=how.split,
        forbidden_constants=tuple(entry for other in (name, *twins) for entry in (other, f"{other}.*")),
    )
    tactics = tuple(
        StateTactic(
            id=f"{ident}/{number}",
            problem_id=ident,
            state_before=tactic.before,
            tactic=tactic.tactic,
            state_after=tactic.after,
            premises=tactic.premises,
        )
        for number, tactic in enumerate(theorem.tactics)
        if not _UNPROVED & mentioned(tactic.tactic)
    )
    return Seed(problem, proof, reason, tactics)


def _proof(text: str, theorem: TracedTheorem) -> tuple[str | None, Reason | None]:
    """What follows ``:=``, or why it cannot be given."""
    if theorem.form != "term":
        return None, theorem.form
    if not text.startswith(":=", theorem.value):
        return None, "unreadable trace"
    start = theorem.value + len(":=")
    proof = text[start : theorem.end]
    if _UNPROVED & mentioned(proof):
        return None, "sorry"
    moved = shifted_proof(without_comments(proof), start - (text.rfind("\n", 0, start) + 1))
    if theorem.tail is not None and not moved.lstrip().startswith("by"):
        return None, "term with a tail"
    return moved, None
