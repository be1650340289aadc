"""Write docs/configuration.md from the configuration models. ``--check`` exits 1 where the file is not current."""

import sys
from pathlib import Path
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from prover.config import PLACEMENT, IterateConfig, Section

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
INTRODUCTION = f"""# Configuration

`prover iterate CONFIG.toml` reads one TOML file. Paths in it are relative to the file. Unknown keys are refused with
the nearest known one. Two calls on one run directory may differ in keys that say where things lie or how wide work
runs ({", ".join(f"`{name}`" for name in sorted(PLACEMENT))}),
and in `rounds` and `evaluate_on`, which only add to it; any other
change is refused, with the keys named. `--set KEY=VALUE` sets one key from the command line.
Where verdicts are kept from one run to the next is no key but an option, `--cache`.

The commands of single stages take the same files (`--config`) and read `seed`, `prompt`, `engine`, `lean`, `sampling`,
`correct`, `select`, `sft`, `pairs`, `dpo`, `launch`, `average` and `evaluate` from them. `scripts/config_docs.py`
writes this page from `prover/config/`.
"""


def sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return list(dict.fromkeys(s for inner in get_args(annotation) for s in sections(inner)))


def kind(annotation: Any) -> str:
    text = str(annotation) if get_args(annotation) else getattr(annotation, "__name__", str(annotation))
    for old, new in (("typing.", ""), ("pathlib._local.", ""), ("pathlib.", ""), ("NoneType", "None")):
        text = text.replace(old, new)
    return text


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Section):
        return "as below"
    return f"`{list(value) if isinstance(value, tuple) else value!r}`"


def table(section: type[Section]) -> list[str]:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        inner = sections(field.annotation)
        shown = " or ".join(f"[{s.__name__}](#{s.__name__.lower()})" for s in inner) or f"`{kind(field.annotation)}`"
        text = " ".join((field.description or "").replace("``", "`").split()).replace("|", "\\|")
        lines.append(f"| `{name}` | {shown.replace('|', chr(92) + '|')} | {default(field.default)} | {text} |")
    return lines


def page() -> str:
    lines = [INTRODUCTION]
    todo: list[type[Section]] = [IterateConfig]
    done: set[type[Section]] = set()
    while todo:
        section = todo.pop(0)
        if section in done:
            continue
        done.add(section)
        text = " ".join((section.__doc__ or "").replace("``", "`").split())
        lines += [f"## {section.__name__}", "", *([text, ""] if text else []), *table(section), ""]
        for field in section.model_fields.values():
            todo += sections(field.annotation)
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == page()
        sys.exit(None if current else f"{TARGET} is not current; run: python scripts/config_docs.py")
    TARGET.write_text(page(), encoding="utf-8")
