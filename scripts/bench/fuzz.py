"""Random changes to proofs, statements and exports: what one worker calls proved, a second one must certify; what is
false, none may.

    python scripts/bench/fuzz.py [--seconds 600] [--seed 0] [--quick]

Takes the proofs of tests/attacks that must be certified, proofs of core theorems by a few tactics, and as material the
attacks that must be refused. Prints JSON as its last line and exits 1 where something was found: a proof that the
second worker does not certify (a disagreement), a false statement proved, or a changed export certified for a false
statement. ``--quick`` makes a fixed number of mutants, the same ones for the same seed.
"""

import argparse
import json
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutations import mutate, mutate_export

from lean_env.certify import EXPORT_REPLY_BYTES, CertifyRequest, message
from lean_env.errors import StatementError, WorkerError
from lean_env.protocol import Limits
from lean_env.source import candidate_text, target_name
from lean_env.toolchain import find
from lean_env.worker import REPLY_BYTES, Worker, WorkerLost

ATTACKS = Path(__file__).resolve().parents[2] / "tests" / "attacks"
LIMITS = Limits(heartbeats=40_000, cpu_seconds=20.0)
CERTIFY_LIMITS = Limits(cpu_seconds=60.0)
FRESH = 500
"""A certifying worker is replaced after so many certifications."""
HEADER = "set_option autoImplicit false"
FINDINGS = ("disagreements", "audited_false", "certified_false", "out_of_protocol")
"""What must not happen: refused by the second worker; a false statement proved in the first, and in the second; an
answer that is none."""
QUICK = {"texts": 60, "exports": 150}


class Seed(msgspec.Struct, frozen=True):
    """A true statement with a proof, and where there is one, a false statement of the same shape."""

    statement: str
    proof: str
    header: str = HEADER
    forbidden: tuple[str, ...] = ()
    false: str = ""


NEAR = [
    Seed("theorem target : (1 : Nat) = 1", "rfl", false="theorem target : (1 : Nat) = 2"),
    Seed("theorem target : (1 : Nat) = 2 → (1 : Nat) = 2", "fun h => h", false="theorem target : (1 : Nat) = 2"),
    Seed("theorem target : True", "trivial", false="theorem target : False"),
    Seed("theorem target : False → False", "id", false="theorem target : False"),
    Seed("theorem target : ∀ n : Nat, n < n + 5", "by intro n; omega", false="theorem target : ∀ n : Nat, n < 5"),
    Seed("theorem target : ∀ n : Nat, n < 5 → n < 5", "fun _ h => h", false="theorem target : ∀ n : Nat, n < 5"),
    Seed("theorem target : ∀ p : Prop, p → p", "fun _ h => h", false="theorem target : ∀ p : Prop, p"),
    Seed("theorem target : ∃ n : Nat, n = n", "⟨0, rfl⟩", false="theorem target : ∃ n : Nat, n ≠ n"),
    Seed("theorem target : ∀ b : Bool, b = true ∨ b = false", "by decide",
         false="theorem target : ∀ b : Bool, b = true ∧ b = false"),
    Seed("theorem target.{u} (α : Sort u) (a : α) : a = a", "rfl",
         false="theorem target.{u} (α : Sort u) (a b : α) : a = b"),
    Seed("theorem target : ∀ n : Nat, 0 ≤ n",
         "theorem h (n : Nat) : 0 ≤ n := Nat.zero_le n\ntheorem target : ∀ n : Nat, 0 ≤ n := h",
         false="theorem target : ∀ n : Nat, 1 ≤ n"),
    Seed("theorem target : ∃ n : Nat, n > 5",
         "inductive T | a | b (t : T)\ndef T.n : T → Nat | .a => 6 | .b t => t.n + 1\n"
         "theorem T.big (t : T) : t.n > 5 := by\n  induction t with\n  | a => decide\n"
         "  | b t h => simp only [T.n]; omega\n"
         "theorem target : ∃ n : Nat, n > 5 := ⟨_, T.big .a⟩", false="theorem target : ∃ n : Nat, n < 0"),
    Seed("theorem target (p : Prop) : p ∨ ¬ p",
         "structure H (p : Prop) : Prop where\n  out : p ∨ ¬ p\ntheorem H.all (p : Prop) : H p := ⟨Classical.em p⟩\n"
         "theorem target (p : Prop) : p ∨ ¬ p := (H.all p).out", false="theorem target (p : Prop) : p ∧ ¬ p"),
]  # fmt: skip
CORE = (
    "(n m : Nat) : n + m = m + n", "(n : Nat) : n * 0 = 0", "(a b c : Nat) : a * (b + c) = a * b + a * c",
    "(a b : Nat) (h : a ≤ b) : a - b = 0", "(a b : Nat) : max a b = max b a", "(n : Nat) : n < n + 1",
    "(p q : Prop) : p ∧ q ↔ q ∧ p", "(p : Prop) : ¬ ¬ ¬ p ↔ ¬ p", "(a b : Bool) : (a && b) = (b && a)",
    "(α : Type) (xs ys : List α) : (xs ++ ys).length = xs.length + ys.length",
    "(α : Type) (xs : List α) : xs.reverse.reverse = xs", "(α : Type) (a : α) : some a ≠ none",
    "(x y : Int) : x - y = -(y - x)", "(a b : Nat) (h : a ∣ b) : a ∣ b * 2",
    "(a b : Nat) : a % 2 = b % 2 ∨ a % 2 ≠ b % 2",
)  # fmt: skip
TACTICS = ("by omega", "by simp", "by grind", "by simp_all", "by rfl", "by intros; decide")


def cases() -> list[dict[str, Any]]:
    return [case for path in sorted(ATTACKS.rglob("*.toml")) for case in tomllib.loads(path.read_text("utf-8"))["case"]]


def seeds() -> list[Seed]:
    """All that must be certified, and core theorems with tactics of which some prove them."""
    good = [c for c in cases() if c.get("status", "proved") == "proved" and len(c["proof"]) < 3_000]
    found = [Seed(c["statement"], c["proof"], c.get("header", HEADER), tuple(c.get("forbidden", ()))) for c in good]
    return [*found, *NEAR, *(Seed(f"theorem target {text}", tactic) for text in CORE for tactic in TACTICS)]


class Fresh:
    """A worker that is replaced when it is lost, or after so many questions."""

    def __init__(self, most: int) -> None:
        self._most, self._asked = most, 0
        self._worker: Worker | None = None
        self.lost: Counter[str] = Counter()
        self.started = 0

    def ask(self, request: dict[str, Any], limits: Limits, reply_bytes: int = REPLY_BYTES) -> dict[str, Any] | None:
        """The reply, or None where the worker was lost over it."""
        if self._worker is None or self._asked >= self._most:
            self.close()
            self._worker, self._asked = Worker(find().launch()), 0
            self._worker.wait_ready()
            self.started += 1
        self._asked += 1
        try:
            return self._worker.ask(request, limits, reply_bytes)
        except WorkerLost as lost:
            self.lost[lost.kind] += 1
            self.close()
            return None

    def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.close()
            self._worker = None


class Fuzz:
    """Counts, and what was found."""

    def __init__(self, seed: int, near: list[Seed] = NEAR) -> None:
        self.rng = Random(seed)
        self.near = near
        self.seeds = seeds()
        self.texts = [c["proof"] for c in cases() if len(c["proof"]) < 3_000]
        self.first, self.second = Fresh(100_000), Fresh(FRESH)
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.found: list[dict[str, str]] = []
        self.exports: list[tuple[Seed, str]] = []

    def report(self, what: str, **texts: str) -> None:
        self.counts[what] += 1
        if len(self.found) < 20:
            self.found.append({"what": what, **texts})
        print(f"{what}: {json.dumps(texts, ensure_ascii=False)}", file=sys.stderr, flush=True)

    def elaborate(self, seed: Seed, proof: str) -> dict[str, Any] | None:
        request = {
            "op": "check", "header": seed.header, "statement": seed.statement, "target": target_name(seed.statement),
            "candidate": candidate_text(seed.statement, proof, seed.header), "forbidden": list(seed.forbidden),
            "heartbeats": LIMITS.heartbeats, "syntax": True, "export": True,
        }  # fmt: skip
        return self.first.ask(request, LIMITS, EXPORT_REPLY_BYTES)

    def certify(self, seed: Seed, statement: str, export: str) -> tuple[bool, str]:
        """Whether the second worker takes the export for a proof of the statement, and its reason if not."""
        request = CertifyRequest("", seed.header, statement, target_name(statement), seed.forbidden, export)
        reply = self.second.ask(message(request), CERTIFY_LIMITS)
        if reply is None:
            return False, "worker lost"
        return reply.get("status") == "proved", str(reply.get("reason", reply))

    def text(self) -> None:
        """One mutant of a proof, perhaps for a false or a changed statement."""
        seed = self.rng.choice(self.seeds)
        kind, proof = self.rng.random(), mutate(self.rng, seed.proof, self.texts)
        false = ""
        if kind < 0.25:
            near = self.rng.choice(self.near)
            false = near.false
            proof = mutate(self.rng, self.rng.choice((proof, self.rng.choice(self.texts))), self.texts)
            if self.rng.random() < 0.7:  # stated as the problem states it, so that only the proof can be wrong
                proof = proof.replace(seed.statement, false).replace(self.near[0].false, false)
            seed = Seed(false, proof, seed.header if self.rng.random() < 0.5 else HEADER)
        elif kind < 0.4:
            seed = msgspec.structs.replace(seed, statement=mutate(self.rng, seed.statement, self.texts))
            proof = self.rng.choice((seed.proof, proof))
        try:
            reply = self.elaborate(seed, proof)
        except StatementError:
            self.statuses["no statement"] += 1
            return
        except WorkerError as error:
            self.report("out_of_protocol", statement=seed.statement, proof=proof, error=str(error))
            return
        self.counts["proofs"] += 1
        self.counts["proofs_of_false_statements"] += bool(false)
        status = "worker lost" if reply is None else str(reply.get("status", "statement failed"))
        self.statuses[status] += 1
        if reply is None or status != "proved":
            return
        if false:
            self.report("audited_false", statement=false, proof=proof, header=seed.header)
        certified, reason = self.certify(seed, seed.statement, reply["export"])
        self.counts["certified"] += certified
        if certified and false:
            self.report("certified_false", statement=false, proof=proof, header=seed.header)
        if not certified:
            self.report("disagreements", statement=seed.statement, proof=proof, header=seed.header, reason=reason)
        elif len(reply["export"]) < 100_000:
            self.keep(seed, reply["export"])

    def keep(self, seed: Seed, export: str) -> None:
        if len(self.exports) < 400:
            self.exports.append((seed, export))
        else:
            self.exports[self.rng.randrange(400)] = seed, export

    def start(self) -> None:
        """The exports of the near misses as they are."""
        for seed in self.near:
            reply = self.elaborate(seed, seed.proof)
            if reply is None or reply["status"] != "proved":
                raise SystemExit(f"fuzz: {seed.statement} was not proved: {reply}")
            self.keep(seed, reply["export"])

    def export(self) -> None:
        """One mutant of an export, put to its own statement or to a false one."""
        near = self.rng.random() < 0.5
        seed, export = self.exports[self.rng.randrange(len(self.near))] if near else self.rng.choice(self.exports)
        others = [self.rng.choice(self.exports)[1] for _ in range(3)]
        mutant = mutate_export(self.rng, export, others)
        false = seed.false or self.rng.choice(self.near).false
        statement = false if self.rng.random() < 0.6 else seed.statement
        try:
            certified, reason = self.certify(seed, statement, mutant)
        except WorkerError as error:
            self.report("out_of_protocol", statement=statement, export=mutant, error=str(error))
            return
        self.counts["exports"] += 1
        self.counts["exports_for_false_statements"] += statement == false
        self.counts["exports_unchanged"] += mutant == export
        if not certified:
            self.refusals[" ".join(reason.split(" ")[:4])] += 1
            return
        self.counts["exports_certified"] += 1
        if statement == false:
            self.report("certified_false", statement=statement, header=seed.header, export=mutant)
        elif mutant != export:
            again, _ = self.certify(seed, false, mutant)
            if again:
                self.report("certified_false", statement=false, header=seed.header, export=mutant)

    def run(self, seconds: float, texts: int, exports: int) -> None:
        """Text mutants for two thirds of the time and export mutants for the rest, or as many as said."""
        self.start()
        began, spent = time.monotonic(), {"text": 0.0, "export": 0.0}
        while texts + exports if not seconds else time.monotonic() - began < seconds:
            text = texts > 0 if not seconds else spent["text"] <= 2 * spent["export"]
            at = time.monotonic()
            if text:
                texts -= 1
                self.text()
            else:
                exports -= 1
                self.export()
            spent["text" if text else "export"] += time.monotonic() - at

    def close(self) -> None:
        self.first.close()
        self.second.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same mutants")
    parser.add_argument("--quick", action="store_true", help="60 proofs and 150 exports, whatever the time")
    options = parser.parse_args()
    fuzz = Fuzz(options.seed)
    began = time.monotonic()
    try:
        fuzz.run(0.0 if options.quick else options.seconds, **QUICK)
    finally:
        fuzz.close()
        print(json.dumps({
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        **dict.fromkeys(FINDINGS, 0),
        **fuzz.counts,
        "statuses": dict(fuzz.statuses.most_common()),
        "refusals": dict(fuzz.refusals.most_common(40)),
        "lost": {"first": dict(fuzz.first.lost), "second": dict(fuzz.second.lost)},
        "second_workers": fuzz.second.started,
        "found": fuzz.found,
    }, ensure_ascii=False))  # fmt: skip
    return int(bool(fuzz.found))


if __name__ == "__main__":
    sys.exit(main())
