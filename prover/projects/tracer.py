"""A child process: LeanDojo traces a repository.

``python -m prover.projects.tracer CLONE FOLDER`` builds the commit that CLONE is at in FOLDER/NAME and leaves the trace
of each of its files below FOLDER/NAME/.lake/build/ir; dependencies are built, not traced.

Written for LeanDojo 4.20.0. It is the first half of its ``trace``: the second parses every file in Ray's processes,
asks GitHub for the commit of Lean's version and copies all to a cache; :mod:`reader` does without.

The Lean program by which LeanDojo extracts does not compile with Lean 4.28: types of the core library have new names.
:func:`adapted` gives it those that the project's Lean has.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_RENAMED = (("String.Pos", "String.Pos.Raw"), ("Substring", "Substring.Raw"))


def main(clone: str, folder: str) -> None:
    from lean_dojo.data_extraction import trace  # type: ignore[reportMissingImports]
    from lean_dojo.data_extraction.lean import LeanGitRepo  # type: ignore[reportMissingImports]

    repository = LeanGitRepo.from_path(clone)
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, trace.LEAN4_DATA_EXTRACTOR_PATH.name)
        text = trace.LEAN4_DATA_EXTRACTOR_PATH.read_text(encoding="utf-8")
        program.write_text(adapted(text, lambda name: _knows(clone, name)), encoding="utf-8")
        trace.LEAN4_DATA_EXTRACTOR_PATH = program
        os.chdir(folder)
        trace._trace(repository, build_deps=False)


def adapted(program: str, known: Callable[[str], bool]) -> str:
    """LeanDojo's ``ExtractData.lean`` for a Lean that knows, or not, the new names of the types that it uses."""
    if not known("String.Pos.Raw"):
        return program
    for old, new in _RENAMED:
        if known(new):
            program = re.sub(rf"\b{re.escape(old)}\b", new, program)
    # What `drop` gives is a slice there; `toString` of a string is that string.
    return re.sub(r"\(?\b(defPath\.drop \d+)\)?", r"(toString (\1))", program)


def _knows(folder: str, name: str) -> bool:
    """Whether the Lean that a folder asks for has a constant."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "Probe.lean")
        file.write_text(f"#check @{name}\n")
        return subprocess.run(["lean", str(file)], cwd=folder, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
