"""Fix the problems of a run: read, drop what Lean does not accept, write the shards that all stages align to."""

from pathlib import Path
from typing import Any

import msgspec

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, StatementFailure
from prover.artifacts import (
    PROBLEMS_PER_SHARD,
    Artifact,
    ArtifactWriter,
    Recipe,
    file_digest,
    find_artifact,
    fingerprint,
)
from prover.config import PLACEMENT, CoreProblems, ProblemsConfig
from prover.errors import InputError
from prover.jsonl import read_jsonl
from prover.problems import read_problems
from prover.progress import Progress
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
    problems = list(read_problems(section, workers=pool.workers, progress=progress))
    if not problems:
        raise InputError(f"problems {name!r}: the source has none; widen split or limit")
    refused: dict[str, StatementFailure] = {}
    with progress.stage(f"problems {name}", len(problems), "statements") as meter:
        requests = (
            CheckRequest(id=p.id, header=p.header, formal_statement=p.formal_statement, proof="") for p in problems
        )
        for ident, failure in pool.elaborate(requests):
            meter.add(1, checks=1)
            if failure is not None:
                refused[ident] = failure
    kept = [p for p in problems if p.id not in refused]
    for ident in [p.id for p in problems if p.id in refused][:3]:
        progress.note(f"problem {ident} left out: {refused[ident].reason}")
    if refused:
        progress.note(
            f"problems {name}: {len(refused)} of {len(problems)} statements do not elaborate; see {out}/rejected.txt"
        )
    if not kept:
        raise InputError(
            f"problems {name!r}: no statement elaborates; the first: {next(iter(refused.values())).reason}"
        )
    artifact = _write(out, recipe, kept, {"problems": len(kept), "rejected": len(refused)}, clean)
    (out / "rejected.txt").write_text(
        "".join(f"{i}: {f.where}: {f.reason}\n" for i, f in refused.items()), encoding="utf-8"
    )
    return artifact


def from_jsonl(file: Path, out: Path, *, clean: bool = False) -> Artifact:
    """Cut a user's file of Problems into shards at ``out``, so that single stages can run on it, unchecked."""
    problems = list(read_jsonl(file, Problem, unique="id"))
    recipe = {"stage": "problems", "jsonl": fingerprint([msgspec.to_builtins(p) for p in problems])}
    done = None if clean else find_artifact(out, recipe)
    return done or _write(out, recipe, problems, {"problems": len(problems)}, clean)


def _write(out: Path, recipe: Recipe, problems: list[Problem], counts: dict[str, int | float], clean: bool) -> Artifact:
    shards = [problems[i : i + PROBLEMS_PER_SHARD] for i in range(0, len(problems), PROBLEMS_PER_SHARD)]
    writer = ArtifactWriter(out, recipe, len(shards), clean=clean)
    for index, shard in enumerate(shards):
        writer.write(index, shard)
    return writer.finish(counts)
