"""Raise verdicts that are only audited to certified, or find that they do not hold."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits
from prover.artifacts import Artifact, ArtifactWriter
from prover.progress import Progress
from prover.records import Attempt, Problem, Verdict
from prover.stages.verify import Judged, is_disagreement, tell_cached, tell_disagreements


def run(
    out: Path,
    *,
    problems: Artifact,
    judged: Judged,
    pool: LeanPool,
    limits: Limits,
    series: str,
    progress: Progress,
    clean: bool = False,
) -> Artifact:
    """The verdicts as they are, but for proofs that no second worker has certified: those are checked anew, and
    certified this time or no longer proved.

    Equal proofs of a problem are checked once.
    """
    attempts, verdicts = judged
    writer = ArtifactWriter(
        out,
        {
            "stage": "certify",
            "attempts": attempts.fingerprint,
            "verdicts": verdicts.fingerprint,
            "limits": msgspec.to_builtins(limits),
            "toolchain": pool.toolchain.version,
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    missing, before = writer.missing(), pool.stats.cached
    with progress.stage(f"{series} certify", len(missing), "shards") as meter:
        for index in missing:
            shard = _Shard(index, problems, attempts, verdicts)
            for result in pool.check(shard.requests(limits)):
                verdict = result if isinstance(result, Verdict) else None
                shard.found[int(result.attempt_id)] = verdict
                meter.add(checks=1, proved=int(verdict is not None and verdict.proved))
            writer.write(index, shard.verdicts())
            meter.add(1)
    tell_cached(pool.stats.cached - before, series, progress)
    counts = _counts(writer.artifact)
    tell_disagreements(counts, series, progress)
    return writer.finish(counts, toolchain=pool.toolchain.version)


def _counts(verdicts: Artifact) -> dict[str, int]:
    counts = {"verdicts": 0, "proved": 0, "certified": 0, "disagreements": 0}
    for verdict in verdicts.read(Verdict):
        counts["verdicts"] += 1
        counts["proved"] += verdict.proved
        counts["certified"] += verdict.level == "certified"
        counts["disagreements"] += is_disagreement(verdict)
    return counts


class _Shard:
    """Verdicts of one shard, and which candidates have to be checked for them."""

    def __init__(self, index: int, problems: Artifact, attempts: Artifact, verdicts: Artifact) -> None:
        self._problems = {p.id: p for p in problems.read_shard(index, Problem)}
        self._before = verdicts.read_shard(index, Verdict)
        tried = {a.id: a for a in attempts.read_shard(index, Attempt)}
        owed = (tried[v.attempt_id] for v in self._before if v.proved and v.level != "certified")
        self._texts = {a.id: (a.problem_id, a.proof or "") for a in owed}
        self._numbers = {text: number for number, text in enumerate(dict.fromkeys(self._texts.values()))}
        self.found: dict[int, Verdict | None] = {}
        """By number of the candidate; None where its problem does not elaborate."""

    def requests(self, limits: Limits) -> Iterator[CheckRequest]:
        for (problem_id, proof), number in self._numbers.items():
            problem = self._problems[problem_id]
            yield CheckRequest(
                str(number), problem.header, problem.formal_statement, proof, problem.forbidden_constants, limits
            )

    def verdicts(self) -> Iterator[Verdict]:
        for verdict in self._before:
            text = self._texts.get(verdict.attempt_id)
            if text is None:
                yield verdict
            elif (found := self.found[self._numbers[text]]) is not None:
                yield msgspec.structs.replace(found, attempt_id=verdict.attempt_id)
