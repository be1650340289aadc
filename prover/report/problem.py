"""One problem of a run: its statement, what was tried, what Lean said, with each error at its place."""

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from lean_env.source import candidate_text, normalise_proof
from prover import layout
from prover.artifacts import open_artifact
from prover.config import IterateConfig
from prover.config_file import open_run
from prover.errors import InputError
from prover.jsonl import decode_lines
from prover.records import Attempt, Message, Problem, Verdict

T = TypeVar("T", bound=msgspec.Struct)

ERRORS = 3
"""Errors shown of one attempt."""
CONTEXT = 2
"""Lines shown before an error."""
MESSAGE_LINES = 14
"""Lines shown of one message."""
INDENT = "      "
MARGIN = "  | "


class Tried(msgspec.Struct, frozen=True):
    """A distinct candidate of one stage, and how often it came."""

    times: int
    attempt: Attempt
    verdict: Verdict | None


class Series(msgspec.Struct, frozen=True):
    """What one stage tried on the problem, most frequent first, proved ones before others."""

    stage: str
    attempts: int
    proved: int
    tried: tuple[Tried, ...]


class ProblemReport(msgspec.Struct, frozen=True):
    set: str
    problem: Problem
    series: tuple[Series, ...]


def print_problem(run: Path, ident: str, *, as_json: bool = False) -> None:
    """Raises InputError with the nearest names where the run has no such problem."""
    report = read_problem(run, ident)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    console = Console(highlight=False)
    _print_statement(console, report)
    shown: set[str] = set()
    for series in report.series:
        console.print(
            Rule(f"{series.stage}: {_counted(series.attempts, 'attempt')}, {series.proved} proved", align="left")
        )
        for tried in series.tried:
            _print_tried(console, report.problem, tried, shown)
    if not report.series:
        console.print("nothing was tried on it yet", style="dim")


def read_problem(run: Path, ident: str) -> ProblemReport:
    config = open_run(run)
    name, shard, problem = _find(run, config, ident)
    return ProblemReport(
        set=name,
        problem=problem,
        series=tuple(
            series
            for label, trial in _trials(config, name)
            if (series := _series(run, label, trial, shard, problem.id)) is not None
        ),
    )


def _find(run: Path, config: IterateConfig, ident: str) -> tuple[str, int, Problem]:
    known: list[str] = []
    for name in (layout.TRAIN, *config.evaluate_on, layout.VALIDATE):
        folder = run / layout.problems(name)
        if not (folder / "artifact.json").exists():
            continue
        artifact = open_artifact(folder)
        for shard in range(artifact.shards):
            for problem in artifact.read_shard(shard, Problem):
                if problem.id == ident:
                    return name, shard, problem
                known.append(problem.id)
    near = [other for other in known if other.rpartition("/")[2] == ident]
    near = near or difflib.get_close_matches(ident, known, n=3, cutoff=0.5)
    hint = (
        "did you mean " + " or ".join(near) + "?" if near else f"the run has {len(known):,} problems, in {run}/problems"
    )
    raise InputError(f"--problem: {run} has no problem {ident!r}; {hint}")


def _trials(config: IterateConfig, name: str) -> Iterator[tuple[str, layout.Trial]]:
    """Label and place of every stage that may have tried problems of the set, in the loop's order."""
    rounds = range(config.rounds + 1)
    if name == layout.TRAIN:
        yield "round 0 tactics", layout.cold()
        for number in rounds[1:]:
            for wave in layout.training_waves(config):
                yield _waved(f"round {number}", wave), layout.sampled(number, wave)
            for turn in range(1, config.correct.turns + 1):
                yield f"round {number} correction {turn}", layout.corrected(number, turn)
        return
    if name == layout.VALIDATE:
        for number in rounds[1:]:
            for weight in sorted(config.average.sweep) if config.average else ():
                folder = layout.weighed(layout.average(number), weight)
                for wave in layout.evaluation_waves(config):
                    yield _waved(f"round {number} tuned weight {weight:g}", wave), layout.trial(folder, wave)
        return
    yield "tactic list", layout.trial(layout.portfolio(name))
    for number in rounds:
        for wave in layout.evaluation_waves(config):
            yield _waved(f"round {number}", wave), layout.trial(layout.evaluated(number, name), wave)
    if config.evaluate.control_n:
        for wave in layout.evaluation_waves(config, config.evaluate.control_n):
            yield _waved("control", wave), layout.trial(layout.control(name), wave)


def _waved(label: str, wave: int) -> str:
    return f"{label} wave {wave}" if wave else label


def _series(run: Path, label: str, trial: layout.Trial, shard: int, ident: str) -> Series | None:
    tried = [a for a in _records(run / trial.attempts, shard, Attempt) if a.problem_id == ident]
    if not tried:
        return None
    judged = {v.attempt_id: v for v in _records(run / trial.verdicts, shard, Verdict)}
    groups: dict[str | None, list[Attempt]] = {}
    for attempt in tried:
        groups.setdefault(None if attempt.proof is None else normalise_proof(attempt.proof), []).append(attempt)
    distinct = [Tried(len(group), group[0], judged.get(group[0].id)) for group in groups.values()]
    distinct.sort(key=lambda t: (not (t.verdict and t.verdict.proved), -t.times))
    proved = sum(1 for a in tried if (v := judged.get(a.id)) is not None and v.proved)
    return Series(stage=label, attempts=len(tried), proved=proved, tried=tuple(distinct))


def _records(folder: Path, shard: int, kind: type[T]) -> list[T]:
    """One shard, whether its artifact is finished or not; empty where it is not there yet."""
    file = folder / f"{shard:05d}.jsonl"
    return list(decode_lines(file.read_bytes(), kind, file)) if file.exists() else []


def _print_statement(console: Console, report: ProblemReport) -> None:
    problem = report.problem
    console.print(Text.assemble((problem.id, "bold"), f"  ({report.set}, from {problem.source or 'a file'})"))
    if problem.informal_statement:
        console.print(problem.informal_statement, markup=False)
    console.print(_lean("\n".join(part for part in (problem.header, problem.formal_statement) if part)))
    if problem.premises:
        console.print(
            "premises: " + ", ".join(f"⟦{i}⟧ {p.name}" for i, p in enumerate(problem.premises, 1)), markup=False
        )
    if problem.forbidden_constants:
        console.print("forbidden: " + ", ".join(problem.forbidden_constants), style="dim", markup=False)


def _print_tried(console: Console, problem: Problem, tried: Tried, shown: set[str]) -> None:
    """One candidate; the errors of one that was ``shown`` before are not repeated."""
    status = tried.verdict.status if tried.verdict else "not judged"
    style = "green" if status == "proved" else "red" if tried.verdict else "yellow"
    reason = f"  {tried.verdict.reason}" if tried.verdict and tried.verdict.reason else ""
    head = Text.assemble((f"{tried.times:>3} x ", "dim"), (status, style), (f"{reason}  {tried.attempt.id}", "dim"))
    head.truncate(console.width, overflow="ellipsis")
    console.print(head)
    if tried.attempt.proof is None:
        console.print(_indented(tried.attempt.completion.strip(), "dim"))
        return
    console.print(_indented(tried.attempt.proof.strip(), "default"))
    errors = [m for m in tried.verdict.messages if m.severity == "error"] if tried.verdict else []
    if errors and tried.attempt.proof in shown:
        console.print(_indented("(errors as above)", "dim"))
        return
    shown.add(tried.attempt.proof)
    text = candidate_text(problem.formal_statement, tried.attempt.proof, problem.header)
    for error in errors[:ERRORS]:
        console.print(_indented(in_place(text, error, console.width - len(INDENT)), "red"))
    if len(errors) > ERRORS:
        console.print(_indented(f"and {len(errors) - ERRORS} more errors", "dim"))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _indented(text: str, style: str) -> Text:
    return Text("\n".join(INDENT + line for line in text.split("\n")), style=style)


def in_place(text: str, error: Message, columns: int = 120) -> str:
    """The error as compilers show it: message, the lines before it, a caret under its place, in ``columns`` columns.

    Of lines that are too long the part around the place is shown.
    """
    lines = text.split("\n")
    line, column = error.start
    before = lines[max(line - 1 - CONTEXT, 0) : line]
    last = error.end[1] if error.end[0] == line else len(before[-1]) if before else column
    room = max(columns - len(MARGIN), 20)
    offset = max(column - room // 2, 0) if last > room else 0
    carets = "^" * max(min(last - column, room - (column - offset)), 1)
    said = error.text.strip().split("\n")
    cut = (
        [*said[:MESSAGE_LINES], f"... ({len(said) - MESSAGE_LINES} more lines)"] if len(said) > MESSAGE_LINES else said
    )
    marked = [MARGIN + _window(content, offset, room) for content in before]
    return "\n".join([f"{line}:{column}: {cut[0]}", *cut[1:], *marked, MARGIN + " " * (column - offset) + carets])


def _window(line: str, offset: int, room: int) -> str:
    """``room`` characters of the line from ``offset``, with an ellipsis where something is left out."""
    part = line[offset : offset + room]
    if offset and part:
        part = "…" + part[1:]
    return part[:-1] + "…" if len(line) > offset + room else part


def _lean(text: str) -> Syntax:
    return Syntax(text, "lean4", theme="ansi_dark", background_color="default", word_wrap=True)
