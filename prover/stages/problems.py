"""Fix the problems of a run: read, drop what Lean does not accept, write the shards that all stages align to."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, StatementFailure
from prover.artifacts import (
    PROBLEMS_PER_SHARD,
    Artifact,
    ArtifactWriter,
    atomic_write,
    disk_errors,
    file_digest,
    find_artifact,
)
from prover.config import PLACEMENT, CoreProblems, JsonlProblems, ProblemsConfig
from prover.errors import InputError
from prover.problems import read_problems
from prover.progress import Meter, Progress
from prover.records import Problem


def run(
    out: Path,
    *,
    name: str,
    section: ProblemsConfig,
    pool: LeanPool,
    progress: Progress,
    clean: bool = False,
) -> Artifact:
    """Write the problems of a source that Lean elaborates; what it refuses goes to ``rejected.txt``.

    Raises InputError if nothing is left.
    """
    recipe: dict[str, Any] = {
        "stage": "problems",
        "source": section.model_dump(mode="json", exclude=set(PLACEMENT)),
        "toolchain": pool.toolchain.version,
    }
    if not isinstance(section, CoreProblems):
        recipe["file"] = file_digest(section.path)
    done = None if clean else find_artifact(out, recipe)
    if done is not None:
        return done
    writer = ArtifactWriter(out, recipe, 0, clean=clean)
    refused: list[StatementFailure] = []
    kept = 0
    source = read_problems(section, workers=pool.workers, progress=progress)
    with progress.stage(f"problems {name}", section.limit or 0, "statements") as meter:
        waiting: list[Problem] = []
        for chunk in _chunks(source):
            failures = _failures(chunk, pool, meter)
            refused += (msgspec.structs.replace(failure, messages=()) for failure in failures.values())
            waiting += [p for p in chunk if p.id not in failures]
            kept += len(chunk) - len(failures)
            while len(waiting) >= PROBLEMS_PER_SHARD:
                writer.append(waiting[:PROBLEMS_PER_SHARD])
                del waiting[:PROBLEMS_PER_SHARD]
        if waiting:
            writer.append(waiting)
    for failure in refused[:3]:
        progress.note(f"problem {failure.attempt_id} left out: {failure.reason}")
    if refused:
        text = "".join(f"{f.attempt_id}: {f.where}: {f.reason}\n" for f in refused)
        with disk_errors(out):
            atomic_write(out / "rejected.txt", text.encode())
        progress.note(
            f"problems {name}: {len(refused)} of {kept + len(refused)} statements do not elaborate; "
            f"see {out / 'rejected.txt'}"
        )
    if not kept:
        why = f"the first: {refused[0].reason}" if refused else "the source has none; widen split or limit"
        raise InputError(f"problems {name!r}: no statement to prove; {why}")
    return writer.finish({"problems": kept, "rejected": len(refused)})


def _chunks(problems: Iterator[Problem]) -> Iterator[list[Problem]]:
    """Enough at a time to keep every worker busy; all of them never need to be in memory."""
    while chunk := list(islice(problems, 16 * PROBLEMS_PER_SHARD)):
        yield chunk


def _failures(problems: list[Problem], pool: LeanPool, meter: Meter) -> dict[str, StatementFailure]:
    found: dict[str, StatementFailure] = {}
    requests = (CheckRequest(id=p.id, header=p.header, formal_statement=p.formal_statement, proof="") for p in problems)
    for ident, failure in pool.elaborate(requests):
        meter.add(1, checks=1)
        if failure is not None:
            found[ident] = failure
    return {p.id: found[p.id] for p in problems if p.id in found}


def from_jsonl(file: Path, folder: Path) -> Artifact:
    """Cut a user's file of Problems into shards below ``folder``, so that single stages can run on it, not elaborated.

    The name holds a digest of the file: an edited file gives other problems, beside those that attempts were made for.
    """
    digest = file_digest(file)
    out = folder / f"{file.stem}-{digest[:8]}"
    recipe = {"stage": "problems", "jsonl": digest}
    done = find_artifact(out, recipe)
    if done is not None:
        return done
    writer = ArtifactWriter(out, recipe, 0)
    problems = read_problems(JsonlProblems(source="jsonl", path=file))
    count = 0
    while shard := list(islice(problems, PROBLEMS_PER_SHARD)):
        writer.append(shard)
        count += len(shard)
    return writer.finish({"problems": count})
