"""How models are tuned."""

from pydantic import Field

from prover.config.section import Section


class SftConfig(Section):
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak of the cosine schedule."""
    steps: int = Field(default=150, ge=1)
    """Optimizer steps."""
    batch_tokens: int = Field(default=4_096, ge=64)
    """Tokens per optimizer step, padding included."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's decoupled weight decay."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between resumable checkpoints."""
