"""Problems from every source, as :class:`prover.records.Problem`."""

from prover.problems.read import read_problems

__all__ = ["read_problems"]
