"""What the documents say is true of the code: commands parse, paths exist, nothing names what it must not."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from prover.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(?:sh|bash|python|json)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:prover|make) [^`\n]+)`")


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Where a command of ``program`` stands, and its words."""
    for document in DOCUMENTS:
        text = document.read_text()
        fenced = [line for block in _FENCE.findall(text) for line in block.splitlines()]
        for line in [*fenced, *_INLINE.findall(text)]:
            if line.strip() and re.fullmatch(rf"(\S+/)?{program}", line.split()[0]):
                words = shlex.split(line, comments=True)
                if len(words) > 1:
                    yield f"{document.name}: {line}", words[1:]


def parse(words: list[str]) -> None:
    """Parse as the program would, without running anything. Words in capitals stand for what the reader fills in."""
    group: Any = typer.main.get_command(app)
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version"), words
        return
    assert words[0] in group.commands, f"no command {words[0]!r}"
    known = {name for p in group.commands[words[0]].params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = [word for word in words[1:] if word.startswith("-") and word not in known]
    assert not unknown, f"no option {unknown}"


@pytest.mark.parametrize(("where", "words"), list(commands("prover")), ids=lambda value: str(value)[:70])
def test_commands_exist_with_their_options(where: str, words: list[str]) -> None:
    parse(words)


def test_make_targets_exist() -> None:
    targets = {word for _, words in commands("make") for word in words if "=" not in word}
    assert {"quickstart", "test"} <= targets
    subprocess.run(["make", "--dry-run", *sorted(targets)], cwd=ROOT, check=True, capture_output=True)


def test_the_tree_of_the_readme_is_there() -> None:
    tree = _FENCE.findall((ROOT / "README.md").read_text())[-1]
    top = ""
    for line in tree.splitlines():
        name = line.split()[0]
        top = "" if not line.startswith(" ") else top
        assert (ROOT / top / name).exists(), f"README names {top}{name}"
        top = top or name


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
