"""What a verdict claims, put to the test: attacks end in the status they must, honest proofs of many shapes pass."""

from collections.abc import Iterator
from typing import Any

import pytest

from lean_env.certify import CertifyRequest, message
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Verdict
from lean_env.source import candidate_text, target_name
from lean_env.toolchain import find
from lean_env.worker import Worker
from scripts.attack_docs import NUMBERS, OWN, SUITES, TARGET, Case, load, page

LIMITS = Limits(cpu_seconds=60.0)


TABLES = {name: load(name).case for name in (*OWN, *SUITES)}
REFUSED = [case for cases in TABLES.values() for case in cases if case.status != "proved"]
ACCEPTED = [case for cases in TABLES.values() for case in cases if case.status == "proved"]


def test_the_tables_are_as_large_as_they_are_said_to_be_and_each_case_names_its_step() -> None:
    assert len(REFUSED) >= 120 and len(ACCEPTED) >= 60 and sum(case.unguarded for case in REFUSED) >= 40
    assert all(case.step.partition(":")[0] in NUMBERS for case in REFUSED)
    assert all(case.of and case.attacks for name in SUITES for case in TABLES[name])
    assert all(len({case.name for case in cases}) == len(cases) for cases in TABLES.values())


def test_the_page_about_them_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run: python scripts/attack_docs.py"


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(find(), workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def certifier() -> Iterator[Worker]:
    with Worker(find().launch()) as worker:
        worker.wait_ready()
        yield worker


def judged(pool: LeanPool, case: Case) -> Verdict:
    request = CheckRequest(case.name, case.header, case.statement, case.proof, case.forbidden, LIMITS)
    (answer,) = pool.check([request])
    assert isinstance(answer, Verdict), answer
    return answer


def unguarded(pool: LeanPool, case: Case, *, export: bool) -> dict[str, Any]:
    """The reply of a worker whose syntax filter is off."""
    request = {
        "op": "check", "header": case.header, "statement": case.statement, "target": target_name(case.statement),
        "candidate": candidate_text(case.statement, case.proof, case.header), "forbidden": list(case.forbidden),
        "heartbeats": LIMITS.heartbeats, "syntax": False, "export": export,
    }  # fmt: skip
    return pool.ask(request, LIMITS)


@pytest.mark.parametrize("case", [c for c in REFUSED if not c.unguarded], ids=lambda case: case.name)
def test_an_attack_ends_in_the_status_it_must(pool: LeanPool, case: Case) -> None:
    verdict = judged(pool, case)
    assert (verdict.status, verdict.reason.startswith(case.step), verdict.level) == (case.status, True, ""), (
        verdict.reason
    )


@pytest.mark.parametrize("case", [c for c in REFUSED if c.unguarded], ids=lambda case: case.name)
def test_an_attack_past_the_syntax_filter_ends_in_the_status_it_must(
    pool: LeanPool, certifier: Worker, case: Case
) -> None:
    """By audit and kernel in the worker that elaborates, and no less where the kernel is left to the one that certifies."""
    reply = unguarded(pool, case, export=False)
    assert (reply["status"], reply["reason"].startswith(case.step)) == (case.status, True), reply["reason"]
    reply = unguarded(pool, case, export=True)
    if reply["status"] != case.status:
        assert (reply["status"], case.step) == ("proved", "kernel: ")
        header, statement = case.header, case.statement
        export = CertifyRequest(case.name, header, statement, target_name(statement), case.forbidden, reply["export"])
        answer = certifier.ask(message(export), LIMITS)
        refusals = ("export: the kernel rejects", "export: hidden is declared already, or not the candidate's")
        assert answer["status"] == "failed" and answer["reason"].startswith(refusals), answer


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_an_honest_proof_is_certified(pool: LeanPool, case: Case) -> None:
    verdict = judged(pool, case)
    assert (verdict.status, verdict.reason, verdict.level) == ("proved", "", "certified")
