"""Which library lemmas to offer beside a statement: overlap of rare words.

Each lemma is a bag of words, taken from its statement and its name. A query scores a lemma by the summed inverse
document frequency of the words they share, divided by the square root of the lemma's own sum, so that short lemmas
about the same things come first (a cosine with binary weights; the retriever of LeanDojo, with word counts in the
place of a neural encoder).
"""

import heapq
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from prover.problems.library import LibraryTheorem
from prover.records import Premise

_WORD = re.compile(r"[^\W\d_][\w'!?]*(?:\.[^\W\d_][\w'!?]*)*|0|1|<;>|[^\w\s.,:(){}\[\]⦃⦄⟨⟩'\"«»]+")
_SPELLED = str.maketrans({"ℕ": " Nat ", "ℤ": " Int ", "ℚ": " Rat "})
_SKIP = frozenset("Type Prop Sort fun inst theorem".split())
_COMMON = 0.4
"""Words in more than this share of the lemmas tell nothing and are left out."""


def words(statement: str) -> frozenset[str]:
    """Words of a statement: components of dotted names, operators, the numerals 0 and 1. Names of variables, as they
    are short, are not."""
    found: set[str] = set()
    for word in _WORD.findall(statement.translate(_SPELLED)):
        if word[0].isalpha():
            found.update(part for part in word.split(".") if len(part) > 2 and part not in _SKIP)
        else:
            found.add(word)
    return frozenset(found)


def _name_words(name: str) -> frozenset[str]:
    return frozenset(part for part in re.split(r"[._]", name.rstrip("'")) if len(part) > 2)


class Retriever:
    """An index over library theorems; about a millisecond a query."""

    def __init__(self, theorems: Iterable[LibraryTheorem]) -> None:
        self._lemmas = [t for t in theorems if t.text is not None and not t.instance]
        bags = [words(t.text or "") | _name_words(t.name) for t in self._lemmas]
        count: Counter[str] = Counter(word for bag in bags for word in bag)
        size = max(1, len(bags))
        self._idf = {word: math.log(size / n) for word, n in count.items() if n < _COMMON * size}
        self._where: dict[str, array[int]] = {word: array("i") for word in self._idf}
        self._scale = array("d")
        for index, bag in enumerate(bags):
            known = [word for word in sorted(bag) if word in self._idf]
            self._scale.append(1.0 / math.sqrt(3.0 + sum(self._idf[word] for word in known)))
            for word in known:
                self._where[word].append(index)

    def retrieve(
        self, statement: str, k: int, *, allowed: Callable[[LibraryTheorem], bool] = lambda _: True
    ) -> tuple[Premise, ...]:
        """The ``k`` best allowed lemmas for a formal statement, best first; equal scores in library order."""
        scores: dict[int, float] = {}
        for word in sorted(words(statement)):
            weight = self._idf.get(word)
            if weight is None:
                continue
            for index in self._where[word]:
                scores[index] = scores.get(index, 0.0) + weight
        ranked: Sequence[tuple[float, int]] = heapq.nsmallest(
            8 * k + 64, ((-score * self._scale[index], index) for index, score in scores.items())
        )
        best = [self._lemmas[index] for _, index in ranked if allowed(self._lemmas[index])]
        if len(best) < k and len(ranked) < len(scores):
            everything = sorted((-score * self._scale[index], index) for index, score in scores.items())
            best = [self._lemmas[index] for _, index in everything if allowed(self._lemmas[index])]
        return tuple(Premise(t.name, (t.text or "").strip()) for t in best[:k])
