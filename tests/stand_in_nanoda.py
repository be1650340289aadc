"""Stands in for ``nanoda_bin`` where it cannot be built: the same command line, configuration, words and exit codes.

It types nothing: it finds an export in order or not, its axioms permitted or not. ``MOOD`` beside it says how it
behaves with what is not one of the questions that are asked of every checker.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    from lean_export import Malformed, read

    mood = Path(sys.argv[0]).with_name("MOOD").read_text().strip()
    if sys.argv[1] == "--help":
        print("a checker" if mood == "nameless" else "nanoda_bin 0.0.1\n\nA stand-in\n")
        return
    config = json.loads(Path(sys.argv[1]).read_text())
    assert config["nat_extension"] and config["string_extension"] and config["unpermitted_axiom_hard_error"]
    assert dict(os.environ).keys() <= {"OPENSSL_CONF", "LC_CTYPE"}, os.environ
    try:
        export = read(Path(config["export_file_path"]))
    except Malformed as error:
        if mood == "gullible":
            return
        sys.exit(panic(f"assertion failed: {error}"))
    known = ("known",) in export.declared
    for axiom in export.axioms:
        if axiom not in config["permitted_axioms"] and mood != "gullible":
            sys.stderr.write(f'Error: export file declares unpermitted axiom "{axiom}"\n\nrun with `-h` for help\n')
            sys.exit(1)
    if mood == "stubborn" or (mood == "refuses" and not known):
        sys.exit(panic("assertion failed: self.def_eq(inferred, expected)"))
    if mood == "crashes over four" and not known:
        if ("natVal", "4") not in export.exprs:
            sys.exit(panic("assertion failed"))
        behave("crashes")
    if not known:
        behave(mood)
    print(f"Checked {len(export.declared)} declarations with no errors")


def panic(why: str) -> int:
    sys.stderr.write(f"\nthread 'main' (7) panicked at src/tc.rs:12:34:\n{why}\nnote: run with `RUST_BACKTRACE=1`\n")
    return 101


def behave(mood: str) -> None:
    if mood == "crashes":
        os.kill(os.getpid(), signal.SIGABRT)
    elif mood == "declines":
        sys.stderr.write("Declined: a level back-reference\n")
        sys.exit(2)
    elif mood == "hangs":
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"])  # holds its output
        time.sleep(1000)
    elif mood == "spins":
        while True:
            pass
    elif mood == "swells":
        held = [bytes(b"x" * (1 << 20)) for _ in range(1 << 10)]
        time.sleep(1000 + len(held))
    elif mood == "floods":
        while True:
            sys.stdout.write("x" * (1 << 16))
    elif mood == "vanishes":
        Path(sys.argv[0]).unlink()
        sys.exit(1)


if __name__ == "__main__":
    main()
