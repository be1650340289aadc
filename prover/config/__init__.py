"""Every configuration model. :mod:`prover.config_file` reads them from TOML.

Each field says its unit. What decides content (everything but placement) is part of the fingerprints of the stages
that read it; placement fields are named in :data:`PLACEMENT`.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from prover.config.averages import (
    AverageConfig,
    BreadcrumbsAverage,
    DareAverage,
    LinearAverage,
    TaskVectorAverage,
    TaskVectors,
    TiesAverage,
)
from prover.config.engines import EngineConfig, OpenAIEngine, ScriptedEngine, TransformersEngine, VllmEngine
from prover.config.leans import EmbeddedLean, LeanChoice, LeanConfig, NativeLean
from prover.config.problems import CoreProblems, JsonlProblems, MiniF2FProblems, ProblemsConfig
from prover.config.sampling import EvaluateConfig, SamplingConfig
from prover.config.section import Section
from prover.config.selection import SelectConfig
from prover.config.starts import InitModel, ModelConfig, PretrainedModel
from prover.config.training import (
    DeepSpeedLaunch,
    DpoConfig,
    LaunchChoice,
    LaunchConfig,
    LoraConfig,
    SftConfig,
    SingleLaunch,
    TrainingConfig,
)

__all__ = [
    "AverageConfig",
    "BreadcrumbsAverage",
    "CoreProblems",
    "DareAverage",
    "DeepSpeedLaunch",
    "DpoConfig",
    "EmbeddedLean",
    "EngineConfig",
    "EvaluateConfig",
    "InitModel",
    "JsonlProblems",
    "LaunchChoice",
    "LaunchConfig",
    "LeanChoice",
    "LeanConfig",
    "LinearAverage",
    "LoraConfig",
    "MiniF2FProblems",
    "ModelConfig",
    "NativeLean",
    "OpenAIEngine",
    "PretrainedModel",
    "ProblemsConfig",
    "SamplingConfig",
    "ScriptedEngine",
    "Section",
    "SelectConfig",
    "SftConfig",
    "SingleLaunch",
    "TaskVectorAverage",
    "TaskVectors",
    "TiesAverage",
    "TrainingConfig",
    "TransformersEngine",
    "VllmEngine",
]

PLACEMENT = frozenset(
    {
        *("workers", "device", "path", "project", "base_url", "concurrency", "timeout_seconds", "key_env"),
        "launch",
        # vLLM's own, within engine.options
        *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend"),
        *(
            "gpu_memory_utilization",
            "kv_cache_memory_bytes",
            "cpu_offload_gb",
            "max_num_seqs",
            "max_num_batched_tokens",
        ),
    }
)
"""Names of fields that say where things lie or how wide work runs, never what comes out.

Files and models count by their content."""


def without_placement(value: Any) -> Any:
    """A section as JSON has it, but for the fields that never decide what comes out."""
    if not isinstance(value, dict):
        return value
    return {k: without_placement(v) for k, v in value.items() if k not in PLACEMENT}  # type: ignore[reportUnknownVariableType]


class ColdTactics(Section):
    """Verified proofs found by a list of tactics on a share of the training problems."""

    type: Literal["tactics"]
    """Verified tactic proofs."""
    tactics: tuple[str, ...] = Field(min_length=1)
    """Proof templates; ``{v}`` and ``{w}`` are variables, ``{h}`` a hypothesis, ``{1}``.. retrieved lemmas."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of the training problems that they are tried on."""
    syntax: int = Field(default=0, ge=0)
    """Unverified random proofs per problem mixed in at a twentieth of the weight, so that the rounds try new things."""


class ColdGrammar(Section):
    """Unverified proofs of a small tactic grammar: they teach syntax only."""

    type: Literal["grammar"]
    """Unverified random proofs."""
    per_problem: int = Field(default=4, ge=1)
    """Random proofs written for each training problem."""


ColdConfig = Annotated[ColdTactics | ColdGrammar, Field(discriminator="type")]


class PromptConfig(Section):
    template: Literal["plain", "chat", "base"] | Path = "chat"
    """``plain``: statement and premises only, for small models; ``chat``: instructions for chat models; ``base``: a
    Lean file to continue; or the path of a Jinja file of your own (docs/prompts.md)."""
    overflow: Literal["drop", "cut"] = "drop"
    """What becomes of a prompt over three quarters of the model's context: not asked, or cut until it fits."""


class CorrectConfig(Section):
    turns: int = Field(default=0, ge=0, le=8)
    """Turns of self-correction after each first proof."""
    per_problem: int = Field(default=4, ge=1)
    """Failed attempts of a problem that are corrected in each turn."""


class PairsConfig(Section):
    per_problem: int = Field(default=4, ge=1)
    """Pairs kept of one problem."""


class StageConfig(Section):
    """What single stages read: the sections that are not about problems, models or rounds."""

    seed: int = 0
    """Decides everything that is drawn at random."""
    prompt: PromptConfig = PromptConfig()
    """What the model is asked."""
    engine: EngineConfig = TransformersEngine()
    """What generates completions."""
    lean: LeanChoice = EmbeddedLean()
    """Which Lean checks them, and its limits."""
    sampling: SamplingConfig = SamplingConfig()
    """How training attempts are drawn."""
    correct: CorrectConfig = CorrectConfig()
    """Self-correction of training attempts."""
    select: SelectConfig = SelectConfig()
    """What is learned from."""
    sft: SftConfig = SftConfig()
    """Fine-tuning in each round."""
    pairs: PairsConfig = PairsConfig()
    """What is preferred to what, where there is ``dpo``."""
    dpo: DpoConfig | None = None
    """Preference optimization of each round's fine-tuned model; None leaves it out."""
    launch: LaunchChoice = SingleLaunch()
    """Where training runs."""
    average: AverageConfig | None = None
    """What each round makes of the tuned checkpoint and its base; None uses the tuned one as it is."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation after each round."""

    def evaluation_sampling(self, n: int | None = None) -> SamplingConfig:
        """How ``n`` attempts for an evaluation are drawn; ``evaluate.n`` where it is None."""
        drawn = self.evaluate
        return SamplingConfig(
            n=n or drawn.n,
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            max_tokens=self.sampling.max_tokens,
            enough=drawn.enough,
        )


class IterateConfig(StageConfig):
    """What ``prover iterate`` reads."""

    rounds: int = Field(default=3, ge=0)
    """Rounds of expert iteration after the cold start."""
    train: ProblemsConfig
    """The problems that are sampled and learned from."""
    evaluate_on: dict[str, ProblemsConfig] = Field(default={})
    """Problem sets for evaluation by name (letters, digits, ``-`` and ``_``; not ``train`` or ``validate_on``)."""
    model: ModelConfig
    """The starting model."""
    cold: ColdConfig | None = None
    """Round 0; None starts from the model as it is."""
    cold_sft: SftConfig | None = None
    """Training of round 0; None takes ``sft``."""
    tune_from: Literal["start", "last"] = "start"
    """The model that a round's training starts from: ``start``, that of round 0, or ``last``, that of the round before.
    ``average`` mixes with the model of round 0 either way."""

    @field_validator("engine")
    @classmethod
    def _learns(cls, engine: EngineConfig) -> EngineConfig:
        if isinstance(engine, OpenAIEngine):
            raise ValueError(
                "a server keeps its model, and iterate trains one: take transformers or vllm here; servers are for the "
                "single stages sample, correct and evaluate"
            )
        return engine

    @field_validator("evaluate_on")
    @classmethod
    def _names_of_folders(cls, sets: dict[str, ProblemsConfig]) -> dict[str, ProblemsConfig]:
        """Each name becomes a folder beside ``train``."""
        for name in sets:
            if name in ("train", "validate_on") or not re.fullmatch(r"[\w-]+", name):
                raise ValueError(
                    f"{name!r} cannot name a set: use letters, digits, - and _, and not 'train' or 'validate_on'"
                )
        return sets

    @model_validator(mode="after")
    def _chosen_on_others(self) -> "IterateConfig":
        """What a set is chosen on it can no longer measure; the problems themselves are compared when they are read."""
        choosing = self.average.validate_on if self.average else None
        for name, section in self.evaluate_on.items():
            if choosing is not None and _source(choosing) == _source(section):
                raise ValueError(
                    f"average.validate_on has the problems of evaluate_on.{name}, whose figures would be too good: "
                    "choose on another split or file"
                )
        return self


def _source(section: ProblemsConfig) -> dict[str, Any]:
    return section.model_dump(exclude={"limit", "premises", "header"})
