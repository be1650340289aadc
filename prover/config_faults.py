"""What is wrong with a configuration file, in one line: the key, and the nearest known one where it is unknown."""

import difflib
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

DEFAULT_TAG = "embedded"
"""What ``type`` is where a section may leave it out."""
DEFAULT_LAUNCH = "single"
"""What it is for where training runs."""
DEFAULT_METHOD = "linear"
"""What ``method`` is where a section may leave it out."""
_DEFAULTS = (DEFAULT_TAG, DEFAULT_LAUNCH, DEFAULT_METHOD)
CHOICES = ("type", "source", "method")
"""Keys that choose among the kinds of a section."""


def explain(error: ValidationError, data: Any, root: type[BaseModel]) -> str:
    """The first fault as one line; for an unknown key, the nearest known one; then how many more there are."""
    faults = error.errors()
    # A misspelt key is missing as well: the misspelling is what to name.
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    place = [part for part in first["loc"] if not _is_tag(part, first["loc"], data)]
    where = ".".join(str(part) for part in place) or "top level"
    if first["type"] == "extra_forbidden":
        known = _known_keys(place[:-1], data, root)
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(sorted(known))
        text = f"unknown key {where!r}; {hint}"
    elif first["type"] == "missing":
        text = f"missing key {where!r}"
    else:
        text = f"{where}: {first['msg']}, got {first['input']!r}" if place else first["msg"]
    more = len(faults) - 1
    return text + (f" (and {more} more)" if more else "")


def keys_of(annotation: Any, tag: Any) -> frozenset[str]:
    """Keys of the section that ``tag`` chooses among those of ``annotation``."""
    return frozenset(
        name for section in _sections(annotation) if tag in _tags(section) for name in section.model_fields
    )


def _is_tag(part: int | str, loc: tuple[int | str, ...], data: Any) -> bool:
    """Pydantic puts the chosen member of a union into the location; it is no key of the file."""
    here = data
    for step in loc:
        present = (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int))
        if step is part:
            if present or not isinstance(here, dict):
                return False
            chosen = [here[key] for key in CHOICES if key in here]
            return part in (chosen or _DEFAULTS)
        if present:
            here = here[step]  # type: ignore[reportUnknownVariableType]
    return False


def _known_keys(place: list[int | str], data: Any, root: type[BaseModel]) -> list[str]:
    """Keys that the section at ``place`` knows, following the file's own choice of union members."""
    fields: dict[str, FieldInfo] = dict(root.model_fields)
    here = data
    named = False
    options: list[type[BaseModel]] = []
    for part in place:
        here = here[part]
        if named:  # by the user: a key of a table of sections, whose options stand
            named = False
        else:
            field = fields.get(str(part))
            if field is None:
                return []
            named = get_origin(field.annotation) is dict
            options = _sections(field.annotation)
        if isinstance(here, dict) and not named:
            tag = next((here[key] for key in CHOICES if key in here), None)  # type: ignore[reportUnknownMemberType]
            wanted = _DEFAULTS if tag is None else (tag,)
            chosen = [o for o in options if any(name in _tags(o) for name in wanted)] or options
            fields = {k: v for o in chosen for k, v in o.model_fields.items()}
    return [] if named else list(fields)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for inner in getattr(annotation, "__args__", ()) for s in _sections(inner)]


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    for name in CHOICES:
        if name in section.model_fields:
            return getattr(section.model_fields[name].annotation, "__args__", ())
    return ()
