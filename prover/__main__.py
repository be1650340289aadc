"""``python -m prover``."""

from prover.cli import main

main()
