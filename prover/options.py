"""What the commands share: option types, the configuration made from them, what is said of results and errors."""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from lean_env.errors import LeanError
from prover.errors import ProverError

if TYPE_CHECKING:
    from prover.config import ProblemsConfig, Section, StageConfig

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


class Commands(TyperGroup):
    """Turns the errors that a user can act on into one line and an exit code; everything else is a bug's traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ProverError, LeanError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("stopped; run the same command to go on", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader has left (`| head`). Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            typer.echo(
                f"error: {error.filename or 'disk'}: {os.strerror(error.errno)}; make room and run it again", err=True
            )
            raise typer.Exit(2) from error


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        show_default=False,
        help="TOML configuration, that of an iterate or part of one; sections that it does not read may stay.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        show_default=False,
        help="Set one key of the configuration, such as sampling.temperature=0.7; repeat it for several.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        show_default="2",
        help="lean.workers: processes that check, each about 0.8 GB and a core; for every four another one certifies.",
    ),
]
Project = Annotated[
    Path | None,
    typer.Option(
        "--lean-project",
        show_default=False,
        help="Check with the native Lean of this Lake project, not the embedded one.",
    ),
]
RequireSandbox = Annotated[
    bool, typer.Option("--require-sandbox", help="Refuse to run where Lean cannot be confined in full.")
]
AskedModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        show_default=False,
        help="Hugging Face model directory with its tokenizer; a server (engine.type = 'openai') has its own.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        show_default=False,
        help="Take verdicts from this file and keep them there; runs may share it, and are trusted alike.",
    ),
]
CheckerName = Annotated[
    str | None,
    typer.Option(
        "--checker",
        metavar="NAME[=PATH]",
        help="Put each proof to another kernel too: nanoda, found as nanoda_bin on the PATH or at PATH.",
        show_default=False,
    ),
]
Fresh = Annotated[
    int | None,
    typer.Option(min=1, help="How many of the --attempts, the last ones, are this round's; for select.replay."),
]
Clean = Annotated[bool, typer.Option("--clean", help="Start over instead of going on or refusing another recipe.")]


def stage_config(
    config: Path | None,
    assignments: Sequence[str] | None,
    *,
    workers: int | None = None,
    project: Path | None = None,
    **options: object,
) -> "StageConfig":
    """The sections of ``config``, with the options set in them: ``--set`` as it was written, others by dotted key with
    ``__`` for the dot."""
    from prover.config_file import load_stage_config, parse_override

    named: dict[str, object] = {"lean.workers": workers}
    if project is not None:
        named = {"lean.type": "native", "lean.project": project, **named}
    named |= {key.replace("__", "."): value for key, value in options.items()}
    given = [(key, value) for key, value in named.items() if value is not None]
    return load_stage_config(config, [*(parse_override(text) for text in assignments or ()), *given])


def numbers(option: str, text: str) -> list[float]:
    """``0.5,0.6`` as an option has it. Raises BadParameter."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: write numbers with commas between, like 0.5,0.6,0.7") from error


AttemptFolders = Annotated[list[Path], typer.Option("--attempts", help="Folder of attempts; repeat it for several.")]
VerdictFolders = Annotated[
    list[Path], typer.Option("--verdicts", help="Folder of their verdicts; as often, in the same order.")
]


def in_pairs(attempts: list[Path], verdicts: list[Path]) -> list[tuple[Path, Path]]:
    """Each folder of attempts with that of its verdicts."""
    if len(attempts) != len(verdicts):
        raise typer.BadParameter(f"{len(attempts)} --attempts but {len(verdicts)} --verdicts; give them in pairs")
    return list(zip(attempts, verdicts, strict=True))


def say(what: str, path: Path) -> None:
    """Name the artifact on stdout and its counts, so that the next command can be written from it."""
    from prover.artifacts import read_manifest

    counts = ", ".join(f"{count:,} {name}" for name, count in read_manifest(path).counts.items())
    typer.echo(f"{what}: {path} ({counts})")


def problems_config(source: str, **values: Any) -> "ProblemsConfig":
    from prover.config import CoreProblems, JsonlProblems, MiniF2FProblems

    sections = {"core": CoreProblems, "minif2f": MiniF2FProblems, "jsonl": JsonlProblems}
    return given(sections[source], source=source, **values)


_Section = TypeVar("_Section", bound="Section")


def given(section: type[_Section], **values: Any) -> _Section:
    """A config section from the options that were given; the others keep the section's own defaults."""
    from pydantic import ValidationError

    try:
        return section(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
        option = {"path": "FILE"}.get(where, f"--{where}")
        if first["type"] == "extra_forbidden":
            raise typer.BadParameter(f"{option} means nothing here; leave it out") from error
        if first["type"] == "missing":
            raise typer.BadParameter(f"{option} is needed here; see --help for its values") from error
        raise typer.BadParameter(
            f"{option}: {first['msg']}, got {first['input']!r}" if where else first["msg"]
        ) from error
