"""Choose what to learn from: proved attempts, deduplicated, at most so many a problem."""

import random
from collections.abc import Sequence
from pathlib import Path

from lean_env.source import normalise_proof
from prover import prompts
from prover.artifacts import Artifact, ArtifactWriter
from prover.config import SelectConfig
from prover.records import Attempt, ChatMessage, Problem, TrainingExample, Verdict
from prover.seeds import derive_seed
from prover.stages.verify import Judged


def run(
    out: Path,
    *,
    problems: Artifact,
    judged: Sequence[Judged],
    prompt: prompts.Style,
    config: SelectConfig,
    seed: int,
    clean: bool = False,
) -> Artifact:
    """Training examples from all ``judged`` stages together.

    Proofs equal up to comments and spacing count once, the earliest first. Of more than ``config.per_problem`` the
    shortest is kept and the rest drawn with ``seed``. A problem's examples share the weight 1, so that easy problems
    with many proofs do not outweigh hard ones. A proved correction gives two examples: the correction itself, and its
    proof as an answer to the first prompt.
    """
    writer = ArtifactWriter(
        out,
        {
            "stage": "select",
            "seed": seed,
            "problems": problems.fingerprint,
            "verdicts": [verdicts.fingerprint for _, verdicts in judged],
            "prompt": {"style": prompt, "version": prompts.version()},
            "config": config.model_dump(mode="json"),
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    for index in writer.missing():
        proofs: dict[str, dict[str, Attempt]] = {}
        for attempts, verdicts in judged:
            proved = {v.attempt_id for v in verdicts.read_shard(index, Verdict) if v.proved}
            for attempt in attempts.read_shard(index, Attempt):
                if attempt.id in proved and attempt.proof is not None:
                    proofs.setdefault(attempt.problem_id, {}).setdefault(normalise_proof(attempt.proof), attempt)
        writer.write(
            index,
            (
                example
                for problem in problems.read_shard(index, Problem)
                for example in _examples(problem, proofs.get(problem.id, {}), prompt, config, seed)
            ),
        )
    counts = {"examples": 0, "proofs": 0, "corrections": 0, "problems": 0}
    for index in range(problems.shards):
        examples = writer.artifact.read_shard(index, TrainingExample)
        counts["examples"] += len(examples)
        counts["proofs"] += sum(example.kind == "proof" for example in examples)
        counts["corrections"] += sum(example.kind == "correction" for example in examples)
        counts["problems"] += len({example.problem_id for example in examples})
    return writer.finish(counts)


def _examples(
    problem: Problem, proofs: dict[str, Attempt], prompt: prompts.Style, config: SelectConfig, seed: int
) -> list[TrainingExample]:
    ranked = [attempt for _, attempt in sorted(proofs.items(), key=lambda item: (len(item[0]), item[0]))]
    if len(ranked) > config.per_problem:
        rng = random.Random(derive_seed(seed, "select", problem.id))
        ranked = [ranked[0], *rng.sample(ranked[1:], config.per_problem - 1)]
    weight = 1.0 / max(1, len(ranked))
    asked = prompts.proof_prompt(problem, prompt)
    examples: list[TrainingExample] = []
    for attempt in ranked:
        answer = ChatMessage(role="assistant", content=attempt.completion)
        examples.append(
            TrainingExample(
                id=f"{attempt.id}/proof",
                messages=(*asked, answer),
                problem_id=problem.id,
                attempt_id=attempt.id,
                weight=weight,
            )
        )
        if attempt.turn > 0:
            examples.append(
                TrainingExample(
                    id=f"{attempt.id}/correction",
                    messages=(*attempt.messages, answer),
                    problem_id=problem.id,
                    attempt_id=attempt.id,
                    weight=weight,
                    kind="correction",
                )
            )
    return examples
