"""The commands: parse, import late, call. Anything heavy is imported inside the command that needs it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prover import __version__, extract_command, preference_commands, stage_commands
from prover.options import (
    Cache,
    Commands,
    Config,
    Project,
    RequireSandbox,
    Set,
    Workers,
    problems_config,
    stage_config,
)

app = typer.Typer(
    cls=Commands,
    help="Train Lean 4 theorem provers by expert iteration; every proof is checked by real Lean.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prover {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


class Header(StrEnum):
    own = "own"
    core = "core"


class Source(StrEnum):
    core = "core"
    minif2f = "minif2f"
    jsonl = "jsonl"


@app.command()
def setup() -> None:
    """Install the embedded Lean (once; 122 MB to download, then offline)."""
    from lean_env.install import install
    from prover.console import show_steps

    with show_steps() as step:
        toolchain = install(step)
    typer.echo(f"Lean is ready: {toolchain.version}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    lean_project: Project = None,
) -> None:
    """Say what is installed, what is missing and the command that installs it; prove that Lean answers rightly."""
    from prover.console import show_steps
    from prover.doctor import examine, show

    with show_steps() as step:
        findings = examine(step, project=lean_project)
    show(findings, as_json=as_json)
    if findings.broken:
        raise typer.Exit(1)


@app.command()
def check(
    files: Annotated[list[Path] | None, typer.Argument(help="Lean files; errors are printed as compilers do.")] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines of {"id", "header", "formal_statement", "proof"}; the statement ends before `:=`.'
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the verdicts go, one JSON line each.")] = None,
    workers: Workers = None,
    lean_project: Project = None,
    cache: Cache = None,
    require_sandbox: RequireSandbox = False,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Check proofs with Lean: a JSONL file of candidates, or Lean files. Exit code 1: a Lean file has errors."""
    if bool(files) == bool(jsonl) or (jsonl is None) != (out is None):
        raise typer.BadParameter("give Lean files, or --jsonl IN together with --out OUT")
    if files and cache:
        raise typer.BadParameter("--cache is for --jsonl: what Lean says of files is not kept")
    from prover.check import check_files, check_jsonl
    from prover.console import open_progress
    from prover.lean import open_lean

    lean = stage_config(config, assignments, workers=workers, project=lean_project).lean
    toolchain = open_lean(lean, require_sandbox=require_sandbox, say=lambda text: typer.echo(text, err=True))
    if jsonl is None:
        if not check_files(files or [], workers=lean.workers, limits=lean.limits(), toolchain=toolchain):
            raise typer.Exit(1)
        return
    assert out is not None
    with open_progress() as progress:
        summary = check_jsonl(
            jsonl,
            out,
            workers=lean.workers,
            limits=lean.limits(),
            progress=progress,
            toolchain=toolchain,
            cache=cache,
        )
    typer.echo(str(summary))


@app.command()
def serve_lean(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback PROVER_TOKEN must hold a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8000,
    workers: Workers = None,
    lean_project: Project = None,
    cache: Cache = None,
    require_sandbox: RequireSandbox = False,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Serve the Lean pool over HTTP: /check, Kimina's /verify, /health, /metrics. The limits are the most that a
    request may ask for."""
    from prover.serving import serve_lean

    lean = stage_config(config, assignments, workers=workers, project=lean_project).lean
    serve_lean(
        host,
        port,
        lean=lean,
        cache=cache,
        require_sandbox=require_sandbox,
        say=lambda text: typer.echo(text, err=True),
    )


@app.command()
def problems(
    source: Annotated[
        Source, typer.Argument(help="core: theorems of Lean's own library; minif2f, jsonl: from a file.")
    ],
    file: Annotated[Path | None, typer.Argument(help="The JSONL file of minif2f or jsonl.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, valid or test; minif2f also knows all, its default.")
    ] = None,
    header: Annotated[
        Header | None,
        typer.Option(show_default="own", help="minif2f: its own Mathlib header, or notation for the embedded Lean."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, show_default="all", help="Problems at most: core's by a fixed hash, a file's first."),
    ] = None,
    premises: Annotated[
        int | None, typer.Option(min=0, max=32, show_default="0", help="Retrieved lemmas attached to each problem.")
    ] = None,
    elaborates: Annotated[
        bool, typer.Option("--elaborates", help="Keep those that Lean accepts; the others are named on stderr.")
    ] = False,
    out: Annotated[Path | None, typer.Option(show_default="stdout", help="JSONL file to write.")] = None,
    workers: Workers = None,
    lean_project: Project = None,
    require_sandbox: RequireSandbox = False,
) -> None:
    """Write problems as JSONL: from Lean's library, from miniF2F, or from a file of ours."""
    from prover.console import open_progress
    from prover.problems.write import run_problems

    config = problems_config(
        source.value,
        path=file,
        split=split,
        header=header.value if header else None,
        limit=limit,
        premises=premises,
    )
    lean = stage_config(None, None, workers=workers, project=lean_project).lean
    with open_progress() as progress:
        counts = run_problems(
            config, out, elaborates=elaborates, lean=lean, require_sandbox=require_sandbox, progress=progress
        )
    rejected = f", {counts.rejected:,} do not elaborate" if elaborates else ""
    typer.echo(f"{counts.written:,} problems written of {counts.read:,} read{rejected}", err=True)


@app.command()
def iterate(
    config: Annotated[Path, typer.Argument(help="TOML configuration, such as configs/quickstart.toml.")],
    run_dir: Annotated[
        Path | None, typer.Option(show_default="runs/<name of CONFIG>", help="Where everything of the run is kept.")
    ] = None,
    assignments: Set = None,
    clean: Annotated[bool, typer.Option("--clean", help="Delete what the run directory holds and start over.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            show_default="the run directory's own",
            help="Take verdicts from this file and keep them there; runs may share it, and are trusted alike.",
        ),
    ] = None,
    require_sandbox: RequireSandbox = False,
) -> None:
    """Train by expert iteration. Run the same command again after a stop: it goes on where it was."""
    from prover.config_file import load_config, parse_override
    from prover.console import open_progress
    from prover.pipeline import iterate
    from prover.report import print_rounds

    loaded = load_config(config, [parse_override(text) for text in assignments or ()])
    folder = run_dir or Path("runs") / config.stem
    with open_progress() as progress:
        iterate(loaded, folder, clean=clean, require_sandbox=require_sandbox, cache=cache, progress=progress)
    print_rounds(folder, hints=True)


@app.command()
def inspect(
    run: Annotated[Path, typer.Argument(help="A run directory, finished or not.")],
    problem: Annotated[
        str | None, typer.Option(help="Show one problem: statement, attempts, verdicts, errors.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="List the records of a stage, such as round_01/sample.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records listed at most.")] = 20,
    skip: Annotated[int, typer.Option(min=0, help="Records passed over first.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show a run: its rounds, one problem, or the records of one stage."""
    if problem is not None and stage is not None:
        raise typer.BadParameter("give --problem or --stage, not both")
    from prover.report import print_problem, print_rounds, print_stage

    if problem is not None:
        print_problem(run, problem, as_json=as_json)
    elif stage is not None:
        print_stage(run, stage, limit=limit, skip=skip, as_json=as_json)
    else:
        print_rounds(run, as_json=as_json)


app.add_typer(stage_commands.app)
app.add_typer(preference_commands.app)
app.add_typer(extract_command.app)


def main() -> None:
    """Entry point of the ``prover`` command."""
    app()
