"""Training examples as tokens, and the order in which they are seen."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prover.conversations import answered_ids
from prover.errors import TrainingError
from prover.jsonl import read_jsonl
from prover.records import TrainingExample

_CHUNK = 512
"""Examples tokenized at once."""
_WINDOW = 1_024
"""Examples sorted by length together: wide enough for little padding, narrow enough to keep the order random."""
ROUND_TO = 8
"""Batch widths are multiples of this, so that few shapes occur."""


class Tokenized:
    """Examples end to end in flat arrays: 4 bytes a token. ``ids`` name them in errors; the rest is numbers."""

    def __init__(
        self, tokens: NDArray[np.int32], starts: NDArray[np.int64], prompts: NDArray[np.int32],
        weights: NDArray[np.float32], ids: list[str], dropped: int,
    ) -> None:  # fmt: skip
        self.tokens = tokens
        self.starts = starts
        """(N + 1,) where each example starts; the last is where they all end."""
        self.prompts = prompts
        """(N,) tokens before the answer."""
        self.weights = weights
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
        for part in (self.tokens, self.starts, self.prompts, self.weights):
            digest.update(part.tobytes())
        return digest.hexdigest()


def tokenize(paths: Sequence[Path], tokenizer: Any, longest: int) -> Tokenized:
    """Read and tokenize the examples; those over ``longest`` tokens are dropped and counted.

    The answer is what the whole conversation has beyond its prompt, which ends with the template's opening of the
    answer. Raises TrainingError where the prompt is no prefix of the whole, or an answer is missing.
    """
    tokens, starts = array("i"), array("q", [0])
    prompts, weights = array("i"), array("f")
    ids: list[str] = []
    dropped = 0
    for chunk in _chunks(paths):
        for example in chunk:
            if len(example.messages) < 2 or example.messages[-1].role != "assistant":
                raise TrainingError(f"example {example.id}: messages must end with an answer to something")
        answered = answered_ids(tokenizer, [example.messages for example in chunk], tokenizer.name_or_path)
        for example, (whole, answer) in zip(chunk, answered):
            if not 0 < answer < len(whole):
                raise TrainingError(
                    f"example {example.id}: the tokens of its prompt are no prefix of the whole conversation, so the "
                    "loss cannot be kept to the answer; the model's chat template rewrites earlier messages, or the "
                    "tokenizer merges across them"
                )
            if len(whole) > longest:
                dropped += 1
                continue
            tokens.extend(whole)
            starts.append(len(tokens))
            prompts.append(answer)
            weights.append(example.weight)
            ids.append(example.id)
    return Tokenized(
        np.array(tokens, dtype=np.int32),
        np.array(starts, dtype=np.int64),
        np.array(prompts, dtype=np.int32),
        np.array(weights, dtype=np.float32),
        ids,
        dropped,
    )


def _chunks(paths: Sequence[Path]) -> Iterator[list[TrainingExample]]:
    chunk: list[TrainingExample] = []
    for path in paths:
        if path.stat().st_size == 0:  # a shard of problems that nothing was proved of
            continue
        for example in read_jsonl(path, TrainingExample):
            chunk.append(example)
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def epoch(lengths: NDArray[np.int64], budget: int, seed: int, number: int) -> list[NDArray[np.int64]]:
    """The batches of one pass: example indices, each batch at most ``budget`` tokens with padding.

    A pure function of its arguments, so that training resumes anywhere without a saved order.
    """
    random = np.random.default_rng([seed, number])
    order = random.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), _WINDOW):
        window = order[start : start + _WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        first = 0
        for i in range(len(window)):
            if i > first and (i + 1 - first) * padded(int(lengths[window[i]])) > budget:
                batches.append(window[first:i])
                first = i
        batches.append(window[first:])
    return [batches[i] for i in random.permutation(len(batches))]


def split(lengths: NDArray[np.int64], batch: NDArray[np.int64], budget: int | None) -> list[NDArray[np.int64]]:
    """A batch cut into passes of at most ``budget`` tokens with padding; an item that is longer goes alone."""
    if budget is None:
        return [batch]
    parts: list[NDArray[np.int64]] = []
    first, widest = 0, 0
    for i, item in enumerate(batch.tolist()):
        widest = max(widest, padded(int(lengths[item])))
        if i > first and (i + 1 - first) * widest > budget:
            parts.append(batch[first:i])
            first, widest = i, padded(int(lengths[item]))
    return [*parts, batch[first:]]


def padded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO


def schedule(lengths: NDArray[np.int64], budget: int, seed: int, start: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """The batches of steps ``start`` to ``steps``, pass after pass."""
    step, number = 0, 0
    while step < steps:
        for batch in epoch(lengths, budget, seed, number):
            if step >= steps:
                return
            if step >= start:
                yield batch
            step += 1
        number += 1
