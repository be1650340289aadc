"""What the library mentions but does not hold is nobody's to declare."""

import re
from pathlib import Path

from lean_env.protocol import Limits
from lean_env.toolchain import find
from lean_env.worker import Worker

LEAN = Path(__file__).parents[2] / "lean_env" / "Names.lean"


def shipped() -> set[str]:
    listed = re.search(r"def lacking : List Name :=\s*\[(.*?)\]", LEAN.read_text(), re.DOTALL)
    assert listed
    return {name.strip().removeprefix("`") for name in listed[1].split(",")}


def test_the_list_of_what_the_library_lacks_is_whole() -> None:
    text = Path(__file__).with_name("lacking.lean").read_text()
    with Worker(find().launch()) as worker:
        worker.wait_ready()
        limits = Limits(cpu_seconds=120.0, wall_seconds=300.0)
        reply = worker.ask({"op": "file", "text": text, "heartbeats": 100_000_000}, limits)
    (message,) = reply["messages"]
    title, *names = message["text"].strip().splitlines()
    assert title == "lacking" and len(names) > 20
    assert set(names) == shipped()
