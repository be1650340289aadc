"""Examples through a model, many at once: end to end in one row without padding where the model can do that.

Nothing of one example may reach another. Whether that holds is tried on the model itself: two made-up examples are run
in one row and by themselves. A model that fails is given rows padded to one length instead.
"""

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from prover.training import attention
from prover.training.batches import Tokenized, padded

_FLASH = "flash_attention_2"
_EAGER_TO = 1_024
"""Tokens of a padded row up to which the CPU computes attention by plain matrix products. Torch's fused attention takes
half of all training time there in its backward pass; but its memory does not grow with the square of the length."""


class Answered(NamedTuple):
    """What a model thinks of the answers' tokens, one after the other, A in all."""

    logs: torch.Tensor
    """(A,) float32 with gradient: the log-probability of each token, nats."""
    owners: torch.Tensor
    """(A,) which of the items each token belongs to: 0 to B - 1."""
    tokens: int
    """Tokens put through the model, padding included."""


class Row(NamedTuple):
    """Examples end to end, the shortest first."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    """(T,) counted from 0 in each example."""
    lengths: list[int]
    places: NDArray[np.int64]
    """(A,) the places that predict a token of an answer."""
    owners: NDArray[np.int64]


class Packer:
    """Runs one model over examples. How that is done best is found out in the first call."""

    def __init__(self) -> None:
        self._attention: str | None = None
        """The attention that packs: ours, or flash attention; empty where rows are padded."""
        self._keeps = False
        """Whether the model computes logits only where it is asked to."""

    @property
    def packs(self) -> bool | None:
        """Whether examples share a row; None before the first call."""
        return None if self._attention is None else bool(self._attention)

    def answers(self, model: Any, data: Tokenized, items: NDArray[np.int64], device: str) -> Answered:
        """One forward pass over the examples at ``items`` of ``data``; B of them."""
        if self._attention is None:
            self._settle(model, int(data.lengths.max()), device)
        row = lay_out(data, items)
        logits = self._packed(model, row, device) if self._attention else self._padded(model, row, device)
        targets = torch.from_numpy(row.tokens[row.places + 1]).to(device)
        wide = len(row.lengths) * padded(row.lengths[-1])
        return Answered(
            token_logs(logits, targets),
            torch.from_numpy(row.owners).to(device),
            len(row.tokens) if self._attention else wide,
        )

    def _packed(self, model: Any, row: Row, device: str) -> torch.Tensor:
        """(A, V) logits at the row's places."""
        places = torch.from_numpy(row.places).to(device)
        if self._attention == attention.NAME:
            more: dict[str, Any] = {"grid": attention.grid(row.lengths, device)}
        else:
            ends = torch.from_numpy(np.cumsum([0, *row.lengths], dtype=np.int32)).to(device)
            more = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
            more |= {"max_length_q": row.lengths[-1], "max_length_k": row.lengths[-1]}
        if self._keeps:
            more["logits_to_keep"] = places
        logits = model(
            input_ids=torch.from_numpy(row.tokens)[None].to(device),
            position_ids=torch.from_numpy(row.positions)[None].to(device),
            use_cache=False,
            **more,
        ).logits[0]
        return logits if self._keeps else logits[places]

    def _padded(self, model: Any, row: Row, device: str) -> torch.Tensor:
        """(A, V) logits at the row's places; padding stands on the right, where a causal model cannot see it."""
        width = padded(row.lengths[-1])
        numbers = np.repeat(np.arange(len(row.lengths)), row.lengths)
        inputs = np.zeros((len(row.lengths), width), dtype=np.int64)
        inputs[numbers, row.positions] = row.tokens
        columns = row.positions[row.places]
        first = int(columns.min())  # the earliest place that predicts a token of an answer
        more = {"logits_to_keep": torch.arange(first, width, device=device)} if self._keeps else {}
        logits = model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False, **more).logits
        at = torch.from_numpy(columns - first if self._keeps else columns).to(device)
        return logits[torch.from_numpy(numbers[row.places]).to(device), at]

    def _settle(self, model: Any, longest: int, device: str) -> None:
        raw = unwrapped(model)
        takes = inspect.signature(raw.forward).parameters
        self._keeps = "logits_to_keep" in takes
        self._attention = ""
        own = raw.config._attn_implementation
        row = _trial(raw.config, longest)
        training = model.training
        model.eval()
        attention.register()
        for name in ways(device) if _open(raw, takes) else ():
            if name == _FLASH and not raw._supports_flash_attn:  # transformers raises where it is set nevertheless
                continue
            # flash attention takes half precision alone; everything else is compared as exactly as it can be
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=name == _FLASH):
                apart = torch.cat([self._padded(model, part, device) for part in _parts(row)])
                joined = self._padded(model, _joined(row), device)
                raw.set_attn_implementation(name)
                self._attention = name
                try:
                    if raw.config._attn_implementation == name and _same(
                        self._packed(model, row, device), apart, joined
                    ):
                        break
                except attention.UnknownAttention:
                    pass  # what the model wants is computed by its own attention, on padded rows
                self._attention = ""
                raw.set_attn_implementation(own)
        if not self._attention and device == "cpu" and longest <= _EAGER_TO:
            raw.set_attn_implementation("eager")
        model.train(training)


def lay_out(data: Tokenized, items: NDArray[np.int64]) -> Row:
    """The examples at ``items`` as a row."""
    order = np.argsort(data.lengths[items], kind="stable")
    tokens = [data.tokens[data.starts[i] : data.starts[i + 1]] for i in items[order].tolist()]
    return _row(tokens, data.prompts[items[order]], order)


def _row(tokens: list[NDArray[np.int32]], prompts: NDArray[np.int32], owners: NDArray[np.int64]) -> Row:
    lengths = np.array([len(part) for part in tokens])
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    # a place predicts the token after it: from the prompt's last token to the last but one of the example
    answers = (positions >= np.repeat(prompts - 1, lengths)) & (positions < np.repeat(lengths - 1, lengths))
    places = np.flatnonzero(answers)
    return Row(
        np.concatenate(tokens).astype(np.int64), positions, lengths.tolist(), places,
        np.repeat(owners, lengths)[places],
    )  # fmt: skip


def unwrapped(model: Any) -> Any:
    """The Hugging Face model in a DeepSpeed engine or under adapters."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _open(raw: Any, takes: Any) -> bool:
    """Whether the model's code passes on what a packed row needs."""
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
    return anything and "position_ids" in takes and raw._can_set_attn_implementation()


def ways(device: str) -> list[str]:
    """Attention that takes packed rows, the best first."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    half = torch.is_autocast_enabled(device)
    return [_FLASH, attention.NAME] if half and is_flash_attn_2_available() else [attention.NAME]


def _trial(config: Any, longest: int) -> Row:
    """Two examples of made-up tokens, long enough that limits on what attention sees matter where they can."""
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    size = max([16, *(limit + 16 for limit in limits if isinstance(limit, int) and limit < longest)])
    many = int(config.get_text_config().vocab_size)
    tokens = [(np.arange(n, dtype=np.int64) * 31 + 7 * n).astype(np.int32) % many for n in (size - 3, size)]
    return _row(tokens, np.array([1, 1], dtype=np.int32), np.arange(2))


def _parts(row: Row) -> list[Row]:
    """Each example of a row as a row of its own."""
    ends = np.cumsum(row.lengths).tolist()
    tokens = [row.tokens[end - n : end].astype(np.int32) for end, n in zip(ends, row.lengths, strict=True)]
    first, alone = np.ones(1, dtype=np.int32), np.zeros(1, dtype=np.int64)
    return [_row([part], first, alone) for part in tokens]


def _joined(row: Row) -> Row:
    """The same tokens as one example, with the same places."""
    whole = np.arange(len(row.tokens))
    return Row(row.tokens, whole, [len(whole)], row.places, np.zeros_like(row.owners))


def _same(packed: torch.Tensor, apart: torch.Tensor, joined: torch.Tensor) -> bool:
    """Whether a packed row gives what its examples give alone, but for rounding. What a convolution of a few places
    lets through is little where weights are new, so float32 is held to its own rounding. In half precision the measure
    is what one example would do to the other if it were seen."""
    packed, apart, joined, rounded = packed.float(), apart.float(), joined.float(), packed.dtype != torch.float32
    off, seen = float((packed - apart).abs().max()), float((joined - apart).abs().max())
    return off <= (0.1 * seen if rounded else 2e-5 * float(apart.abs().max()))


_ELEMENTS = 1 << 22
"""Logits whose softmax is computed at once: what is made in float32 stays small however large the vocabulary."""


def token_logs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(A,) float32 log-probabilities of ``targets`` (A,) under ``logits`` (A, V).

    As ``log_softmax`` and ``gather`` in float32, but without a float32 copy of the logits, of their softmax and of its
    gradient: those of a large vocabulary are the largest tensors of a training.
    """
    return _TokenLogs.apply(logits, targets)  # type: ignore[return-value]


class _TokenLogs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sums = torch.cat([part.float().logsumexp(-1) for part in logits.split(_rows(logits))])
        ctx.save_for_backward(logits, targets, sums)
        return logits.gather(1, targets[:, None])[:, 0].float() - sums

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, sums = ctx.saved_tensors
        rows = _rows(logits)
        whole = torch.empty_like(logits)
        parts = zip(*(x.split(rows) for x in (logits, targets, sums, gradients[0], whole)), strict=True)
        for given, target, total, gradient, out in parts:
            shares = (given.float() - total[:, None]).exp_().mul_(-gradient[:, None])
            shares.scatter_add_(1, target[:, None], gradient[:, None])
            out.copy_(shares)
        return whole, None


def _rows(logits: torch.Tensor) -> int:
    return max(1, _ELEMENTS // logits.shape[1])
