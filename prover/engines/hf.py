"""The transformers engine: any causal language model that transformers loads, on the CPU or one GPU.

Requests are grouped by prompt length into batches, each prompt is read once, and its completions are decoded side by
side (:mod:`prover.engines.decode`). Completions leave as they finish; the batch is cut down when enough have.

A completion depends on its own seed and prompt. Its batch can change only the last bits of its logits, through the
order in which a matrix product adds; batches are a pure function of the list of requests, so the same call gives the
same text.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch

from prover.conversations import prompt_ids
from prover.device import Device, has_fast_bfloat16, pick_device, use_threads
from prover.engines import Completion, GenerationRequest, Sampling, leaves_room
from prover.engines.decode import check_attention, next_logits, prepare, read_prompts
from prover.engines.sampling import draw, uniforms
from prover.errors import ModelError
from prover.pretrained import context_length, load_model, load_tokenizer
from prover.records import ChatMessage

_SHRINK = 0.6
"""Cut the batch down when no more than this share of it is alive: each cut copies what remains."""


class _Group:
    """Some completions of one request: a row of the batch."""

    def __init__(self, request: GenerationRequest, start: int, count: int, prompt: list[int], limit: int) -> None:
        self.request = request
        self.start = start
        self.count = count
        self.prompt = prompt
        self.limit = limit
        """New tokens at most: what the sampling allows and the context leaves."""


class HfEngine:
    """A model held in memory; ``with HfEngine(path, ...) as engine``. Raises ModelError for a directory it cannot use.

    ``dtype`` None takes bfloat16 where the processor multiplies it fast and float32 elsewhere.
    """

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int = 256,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16"] | None = None,
    ) -> None:
        self._path = path
        self._batch_size = batch_size
        self._device: Device = pick_device(device)
        self._dtype = dtype
        self._model: Any = None
        self._tokenizer: Any = None
        self._prompts: dict[tuple[ChatMessage, ...], list[int]] = {}

    def __enter__(self) -> Self:
        use_threads(self._device)
        fast = has_fast_bfloat16(self._device) if self._dtype is None else self._dtype == "bfloat16"
        self._tokenizer = load_tokenizer(self._path)
        self._model = load_model(self._path, torch.bfloat16 if fast else torch.float32, self._device)
        config = self._model.config.get_text_config()
        if len(self._tokenizer) > config.vocab_size:
            raise ModelError(
                f"{self._path}: the tokenizer has {len(self._tokenizer)} tokens and the model {config.vocab_size}; "
                "they do not belong together"
            )
        self._context = context_length(config)
        self._window = _window(config)
        self._end = torch.tensor(sorted(_end_tokens(self._model, self._tokenizer)), device=self._device)
        prepare(self._model)
        check_attention(self._model, str(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._model = self._tokenizer = None
        self._prompts.clear()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the prompt leaves a quarter of the model's context for the answer."""
        return leaves_room(len(self._tokens([tuple(messages)])[0]), self._context)

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> Iterator[Completion]:
        """Yield each completion as it finishes. ``max_tokens`` is cut to what the context leaves.

        Raises ModelError for a prompt that leaves no room at all.
        """
        prompts = self._tokens([request.messages for request in requests])
        self._prompts.clear()
        groups = [group for request, prompt in zip(requests, prompts) for group in self._cut(request, prompt, sampling)]
        stops = _Stops(self._tokenizer, sampling.stop) if sampling.stop else None
        for batch in _batches(groups, self._batch_size):
            yield from self._decode(batch, sampling, stops)

    def _tokens(self, conversations: Sequence[tuple[ChatMessage, ...]]) -> list[list[int]]:
        """Prompts as token ids, remembered between :meth:`fits` and :meth:`generate`."""
        new = [c for c in dict.fromkeys(conversations) if c not in self._prompts]
        if new:
            self._prompts.update(zip(new, prompt_ids(self._tokenizer, new, self._path)))
        return [self._prompts[c] for c in conversations]

    def _cut(self, request: GenerationRequest, prompt: list[int], sampling: Sampling) -> Iterator[_Group]:
        limit = min(sampling.max_tokens, self._context - len(prompt))
        if limit < 1:
            raise ModelError(
                f"request {request.id}: the prompt has {len(prompt)} tokens, {self._path} takes {self._context} with "
                "the answer; shorten it, or leave it out"
            )
        if self._window is not None and len(prompt) + limit > self._window:
            raise ModelError(
                f"request {request.id}: prompt and answer pass the model's attention window of {self._window} tokens, "
                "which the transformers engine does not cover; lower max_tokens"
            )
        for start in range(0, len(request.seeds), self._batch_size):
            yield _Group(request, start, min(self._batch_size, len(request.seeds) - start), prompt, limit)

    def _decode(self, groups: list[_Group], sampling: Sampling, stops: "_Stops | None") -> Iterator[Completion]:
        """One batch. S prompts by m completions; a group with fewer has dead places from the start."""
        device, model = self._device, self._model
        m = max(group.count for group in groups)
        longest = max(group.limit for group in groups)
        numbers = np.zeros((len(groups), m, longest))
        for row, group in enumerate(groups):
            for i in range(group.count):
                numbers[row, i] = uniforms(group.request.seeds[group.start + i], group.prompt, longest)
        dice = torch.from_numpy(numbers).to(device)
        limits = torch.tensor([group.limit for group in groups], device=device)
        # where a place of the shrunken batch stood at first: its group, and which completion of it
        places = torch.arange(len(groups) * m, device=device).view(len(groups), m)
        alive = torch.tensor([[i < group.count for i in range(m)] for group in groups], device=device)
        written = torch.zeros((len(groups), m, longest), dtype=torch.long, device=device)
        logprobs = torch.zeros((len(groups), m), dtype=torch.float64, device=device)
        pad = self._tokenizer.pad_token_id or 0
        cache, logits, lengths = read_prompts(model, [group.prompt for group in groups], pad, m, longest)
        logits = logits[:, None].expand(-1, m, -1)
        for step in range(longest):
            tokens, logprob = draw(logits, sampling.temperature, sampling.top_p, dice[:, :, step])
            written[:, :, step] = tokens
            logprobs += logprob
            ended = alive & torch.isin(tokens, self._end)
            full = alive & ~ended & (step + 1 >= limits)[:, None]
            texts: dict[int, str] = {}
            if stops is not None:
                stops.find(alive & ~ended, tokens, written[:, :, : step + 1], texts)
            finished = ended | full
            if texts:
                finished.view(-1)[torch.tensor(list(texts), device=device)] = True
            for flat in finished.view(-1).nonzero().view(-1).tolist():
                row, column = divmod(flat, tokens.shape[1])
                group, index = groups[int(places[row, column]) // m], int(places[row, column]) % m
                text = texts.get(flat)
                stopped = text is not None or bool(ended[row, column])
                if text is None:
                    text = self._text(written[row, column, : step + 1].tolist())
                yield Completion(
                    request_id=group.request.id,
                    index=group.start + index,
                    text=text,
                    finish_reason="stop" if stopped else "length",
                    prompt_tokens=len(group.prompt),
                    completion_tokens=step + 1,
                    logprob=float(logprobs[row, column]),
                )
            alive &= ~finished
            left = int(alive.sum())
            if left == 0:
                return
            if left <= _SHRINK * alive.numel():
                rows, members = _survivors(alive)
                if members.numel() < alive.numel():
                    cache.keep(rows, members)
                    at = rows[:, None]
                    limits, lengths = limits[rows], lengths[rows]
                    dice, written = dice[at, members], written[at, members]
                    alive, places = alive[at, members], places[at, members]
                    logprobs, tokens = logprobs[at, members], tokens[at, members]
            logits = next_logits(model, cache, tokens, lengths)

    def _text(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class _Stops:
    """Finds stop strings. A text can only come to hold one by a token that holds the string's last letter."""

    def __init__(self, tokenizer: Any, strings: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._strings = strings
        last = {string[-1] for string in strings}
        if all(letter.isascii() for letter in last):
            pieces = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], clean_up_tokenization_spaces=False)
            self._can_end = np.array([any(letter in piece for letter in last) for piece in pieces])
        else:  # its bytes may be spread over tokens
            self._can_end = np.ones(len(tokenizer), dtype=bool)

    def find(self, live: torch.Tensor, tokens: torch.Tensor, written: torch.Tensor, texts: dict[int, str]) -> None:
        """Put the text before the first stop string into ``texts``, by place, for the completions that now hold one."""
        ids = tokens.view(-1).cpu().numpy()
        known = ids < len(self._can_end)
        asked = live.reshape(-1).cpu().numpy() & known & self._can_end[np.where(known, ids, 0)]
        for place in asked.nonzero()[0].tolist():
            row, column = divmod(place, tokens.shape[1])
            text = self._tokenizer.decode(
                written[row, column].tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            ends = [end for string in self._strings if (end := text.find(string)) >= 0]
            if ends:
                texts[place] = text[: min(ends)]


def _batches(groups: list[_Group], batch_size: int) -> Iterator[list[_Group]]:
    """Groups of like size and length together, at most ``batch_size`` places a batch, longest first."""
    ordered = sorted(groups, key=lambda g: (-g.count, -len(g.prompt)))  # a stable sort: ties stay in request order
    batch: list[_Group] = []
    for group in ordered:
        if batch and (len(batch) + 1) * batch[0].count > batch_size:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _survivors(alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with a live place, and in each row its live places first, as many as the fullest row has."""
    rows = alive.any(1).nonzero().view(-1)
    width = int(alive.sum(1).max())
    return rows, alive[rows].to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ends = {int(tokenizer.eos_token_id)}
    if configured is not None:
        ends.update(configured if isinstance(configured, list) else [configured])
    return ends


def _window(config: Any) -> int | None:
    """The attention window, where some layer has one."""
    layers = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window is None or (layers is not None and "sliding_attention" not in layers):
        return None
    return int(window)
