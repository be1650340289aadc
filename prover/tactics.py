"""Fixed tactic templates: the verified cold start, the baseline ``--portfolio``, and a small random grammar.

A template is a proof (what follows ``:=``) with holes: ``{v}`` and ``{w}`` are the first and second data variable of
the statement, ``{h}`` its first hypothesis, ``{1}`` to ``{8}`` a retrieved lemma, written as a pointer (see
:mod:`prover.pointers`).
"""

import random
import re

from prover.binders import Statement, data_variables, hypotheses, parse_statement
from prover.pointers import pointer
from prover.records import Problem

_HOLE = re.compile(r"\{([vwh1-8])\}")

PORTFOLIO: tuple[str, ...] = (
    "by grind",
    "by induction {v} <;> simp_all <;> omega",
    "by rfl",
    "by cases {v} <;> cases {w} <;> grind",
    "by ext <;> simp",
    "by induction {v} <;> grind",
    "by induction {v} generalizing {w} <;> grind",
    "by cases {v} <;> rfl",
    "by cases {v} <;> grind",
    "by simp_all",
    "by intros; constructor <;> grind",
    "by rcases {v} with ⟨⟨_⟩, rfl⟩ <;> simp_all",
    "by cases {v} <;> simp_all",
    "by ext <;> grind",
    "by induction {w} <;> grind",
    "by omega",
    "by norm_cast",
    "by split <;> simp_all",
    "by simpa using {h}",
    "by cases {h} <;> simp_all",
    "by apply Fin.ext; simp",
    "by decide +revert",
    "by simp",
)
"""The full list, without lemmas. Its first eight are a greedy cover of 130 training problems of the core library,
each the one that adds most to those before it, out of 64 templates (all of them together prove 65 %, these eight as
much, the first alone 35 %); the others follow by how many they prove or for what they alone can do."""


def render(template: str, problem: Problem) -> str | None:
    """``template`` with its holes filled for ``problem``; None where the problem lacks what a hole needs."""
    holes = set(_HOLE.findall(template))
    fill: dict[str, str] = {}
    if holes & {"v", "w", "h"}:
        statement = parse_statement(problem.formal_statement)
        if statement is None:
            return None
        fill = dict(zip("vw", data_variables(statement), strict=False))
        fill |= dict(zip("h", hypotheses(statement), strict=False))
    premises = len(problem.premises or ())
    fill |= {str(k): pointer(k) for k in range(1, min(premises, 8) + 1)}
    if not holes <= fill.keys():
        return None
    return _HOLE.sub(lambda found: fill[found.group(1)], template)


def random_proof(problem: Problem, rng: random.Random) -> str:
    """A random proof of a small tactic grammar with the statement's own names. Unverified, most often wrong.

    It teaches syntax: which tactics there are, and that names come from the statement and from the offered lemmas.
    """
    statement = parse_statement(problem.formal_statement) or Statement("", (), "")
    data, assumed = data_variables(statement), hypotheses(statement)
    lemmas = len(problem.premises or ())
    shape = rng.random()
    steps = 0 if shape < 0.35 else 1 if shape < 0.85 else 2
    parts = [_step(statement, data, assumed, lemmas, rng) for _ in range(steps)]
    parts.append(_closer(data, assumed, lemmas, rng))
    return "by " + " <;> ".join(parts)


def _step(
    statement: Statement, data: tuple[str, ...], assumed: tuple[str, ...], lemmas: int, rng: random.Random
) -> str:
    choices = ["intro h", "intros", "constructor", "ext", "split", "funext x"]
    if data:
        # Case splits and inductions open most proofs, so they are drawn more often.
        choices += [f"{verb} {rng.choice(data)}" for verb in ("cases", "cases", "induction", "induction")]
    if assumed:
        h = rng.choice(assumed)
        choices += [f"cases {h}", f"subst {h}", f"simp at {h}", f"rcases {h} with h | h"]
    if lemmas:
        choices += [f"{verb} [{_lemma(lemmas, rng)}]" for verb in ("rw", "simp only")]
        choices += [f"{verb} {_lemma(lemmas, rng)}" for verb in ("have :=", "apply")]
    if "↔" in statement.conclusion or "∧" in statement.conclusion:
        choices += ["constructor", "constructor"]
    return rng.choice(choices)


def _closer(data: tuple[str, ...], assumed: tuple[str, ...], lemmas: int, rng: random.Random) -> str:
    choices = ["rfl", "omega", "simp", "simp_all", "grind", "decide", "ac_rfl", "contradiction"]
    if lemmas:
        one, two = _lemma(lemmas, rng), _lemma(lemmas, rng)
        choices += [f"simp [{one}]", f"simp [{one}]", f"simp [{one}, {two}]", f"grind [{one}]", f"simp_all [{one}]"]
        choices += [f"exact {one}", f"exact {one} ..", f"rw [{one}]", f"apply {one}"]
    if assumed:
        h = rng.choice(assumed)
        choices += [f"simpa using {h}", f"simp [{h}]", f"exact {h}", f"rw [{h}]"]
        if lemmas:
            one = _lemma(lemmas, rng)
            choices += [f"simp [{one}, {h}]", f"exact {one} {h}", f"simpa [{one}] using {h}"]
    if data and lemmas:
        choices.append(f"exact {_lemma(lemmas, rng)} {rng.choice(data)}")
    return rng.choice(choices)


def _lemma(lemmas: int, rng: random.Random) -> str:
    """A pointer; the first lemmas, which the retriever thinks best, more often."""
    return pointer(rng.randint(1, min(lemmas, 1 + int(rng.expovariate(1 / 4)))))
