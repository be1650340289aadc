"""Training examples as tokens, and the order in which they are seen."""

import hashlib
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from prover.conversations import answered_ids
from prover.errors import TrainingError
from prover.jsonl import read_jsonl
from prover.records import PreferencePair, TrainingExample

_CHUNK = 512
"""Examples tokenized at once."""
_WINDOW = 1_024
"""Examples sorted by length together: attention takes like lengths side by side, and the order stays random enough."""
_BATCHES = 8
"""What a window holds at least, on average: its last batch is not full, and none is larger than a window."""
ROUND_TO = 8
"""Widths of padded rows are multiples of this, so that few shapes occur."""


class Tokenized:
    """Examples end to end in flat arrays: 4 bytes a token. ``ids`` name them in errors; the rest is numbers."""

    def __init__(
        self, tokens: NDArray[np.int32], starts: NDArray[np.int64], prompts: NDArray[np.int32],
        weights: NDArray[np.float32], problems: NDArray[np.uint64], difficulty: NDArray[np.float32], ids: list[str],
        dropped: int,
    ) -> None:  # fmt: skip
        self.tokens = tokens
        self.starts = starts
        """(N + 1,) where each example starts; the last is where they all end."""
        self.prompts = prompts
        """(N,) tokens before the answer."""
        self.weights = weights
        self.problems = problems
        """(N,) a hash of each example's problem."""
        self.difficulty = difficulty
        """(N,) NaN where it is not known."""
        self.ids = ids
        self.dropped = dropped
        """Examples left out for their length."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def digest(self) -> str:
        """Identifies the examples."""
        digest = hashlib.sha256()
        for part in (self.tokens, self.starts, self.prompts, self.weights, self.problems, self.difficulty):
            digest.update(part.tobytes())
        return digest.hexdigest()


class Rows:
    """Grows a :class:`Tokenized`, conversation by conversation."""

    def __init__(self) -> None:
        self._tokens, self._starts = array("i"), array("q", [0])
        self._prompts, self._weights, self._problems, self._difficulty = array("i"), array("f"), array("Q"), array("f")

    def add(
        self, whole: list[int], answer: int, *, weight: float, problem_id: str, difficulty: float | None = None
    ) -> None:
        """A conversation's tokens, and at which of them its answer begins."""
        self._tokens.extend(whole)
        self._starts.append(len(self._tokens))
        self._prompts.append(answer)
        self._weights.append(weight)
        self._problems.append(problem_hash(problem_id))
        self._difficulty.append(math.nan if difficulty is None else difficulty)

    def tokenized(self, ids: list[str], dropped: int) -> Tokenized:
        return Tokenized(
            np.array(self._tokens, dtype=np.int32),
            np.array(self._starts, dtype=np.int64),
            np.array(self._prompts, dtype=np.int32),
            np.array(self._weights, dtype=np.float32),
            np.array(self._problems, dtype=np.uint64),
            np.array(self._difficulty, dtype=np.float32),
            ids,
            dropped,
        )


def tokenize(paths: Sequence[Path], tokenizer: Any, longest: int) -> Tokenized:
    """Read and tokenize the examples; those over ``longest`` tokens are dropped and counted.

    The answer is what the whole conversation has beyond its prompt, which ends with the template's opening of the
    answer. Raises TrainingError where the prompt is no prefix of the whole, or an answer is missing.
    """
    rows = Rows()
    ids: list[str] = []
    dropped = 0
    for chunk in chunks(paths, TrainingExample):
        for example, (whole, answer) in zip(chunk, answered(chunk, tokenizer)):
            if len(whole) > longest:
                dropped += 1
                continue
            rows.add(whole, answer, weight=example.weight, problem_id=example.problem_id, difficulty=example.difficulty)
            ids.append(example.id)
    return rows.tokenized(ids, dropped)


def problem_hash(problem_id: str) -> int:
    """64 bits, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(problem_id.encode(), digest_size=8).digest(), "big")


def answered(examples: Sequence[TrainingExample], tokenizer: Any) -> list[tuple[list[int], int]]:
    """Each conversation's tokens, and at which of them its answer begins. Raises TrainingError as :func:`tokenize`."""
    for example in examples:
        if len(example.messages) < 2 or example.messages[-1].role != "assistant":
            raise TrainingError(f"example {example.id}: messages must end with an answer to something")
    found = answered_ids(tokenizer, [example.messages for example in examples], tokenizer.name_or_path)
    for example, (whole, answer) in zip(examples, found):
        if not 0 < answer < len(whole):
            raise TrainingError(
                f"example {example.id}: the tokens of its prompt are no prefix of the whole conversation, so the "
                "loss cannot be kept to the answer; the model's chat template rewrites earlier messages, or the "
                "tokenizer merges across them"
            )
    return found


_Item = TypeVar("_Item", TrainingExample, PreferencePair)


def chunks(paths: Sequence[Path], kind: type[_Item]) -> Iterator[list[_Item]]:
    """The records of all files, some at a time."""
    chunk: list[_Item] = []
    for path in paths:
        if path.stat().st_size == 0:  # a shard of problems that nothing was proved of
            continue
        for example in read_jsonl(path, kind):
            chunk.append(example)
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def easy_first(lengths: NDArray[np.int64], difficulty: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices by difficulty, and by length among equals. Where the difficulty is NaN, the share of examples that are
    shorter takes its place."""
    shorter = np.searchsorted(np.sort(lengths), lengths) / max(len(lengths), 1)
    return np.lexsort((lengths, np.where(np.isnan(difficulty), shorter, difficulty)))


def epoch(lengths: NDArray[np.int64], budget: int, seed: int, number: int) -> list[NDArray[np.int64]]:
    """The batches of one pass: example indices, each batch at most ``budget`` tokens.

    A pure function of its arguments, so that training resumes anywhere without a saved order.
    """
    random = np.random.default_rng([seed, number])
    order = random.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    size = max(_WINDOW, int(_BATCHES * budget * len(order) / max(int(lengths.sum()), 1)))
    for start in range(0, len(order), size):
        window = order[start : start + size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += _cut(lengths, window, budget)
    return [batches[i] for i in random.permutation(len(batches))]


def split(lengths: NDArray[np.int64], batch: NDArray[np.int64], budget: int | None) -> list[NDArray[np.int64]]:
    """A batch cut into passes of at most ``budget`` tokens, like lengths together; a longer item goes alone."""
    if budget is None:
        return [batch]
    return _cut(lengths, batch[np.argsort(lengths[batch], kind="stable")], budget)


def _cut(lengths: NDArray[np.int64], items: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    parts: list[NDArray[np.int64]] = []
    first, tokens = 0, 0
    for i, length in enumerate(lengths[items].tolist()):
        if i > first and tokens + length > budget:
            parts.append(items[first:i])
            first, tokens = i, 0
        tokens += length
    return [*parts, items[first:]]


def dealt(parts: list[NDArray[np.int64]], rank: int, world: int) -> list[NDArray[np.int64]]:
    """The passes of one process; every process has as many, the last ones empty where they do not come out even."""
    empty = np.empty(0, dtype=np.int64)
    return [parts[i] if i < len(parts) else empty for i in range(rank, -(-len(parts) // world) * world, world)]


def padded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO


def schedule(
    lengths: NDArray[np.int64], budget: int, seed: int, start: int, steps: int, first: NDArray[np.int64] | None = None
) -> Iterator[NDArray[np.int64]]:
    """The batches of steps ``start`` to ``steps``, pass after pass; those of the first pass in the order ``first``,
    where it is given."""
    step, number = 0, 0
    while step < steps:
        ordered = _cut(lengths, first, budget) if first is not None and number == 0 else None
        for batch in ordered or epoch(lengths, budget, seed, number):
            if step >= steps:
                return
            if step >= start:
                yield batch
            step += 1
        number += 1
