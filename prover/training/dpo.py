"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) on pairs of answers, one of them proved.

The loss of a pair is -log sigmoid(beta * (chosen - rejected)), where each is what the answer's log-probability has
gained on the base model. It falls as well when both lose and the rejected one loses more; so the chosen answer's own
loss per token can be added (iterative RPO, Pang et al. 2024, arXiv 2404.19733).

The base model is where training starts. What it gives each answer is computed once before the first step and kept
beside the training state: there is no second model in memory.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import logsigmoid

from prover.artifacts import disk_errors
from prover.pretrained import disk_reports, flush
from prover.records import ChatMessage, PreferencePair, TrainingExample
from prover.training.backend import Backend
from prover.training.batches import Rows, Tokenized, answered, chunks, dealt, split
from prover.training.objective import Sums
from prover.training.packing import Packer

_REFERENCE = "reference.safetensors"
_SUMMED = 4_096
"""Numbers that the processes put together at once."""


class Preferences:
    """The objective of DPO. Its items are pairs: item i is rows 2i, the chosen answer, and 2i + 1, the rejected one."""

    def __init__(self, data: Tokenized, beta: float, sft_weight: float) -> None:
        self.data = data
        """Both answers of each pair, each with its prompt; the weight of either is the pair's."""
        self.ids = data.ids
        self.dropped = data.dropped
        self.problems = data.problems[0::2]
        self.difficulty = data.difficulty[0::2]
        self.reference = torch.empty(0)
        """(2N,) log-probability of each answer under the base model, nats."""
        self._beta = beta
        self._sft_weight = sft_weight
        self._packer = Packer()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of both answers, each with its prompt."""
        return self.data.lengths.reshape(-1, 2).sum(axis=1)

    def digest(self) -> str:
        return self.data.digest()

    def scale(self, items: NDArray[np.int64]) -> float:
        return float(self.data.weights[2 * items].astype(np.float64).sum())

    def prepare(self, backend: Backend, work: Path, recipe: str, budget: int, fast: bool) -> None:
        """The base model's log-probabilities, from ``work`` where an earlier start left them."""
        held = _held(work / _REFERENCE, recipe)
        if backend.total(float(held is None))[0]:  # on any process: all must take part
            held = self._computed(backend, budget, fast)
            if backend.rank == 0:
                _keep(work, recipe, held)
        assert held is not None
        self.reference = held.to(backend.device)

    def _computed(self, backend: Backend, budget: int, fast: bool) -> torch.Tensor:
        order = np.argsort(self.data.lengths, kind="stable")
        found = torch.zeros(len(order), dtype=torch.float64)
        backend.model.eval()
        with torch.no_grad(), torch.autocast(backend.device, dtype=torch.bfloat16, enabled=fast):
            for rows in dealt(split(self.data.lengths, order, budget), backend.rank, backend.world):
                idle = not len(rows)  # other processes have a pass more
                logps, _ = self.logps(backend.model, order[:1] if idle else rows, backend.device)
                if not idle:
                    found[torch.from_numpy(rows)] = logps.cpu()
        backend.model.train()
        parts = [backend.total(*part.tolist()) for part in found.split(_SUMMED)]
        return torch.tensor([value for part in parts for value in part], dtype=torch.float64)

    def logps(self, model: Any, rows: NDArray[np.int64], device: str) -> tuple[torch.Tensor, int]:
        """(R,) log-probability of each row's answer, its end token included, nats; and the tokens put through.

        What matters are differences of sums over thousands of tokens: they are taken in float64.
        """
        given = self._packer.answers(model, self.data, rows, device)
        empty = torch.zeros(len(rows), dtype=torch.float64, device=device)
        return empty.index_add(0, given.owners, given.logs.double()), given.tokens

    def sums(self, model: Any, items: NDArray[np.int64], device: str) -> Sums:
        rows = np.stack([2 * items, 2 * items + 1], axis=1).ravel()
        logps, tokens = self.logps(model, rows, device)
        gains = logps - self.reference[torch.from_numpy(rows).to(device)]
        ahead = gains[0::2] - gains[1::2]
        losses = -logsigmoid(self._beta * ahead)
        if self._sft_weight:
            chosen = rows[0::2]
            counts = torch.from_numpy(self.data.lengths[chosen] - self.data.prompts[chosen]).to(device)
            losses = losses - self._sft_weight * logps[0::2] / counts
        weights = torch.from_numpy(self.data.weights[2 * items]).to(device)
        return Sums(
            loss=(losses * weights).sum().float(),
            shown=losses.detach().sum().float(),
            covered=len(items),
            tokens=tokens,
            right=(ahead.detach() > 0).sum(),
        )


def tokenize_pairs(paths: Sequence[Path], tokenizer: Any, context: int, budget: int) -> Tokenized:
    """Read and tokenize pairs: rows 2i and 2i + 1 are pair i, which ``ids`` and ``dropped`` count.

    A pair is dropped where an answer with its prompt is longer than ``context``, or both are more than ``budget``.
    Raises TrainingError as :func:`prover.training.batches.tokenize`.
    """
    rows = Rows()
    ids: list[str] = []
    dropped = 0
    for chunk in chunks(paths, PreferencePair):
        answers = answered([example for pair in chunk for example in _examples(pair)], tokenizer)
        for number, pair in enumerate(chunk):
            both = answers[2 * number : 2 * number + 2]
            lengths = [len(whole) for whole, _ in both]
            if max(lengths) > context or sum(lengths) > budget:
                dropped += 1
                continue
            for whole, answer in both:
                rows.add(whole, answer, weight=pair.weight, problem_id=pair.problem_id)
            ids.append(pair.id)
    return rows.tokenized(ids, dropped)


def _examples(pair: PreferencePair) -> list[TrainingExample]:
    return [
        TrainingExample(
            id=pair.id,
            messages=(*pair.messages, ChatMessage(role="assistant", content=answer)),
            problem_id=pair.problem_id,
            attempt_id=None,
        )
        for answer in (pair.chosen, pair.rejected)
    ]


def _held(file: Path, recipe: str) -> torch.Tensor | None:
    """What an earlier start of the same job computed; anything else is computed anew."""
    try:
        with safe_open(file, framework="pt") as held:
            return held.get_tensor("logps") if held.metadata()["recipe"] == recipe else None
    except (OSError, SafetensorError, KeyError, TypeError):
        return None


def _keep(work: Path, recipe: str, logps: torch.Tensor) -> None:
    temporary = work / f".{_REFERENCE}.tmp"
    with disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        try:
            with disk_reports():
                save_file({"logps": logps}, temporary, metadata={"recipe": recipe})
            flush(temporary)
            temporary.replace(work / _REFERENCE)
        finally:
            temporary.unlink(missing_ok=True)
        flush(work)
