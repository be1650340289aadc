"""The records of one stage of a run, a page at a time."""

import difflib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prover import layout
from prover.artifacts import read_manifest
from prover.config_file import open_run
from prover.errors import ArtifactError, InputError
from prover.jsonl import decode_lines
from prover.records import Attempt, PreferencePair, Problem, TrainingExample, Verdict
from prover.stages.evaluate import ProblemScore
from prover.stages.select import read_buckets
from prover.sweep import SweepPoint

Listed = Problem | Attempt | Verdict | TrainingExample | PreferencePair | ProblemScore | SweepPoint

_KINDS: dict[str, type[Listed]] = {
    "problems": Problem,
    "tactics": Attempt,
    "sample": Attempt,
    "correct": Attempt,
    "verify": Verdict,
    "select": TrainingExample,
    "grammar": TrainingExample,
    "pairs": PreferencePair,
    "evaluate": ProblemScore,
    "sweep": SweepPoint,
}
"""What the shards of a stage hold; stages that are not here hold a model."""


def print_stage(run: Path, stage: str, *, limit: int, skip: int = 0, as_json: bool = False) -> None:
    """Raises InputError with the nearest name where the run has no such stage."""
    folder = _folder(run, stage)
    rows = list(itertools.islice(records(folder), skip, skip + limit))
    if as_json:
        for row in rows:
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        return
    console = Console(highlight=False)
    console.print(f"{folder}: {_state(folder)}", markup=False, soft_wrap=True)
    if table := buckets_table(folder):
        console.print(table)
    if not rows:
        console.print("no records" + (" after --skip" if skip else ""), style="dim")
        return
    console.print(_table(rows))
    if len(rows) == limit:
        console.print(f"more: --skip {skip + limit}; in full: --json", style="dim", markup=False)


def print_buckets(select: Path) -> None:
    """How a selection spreads over lengths and difficulties."""
    if table := buckets_table(select):
        Console(highlight=False).print(table)


def buckets_table(folder: Path) -> Table | None:
    """None where the stage selects nothing."""
    buckets = read_buckets(folder)
    if not buckets:
        return None
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("", "proofs", "% of the weight"):
        grid.add_column(heading, justify="right" if heading else "left")
    for bucket in buckets:
        name = f"{bucket.bucket} characters" if bucket.by == "length" else f"pass rate {bucket.bucket}"
        grid.add_row(name, f"{bucket.proofs:,}", f"{100 * bucket.weight:.1f}")
    return grid


def records(folder: Path) -> Iterator[Listed]:
    """What the stage has written so far, finished or not."""
    kind = _KINDS.get(json.loads((folder / "recipe.json").read_bytes())["stage"])
    if kind is None:
        return
    for shard in sorted(folder.glob("*.jsonl")):
        yield from decode_lines(shard.read_bytes(), kind, shard)


def _folder(run: Path, stage: str) -> Path:
    expected = layout.stages(open_run(run))
    wanted = stage.strip("/")
    if wanted in expected:
        if not (run / wanted / "recipe.json").exists():
            raise ArtifactError(f"--stage: {wanted} is not begun yet; see `prover inspect {run}`")
        return run / wanted
    near = difflib.get_close_matches(wanted, expected, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "stages: " + ", ".join(expected)
    raise InputError(f"--stage: {run} has no stage {stage!r}; {hint}")


def _state(folder: Path) -> str:
    if not (folder / "artifact.json").exists():
        return f"not finished, {sum(1 for _ in folder.glob('*.jsonl'))} shards written"
    counts = read_manifest(folder).counts
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if not name.endswith(("_low", "_high")))


def _table(rows: list[Listed]) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=True)
    for name, (_, ratio) in _cells(rows[0]).items():
        grid.add_column(name, overflow="ellipsis", no_wrap=True, ratio=ratio, justify="left" if ratio else "right")
    for row in rows:
        proved = isinstance(row, Verdict) and row.proved
        cells = (Text(" ".join(text.split())) for text, _ in _cells(row).values())
        grid.add_row(*cells, style="green" if proved else "")
    return grid


def _cells(row: Listed) -> dict[str, tuple[str, int | None]]:
    """Columns of a record: text, and the share of the width (None: as wide as needed)."""
    match row:
        case Problem():
            return {"problem": (row.id, 1), "statement": (row.formal_statement, 2)}
        case Attempt():
            proof = row.completion if row.proof is None else row.proof
            return {"attempt": (row.id, 1), "tokens": (str(row.completion_tokens), None), "proof": (proof, 2)}
        case Verdict():
            errors = [message.text for message in row.messages if message.severity == "error"]
            said = errors[0] if errors else row.reason
            return {"attempt": (row.attempt_id, 2), "status": (row.status, 1), "said": (said, 3)}
        case TrainingExample():
            answer = row.messages[-1].content
            return {"example": (row.id, 2), "weight": (f"{row.weight:.2f}", None), "answer": (answer, 3)}
        case PreferencePair():
            return {
                "pair": (row.id, 2),
                "weight": (f"{row.weight:.2f}", None),
                "chosen": (row.chosen, 2),
                "rejected": (row.rejected, 2),
            }
        case SweepPoint():
            passed = {f"pass@{k}": (f"{value:.1f}", None) for k, value in row.passed.items()}
            return {"weight": (f"{row.tuned_weight:g}", 1), **passed, "": ("best" * row.chosen, 1)}
        case ProblemScore():
            beyond = "" if row.beyond is None else "yes" if row.beyond else "no"
            return {
                "problem": (row.problem_id, 1),
                "n": (str(row.n), None),
                "proved": (str(row.proved), None),
                "distinct": (str(row.distinct), None),
                "beyond": (beyond, None),
            }
