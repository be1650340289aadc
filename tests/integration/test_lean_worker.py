"""The worker's side of the wire: a line out for each line in, whatever it holds, and an end at the end of input."""

import json
import subprocess

from lean_env.toolchain import find


def test_every_line_is_answered_and_the_end_of_input_ends_it() -> None:
    statement = "theorem target (𝓝 : Nat) : 𝓝 = 𝓝"
    check = {"op": "check", "nonce": "5", "header": "", "statement": statement, "target": "target"}
    lines = [
        "garbage",
        "[1, 2]",
        json.dumps({"op": "nothing", "nonce": "3"}),
        json.dumps({"op": "elaborate", "nonce": "4", "header": "", "statement": statement, "target": "target"}),
        json.dumps({**check, "candidate": f"{statement} := rfl"}, ensure_ascii=True),
        json.dumps({**check, "nonce": "6", "candidate": f"{statement} := rfl"}, ensure_ascii=False),
        json.dumps({**check, "nonce": "7", "candidate": ""}),
    ]
    launch = find().launch()
    with subprocess.Popen(launch.argv, env=launch.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate("".join(f"{line}\n" for line in lines).encode(), timeout=240)
    replies = [json.loads(line) for line in out.splitlines()]
    assert replies[0]["ready"] is True
    assert replies[0]["version"].startswith("4.28.0")
    assert [reply["nonce"] for reply in replies[1:]] == ["", "", "3", "4", "5", "6", "7"]
    assert ["error" in reply for reply in replies[1:]] == [True, True, True, False, False, False, False]
    assert replies[4] == {"nonce": "4", "ok": True}
    assert [reply["status"] for reply in replies[5:]] == ["proved", "proved", "statement_changed"]
