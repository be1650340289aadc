"""Write the hash-locked requirement files under ``constraints/``.

``cpu.txt`` is what ``make setup`` installs, with what serving Lean and asking servers take, apart from torch (whose
build, and so whose hash, is the choice of the machine that installs it); ``dev.txt`` adds the tools for tests, lint and
types, and DeepSpeed, which the tests train with. pip resolves the versions for the running interpreter and names the
hashes of the wheels of every supported Python and platform; nothing is downloaded but metadata.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = {
    "x86_64": [f"manylinux_2_{minor}_x86_64" for minor in range(17, 29)] + ["manylinux2014_x86_64"],
    "aarch64": [f"manylinux_2_{minor}_aarch64" for minor in range(17, 29)] + ["manylinux2014_aarch64"],
    "macos": [f"macosx_{major}_0_arm64" for major in range(11, 15)],
}
TORCH = ["filelock", "fsspec", "jinja2", "networkx", "setuptools>=77", "sympy>=1.13.3", "typing-extensions"]
"""What torch itself depends on, so that its own installation has nothing left to choose."""
DEEPSPEED = ["einops", "hjson", "msgpack", "py-cpuinfo"]
"""What DeepSpeed depends on beside torch and what is there already."""
SOURCE = "deepspeed"
"""Comes as source alone; nothing of it is compiled when it is installed."""

ON_TORCH = ("accelerate", "peft")
"""Of what ``train`` takes, those that would bring a torch of their own choice."""
THEIRS = ["psutil"]
"""What they need besides, and nothing else does."""

Pins = dict[str, tuple[str, set[str]]]


def report(arguments: list[str]) -> Pins:
    """Name -> (version, hashes) of what pip would install."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        kinds = ["--only-binary=:all:", f"--no-binary={SOURCE}"]
        subprocess.run([*command, *kinds, "--report", file.name, *arguments], check=True)
        found = json.loads(Path(file.name).read_text())["install"]
    return {
        item["metadata"]["name"].lower().replace("_", "-"): (
            item["metadata"]["version"],
            {item["download_info"]["archive_info"]["hashes"]["sha256"]},
        )
        for item in found
    }


def lock(requirements: list[str], *options: str) -> Pins:
    pins = report([*requirements, *options])
    exact = [f"{name}=={version}" for name, (version, _) in pins.items()]
    for python in PYTHONS:
        for names in PLATFORMS.values():
            platforms = [part for name in names for part in ("--platform", name)]
            with tempfile.TemporaryDirectory() as nowhere:
                where = ["--no-deps", "--target", nowhere, "--python-version", python, *platforms]
                for name, (_, hashes) in report([*exact, *where]).items():
                    pins[name][1].update(hashes)
    return pins


def write(path: Path, pins: Pins) -> None:
    lines = ["# Written by scripts/lock.py (make lock). Install with: pip install --no-deps --require-hashes -r FILE"]
    for name, (version, hashes) in sorted(pins.items()):
        lines += [" \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{value}" for value in sorted(hashes))])]
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(pins)} packages, {sum(len(h) for _, h in pins.values())} hashes")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    train = [requirement for requirement in extras["train"] if not requirement.startswith(("torch", *ON_TORCH))]
    on_torch = [requirement for requirement in extras["train"] if requirement.startswith(ON_TORCH)]
    cpu = lock([*project["dependencies"], *train, *extras["serve"], *extras["openai"], *TORCH, *THEIRS])
    known = [f"{name}=={version}" for name, (version, _) in cpu.items()]
    dev = lock([*extras["dev"], *known])
    cpu |= lock(["--no-deps", *on_torch])
    trained = [requirement for requirement in extras["deepspeed"] if not requirement.startswith("prover[")]
    dev |= lock([*trained, *DEEPSPEED], "--no-deps")  # with what it depends on, pip would choose a torch too
    write(ROOT / "constraints" / "cpu.txt", cpu)
    write(ROOT / "constraints" / "dev.txt", {name: pin for name, pin in dev.items() if name not in cpu})


if __name__ == "__main__":
    main()
