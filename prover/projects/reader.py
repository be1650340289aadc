"""A child process: reads files that LeanDojo traced, one at a time, and writes each as a line of JSON.

``python -m prover.projects.reader FOLDER`` takes the paths of trace files on standard input, one a line, relative to
FOLDER, and writes a :class:`TracedFile` for each to standard output.

Written for LeanDojo 4.20.0. A file is read by itself (``TracedFile.from_xml`` or ``from_traced_file``), never the whole
repository: ``TracedRepo.load_from_disk`` holds every file in memory, starts Ray, copies the repository into a cache and
asks GitHub for the commit of Lean's version.

LeanDojo asserts what syntax of a kind looks like, and Lean's has changed since (4.28 puts a node before ``section``). A
node that is not as it should be is taken for one of a kind that LeanDojo does not know, which it passes over, so that
the file is not lost.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from prover.projects.traced import UNFAMILIAR, ProofForm, TracedCommand, TracedFile, TracedTactic, TracedTheorem

_XML = ".trace.xml"


def main(folder: str) -> None:
    """Answers on a copy of standard output: what LeanDojo and its libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        accept_new_syntax()
        encoder = msgspec.json.Encoder()
        for line in sys.stdin:
            answers.write(encoder.encode(read_trace(Path(folder), line.rstrip("\n"))) + b"\n")
            answers.flush()


class _UnreadableNode(Exception):
    """Not even syntax of an unknown kind can be made of a node."""


def accept_new_syntax() -> None:
    """Replace the function by which LeanDojo makes nodes of JSON, in this process."""
    from lean_dojo.data_extraction import ast  # type: ignore[reportMissingImports]

    def from_data(node_data: dict[str, Any], lean_file: Any) -> Any:
        try:
            return ast.Node._kind_to_node_type(node_data["kind"]).from_data(node_data, lean_file)
        except (AssertionError, AttributeError, IndexError, TypeError):
            try:
                return ast.OtherNode.from_data(node_data, lean_file)
            except _UnreadableNode:
                raise
            except Exception as error:  # not to be tried again at each level above
                raise _UnreadableNode(f"{type(error).__name__} in {node_data['kind']}") from error

    ast.Node.from_data = staticmethod(from_data)


def read_trace(folder: Path, trace: str) -> TracedFile:
    """The file that the trace at ``trace`` below ``folder`` is of.

    A trace that LeanDojo cannot read is a fact about that file: its assertions, type errors and the like are all that
    it says.
    """
    from lean_dojo.data_extraction import traced_data  # type: ignore[reportMissingImports]
    from lean_dojo.utils import to_lean_path  # type: ignore[reportMissingImports]

    source = trace
    try:
        source = str(to_lean_path(folder, Path(trace)))
        if trace.endswith(_XML):
            file = traced_data.TracedFile.from_xml(folder, folder / trace, None)  # type: ignore[reportArgumentType]
        else:
            file = traced_data.TracedFile.from_traced_file(folder, folder / trace, None)  # type: ignore[reportArgumentType]
        traced_data.TracedRepo(None, {}, folder, [file], None)._update_traced_files()  # type: ignore[reportArgumentType, reportPrivateUsage]
        return _described(source, file)
    except Exception as error:
        place = _place(error)
        return TracedFile(path=source, error=f"{type(error).__name__}{f': {error}' if str(error) else ''}{place}")


def _place(error: Exception) -> str:
    """Where LeanDojo gave up: its assertions carry no text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def _described(path: str, file: Any) -> TracedFile:
    lines: list[str] = file.lean_file.code
    text = "\n".join(lines) + ("\n" if file.lean_file.endwith_newline else "")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def at(position: Any) -> int:
        return starts[position.line_nb - 1] + position.column_nb - 1

    header, *rest = file.ast.children
    nodes = [node for node in rest if node.start is not None]
    commands: list[TracedCommand] = []
    for node in nodes:
        inner = _innermost(node)
        commands.append(TracedCommand(kind=_kind(inner), start=at(node.start), end=at(node.end), inner=at(inner.start)))
    theorems: list[TracedTheorem] = []
    for traced in file.get_traced_theorems():
        start = at(traced.ast.start)
        command = next(i for i, c in enumerate(commands) if c.start <= start < c.end)
        theorems.append(_theorem(traced, command, at))
    return TracedFile(
        path=path,
        text=text,
        header_end=at(header.end) if header.end is not None else 0,
        commands=tuple(commands),
        theorems=tuple(theorems),
    )


def _innermost(node: Any) -> Any:
    """``B`` of the command ``A in B``."""
    while _kind(node) == "in":
        node = node.children[-1]
    return node


def _kind(node: Any) -> str:
    """LeanDojo has classes for some kinds of syntax and keeps Lean's name of the others."""
    name = type(node).__name__
    if name == "CommandDeclarationNode":
        inner = type(node.children[1]).__name__
        return {"CommandTheoremNode": "theorem", "CommandExampleNode": "example"}.get(inner, "declaration")
    if name in ("LemmaNode", "MathlibTacticLemmaNode"):
        return "theorem"
    if name == "OtherNode":
        kind = str(node.kind).rpartition(".")[2]
        known = kind != "declaration" or all(_kind(child) != "theorem" for child in node.children)
        return kind if known else UNFAMILIAR
    return name.removeprefix("Command").removesuffix("Node").lower()


def _theorem(traced: Any, command: int, at: Any) -> TracedTheorem:
    node = traced.ast
    # `theorem` is [theorem, name, signature, value]; Mathlib's `lemma` has the same in a group after its modifiers.
    parts = node.children if type(node).__name__ == "CommandTheoremNode" else node.children[1].children
    keyword, name, _, value = parts[:4]
    form: ProofForm = "term"
    tail = None
    if type(value).__name__ == "CommandDeclvaleqnsNode":
        form = "equations"
    elif type(value).__name__ == "CommandWherestructinstNode":
        form = "structure"
    else:
        tail = next((at(child.start) for child in value.children[2:] if child.start is not None), None)
    return TracedTheorem(
        command=command,
        name=str(node.name),
        keyword=at(keyword.start),
        signature=at(name.end),
        value=at(value.start),
        end=at(value.end),
        form=form,
        tail=tail,
        tactics=tuple(_tactics(traced)),
    )


def _tactics(traced: Any) -> Iterator[TracedTactic]:
    for tactic in traced.get_traced_tactics():
        yield TracedTactic(
            tactic=tactic.tactic,
            before=tactic.state_before,
            after=tactic.state_after,
            premises=tuple(_premises(tactic.ast)),
        )


def _premises(node: Any) -> list[str]:
    from lean_dojo.data_extraction.ast import IdentNode  # type: ignore[reportMissingImports]

    found: dict[str, None] = {}

    def note(ident: Any, _: object) -> None:
        # Only what Lean resolved to a constant has the module that defines it.
        if ident.full_name is not None and ident.mod_name is not None:
            found[ident.full_name] = None

    node.traverse_preorder(note, IdentNode)
    return list(found)


if __name__ == "__main__":
    main(sys.argv[1])
