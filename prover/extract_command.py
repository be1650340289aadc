"""`prover extract`: a Lean project's theorems as problems, proofs and state-tactic pairs."""

from pathlib import Path
from typing import Annotated

import typer

from prover.options import Clean, Config, Set
from prover.stage_commands import PANEL

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def extract(
    project: Annotated[
        Path, typer.Argument(help="Lake project, or with --traced a folder that LeanDojo wrote.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; run the command again to go on.")],
    traced: Annotated[bool, typer.Option("--traced", help="PROJECT is traced already: nothing is built.")] = False,
    name: Annotated[
        str | None, typer.Option(show_default="the folder's name", help="Names the source; part of all ids.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split that the problems say they are of.")] = "train",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            show_default="autoImplicit=false, and leanOptions of a lakefile.toml",
            help="An option that the project sets for Lean; repeat it for several.",
        ),
    ] = None,
    all_lemmas: Annotated[
        bool, typer.Option("--all-lemmas", help="Headers keep every theorem before, not only those mentioned.")
    ] = False,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Make seed data of a Lean project by LeanDojo: problems, proofs, state-tactic pairs."""
    from prover.artifacts import read_manifest
    from prover.console import open_progress
    from prover.options import stage_config
    from prover.prompts import Prompt
    from prover.stages.extract import run

    options = dict(_option(text) for text in option or ())
    loaded = stage_config(config, assignments)
    with open_progress() as progress:
        seeds = run(
            out,
            project,
            traced=traced,
            name=name,
            split=split,
            options=options,
            all_lemmas=all_lemmas,
            prompt=Prompt(loaded.prompt),
            clean=clean,
            progress=progress,
        )
    for what, artifact in seeds._asdict().items():
        counted = sorted(read_manifest(artifact.path).counts.items(), key=lambda item: item[0].startswith("no "))
        counts = ", ".join(f"{count:,} {key}" for key, count in counted)
        typer.echo(f"{what}: {artifact.path} ({counts})")


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"--option {text}: write NAME=VALUE, like autoImplicit=true")
    return name, value
