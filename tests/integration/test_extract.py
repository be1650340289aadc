"""`prover extract`: LeanDojo's side with the real LeanDojo where it is installed, the rest from what it read.

The traced project is made by hand (``tests/traced_project.py``). What stands in for elan below builds nothing: it puts
that trace where Lean would have written it. Tracing by a native Lean is untested.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from prover.artifacts import ArtifactWriter, read_manifest
from prover.cli import app
from prover.config import PromptConfig
from prover.errors import InputError, ProverError
from prover.progress import Silent
from prover.projects import traces
from prover.projects.traced import TracedFile
from prover.prompts import Prompt
from prover.records import Attempt, Problem, StateTactic, TrainingExample
from prover.stages.extract import Seeds, convert_traces, read_traces
from tests.traced_project import RECORDED, write_project

INSTALLED = importlib.util.find_spec("lean_dojo") is not None
needs_lean_dojo = pytest.mark.skipif(not INSTALLED, reason="no lean-dojo; pip install 'prover[lean-dojo]'")
NAMES = ["double_eq", "double_zero", "double_le", "length_twice", "twice", "pos_double", "by_cases_on", "grows"]


def recorded() -> list[TracedFile]:
    return [msgspec.json.decode(line, type=TracedFile) for line in RECORDED.read_bytes().splitlines()]


def extract(*arguments: object, code: int = 0, **environment: str) -> str:
    result = CliRunner().invoke(app, ["extract", *map(str, arguments)], env={"COLUMNS": "200", **environment})
    assert result.exit_code == code, result.output
    return result.output


def converted(out: Path, files: list[TracedFile]) -> Seeds:
    writer = ArtifactWriter(out / "traced", {"stage": "traced"}, len(files))
    for index, file in enumerate(files):
        writer.write(index, [file])
    return convert_traces(
        out,
        traced=writer.finish({"files": len(files)}),
        source="small",
        split="train",
        options={"autoImplicit": "false"},
        all_lemmas=False,
        prompt=Prompt(PromptConfig()),
    )


def test_seeds_of_a_project(tmp_path: Path) -> None:
    seeds = converted(tmp_path, recorded())
    problems = list(seeds.problems.read(Problem))
    names = [problem.id for problem in problems]
    assert names == [
        *(f"small/Small.Basic:Small.{name}" for name in [*NAMES, "double_eq_again"]),
        "small/Small.Basic:Twice.zero",
        "small/Small.More:le_double",
    ]
    counts = read_manifest(seeds.problems.path).counts
    assert counts == {
        "problems": 11,
        "no problem: mutual": 2,
        "no problem: unreadable trace": 1,
        "no proof: equations": 1,
        "no proof: sorry": 1,
        "no proof: twin": 1,
    }
    attempts = {attempt.problem_id: attempt for attempt in seeds.attempts.read(Attempt)}
    assert attempts["small/Small.Basic:Small.twice"].proof == "by\n  subst h\n  exact length_twice xs"
    examples = list(seeds.examples.read(TrainingExample))
    assert len(examples) == len(attempts) == 8
    prompt = Prompt(PromptConfig())
    for example in examples:
        (problem,) = [p for p in problems if p.id == example.problem_id]
        assert example.kind == "seed"
        assert example.messages[:-1] == prompt.first(problem)
        assert prompt.extract(example.messages[-1].content, problem, "stop")
    steps = list(seeds.tactics.read(StateTactic))
    assert [step.tactic for step in steps if step.problem_id.endswith("double_le")] == [
        "rw [double_eq, double_eq]",
        "omega",
    ]
    assert steps[2].premises == ("Small.double_eq",)
    assert not [step for step in steps if "sorry" in step.tactic]


def test_the_same_traces_give_the_same_bytes(tmp_path: Path) -> None:
    first, again = converted(tmp_path / "a", recorded()), converted(tmp_path / "b", recorded())
    for one, other in zip(first, again):
        assert one.shard(0).read_bytes() == other.shard(0).read_bytes()
        assert one.fingerprint == other.fingerprint


def test_the_projects_proofs_are_verified_and_selected(tmp_path: Path) -> None:
    """As docs/extract.md has it."""
    seeds = converted(tmp_path, recorded()[:1])
    verdicts, examples = tmp_path / "verdicts", tmp_path / "proved"
    at = ["--problems", seeds.problems.path]
    run = CliRunner().invoke(
        app, [str(a) for a in ["verify", seeds.attempts.path, *at, "--out", verdicts, "--workers", 1]]
    )
    assert run.exit_code == 0, run.output
    assert read_manifest(verdicts).counts["proved"] == read_manifest(seeds.attempts.path).counts["attempts"] == 7
    chosen = ["select", *at, "--attempts", seeds.attempts.path, "--verdicts", verdicts, "--out", examples]
    run = CliRunner().invoke(app, [str(a) for a in chosen])
    assert run.exit_code == 0, run.output
    assert read_manifest(examples).counts["proofs"] == 7


def test_a_project_without_theorems_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not one theorem of it becomes a problem"):
        converted(tmp_path, [TracedFile(path="A.lean")])


@pytest.mark.skipif(INSTALLED, reason="lean-dojo is installed")
def test_without_lean_dojo_the_extra_is_named(tmp_path: Path) -> None:
    said = extract(tmp_path, "--out", tmp_path / "out", code=2)
    assert "error: extract needs the package lean-dojo; run: pip install 'prover[lean-dojo]'" in said
    assert not (tmp_path / "out").exists()


def test_what_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no Lake project"):
        traces.check_project(tmp_path)
    (tmp_path / "lakefile.toml").write_text("[leanOptions\n")
    with pytest.raises(InputError, match="has no lean-toolchain"):
        traces.check_project(tmp_path)
    (tmp_path / "lean-toolchain").write_text("leanprover/lean4:v4.20.0\n")
    with pytest.raises(InputError, match="is not TOML"):
        traces.options_of(tmp_path)
    tools = stand_in(tmp_path / "bin")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tools), os.environ["PATH"]]))
    with pytest.raises(InputError, match="not the top folder of a git repository with a commit"):
        traces.check_project(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProverError, match="git is not on the PATH"):
        traces.check_project(tmp_path)
    with pytest.raises(InputError, match="holds no file that LeanDojo traced"):
        traces.find_traces(tmp_path)


def test_options_of_a_lakefile(tmp_path: Path) -> None:
    (tmp_path / "lakefile.toml").write_text(
        '[leanOptions]\nautoImplicit = true\nmaxSynthPendingDepth = 3\npp.unicode.fun = true\nweak.x = 1\na.b = "c"\n'
    )
    assert traces.options_of(tmp_path) == {"autoImplicit": "true", "maxSynthPendingDepth": "3", "a.b": '"c"'}


def stand_in(folder: Path, trace: Path | None = None) -> Path:
    """``lake`` and ``lean`` that put the trace in ``trace`` where they are asked to extract."""
    folder.mkdir()
    failing = 'echo "error: Small.lean:1:0: bad" >&2; exit 1'
    modules = ".lake/build/lib/lean/Small"
    scripts = {
        "lean": f'[ "$1" = --version ] && echo "Lean (version 4.20.0, x)" || echo "{folder}/prefix"',
        "lake": f"""case "$1 $2" in
            "env lean") cp -r "{trace}" .lake/ ;;
            "exe cache") exit 1 ;;
            "build ") [ ! -e broken ] || {{ {failing}; }}
                mkdir -p {modules} && touch {modules}/Basic.olean {modules}/More.olean {modules}/Broken.olean ;;
            esac""",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "prefix").mkdir()
    return folder


@needs_lean_dojo
def test_lean_dojo_reads_what_was_recorded(tmp_path: Path) -> None:
    project = write_project(tmp_path / "small")
    with traces.reading(project, traces.find_traces(project)) as files:
        assert list(files) == recorded()


@needs_lean_dojo
def test_finished_traces_are_read_alike(tmp_path: Path) -> None:
    """``*.trace.xml``, as LeanDojo leaves them in its cache; of files whose syntax is too new for it there are none."""
    project = write_project(tmp_path / "small")
    (project / ".lake/build/ir/Small/Broken.ast.json").unlink()
    script = (
        "from pathlib import Path\nfrom lean_dojo.data_extraction.traced_data import TracedFile\n"
        "file = Path('.lake/build/ir/Small/Basic.ast.json').resolve()\n"
        "made = TracedFile.from_traced_file(Path.cwd(), file, None).to_xml()\n"
        "Path('.lake/build/ir/Small/Basic.trace.xml').write_text(made)\n"
    )
    environment = {**os.environ, "CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", script], cwd=project, env=environment, check=True, capture_output=True)
    names = traces.find_traces(project)
    assert [Path(name).name for name in names] == ["Basic.trace.xml", "More.ast.json"]
    with traces.reading(project, names) as files:
        assert list(files) == [file for file in recorded() if file.error is None]


@needs_lean_dojo
def test_a_traced_folder_by_the_command(tmp_path: Path) -> None:
    project = write_project(tmp_path / "small")
    out = tmp_path / "out"
    said = extract(project, "--traced", "--out", out)
    assert "1 of 3 traces cannot be read by LeanDojo; the first: Small/Broken.lean: JSONDecodeError" in said
    assert f"problems: {out}/problems (11 problems, 2 no problem: mutual" in said
    recipe = read_manifest(out / "traced").recipe
    assert (recipe["toolchain"], recipe["lean_dojo"]) == ("leanprover/lean4:v4.20.0", "4.20.0")
    assert len(recipe["commit"]) == 40
    made = {path: path.read_bytes() for path in out.rglob("*.jsonl")}
    # A run that was killed: one shard, and what was made of all, are missing.
    (out / "traced/00001.jsonl").unlink()
    (out / "traced/artifact.json").unlink()
    shutil.rmtree(out / "tactics")
    (out / "examples/artifact.json").unlink()
    before = (out / "traced/00000.jsonl").stat().st_mtime_ns
    assert "read traces: 1 files" in extract(project, "--traced", "--out", out)
    assert (out / "traced/00000.jsonl").stat().st_mtime_ns == before
    assert {path: path.read_bytes() for path in out.rglob("*.jsonl")} == made
    said = extract(project, "--traced", "--out", out, "--option", "autoImplicit=true", code=2)
    assert "options.autoImplicit" in said and "--clean" in said
    extract(project, "--traced", "--out", out, "--option", "autoImplicit=true", "--clean")
    assert "set_option autoImplicit true" in (out / "problems/00000.jsonl").read_text()


@needs_lean_dojo
def test_lean_dojo_is_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token would have it call GitHub as it is imported; its cache would lie in the home directory."""
    project = write_project(tmp_path / "small")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GITHUB_ACCESS_TOKEN", "a token that nobody gave")
    read_traces(tmp_path / "out", folder=project, source="small", progress=Silent())
    assert not list(home.iterdir())
    assert "lean_dojo" not in sys.modules and "loguru" not in sys.modules
    assert os.environ["GITHUB_ACCESS_TOKEN"]


@needs_lean_dojo
def test_a_reader_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_project(tmp_path / "small")
    # LeanDojo looks for git as it is imported.
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ProverError, match=r"LeanDojo's reader ended with code 1 after 0 of 3 files: .*git"):
        read_traces(tmp_path / "out", folder=project, source="small", progress=Silent())


@needs_lean_dojo
def test_traces_that_nobody_can_read(tmp_path: Path) -> None:
    project = write_project(tmp_path / "small")
    for path in (project / ".lake/build/ir/Small").glob("*.ast.json"):
        path.write_text(json.dumps({"commandASTs": [], "tactics": []}))
    said = extract(project, "--traced", "--out", tmp_path / "out", code=2)
    assert "LeanDojo 4.20.0 can read none of its traces; the first: Small/Basic.lean: KeyError: 'premises'" in said


@needs_lean_dojo
def test_a_project_is_traced_once(tmp_path: Path) -> None:
    """LeanDojo's own tracing, with stand-ins for lake and lean that leave a trace made by hand."""
    project = write_project(tmp_path / "small")
    trace = project / ".lake" / "build"
    trace.rename(tmp_path / "build")
    (project / "Small/Basic.lean").open("a").write("-- not committed\n")
    tools = stand_in(tmp_path / "bin", tmp_path / "build")
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    out = tmp_path / "out"
    said = extract(project, "--out", out, PATH=path)
    assert "has changes that are not committed; they are left out" in said
    assert f"problems: {out}/problems (11 problems" in said
    assert not (project / ".lake/build").exists()
    (tools / "lake").write_text("#!/bin/sh\nexit 1\n")
    extract(project, "--out", out, PATH=path)


@needs_lean_dojo
def test_a_build_that_fails_is_one_line(tmp_path: Path) -> None:
    project = write_project(tmp_path / "small")
    (project / "broken").write_text("")
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for arguments in (["add", "."], [*identity, "commit", "-qm", "Broken"]):
        subprocess.run(["git", "-C", str(project), *arguments], check=True, capture_output=True)
    tools = stand_in(tmp_path / "bin", tmp_path)
    out = tmp_path / "out"
    said = extract(project, "--out", out, code=2, PATH=os.pathsep.join([str(tools), os.environ["PATH"]]))
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    log = out / "lean-dojo" / "trace.log"
    assert f"LeanDojo could not trace it: error: Small.lean:1:0: bad; all of it: {log}" in line
    assert "CalledProcessError" in log.read_text()


def test_a_folder_within_another_repository_has_no_commit_of_its_own(tmp_path: Path) -> None:
    """Its clone would not be the project, and commits of what is around it would refuse what was read of it."""
    project = write_project(tmp_path / "small")
    inner = project / "inner"
    inner.mkdir()
    assert traces.commit_of(project) and not traces.commit_of(inner)
    link = tmp_path / "link"
    link.symlink_to(project)
    assert traces.commit_of(link) == traces.commit_of(project)
