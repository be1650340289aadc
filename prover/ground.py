"""Evaluations that share problems, a Lean pool and an engine."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from lean_env.external import Checker
from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from prover import layout, waves
from prover.allocation import Plan, evaluation_plan
from prover.artifacts import Artifact, OnShard
from prover.config import SamplingConfig
from prover.engines.lease import EngineLease
from prover.models import Model
from prover.progress import Progress
from prover.prompts import Prompt
from prover.stages import certify, evaluate, verify
from prover.stages.verify import Judged


class Ground(msgspec.Struct, frozen=True):
    """What the evaluations have in common."""

    problems: Artifact
    pool: LeanPool
    lease: EngineLease
    limits: Limits
    prompt: Prompt
    seed: int
    progress: Progress
    checker: Checker | None = None
    """Another kernel, which every proof is put to as well."""
    clean: bool = False
    round: int = 0
    """Of the loop; 0 for evaluations by themselves."""
    seen: list[Judged] = msgspec.field(default_factory=list)
    """What was judged here so far: verdicts on the same text are taken over."""

    def evaluate(self, out: Path, model: Model, *, sampling: SamplingConfig, ks: Sequence[int]) -> Artifact:
        """Scores of a model in ``out/scores``, attempts and verdicts beside."""
        plan = evaluation_plan(sampling)
        series = f"v{self.round}" if self.round else "e"
        label = f"{series} {out.name}" if self.round else out.name
        return self.score(out, self.attempt(out, model, plan, sampling, series, label), ks=ks, plan=plan)

    def attempt(
        self, out: Path, model: Model, plan: Plan, sampling: SamplingConfig, series: str, label: str
    ) -> list[Judged]:
        """Attempts in ``out/attempts`` and verdicts in ``out/verdicts``, wave by wave; ``seen`` gains them. ``label``
        is what progress calls them."""
        judged = waves.run(
            plan,
            lambda wave: layout.within(wave).under(out),
            lambda place, wave, attempts, ready, known, on_shard: self.judge(
                place, f"{label}{wave}", attempts, ready, known=known, on_shard=on_shard
            ),
            self.pool.close,
            problems=self.problems,
            model=model,
            lease=self.lease,
            prompt=self.prompt,
            sampling=sampling,
            series=series,
            round=self.round,
            seed=self.seed,
            progress=self.progress,
            clean=self.clean,
        )
        self.seen.extend(judged)
        return judged

    def judge(
        self,
        out: Path,
        series: str,
        attempts: Artifact,
        ready: Iterable[int] | None = None,
        *,
        known: Sequence[Judged] = (),
        until_proved: bool = False,
        on_shard: OnShard = lambda _artifact, _index: None,
    ) -> Artifact:
        """Verdicts in ``out``."""
        return verify.run(
            out,
            problems=self.problems,
            attempts=attempts,
            pool=self.pool,
            limits=self.limits,
            series=series,
            progress=self.progress,
            earlier=[*self.seen, *known],
            ready=ready,
            until_proved=until_proved,
            on_shard=on_shard,
            clean=self.clean,
        )

    def score(
        self,
        out: Path,
        judged: Sequence[Judged],
        *,
        ks: Sequence[int],
        plan: Plan | None = None,
        ordered: bool = False,
        baseline: Artifact | None = None,
    ) -> Artifact:
        """Scores in ``out/scores``; with a checker, verdicts with its opinion in ``out/checked`` first."""
        stopped_by = judged
        if self.checker is not None:
            judged = [self._checked(out, wave, *each) for wave, each in enumerate(judged)]
        return evaluate.run(
            out / layout.SCORES,
            problems=self.problems,
            judged=judged,
            ks=ks,
            plan=plan,
            stopped_by=stopped_by,
            ordered=ordered,
            baseline=baseline,
            clean=self.clean,
        )

    def _checked(self, out: Path, wave: int, attempts: Artifact, verdicts: Artifact) -> Judged:
        checked = certify.run(
            out / layout.wave_of(layout.CHECKED, wave),
            problems=self.problems,
            judged=(attempts, verdicts),
            pool=self.pool,
            limits=self.limits,
            series=out.name,
            checker=self.checker,
            progress=self.progress,
            clean=self.clean,
        )
        return attempts, checked
