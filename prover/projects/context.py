"""The header of a theorem in the middle of a file: what is in force and declared there, in the file's own words.

It is the file's imports and the text of the commands before the theorem, comments left out. So the theorem itself, what
comes after it and whatever imports its file do not exist for a proof. Of the theorems before it only those stay that
later text may need: those with an attribute (tactics use them unasked) and those whose name is mentioned, by the
theorem, its known proof or by what stays, as far as names can tell. What only prints or tests (``#eval``, ``example``)
goes, and so do closed sections that nothing is left of.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from lean_env.source import tokens
from prover.projects.source_text import mentioned, parts_of, without_comments
from prover.projects.traced import TracedCommand, TracedFile

_OPENS = frozenset({"namespace", "section", "noncomputablesection", "noncomputableSection"})
_SCOPED = frozenset({"open", "variable", "universe", "set_option", "include", "omit"})
"""What ends with its section and declares nothing."""
_DROPPED = frozenset({"example", "moduledoc", "moduleDoc", "eval", "check", "checkFailure", "print", "printAxioms"})


class _Part(NamedTuple):
    """A command before the theorem, as far as it matters: its text, and the names in it."""

    kind: str
    text: str
    words: frozenset[str]
    names: frozenset[str]
    """What it declares, last parts; empty where it has to stay in any case."""


class Context:
    """The commands of one file. ``options`` are lines that every header has after the imports."""

    def __init__(self, file: TracedFile, options: Iterable[str] = (), *, all_lemmas: bool = False) -> None:
        self._file = file
        self._options = tuple(options)
        self._all_lemmas = all_lemmas

    def header(self, command: int) -> str:
        """The header of the theorem in ``command``."""
        before = self._parts[:command]
        needed = set(self._parts[command].words)
        kept = [not part.names or self._all_lemmas for part in before]
        for part, stays in zip(before, kept):
            if stays:
                needed |= part.words
        for index in reversed(range(len(before))):  # what a command mentions stands before it
            if not kept[index] and before[index].names & needed:
                kept[index] = True
                needed |= before[index].words
        own = self._file.commands[command]
        lines = [
            *self._imports,
            *self._options,
            *_without_empty_sections([part for part, stays in zip(before, kept) if stays and part.text]),
            *self._before_in(own),
        ]
        return "\n".join(lines)

    def scope(self, command: int) -> tuple[str, ...]:
        """The namespaces that are open at ``command``, outermost first."""
        stack: list[str | None] = []
        for part in self._parts[:command]:
            if part.kind == "end":
                del stack[max(0, len(stack) - _levels(part)) :]
            elif part.kind == "namespace":
                stack.extend(parts_of(_scope_name(part.text) or ""))
            elif part.kind in _OPENS:
                stack.extend([None] * _levels(part))
        return tuple(name for name in stack if name is not None)

    def _before_in(self, command: TracedCommand) -> list[str]:
        """``A`` of ``A in B`` as a command by itself: ``B`` is the last there is, so that nothing else sees it."""
        text = without_comments(self._file.text[command.start : command.inner])
        found, start = list[str](), 0
        for token in tokens(text):
            if token.kind == "ident" and token.text == "in":
                found.append(text[start : token.start].strip())
                start = token.start + len(token.text)
        return found

    @cached_property
    def _imports(self) -> list[str]:
        lines = without_comments(self._file.text[: self._file.header_end]).split("\n")
        return [line for line in lines if line.strip()]

    @cached_property
    def _parts(self) -> list[_Part]:
        theorems: dict[int, list[str]] = {}
        for theorem in self._file.theorems:
            theorems.setdefault(theorem.command, []).append(theorem.name)
        return [self._part(command, theorems.get(i, [])) for i, command in enumerate(self._file.commands)]

    def _part(self, command: TracedCommand, theorems: Sequence[str]) -> _Part:
        text = without_comments(self._file.text[command.start : command.end]).strip()
        if command.kind in _DROPPED or text.startswith("#"):
            text = ""
        removable = command.kind == "theorem" and "@[" not in text.partition("theorem")[0].partition("lemma")[0]
        names = frozenset(parts_of(name)[-1] for name in theorems) if removable else frozenset[str]()
        return _Part(command.kind, text, mentioned(text), names)


def _without_empty_sections(parts: Sequence[_Part]) -> list[str]:
    """Texts of the commands, but for closed sections that declare nothing: what was in force there is so no more."""
    texts: list[str] = []
    opened: list[int | None] = []
    """Where the text of each open section begins; None for one that stays, and for namespaces, which `open` wants to
    exist even where they are empty."""
    for part in parts:
        levels = _levels(part)
        if part.kind == "end":
            closed = opened[len(opened) - levels :]
            del opened[len(opened) - levels :]
            if len(closed) == 1 and closed[0] is not None:
                del texts[closed[0] :]
                continue
        elif part.kind in _OPENS:
            prunable = levels == 1 and part.kind != "namespace"
            if not prunable:
                opened = [None] * len(opened)
            opened += [len(texts) if prunable else None] * levels
        elif part.kind not in _SCOPED:
            opened = [None] * len(opened)
        texts.append(part.text)
    return texts


def _levels(part: _Part) -> int:
    """How many scopes a command opens or closes: one for each part of the name."""
    name = _scope_name(part.text) if part.kind in _OPENS or part.kind == "end" else None
    return len(parts_of(name)) if name else 1


def _scope_name(text: str) -> str | None:
    """The name after ``namespace``, ``section`` or ``end``; None where there is none."""
    words = [token.text for token in tokens(text) if token.kind == "ident"]
    return words[-1] if words and words[-1] not in ("namespace", "section", "end") else None
