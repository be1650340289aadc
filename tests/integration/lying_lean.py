"""A worker that a candidate has taken over: it answers its canaries rightly and calls everything else proved, with
whatever the file that the candidate names holds as the export."""

import json
import sys
from pathlib import Path
from typing import Any


def say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def status(request: dict[str, Any]) -> str:
    text, statement = request["candidate"], request["statement"]
    if "sorry" in text:
        return "sorry"
    if request["target"] != "prover_canary":
        return "proved"
    if "axiom" in text:
        return "forbidden_axiom"
    if not text.startswith(statement):
        return "statement_changed"
    return "proved" if "n + 0 = n" in statement else "failed"


say({"ready": True, "version": "lying"})
for line in sys.stdin:
    request = json.loads(line)
    reply = {"nonce": request["nonce"], "status": status(request), "axioms": [], "used": [], "heartbeats": 1, "ms": 1.0}
    if request.get("export") is True:
        reply["export"] = Path(request["candidate"].rpartition(":= ")[2]).read_text()
    say(reply)
