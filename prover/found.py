"""An index of the proofs that were found, for choosing among them: numbers only, the texts stay on the disk.

A proof takes 46 bytes here and a problem 24, so that millions of them fit into a machine's memory; shards are read one
at a time.
"""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lean_env.source import normalise_proof, tokens
from prover.artifacts import Artifact, read_manifest
from prover.progress import Meter
from prover.records import Attempt, Problem, Verdict
from prover.seeds import derive_seed

Judgings = Sequence[tuple[Artifact, Artifact]]
"""Attempts and the verdicts on them, in the order in which they came to be."""

NO_MODEL = frozenset({"tactics", "seed attempts"})
"""Stages whose attempts no model made: a fixed list of tactics and a project's own proofs say nothing of how hard a
problem is."""

PROOF = np.dtype(
    [
        ("problem", np.int64),  # its number among the problems
        ("text", np.int64),  # hash of the proof in its normal form
        ("answer", np.int64),  # hash of the whole completion
        ("priority", np.int64),  # which of several are drawn
        ("length", np.int32),  # characters of the normal form
        ("place", np.int32),  # of its first attempt in the shard
        ("source", np.int16),  # number of that attempt's artifact
        ("turn", np.int16),
        ("last", np.int16),  # number of the last artifact that has this proof too
    ]
)


class Found:
    """Every distinct proof of each problem, the shortest first, and how the problem's attempts went."""

    def __init__(
        self,
        proofs: NDArray[np.void],
        starts: NDArray[np.int64],
        statements: NDArray[np.int64],
        draws: NDArray[np.int64],
        tried: NDArray[np.int32],
        proved: NDArray[np.int32],
        repeated: int,
    ) -> None:
        self.proofs = proofs
        """(N,) of :data:`PROOF`, in the order of the problems."""
        self.starts = starts
        """(shards + 1,) number of each shard's first problem; the last is how many problems there are."""
        self.statements = statements
        """(P,) hashes: equal statements, equal hashes."""
        self.draws = draws
        """(P,) seeds of what is drawn among a problem's proofs."""
        self.tried = tried
        """(P,) judged first attempts of models."""
        self.proved = proved
        """(P,) how many of them proved the problem."""
        self.repeated = repeated
        """Proofs left out because the same one of the same problem was found before."""


def find(problems: Artifact, judged: Judgings, seed: int, meter: Meter) -> Found:
    """Read everything that was judged. ``seed`` and an attempt's id decide its priority."""
    models = [read_manifest(attempts.path).stage not in NO_MODEL for attempts, _ in judged]
    blocks: list[NDArray[np.void]] = []
    starts, total = [0], 0
    statements, draws, tried, proved = array("q"), array("q"), array("i"), array("i")
    for index in range(problems.shards):
        shard = problems.read_shard(index, Problem)
        number = {problem.id: i for i, problem in enumerate(shard)}
        outcomes = [[0, 0] for _ in shard]
        proofs: list[dict[str, tuple[int, ...]]] = [{} for _ in shard]
        texts: list[dict[str, str]] = [{} for _ in shard]
        for source, place, attempt, is_proof in _judged(index, judged):
            at = number[attempt.problem_id]
            if attempt.turn == 0 and models[source]:
                outcomes[at][0] += 1
                outcomes[at][1] += is_proof
            if not is_proof or attempt.proof is None:
                continue
            total += 1
            text = texts[at].get(attempt.proof)  # most repetitions are to the letter: spares reading Lean
            if text is None:
                text = texts[at][attempt.proof] = normalise_proof(attempt.proof)
            if text in proofs[at]:
                proofs[at][text] = (*proofs[at][text][:-1], source)
                continue
            proofs[at][text] = (
                starts[-1] + at,
                derive_seed(text),
                derive_seed(attempt.completion),
                derive_seed(seed, "replay", len(judged), attempt.id),
                len(text),
                place,
                source,
                attempt.turn,
                source,
            )
        ranked = [row for of_one in proofs for _, row in sorted(of_one.items(), key=lambda i: (len(i[0]), i[0]))]
        blocks.append(np.array(ranked, dtype=PROOF))
        statements.extend(derive_seed(*statement_text(problem)) for problem in shard)
        draws.extend(derive_seed(seed, "select", problem.id) for problem in shard)
        tried.extend(outcome[0] for outcome in outcomes)
        proved.extend(outcome[1] for outcome in outcomes)
        starts.append(starts[-1] + len(shard))
        meter.add(1)
    rows = np.concatenate(blocks) if blocks else np.empty(0, dtype=PROOF)
    return Found(
        rows,
        np.array(starts, dtype=np.int64),
        np.array(statements, dtype=np.int64),
        np.array(draws, dtype=np.int64),
        np.array(tried, dtype=np.int32),
        np.array(proved, dtype=np.int32),
        total - len(rows),
    )


def _judged(index: int, judged: Judgings) -> Iterator[tuple[int, int, Attempt, bool]]:
    """Source, place, attempt and whether it is a proof, of everything in the shard that has a verdict."""
    for source, (attempts, verdicts) in enumerate(judged):
        outcome = {v.attempt_id: v.proved for v in verdicts.read_shard(index, Verdict)}
        for place, attempt in enumerate(attempts.read_shard(index, Attempt)):
            if attempt.id in outcome:
                yield source, place, attempt, outcome[attempt.id]


def statement_text(problem: Problem) -> tuple[str, str]:
    """Header and statement as one way of writing them: no comments, no layout, no name. Problems where these are equal
    state the same, under whatever id."""
    words: list[str] = []
    named = False
    for token in tokens(problem.formal_statement):
        if token.kind in ("space", "comment", "doc"):
            continue
        is_name = not named and token.kind == "ident" and words[-1:] in (["theorem"], ["lemma"])
        words.append("" if is_name else token.text)
        named = named or is_name
    return _header(problem.header), " ".join(words)


@lru_cache(maxsize=256)  # most problems share a few
def _header(text: str) -> str:
    return " ".join(t.text for t in tokens(text) if t.kind not in ("space", "comment", "doc"))
