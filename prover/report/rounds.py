"""Tables of rounds: what each model proves on held-out problems, and what each round made."""

import shlex
import sys
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from prover import layout
from prover.artifacts import open_artifact
from prover.console import duration
from prover.records import TrainingExample
from prover.report.run import Round, RunReport, Score, SetTable, Share, read_run, read_score

WIDE = 100
"""Columns from which intervals are written out."""
OWED = "·"


def print_rounds(run: Path, *, as_json: bool = False, hints: bool = False) -> None:
    """The tables of a run, finished or not; with ``hints`` also the commands to look further."""
    report = read_run(run)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    console = Console(highlight=False)
    for table in report.sets:
        console.print(set_table(table, console.width >= WIDE))
    if report.averages:
        console.print(averages_table(report, console.width >= WIDE))
    console.print(rounds_table(report, console.width >= WIDE))
    console.print(_legend(report, console.width >= WIDE), style="dim", markup=False)
    if report.owed:
        first = report.owed[0]
        console.print(
            f"{len(report.done)} of {len(report.done) + len(report.owed)} stages are done; next: {first.stage}"
            + (f" ({first.shards} shards written)" if first.shards else "")
            + ". Run the same iterate command to go on.",
            style="yellow",
            markup=False,
        )
    if hints:
        _print_hints(console, run, report)


def print_scores(path: Path) -> None:
    """One line for a single evaluation."""
    score = read_score(path.parent.name, path)
    console = Console(highlight=False)
    shares = "  ".join(f"pass@{k} {_interval(share, wide=True)}" for k, share in score.passed.items())
    tried = f"{score.n} tried each, on average" if score.stops else f"{score.n} attempts each"
    console.print(f"{shares}  ({score.solved:,} solved with {tried}, in percent; {score.level})", markup=False)
    console.print(f"scores: {path}", markup=False, soft_wrap=True)


def set_table(table: SetTable, wide: bool) -> Table:
    """Models by pass@k."""
    beyond = table.beyond_problems
    title = f"{table.name}: {table.problems:,} problems" + (f", {beyond:,} beyond the tactic list" if beyond else "")
    levels = sorted({score.level for score in table.scores if score.finished})
    title += f"; proofs {levels[0]}" if levels else ""  # "audited" where any are no more than that
    grid = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    ks = _columns(table)
    hard = [k for k in ks if any(k in score.beyond for score in table.scores)]
    grid.add_column("", no_wrap=True)
    grid.add_column("n", justify="right")
    for k in ks:
        grid.add_column(f"pass@{k}", justify="right", no_wrap=True)
    for k in hard:
        grid.add_column(f"beyond@{k}", justify="right", no_wrap=True)
    grid.add_column("any of n", justify="right", no_wrap=True)
    grid.add_column("proofs", justify="right", no_wrap=True)
    best = max((s.passed[ks[-1]].value for s in table.scores if ks and ks[-1] in s.passed), default=-1.0)
    for score in table.scores:
        if not score.finished:
            grid.add_row(score.model, *[OWED] * (len(ks) + len(hard) + 3), style="dim")
            continue
        top = ks and score.passed.get(ks[-1]) is not None and score.passed[ks[-1]].value == best
        grid.add_row(
            score.model,
            f"~{score.n}" if score.stops else str(score.n),
            *(_cell(score.passed.get(k), wide) for k in ks),
            *(_cell(score.beyond.get(k), wide) for k in hard),
            f"{100 * score.solved / table.problems:.1f}" if table.problems else "",
            f"{score.distinct_proofs:,}",
            style="bold" if top else "",
        )
    return grid


def averages_table(report: RunReport, wide: bool) -> Table:
    """Each round's averages by pass@k, the one that the round goes on with marked."""
    title = f"averages: tuned weights on {report.validation_problems:,} validation problems"
    grid = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    ks = sorted({k for averages in report.averages for score in averages.scores for k in score.passed}, key=int)
    for heading in ("round", "weight", *(f"pass@{k}" for k in ks)):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for averages in report.averages:
        for place, score in enumerate(averages.scores):
            chosen = averages.chosen is not None and score.model == f"{averages.chosen:g}"
            cells = (_cell(score.passed.get(k), wide) if score.finished else OWED for k in ks)
            style = "bold" if chosen else "" if score.finished else "dim"
            grid.add_row("" if place else str(averages.round), score.model, *cells, "best" * chosen, style=style)
    return grid


def _columns(table: SetTable) -> list[str]:
    """The k that a round was scored at; where no round was yet, those of the baselines. The control's larger k is its
    ``any of n``."""
    rounds = [score for score in table.scores if score.model.startswith("round")]
    finished: list[Score] = [s for s in rounds if s.finished] or [s for s in table.scores if s.finished]
    return sorted({k for score in finished for k in score.passed if k != "all"}, key=int)


def _cell(share: Share | None, wide: bool) -> str:
    return "" if share is None else _interval(share, wide)


def _interval(share: Share, wide: bool) -> str:
    if wide:
        return f"{share.value:.1f} ({share.low:.1f}-{share.high:.1f})"
    return f"{share.value:.1f} ±{(share.high - share.low) / 2:.1f}"


def rounds_table(report: RunReport, wide: bool) -> Table:
    """What each round made of the training problems, and how long it took."""
    title = f"training: {report.training_problems:,} problems, seed {report.seed}"
    grid = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    kinds = [kind for kind in (_KINDS if wide else _LONGEST) if any(kind in r.seconds for r in report.rounds)]
    corrected = any(r.corrections for r in report.rounds)
    waves = wide and any(r.waves > 1 for r in report.rounds)
    evaluated = wide and any(r.eval_loss is not None for r in report.rounds)
    headings = ["round", "attempts", "proved", *(["pass@1"] if waves else []), *(["corrected"] if corrected else [])]
    headings += ["solved", "examples", *(["new"] if wide else []), *(["held-out loss"] if evaluated else [])]
    for heading in [*headings, *kinds]:
        grid.add_column(heading, justify="right", no_wrap=True)
    for r in report.rounds:
        cells = [
            str(r.round),
            _number(r.attempts),
            _number(r.proved) if r.judged or r.attempts else "",
            *([_first_wave(r)] if waves else []),
            *([f"{r.corrections_proved:,}/{r.corrections:,}" if r.corrections else ""] if corrected else []),
            _number(r.solved),
            _number(r.examples),
            *([f"{r.new:,}" if r.examples else OWED] if wide else []),
            *([OWED if r.eval_loss is None else f"{r.eval_loss:.3f}"] if evaluated else []),
            *(duration(r.seconds[kind]) if kind in r.seconds else OWED for kind in kinds),
        ]
        grid.add_row(*cells, style="" if r.seconds else "dim")
    return grid


_KINDS = ("sample", "verify", "correct", "sft", "dpo", "average", "evaluate")
_LONGEST = ("verify", "sft", "evaluate")
"""What narrow terminals show: sampling runs beside checking, which ends last."""


def _first_wave(r: Round) -> str:
    """Percent proved of the attempts that every problem has alike; later waves are for the unsolved."""
    return f"{100 * r.first_proved / r.first_judged:.1f}" if r.round and r.first_judged else OWED


def _number(value: int) -> str:
    return f"{value:,}" if value else OWED


def _legend(report: RunReport, wide: bool) -> str:
    said = ["In percent of problems, with 95 % intervals; proofs: distinct ones."]
    if any(score.beyond for table in report.sets for score in table.scores):
        said.append("beyond: among the problems that the tactic list does not solve.")
    if any(score.model == "control" for table in report.sets for score in table.scores):
        said.append("control: the model of round 0, given more samples instead of training.")
    if any(score.model == "tactic list" for table in report.sets for score in table.scores):
        said.append("tactic list: its first k entries.")
    if any(score.stops and score.model != "tactic list" for table in report.sets for score in table.scores):
        said.append("~n: on average, for solved problems are left; pass@k accounts for it.")
    if any(r.waves > 1 for r in report.rounds):
        rate = "; pass@1 is the first wave's, in which all have as many" if wide else ""
        said.append(f"attempts: the unsolved get more, so that proved of them is no pass rate{rate}.")
    if report.averages:
        said.append("best: what the round goes on with, chosen on the validation problems.")
    said.append("solved: training problems with a proof so far.")
    if wide:
        said.append("new: proofs among the examples that no earlier round found.")
    return " ".join(said)


def _print_hints(console: Console, run: Path, report: RunReport) -> None:
    last = len(report.rounds) - 1
    console.print("\nLook next at", style="bold")
    inspect = ["prover", "inspect", str(run)]
    commands = [[*inspect, "--stage", layout.select(last)], inspect]
    problem = _solved_problem(run / layout.select(last), f"r{last}")
    if problem:
        commands.insert(0, [*inspect, "--problem", problem])
    for command in commands:
        console.print(f"  {shlex.join(command)}", markup=False, soft_wrap=True)  # Lean's names may end in a quote


def _solved_problem(select: Path, series: str) -> str | None:
    """A training problem worth a look: one whose proof was found in the last round, if there is any."""
    if not (select / "artifact.json").exists():
        return None
    first: str | None = None
    for example in open_artifact(select).read(TrainingExample):
        first = first or example.problem_id
        if example.attempt_id is not None and f"/{series}." in example.attempt_id:
            return example.problem_id
    return first
