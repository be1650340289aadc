"""Choose what to learn from: proved attempts, deduplicated, at most so many a problem."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lean_env.source import normalise_proof
from prover.artifacts import Artifact, ArtifactWriter
from prover.config import SelectConfig
from prover.prompts import Prompt
from prover.records import Attempt, ChatMessage, Problem, TrainingExample, Verdict
from prover.seeds import derive_seed
from prover.stages.verify import Judged


def run(
    out: Path,
    *,
    problems: Artifact,
    judged: Sequence[Judged],
    prompt: Prompt,
    config: SelectConfig,
    seed: int,
    clean: bool = False,
) -> Artifact:
    """Training examples from all ``judged`` stages together.

    Proofs equal up to comments and spacing count once, the earliest first. Of more than ``config.per_problem`` the
    shortest is kept and the rest drawn with ``seed``. A problem's examples share the weight 1, so that easy problems
    with many proofs do not outweigh hard ones; ``config.rarity`` lowers the weight of answers that many problems
    share. A proved correction gives two examples: the correction itself, and its
    proof as an answer to the first prompt.
    """
    writer = ArtifactWriter(
        out,
        {
            "stage": "select",
            "seed": seed,
            "problems": problems.fingerprint,
            "verdicts": [verdicts.fingerprint for _, verdicts in judged],
            "prompt": prompt.recipe,
            "config": config.model_dump(mode="json"),
        },
        problems.shards,
        clean=clean,
    )
    if writer.finished:
        return writer.finished
    chosen = _Chosen(problems, judged, config, seed)
    common = chosen.answers() if config.rarity else Counter[int]()
    for index in writer.missing():
        writer.write(
            index,
            [
                example
                for problem, attempts in chosen.shard(index)
                for example in _examples(problem, attempts, prompt, config.rarity, common)
            ],
        )
    counts = {"examples": 0, "proofs": 0, "corrections": 0, "problems": 0}
    for index in range(problems.shards):
        examples = writer.artifact.read_shard(index, TrainingExample)
        counts["examples"] += len(examples)
        counts["proofs"] += sum(example.kind == "proof" for example in examples)
        counts["corrections"] += sum(example.kind == "correction" for example in examples)
        counts["problems"] += len({example.problem_id for example in examples})
    return writer.finish(counts)


class _Chosen(NamedTuple):
    """The attempts to learn from, shard by shard; one shard is in memory at a time."""

    problems: Artifact
    judged: Sequence[Judged]
    config: SelectConfig
    seed: int

    def shard(self, index: int) -> Iterator[tuple[Problem, list[Attempt]]]:
        proofs: dict[str, dict[str, Attempt]] = {}
        for attempts, verdicts in self.judged:
            proved = {v.attempt_id for v in verdicts.read_shard(index, Verdict) if v.proved}
            for attempt in attempts.read_shard(index, Attempt):
                if attempt.id in proved and attempt.proof is not None:
                    proofs.setdefault(attempt.problem_id, {}).setdefault(normalise_proof(attempt.proof), attempt)
        for problem in self.problems.read_shard(index, Problem):
            yield problem, self._capped(problem, proofs.get(problem.id, {}))

    def _capped(self, problem: Problem, proofs: dict[str, Attempt]) -> list[Attempt]:
        ranked = [attempt for _, attempt in sorted(proofs.items(), key=lambda item: (len(item[0]), item[0]))]
        if len(ranked) <= self.config.per_problem:
            return ranked
        rng = random.Random(derive_seed(self.seed, "select", problem.id))
        return [ranked[0], *rng.sample(ranked[1:], self.config.per_problem - 1)]

    def answers(self) -> Counter[int]:
        """For how many problems each answer was chosen, by the answer's hash: eight bytes each, however long it is."""
        return Counter(
            derive_seed(attempt.completion)
            for index in range(self.problems.shards)
            for _, attempts in self.shard(index)
            for attempt in attempts
        )


def _examples(
    problem: Problem, attempts: list[Attempt], prompt: Prompt, rarity: float, common: Counter[int]
) -> list[TrainingExample]:
    first = prompt.first(problem)
    examples: list[TrainingExample] = []
    for attempt in attempts:
        asked = first if attempt.turn else attempt.messages  # which may have been cut to fit the model's context
        answer = ChatMessage(role="assistant", content=attempt.completion)
        weight = max(1, common[derive_seed(attempt.completion)]) ** -rarity / len(attempts)
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
