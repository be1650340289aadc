"""Round 0: first attempts from fixed tactics (to be verified), or unverified proofs of a grammar that teach syntax."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from prover.artifacts import Artifact, ArtifactWriter
from prover.pointers import expand_pointers
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Problem, TrainingExample
from prover.seeds import derive_seed
from prover.tactics import random_proof, render


def tactic_attempts(
    out: Path,
    *,
    problems: Artifact,
    tactics: tuple[str, ...],
    share: float,
    prompt: Prompt,
    series: str,
    seed: int,
    clean: bool = False,
) -> Artifact:
    """An attempt per template that applies, in the list's order, on a ``share`` of the problems drawn by their ids."""
    recipe = {
        "stage": "tactics",
        "series": series,
        "problems": problems.fingerprint,
        "tactics": list(tactics),
        "share": share,
        "seed": seed if share < 1 else 0,
        "prompt": prompt.recipe,
    }

    def make(problem: Problem) -> list[Attempt]:
        drawn = share >= 1 or derive_seed(seed, "cold share", problem.id) < share * 2**63
        return _tactic_attempts(problem, tactics, prompt, series) if drawn else []

    return _written(ArtifactWriter(out, recipe, problems.shards, clean=clean), problems, make, {"attempts": 0})


def _written(
    writer: ArtifactWriter,
    problems: Artifact,
    make: Callable[[Problem], Sequence[msgspec.Struct]],
    counts: dict[str, int],
) -> Artifact:
    """What ``make`` makes of each problem; the first of ``counts`` is how many that are."""
    if writer.finished:
        return writer.finished
    first = next(iter(counts))
    for index in range(problems.shards):
        records = [record for problem in problems.read_shard(index, Problem) for record in make(problem)]
        counts[first] += len(records)
        writer.write(index, records)
    return writer.finish(counts)


def _tactic_attempts(problem: Problem, tactics: tuple[str, ...], prompt: Prompt, series: str) -> list[Attempt]:
    asked = prompt.first(problem)
    found: list[Attempt] = []
    for number, template in enumerate(tactics):
        proof = render(template, problem)
        if proof is None:
            continue
        completion = prompt.solution(problem, proof)
        found.append(
            Attempt(
                id=f"{problem.id}/{series}.{number}",
                problem_id=problem.id,
                round=0,
                turn=0,
                model="tactics",
                messages=asked,
                completion=completion,
                finish_reason="stop",
                prompt_tokens=0,
                completion_tokens=0,
                seed=0,
                proof=expand_pointers(proof, problem),
            )
        )
    return found


def grammar_examples(
    out: Path,
    *,
    problems: Artifact,
    per_problem: int,
    prompt: Prompt,
    seed: int,
    weight: float = 1.0,
    clean: bool = False,
) -> Artifact:
    """Random proofs, never checked: training on them shows the model what a proof looks like, not what is true.

    A problem's proofs share ``weight``.
    """
    recipe = {
        "stage": "grammar",
        "problems": problems.fingerprint,
        "per_problem": per_problem,
        "weight": weight,
        "prompt": prompt.recipe,
        "seed": seed,
    }
    return _written(
        ArtifactWriter(out, recipe, problems.shards, clean=clean),
        problems,
        lambda problem: _grammar(problem, per_problem, weight, prompt, seed),
        {"examples": 0, "proofs": 0, "corrections": 0, "problems": 0},
    )


def _grammar(problem: Problem, per_problem: int, weight: float, prompt: Prompt, seed: int) -> list[TrainingExample]:
    rng = random.Random(derive_seed(seed, "grammar", problem.id))
    asked = prompt.first(problem)
    return [
        TrainingExample(
            id=f"{problem.id}/grammar.{number}",
            messages=(
                *asked,
                ChatMessage(
                    role="assistant",
                    content=prompt.solution(problem, random_proof(problem, rng)),
                ),
            ),
            problem_id=problem.id,
            attempt_id=None,
            weight=weight / per_problem,
            kind="syntax",
        )
        for number in range(per_problem)
    ]
