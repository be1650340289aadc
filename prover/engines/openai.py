"""The openai engine: any server that speaks OpenAI's API, vLLM's and SGLang's own among them.

Each completion is a request of its own with its own seed, so that a server's prefix cache serves the prompt and what is
lost is lost one by one. Requests go out side by side; completions leave as they finish. A server that is overloaded,
restarting or limiting its rate is asked again, with growing pauses; when it answered nothing for :data:`PATIENCE`
seconds the run ends with a clear error, and what was asked stays owed.

Servers differ in what they repeat for one seed: "the same call, the same text" holds as far as the server keeps it.
"""

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import openai

from prover.config import OpenAIEngine as OpenAIConfig
from prover.engines import Completion, GenerationRequest, Sampling, leaves_room
from prover.errors import ConfigError, EngineError
from prover.records import ChatMessage

PATIENCE = 600.0
"""Seconds for which a server may answer nothing at all before the run ends."""
AT_FIRST = 20.0
"""The same before it answered anything: most likely it does not run."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries of a request; doubled each time, and shortened at random so that they do not all come at
once. What the server asks for by Retry-After goes before."""
LAST_WORDS = 1.0
"""Seconds that requests under way may still take when nobody waits for their answers any more."""
BYTES_PER_TOKEN = 2.5
"""Of prompts for provers, where a server says how long its context is but not how many tokens a prompt has."""

_AGAIN = frozenset({408, 409, 425, 429})


class OpenAIEngine:
    """A connection to a server; ``with OpenAIEngine(config) as engine``. Raises ConfigError and EngineError."""

    def __init__(self, config: OpenAIConfig, *, patience: float = PATIENCE) -> None:
        self._config = config
        self._patience = patience
        self._client: Any = None
        self._context: int | None = config.context
        self._logprobs = True
        self._heard = time.monotonic()
        """When the server last gave an answer, of whatever kind."""

    def __enter__(self) -> Self:
        key = os.environ.get(self._config.key_env)
        self._client = openai.OpenAI(
            base_url=self._config.base_url,
            api_key=key or "none",  # servers of one's own often ask for none
            max_retries=0,
            timeout=self._config.timeout_seconds,
        )
        self._heard = time.monotonic()
        served = self._patiently(
            lambda: list(self._client.models.list()),
            "the list of models",
            min(self._patience, AT_FIRST),
            threading.Event(),
        )
        names = [model.id for model in served]
        if self._config.model not in names:
            known = ", ".join(names[:8]) or "none"
            raise ConfigError(f"engine.model: {self._config.base_url} serves no {self._config.model!r}; it has {known}")
        if self._context is None:
            self._context = getattr(served[names.index(self._config.model)], "max_model_len", None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._client.close()

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the prompt leaves a quarter of the model's context for the answer, by an estimate from its length.

        True where neither the server nor ``engine.context`` says how long that is.
        """
        if self._context is None:
            return True
        tokens = sum(len(message.content.encode()) for message in messages) / BYTES_PER_TOKEN
        return leaves_room(tokens, self._context)

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> Iterator[Completion]:
        """Yield each completion as it finishes."""
        asked = ((request, index) for request in requests for index in range(len(request.seeds)))
        left = sum(len(request.seeds) for request in requests)
        lock, given_up = threading.Lock(), threading.Event()
        done: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()

        def ask_on() -> None:
            while not given_up.is_set():
                with lock:
                    task = next(asked, None)
                if task is None:
                    return
                try:
                    done.put(self._complete(*task, sampling, given_up))
                except BaseException as error:  # the reader's to raise
                    done.put(error)
                    return

        self._heard = time.monotonic()
        # Daemons, because nothing ends a request that is under way: whoever stops here must not wait for the answer.
        threads = [
            threading.Thread(target=ask_on, name=f"openai-{number}", daemon=True)
            for number in range(min(self._config.concurrency, left))
        ]
        try:
            for thread in threads:
                thread.start()
            while left:
                made = done.get()
                if isinstance(made, BaseException):
                    raise made
                left -= 1
                yield made
        finally:
            given_up.set()  # those that wait for a pause give up
            end = time.monotonic() + LAST_WORDS
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, end - time.monotonic()))

    def _complete(
        self, request: GenerationRequest, index: int, sampling: Sampling, given_up: threading.Event
    ) -> Completion:
        scored = self._logprobs  # another thread may find out meanwhile that there are none
        try:
            reply = self._patiently(
                lambda: self._ask(request, index, sampling, scored), f"request {request.id}", self._patience, given_up
            )
        except openai.BadRequestError as error:
            if not scored or "logprob" not in str(error).lower():
                raise EngineError(f"{self._config.base_url}: request {request.id}: {_said(error)}") from error
            self._logprobs = False  # this server gives none
            return self._complete(request, index, sampling, given_up)
        return self._completion(request, index, reply)

    def _ask(self, request: GenerationRequest, index: int, sampling: Sampling, scored: bool) -> Any:
        common: dict[str, Any] = {
            "model": self._config.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seeds[index] % 2**63,
            "extra_body": dict(self._config.options),
        }
        if sampling.stop:
            common["stop"] = list(sampling.stop)
        first = request.messages[0]
        if first.role == "text":
            scores: dict[str, Any] = {"logprobs": 0} if scored else {}
            return self._client.completions.create(
                prompt=first.content, max_tokens=sampling.max_tokens, **scores, **common
            )
        talk = [{"role": message.role, "content": message.content} for message in request.messages]
        scores = {"logprobs": True} if scored else {}
        return self._client.chat.completions.create(
            messages=talk, max_completion_tokens=sampling.max_tokens, **scores, **common
        )

    def _completion(self, request: GenerationRequest, index: int, reply: Any) -> Completion:
        try:
            choice, usage = reply.choices[0], reply.usage
            if request.messages[0].role == "text":
                text, scores = choice.text, choice.logprobs.token_logprobs if choice.logprobs else None
            else:
                text = _with_thoughts(choice.message)
                scores = [t.logprob for t in choice.logprobs.content or ()] if choice.logprobs else None
            return Completion(
                request_id=request.id,
                index=index,
                text=text or "",
                finish_reason="length" if choice.finish_reason == "length" else "stop",
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                logprob=sum(s for s in scores if s is not None) if scores else None,
            )
        except (AttributeError, IndexError, TypeError) as error:
            raise EngineError(
                f"{self._config.base_url}: request {request.id}: the answer is none of OpenAI's API ({_shown(reply)}); "
                "base_url usually ends in /v1"
            ) from error

    def _patiently(self, ask: Callable[[], Any], what: str, patience: float, given_up: threading.Event) -> Any:
        """What ``ask`` returns, however often it takes, until the server was silent for ``patience`` seconds or nobody
        waits for it any more."""
        pause = FIRST_PAUSE
        while True:
            try:
                reply = ask()
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise EngineError(
                    f"{self._config.base_url}: refuses the key ({_said(error)}); put a valid one into the environment "
                    f"variable {self._config.key_env}"
                ) from error
            except openai.BadRequestError:
                self._heard = time.monotonic()
                raise
            except openai.APIStatusError as error:
                passing = error.status_code >= 500 or error.status_code in _AGAIN
                if not passing or error.code == "insufficient_quota":  # a 429 that no waiting mends
                    raise EngineError(f"{self._config.base_url}: {what}: {_said(error)}") from error
                if error.status_code == 429:
                    self._heard = time.monotonic()  # it is alive, and will answer
                last, asked_for = _said(error), _retry_after(error)
            except openai.APIConnectionError as error:  # time-outs among them
                last, asked_for = str(error.__cause__ or error) or type(error).__name__, None
            else:
                if isinstance(reply, str):
                    raise EngineError(
                        f"{self._config.base_url}: {what}: answers with text, not JSON ({_shown(reply)}); base_url "
                        "usually ends in /v1"
                    )
                self._heard = time.monotonic()
                return reply
            if time.monotonic() - self._heard > patience:
                raise EngineError(
                    f"{self._config.base_url}: no answer for {patience:g} s ({last}); start the server and run the "
                    "same command again: what was asked stays owed"
                )
            if given_up.wait(asked_for if asked_for is not None else pause * random.uniform(0.5, 1)):
                raise EngineError(f"{what}: given up")
            pause = min(2 * pause, LONGEST_PAUSE)


def _with_thoughts(message: Any) -> str:
    """The answer, with the thinking that some servers give apart from it."""
    thoughts = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    return f"<think>{thoughts}</think>{message.content or ''}" if thoughts else message.content or ""


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return min(max(float(error.response.headers["retry-after"]), 0.0), LONGEST_PAUSE)
    except (KeyError, ValueError):
        return None


def _said(error: openai.APIStatusError) -> str:
    body: Any = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return f"status {error.status_code}: {_shown(said or error.response.text)}"


def _shown(reply: object) -> str:
    return " ".join(str(reply).split())[:200] or "empty"
