"""The table of a sweep."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from prover.artifacts import open_artifact
from prover.report.run import read_score
from prover.sweep import RULE, SweepPoint


def print_sweep(path: Path) -> None:
    """Averages by pass@k with 95 % intervals, the chosen one marked."""
    points = list(open_artifact(path).read(SweepPoint))
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("tuned weight", justify="right")
    for k in points[0].passed:
        grid.add_column(f"pass@{k}", justify="right", no_wrap=True)
    grid.add_column("")
    for point in points:
        shares = read_score(f"{point.tuned_weight:g}", path / point.scores).passed
        cells = (f"{share.value:.1f} ({share.low:.1f} to {share.high:.1f})" for share in shares.values())
        grid.add_row(f"{point.tuned_weight:g}", *cells, "best" if point.chosen else "", style="bold" * point.chosen)
    console = Console(highlight=False)
    console.print(grid)
    console.print(f"best: {RULE}", style="dim", markup=False)
