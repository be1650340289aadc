"""Sample whole proofs: problems to attempts, shard by shard."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from prover.artifacts import Artifact, ArtifactWriter, OnShard, owed_problems
from prover.config import SamplingConfig
from prover.engines import Completion, GenerationRequest, Sampling
from prover.engines.lease import EngineLease
from prover.models import Model
from prover.progress import Meter, Progress
from prover.prompts import Messages, Prompt
from prover.records import Attempt, Problem
from prover.seeds import derive_seed


def recipe(
    problems: Artifact, model: Model, lease: EngineLease, prompt: Prompt, sampling: SamplingConfig, **more: Any
) -> dict[str, Any]:
    """What decides sampled attempts of one wave."""
    return {
        "problems": problems.fingerprint,
        "model": model.fingerprint,
        "engine": lease.recipe,
        "prompt": prompt.recipe,
        "sampling": sampling.model_dump(mode="json", exclude={"enough", "budget"}),
        **more,
    }


class Wave(msgspec.Struct, frozen=True):
    """A wave after the first: its number, what decides it beside the rest, and which attempts of a problem it draws,
    by the problems of a shard."""

    number: int
    recipe: dict[str, Any]
    drawn: Callable[[int], Mapping[str, range]]


def run(
    out: Path,
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
    wave: Wave | None = None,
    on_shard: OnShard = lambda _artifact, _index: None,
    clean: bool = False,
) -> Artifact:
    """``sampling.n`` attempts per problem, or those that a later ``wave`` draws. ``series`` (``r1``, ``e1``,
    ``control``) enters their ids and seeds; the i-th attempt of a problem has the same in whichever wave it is drawn.

    ``on_shard`` is told of each shard once it is on disk, finished ones included, so that checking can follow.
    """
    more = {"wave": wave.number, **wave.recipe} if wave else {}
    writer = ArtifactWriter(
        out,
        {
            "stage": "sample",
            "series": series,
            "seed": seed,
            **recipe(problems, model, lease, prompt, sampling, **more),
        },
        problems.shards,
        clean=clean,
    )
    owed = set() if writer.finished else set(writer.missing())
    counts = {"attempts": 0, "tokens": 0, "unasked": 0, "cut": 0}
    for index in range(problems.shards):
        if index not in owed:
            on_shard(writer.artifact, index)
            if not writer.finished:
                first = () if wave else problems.read_shard(index, Problem)
                _count(counts, writer.artifact.read_shard(index, Attempt), first, prompt)
    if writer.finished:
        return writer.finished
    drawn = Sampling(temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens)
    label = f"{series} sample wave {wave.number}" if wave else f"{series} sample"
    with progress.stage(label, owed_problems(problems, owed), "problems") as meter:
        for index in sorted(owed):
            batch = problems.read_shard(index, Problem)
            numbers = wave.drawn(index) if wave else {p.id: range(sampling.n) for p in batch}
            asks = [
                Ask(
                    f"{p.id}/{series}.t0",
                    p,
                    prompt.firsts(p),
                    tuple(derive_seed(seed, series, p.id, i) for i in numbers[p.id]),
                    first=numbers[p.id].start,
                )
                for p in batch
                if p.id in numbers
            ]
            attempts = generate(lease, asks, drawn, prompt, model, round=round, turn=0, meter=meter)
            writer.write(index, attempts)
            _count(counts, attempts, () if wave else batch, prompt)
            meter.add(len(batch))
            on_shard(writer.artifact, index)
    tell_overflow(counts, f"{series}: {{}} prompts", progress)
    return writer.finish(counts)


def _count(counts: dict[str, int], attempts: list[Attempt], problems: Sequence[Problem], prompt: Prompt) -> None:
    """``problems`` are those asked here for the first time."""
    asked = {attempt.problem_id: attempt.messages for attempt in attempts}
    counts["attempts"] += len(attempts)
    counts["tokens"] += sum(attempt.completion_tokens for attempt in attempts)
    counts["unasked"] += sum(p.id not in asked for p in problems)
    if prompt.cuts and problems:
        counts["cut"] += sum(p.id in asked and asked[p.id] != prompt.first(p) for p in problems)


def tell_overflow(counts: dict[str, int], what: str, progress: Progress) -> None:
    """Say how many of ``what`` (with a place for the number) were too long, and what became of them."""
    if counts["cut"]:
        progress.note(f"{what.format(counts['cut'])} did not fit the model's context and were cut to fit")
    if counts["unasked"]:
        progress.note(f"{what.format(counts['unasked'])} do not fit the model's context and were not asked")


class Ask:
    """One conversation to complete: for a problem, from a parent attempt where it is a correction. Of its variants the
    first that fits the model's context is asked. ``first`` numbers the first of its completions."""

    def __init__(
        self,
        id: str,
        problem: Problem,
        variants: Iterable[Messages],
        seeds: tuple[int, ...],
        parent_id: str | None = None,
        first: int = 0,
    ) -> None:
        self.id = id
        self.problem = problem
        self.variants = iter(variants)
        self.seeds = seeds
        self.parent_id = parent_id
        self.first = first


def generate(
    lease: EngineLease,
    asks: Sequence[Ask],
    sampling: Sampling,
    prompt: Prompt,
    model: Model,
    *,
    round: int,
    turn: int,
    meter: Meter,
) -> list[Attempt]:
    """Complete the conversations; attempts in the order of the asks and their seeds, whatever finished first.

    Conversations of which no variant fits the model's context yield no attempts. For none no model is loaded.
    """
    if not asks:
        return []
    engine = lease.engine(model)
    chosen = [(ask, next(filter(engine.fits, ask.variants), None)) for ask in asks]
    fitting = [(ask, messages) for ask, messages in chosen if messages is not None]
    requests = [GenerationRequest(ask.id, messages, ask.seeds, ask.first) for ask, messages in fitting]
    done: dict[tuple[str, int], Completion] = {}
    for completion in engine.generate(requests, sampling):
        done[completion.request_id, completion.index] = completion
        meter.add(attempts=1, tokens=completion.completion_tokens)
    return [
        _attempt(ask, messages, i, done[ask.id, i], prompt, model, round, turn)
        for ask, messages in fitting
        for i in range(len(ask.seeds))
    ]


def _attempt(
    ask: Ask,
    messages: Messages,
    index: int,
    completion: Completion,
    prompt: Prompt,
    model: Model,
    round: int,
    turn: int,
) -> Attempt:
    return Attempt(
        id=f"{ask.id}.{ask.first + index}",
        problem_id=ask.problem.id,
        round=round,
        turn=turn,
        model=model.name,
        messages=messages,
        completion=completion.text,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seed=ask.seeds[index],
        parent_id=ask.parent_id,
        proof=prompt.extract(completion.text, ask.problem, completion.finish_reason),
        logprob=completion.logprob,
    )
