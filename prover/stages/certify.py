"""Raise verdicts that are only audited to certified, and put them to another kernel, or find that they do not hold."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from lean_env.external import Checker, External, opened
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
    checker: Checker | None = None,
    clean: bool = False,
) -> Artifact:
    """The verdicts as they are, but for proofs that no second worker has certified, or that ``checker`` has not agreed
    to: those are checked anew, and certified this time or no longer proved.

    Equal proofs of a problem are checked once. Raises CheckerError where the checker cannot be relied on.
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
            **recipe_of(checker),
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    missing, before = writer.missing(), pool.stats.cached
    with (
        progress.stage(f"{series} certify", len(missing), "shards") as meter,
        opened(checker, pool.toolchain) as external,
    ):
        opinion = external.opinion if external else None
        for index in missing:
            shard = _Shard(index, problems, attempts, verdicts, checker)
            for result in pool.check(shard.requests(limits), opinion=opinion):
                verdict = result if isinstance(result, Verdict) else None
                shard.found[int(result.attempt_id)] = verdict
                meter.add(checks=1, proved=int(verdict is not None and verdict.proved))
            writer.write(index, shard.verdicts())
            meter.add(1)
    tell_cached(pool.stats.cached - before, series, progress)
    counts = _counts(writer.artifact, checker)
    tell_opinions(external, series, progress)
    tell_disagreements(counts, series, progress)
    return writer.finish(counts, toolchain=pool.toolchain.version)


def recipe_of(checker: Checker | None) -> dict[str, str]:
    """What a checker adds to the recipe of a stage: its name and version, not where it lies."""
    return {"checker": checker.label} if checker else {}


def tell_opinions(external: External | None, series: str, progress: Progress) -> None:
    """Proofs that the checker has no opinion of stay what they are, but nobody is to think that it agreed."""
    if external is not None and external.without:
        progress.note(
            f"{series}: {external.checker.label} has no opinion of {len(external.without)} proofs "
            f"({external.without[0]}); `prover certify --checker {external.checker.name}` on these verdicts asks again"
        )


def _counts(verdicts: Artifact, checker: Checker | None) -> dict[str, int]:
    counts = {"verdicts": 0, "proved": 0, "certified": 0, "disagreements": 0}
    if checker is not None:
        counts["checked"] = 0
    for verdict in verdicts.read(Verdict):
        counts["verdicts"] += 1
        counts["proved"] += verdict.proved
        counts["certified"] += verdict.level == "certified"
        counts["disagreements"] += is_disagreement(verdict)
        if checker is not None:
            counts["checked"] += checker.label in verdict.checkers
    return counts


class _Shard:
    """Verdicts of one shard, and which candidates have to be checked for them."""

    def __init__(
        self, index: int, problems: Artifact, attempts: Artifact, verdicts: Artifact, checker: Checker | None
    ) -> None:
        self._problems = {p.id: p for p in problems.read_shard(index, Problem)}
        self._before = verdicts.read_shard(index, Verdict)
        tried = {a.id: a for a in attempts.read_shard(index, Attempt)}
        owed = (tried[v.attempt_id] for v in self._before if v.proved and not vouched_for(v, checker))
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
                # What another checker has said of the same proof still holds.
                others = [c for c in verdict.checkers if found.proved and c not in found.checkers]
                yield msgspec.structs.replace(found, attempt_id=verdict.attempt_id, checkers=(*others, *found.checkers))


def vouched_for(verdict: Verdict, checker: Checker | None) -> bool:
    """Whether a proof is certified, and agreed to by the checker if there is one."""
    return verdict.level == "certified" and (checker is None or checker.label in verdict.checkers)
