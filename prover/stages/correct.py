"""Self-correction: failed attempts go back to the model with Lean's messages in place."""

from collections.abc import Sequence
from pathlib import Path

from prover.artifacts import Artifact, ArtifactWriter, OnShard, owed_problems
from prover.config import CorrectConfig, SamplingConfig
from prover.engines import Sampling
from prover.engines.lease import EngineLease
from prover.models import Model
from prover.progress import Progress
from prover.prompts import Prompt
from prover.records import Attempt, Problem, Verdict
from prover.seeds import derive_seed
from prover.stages import sample
from prover.stages.verify import Judged, fingerprints

_NEVER = frozenset({"proved", "no_proof", "timeout", "memory"})
"""Nothing to learn from: no error to show, or none that belongs to a place in the text."""

Parent = tuple[Problem, int, Attempt, Verdict]
"""A problem, which of its failures is to be corrected, the failure, and the verdict on it."""


def run(
    out: Path,
    *,
    problems: Artifact,
    failed: Sequence[Judged],
    model: Model,
    lease: EngineLease,
    prompt: Prompt,
    sampling: SamplingConfig,
    config: CorrectConfig,
    series: str,
    round: int,
    turn: int,
    seed: int,
    progress: Progress,
    on_shard: OnShard = lambda _artifact, _index: None,
    clean: bool = False,
) -> Artifact:
    """One corrected attempt for each of up to ``config.per_problem`` distinct failures of an unsolved problem.

    ``failed`` are the attempts of the turn before, wave by wave. Those whose conversation does not fit the model's
    context are not asked; how many is counted under ``unasked``.
    """
    writer = ArtifactWriter(
        out,
        {
            "stage": "correct",
            "series": series,
            "seed": seed,
            "turn": turn,
            "verdicts": fingerprints(failed),
            "per_problem": config.per_problem,
            **sample.recipe(problems, model, lease, prompt, sampling),
        },
        problems.shards,
        clean=clean,
    )
    owed = set() if writer.finished else set(writer.missing())

    def parents(index: int) -> list[Parent]:
        """What is to be corrected of a shard."""
        judged = {v.attempt_id: v for _, verdicts in failed for v in verdicts.read_shard(index, Verdict)}
        tried = [a for attempts, _ in failed for a in attempts.read_shard(index, Attempt)]
        return [
            (problem, number, parent, judged[parent.id])
            for problem in problems.read_shard(index, Problem)
            for number, parent in enumerate(_failures(problem, tried, judged)[: config.per_problem])
        ]

    counts = {"attempts": 0, "unasked": 0, "cut": 0}

    def count(corrected: list[Attempt], parents: list[Parent]) -> None:
        asked = {attempt.parent_id: attempt.messages for attempt in corrected}
        counts["attempts"] += len(corrected)
        for problem, _, parent, verdict in parents:
            counts["unasked"] += parent.id not in asked
            if prompt.cuts and parent.id in asked:
                counts["cut"] += asked[parent.id] != next(prompt.revisions(problem, parent, verdict))

    for index in range(problems.shards):
        if index not in owed:
            on_shard(writer.artifact, index)
            if not writer.finished:
                count(writer.artifact.read_shard(index, Attempt), parents(index))
    if writer.finished:
        return writer.finished
    drawn = Sampling(temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens)
    with progress.stage(f"{series} correct {turn}", owed_problems(problems, owed), "problems") as meter:
        for index in sorted(owed):
            mine = parents(index)
            asks = [
                sample.Ask(
                    f"{problem.id}/{series}.t{turn}.{number}",
                    problem,
                    prompt.revisions(problem, parent, verdict),
                    (derive_seed(seed, series, turn, parent.id),),
                    parent.id,
                )
                for problem, number, parent, verdict in mine
            ]
            corrected = sample.generate(lease, asks, drawn, prompt, model, round=round, turn=turn, meter=meter)
            writer.write(index, corrected)
            count(corrected, mine)
            meter.add(owed_problems(problems, [index]))
            on_shard(writer.artifact, index)
    sample.tell_overflow(counts, f"{series} turn {turn}: {{}} corrections", progress)
    return writer.finish(counts)


def _failures(problem: Problem, tried: list[Attempt], judged: dict[str, Verdict]) -> list[Attempt]:
    """Distinct failed candidates of an unsolved problem, in the order they were sampled."""
    mine = [a for a in tried if a.problem_id == problem.id and a.id in judged]
    if any(judged[a.id].proved for a in mine):
        return []
    distinct: dict[str, Attempt] = {}
    for attempt in mine:
        if attempt.proof is not None and judged[attempt.id].status not in _NEVER:
            distinct.setdefault(attempt.proof, attempt)
    return list(distinct.values())
