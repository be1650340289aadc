"""Attempts and their verdicts, wave by wave: what Lean says of one wave decides who is sampled in the next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from prover import allocation
from prover.allocation import Plan, Tally
from prover.artifacts import Artifact, OnShard
from prover.config import SamplingConfig
from prover.engines.lease import EngineLease
from prover.models import Model
from prover.overlap import Wait, overlapped_waves
from prover.progress import Progress
from prover.prompts import Prompt
from prover.records import Verdict
from prover.seeds import derive_seed
from prover.stages import sample
from prover.stages.sample import Wave
from prover.stages.verify import Judged, fingerprints


class Drawn(msgspec.Struct, frozen=True):
    """What a tally needs of an attempt; the rest of its line is skipped, which is most of it."""

    id: str
    problem_id: str
    completion_tokens: int


Verify = Callable[[Path, str, Artifact, Iterable[int], list[Judged], OnShard], Artifact]
"""Judges a wave: its folder, its name (empty for the first), the attempts, their shards as they appear, the waves
before it, and whom to tell of each shard."""


def run(
    plan: Plan,
    place: Callable[[int], tuple[Path, Path]],
    verify: Verify,
    abort: Callable[[], object],
    *,
    problems: Artifact,
    model: Model,
    lease: EngineLease,
    prompt: Prompt,
    sampling: SamplingConfig,
    series: str,
    round: int,
    seed: int,
    progress: Progress,
    clean: bool = False,
) -> list[Judged]:
    """Sample by the plan, with ``verify`` in a thread beside. ``place`` gives the two folders of a wave, ``abort`` ends
    what ``verify`` waits for.

    A wave up to ``plan.n`` takes up a shard as soon as the wave before is judged there; one beyond it, when all is
    judged.
    """
    attempts: list[Artifact] = []
    verdicts: list[Artifact] = []

    def produce(number: int, on_shard: OnShard, wait: Wait) -> Artifact:
        wave = None
        if number:
            earlier = [(drawn, wait(before, 0)) for before, drawn in enumerate(attempts)]
            recipe = {"plan": plan.recipe, "verdicts": fingerprints(earlier)}
            chance = derive_seed(seed, series, "wave", number)
            wave = Wave(number, recipe, _allocated(plan, number, earlier, problems.shards, chance, wait))
        made = sample.run(
            place(number)[0],
            problems=problems,
            model=model,
            lease=lease,
            prompt=prompt,
            sampling=sampling.model_copy(update={"n": plan.n if number else plan.first}),
            series=series,
            round=round,
            seed=seed,
            progress=progress,
            wave=wave,
            on_shard=on_shard,
            clean=clean,
        )
        attempts.append(made)
        return made

    def consume(number: int, drawn: Artifact, ready: Iterable[int], on_shard: OnShard) -> Artifact:
        before = list(zip(attempts, verdicts))  # attempts of this wave may be there already; they have no verdicts
        label = f" wave {number}" if number else ""
        verdicts.append(verify(place(number)[1], label, drawn, ready, before, on_shard))
        return verdicts[-1]

    return overlapped_waves(plan.waves, produce, consume, abort)


def _allocated(
    plan: Plan, number: int, earlier: Sequence[Judged], shards: int, seed: int, wait: Wait
) -> Callable[[int], Mapping[str, range]]:
    """Which attempts a wave draws of a shard's problems; where it looks at all, of all problems."""

    def numbers(indices: Iterable[int]) -> dict[str, range]:
        known: dict[str, Tally] = {}
        for index in indices:
            wait(number - 1, index)
            known |= tallies(earlier, index)
        granted = allocation.more(plan, number, known, seed)
        return {i: range(known[i].attempts, known[i].attempts + count) for i, count in granted.items()}

    if plan.local(number):
        return lambda index: numbers([index])
    everywhere = cache(lambda: numbers(range(shards)))
    return lambda _index: everywhere()


def tallies(judged: Sequence[Judged], index: int) -> dict[str, Tally]:
    """The past of each problem of a shard that was asked."""
    found: dict[str, Tally] = {}
    for attempts, verdicts in judged:
        said = {v.attempt_id: v.proved for v in verdicts.read_shard(index, Verdict)}
        for drawn in attempts.read_shard(index, Drawn):
            old = found.get(drawn.problem_id, Tally(0, 0, 0, 0))
            found[drawn.problem_id] = Tally(
                attempts=old.attempts + 1,
                tokens=old.tokens + drawn.completion_tokens,
                judged=old.judged + (drawn.id in said),
                proved=old.proved + said.get(drawn.id, False),
            )
    return found
