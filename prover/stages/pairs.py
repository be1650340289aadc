"""Pair answers that Lean proved with answers to the same prompt that it refused: what preference optimization reads."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lean_env.cache import lasting
from lean_env.source import normalise_proof
from prover.artifacts import Artifact, ArtifactWriter
from prover.config import PairsConfig
from prover.records import Attempt, PreferencePair, Problem, Verdict
from prover.seeds import derive_seed
from prover.stages.verify import Judged

_WRONG = frozenset(
    {"failed", "sorry", "forbidden_axiom", "forbidden_constant", "statement_changed", "forbidden_syntax", "no_proof"}
)
_OUT_OF_HEARTBEATS = "maximum number of heartbeats"
"""Lean's words, a message among others: with more of them the proof might have gone through."""
_SPARE = 2
"""How many times the cap of rejected answers are looked at: some turn out to be the same proof as another."""

Place = tuple[int, str]
"""Which of the judged stages, and the attempt's id there."""
Form = tuple[bool, str]
"""Whether an answer has a proof, and its proof but for comments and spacing, or else the answer."""


def run(
    out: Path,
    *,
    problems: Artifact,
    judged: Sequence[Judged],
    config: PairsConfig,
    seed: int,
    clean: bool = False,
) -> Artifact:
    """Preference pairs from all ``judged`` stages together.

    Of kind ``proof``: two answers to one prompt, one proved, one refused. Of kind ``correction``: a proved correction
    and an answer that it goes back to, at whose prompt it is put. Each refused answer is rejected once for a kind. At
    most ``config.per_problem`` pairs of a problem are drawn with ``seed`` and share the weight 1; chosen answers take
    turns, and of those whose turn it is the one nearest in length is taken.
    """
    writer = ArtifactWriter(
        out,
        {
            "stage": "pairs",
            "seed": seed,
            "problems": problems.fingerprint,
            "verdicts": [verdicts.fingerprint for _, verdicts in judged],
            "config": config.model_dump(mode="json"),
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    for index in writer.missing():
        writer.write(index, _shard(index, problems, judged, config.per_problem, seed))
    counts = Counter[str]()
    lengths = Counter[str]()
    for index in range(problems.shards):
        pairs = writer.artifact.read_shard(index, PreferencePair)
        counts["pairs"] += len(pairs)
        counts["proofs"] += sum(pair.kind == "proof" for pair in pairs)
        counts["corrections"] += sum(pair.kind == "correction" for pair in pairs)
        counts["problems"] += len({pair.problem_id for pair in pairs})
        lengths["chosen_characters"] += sum(len(pair.chosen) for pair in pairs)
        lengths["rejected_characters"] += sum(len(pair.rejected) for pair in pairs)
    means = {name: round(total / (counts["pairs"] or 1), 1) for name, total in lengths.items()}
    return writer.finish({**counts, **means})


class _Note(NamedTuple):
    """What of an attempt decides which pairs there can be. The texts stay on the disk until some are drawn."""

    place: Place
    parent: str | None
    prompt: int
    answer: int
    proved: bool
    wrong: bool


class _Candidate(NamedTuple):
    """An answer to reject, and those that could be chosen over it."""

    rejected: _Note
    choices: list[_Note]
    kind: Literal["proof", "correction"]


def _shard(index: int, problems: Artifact, judged: Sequence[Judged], most: int, seed: int) -> Iterator[PreferencePair]:
    notes: dict[str, list[_Note]] = {}
    for number, stage in enumerate(judged):
        for attempt, verdict in _answers(stage, index):
            notes.setdefault(attempt.problem_id, []).append(_note(number, attempt, verdict))
    drawn: dict[str, list[_Candidate]] = {}
    wanted: set[Place] = set()
    for problem in problems.read_shard(index, Problem):
        mine = notes.get(problem.id, [])
        if candidates := _candidates(mine):
            rng = random.Random(derive_seed(seed, "pairs", problem.id))
            drawn[problem.id] = rng.sample(candidates, min(len(candidates), _SPARE * most))
            wanted |= {c.rejected.place for c in drawn[problem.id]} | {note.place for note in mine if note.proved}
    texts = {
        (number, attempt.id): attempt
        for number, (attempts, _) in enumerate(judged)
        for attempt in attempts.read_shard(index, Attempt)
        if (number, attempt.id) in wanted
    }
    for name, candidates in drawn.items():
        proved = [texts[note.place] for note in notes[name] if note.proved]
        pairs = _pairs(candidates, texts, {_form(attempt) for attempt in proved}, most)
        for rejected, chosen, kind in pairs:
            yield PreferencePair(
                id=f"{rejected.id}/{kind}",
                problem_id=name,
                messages=rejected.messages,
                chosen=chosen.completion,
                rejected=rejected.completion,
                chosen_attempt_id=chosen.id,
                rejected_attempt_id=rejected.id,
                weight=1 / len(pairs),
                kind=kind,
            )


def _answers(stage: Judged, index: int) -> Iterator[tuple[Attempt, Verdict]]:
    attempts, verdicts = stage
    judged = {verdict.attempt_id: verdict for verdict in verdicts.read_shard(index, Verdict)}
    for attempt in attempts.read_shard(index, Attempt):
        if attempt.id in judged:
            yield attempt, judged[attempt.id]


def _note(number: int, attempt: Attempt, verdict: Verdict) -> _Note:
    return _Note(
        place=(number, attempt.id),
        parent=attempt.parent_id,
        prompt=derive_seed(*(part for message in attempt.messages for part in (message.role, message.content))),
        answer=derive_seed(attempt.completion),
        proved=verdict.proved and attempt.proof is not None,
        wrong=_is_wrong(attempt, verdict),
    )


def _is_wrong(attempt: Attempt, verdict: Verdict) -> bool:
    """Whether the answer is no proof, whatever time and memory there were.

    Not one that ran out of them or of heartbeats, and none that was too long to be looked at. Not one that was cut off
    either: it might have become a proof, and that it ends there is not what the model said. One that came to its end
    without any proof is wrong.
    """
    if attempt.finish_reason == "length" or verdict.status not in _WRONG or not lasting(verdict):
        return False
    if verdict.status == "no_proof":
        return attempt.proof is None
    said = (verdict.reason, *(message.text for message in verdict.messages))
    return not any(_OUT_OF_HEARTBEATS in text for text in said)


def _candidates(notes: list[_Note]) -> list[_Candidate]:
    """Each distinct wrong answer to a prompt that has better ones, the earliest of equal answers."""
    wrong: dict[tuple[int, int], _Note] = {}
    right: dict[int, dict[int, _Note]] = {}
    named: dict[str, list[_Note]] = {}
    for note in notes:
        named.setdefault(note.place[1], []).append(note)
        if note.proved:
            right.setdefault(note.prompt, {}).setdefault(note.answer, note)
        elif note.wrong:
            wrong.setdefault((note.prompt, note.answer), note)
    found = [
        _Candidate(note, [*right[note.prompt].values()], "proof") for note in wrong.values() if note.prompt in right
    ]
    better: dict[tuple[int, int], dict[int, _Note]] = {}
    for note in notes:
        if note.proved:
            for ancestor in _ancestors(note, named):
                if ancestor.wrong:
                    better.setdefault((ancestor.prompt, ancestor.answer), {}).setdefault(note.answer, note)
    return [*found, *(_Candidate(wrong[key], [*choices.values()], "correction") for key, choices in better.items())]


def _ancestors(note: _Note, named: dict[str, list[_Note]]) -> Iterator[_Note]:
    """What the answer is a correction of, step by step; each stands in an earlier stage."""
    here: _Note | None = note
    while here is not None and here.parent is not None:
        stage = here.place[0]
        here = next((other for other in reversed(named.get(here.parent, [])) if other.place[0] < stage), None)
        if here is not None:
            yield here


def _pairs(
    candidates: list[_Candidate], texts: dict[Place, Attempt], proved: set[Form], most: int
) -> list[tuple[Attempt, Attempt, Literal["proof", "correction"]]]:
    """Rejected and chosen, in the order of ``candidates``; what was once ``proved`` is never rejected."""
    found: list[tuple[Attempt, Attempt, Literal["proof", "correction"]]] = []
    taken: set[tuple[int, Form, str]] = set()
    paired: set[tuple[int, Form, Form]] = set()
    turns = Counter[Form]()
    for note, notes, kind in candidates:
        if len(found) == most:
            break
        rejected = texts[note.place]
        wrong = _form(rejected)
        if wrong in proved or (note.prompt, wrong, kind) in taken:
            continue
        choices = [(_form(texts[choice.place]), texts[choice.place]) for choice in notes]
        choices = [choice for choice in choices if (note.prompt, choice[0], wrong) not in paired]
        if not choices:
            continue
        length = len(rejected.completion)
        form, chosen = min(choices, key=lambda choice: (turns[choice[0]], abs(len(choice[1].completion) - length)))
        turns[form] += 1
        taken.add((note.prompt, wrong, kind))
        paired.add((note.prompt, form, wrong))
        found.append((rejected, chosen, kind))
    return found


def _form(attempt: Attempt) -> Form:
    return (False, attempt.completion) if attempt.proof is None else (True, normalise_proof(attempt.proof))
