"""A stand-in for a native toolchain: ``lake`` and ``lean`` with our command lines, the embedded Lean behind them.

It is a folder like elan's, ``bin/lean`` and ``bin/lake``, made of shell scripts and a copy of Node. Where the embedded
Lean is asked for its channel, the stand-in opens what the environment names, as a native Lean would. What it cannot
show: Lean's own behaviour outside WebAssembly, other versions, Mathlib, ``level := .private``.
"""

import os
import shutil
import stat
from pathlib import Path

from lean_env import toolchain

VERSION = toolchain.LEAN_VERSION

_OPEN = """const told = (name) => process.argv[2] === 'serve' && process.env[name];
const REQUEST = told('PROVER_REQUEST') && fs.openSync(told('PROVER_REQUEST'), 'r');
const VERDICT = told('PROVER_VERDICT') && fs.openSync(told('PROVER_VERDICT'), 'a');
"""
_PATH = "ENV.LEAN_PATH = '/lean/lib:/lean/worker';"
_TELL = """
    for (const name of ['request', 'verdict', 'seal']) ENV['PROVER_' + name.toUpperCase()] = '/dev/told_' + name;"""

_LEAN = """#!{bin}/sh
# lean --version | --print-prefix | -j1 -o MODULE.olean MODULE.lean | -j1 --run Main.lean
case "$1 $2" in
  "--version ") echo "Lean (version {version}, a stand-in)" ;;
  "--print-prefix ") echo "{prefix}" ;;
  "-j1 -o") ulimit -s 1000000; exec "{bin}/node" --stack-size=900000 "{prefix}/loader.js" compile "{package}" "{linked}" "$PWD" "${{3%.olean}}" ;;
  "-j1 --run") exec "{bin}/node" --stack-size=230000 "{prefix}/loader.js" serve "{package}" "{linked}" "$PWD" ;;
  *) echo "error: unknown arguments $*" >&2; exit 1 ;;
esac
"""  # noqa: E501

_LAKE = """#!/bin/sh
# lake env COMMAND... | lake build --no-build, in a project; `fault` in its lakefile says what goes wrong.
fault=$(sed -n 's/^-- fault: //p' lakefile.lean)
case "$1 $fault" in
  "env lakefile") echo "error: ./lakefile.lean:1:0: unexpected token" >&2; exit 1 ;;
  "env "*) shift; export LEAN_PATH="$PWD/.lake/build/lib/lean:{package}:{linked}" PATH="{bin}:$PATH"; exec "$@" ;;
  "build unbuilt") echo "warning: x"; echo "error: target is out-of-date and needs to be rebuilt" >&2; exit 3 ;;
  "build "*) exit 0 ;;
esac
"""


_CHANGES = (
    ("for (const name of Object.keys(process.env))", _OPEN + "for (const name of Object.keys(process.env))"),
    ("fs.readSync(0,", "fs.readSync(REQUEST,"),
    ("writeAll(1,", "writeAll(VERDICT,"),
    ("FS.mkdev('/dev/' + name, id);", "FS.mkdev('/dev/told_' + name, id);"),
    ("FS.unlink('/dev/' + name)", "FS.unlink('/dev/told_' + name)"),
    (_PATH, _PATH + _TELL),
)


def make_toolchain(prefix: Path) -> Path:
    """The toolchain in ``prefix``; returns its ``bin``, to be put first in PATH."""
    embedded = toolchain.find()
    bin_ = prefix / "bin"
    bin_.mkdir(parents=True)
    try:
        os.link(embedded.node, bin_ / "node")
    except OSError:
        shutil.copy2(embedded.node, bin_ / "node")
    shutil.copy2("/bin/sh", bin_ / "sh")
    (prefix / "loader.js").write_text(_loader())
    for name, text in (("lean", _LEAN), ("lake", _LAKE)):
        script = bin_ / name
        script.write_text(
            text.format(bin=bin_, prefix=prefix, version=VERSION, package=embedded.package, linked=embedded.linked)
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return bin_


def make_project(folder: Path, *, wants: str = f"leanprover/lean4:v{VERSION}", fault: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lakefile.lean").write_text(f"import Lake\n-- fault: {fault}\n" if fault else "import Lake\n")
    (folder / "lean-toolchain").write_text(wants + "\n")
    (folder / "lake-manifest.json").write_text('{"packages": []}\n')
    return folder


def _loader() -> str:
    """Our loader, which opens the channel that the environment names, and gives Lean devices of other names."""
    text = (Path(toolchain.__file__).parent / "loader.js").read_text()
    for old, new in _CHANGES:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text
