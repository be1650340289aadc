"""Artifacts: atomic shards, manifests last, recipes that refuse, one lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prover.artifacts import ArtifactWriter, disk_errors, find_artifact, open_artifact, read_manifest, run_lock
from prover.errors import ArtifactError, DiskError, InputError, RunLockedError
from prover.records import Problem

RECIPE = {"stage": "demo", "config": {"n": 3, "t": 1.0}}


def problem(name: str) -> Problem:
    return Problem(id=name, header="", formal_statement=f"theorem {name} : True")


def test_records_come_back_and_the_manifest_is_last(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path / "a", RECIPE, 2)
    writer.write(1, [problem("b"), problem("c")])
    assert writer.missing() == [0]
    assert not writer.artifact.finished
    with pytest.raises(ArtifactError, match="1 shards are still owed"):
        writer.finish({})
    writer.write(0, [problem("a")])
    artifact = writer.finish({"problems": 3})
    assert [p.id for p in artifact.read(Problem)] == ["a", "b", "c"]
    assert open_artifact(tmp_path / "a") == artifact
    assert read_manifest(tmp_path / "a").counts == {"problems": 3}


def test_a_half_done_artifact_goes_on_from_its_missing_shards(tmp_path: Path) -> None:
    ArtifactWriter(tmp_path / "a", RECIPE, 3).write(1, [problem("b")])
    (tmp_path / "a" / ".00000.jsonl.tmp").write_bytes(b'{"id": "torn')
    again = ArtifactWriter(tmp_path / "a", RECIPE, 3)
    assert again.missing() == [0, 2]
    again.write(0, [])
    again.write(2, [])
    assert [p.id for p in again.finish({}).read(Problem)] == ["b"]


def test_another_recipe_is_refused_by_the_changed_keys(tmp_path: Path) -> None:
    ArtifactWriter(tmp_path / "a", RECIPE, 1)
    with pytest.raises(ArtifactError, match=r"config\.n: 3 -> 4"):
        ArtifactWriter(tmp_path / "a", {"stage": "demo", "config": {"n": 4, "t": 1.0}}, 1)


def test_clean_empties_first(tmp_path: Path) -> None:
    old = ArtifactWriter(tmp_path / "a", RECIPE, 1)
    old.write(0, [problem("old")])
    old.finish({})
    other = {"stage": "demo", "config": {"n": 4}}
    new = ArtifactWriter(tmp_path / "a", other, 1, clean=True)
    assert new.finished is None
    assert new.missing() == [0]
    assert find_artifact(tmp_path / "a", other) is None


def test_fingerprint_follows_content_not_key_order(tmp_path: Path) -> None:
    one = ArtifactWriter(tmp_path / "a", {"stage": "s", "x": 1, "y": 2}, 0).artifact.fingerprint
    two = ArtifactWriter(tmp_path / "b", {"y": 2, "x": 1, "stage": "s"}, 0).artifact.fingerprint
    three = ArtifactWriter(tmp_path / "c", {"stage": "s", "x": 1, "y": 3}, 0).artifact.fingerprint
    assert one == two != three


def test_a_damaged_shard_names_file_and_line(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path / "a", RECIPE, 1)
    writer.write(0, [problem("a")])
    shard = writer.artifact.shard(0)
    shard.write_bytes(shard.read_bytes() + b'{"id": 3}\n')
    with pytest.raises(InputError, match=r"00000\.jsonl:2: field id"):
        list(writer.finish({}).read(Problem))


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from prover.artifacts import run_lock\n"
        "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(RunLockedError, match=rf"pid {holder.pid}\b"), run_lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with run_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(DiskError, match="No space left"), disk_errors(tmp_path), full.open("wb", buffering=0) as file:
        file.write(b"x")


def test_a_file_where_a_folder_should_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DiskError, match=rf"^{tmp_path}/file\S*: is in the way"), run_lock(place):
            pass
    with pytest.raises(DiskError, match="is in the way"):
        ArtifactWriter(tmp_path / "file", RECIPE, 1)


def test_a_missing_shard_names_what_brings_it_back(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path / "a", RECIPE, 1)
    writer.write(0, [problem("a")])
    artifact = writer.finish({})
    artifact.shard(0).unlink()
    with pytest.raises(ArtifactError, match=rf"delete {tmp_path}/a/artifact.json and run its stage again"):
        list(artifact.read(Problem))
    (artifact.path / "artifact.json").unlink()
    assert ArtifactWriter(tmp_path / "a", RECIPE, 1).missing() == [0]
