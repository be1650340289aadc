"""What a candidate that gets to run code can reach, and what it leaves behind for the next one. The syntax filter is off here."""

from collections.abc import Iterator
from typing import Any

import pytest

from lean_env.pool import LeanPool
from lean_env.protocol import Limits
from lean_env.toolchain import find

LIMITS = Limits(cpu_seconds=60.0)
HEADER = "import Lean\nset_option autoImplicit false"
REFUSALS = ("no such file", "No such file", "read-only", "Read-only", "not implemented", "denied", "not permitted")
TRUE = "theorem target (n : Nat) : n + 0 = n"
FALSE = "theorem target : (1 : Nat) = 2"


@pytest.fixture(scope="module")
def pool() -> Iterator[LeanPool]:
    with LeanPool(find(), workers=1) as pool:
        yield pool


def run(pool: LeanPool, candidate: str, statement: str = TRUE, header: str = HEADER, **more: Any) -> dict[str, Any]:
    request = {"op": "check", "header": header, "statement": statement, "target": "target", "candidate": candidate}
    return pool.ask({**request, "heartbeats": LIMITS.heartbeats, "syntax": False, **more}, LIMITS)


def texts(reply: dict[str, Any]) -> str:
    return "\n".join(message["text"] for message in reply["messages"])


def act(pool: LeanPool, action: str) -> list[tuple[str, str]]:
    """What a file that performs an action of type ``IO String`` is answered: severities and texts."""
    reply = pool.ask(
        {"op": "file", "text": f"def act : IO String := {action}\n#eval act\n", "heartbeats": 200_000}, LIMITS
    )
    return [(message["severity"], message["text"]) for message in reply["messages"]]


@pytest.mark.parametrize(
    "action",
    [
        'IO.FS.readFile "/etc/passwd"',
        'IO.FS.readFile "/proc/self/environ"',
        'do IO.FS.writeFile "/lean/lib/Init.olean" "x"; return "written"',
        'do IO.FS.writeFile "/lean/worker/Check.olean" "x"; return "written"',
        'do IO.FS.removeFile "/lean/worker/Check.olean"; return "removed"',
        'do IO.FS.rename "/lean/worker/Check.olean" "/lean/worker/x"; return "renamed"',
        'do IO.FS.createDir "/lean/lib/x"; return "made"',
        'IO.FS.readFile "/dev/request"',
        'IO.FS.readFile "/dev/verdict"',
        'IO.FS.readFile "/proc/self/fd/3"',
        'IO.FS.readFile "/proc/self/fd/4"',
        'do return (← IO.Process.output { cmd := "/bin/sh", args := #["-c", "id"] }).stdout',
    ],
)  # fmt: skip
def test_the_host_is_out_of_reach(pool: LeanPool, action: str) -> None:
    ((severity, text),) = act(pool, action)
    assert severity == "error"
    assert any(word in text for word in REFUSALS), text


def test_the_library_is_in_reach_and_the_environment_is_empty(pool: LeanPool) -> None:
    assert act(pool, 'return toString (← System.FilePath.pathExists "/lean/lib/Init.olean")') == [
        ("information", '"true"')
    ]
    for directory in ("/home/web_user", "/tmp", "/etc", "/usr", "/root"):
        said = act(pool, f'return toString (← System.FilePath.readDir "{directory}").size')[0][1]
        assert said == '"0"' or said.startswith("no such file"), directory
    for name in ("PATH", "HOME", "USER", "LD_LIBRARY_PATH"):
        assert "/usr" not in act(pool, f'return (← IO.getEnv "{name}").getD "unset"')[0][1]


def test_printing_cannot_forge_a_reply(pool: LeanPool) -> None:
    forged = '{\\"nonce\\":\\"0\\",\\"status\\":\\"proved\\"}\\n'
    said = act(pool, f'do IO.println "{forged}"; (← IO.getStderr).putStrLn "{forged}"; return "printed"')
    assert said[-1] == ("information", '"printed"')
    assert "status" in said[0][1]  # it is in a message, and the pool took the reply that carried its nonce
    for path in (
        "/dev/verdict",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/tty",
        "/dev/fd/1",
        "/proc/self/fd/1",
        "/proc/self/fd/3",
    ):
        # Some of these are files in the worker's own memory: what is written there goes nowhere.
        assert len(act(pool, f'do IO.FS.writeFile "{path}" "{forged}"; return "done"')) == 1


def test_nothing_of_a_candidate_is_there_for_the_next(pool: LeanPool) -> None:
    left = (
        "set_option maxRecDepth 7777\nset_option pp.all true\nopen Lean\nuniverse w\nvariable (k : Nat)\nnamespace Left\n"
        "theorem helper : (1 : Nat) = 1 := rfl\nattribute [simp] Nat.add_comm\nend Left\n"
        'macro_rules | `(term| false) => `(term| true)\nlocal notation "ZZZ" => 3\n' + TRUE + " := rfl"
    )
    probes = {
        f"{TRUE} := Left.helper ▸ rfl": "failed",
        "theorem target (a b : Nat) : a + b = b + a := by simp": "failed",
        f"def k' := k\n{TRUE} := rfl": "failed",
        f"def x := ZZZ\n{TRUE} := rfl": "failed",
        f"theorem other : false = true := rfl\n{TRUE} := rfl": "failed",
        f"open Nat in\n{TRUE} := rfl": "proved",
    }
    statement = "theorem target (a b : Nat) : a + b = b + a"

    def outcomes() -> list[tuple[str, str]]:
        replies = [run(pool, text, statement if "a b" in text else TRUE) for text in probes]
        return [(reply["status"], texts(reply)) for reply in replies]

    before = outcomes()
    assert [status for status, _ in before] == list(probes.values())
    assert run(pool, left)["status"] == "proved"
    assert outcomes() == before


def test_options_cannot_raise_the_limit_on_heartbeats(pool: LeanPool) -> None:
    endless = "theorem target (n : Nat) : n = n + 1 := by\n  {}\n  repeat rw [← Nat.add_zero n]\n  rfl"
    limit = 20_000
    for option in (
        "skip",
        "set_option maxHeartbeats 0 in repeat rw [← Nat.add_zero n]",
        "set_option maxHeartbeats 4000000 in repeat rw [← Nat.add_zero n]",
    ):
        for before in ("", "set_option maxHeartbeats 0\n", "set_option maxHeartbeats 4000000 in\n"):
            reply = run(
                pool,
                before + endless.format(option),
                "theorem target (n : Nat) : n = n + 1",
                "",
                syntax=True,
                heartbeats=limit,
            )
            assert reply["status"] == "failed"
            assert reply["heartbeats"] < 3 * limit, (before, option)


def test_messages_are_capped_and_keep_the_errors(pool: LeanPool) -> None:
    many = "".join(f"example : {i} = {i} := by\n  have unused : True := trivial\n  rfl\n#eval 1\n" for i in range(80))
    reply = run(pool, f"{many}{FALSE} := by\n  decide", FALSE, "")
    assert reply["status"] == "failed"
    assert len(reply["messages"]) <= 51
    assert reply["messages"][0]["severity"] == "error"
    assert "more messages" in reply["messages"][-1]["text"]
    long = "a" * 20_000
    reply = run(pool, f'theorem target : "{long}" = "b" := by decide', 'theorem target : "a" = "b"', "")
    assert reply["status"] == "failed"
    assert max(len(message["text"].encode()) for message in reply["messages"]) < 5_000


def test_a_statement_that_does_not_elaborate_is_no_verdict(pool: LeanPool) -> None:
    cases = [
        ("import Mathlib", TRUE, "header", "unknown module prefix 'Mathlib'"),
        ("open Nowhere", TRUE, "header", "unknown namespace"),
        ("end", TRUE, "header", ""),
        (
            "set_option autoImplicit false",
            "theorem target (n : Real) : n = n",
            "statement",
            "Unknown identifier `Real`",
        ),
        ("", "def target : Nat", "statement", "target is not a theorem"),
        ("", "theorem other : True", "statement", "it does not declare target"),
        ("theorem target : True := trivial", "theorem target : True", "statement", ""),
    ]
    for header, statement, where, reason in cases:
        reply = run(pool, f"{statement} := by trivial", statement, header)
        assert (reply.get("statement_failure"), reply.get("reason", "").startswith(reason)) == (where, True), reply


def test_goals_are_told_apart(pool: LeanPool) -> None:
    reply = run(
        pool,
        "theorem target (p q : Prop) (h : p) : p ∧ q := by\n  constructor",
        "theorem target (p q : Prop) (h : p) : p ∧ q",
    )
    assert reply["goals"] == ["case left\np q : Prop\nh : p\n⊢ p", "case right\np q : Prop\nh : p\n⊢ q"]


def test_files_are_elaborated_with_their_own_imports(pool: LeanPool) -> None:
    text = "import Std\n\ndef two : Nat := 2\nexample : two = 3 := rfl\n#eval two\n"
    reply = pool.ask({"op": "file", "text": text, "heartbeats": 200_000}, LIMITS)
    assert [(m["severity"], m["start"]) for m in reply["messages"]] == [("error", [4, 21]), ("information", [5, 0])]
    reply = pool.ask({"op": "file", "text": "import Nowhere\n", "heartbeats": 200_000}, LIMITS)
    assert reply["messages"][-1]["severity"] == "error"
