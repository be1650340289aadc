"""The arrows of the architecture: who may import whom, what start-up may load, what must be declared."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "deepspeed",
    "ray",
    "pandas",
    "matplotlib",
    "numpy",
    "tokenizers",
    "openai",
    "starlette",
    "uvicorn",
    "lean_dojo",
    "loguru",
}

LAYERS = [
    ["prover.errors", "prover"],
    [
        "prover.records", "prover.artifacts", "prover.config", "prover.jsonl", "prover.progress", "prover.seeds",
        "prover.overlap", "prover.console", "prover.partial", "prover.config_faults", "prover.config_file",
        "prover.layout", "prover.claim", "prover.allocation", "prover.passing",
    ],
    [
        "prover.engines", "prover.training", "prover.prompts", "prover.problems", "prover.tactics", "prover.pointers",
        "prover.conversations", "prover.extraction", "prover.feedback",
        "prover.binders", "prover.models", "prover.pretrained", "prover.device", "prover.lean", "prover.projects",
        "prover.found", "prover.selection",
    ],
    ["prover.stages"],
    [
        "prover.pipeline", "prover.waves", "prover.single", "prover.ground", "prover.sweep", "prover.apart",
        "prover.check", "prover.doctor", "prover.report", "prover.serving", "prover.preference",
    ],
    [
        "prover.cli", "prover.stage_commands", "prover.preference_commands", "prover.extract_command",
        "prover.options", "prover.__main__",
    ],
]  # fmt: skip
"""Lowest first; a module imports from its own layer and those below."""


def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(p for package in ("prover", "lean_env") for p in (ROOT / package).rglob("*.py")):
        found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: set[str], *, late: bool = True) -> Iterator[str]:
    """Every module that the file imports, at its top and, with ``late``, inside functions.

    ``from package import module`` names the module.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def layer(module: str) -> int:
    matches = [
        (len(name), number)
        for number, names in enumerate(LAYERS)
        for name in names
        if module == name or (name != "prover" and module.startswith(name + "."))
    ]
    assert matches, f"{module}: has no layer; give it one in LAYERS"
    return max(matches)[1]


def test_lean_env_never_imports_prover() -> None:
    known = modules()
    for module, path in known.items():
        if module.startswith("lean_env"):
            wrong = [name for name in imports(path, set(known)) if name.partition(".")[0] == "prover"]
            assert not wrong, f"{module} imports {wrong}"


def test_arrows_point_down() -> None:
    known = modules()
    wrong: list[str] = []
    for module, path in known.items():
        if not module.startswith("prover"):
            continue
        for name in imports(path, set(known)):
            if name.startswith("prover") and layer(name) > layer(module):
                wrong.append(f"{module} -> {name}")
            if (
                name.startswith("lean_env")
                and layer(module) < 2
                and name not in ("lean_env.protocol", "lean_env.errors")
            ):
                wrong.append(f"{module} -> {name}")
    assert not wrong, wrong


def test_no_import_cycles() -> None:
    known = modules()
    edges = {m: {n for n in imports(p, set(known), late=False) if n in known} - {m} for m, p in known.items()}
    while leaves := {module for module, targets in edges.items() if not targets & edges.keys()}:
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
    assert not edges, f"cycles among {sorted(edges)}"


@pytest.mark.parametrize("arguments", [["--help"], ["iterate", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['prover', *sys.argv[1:]]\n"
        "from prover.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print('loaded:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_finished_run_needs_no_model_library() -> None:
    """What `prover iterate` imports before it knows whether there is anything to do."""
    models = "{'torch', 'transformers', 'pandas'}"
    code = f"import sys, prover.pipeline, prover.report; print(sorted({models} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    declared = {normal(re.split(r"[\[<>=!;~ ]", requirement)[0]) for requirement in wanted}
    owners = importlib.metadata.packages_distributions()
    known = modules()
    for module, path in known.items():
        for name in {n.partition(".")[0] for n in imports(path, set(known))} - {"prover", "lean_env"}:
            if name not in sys.stdlib_module_names:
                owner = {normal(o) for o in owners.get(name, [name])}
                assert owner & declared, f"{module} imports {name}, which pyproject.toml does not declare"


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def test_modules_are_small_and_named_for_what_they_hold() -> None:
    for module, path in modules().items():
        assert not {"utils", "util", "helpers", "helper", "manager", "common", "misc"} & set(module.split("."))
        assert path.read_text().count("\n") <= 400, f"{module}: more than 400 lines; split it"
