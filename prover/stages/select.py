"""Choose what to learn from: proved attempts, each proof once, so many a problem, weighed (docs/training-data.md)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from prover.artifacts import Artifact, ArtifactWriter, atomic_write, disk_errors
from prover.config import SelectConfig
from prover.found import Found, find
from prover.jsonl import decode_lines
from prover.progress import Progress, Silent
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Problem, TrainingExample
from prover.selection import Bucket, Choice, choose
from prover.stages.verify import Judged

BUCKETS = "buckets.json"
"""Beside the shards: a line for each bucket of length and of difficulty that is not empty."""


def run(
    out: Path,
    *,
    problems: Artifact,
    judged: Sequence[Judged],
    prompt: Prompt,
    config: SelectConfig,
    seed: int,
    fresh: int | None = None,
    series: str = "",
    progress: Progress | None = None,
    clean: bool = False,
) -> Artifact:
    """Training examples from all ``judged`` stages together; the last ``fresh`` of them (None: all) are this round's.

    Proofs equal up to comments and spacing count once, the earliest first; problems with equal statements are one. Of
    more than ``config.per_problem`` the shortest is kept and the rest drawn with ``seed``. A problem's examples share
    the weight 1, so that easy problems with many proofs do not outweigh hard ones; ``config.rarity`` lowers the weight
    of answers that many problems share. A proved correction gives two examples: the correction itself, and its
    proof as an answer to the first prompt.

    The index of proofs is in memory (:mod:`prover.found`), and the texts of one shard. It is read anew after a kill;
    shards that are written stay. Raises InputError where ``config.max_pass_rate`` leaves nothing.
    """
    writer = ArtifactWriter(
        out,
        {
            "stage": "select",
            "seed": seed,
            "problems": problems.fingerprint,
            "verdicts": [verdicts.fingerprint for _, verdicts in judged],
            "prompt": prompt.recipe,
            "config": config.recipe(),
            **({} if config.replay is None else {"fresh": fresh}),
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    progress = progress or Silent()
    with progress.stage(f"{series} select".strip(), problems.shards, "shards") as meter:
        found = find(problems, judged, seed, meter)
    choice = choose(found, config, 0 if fresh is None else len(judged) - fresh)
    if config.replay is not None and choice.counts["proofs"] and not choice.counts["this round"]:
        progress.note(
            f"{series}: no proof of this round to learn: all earlier ones are learned again".removeprefix(": ")
        )
    if choice.all_easy:
        progress.note(
            f"{series}: every proved problem is over select.max_pass_rate = {config.max_pass_rate:g}: all are learned; "
            "harder problems are needed".removeprefix(": ")
        )
    for index in writer.missing():
        writer.write(index, _shard(index, problems, judged, prompt, found, choice))
    with disk_errors(out):
        atomic_write(out / BUCKETS, b"".join(msgspec.json.encode(bucket) + b"\n" for bucket in choice.buckets))
    return writer.finish(choice.counts)


def read_buckets(select: Path) -> list[Bucket]:
    """How what was selected spreads over lengths and difficulties; empty where the artifact does not tell."""
    file = select / BUCKETS
    return list(decode_lines(file.read_bytes(), Bucket, file)) if file.exists() else []


def _shard(
    index: int, problems: Artifact, judged: Sequence[Judged], prompt: Prompt, found: Found, choice: Choice
) -> Iterator[TrainingExample]:
    start, end = found.starts[index], found.starts[index + 1]
    mine = slice(*np.searchsorted(choice.problems, [start, end]).tolist())
    proofs = found.proofs[choice.chosen[mine]]
    if not len(proofs):
        return
    shard = problems.read_shard(index, Problem)
    attempts: dict[tuple[int, int], Attempt] = {}
    sources: list[int] = np.unique(proofs["source"]).tolist()
    for source in sources:
        tried = judged[source][0].read_shard(index, Attempt)
        attempts |= {(source, place): tried[place] for place in proofs["place"][proofs["source"] == source].tolist()}
    for row, weight, difficulty in zip(
        proofs, choice.weights[mine].tolist(), choice.difficulty[mine].tolist(), strict=True
    ):
        attempt = attempts[int(row["source"]), int(row["place"])]
        known = None if np.isnan(difficulty) else round(difficulty, 4)
        yield from _examples(shard[int(row["problem"] - start)], attempt, prompt, weight, known)


def _examples(
    problem: Problem, attempt: Attempt, prompt: Prompt, weight: float, difficulty: float | None
) -> Iterator[TrainingExample]:
    # An attempt's own prompt may have been cut to fit the model's context.
    asked = prompt.first(problem) if attempt.turn else attempt.messages
    answer = ChatMessage(role="assistant", content=attempt.completion)
    proof = TrainingExample(
        id=f"{attempt.id}/proof",
        messages=(*asked, answer),
        problem_id=problem.id,
        attempt_id=attempt.id,
        weight=weight,
        difficulty=difficulty,
    )
    yield proof
    if attempt.turn > 0:
        yield msgspec.structs.replace(
            proof, id=f"{attempt.id}/correction", messages=(*attempt.messages, answer), kind="correction"
        )
