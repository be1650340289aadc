"""A child process: LeanDojo traces a repository.

``python -m prover.projects.tracer CLONE FOLDER`` builds the commit that CLONE is at in FOLDER/NAME and leaves the trace
of each of its files below FOLDER/NAME/.lake/build/ir; dependencies are built, not traced.

Written for LeanDojo 4.20.0. It is the first half of its ``trace``: the second parses every file in Ray's processes,
asks GitHub for the commit of Lean's version and copies all to a cache; :mod:`reader` does without.
"""

import os
import sys


def main(clone: str, folder: str) -> None:
    from lean_dojo.data_extraction.lean import LeanGitRepo  # type: ignore[reportMissingImports]
    from lean_dojo.data_extraction.trace import _trace  # type: ignore[reportMissingImports]

    repository = LeanGitRepo.from_path(clone)
    os.chdir(folder)
    _trace(repository, build_deps=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
