"""The server as its clients meet it, over real sockets, with a scripted process in Lean's place."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.served import ROOT, Served, served

SERVER = str(Path(__file__).with_name("scripted_server.py"))
TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(SERVER) as one:
        one.wait_ready()
        yield one
        assert one.stop() == 0


def item(key: object, proof: str, statement: str = "theorem t : True", **more: Any) -> dict[str, Any]:
    return {"id": str(key), "header": "", "formal_statement": statement, "proof": proof, **more}


def outcomes(answers: list[dict[str, Any]]) -> dict[str, str]:
    """Status by id, after a look that no id has two records."""
    assert max(Counter(answer["id"] for answer in answers).values(), default=0) <= 1
    return {
        a["id"]: a["verdict"]["status"] if "verdict" in a else "error" if "error" in a else "statement" for a in answers
    }


MIXED = {"ok": "proved", "wrong": "failed", "die": "memory", "spin": "timeout", "internal": "failed", "": "no_proof"}


def test_many_clients_at_once_get_one_record_for_each_request(server: Served) -> None:
    def client(number: int) -> tuple[dict[str, str], dict[str, str]]:
        proofs = [list(MIXED)[n % 5] if n % 9 == 0 else "ok" if n % 4 else "wrong" for n in range(number * 12)]
        sent = [item(n, proof, f"theorem t{n % 7} : True") for n, proof in enumerate(proofs)]
        sent.append(item("void", "ok", "not a theorem"))
        want = {str(n): MIXED[proof] for n, proof in enumerate(proofs)} | {"void": "statement"}
        return outcomes(server.check(sent)), want

    with ThreadPoolExecutor(6) as clients:
        for got, want in clients.map(client, range(6)):
            assert got == want
    after = server.metrics()
    assert after["in_flight"] == after["batches"] == after["queue_length"] == 0
    assert after['answers_total{outcome="statement_failure"}'] == 6
    assert after['answers_total{outcome="memory"}'] > 0 and after["workers_lost_total"] > 0


def test_a_verdict_is_our_record(server: Served) -> None:
    (answer,) = server.check([item("a", "ok", header="open Nat")])
    assert set(answer) == {"id", "verdict"} and answer["verdict"]["attempt_id"] == "a"
    assert answer["verdict"]["toolchain"] == "scripted 1" and "open Nat" in answer["verdict"]["used_constants"]
    assert server.check([]) == []


def test_a_proof_that_is_not_certified_is_counted(server: Served) -> None:
    before = server.metrics()
    assert outcomes(server.check([item("a", "ok"), item("b", "lie")])) == {"a": "proved", "b": "failed"}
    after = server.metrics()
    assert after["disagreements_total"] - before["disagreements_total"] == 1
    assert after["certifications_total"] - before["certifications_total"] >= 2


@pytest.mark.parametrize(
    ("body", "field", "error"),
    [
        (b"", "", "not JSON"),
        (b'{"requests": [', "", "not JSON"),
        (b'{"requests": [{"id": "\xff"}]}', "", "not JSON"),
        ([], "", "Expected `object`"),
        ({}, "", "missing required field `requests`"),
        ({"requests": [], "more": 1}, "", "unknown field `more`"),
        ({"requests": [{"id": "a"}]}, "requests[0]", "missing required field `header`"),
        ({"requests": [item("a", "ok"), {**item("b", "ok"), "id": 7}]}, "requests[1].id", "Expected `str`"),
        ({"requests": [item("", "ok")]}, "requests[0].id", "length >= 1"),
        ({"requests": [item("a", "ok"), item("a", "wrong")]}, "requests[1].id", "already the id of requests[0]"),
        (
            {"requests": [item("a", "ok", limits={"cpu_seconds": 0.6})]},
            "requests[0].limits.cpu_seconds",
            "0.6 is over this server's 0.5",
        ),
        ({"requests": [item("a", "ok", limits={"memory_mb": 3})]}, "requests[0].limits.memory_mb", ">= 1500"),
    ],
)
def test_what_is_malformed_is_refused_by_name(server: Served, body: object, field: str, error: str) -> None:
    status, reply = server.ask("POST", "/check", body)
    assert status == 400
    assert error in reply["error"] and reply.get("field", "") == field
    assert reply["error"].startswith(field)


def test_limits_may_be_lowered(server: Served) -> None:
    sent = [item("a", "spin", limits={"cpu_seconds": 0.2}), item("b", "ok", limits={"proof_bytes": 1})]
    answers = {answer["id"]: answer["verdict"] for answer in server.check(sent)}
    assert answers["a"]["reason"] == "limits: 0.2 s of CPU time used up"
    assert answers["b"]["status"] == "no_proof"


def raw(server: Served, data: bytes) -> bytes:
    """What comes back for these bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_bodies_are_bounded(server: Served) -> None:
    too_many = [item(n, "ok") for n in range(10_001)]
    assert server.ask("POST", "/check", {"requests": too_many})[0] == 413
    assert server.ask("POST", "/verify", {"codes": [{"custom_id": n, "proof": ""} for n in range(10_001)]})[0] == 413
    error = {"error": "a body over the limit of 33,554,432 bytes"}
    assert server.ask("POST", "/check", b" " * (33 << 20)) == (413, error)
    head = b"POST /check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    asked = raw(server, head + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    assert b" 413 " in asked.splitlines()[0] and b'{"error":"a body over the limit' in asked
    chunk = b"1000000\r\n" + b" " * (16 << 20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError):
            for _ in range(64):
                connection.sendall(chunk)


def test_batches_are_bounded(server: Served) -> None:
    head = b"POST /check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    waiting = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(32)]
    try:
        for connection in waiting:
            connection.sendall(head)
        while server.metrics()["batches"] < 32:
            pass
        status, reply = server.ask("POST", "/check", {"requests": [item("a", "ok")]})
        assert status == 429 and "32 batches" in reply["error"]
        assert server.ask("GET", "/health")[0] == 200
    finally:
        for connection in waiting:
            connection.close()
    while server.metrics()["batches"]:
        pass
    assert outcomes(server.check([item("a", "ok")])) == {"a": "proved"}


def test_web_pages_and_rebound_names_are_refused(server: Served) -> None:
    body = {"requests": [item("a", "ok")]}
    assert server.ask("POST", "/check", body, {"Host": f"localhost:{server.port}"})[0] == 200
    assert server.ask("POST", "/check", body, {"Host": f"evil.example:{server.port}"})[0] == 403
    assert server.ask("GET", "/metrics", None, {"Host": "127.0.0.1.evil.example"})[0] == 403
    assert server.ask("POST", "/check", body, {"Origin": "https://evil.example"})[0] == 403
    assert server.ask("POST", "/check", body, {"Content-Type": "text/plain"})[0] == 415
    assert server.ask("OPTIONS", "/check")[0] == 405
    assert server.ask("GET", "/check") == (405, {"error": "Method Not Allowed"})
    assert server.ask("GET", "/none") == (404, {"error": "Not Found"})


def test_a_client_that_leaves_cancels_its_batch_only(server: Served) -> None:
    before = server.metrics()["workers_lost_total"]
    slow = [item(n, "spin", f"theorem t{n} : True") for n in range(400)]  # about 200 s of processor time
    with server.stream([item("first", "ok", limits={"cpu_seconds": 0.4}), *slow]) as answers:
        assert "id" in next(answers)
        assert server.metrics()["in_flight"] > 300
    assert outcomes(server.check([item(n, "ok") for n in range(20)])) == dict.fromkeys(map(str, range(20)), "proved")
    while (now := server.metrics())["in_flight"] or now["queue_length"]:
        pass
    assert now["workers_lost_total"] - before < 200


def test_a_batch_of_one_does_not_wait_for_one_of_many(server: Served) -> None:
    many = [item(n, "spin", f"theorem t{n} : True", limits={"cpu_seconds": 0.1}) for n in range(300)]
    with server.stream(many) as answers:
        next(answers)
        assert outcomes(server.check([item("one", "ok")])) == {"one": "proved"}
        assert server.metrics()["in_flight"] > 200


def test_a_client_that_reads_slowly_holds_back_its_own_batch_only(server: Served) -> None:
    """Each answer repeats a header of 3 kB: 30 MB in all, more than sockets hold."""
    with server.stream([item(n, "ok", header="-" * 3_000) for n in range(10_000)]) as answers:
        seen, same = -1.0, 0
        while same < 20:
            at = server.metrics()["in_flight"]
            seen, same = at, same + 1 if at == seen else 0
        assert seen > 1_000
        assert outcomes(server.check([item("other", "ok")])) == {"other": "proved"}
        assert len(outcomes(list(answers))) == 10_000


def test_workers_killed_from_outside_cost_nothing(server: Served) -> None:
    sent = [item(n, "ok" if n % 3 else "wrong", f"theorem t{n % 5} : True") for n in range(2_000)]
    answers: list[dict[str, Any]] = []
    with server.stream(sent) as stream:
        for answer in stream:
            answers.append(answer)
            if len(answers) in (1, 700):
                os.kill(server.worker_pids()[0], signal.SIGKILL)
    assert outcomes(answers) == {str(n): "proved" if n % 3 else "failed" for n in range(2_000)}


def test_a_check_that_cannot_be_had_is_an_error_of_its_own(server: Served) -> None:
    """It loses every worker that it is given to a kill from outside."""
    sent = [item("lost", "own-kill"), *(item(n, "ok") for n in range(30))]
    answers = server.check(sent)
    assert outcomes(answers) == {"lost": "error", **{str(n): "proved" for n in range(30)}}
    (error,) = (answer["error"] for answer in answers if "error" in answer)
    assert error.startswith("lost: lost its Lean worker 6 times")
    assert server.ask("GET", "/health")[0] == 200


def test_verify_speaks_as_kimina_does(server: Served) -> None:
    codes = [
        {"custom_id": 12, "proof": "theorem t : True := by sorry"},
        {"custom_id": "b", "code": "spin"},
        {"custom_id": "c", "proof": "die"},
    ]
    status, reply = server.ask("POST", "/verify", {"codes": codes, "timeout": 300, "infotree_type": None})
    assert status == 200 and "compile-only" in reply["note"]
    first, second, third = reply["results"]
    message = {
        "severity": "warning",
        "pos": {"line": 1, "column": 8},
        "endPos": {"line": 1, "column": 9},
        "data": "declaration uses 'sorry'",
    }
    assert first == {"custom_id": "12", "error": None, "response": {"env": 0, "messages": [message], "time": 0.002}}
    assert second == {"custom_id": "b", "error": "timed out: 0.5 s of CPU time used up", "response": None}
    assert "ended without an answer" in third["error"]
    status, reply = server.ask("POST", "/api/check", {"snippets": [{"id": "x", "code": "ok"}], "reuse": True})
    assert status == 200
    assert reply["results"] == [
        {"id": "x", "time": 0.002, "error": None, "response": {"env": 0, "messages": [message]}}
    ]
    status, reply = server.ask("POST", "/verify", {"codes": [{"custom_id": "d"}]})
    assert (status, reply["field"]) == (400, "codes[0].proof")
    assert server.ask("POST", "/verify", {"codes": [], "timeout": 0})[1]["field"] == "timeout"
    status, reply = server.ask("POST", "/verify", b'{"other":' + b"[" * 100_000)
    assert (status, reply["error"]) == (400, "not JSON that can be read: nested too deeply")


def test_checks_never_follow_a_file_on_its_worker(server: Served) -> None:
    """Both kinds at once, from several clients: all are served."""

    def verify(number: int) -> list[Any]:
        codes = [{"custom_id": n, "proof": "ok"} for n in range(10)]
        return [result["error"] for result in server.ask("POST", "/verify", {"codes": codes})[1]["results"]]

    with ThreadPoolExecutor(4) as clients:
        files = [clients.submit(verify, n) for n in range(3)]
        assert outcomes(server.check([item(n, "ok") for n in range(300)])) == {str(n): "proved" for n in range(300)}
        assert [file.result() for file in files] == [[None] * 10] * 3


def test_the_token_is_asked_of_everyone() -> None:
    with served(SERVER, PROVER_TOKEN=TOKEN) as server:
        body = {"requests": [item("a", "ok")]}
        right = {"Authorization": f"Bearer {TOKEN}"}
        for wrong in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": "Bearer"}):
            for method, path in (("POST", "/check"), ("POST", "/verify"), ("GET", "/health"), ("GET", "/metrics")):
                status, reply = server.ask(method, path, body, wrong)
                assert (status, reply) == (401, {"error": "the token is missing or wrong"})
        assert server.ask("POST", "/check", body, {**right, "Host": "lean.example"})[0] == 200
        assert server.stop(signal.SIGINT) == 0
        assert server.process.stderr is not None
        assert TOKEN not in "".join(server.lines) + server.process.stderr.read()


def test_sigterm_answers_every_request_and_leaves_no_process() -> None:
    with served(SERVER) as server:
        server.wait_ready()
        with server.stream([item(n, "nap") for n in range(500)]) as stream:
            while server.metrics()["workers_running"] < 2:
                pass
            pids = server.worker_pids()
            server.process.send_signal(signal.SIGTERM)
            assert outcomes(list(stream)) == dict.fromkeys(map(str, range(500)), "error")
        assert server.process.wait(60) == 0
        assert pids and not any(psutil.pid_exists(pid) for pid in pids)


def test_a_lean_that_does_not_start_ends_the_server() -> None:
    with served(SERVER, "-c", "raise SystemExit(3)") as server:
        assert server.process.wait(60) == 1
        assert server.process.stderr is not None
        assert "WorkerError: Lean cannot start: ended without an answer (exit code 3)" in server.process.stderr.read()


def test_a_lean_that_fails_and_is_mended_serves_again(tmp_path: Path) -> None:
    script = tmp_path / "lean.py"
    good = Path(SERVER).with_name("scripted_lean.py").read_text()
    script.write_text(good)
    with served(SERVER, str(script)) as server:
        server.wait_ready()
        script.write_text("raise SystemExit(3)")
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert outcomes(server.check([item(n, "ok") for n in range(5)])) == dict.fromkeys("01234", "error")
        status, health = server.ask("GET", "/health")
        assert (status, health["status"]) == (503, "failing") and "exit code 3" in health["error"]
        status, reply = server.ask("POST", "/check", {"requests": [item("a", "ok")]})
        assert status == 503 and reply["error"].startswith("Lean cannot be had at the moment")
        started = server.metrics()["workers_started_total"]
        script.write_text(good)
        while server.ask("GET", "/health")[0] != 200:
            pass
        assert outcomes(server.check([item("a", "ok")])) == {"a": "proved"}
        # At most two that check and one that certifies: nothing of the old pool starts again.
        assert started < server.metrics()["workers_started_total"] <= started + 3


def test_a_missing_package_is_named_with_its_cure() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[1:] = ['serve-lean']\nfrom prover.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: serve-lean needs uvicorn; run: pip install 'prover[serve]'\n"


def refused_start(*arguments: str, **env: str) -> str:
    """The one line on stderr of a server that will not start."""
    done = subprocess.run(
        [sys.executable, "-m", "prover", "serve-lean", *arguments],
        cwd=ROOT,
        env={**os.environ, "PROVER_TOKEN": "", **env} if env else {**os.environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    return line


def test_others_need_a_token_and_a_port_must_be_free(server: Served) -> None:
    assert "--host 0.0.0.0: others can reach this address; set PROVER_TOKEN" in refused_start("--host", "0.0.0.0")
    assert "PROVER_TOKEN must be 16 or more" in refused_start("--host", "0.0.0.0", PROVER_TOKEN="short")
    assert "choose another --host or --port" in refused_start("--port", str(server.port))
    assert "give an address of this machine" in refused_start("--host", "no such host")
