"""`prover serve-lean` with real Lean, from start to SIGTERM; and the Python API as the README shows it."""

import os
import re
import signal
import subprocess
import sys
from typing import Any

import psutil

from tests.served import ROOT, served

CASES = {
    "true": ("theorem t (a b : Nat) (h : a < b) : a + 1 ≤ b", "by omega", "proved"),
    "false": ("theorem t (n : Nat) : n + 1 = n", "by simp", "failed"),
    "sorry": ("theorem t (n : Nat) : n + 1 = n", "by sorry", "sorry"),
    "axiom": ("theorem t : 1 = 2", "axiom bad : False\ntheorem t : 1 = 2 := bad.elim", "forbidden_syntax"),
}


def test_a_server_from_start_to_sigterm() -> None:
    with served("-m", "prover", "serve-lean", "--port", "0", "--workers", "1") as server:
        assert server.ask("GET", "/health")[1]["status"] == "starting"
        server.wait_ready()
        status, health = server.ask("GET", "/health")
        assert status == 200 and health["status"] == "ok" and health["toolchain"].startswith("embedded ")

        sent: list[dict[str, Any]] = [
            {"id": f"{name} {n}", "header": "", "formal_statement": statement, "proof": proof}
            for n in range(30)
            for name, (statement, proof, _) in CASES.items()
        ]
        sent.append({"id": "void", "header": "", "formal_statement": "theorem t : 1 = nothing 2", "proof": "rfl"})
        answers: list[dict[str, Any]] = []
        with server.stream(sent) as stream:
            os.kill(server.worker_pids()[0], signal.SIGKILL)
            answers.extend(stream)
        assert sorted(answer["id"] for answer in answers) == sorted(request["id"] for request in sent)
        for answer in answers:
            if answer["id"] == "void":
                assert answer["statement_failure"]["where"] == "statement"
            else:
                assert answer["verdict"]["status"] == CASES[answer["id"].split()[0]][2]

        texts = {"a": "theorem t : 1 = 1 := rfl", "b": "theorem t : 1 = 2 := by sorry", "c": "theorem t : 1 = 2 := rfl"}
        codes = [{"custom_id": key, "proof": text} for key, text in texts.items()]
        status, reply = server.ask("POST", "/verify", {"codes": codes, "timeout": 60})
        assert status == 200 and "compile-only" in reply["note"]
        replies = {result["custom_id"]: result["response"]["messages"] for result in reply["results"]}
        said = {key: [(m["severity"], m["data"]) for m in messages] for key, messages in replies.items()}
        assert said["a"] == [] and said["b"] == [("warning", "declaration uses 'sorry'")]
        assert said["c"][0][0] == "error"

        metrics = server.metrics()
        assert metrics['answers_total{outcome="proved"}'] == 30 and metrics['texts_total{outcome="compiled"}'] == 3
        assert metrics["workers_lost_total"] == 1 and metrics["worker_peak_bytes"] > 1 << 28
        pids = server.worker_pids()
        assert server.stop() == 0
        assert pids and not any(psutil.pid_exists(pid) for pid in pids)


def test_the_python_api_of_the_readme() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Verdict(attempt_id='id', status='proved'")
