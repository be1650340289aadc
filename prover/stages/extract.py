"""A Lean project as seed data: what LeanDojo traced, kept file by file, and what is made of it.

``traced`` has a shard for each Lean file, so that a killed run reads only what is left. ``problems``, ``attempts`` (the
project's own proofs, to be verified), ``examples`` (the same, unverified, as SFT reads them) and ``tactics`` are cut
alike and are made of it without LeanDojo.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prover.artifacts import PROBLEMS_PER_SHARD, Artifact, ArtifactWriter, find_artifact, run_lock
from prover.errors import InputError
from prover.progress import Progress
from prover.projects import traces
from prover.projects.convert import Conversion, Seed, convert, find_twins
from prover.projects.traced import TracedFile
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, TrainingExample

MODEL = "project"
"""What the project's own proofs are attempts of."""


class Seeds(NamedTuple):
    """The finished artifacts."""

    problems: Artifact
    attempts: Artifact
    examples: Artifact
    tactics: Artifact


def run(
    out: Path,
    project: Path,
    *,
    prompt: Prompt,
    progress: Progress,
    traced: bool = False,
    name: str | None = None,
    split: str = "train",
    options: Mapping[str, str] | None = None,
    all_lemmas: bool = False,
    clean: bool = False,
) -> Seeds:
    """Trace ``project`` (unless it is a folder ``traced`` by LeanDojo) and make seed data of it in folders of ``out``.

    ``options`` go before those of ``lakefile.toml``. Raises InputError for what is no project, no trace, or holds no
    theorem, and ProverError where LeanDojo, Lake or Lean is missing or fails.
    """
    traces.lean_dojo_version()
    if not project.is_dir():
        raise InputError(f"{project}: is no folder; give a Lake project's")
    if not traced:
        traces.check_project(project)
    source = name or project.resolve().name
    set_options = {"autoImplicit": "false", **traces.options_of(project), **(options or {})}
    with run_lock(out):
        folder = project
        if not traced:
            if traces.has_changes(project):
                progress.note(f"{project}: has changes that are not committed; they are left out")
            with progress.stage("trace with LeanDojo", 1, "project") as meter:
                folder = traces.trace(project, out / "lean-dojo")
                meter.add(1)
        read = read_traces(out / "traced", folder=folder, source=source, progress=progress, clean=clean)
        return convert_traces(
            out,
            traced=read,
            source=source,
            split=split,
            options=set_options,
            all_lemmas=all_lemmas,
            prompt=prompt,
            clean=clean,
        )


def read_traces(out: Path, *, folder: Path, source: str, progress: Progress, clean: bool = False) -> Artifact:
    """The traced files of ``folder`` as records, a shard for each. Raises InputError where none can be read."""
    version = traces.lean_dojo_version()
    names = traces.find_traces(folder)
    recipe: dict[str, Any] = {
        "stage": "traced",
        "source": source,
        "commit": traces.commit_of(folder),
        "toolchain": traces.toolchain_of(folder),
        "lean_dojo": version,
        "files": len(names),
        "traces": _digest(folder, names),
    }
    writer = ArtifactWriter(out, recipe, len(names), clean=clean)
    if writer.finished:
        return writer.finished
    owed = writer.missing()
    with (
        progress.stage("read traces", len(owed), "files") as meter,
        traces.reading(folder, [names[index] for index in owed]) as files,
    ):
        for index, file in zip(owed, files):
            writer.write(index, [file])
            meter.add(1)
    counts = {"files": len(names), "theorems": 0, "unreadable": 0}
    first = ""
    for file in writer.artifact.read(TracedFile):
        counts["theorems"] += len(file.theorems)
        if file.error is not None:
            counts["unreadable"] += 1
            first = first or f"{file.path}: {file.error}"
    if counts["unreadable"] == len(names):
        raise InputError(f"{folder}: LeanDojo {version} can read none of its traces; the first: {first}")
    if first:
        progress.note(f"{counts['unreadable']} of {len(names)} traces cannot be read by LeanDojo; the first: {first}")
    return writer.finish(counts)


def _digest(folder: Path, names: list[str]) -> str:
    """Names and sizes of the traces: they are large, and made from what the commit names."""
    sizes = "".join(f"{name} {(folder / name).stat().st_size}\n" for name in names)
    return hashlib.sha256(sizes.encode()).hexdigest()


def convert_traces(
    out: Path,
    *,
    traced: Artifact,
    source: str,
    split: str,
    options: dict[str, str],
    all_lemmas: bool,
    prompt: Prompt,
    clean: bool = False,
) -> Seeds:
    """Problems, attempts, examples and tactics in folders of ``out``. Raises InputError where no theorem is left."""
    recipe = {
        "stage": "extract",
        "traced": traced.fingerprint,
        "source": source,
        "split": split,
        "options": options,
        "all_lemmas": all_lemmas,
    }
    problems = ArtifactWriter(out / "problems", recipe, 0, clean=clean)
    made = {"problems": problems.artifact.fingerprint}
    asked = made | {"prompt": prompt.recipe}
    recipes = {
        "attempts": {"stage": "seed attempts", **asked},
        "examples": {"stage": "seed examples", **asked},
        "tactics": {"stage": "state tactics", **made},
    }
    done = [find_artifact(out / name, wanted) for name, wanted in {"problems": recipe, **recipes}.items() if not clean]
    if len(done) == 4 and all(done):
        return Seeds(*(artifact for artifact in done if artifact is not None))
    writers = [problems, *(ArtifactWriter(out / name, wanted, 0, clean=clean) for name, wanted in recipes.items())]
    how = Conversion(source, split, _lines(options), all_lemmas, find_twins(traced.read(TracedFile)))
    counts: Counter[str] = Counter()
    for shard in _shards(traced, how, counts):
        writers[0].append([seed.problem for seed in shard])
        writers[1].append([_attempt(seed, prompt) for seed in shard if seed.proof is not None])
        writers[2].append([_example(seed, prompt) for seed in shard if seed.proof is not None])
        writers[3].append([step for seed in shard for step in seed.tactics])
    if not counts["problems"]:
        why = ", ".join(f"{count} {reason.removeprefix('no problem: ')}" for reason, count in counts.items() if count)
        raise InputError(f"{traced.path}: not one theorem of it becomes a problem ({why or 'it has none'})")
    reasons = {key: count for key, count in sorted(counts.items()) if key.startswith("no ")}
    return Seeds(
        writers[0].finish({"problems": counts["problems"], **reasons}),
        writers[1].finish({"attempts": counts["proofs"]}),
        writers[2].finish({"examples": counts["proofs"]}),
        writers[3].finish({"tactics": counts["tactics"]}),
    )


def _lines(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"set_option {name} {value}" for name, value in sorted(options.items()))


def _shards(traced: Artifact, how: Conversion, counts: Counter[str]) -> Iterator[list[Seed]]:
    waiting: list[Seed] = []
    seen: set[str] = set()
    for file in traced.read(TracedFile):
        for seed in convert(file, how):
            if isinstance(seed, str):
                counts[f"no problem: {seed}"] += 1
                continue
            if seed.problem.id in seen:
                counts["no problem: named twice"] += 1
                continue
            seen.add(seed.problem.id)
            counts["problems"] += 1
            counts["tactics"] += len(seed.tactics)
            counts["proofs" if seed.proof is not None else f"no proof: {seed.reason}"] += 1
            waiting.append(seed)
            if len(waiting) == PROBLEMS_PER_SHARD:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _attempt(seed: Seed, prompt: Prompt) -> Attempt:
    assert seed.proof is not None
    return Attempt(
        id=f"{seed.problem.id}/{MODEL}",
        problem_id=seed.problem.id,
        round=0,
        turn=0,
        model=MODEL,
        messages=prompt.first(seed.problem),
        completion=prompt.solution(seed.problem, seed.proof),
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        seed=0,
        proof=seed.proof,
    )


def _example(seed: Seed, prompt: Prompt) -> TrainingExample:
    attempt = _attempt(seed, prompt)
    return TrainingExample(
        id=attempt.id,
        messages=(*attempt.messages, ChatMessage(role="assistant", content=attempt.completion)),
        problem_id=attempt.problem_id,
        attempt_id=None,
        kind="seed",
    )
