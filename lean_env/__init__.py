"""Sound compile-checks of Lean 4 proofs in a pool of confined Lean workers.

This package knows Lean and nothing about language models; it never imports ``prover``.
"""
