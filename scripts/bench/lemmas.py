"""What retrieved lemmas could do at best: proofs by one of the offered lemmas, tried in full, on hard problems.

Takes the held-out problems that the fixed tactic list does not solve and tries each template below with each lemma that
the retriever offers (and two with each pair). The share solved bounds what a model can gain from naming lemmas in
proofs of one step, whatever it learns. Prints a JSON object of figures as its last line.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Verdict
from prover.binders import data_variables, hypotheses, parse_statement
from prover.config import CoreProblems
from prover.config_file import load_config
from prover.console import open_progress
from prover.lean import open_lean
from prover.pointers import expand_pointers
from prover.problems import read_problems
from prover.progress import Meter
from prover.records import Problem
from prover.tactics import PORTFOLIO, render

ONE_LEMMA = (
    "by grind [{p}]",
    "by simp [{p}]",
    "by simp_all [{p}]",
    "by rw [{p}]",
    "by rw [{p}] <;> simp_all",
    "by rw [← {p}]",
    "by exact {p} ..",
    "by exact ({p} ..).symm",
    "by simpa using {p} ..",
    "by simpa [{p}] using {h}",
    "by simp [{p}]; omega",
    "by apply {p} <;> simp_all",
    "by apply {p} <;> grind",
    "by intros; apply {p} <;> assumption",
    "by induction {v} <;> simp_all [{p}]",
    "by induction {v} <;> grind [{p}]",
    "by cases {v} <;> simp [{p}]",
    "by cases {v} <;> grind [{p}]",
    "by ext <;> simp [{p}]",
    "by ext <;> grind [{p}]",
    "by rcases {v} with ⟨⟨_⟩, rfl⟩ <;> simp [{p}]",
    "by rcases {v} with ⟨_, rfl⟩ <;> grind [{p}]",
)
"""With holes for a lemma, a data variable and the first hypothesis of the statement."""
TWO_LEMMAS = ("by grind [{p}, {q}]", "by simp [{p}, {q}]")


def candidates(problem: Problem) -> Iterator[str]:
    statement = parse_statement(problem.formal_statement)
    variables = data_variables(statement)[:2] if statement else ()
    assumed = hypotheses(statement)[:1] if statement else ()
    names = [premise.name for premise in problem.premises or ()]
    for template in ONE_LEMMA:
        for v in variables if "{v}" in template else ("",):
            for h in assumed if "{h}" in template else ("",):
                yield from (template.format(p=name, v=v, h=h) for name in names)
    for template in TWO_LEMMAS:
        yield from (template.format(p=p, q=q) for p, q in combinations(names, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.toml"))
    parser.add_argument("--premises", type=int, default=8, help="lemmas offered for each problem")
    parser.add_argument("--quick", action="store_true", help="a fifth of the problems")
    options = parser.parse_args()
    config = load_config(options.config)
    limit = 40 if options.quick else 200
    section = CoreProblems(source="core", split="test", limit=limit, premises=options.premises)

    with open_progress() as progress, LeanPool(open_lean(config.lean), config.lean.workers) as pool:
        problems = {p.id: p for p in read_problems(section, workers=pool.workers, progress=progress)}

        def solved(tries: Iterator[tuple[Problem, str]], meter: Meter) -> set[str]:
            numbered = enumerate(tries)
            asked = (
                CheckRequest(
                    f"{number} {p.id}", p.header, p.formal_statement, proof, p.forbidden_constants, config.lean.limits()
                )
                for number, (p, proof) in numbered
            )
            found: set[str] = set()
            for result in pool.check(asked, certify=False):
                meter.add(1, checks=1)
                if isinstance(result, Verdict) and result.proved:
                    found.add(result.attempt_id.partition(" ")[2])
            return found

        left = list(problems.values())
        for template in PORTFOLIO:
            with progress.stage(f"list: {template}", len(left), "problems") as meter:
                proofs = ((p, render(template, p)) for p in left)
                done = solved(((p, expand_pointers(proof, p)) for p, proof in proofs if proof is not None), meter)
            left = [p for p in left if p.id not in done]
        total = sum(1 for p in left for _ in candidates(p))
        with progress.stage("lemmas", total, "candidates") as meter:
            found = solved(((p, proof) for p in left for proof in candidates(p)), meter)
    print(
        json.dumps(
            {"problems": len(problems), "beyond_list": len(left), "candidates": total, "solved": len(found)}
            | {"solved_percent": round(100 * len(found) / max(1, len(left)), 1)}
        )
    )


if __name__ == "__main__":
    main()
