"""One command for each stage, on folders that the user names."""

from pathlib import Path
from typing import Annotated

import typer

from prover.options import (
    AskedModel,
    AttemptFolders,
    Cache,
    CheckerName,
    Clean,
    Config,
    Fresh,
    Project,
    RequireSandbox,
    Set,
    VerdictFolders,
    Workers,
    given,
    in_pairs,
    numbers,
    say,
    stage_config,
)

app = typer.Typer()
PANEL = "Single stages"

Problems = Annotated[
    Path, typer.Argument(help="Problems: a run's problems/<set> folder, or a JSONL file.", show_default=False)
]
ProblemsOption = Annotated[Path, typer.Option("--problems", help="The problems that the attempts are for.")]
Out = Annotated[Path, typer.Option(help="Folder that the stage writes; run the command again to go on.")]
ModelDir = Annotated[Path, typer.Option("--model", help="Hugging Face model directory with its tokenizer.")]
Attempts = Annotated[int | None, typer.Option("-n", min=1, show_default="8", help="Completions for each problem.")]
Series = Annotated[str, typer.Option(help="Names the attempts; part of their ids and seeds.")]


@app.command("init-model", rich_help_panel=PANEL)
def init_model(
    problems: Problems,
    out: Out,
    vocab_size: Annotated[
        int | None, typer.Option(min=300, show_default="1500", help="Tokens of the vocabulary.")
    ] = None,
    hidden_size: Annotated[int | None, typer.Option(min=32, show_default="192", help="Width of the model.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, show_default="4", help="Transformer layers.")] = None,
    context: Annotated[int | None, typer.Option(min=64, show_default="512", help="Longest sequence, tokens.")] = None,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Make a small Llama from scratch, its tokenizer trained on the problems' text."""
    from prover import single
    from prover.config import InitModel

    shape = given(
        InitModel, type="init", vocab_size=vocab_size, hidden_size=hidden_size, layers=layers, context=context
    )
    loaded = stage_config(config, assignments)
    model = single.initialise(out, problems, config=shape, prompt=loaded.prompt, seed=loaded.seed, clean=clean)
    typer.echo(f"model: {model.path}")


@app.command(rich_help_panel=PANEL)
def sample(
    problems: Problems,
    out: Out,
    model: AskedModel = None,
    n: Attempts = None,
    series: Series = "s",
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Sample whole proofs from a model, n for each problem (sampling.enough needs verdicts, and is for iterate)."""
    from prover import single
    from prover.console import open_progress

    loaded = stage_config(config, assignments, sampling__n=n)
    with open_progress() as progress:
        attempts = single.sampled(
            out,
            problems,
            model,
            sampling=loaded.sampling,
            engine=loaded.engine,
            prompt=loaded.prompt,
            series=series,
            seed=loaded.seed,
            clean=clean,
            progress=progress,
        )
    say("attempts", attempts.path)


@app.command(rich_help_panel=PANEL)
def verify(
    attempts: Annotated[Path, typer.Argument(help="Folder of attempts.")],
    problems: ProblemsOption,
    out: Out,
    certify: Annotated[
        bool,
        typer.Option("--certify/--no-certify", help="Whether proofs are put to a second Lean at once."),
    ] = True,
    workers: Workers = None,
    lean_project: Project = None,
    cache: Cache = None,
    require_sandbox: RequireSandbox = False,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Let Lean judge attempts."""
    from prover import single
    from prover.console import open_progress

    loaded = stage_config(config, assignments, workers=workers, project=lean_project)
    with open_progress() as progress:
        verdicts = single.verified(
            out,
            problems,
            attempts,
            lean=loaded.lean,
            certify=certify,
            prompt=loaded.prompt,
            correct=loaded.correct,
            cache=cache,
            require_sandbox=require_sandbox,
            clean=clean,
            progress=progress,
        )
    say("verdicts", verdicts.path)


@app.command(rich_help_panel=PANEL)
def certify(
    attempts: Annotated[Path, typer.Argument(help="Folder of attempts.")],
    verdicts: Annotated[Path, typer.Option(help="Folder of the verdicts on them.")],
    problems: ProblemsOption,
    out: Out,
    workers: Workers = None,
    lean_project: Project = None,
    cache: Cache = None,
    checker: CheckerName = None,
    require_sandbox: RequireSandbox = False,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Put proofs that are only audited to a second Lean, which never sees their text; also to another kernel."""
    from lean_env import external
    from prover import single
    from prover.console import open_progress

    lean = stage_config(config, assignments, workers=workers, project=lean_project).lean
    with open_progress() as progress:
        raised = single.certified(
            out,
            problems,
            attempts,
            verdicts,
            lean=lean,
            cache=cache,
            checker=external.find(checker) if checker else None,
            require_sandbox=require_sandbox,
            clean=clean,
            progress=progress,
        )
    say("verdicts", raised.path)


@app.command(rich_help_panel=PANEL)
def correct(
    attempts: Annotated[Path, typer.Argument(help="Folder of attempts.")],
    verdicts: Annotated[Path, typer.Option(help="Folder of the verdicts on them.")],
    problems: ProblemsOption,
    out: Out,
    model: AskedModel = None,
    turn: Annotated[int, typer.Option(min=1, help="Which turn of correction this is.")] = 1,
    series: Series = "s",
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Ask the model again about failed attempts, with Lean's messages in place."""
    from prover import single
    from prover.console import open_progress

    loaded = stage_config(config, assignments, sampling__n=1)
    with open_progress() as progress:
        corrections = single.corrected(
            out,
            problems,
            attempts,
            verdicts,
            model,
            sampling=loaded.sampling,
            config=loaded.correct,
            engine=loaded.engine,
            prompt=loaded.prompt,
            series=series,
            turn=turn,
            seed=loaded.seed,
            clean=clean,
            progress=progress,
        )
    say("attempts", corrections.path)


@app.command(rich_help_panel=PANEL)
def select(
    problems: ProblemsOption,
    attempts: AttemptFolders,
    verdicts: VerdictFolders,
    out: Out,
    fresh: Fresh = None,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Choose training examples: proved, distinct, a few for each problem."""
    judged = in_pairs(attempts, verdicts)
    from prover import single
    from prover.console import open_progress
    from prover.report import print_buckets

    loaded = stage_config(config, assignments)
    with open_progress() as progress:
        examples = single.selected(
            out,
            problems,
            judged,
            fresh=fresh,
            config=loaded.select,
            prompt=loaded.prompt,
            seed=loaded.seed,
            clean=clean,
            progress=progress,
        )
    print_buckets(examples.path)
    say("examples", examples.path)


@app.command(rich_help_panel=PANEL)
def sft(
    examples: Annotated[Path, typer.Argument(help="Folder of training examples, as `prover select` writes it.")],
    model: ModelDir,
    out: Out,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Fine-tune a model; the loss covers the answers only."""
    from prover import single
    from prover.console import open_progress

    loaded = stage_config(config, assignments)
    with open_progress() as progress:
        tuned = single.tuned(
            out,
            examples,
            model,
            config=loaded.sft,
            launch=loaded.launch,
            seed=loaded.seed,
            clean=clean,
            progress=progress,
        )
    typer.echo(f"model: {tuned.path}")


@app.command(rich_help_panel=PANEL)
def average(
    models: Annotated[list[Path], typer.Argument(help="Model directories of one architecture; the first gives files.")],
    out: Out,
    weight: Annotated[
        list[float] | None, typer.Option(min=0, show_default="equal", help="Weight of each model, in order; repeat it.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The model that they were tuned from: go average.tuned_weight of the way.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="0.5,0.6,...",
            show_default="average.sweep",
            help="Try these as average.tuned_weight, keep the best on --problems.",
        ),
    ] = None,
    problems: Annotated[
        Path | None, typer.Option(help="Problems that a sweep is evaluated on, as `prover evaluate` takes them.")
    ] = None,
    workers: Workers = None,
    lean_project: Project = None,
    require_sandbox: RequireSandbox = False,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Make one model of several: weighted means, TIES, DARE, Model Breadcrumbs."""
    weights = weight or [1.0] * len(models)
    if len(weights) != len(models) or sum(weights) <= 0:
        raise typer.BadParameter(f"{len(models)} models need as many --weight options, with a sum above 0")
    loaded = stage_config(config, assignments, workers=workers, project=lean_project)
    parts = list(zip(models, weights, strict=True))
    from prover.console import open_progress

    if sweep is None and problems is None:
        from prover import single

        with open_progress() as progress:
            mean = single.averaged(
                out, parts, base=base, config=loaded.average, seed=loaded.seed, clean=clean, progress=progress
            )
        typer.echo(f"model: {mean.path}")
        return
    tried = numbers("--sweep", sweep) if sweep is not None else loaded.average.sweep if loaded.average else ()
    if not tried:
        raise typer.BadParameter("--problems is what a sweep chooses on: give --sweep too, or set average.sweep")
    if base is None or problems is None:
        raise typer.BadParameter("--sweep needs --base DIR, which the models were tuned from, and --problems")
    from prover.report.sweep import print_sweep
    from prover.sweep import swept

    with open_progress() as progress:
        points = swept(
            out,
            parts,
            base,
            problems,
            tuned_weights=tried,
            config=loaded,
            require_sandbox=require_sandbox,
            clean=clean,
            progress=progress,
        )
    print_sweep(points.path)
    typer.echo(f"model: {out / 'model'}")


@app.command(rich_help_panel=PANEL)
def evaluate(
    problems: Problems,
    out: Out,
    model: AskedModel = None,
    portfolio: Annotated[
        bool, typer.Option("--portfolio", help="Evaluate the fixed tactic list instead of a model.")
    ] = False,
    n: Attempts = None,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, show_default="1 8", help="evaluate.k: k of pass@k; repeat it.")
    ] = None,
    workers: Workers = None,
    lean_project: Project = None,
    cache: Cache = None,
    checker: CheckerName = None,
    require_sandbox: RequireSandbox = False,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Measure pass@k of a model, or of the fixed tactic list, with 95 % intervals."""
    if portfolio and model is not None:
        raise typer.BadParameter("give --model DIR, or --portfolio, and not both")
    from lean_env import external
    from prover import single
    from prover.console import open_progress
    from prover.report import print_scores

    enough = max(k) if portfolio and k else None  # the list is as long as it is; n means nothing to it
    loaded = stage_config(
        config, assignments, workers=workers, project=lean_project, evaluate__n=n or enough, evaluate__k=k or None
    )
    with open_progress() as progress:
        scores = single.evaluated(
            out,
            problems,
            model,
            portfolio=portfolio,
            ks=sorted(set(loaded.evaluate.k)),
            sampling=loaded.evaluation_sampling(),
            lean=loaded.lean,
            cache=cache,
            checker=external.find(checker) if checker else None,
            require_sandbox=require_sandbox,
            engine=loaded.engine,
            prompt=loaded.prompt,
            seed=loaded.seed,
            clean=clean,
            progress=progress,
        )
    print_scores(scores.path)
