"""The expert-iteration loop: sample, verify, correct, select, fine-tune, average, evaluate, and again.

Every step returns at once where its artifact is finished, so the loop is its own resume: run it again and it goes on.
"""

from collections.abc import Iterable
from pathlib import Path

from lean_env.cache import VerdictCache
from lean_env.pool import LeanPool
from lean_env.protocol import Depth
from prover import layout, sweep, waves
from prover.allocation import evaluation_plan, training_plan
from prover.apart import check_apart
from prover.artifacts import Artifact, OnShard, provenance, run_lock, write_json
from prover.claim import claim
from prover.config import ColdTactics, InitModel, IterateConfig, ProblemsConfig
from prover.engines.lease import EngineLease
from prover.ground import Ground
from prover.lean import limits_in_force, open_lean
from prover.models import Model, open_model
from prover.overlap import overlapped
from prover.preference import preferring
from prover.progress import Progress, Silent
from prover.prompts import Prompt
from prover.stages import cold, correct, evaluate, init, select, sft, verify
from prover.stages import problems as problems_stage
from prover.stages.verify import Judged
from prover.tactics import PORTFOLIO


def iterate(
    config: IterateConfig,
    run_dir: Path,
    *,
    clean: bool = False,
    require_sandbox: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Run the loop in ``run_dir``, or go on with it.

    Raises ArtifactError where the directory was made by another configuration (the changed keys are named),
    RunLockedError where another process works on it. ``clean`` deletes what is there and starts over.
    ``require_sandbox`` raises SandboxError where this machine does not confine Lean in full. ``cache`` is a file of
    verdicts that are taken from there and kept, None the run's own; it decides nothing that the run finds.
    """
    progress = progress or Silent()
    with run_lock(run_dir):
        claim(config, run_dir, clean)
        toolchain = open_lean(config.lean, require_sandbox=require_sandbox, say=progress.note)
        confinement = limits_in_force(config.lean)
        write_json(run_dir / "run.json", {**provenance(), "toolchain": toolchain.version, "confinement": confinement})
        with (
            VerdictCache(cache or run_dir / layout.VERDICT_CACHE, progress.note) as verdicts,
            LeanPool(toolchain, workers=config.lean.workers, cache=verdicts) as pool,
            EngineLease(config.engine) as lease,
        ):
            Loop(config, run_dir, pool, lease, progress).run()


SYNTAX_WEIGHT = 0.05
"""What a problem's unverified proofs weigh together beside verified ones."""


class Loop:
    """One run: its configuration, its folder, and the Lean pool and engine that its stages share."""

    def __init__(
        self, config: IterateConfig, run_dir: Path, pool: LeanPool, lease: EngineLease, progress: Progress
    ) -> None:
        self.config = config
        self.dir = run_dir
        self.pool = pool
        self.lease = lease
        self.progress = progress
        self.limits = config.lean.limits()
        self.prompt = Prompt(config.prompt)
        self.valid: Ground | None = None
        """What averages are chosen on."""

    def run(self) -> None:
        config = self.config
        train = self.problems(layout.TRAIN, config.train)
        sets = {name: self.problems(name, section) for name, section in config.evaluate_on.items()}
        if config.average and config.average.validate_on:
            valid = self.problems(layout.VALIDATE, config.average.validate_on)
            self.valid = Ground(valid, self.pool, self.lease, self.limits, self.prompt, config.seed, self.progress)
        check_apart(train, sets, self.valid.problems if self.valid else None, self.progress)
        listed = {name: self.portfolio(name, problems) for name, problems in sets.items() if config.evaluate.portfolio}
        baselines = {name: self.score_portfolio(name, sets[name], judged) for name, judged in listed.items()}
        seen: dict[str, list[Judged]] = {name: [listed[name]] if name in listed else [] for name in sets}

        model, learned = self.cold_start(train)
        start = model
        self.evaluate(0, model, sets, baselines, seen)
        for number in range(1, config.rounds + 1):
            new = self.attempt(number, model, train, learned)
            learned += new
            examples = self._select(number, train, learned, len(new))
            last = start if config.tune_from == "start" else model
            model = self.train(number, start, last, examples, train, learned)
            self.evaluate(number, model, sets, baselines, seen)
        if config.evaluate.control_n:
            self.control(start, sets, baselines, seen)

    def problems(self, name: str, section: ProblemsConfig) -> Artifact:
        return problems_stage.run(
            self.dir / layout.problems(name), name=name, section=section, pool=self.pool, progress=self.progress
        )

    def cold_start(self, train: Artifact) -> tuple[Model, list[Judged]]:
        """Round 0: the model that every round is tuned from, and the verified proofs that it learned from."""
        config, place = self.config, layout.cold()
        judged: list[Judged] = []
        examples: list[Artifact] = []
        if isinstance(config.cold, ColdTactics):
            attempts = cold.tactic_attempts(
                self.dir / place.attempts,
                problems=train,
                tactics=config.cold.tactics,
                share=config.cold.share,
                prompt=self.prompt,
                series="cold",
                seed=config.seed,
            )
            judged.append((attempts, self.verify(self.dir / place.verdicts, "cold", train, attempts)))
            examples.append(self._select(0, train, judged))
            if config.cold.syntax:
                examples.append(self._grammar(layout.syntax(), train, config.cold.syntax, SYNTAX_WEIGHT))
        elif config.cold is not None:
            examples.append(self._grammar(layout.select(0), train, config.cold.per_problem, 1.0))
        if isinstance(config.model, InitModel):
            model = init.run(
                self.dir / layout.init(),
                problems=train,
                examples=examples,
                config=config.model,
                prompt=self.prompt,
                seed=config.seed,
            )
        else:
            model = open_model(config.model.path, "base")
        if examples:
            self.lease.release()
            model = sft.run(
                self.dir / layout.sft(0),
                base=model,
                examples=examples,
                config=config.cold_sft or config.sft,
                launch=config.launch,
                series="r0",
                seed=config.seed,
                progress=self.progress,
            )
        return model, judged

    def _select(self, number: int, train: Artifact, judged: list[Judged], fresh: int | None = None) -> Artifact:
        config = self.config
        return select.run(
            self.dir / layout.select(number),
            problems=train,
            judged=judged,
            prompt=self.prompt,
            config=config.select,
            seed=config.seed,
            fresh=fresh,
            series=f"r{number}",
            progress=self.progress,
        )

    def _grammar(self, place: str, train: Artifact, per_problem: int, weight: float) -> Artifact:
        return cold.grammar_examples(
            self.dir / place,
            problems=train,
            per_problem=per_problem,
            weight=weight,
            prompt=self.prompt,
            seed=self.config.seed,
        )

    def attempt(self, number: int, model: Model, train: Artifact, earlier: list[Judged]) -> list[Judged]:
        """Sample and verify, wave by wave, then correct and verify, turn by turn."""
        config, series = self.config, f"r{number}"
        judged = waves.run(
            training_plan(config.sampling),
            lambda wave: layout.sampled(number, wave).under(self.dir),
            lambda out, label, attempts, ready, known, on_shard: self.verify(
                out,
                f"{series}{label}",
                train,
                attempts,
                [*earlier, *known],
                ready,
                feedback=self._feedback(0),
                on_shard=on_shard,
            ),
            self.pool.close,
            problems=train,
            model=model,
            lease=self.lease,
            prompt=self.prompt,
            sampling=config.sampling,
            series=series,
            round=number,
            seed=config.seed,
            progress=self.progress,
        )
        failed = judged
        for turn in range(1, config.correct.turns + 1):
            failed = [self._correct(turn, number, model, train, failed, [*earlier, *judged])]
            judged += failed
        return judged

    def _correct(
        self, turn: int, number: int, model: Model, train: Artifact, failed: list[Judged], earlier: list[Judged]
    ) -> Judged:
        config, series, place = self.config, f"r{number}", layout.corrected(number, turn)
        return overlapped(
            lambda on_shard: correct.run(
                self.dir / place.attempts,
                problems=train,
                failed=failed,
                model=model,
                lease=self.lease,
                prompt=self.prompt,
                sampling=config.sampling,
                config=config.correct,
                series=series,
                round=number,
                turn=turn,
                seed=config.seed,
                progress=self.progress,
                on_shard=on_shard,
            ),
            lambda attempts, ready: self.verify(
                self.dir / place.verdicts,
                f"{series} turn {turn}",
                train,
                attempts,
                earlier,
                ready,
                feedback=self._feedback(turn),
            ),
            self.pool.close,
        )

    def _feedback(self, turn: int) -> Depth:
        """How much the verdicts of a turn must tell the next."""
        return self.prompt.wanted if turn < self.config.correct.turns else "messages"

    def verify(
        self,
        out: Path,
        series: str,
        problems: Artifact,
        attempts: Artifact,
        earlier: list[Judged] | None = None,
        ready: Iterable[int] | None = None,
        until_proved: bool = False,
        feedback: Depth = "messages",
        on_shard: OnShard = lambda _artifact, _index: None,
    ) -> Artifact:
        return verify.run(
            out,
            problems=problems,
            attempts=attempts,
            pool=self.pool,
            limits=self.limits,
            series=series,
            progress=self.progress,
            earlier=earlier or (),
            ready=ready,
            until_proved=until_proved,
            feedback=feedback,
            on_shard=on_shard,
        )

    def train(
        self, number: int, start: Model, last: Model, examples: Artifact, train: Artifact, judged: list[Judged]
    ) -> Model:
        """Tune ``last`` on what was selected, then on preferences, and average it with the starting model, where the
        configuration asks for it.

        ``last`` is the start itself, so that errors of one round are not inherited by the next (Polu et al. 2022, arXiv
        2202.01344), or what the round before ended with. Averaging is with the start in both cases: that is the model
        that has the diversity which tuning loses.
        """
        config = self.config
        self.lease.release()
        tuned = sft.run(
            self.dir / layout.sft(number),
            base=last,
            examples=[examples],
            config=config.sft,
            launch=config.launch,
            series=f"r{number}",
            seed=config.seed + number,
            progress=self.progress,
        )
        tuned = preferring(tuned, self.dir, number, config, train, judged, self.progress)
        out = self.dir / layout.average(number)
        valid, progress = self.valid, self.progress
        return sweep.of_round(
            out, number=number, tuned=tuned, base=start, config=config, ground=valid, progress=progress
        )

    def portfolio(self, name: str, problems: Artifact) -> Judged:
        """The fixed tactic list on an evaluation set: the baseline that a learned prover has to beat."""
        place = layout.trial(layout.portfolio(name))
        attempts = cold.tactic_attempts(
            self.dir / place.attempts,
            problems=problems,
            tactics=PORTFOLIO,
            share=1.0,
            prompt=self.prompt,
            series="portfolio",
            seed=0,
        )
        return attempts, self.verify(
            self.dir / place.verdicts, f"portfolio {name}", problems, attempts, until_proved=True
        )

    def score_portfolio(self, name: str, problems: Artifact, judged: Judged) -> Artifact:
        out = self.dir / layout.scores(layout.portfolio(name))
        return evaluate.run(out, problems=problems, judged=[judged], ks=self.config.evaluate.k, ordered=True)

    def evaluate(
        self,
        number: int,
        model: Model,
        sets: dict[str, Artifact],
        baselines: dict[str, Artifact],
        seen: dict[str, list[Judged]],
    ) -> None:
        """Sample, verify and score each evaluation set."""
        for name, problems in sets.items():
            out = self.dir / layout.evaluated(number, name)
            self.evaluate_set(
                out, f"e{number}", number, model, problems, self.config.evaluate.n, baselines.get(name), seen[name]
            )

    def control(
        self, start: Model, sets: dict[str, Artifact], baselines: dict[str, Artifact], seen: dict[str, list[Judged]]
    ) -> None:
        """What the starting model reaches when the checks are spent on sampling it instead of on learning."""
        for name, problems in sets.items():
            out = self.dir / layout.control(name)
            n = self.config.evaluate.control_n
            self.evaluate_set(out, "control", 0, start, problems, n, baselines.get(name), seen[name])

    def evaluate_set(
        self,
        out: Path,
        series: str,
        number: int,
        model: Model,
        problems: Artifact,
        n: int,
        baseline: Artifact | None,
        seen: list[Judged],
    ) -> Artifact:
        """Sample ``n`` attempts a problem, verify beside it, score; ``seen`` gains what was judged."""
        config = self.config
        sampling = config.evaluation_sampling(n)
        plan = evaluation_plan(sampling)
        ground = Ground(
            *(problems, self.pool, self.lease, self.limits, self.prompt, config.seed, self.progress),
            round=number,
            seen=seen,
        )
        judged = ground.attempt(out, model, plan, sampling, series, f"{series} {out.name}")
        ks = sorted({k for k in (*config.evaluate.k, n) if k <= n})
        return ground.score(out, judged, ks=ks, plan=plan, baseline=baseline)
