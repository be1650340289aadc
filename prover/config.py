"""Every configuration model: TOML in, resolved JSON out. Unknown keys fail with the nearest known one.

Each field says its unit. What decides content (everything but placement) is part of the fingerprints of the stages
that read it; placement fields are named in :data:`PLACEMENT`.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from lean_env.protocol import Limits
from prover.errors import ArtifactError, ConfigError

PLACEMENT = frozenset({"workers", "device", "path"})
"""Names of fields that say where things lie or how wide work runs, never what comes out.

Files and models count by their content."""


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LeanConfig(Section):
    type: Literal["embedded"] = "embedded"
    """Which Lean: ``embedded`` is the WebAssembly build that ``prover setup`` installs."""
    workers: int = Field(default=2, ge=1, le=256)
    """Lean processes; each takes about 1.3 GB and a core."""
    heartbeats: int = Field(default=200_000, ge=1)
    """Lean's maxHeartbeats per command."""
    cpu_seconds: float = Field(default=20.0, gt=0)
    """CPU seconds per check."""
    memory_mb: int = Field(default=2_600, ge=1_500)
    """Resident memory of one Lean process, MiB."""

    def limits(self) -> Limits:
        return Limits(heartbeats=self.heartbeats, cpu_seconds=self.cpu_seconds, memory_mb=self.memory_mb)


class CoreProblems(Section):
    """Theorems of Lean's own Init and Std, listed from the installed toolchain."""

    source: Literal["core"]
    """Lean's core library."""
    split: Literal["train", "valid", "test"]
    """Split by a hash of module and namespace."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many problems, drawn by a fixed hash; None takes all."""
    premises: int = Field(default=0, ge=0, le=32)
    """Retrieved lemmas attached to each problem."""


class MiniF2FProblems(Section):
    """miniF2F from a JSONL file of DeepSeek-Prover-V1.5 or Goedel-Prover-V2; the edition is read off the file."""

    source: Literal["minif2f"]
    """The miniF2F benchmark."""
    path: Path
    """The benchmark's JSONL file."""
    split: Literal["valid", "test", "all"] = "all"
    """Which of its halves; ``all`` takes both."""
    header: Literal["own", "core"] = "own"
    """``own`` keeps the file's Mathlib header; ``core`` replaces it by notation for the embedded Lean."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many problems, the file's first; None takes all."""
    premises: int = Field(default=0, ge=0, le=32)
    """Retrieved lemmas attached to each problem."""


class JsonlProblems(Section):
    """Our own Problem records."""

    source: Literal["jsonl"]
    """A file of Problem records."""
    path: Path
    """JSONL of Problem records."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many problems, the file's first; None takes all."""


ProblemsConfig = Annotated[CoreProblems | MiniF2FProblems | JsonlProblems, Field(discriminator="source")]


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


EngineConfig = Annotated[TransformersEngine | ScriptedEngine, Field(discriminator="type")]


class SamplingConfig(Section):
    n: int = Field(default=8, ge=1)
    """Completions per problem and round."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass; 1 keeps every token."""
    max_tokens: int = Field(default=48, ge=1)
    """New tokens per completion."""


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


class CorrectConfig(Section):
    turns: int = Field(default=0, ge=0, le=8)
    """Turns of self-correction after each first proof."""
    per_problem: int = Field(default=4, ge=1)
    """Failed attempts of a problem that are corrected in each turn."""


class SelectConfig(Section):
    per_problem: int = Field(default=4, ge=1)
    """Distinct proofs kept of one problem."""
    rarity: float = Field(default=0.0, ge=0, le=1)
    """An answer given for m problems weighs m^-rarity; above 0 keeps a model from ending with one favourite tactic."""


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


class AverageConfig(Section):
    tuned_weight: float = Field(default=0.7, gt=0, le=1)
    """Weight of the tuned checkpoint; the checkpoint that it was tuned from has the rest."""


class EvaluateConfig(Section):
    n: int = Field(default=8, ge=1)
    """Attempts per problem."""
    k: tuple[int, ...] = (1, 8)
    """The k of pass@k."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass; 1 keeps every token."""
    control_n: int = Field(default=0, ge=0)
    """Attempts per problem of the cold model at the end, the control; 0 leaves it out."""
    portfolio: bool = False
    """Run the fixed tactic list as a baseline."""

    @model_validator(mode="after")
    def _k_at_most_n(self) -> "EvaluateConfig":
        if not self.k or min(self.k) < 1 or max(self.k) > self.n:
            raise ValueError(f"every k must lie between 1 and n = {self.n}, got {list(self.k)}")
        return self


class IterateConfig(Section):
    """What ``prover iterate`` reads."""

    seed: int = 0
    """Decides everything that is drawn at random."""
    rounds: int = Field(default=3, ge=0)
    """Rounds of expert iteration after the cold start."""
    prompt: Literal["plain", "chat"] = "chat"
    """``plain``: statement and premises only, for small models; ``chat``: instructions for chat models."""
    train: ProblemsConfig
    """The problems that are sampled and learned from."""
    evaluate_on: dict[str, ProblemsConfig] = {}
    """Problem sets for evaluation by name (letters, digits, ``-`` and ``_``; not ``train``)."""
    model: ModelConfig
    """The starting model."""
    engine: EngineConfig = TransformersEngine()
    """What generates completions."""
    lean: LeanConfig = LeanConfig()
    """Which Lean checks them, and its limits."""
    cold: ColdConfig | None = None
    """Round 0; None starts from the model as it is."""
    cold_sft: SftConfig | None = None
    """Training of round 0; None takes ``sft``."""
    sampling: SamplingConfig = SamplingConfig()
    """How training attempts are drawn."""
    correct: CorrectConfig = CorrectConfig()
    """Self-correction of training attempts."""
    select: SelectConfig = SelectConfig()
    """What is learned from."""
    sft: SftConfig = SftConfig()
    """Fine-tuning in each round."""
    average: AverageConfig | None = None
    """None uses the last checkpoint as it is."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation after each round."""

    @field_validator("evaluate_on")
    @classmethod
    def _names_of_folders(cls, sets: dict[str, ProblemsConfig]) -> dict[str, ProblemsConfig]:
        """Each name becomes a folder beside ``train``."""
        for name in sets:
            if name == "train" or not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"{name!r} cannot name a set: use letters, digits, - and _, and not 'train'")
        return sets


def load_config(path: Path) -> IterateConfig:
    """Read a TOML configuration. Relative paths in it are taken from the file's own folder.

    Raises ConfigError with one line that names file, key and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a TOML configuration"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    try:
        config = IterateConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, data)}") from error
    return _rebase(config, path.parent)


def open_run(run: Path) -> IterateConfig:
    """The configuration of a run. Raises ArtifactError where ``run`` is no run directory."""
    file = run / "config.json"
    try:
        return IterateConfig.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{run}: is no run directory (no config.json); give the --run-dir of an iterate") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ArtifactError(
            f"{file}: {where}: {first['msg']}; another version of prover wrote it, or it is damaged: use another run "
            "directory, or --clean to start over"
        ) from error


def _rebase(config: Section, folder: Path) -> Any:
    """Make relative paths absolute, from the configuration's folder."""
    changes: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Path):
            changes[name] = (folder / value.expanduser()).resolve()
        elif isinstance(value, Section):
            changes[name] = _rebase(value, folder)
        elif isinstance(value, dict):
            changes[name] = {k: _rebase(v, folder) if isinstance(v, Section) else v for k, v in value.items()}  # type: ignore[reportUnknownVariableType]
    return config.model_copy(update=changes)


def _explain(error: ValidationError, data: Any) -> str:
    """The first fault as one line; for an unknown key, the nearest known one; then how many more there are."""
    faults = error.errors()
    # A misspelt key is missing as well: the misspelling is what to name.
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    place = [part for part in first["loc"] if not _is_tag(part, first["loc"], data)]
    where = ".".join(str(part) for part in place) or "top level"
    if first["type"] == "extra_forbidden":
        known = _known_keys(place[:-1], data)
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(sorted(known))
        text = f"unknown key {where!r}; {hint}"
    elif first["type"] == "missing":
        text = f"missing key {where!r}"
    else:
        text = f"{where}: {first['msg']}, got {first['input']!r}" if place else first["msg"]
    more = len(faults) - 1
    return text + (f" (and {more} more)" if more else "")


def _is_tag(part: int | str, loc: tuple[int | str, ...], data: Any) -> bool:
    """Pydantic puts the chosen member of a union into the location; it is no key of the file."""
    here = data
    for step in loc:
        present = (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int))
        if step is part:
            return not present and isinstance(here, dict) and part in {here.get("type"), here.get("source")}  # type: ignore[reportUnknownMemberType]
        if present:
            here = here[step]  # type: ignore[reportUnknownVariableType]
    return False


def _known_keys(place: list[int | str], data: Any) -> list[str]:
    """Keys that the section at ``place`` knows, following the file's own choice of union members."""
    fields: dict[str, FieldInfo] = dict(IterateConfig.model_fields)
    here = data
    named = False
    for part in place:
        here = here[part]
        if named:
            options = [CoreProblems, MiniF2FProblems, JsonlProblems]
            named = False
        else:
            field = fields.get(str(part))
            if field is None:
                return []
            named = part == "evaluate_on"
            options = _sections(field.annotation)
        if isinstance(here, dict) and not named:
            tag = here.get("type", here.get("source"))  # type: ignore[reportUnknownMemberType]
            chosen = [o for o in options if tag is not None and tag in _tags(o)] or options
            fields = {k: v for o in chosen for k, v in o.model_fields.items()}
    return [] if named else list(fields)


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for inner in getattr(annotation, "__args__", ()) for s in _sections(inner)]


def _tags(section: type[Section]) -> tuple[Any, ...]:
    for name in ("type", "source"):
        if name in section.model_fields:
            return getattr(section.model_fields[name].annotation, "__args__", ())
    return ()
