"""Reading JSON lines into records, with errors that name file, line and field."""

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from prover.errors import InputError

T = TypeVar("T", bound=msgspec.Struct)

_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


def read_jsonl(
    path: Path, kind: type[T], *, unique: str | None = None, fault: Callable[[T], str | None] | None = None
) -> Iterator[T]:
    """Records of a user's file, line by line. ``unique`` names a field whose values must not repeat; ``fault`` says
    what is wrong with a record beyond the types of its fields, as ``field NAME: what``.

    Raises InputError for a missing, empty, torn or wrong file, and for duplicates.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a JSONL file") from error
    seen: dict[object, int] = {}
    with file:
        count = 0
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            record = _decode(line, kind, path, number, torn=not line.endswith(b"\n"))
            if fault is not None and (wrong := fault(record)):
                raise InputError(f"{path}:{number}: {wrong}")
            if unique is not None:
                value = getattr(record, unique)
                if value in seen:
                    first = f"{value!r} stands in line {seen[value]} too"
                    raise InputError(f"{path}:{number}: {unique}: {first}; make each {unique} unique")
                seen[value] = number
            count += 1
            yield record
    if count == 0:
        raise InputError(f"{path}: is empty; expected one JSON object a line ({kind.__name__})")


def decode_lines(data: bytes, kind: type[T], path: Path) -> Iterator[T]:
    """Records of one of our own shards."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(data.splitlines(), 1):
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            _decode(line, kind, path, number, torn=False)


def _decode(line: bytes, kind: type[T], path: Path, number: int, *, torn: bool) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}:{number}: {_explain(error, kind)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = "the last line is torn (it does not end)" if torn else "is not a JSON object"
        raise InputError(f"{path}:{number}: {what}: {error}; mend or delete this line") from error


def _explain(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> str:
    text = str(error)
    message, _, where = text.partition(" - at ")
    field = where.strip("`").removeprefix("$").removeprefix(".")
    found = _UNKNOWN.search(message)
    if found and not field:
        known = [f.encode_name for f in msgspec.structs.fields(kind)]
        near = difflib.get_close_matches(found.group(1), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "known fields: " + ", ".join(known)
        return f"unknown field {found.group(1)!r}; {hint}"
    return f"field {field}: {message}" if field else message.replace("Object missing", "missing").replace("`", "'")
