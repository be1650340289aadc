"""Linking lean.wasm: on a module made by hand, and, where Lean is installed, on what was really made."""

import struct
from pathlib import Path

import pytest

from lean_env import link as linking
from lean_env.errors import ToolchainError
from lean_env.toolchain import find


def symbols(data: bytes) -> dict[bytes, int]:
    (count,) = struct.unpack_from("<I", data)
    numbers = struct.unpack_from(f"<{2 * count + 1}I", data, 4)
    names = data[8 * count + 8 :]
    return {names[numbers[i] : numbers[i + 1]]: numbers[count + 1 + i] for i in range(count)}


def section(kind: int, body: bytes) -> bytes:
    return bytes([kind, len(body)]) + body


def export(name: bytes, kind: int, index: int) -> bytes:
    return bytes([len(name)]) + name + bytes([kind, index])


SMALL = b"\0asm\1\0\0\0" + b"".join(
    (
        section(0, b"\x08dylink.0"),
        section(1, bytes([1, 0x60, 0, 0])),
        section(2, bytes([1, 3]) + b"env" + bytes([1]) + b"f" + bytes([0, 0])),  # function 0 is imported
        section(3, bytes([3, 0, 0, 0])),
        section(4, bytes([1, 0x70, 0, 2])),
        section(6, bytes([2, 0x7F, 0, 0x41, 0xE4, 0, 0x0B, 0x7F, 1, 0x41, 7, 0x0B])),  # 100, and one that may change
        section(
            7,
            bytes([7])
            + b"".join(
                (
                    export(b"in_table", 0, 1),
                    export(b"alias", 0, 2),
                    export(b"not_in_table", 0, 2),
                    export(b"used", 0, 3),
                    export(b"data", 3, 0),
                    export(b"changes", 3, 1),
                    export(b"table", 1, 0),
                )
            ),
        ),
        section(9, bytes([1, 0, 0x41, 1, 0x0B, 1, 1])),  # place 1 holds function 1
        section(10, bytes([3, 2, 0, 0x0B, 2, 0, 0x0B, 2, 0, 0x0B])),
    )
)


def test_exports_become_places_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "FEWEST", 1)
    linked = linking.link(SMALL, "run(used)")
    assert symbols(linked.symbols) == {b"in_table": 1, b"alias": 2, b"not_in_table": 2, b"used": 3, b"data": 100}
    again = linking.link(linked.wasm, "nothing")
    assert symbols(again.symbols) == {b"used": 3}, "of the exports only what the glue uses is left"
    assert b"changes" in linked.wasm and b"alias" not in linked.wasm
    assert linked.wasm.count(bytes([9, 12, 2, 0, 0x41, 1, 0x0B, 1, 1, 0, 0x41, 2, 0x0B, 2, 2, 3])) == 1
