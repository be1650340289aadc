"""Problems from every source, as :class:`prover.records.Problem`."""

from prover.problems.read import read_problems
from prover.problems.write import run_problems

__all__ = ["read_problems", "run_problems"]
