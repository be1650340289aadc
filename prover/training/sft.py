"""Supervised fine-tuning: cross entropy on the answers, example by example weighted."""

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from prover.training.batches import Tokenized, padded
from prover.training.objective import Sums

IGNORED = -100


class Answers:
    """The objective of SFT: each example counts with its weight, each token of its answer alike."""

    def __init__(self, data: Tokenized) -> None:
        self.data = data
        self.ids = data.ids
        self.dropped = data.dropped

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.data.lengths

    def digest(self) -> str:
        return self.data.digest()

    def scale(self, items: NDArray[np.int64]) -> float:
        data = self.data
        return float(np.dot(data.weights[items].astype(np.float64), data.lengths[items] - data.prompts[items]))

    def sums(self, model: Any, items: NDArray[np.int64], device: str) -> Sums:
        inputs, targets, weights = collate(self.data, items)
        first = int(self.data.prompts[items].min()) - 1  # the earliest place that predicts a token of an answer
        places = torch.arange(first, inputs.shape[1], device=device)
        inputs, targets, weights = inputs.to(device), targets[:, first:].to(device), weights.to(device)
        kept = {"logits_to_keep": places} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        # padding stands on the right, where a causal model cannot see it: no mask is needed
        logits = model(input_ids=inputs, use_cache=False, **kept).logits
        if not kept:
            logits = logits[:, first:]
        answered = targets != IGNORED
        with torch.autocast(device, enabled=False):
            losses = cross_entropy(logits[answered].float(), targets[answered], reduction="none")
            weighted = (losses * weights[:, None].expand_as(targets)[answered]).sum()
        return Sums(weighted, losses.detach().sum(), losses.numel(), inputs.numel())


def collate(data: Tokenized, batch: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (B, L), targets (B, L) with the token that each place should predict or ``IGNORED``, weights (B,)."""
    width = padded(int(data.lengths[batch].max()))
    inputs = torch.zeros((len(batch), width), dtype=torch.long)
    targets = torch.full((len(batch), width), IGNORED, dtype=torch.long)
    for row, index in enumerate(batch.tolist()):
        tokens = torch.from_numpy(data.tokens[data.starts[index] : data.starts[index + 1]]).long()
        inputs[row, : len(tokens)] = tokens
        prompt = int(data.prompts[index])
        targets[row, prompt - 1 : len(tokens) - 1] = tokens[prompt:]
    return inputs, targets, torch.from_numpy(data.weights[batch])
