"""Evaluations that share problems, a Lean pool and an engine."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from lean_env.external import Checker
from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from prover import layout
from prover.artifacts import Artifact
from prover.config import SamplingConfig
from prover.engines.lease import EngineLease
from prover.models import Model
from prover.overlap import overlapped
from prover.progress import Progress
from prover.prompts import Prompt
from prover.stages import certify, evaluate, sample, verify
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
        judged = overlapped(
            lambda on_shard: sample.run(
                out / layout.ATTEMPTS,
                problems=self.problems,
                model=model,
                lease=self.lease,
                prompt=self.prompt,
                sampling=sampling,
                series=f"v{self.round}" if self.round else "e",
                round=self.round,
                seed=self.seed,
                progress=self.progress,
                on_shard=on_shard,
                clean=self.clean,
            ),
            lambda attempts, ready: self.judge(out, attempts, ready),
            self.pool.close,
        )
        self.seen.append(judged)
        return self.score(out, judged, ks=ks, ordered=False)

    def judge(
        self, out: Path, attempts: Artifact, ready: Iterable[int] | None = None, until_proved: bool = False
    ) -> Artifact:
        """Verdicts in ``out/verdicts``."""
        return verify.run(
            out / layout.VERDICTS,
            problems=self.problems,
            attempts=attempts,
            pool=self.pool,
            limits=self.limits,
            series=f"v{self.round} {out.name}" if self.round else out.name,
            progress=self.progress,
            earlier=self.seen,
            ready=ready,
            until_proved=until_proved,
            clean=self.clean,
        )

    def score(self, out: Path, judged: Judged, *, ks: Sequence[int], ordered: bool) -> Artifact:
        """Scores in ``out/scores``; with a checker, verdicts with its opinion in ``out/checked`` first."""
        if self.checker is not None:
            checked = certify.run(
                out / layout.CHECKED,
                problems=self.problems,
                judged=judged,
                pool=self.pool,
                limits=self.limits,
                series=out.name,
                checker=self.checker,
                progress=self.progress,
                clean=self.clean,
            )
            judged = judged[0], checked
        return evaluate.run(
            out / layout.SCORES, problems=self.problems, judged=judged, ks=ks, ordered=ordered, clean=self.clean
        )
