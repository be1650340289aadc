"""Train Lean 4 theorem provers by expert iteration."""

__version__ = "0.1.0"
