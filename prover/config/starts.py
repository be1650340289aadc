"""The model that a run starts from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from prover.config.section import Section


class PretrainedModel(Section):
    type: Literal["pretrained"]
    """A model that lies on disk."""
    path: Path
    """A Hugging Face model directory with tokenizer and chat template."""


class InitModel(Section):
    """A small Llama made from scratch, its byte-level BPE tokenizer trained on the problems' text."""

    type: Literal["init"]
    """A model made from scratch."""
    vocab_size: int = Field(default=1_500, ge=300)
    """Tokens of the BPE vocabulary."""
    hidden_size: int = Field(default=192, ge=32)
    """Width of the model."""
    layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    context: int = Field(default=512, ge=64)
    """Longest sequence, tokens."""


ModelConfig = Annotated[PretrainedModel | InitModel, Field(discriminator="type")]
