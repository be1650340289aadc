"""The JSONL records that cross every stage boundary: frozen, unknown fields refused, one JSON object a line."""

from typing import Literal

import msgspec

from lean_env.protocol import Message, Verdict

__all__ = [
    "Attempt",
    "ChatMessage",
    "Checkpoint",
    "InformalProblem",
    "Message",
    "PreferencePair",
    "Premise",
    "Problem",
    "Record",
    "StateTactic",
    "TrainingExample",
    "Verdict",
]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every record. Defaults are left out of the JSON line."""


class ChatMessage(Record, frozen=True):
    """``text`` alone is the whole prompt of a base model: it goes through no chat template."""

    role: Literal["system", "user", "assistant", "text"]
    content: str


class InformalProblem(Record, frozen=True):
    """A problem in natural language, the input of formalization."""

    id: str
    informal_statement: str
    informal_answer: str | None = None
    source: str = ""
    split: str = ""


class Premise(Record, frozen=True):
    """A library theorem offered to the model; ``statement`` is its type as Lean prints it."""

    name: str
    statement: str = ""


class Problem(Record, frozen=True):
    """A formal statement to prove.

    ``header`` holds imports, opens, options and definitions; ``formal_statement`` ends before ``:=``. A proof that uses
    any of ``forbidden_constants`` (an entry ``X.*`` covers every name under ``X``) is refused. ``premises`` is None
    where no retriever ran.
    """

    id: str
    header: str
    formal_statement: str
    informal_statement: str | None = None
    source: str = ""
    split: str = ""
    forbidden_constants: tuple[str, ...] = ()
    premises: tuple[Premise, ...] | None = None


class Attempt(Record, frozen=True):
    """One completion of a model for one problem. ``turn`` 0 is a first proof; a correction has turn >= 1 and a parent.

    ``proof`` is None where the completion holds none. ``logprob`` is the sum over completion tokens, in nats, under the
    sampled distribution's model (temperature 1).
    """

    id: str
    problem_id: str
    round: int
    turn: int
    model: str
    messages: tuple[ChatMessage, ...]
    completion: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    seed: int
    parent_id: str | None = None
    proof: str | None = None
    logprob: float | None = None


class TrainingExample(Record, frozen=True):
    """What SFT reads: ``messages`` end with the assistant's text, the only part that the loss covers.

    ``difficulty`` is the share of models' first attempts at the problem that did not prove it, 0 to 1; None where no
    model has tried it.
    """

    id: str
    messages: tuple[ChatMessage, ...]
    problem_id: str
    attempt_id: str | None
    weight: float = 1.0
    kind: Literal["proof", "correction", "syntax", "seed"] = "proof"
    """``seed``: from a Lean project, as its authors wrote it, with no verdict of ours. ``syntax``: of a grammar, most
    likely no proof at all."""
    difficulty: float | None = None


class PreferencePair(Record, frozen=True):
    """What DPO reads: two answers to one prompt, of which Lean accepted the first and refused the second.

    ``messages`` are the prompt alone. Of kind ``proof`` both answers were given to it; of kind ``correction`` the
    rejected one was, and the chosen one came of correcting it.
    """

    id: str
    problem_id: str
    messages: tuple[ChatMessage, ...]
    chosen: str
    rejected: str
    chosen_attempt_id: str
    rejected_attempt_id: str
    weight: float = 1.0
    kind: Literal["proof", "correction"] = "proof"


class StateTactic(Record, frozen=True):
    """One step of a proof in a Lean project: the goals before and after a tactic, as Lean prints them. ``premises`` are
    the full names of the constants that the tactic mentions."""

    id: str
    problem_id: str
    state_before: str
    tactic: str
    state_after: str
    premises: tuple[str, ...] = ()


class Checkpoint(Record, frozen=True):
    """Manifest beside a model's weights (``checkpoint.json``)."""

    path: str
    base_model: str
    step: int
    parents: tuple[str, ...] = ()
    recipe: str = ""
