"""Pointers: a completion may write ``⟦2⟧`` for the second lemma that its prompt offers.

A small model cannot spell names that it has never seen; it can copy a number. The marks are expanded before Lean sees
the proof, so verdicts, stored proofs and training data that leave the plain prompt hold real names.
"""

import re

from prover.records import Problem

_POINTER = re.compile(r"⟦(\d{1,3})⟧")


def pointer(index: int) -> str:
    """The mark of premise ``index``, counted from 1."""
    return f"⟦{index}⟧"


def expand_pointers(text: str, problem: Problem) -> str:
    """``text`` with each mark replaced by its lemma's full name.

    A mark that points at no premise stays as it is, and so fails in Lean (``⟦1⟧`` is a quotient class there).
    """
    premises = problem.premises or ()

    def name(found: re.Match[str]) -> str:
        index = int(found.group(1))
        return premises[index - 1].name if 1 <= index <= len(premises) else found.group()

    return _POINTER.sub(name, text)
