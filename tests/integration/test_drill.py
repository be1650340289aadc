"""The drill of scripts/bench in its short form, without Lean: workers that spin, flood, fork, hoard or are killed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_candidate_gets_the_verdict_that_it_would_have_got_undisturbed() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/bench/lean_drill.py"), "--quick", "--only", "stand-in"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])["stand-in"]
    assert figures["wrong"] == 0 and figures["rounds"] >= 1 and figures["workers_lost"] >= 8
