"""An external checker at the other end of a real process, asked about closures that real Lean has written. ``nanoda``
itself is not to be had everywhere: its stand-in has its command line, configuration, words and exit codes."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lean_env import external
from lean_env.canaries import CERTIFYING_CANARIES
from lean_env.certify import CertifyRequest
from lean_env.errors import CheckerError, WorkerError
from lean_env.external import Checker, External
from lean_env.pool import LeanPool
from lean_env.protocol import CheckRequest, Limits, Verdict
from lean_env.toolchain import find
from prover.artifacts import Artifact, ArtifactWriter, open_artifact, read_manifest
from prover.progress import Silent
from prover.records import Attempt, Problem
from prover.report.run import read_score
from prover.stages import certify, evaluate

TESTS = Path(__file__).parents[1]
SMALL = Limits(cpu_seconds=2.0, wall_seconds=6.0, memory_mb=300)
"""The stand-in is a Python program: some seconds on a loaded machine are its own start."""
STATEMENT = CERTIFYING_CANARIES[0].statement
TRUE = CertifyRequest("t", "", STATEMENT, "prover_canary", (), CERTIFYING_CANARIES[0].text)
ILL_TYPED = CertifyRequest("t", "", STATEMENT, "prover_canary", (), CERTIFYING_CANARIES[1].text)
CERTIFIED = Verdict("t", "proved", level="certified", toolchain="lean 1", checkers=("another 2",))
LABEL = "nanoda 0.0.1"


class StandIn:
    """``nanoda_bin`` in a folder of its own, and what it is to be like from now on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "nanoda_bin"
        self.mood("honest")
        self.restore()

    def mood(self, mood: str) -> None:
        self.path.with_name("MOOD").write_text(mood)

    def restore(self) -> None:
        text = f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        self.path.write_text(text + "import stand_in_nanoda\nstand_in_nanoda.main()\n")
        self.path.chmod(0o755)

    def checker(self) -> Checker:
        return external.find(f"nanoda={self.path}")


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn(tmp_path_factory.mktemp("checker"))


@pytest.fixture(scope="module")
def running(shared: StandIn) -> Iterator[External]:
    with External(shared.checker(), find(), limits=SMALL) as opened:
        yield opened


def test_a_checker_is_found_with_its_version(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stand_in.checker() == Checker("nanoda", "0.0.1", stand_in.path)
    monkeypatch.setenv("PATH", str(stand_in.path.parent))
    assert external.find("nanoda").label == LABEL
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CheckerError, match="no nanoda_bin on the PATH; build it"):
        external.find("nanoda")
    with pytest.raises(CheckerError, match="/nowhere/at all is no executable file"):
        external.find("nanoda=/nowhere/at all")
    with pytest.raises(CheckerError, match="'lean5lean' is not known; known: nanoda"):
        external.find("lean5lean")
    stand_in.mood("nameless")
    with pytest.raises(CheckerError, match="does not say which version it is"):
        stand_in.checker()


@pytest.mark.parametrize(
    ("mood", "wrong"),
    [
        ("gullible", "accepts an ill-typed proof"),
        ("stubborn", "refuses a true proof in export format 3.1.0 (.*panicked at src/tc.rs.*def_eq"),
    ],
)
def test_one_that_answers_known_questions_wrongly_is_not_used(stand_in: StandIn, mood: str, wrong: str) -> None:
    external.prove(stand_in.checker())
    checker = stand_in.checker()
    stand_in.mood(mood)
    with pytest.raises(CheckerError, match=wrong.replace("(", r"\(")):
        external.prove(checker)


def test_what_it_agrees_to_bears_its_name(shared: StandIn, running: External) -> None:
    shared.mood("honest")
    verdict = running.opinion(TRUE, Limits(), CERTIFIED)
    assert verdict.proved and verdict.level == "certified" and verdict.checkers == ("another 2", LABEL)


def test_what_it_refuses_is_a_disagreement(shared: StandIn, running: External) -> None:
    shared.mood("refuses")
    verdict = running.opinion(TRUE, Limits(), CERTIFIED)
    assert (verdict.status, verdict.level, verdict.checkers) == ("failed", "", ())
    assert verdict.reason == (
        "certification: nanoda: thread 'main' (7) panicked at src/tc.rs:12:34: "
        "assertion failed: self.def_eq(inferred, expected)"
    )


def test_what_lean_itself_refuses_never_reaches_it(shared: StandIn, running: External) -> None:
    shared.mood("honest")
    verdict = running.opinion(ILL_TYPED, Limits(), CERTIFIED)
    assert verdict.status == "failed" and verdict.reason.startswith("certification: failed: export: the kernel rejects")


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        ("crashes", "nanoda crashed (signal 6)"),
        ("declines", "nanoda declined (Declined: a level back-reference)"),
        ("hangs", "nanoda passed its limit on time"),
        ("spins", "nanoda passed its limit on time"),
        ("floods", "nanoda passed its limit on time"),
        ("swells", "nanoda passed its limit on memory"),
    ],
)
def test_where_it_has_no_opinion_the_verdict_stays(shared: StandIn, running: External, mood: str, why: str) -> None:
    shared.mood(mood)
    assert running.opinion(TRUE, Limits(), CERTIFIED) == CERTIFIED
    assert running.without[-1] == why
    assert processes_of(shared) == [], "nothing of it is left"
    shared.mood("honest")
    assert LABEL in running.opinion(TRUE, Limits(), CERTIFIED).checkers


def test_one_that_goes_missing_refuses_nothing(shared: StandIn, running: External) -> None:
    """That it cannot be started ends with the exit code of a refusal."""
    shared.mood("vanishes")
    with pytest.raises(CheckerError, match="refuses a true proof"):
        running.opinion(TRUE, Limits(), CERTIFIED)
    shared.restore()


def test_it_can_be_closed_while_it_works(stand_in: StandIn) -> None:
    stand_in.mood("hangs")
    ended: list[BaseException] = []
    with External(stand_in.checker(), find()) as opened:

        def ask() -> None:
            try:
                opened.opinion(TRUE, Limits(), CERTIFIED)
            except WorkerError as error:
                ended.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        deadline = time.monotonic() + 120
        while not any("sleep" in line for line in processes_of(stand_in, "sleep(1000)")):
            assert time.monotonic() < deadline, "the checker never came to its work"
            thread.join(0.05)
        opened.close()
        thread.join(30)
    assert [str(error) for error in ended] == ["the external checker was closed"]
    assert processes_of(stand_in) == []


def processes_of(stand_in: StandIn, more: str = "") -> list[str]:
    """Command lines of the checker's processes, and of others that hold ``more``, in this process's care."""
    listed = subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(stand_in.path) in line or (more and more in line)]


PROBLEMS = {"p": "theorem target (n : Nat) : n + 0 = n", "q": "theorem target : (2 : Nat) + 2 = 4"}


def artifacts(folder: Path) -> tuple[Artifact, Artifact, Artifact]:
    problems = ArtifactWriter(folder / "p", {"stage": "problems"}, 1)
    problems.write(0, [Problem(id=ident, header="", formal_statement=text) for ident, text in PROBLEMS.items()])
    opened = problems.finish({"problems": 2})
    attempts = ArtifactWriter(folder / "a", {"stage": "sample", "problems": opened.fingerprint}, 1)
    tried = [
        Attempt(
            id=f"{ident}.{proof}", problem_id=ident, round=0, turn=0, model="m", messages=(), completion=proof,
            finish_reason="stop", prompt_tokens=0, completion_tokens=0, seed=0, proof=proof,
        )
        for ident in PROBLEMS for proof in ("rfl", "by nonsense")
    ]  # fmt: skip
    attempts.write(0, tried)
    made = attempts.finish({})
    verdicts = ArtifactWriter(folder / "v", {"stage": "verify", "attempts": made.fingerprint}, 1)
    judged = [
        Verdict(a.id, "proved" if a.proof == "rfl" else "failed", level="audited" if a.proof == "rfl" else "")
        for a in tried
    ]
    verdicts.write(0, judged)
    return opened, made, verdicts.finish({})


def test_the_stage_puts_every_proof_to_it(stand_in: StandIn, tmp_path: Path) -> None:
    """Certified without it, then with it; then with one that refuses or crashes; then scored."""
    problems, attempts, audited = artifacts(tmp_path)
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    with LeanPool(find(), 1) as pool:

        def raised(name: str, verdicts: Artifact, checker: Checker | None) -> Artifact:
            return certify.run(
                tmp_path / name, problems=problems, judged=(attempts, verdicts), pool=pool, limits=Limits(), series="s",
                progress=Notes(), checker=checker,
            )  # fmt: skip

        plain = raised("plain", audited, None)
        assert [v.checkers for v in plain.read(Verdict)] == [(), (), (), ()]
        checks = pool.stats.checks
        agreed = raised("agreed", plain, stand_in.checker())
        assert pool.stats.checks - checks == 2, "proofs that are certified, but that it has not seen"
        again = raised("again", agreed, stand_in.checker())
        assert pool.stats.checks - checks == 2, "what it has agreed to is not asked again"
        assert read_manifest(agreed.path).recipe["checker"] == LABEL
        assert not notes
        stand_in.mood("crashes over four")
        mixed = raised("mixed", plain, stand_in.checker())
        with pytest.raises(CheckerError, match="accepts an ill-typed proof"):
            stand_in.mood("gullible")
            raised("never", plain, stand_in.checker())
        stand_in.mood("honest")
        request = CheckRequest("r", "", PROBLEMS["q"], "rfl")
        with pytest.raises(ValueError, match="certify"):
            list(pool.check([request], certify=False, opinion=lambda _request, _limits, verdict: verdict))

    expected = {"verdicts": 4, "proved": 2, "certified": 2, "disagreements": 0, "checked": 2}
    assert read_manifest(agreed.path).counts == read_manifest(again.path).counts == expected
    assert [v.checkers for v in agreed.read(Verdict)] == [(LABEL,), (), (LABEL,), ()]
    counts = {**expected, "proved": 1, "certified": 1, "disagreements": 1, "checked": 0}
    assert read_manifest(mixed.path).counts == counts
    assert [v.proved for v in mixed.read(Verdict)] == [False, False, True, False]
    assert "s: nanoda 0.0.1 has no opinion of 1 proofs (nanoda crashed (signal 6)); `prover certify" in notes[0]
    assert "refused in certification" in notes[1]

    def level(verdicts: Artifact) -> str:
        out = tmp_path / f"{verdicts.path.name} scores" / "scores"
        evaluate.run(out, problems=problems, judged=[(attempts, verdicts)], ks=[1])
        return read_score("m", out).level

    assert level(agreed) == "certified, nanoda 0.0.1"
    assert level(plain) == level(mixed) == "certified"
    assert level(audited) == "audited"


def test_an_evaluation_states_it(stand_in: StandIn, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_bytes(msgspec.json.encode(Problem(id="q", header="", formal_statement=PROBLEMS["q"])) + b"\n")
    out = tmp_path / "list"
    command = [sys.executable, "-m", "prover", "evaluate", problems, "--portfolio", "--out", out, "--workers", "1"]
    done = subprocess.run(
        [*map(str, command), "--checker", f"nanoda={stand_in.path}"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "certified, nanoda 0.0.1)" in " ".join(done.stdout.split())
    assert [v.checkers for v in open_artifact(out / "checked").read(Verdict) if v.proved] == [(LABEL,)]


@pytest.mark.nanoda
def test_nanoda_itself() -> None:
    """Proofs of several kinds, by the real checker: the stand-in above is no more than our reading of its sources."""
    statements = {
        "theorem target (n : Nat) : n + 0 = n": "by simp",
        "theorem target (a b c : Nat) (h : a < b) : a + c < b + c + 1": "by omega",
        'theorem target : "a𝔸\\n".length = 3': "by decide",
        "theorem target (p : Prop) : p ∨ ¬p": "Classical.em p",
        "theorem target (x y : Int) (h : 2 * x + 4 * y = 5) : False": "by grind",
    }
    requests = [CheckRequest(s, "", s, proof) for s, proof in statements.items()]
    checker = external.find("nanoda")
    with LeanPool(find(), 1) as pool, External(checker, pool.toolchain) as opened:
        answers = list(pool.check(requests, opinion=opened.opinion))
    assert all(isinstance(a, Verdict) and a.checkers == (checker.label,) for a in answers), (answers, opened.without)
