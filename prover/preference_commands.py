"""The commands of preference optimization: pairs of answers, and a model tuned on them."""

from pathlib import Path
from typing import Annotated

import typer

from prover.options import AttemptFolders, Clean, Config, Set, VerdictFolders, in_pairs, say, stage_config
from prover.stage_commands import PANEL, ModelDir, Out, ProblemsOption

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def pairs(
    problems: ProblemsOption,
    attempts: AttemptFolders,
    verdicts: VerdictFolders,
    out: Out,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Pair answers that Lean proved with answers to the same prompt that it refused."""
    judged = in_pairs(attempts, verdicts)
    from prover import preference

    loaded = stage_config(config, assignments)
    made = preference.paired(out, problems, judged, config=loaded.pairs, seed=loaded.seed, clean=clean)
    say("pairs", made.path)


@app.command(rich_help_panel=PANEL)
def dpo(
    preferences: Annotated[
        Path, typer.Argument(metavar="PAIRS", help="Folder of preference pairs, as `prover pairs` writes it.")
    ],
    model: ModelDir,
    out: Out,
    config: Config = None,
    assignments: Set = None,
    clean: Clean = False,
) -> None:
    """Tune a model to prefer the answers that Lean proved to those that it refused."""
    from prover import preference
    from prover.config import DpoConfig
    from prover.console import open_progress

    loaded = stage_config(config, assignments)
    with open_progress() as progress:
        tuned = preference.preferred(
            out,
            preferences,
            model,
            config=loaded.dpo or DpoConfig(),
            launch=loaded.launch,
            seed=loaded.seed,
            clean=clean,
            progress=progress,
        )
    typer.echo(f"model: {tuned.path}")
