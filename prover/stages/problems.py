"""Fix the problems of a run: read, drop what Lean does not accept, write the shards that all stages align to.

What is done is kept in ``progress.json`` while the stage runs, so that a killed one goes on where it was.
"""

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
    fingerprint,
)
from prover.config import PLACEMENT, CoreProblems, JsonlProblems, ProblemsConfig
from prover.errors import InputError
from prover.problems import read_problems
from prover.progress import Meter, Progress
from prover.records import Problem

_PROGRESS = "progress.json"


class _Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is behind after some chunks of the source: ``shards`` lie on disk, ``waiting`` are for the next one."""

    fingerprint: str
    read: int = 0
    shards: int = 0
    waiting: tuple[Problem, ...] = ()
    refused: tuple[StatementFailure, ...] = ()


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
    if clean:
        for leftover in (_PROGRESS, "rejected.txt"):
            (out / leftover).unlink(missing_ok=True)
    before = _done_before(out, fingerprint(recipe))
    writer = ArtifactWriter(out, recipe, before.shards, clean=clean)
    refused, waiting, read = list(before.refused), list(before.waiting), before.read
    source = islice(read_problems(section, workers=pool.workers, progress=progress), read, None)
    owed = max(section.limit - read, 0) if section.limit else 0
    with progress.stage(f"problems {name}", owed, "statements") as meter:
        for chunk in _chunks(source, pool.workers):
            failures = _failures(chunk, pool, meter)
            refused += (msgspec.structs.replace(failure, messages=()) for failure in failures.values())
            waiting += [p for p in chunk if p.id not in failures]
            read += len(chunk)
            while len(waiting) >= PROBLEMS_PER_SHARD:
                writer.append(waiting[:PROBLEMS_PER_SHARD])
                del waiting[:PROBLEMS_PER_SHARD]
            done_now = _Done(writer.artifact.fingerprint, read, writer.artifact.shards, tuple(waiting), tuple(refused))
            with disk_errors(out):
                atomic_write(out / _PROGRESS, msgspec.json.encode(done_now))
        if waiting:
            writer.append(waiting)
    kept = read - len(refused)
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
    finished = writer.finish({"problems": kept, "rejected": len(refused)})
    (out / _PROGRESS).unlink(missing_ok=True)
    return finished


def _done_before(out: Path, fingerprint: str) -> _Done:
    """What a killed run left; nothing where it was of another recipe, or what it speaks of is not there."""
    try:
        found = msgspec.json.decode((out / _PROGRESS).read_bytes(), type=_Done)
    except (FileNotFoundError, msgspec.DecodeError):
        return _Done(fingerprint)
    there = all(Artifact(out, fingerprint, 0).shard(index).exists() for index in range(found.shards))
    return found if found.fingerprint == fingerprint and there else _Done(fingerprint)


def _chunks(problems: Iterator[Problem], workers: int) -> Iterator[list[Problem]]:
    """Enough at a time to keep every worker busy, few enough that a kill costs little. Their size decides nothing."""
    while chunk := list(islice(problems, max(4 * PROBLEMS_PER_SHARD, 32 * workers))):
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
