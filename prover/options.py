"""What the commands share: option types, the sections made from them, and how errors leave the program."""

import errno
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from lean_env.errors import LeanError
from prover.errors import ProverError

if TYPE_CHECKING:
    from prover.config import EngineConfig, LeanConfig, ProblemsConfig, SamplingConfig, Section

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


class Style(StrEnum):
    plain = "plain"
    chat = "chat"


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


Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        show_default="2",
        help="Lean processes that check, each about 0.8 GB and a core; for every four begun another one certifies.",
    ),
]
Heartbeats = Annotated[
    int | None, typer.Option(min=1, show_default="200000", help="Lean's maxHeartbeats for each command of a check.")
]
CpuSeconds = Annotated[
    float | None, typer.Option(min=0.1, show_default="20.0", help="CPU seconds of one check; beyond: timeout.")
]
MemoryMb = Annotated[
    int | None,
    typer.Option(min=1_500, show_default="2600", help="MiB of one Lean process (a project's: 6000); beyond: memory."),
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

Prompt = Annotated[
    Style, typer.Option("--prompt", help="plain: statement and lemma names, for small models; chat: instructions.")
]
Seed = Annotated[int, typer.Option(help="Decides everything that is drawn.")]
Clean = Annotated[bool, typer.Option("--clean", help="Start over instead of going on or refusing another recipe.")]
Attempts = Annotated[int | None, typer.Option("-n", min=1, show_default="8", help="Completions for each problem.")]
Temperature = Annotated[
    float | None, typer.Option(min=0, show_default="1.0", help="Sampling temperature; 0 is greedy.")
]
TopP = Annotated[
    float | None, typer.Option(min=1e-6, max=1, show_default="1.0", help="Keep the likeliest tokens of this mass.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, show_default="48", help="New tokens for each completion.")]
BatchSize = Annotated[int | None, typer.Option(min=1, show_default="256", help="Completions generated together.")]
Device = Annotated[str | None, typer.Option(show_default="auto", help="auto, cpu or cuda.")]
Script = Annotated[
    Path | None, typer.Option(help="Take completions from this JSONL file instead of the model (a replay).")
]


def lean_config(
    workers: int | None,
    heartbeats: int | None = None,
    cpu_seconds: float | None = None,
    memory_mb: int | None = None,
    project: Path | None = None,
) -> "LeanConfig":
    """The embedded Lean, or the native one of a project."""
    from prover.config import EmbeddedLean, NativeLean

    limits = {"workers": workers, "heartbeats": heartbeats, "cpu_seconds": cpu_seconds, "memory_mb": memory_mb}
    if project is not None:
        return given(NativeLean, type="native", project=project, **limits)
    return given(EmbeddedLean, **limits)


def sampling_config(
    n: int | None, temperature: float | None, top_p: float | None, max_tokens: int | None
) -> "SamplingConfig":
    from prover.config import SamplingConfig

    return given(SamplingConfig, n=n, temperature=temperature, top_p=top_p, max_tokens=max_tokens)


def engine_config(script: Path | None, batch_size: int | None, device: str | None) -> "EngineConfig":
    from prover.config import ScriptedEngine, TransformersEngine

    if script is not None:
        return ScriptedEngine(type="scripted", path=script)
    return given(TransformersEngine, batch_size=batch_size, device=device)


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
