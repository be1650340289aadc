"""One command for each stage, on folders that the user names."""

from pathlib import Path
from typing import Annotated

import typer

from prover.options import (
    Attempts,
    BatchSize,
    CheckerName,
    Clean,
    CpuSeconds,
    Device,
    Heartbeats,
    MaxTokens,
    MemoryMb,
    Project,
    Prompt,
    RequireSandbox,
    Script,
    Seed,
    Style,
    Temperature,
    TopP,
    Workers,
    engine_config,
    given,
    lean_config,
    sampling_config,
)

app = typer.Typer()
PANEL = "Single stages"

Problems = Annotated[
    Path, typer.Argument(help="Problems: a run's problems/<set> folder, or a JSONL file.", show_default=False)
]
ProblemsOption = Annotated[Path, typer.Option("--problems", help="The problems that the attempts are for.")]
Out = Annotated[Path, typer.Option(help="Folder that the stage writes; run the command again to go on.")]
ModelDir = Annotated[
    Path, typer.Option("--model", help="Hugging Face model directory with tokenizer and chat template.")
]
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
    prompt: Prompt = Style.plain,
    seed: Seed = 0,
    clean: Clean = False,
) -> None:
    """Make a small Llama from scratch, its tokenizer trained on the problems' text."""
    from prover import single
    from prover.config import InitModel

    config = given(
        InitModel, type="init", vocab_size=vocab_size, hidden_size=hidden_size, layers=layers, context=context
    )
    model = single.initialise(out, problems, config=config, prompt=prompt.value, seed=seed, clean=clean)
    typer.echo(f"model: {model.path}")


@app.command(rich_help_panel=PANEL)
def sample(
    problems: Problems,
    model: ModelDir,
    out: Out,
    n: Attempts = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    prompt: Prompt = Style.chat,
    series: Series = "s",
    seed: Seed = 0,
    batch_size: BatchSize = None,
    device: Device = None,
    script: Script = None,
    clean: Clean = False,
) -> None:
    """Sample whole proofs from a model."""
    from prover import single
    from prover.console import open_progress

    with open_progress() as progress:
        attempts = single.sampled(
            out,
            problems,
            model,
            sampling=sampling_config(n, temperature, top_p, max_tokens),
            engine=engine_config(script, batch_size, device),
            prompt=prompt.value,
            series=series,
            seed=seed,
            clean=clean,
            progress=progress,
        )
    _say("attempts", attempts.path)


@app.command(rich_help_panel=PANEL)
def verify(
    attempts: Annotated[Path, typer.Argument(help="Folder of attempts.")],
    problems: ProblemsOption,
    out: Out,
    workers: Workers = None,
    heartbeats: Heartbeats = None,
    cpu_seconds: CpuSeconds = None,
    memory_mb: MemoryMb = None,
    certify: Annotated[
        bool,
        typer.Option("--certify/--no-certify", help="Whether proofs are put to a second Lean at once."),
    ] = True,
    lean_project: Project = None,
    require_sandbox: RequireSandbox = False,
    clean: Clean = False,
) -> None:
    """Let Lean judge attempts."""
    from prover import single
    from prover.console import open_progress

    lean = lean_config(workers, heartbeats, cpu_seconds, memory_mb, lean_project)
    with open_progress() as progress:
        verdicts = single.verified(
            out,
            problems,
            attempts,
            lean=lean,
            certify=certify,
            require_sandbox=require_sandbox,
            clean=clean,
            progress=progress,
        )
    _say("verdicts", verdicts.path)


@app.command(rich_help_panel=PANEL)
def certify(
    attempts: Annotated[Path, typer.Argument(help="Folder of attempts.")],
    verdicts: Annotated[Path, typer.Option(help="Folder of the verdicts on them.")],
    problems: ProblemsOption,
    out: Out,
    workers: Workers = None,
    heartbeats: Heartbeats = None,
    cpu_seconds: CpuSeconds = None,
    memory_mb: MemoryMb = None,
    lean_project: Project = None,
    checker: CheckerName = None,
    require_sandbox: RequireSandbox = False,
    clean: Clean = False,
) -> None:
    """Put proofs that are only audited to a second Lean, which never sees their text; also to another kernel."""
    from lean_env import external
    from prover import single
    from prover.console import open_progress

    lean = lean_config(workers, heartbeats, cpu_seconds, memory_mb, lean_project)
    with open_progress() as progress:
        raised = single.certified(
            out,
            problems,
            attempts,
            verdicts,
            lean=lean,
            checker=external.find(checker) if checker else None,
            require_sandbox=require_sandbox,
            clean=clean,
            progress=progress,
        )
    _say("verdicts", raised.path)


@app.command(rich_help_panel=PANEL)
def correct(
    attempts: Annotated[Path, typer.Argument(help="Folder of attempts.")],
    verdicts: Annotated[Path, typer.Option(help="Folder of the verdicts on them.")],
    problems: ProblemsOption,
    model: ModelDir,
    out: Out,
    turn: Annotated[int, typer.Option(min=1, help="Which turn of correction this is.")] = 1,
    per_problem: Annotated[
        int | None, typer.Option(min=1, show_default="4", help="Failed attempts of a problem that are corrected.")
    ] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    prompt: Prompt = Style.chat,
    series: Series = "s",
    seed: Seed = 0,
    batch_size: BatchSize = None,
    device: Device = None,
    script: Script = None,
    clean: Clean = False,
) -> None:
    """Ask the model again about failed attempts, with Lean's messages in place."""
    from prover import single
    from prover.config import CorrectConfig
    from prover.console import open_progress

    with open_progress() as progress:
        corrections = single.corrected(
            out,
            problems,
            attempts,
            verdicts,
            model,
            sampling=sampling_config(1, temperature, top_p, max_tokens),
            config=given(CorrectConfig, per_problem=per_problem),
            engine=engine_config(script, batch_size, device),
            prompt=prompt.value,
            series=series,
            turn=turn,
            seed=seed,
            clean=clean,
            progress=progress,
        )
    _say("attempts", corrections.path)


@app.command(rich_help_panel=PANEL)
def select(
    problems: ProblemsOption,
    attempts: Annotated[list[Path], typer.Option(help="Folder of attempts; repeat it for several.")],
    verdicts: Annotated[list[Path], typer.Option(help="Folder of their verdicts; as often, in the same order.")],
    out: Out,
    per_problem: Annotated[
        int | None, typer.Option(min=1, show_default="4", help="Distinct proofs kept of one problem.")
    ] = None,
    rarity: Annotated[
        float | None,
        typer.Option(min=0, max=1, show_default="0.0", help="An answer given for m problems weighs m^-rarity."),
    ] = None,
    prompt: Prompt = Style.chat,
    seed: Seed = 0,
    clean: Clean = False,
) -> None:
    """Choose training examples: proved, distinct, a few for each problem."""
    if len(attempts) != len(verdicts):
        raise typer.BadParameter(f"{len(attempts)} --attempts but {len(verdicts)} --verdicts; give them in pairs")
    from prover import single
    from prover.config import SelectConfig

    examples = single.selected(
        out,
        problems,
        list(zip(attempts, verdicts, strict=True)),
        config=given(SelectConfig, per_problem=per_problem, rarity=rarity),
        prompt=prompt.value,
        seed=seed,
        clean=clean,
    )
    _say("examples", examples.path)


@app.command(rich_help_panel=PANEL)
def sft(
    examples: Annotated[Path, typer.Argument(help="Folder of training examples, as `prover select` writes it.")],
    model: ModelDir,
    out: Out,
    steps: Annotated[int | None, typer.Option(min=1, show_default="150", help="Optimizer steps.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(show_default="0.001", help="Peak learning rate (AdamW).")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=64, show_default="4096", help="Tokens of one step, padding included.")
    ] = None,
    warmup_steps: Annotated[int | None, typer.Option(min=0, show_default="20", help="Steps of rising rate.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, show_default="0.05", help="AdamW's weight decay.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, show_default="100", help="Steps between resumable checkpoints.")
    ] = None,
    seed: Seed = 0,
    clean: Clean = False,
) -> None:
    """Fine-tune a model; the loss covers the answers only."""
    from prover import single
    from prover.config import SftConfig
    from prover.console import open_progress

    config = given(
        SftConfig,
        steps=steps,
        learning_rate=learning_rate,
        batch_tokens=batch_tokens,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        checkpoint_every=checkpoint_every,
    )
    with open_progress() as progress:
        tuned = single.tuned(out, examples, model, config=config, seed=seed, clean=clean, progress=progress)
    typer.echo(f"model: {tuned.path}")


@app.command(rich_help_panel=PANEL)
def average(
    models: Annotated[list[Path], typer.Argument(help="Model directories of one architecture.")],
    out: Out,
    weight: Annotated[
        list[float] | None, typer.Option(min=0, show_default="equal", help="Weight of each model, in order; repeat it.")
    ] = None,
    clean: Clean = False,
) -> None:
    """Average checkpoints, tensor by tensor."""
    weights = weight or [1.0] * len(models)
    if len(weights) != len(models) or sum(weights) <= 0:
        raise typer.BadParameter(f"{len(models)} models need as many --weight options, with a sum above 0")
    from prover import single

    mean = single.averaged(out, list(zip(models, weights, strict=True)), clean=clean)
    typer.echo(f"model: {mean.path}")


@app.command(rich_help_panel=PANEL)
def evaluate(
    problems: Problems,
    out: Out,
    model: Annotated[Path | None, typer.Option(help="Hugging Face model directory.")] = None,
    portfolio: Annotated[
        bool, typer.Option("--portfolio", help="Evaluate the fixed tactic list instead of a model.")
    ] = False,
    n: Attempts = None,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, show_default="1 8", help="k of pass@k; repeat it.")
    ] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    prompt: Prompt = Style.chat,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    device: Device = None,
    script: Script = None,
    workers: Workers = None,
    heartbeats: Heartbeats = None,
    cpu_seconds: CpuSeconds = None,
    memory_mb: MemoryMb = None,
    lean_project: Project = None,
    checker: CheckerName = None,
    require_sandbox: RequireSandbox = False,
    clean: Clean = False,
) -> None:
    """Measure pass@k of a model, or of the fixed tactic list, with 95 % intervals."""
    if portfolio == (model is not None):
        raise typer.BadParameter("give --model DIR, or --portfolio, and not both")
    sampling = sampling_config(n, temperature, top_p, max_tokens)
    ks = sorted(set(k or [1, 8]))
    if ks[-1] > sampling.n and not portfolio:
        raise typer.BadParameter(f"-k {ks[-1]} needs at least as many attempts: -n {ks[-1]}")
    from lean_env import external
    from prover import single
    from prover.console import open_progress
    from prover.report import print_scores

    with open_progress() as progress:
        scores = single.evaluated(
            out,
            problems,
            model,
            ks=ks,
            sampling=sampling,
            lean=lean_config(workers, heartbeats, cpu_seconds, memory_mb, lean_project),
            checker=external.find(checker) if checker else None,
            require_sandbox=require_sandbox,
            engine=engine_config(script, batch_size, device),
            prompt=prompt.value,
            seed=seed,
            clean=clean,
            progress=progress,
        )
    print_scores(scores.path)


def _say(what: str, path: Path) -> None:
    """Name the artifact on stdout and its counts, so that the next command can be written from it."""
    from prover.artifacts import read_manifest

    counts = ", ".join(f"{count:,} {name}" for name, count in read_manifest(path).counts.items())
    typer.echo(f"{what}: {path} ({counts})")
