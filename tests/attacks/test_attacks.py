"""What a verdict claims, put to the test: attacks end in the status they must, honest proofs of many shapes pass."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, StatementFailure, Status, Verdict
from lean_env.source import candidate_text, target_name
from lean_env.toolchain import find

LIMITS = Limits(cpu_seconds=60.0)


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    proof: str
    status: Status = "proved"
    statement: str = "theorem target : (1 : Nat) = 2"
    header: str = "set_option autoImplicit false"
    forbidden: tuple[str, ...] = ()
    unguarded: bool = False
    step: str = ""


class Cases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: list[Case]


def cases(name: str) -> list[Case]:
    return msgspec.toml.decode((Path(__file__).parent / name).read_bytes(), type=Cases).case


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(find(), workers=1) as pool:
        yield pool


def judged(pool: LeanPool, case: Case) -> tuple[str, str]:
    """Status and reason."""
    if case.unguarded:
        reply = pool.ask(
            {
                "op": "check", "header": case.header, "statement": case.statement, "target": target_name(case.statement),
                "candidate": candidate_text(case.statement, case.proof, case.header), "forbidden": list(case.forbidden),
                "heartbeats": LIMITS.heartbeats, "syntax": False,
            },
            LIMITS,
        )  # fmt: skip
        return reply["status"], reply["reason"]
    request = CheckRequest(case.name, case.header, case.statement, case.proof, case.forbidden, LIMITS)
    (answer,) = pool.check([request])
    assert not isinstance(answer, StatementFailure), answer.reason
    assert isinstance(answer, Verdict)
    return answer.status, answer.reason


@pytest.mark.parametrize("case", cases("refused.toml"), ids=lambda case: case.name)
def test_an_attack_ends_in_the_status_it_must(pool: LeanPool, case: Case) -> None:
    status, reason = judged(pool, case)
    assert (status, reason.startswith(case.step)) == (case.status, True), reason


@pytest.mark.parametrize("case", cases("accepted.toml"), ids=lambda case: case.name)
def test_an_honest_proof_passes(pool: LeanPool, case: Case) -> None:
    assert judged(pool, case) == ("proved", "")
