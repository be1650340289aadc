"""Runs as tables and JSON. Everything is read from artifacts; nothing is computed that a stage has not written."""

from prover.report.problem import print_problem
from prover.report.rounds import print_rounds, print_scores
from prover.report.stage import print_buckets, print_stage

__all__ = ["print_buckets", "print_problem", "print_rounds", "print_scores", "print_stage"]
