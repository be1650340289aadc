"""From a TOML file, and what is set beside it, to a configuration; from a run directory to the one it was made with."""

import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from prover.config import IterateConfig, Section, StageConfig
from prover.config_faults import CHOICES, explain, keys_of
from prover.errors import ArtifactError, ConfigError

Override = tuple[str, Any]
"""A dotted key and its value."""


def load_config(path: Path, overrides: Sequence[Override] = ()) -> IterateConfig:
    """Read a TOML configuration, with ``overrides`` set in it. Relative paths in the file are taken from its own
    folder, those of overrides from the working directory.

    Raises ConfigError with one line that names file, key and what to do.
    """
    return _config(IterateConfig, _read(path), path, overrides)


def load_stage_config(path: Path | None, overrides: Sequence[Override] = ()) -> StageConfig:
    """The same for a single stage; defaults where ``path`` is None. The sections that only ``prover iterate`` reads
    may be there, and are passed over."""
    others = IterateConfig.model_fields.keys() - StageConfig.model_fields.keys()
    data = _read(path) if path else {}
    return _config(StageConfig, {k: v for k, v in data.items() if k not in others}, path, overrides)


def parse_override(text: str) -> Override:
    """``sampling.n=32``: the value as TOML has it; what is no TOML is a string, so that it needs no quotes.

    Raises ConfigError where there is no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise ConfigError(f"--set {text}: is no assignment; write it like --set sampling.n=32")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


_Config = TypeVar("_Config", bound=StageConfig)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a TOML configuration"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error


def _config(kind: type[_Config], data: dict[str, Any], path: Path | None, overrides: Sequence[Override]) -> _Config:
    if path is not None:
        _valid(kind, data, str(path))  # its own faults first: what is set beside it is not to blame
    for key, value in overrides:
        _override(kind, data, key.split("."), value)
    config = _valid(kind, data, "--set" if overrides else str(path or "the defaults"))
    folder = path.parent if path else Path()
    return _rebase(config, lambda key: Path() if any(f"{key}.".startswith(f"{o}.") for o, _ in overrides) else folder)


def _valid(kind: type[_Config], data: dict[str, Any], where: str) -> _Config:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, data, kind)}") from error


def _override(kind: type[Section], data: dict[str, Any], key: list[str], value: Any) -> None:
    *sections, last = key
    field = kind.model_fields.get(sections[0]) if len(sections) == 1 else None
    here = data
    for name in sections:
        inner = here.get(name)
        if not isinstance(inner, dict):
            inner = {"type": field.default.type} if field and hasattr(field.default, "type") else {}
            here[name] = inner
        here = inner  # type: ignore[reportUnknownVariableType]
    if last in CHOICES and here.get(last, value) != value:
        # another kind of section: what it does not know meant something to the one before
        known = keys_of(field.annotation, value) if field else frozenset[str]()
        for name in here.keys() - known:
            del here[name]
    here[last] = value


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


def _rebase(config: Section, folder: Callable[[str], Path], place: str = "") -> Any:
    """Make relative paths absolute; ``folder`` says from where, by dotted key."""
    changes: dict[str, Any] = {}
    for name in type(config).model_fields:
        value, key = getattr(config, name), f"{place}{name}"
        if isinstance(value, Path):
            changes[name] = (folder(key) / value.expanduser()).resolve()
        elif isinstance(value, Section):
            changes[name] = _rebase(value, folder, f"{key}.")
        elif isinstance(value, dict):
            changes[name] = {
                k: _rebase(v, folder, f"{key}.{k}.") if isinstance(v, Section) else v
                for k, v in value.items()  # type: ignore[reportUnknownVariableType]
            }
    return config.model_copy(update=changes)
