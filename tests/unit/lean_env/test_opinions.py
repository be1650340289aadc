"""What the pool does with another kernel's opinion, and what becomes of a Lean process that writes closures wrongly."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from lean_env import external
from lean_env.cache import VerdictCache
from lean_env.certify import CertifyRequest
from lean_env.errors import CheckerError
from lean_env.external import External
from lean_env.pool import LeanPool
from lean_env.program import Running, run
from lean_env.protocol import Limits, Verdict
from lean_env.worker import Launch
from tests.unit.lean_env.test_pool import Scripted, request

PYTHON = [sys.executable, "-I", "-S", "-c"]


def test_only_what_is_certified_is_put_to_it() -> None:
    asked: list[str] = []

    def opinion(told: CertifyRequest, limits: Limits, verdict: Verdict) -> Verdict:
        asked.append(told.id)
        assert told.export and verdict.level == "certified" and limits.cpu_seconds >= 60
        if told.id == "r1":
            return Verdict(told.id, "failed", "certification: kernel: no")
        return msgspec.structs.replace(verdict, checkers=("kernel 1",))

    words = ("ok", "ok", "wrong", "lie", "certify die")
    with LeanPool(Scripted(), 1) as pool:
        results = {r.attempt_id: r for r in pool.check([request(n, w) for n, w in enumerate(words)], opinion=opinion)}
        plain = list(pool.check([request(9, "ok")]))
    assert sorted(asked) == ["r0", "r1"]
    assert {ident: getattr(r, "status", "") for ident, r in results.items()} == {
        "r0": "proved", "r1": "failed", "r2": "failed", "r3": "failed", "r4": "memory",
    }  # fmt: skip
    assert [getattr(results[r], "checkers", None) for r in ("r0", "r1")] == [("kernel 1",), ()]
    assert pool.stats.disagreements == 2, "the one refused, and the lie"
    assert isinstance(plain[0], Verdict) and plain[0].checkers == ()


def test_a_cached_proof_is_put_to_it_all_the_same(tmp_path: Path) -> None:
    asked: list[str] = []

    def opinion(told: CertifyRequest, limits: Limits, verdict: Verdict) -> Verdict:
        asked.append(told.id)
        return msgspec.structs.replace(verdict, checkers=("kernel 1",))

    with VerdictCache(tmp_path / "c") as cache, LeanPool(Scripted(), 1, cache=cache) as pool:
        list(pool.check([request(0, "ok"), request(1, "wrong")]))
        told = list(pool.check([request(2, "ok"), request(3, "wrong")], opinion=opinion))
        assert asked == ["r2"] and pool.stats.cached == 1
        assert {r.attempt_id: getattr(r, "checkers", None) for r in told} == {"r2": ("kernel 1",), "r3": ()}
        (again,) = pool.check([request(4, "ok")])
        assert isinstance(again, Verdict) and (again.level, again.checkers) == ("certified", ())
        assert pool.stats.cached == 2


def test_one_that_fails_ends_the_job_and_takes_no_verdict() -> None:
    def opinion(told: CertifyRequest, limits: Limits, verdict: Verdict) -> Verdict:
        raise CheckerError("the checker is gone")

    given: list[object] = []
    with LeanPool(Scripted(), 1) as pool, pytest.raises(CheckerError, match="the checker is gone"):
        given.extend(pool.check([request(n, "ok") for n in range(8)], opinion=opinion))
    assert given == []


class Writing:
    """A Lean that answers questions about closures with the given replies, and then ends."""

    version = "scripted 1"

    def __init__(self, log: Path, *replies: dict[str, object]) -> None:
        self.log = log
        self.script = (
            "import json, sys\n"
            "print(json.dumps({'ready': True}), flush=True)\n"
            f"open({str(log)!r}, 'a').write('started\\n')\n"
            f"for reply in json.loads({json.dumps(replies)!r}):\n"
            "    nonce = json.loads(sys.stdin.readline())['nonce']\n"
            "    print(json.dumps({**reply, 'nonce': nonce}), flush=True)\n"
        )

    def launch(self) -> Launch:
        return Launch((*PYTHON, self.script), {})


@pytest.fixture
def checker(tmp_path: Path) -> external.Checker:
    """Accepts whatever has no ``bad`` in it and no theorem whose value is its type's own variable."""
    path = tmp_path / "nanoda_bin"
    tests = Path(__file__).parents[2]
    path.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(tests)!r})\n"
        "import stand_in_nanoda\nstand_in_nanoda.main()\n"
    )
    path.chmod(0o755)
    path.with_name("MOOD").write_text("honest")
    return external.find(f"nanoda={path}")


PAGES = (
    {"status": "proved", "page": external.nanoda.KNOWN[0][1].replace("known", "other"), "done": False},
    {"page": "", "done": True, "declarations": 1},
)
TOLD = CertifyRequest("t", "", "theorem t : True", "t", (), "an export")
CERTIFIED = Verdict("t", "proved", level="certified")


@pytest.mark.parametrize(
    ("replies", "why", "starts"),
    [
        ((), "Lean cannot write its closure: ended without an answer", 2),
        (PAGES[:1], "Lean cannot write its closure: ended without an answer", 2),
        (({"error": "broken"},), "Lean cannot write its closure: Lean's side failed: broken", 2),
        (({"page": 7},), "Lean cannot write its closure: a reply out of protocol", 2),
        (({"page": "ü"},), "Lean cannot write its closure: a page that is not ASCII", 2),
        (({"unclosed": "the library's axiom bad is below it"},), "the library's axiom bad is below it", 1),
    ],
)
def test_where_there_is_no_closure_there_is_no_opinion(
    checker: external.Checker, tmp_path: Path, replies: tuple[dict[str, object], ...], why: str, starts: int
) -> None:
    lean = Writing(tmp_path / "log", *replies)
    with External(checker, lean) as opened:
        assert opened.opinion(TOLD, Limits(), CERTIFIED) == CERTIFIED
    assert [text[: len(why)] for text in opened.without] == [why]
    assert len(lean.log.read_text().splitlines()) == starts


def test_pages_become_one_file_that_is_gone_afterwards(checker: external.Checker, tmp_path: Path) -> None:
    assumed = ({**PAGES[1], "assumed": ["lib.lemma"]},)
    with External(checker, Writing(tmp_path / "log", PAGES[0], *assumed)) as opened:
        folder = Path(opened._folder.name)  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
        assert opened.opinion(TOLD, Limits(), CERTIFIED).checkers == ("nanoda 0.0.1",)
        assert list(folder.iterdir()) == []
        assert (opened.agreed, opened.refused, opened.without) == (1, 0, [])
    assert not folder.exists()


def test_only_what_is_told_may_be_assumed(checker: external.Checker, tmp_path: Path) -> None:
    lines = external.nanoda.KNOWN[2][1].replace("known", "other")
    whole = {"status": "proved", "page": lines, "done": True, "declarations": 2}
    with External(checker, Writing(tmp_path / "log", whole, {**whole, "assumed": ["bad"]})) as opened:
        refused = opened.opinion(TOLD, Limits(), CERTIFIED)
        assert refused.reason == 'certification: nanoda: Error: export file declares unpermitted axiom "bad"'
        assert opened.opinion(TOLD, Limits(), CERTIFIED).proved


def test_programs_are_run_to_their_end_and_no_further() -> None:
    said = run([*PYTHON, "import sys; print('a'); sys.stderr.write('b'); sys.exit(3)"], Limits())
    assert (said.end, said.code, said.said) == ("exit", 3, "a\nb")
    silent = run([*PYTHON, "import os, sys; os.close(1); os.close(2); sum(range(10**6))"], Limits())
    assert (silent.end, silent.code) == ("exit", 0), "its output ends before it does"
    left = "import os, sys, time\nif os.fork() == 0:\n    time.sleep(1000)\nos._exit(0)"
    quick = run([*PYTHON, left], Limits())
    assert (quick.end, quick.code) == ("exit", 0) and quick.seconds < 60, "what it leaves behind is not waited for"
    held = run([*PYTHON, "while True: pass"], Limits(cpu_seconds=0.3))
    assert (held.end, held.code) == ("timeout", -9)
    waits = run([*PYTHON, "import time; time.sleep(1000)"], Limits(wall_seconds=0.5))
    assert (waits.end, waits.code) == ("timeout", -9)
    closed = Running()
    closed.end_all()
    late = run([*PYTHON, "import time; time.sleep(1000)"], Limits(), closed)
    assert (late.end, late.code) == ("exit", -9), "what is started while all is being ended ends too"
    told = run([*PYTHON, "import os; print(sorted(os.environ), os.getcwd(), os.read(0, 1))"], Limits()).said
    assert told.endswith("/ b''\n") and "HOME" not in told
