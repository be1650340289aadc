"""From the configuration to the Lean that it means."""

from collections.abc import Callable
from pathlib import Path

from lean_env import native, toolchain
from lean_env.native import NativeToolchain
from lean_env.sandbox import Kind, confinement, require
from lean_env.toolchain import Toolchain
from prover.config import LeanConfig, NativeLean

OWN_PROJECT = Path(__file__).resolve().parent.parent
"""Where our own ``lakefile.lean`` lies."""


def kind_of(config: LeanConfig) -> Kind:
    return "native" if isinstance(config, NativeLean) else "embedded"


def open_lean(
    config: LeanConfig, *, require_sandbox: bool = False, say: Callable[[str], None] | None = None
) -> Toolchain | NativeToolchain:
    """The Lean of a configuration; a native one's worker is compiled on first use, of which ``say`` is told in a line.

    Raises ToolchainError where it is not to be had, and with ``require_sandbox`` SandboxError where this machine does
    not confine it in full.
    """
    if require_sandbox:
        require(kind_of(config))
    if isinstance(config, NativeLean):
        return native.find(config.project or OWN_PROJECT, None if say is None else lambda what, _: say(what))
    return toolchain.find()


def limits_in_force(config: LeanConfig) -> dict[str, str]:
    """Each layer of confinement by name: what it gives, or ``off:`` and why."""
    layers = confinement(kind_of(config))
    return {layer.name: layer.detail if layer.active else f"off: {layer.detail}" for layer in layers}
