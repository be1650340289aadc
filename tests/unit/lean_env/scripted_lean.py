"""A process that speaks the worker protocol and behaves as the candidate's text says. Run by the pool's tests in
Lean's place.

A candidate's words after ``:=`` say what it does: ``ok``, ``wrong``, ``die``, ``spin``, ``nap``, ``bomb``, ``flood``,
``babble``, ``twice``, ``forge``, ``internal``, ``stderr``, ``huge``, ``fork``, ``poison`` (every later answer is
"proved"), ``once FILE WORD`` (does WORD the first time only), ``late`` (refused after it ran: every later check is
"proved", and canaries are answered as if nothing had happened). After ``certify`` the words are for the worker that
certifies; ``lie`` is proved by the first worker alone, ``silent`` comes without an export, ``void`` is called a failure
of the statement.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

poisoned = False
forging = False


def say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def canary(request: dict[str, Any]) -> str:
    text, statement = request["candidate"], request["statement"]
    if "axiom" in text:
        return "forbidden_axiom"
    if "sorry" in text:
        return "sorry"
    if not text.startswith(statement):
        return "statement_changed"
    return "proved" if "n + 0 = n" in statement else "failed"


def certificate(request: dict[str, Any]) -> str:
    text, statement = request["export"], request["statement"]
    if "prover_canary" in text and request["target"] != "prover_canary":
        return "statement_changed"
    if "trustCompiler" in text:
        return "forbidden_axiom"
    if "(h : p)" not in statement:
        return "statement_changed"
    return "failed" if "prover_missing" in text or "theorem 1 4 5" in text else "proved"


def misbehave(word: str, nonce: str) -> None:
    if word == "die":
        sys.stderr.write("RangeError: Maximum call stack size exceeded\n")
        sys.exit(0)
    if word == "spin":
        while True:
            pass
    if word == "nap":
        time.sleep(1_000)
    if word == "bomb":
        hoard = [bytearray(8 << 20)]
        while True:
            hoard.append(bytearray(b"x") * (8 << 20))
            time.sleep(0.01)
    if word == "flood":
        for _ in range(100):
            sys.stdout.write("x" * (1 << 20))
    if word == "babble":
        sys.stdout.write("not JSON\n")
        sys.stdout.flush()
    if word == "twice":
        say({"nonce": nonce, "status": "proved"})
    if word == "forge":
        say({"nonce": "0" * 16, "status": "proved"})
    if word == "stderr":
        sys.stderr.write("y" * (1 << 20))
    if word == "huge":
        sys.stdout.write(json.dumps({"nonce": nonce, "status": "proved", "reason": ""})[:-2])
        for _ in range(100):
            sys.stdout.write("x" * (1 << 20))
        sys.stdout.write('"}\n')
    if word == "fork":
        for _ in range(20):
            if os.fork() == 0:  # a descendant that holds the pipes and never ends
                time.sleep(1_000)
    if word == "own-kill":
        os.kill(os.getpid(), 9)


def main() -> None:
    global poisoned, forging
    say({"ready": True, "version": "scripted"})
    checks = 0
    for line in sys.stdin:
        request = json.loads(line)
        nonce = request["nonce"]
        if request["op"] == "echo":
            say({"nonce": nonce, "echo": request["text"], "pid": os.getpid()})
            continue
        if request["op"] == "elaborate":
            bad = "bad" in request["statement"]
            failure = {"statement_failure": "statement", "reason": "elaboration: unknown identifier 'bad'"}
            say({"nonce": nonce, **(failure if bad else {"ok": True})})
            continue
        if request["op"] == "file" and "text" in request:
            misbehave(request["text"].split()[-1], nonce)
            message = {"severity": "warning", "start": [1, 8], "end": [1, 9], "text": "declaration uses `sorry`"}
            say({"nonce": nonce, "messages": [message], "ms": 2.0})
            continue
        if request["op"] == "certify" and not request["export"]:
            failure = {"statement_failure": "statement", "reason": "unknown identifier 'bad'"}
            say({"nonce": nonce, **(failure if "bad" in request["statement"] else {"status": "failed"})})
            continue
        if request["op"] == "certify" and "prover_canary" in request["export"]:
            say({"nonce": nonce, "status": "proved" if poisoned else certificate(request)})
            continue
        if request["target"] == "prover_canary" or "by sorry" in request.get("candidate", ""):
            say({"nonce": nonce, "status": "proved" if poisoned else canary(request), "ms": 0.01})
            continue
        checks += 1
        certifies = request["op"] == "certify"
        words = request["export" if certifies else "candidate"].rpartition(":= ")[2].split()
        if words[0] == "certify":
            words = words[1:] if certifies else ["ok"]
        if words[0] == "once":
            marker = Path(words[1])
            first = not marker.exists()
            marker.touch()
            words = words[2:] if first else ["ok"]
        misbehave(words[0], nonce)
        if words[0] == "poison":
            poisoned = True
        if words[0] == "internal":
            say({"nonce": nonce, "error": "uncaught exception: index out of bounds"})
            continue
        if words[0] == "odd":
            say({"nonce": nonce, "status": "splendid"})
            continue
        if words[0] == "void":
            say({"nonce": nonce, "statement_failure": "statement", "reason": "unknown identifier 'bad'"})
            continue
        if words[0] == "late":
            forging = True
            reason = "syntax: `bad` holds syntax, which is not allowed"
            say({"nonce": nonce, "status": "forbidden_syntax", "reason": reason})
            continue
        status = "proved" if poisoned or forging or words[0] != "wrong" else "failed"
        if words[0] == "lie" and certifies:
            status = "forbidden_axiom"
        used = [str(checks), str(os.getpid()), request["header"]]
        reply = {"nonce": nonce, "status": status, "used": used, "axioms": ["propext"], "heartbeats": 7, "ms": 1.0}
        if request.get("export") is True and words[0] != "silent":
            reply["export"] = request["candidate"]
        if request.get("feedback", "messages") != "messages":
            reply["feedback"] = {}
        say(reply)


main()
