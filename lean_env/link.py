"""Links Lean's WebAssembly module once, at set-up, where its glue would do so in every thread of every start.

``lean.wasm`` exports 201,000 names, for the interpreter to find compiled functions by. Emscripten's glue makes a
JavaScript object of each, a table entry and a global, in each of the two threads: some 3 s of CPU time and 400 MB of
memory at each start. Here the exported functions are put into the module's own table, and their places (with the
addresses of exported data) into a file that the glue searches; of the exports only those stay that the glue uses.

Formats: WebAssembly core specification 2.0, section 5 (binary format).
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from lean_env.errors import ToolchainError

_TABLE, _IMPORT, _GLOBAL, _EXPORT, _ELEMENT = 4, 2, 6, 7, 9
_FUNCTION_KIND, _TABLE_KIND, _MEMORY_KIND, _GLOBAL_KIND, _TAG_KIND = range(5)
_FUNCREF, _I32, _I32_CONST, _END = 0x70, 0x7F, 0x41, 0x0B
_WORD = re.compile(rb"[A-Za-z_$][\w$]*")


class Linked(NamedTuple):
    """``wasm`` is the module; ``symbols`` has four parts, little-endian 32-bit numbers but for the last: their number,
    the start of each in the last part and the end of that, the value of each (a place in the table or an address), and
    the names themselves, in the order of their bytes."""

    wasm: bytes
    symbols: bytes


def link(wasm: bytes, glue: str) -> Linked:
    """The module as the patched ``glue`` (lean.js) is to run it. Raises ToolchainError if it is not what it expects."""
    if wasm[:8] != b"\0asm\1\0\0\0":
        raise ToolchainError("lean.wasm is not the one we know: it does not begin as WebAssembly does")
    sections = list(_sections(wasm))
    bodies = {kind: (start, end) for kind, start, end in sections if kind}
    if missing := {_TABLE, _IMPORT, _GLOBAL, _EXPORT, _ELEMENT} - bodies.keys():
        raise ToolchainError(f"lean.wasm is not the one we know: sections {sorted(missing)} are missing")
    reader = _Reader(wasm)
    reader.at = bodies[_IMPORT][0]
    imported_globals, imported_names = _imports(reader)
    reader.at = bodies[_GLOBAL][0]
    values = _constants(reader, imported_globals)
    reader.at = bodies[_ELEMENT][0]
    places = _elements(reader)
    reader.at = bodies[_TABLE][0]
    size = _table(reader)
    dynamic = wasm[sections[0][1] : sections[0][2]]  # dylink.0, which names what differs between threads
    used = {word.group() for word in _WORD.finditer(glue.encode())} | imported_names
    kept: list[bytes] = []
    symbols: dict[bytes, int] = {}
    added: list[int] = []
    reader.at = bodies[_EXPORT][0]
    for name, kind, index, raw in _exports(reader):
        if kind == _FUNCTION_KIND:
            if index not in places:
                places[index] = size + len(added)
                added.append(index)
            symbols[name] = places[index]
        elif kind == _GLOBAL_KIND and index in values:
            symbols[name] = values[index]
        if name in used or name in dynamic or name not in symbols or name.startswith(b"__"):
            kept.append(raw)
    if len(symbols) < 100_000:
        raise ToolchainError(f"lean.wasm is not the one we know: {len(symbols)} exports instead of some 201,000")
    new = {
        _TABLE: b"\1" + bytes([_FUNCREF, 0]) + _unsigned(size + len(added)),
        _EXPORT: _unsigned(len(kept)) + b"".join(kept),
        _ELEMENT: b"\2"
        + wasm[bodies[_ELEMENT][0] + 1 : bodies[_ELEMENT][1]]
        + bytes([0, _I32_CONST])
        + _signed(size)
        + bytes([_END])
        + _unsigned(len(added))
        + b"".join(map(_unsigned, added)),
    }
    parts = [wasm[:8]]
    for kind, start, end in sections:
        body = new.get(kind) or wasm[start:end]
        parts += [bytes([kind]), _unsigned(len(body)), body]
    return Linked(b"".join(parts), _packed(symbols))


def _packed(symbols: dict[bytes, int]) -> bytes:
    names = sorted(symbols)
    starts, end = [0], 0
    for name in names:
        end += len(name)
        starts.append(end)
    count = len(names)
    numbers = (count, *starts, *(symbols[name] for name in names))
    return struct.pack(f"<{2 * count + 2}I", *numbers) + b"".join(names)


class _Reader:
    """Reads a module's parts one after the other from ``at`` on."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """Unsigned LEB128."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def signed(self) -> int:
        start = self.at
        value = self.number()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def name(self) -> bytes:
        length = self.number()
        self.at += length
        return self.data[self.at - length : self.at]


def _sections(wasm: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each section's body."""
    reader = _Reader(wasm)
    reader.at = 8
    while reader.at < len(wasm):
        kind = reader.byte()
        size = reader.number()
        yield kind, reader.at, reader.at + size
        reader.at += size


def _imports(reader: _Reader) -> tuple[int, set[bytes]]:
    """How many globals are imported, and the names of all imports: the glue resolves some of them by the exports."""
    globals_, names = 0, set[bytes]()
    for _ in range(reader.number()):
        reader.name()
        names.add(reader.name())
        kind = reader.byte()
        if kind == _FUNCTION_KIND:
            reader.number()
        elif kind in (_TABLE_KIND, _MEMORY_KIND):
            if kind == _TABLE_KIND:
                reader.byte()
            bounded = reader.byte() & 1
            reader.number()
            if bounded:
                reader.number()
        elif kind == _GLOBAL_KIND:
            globals_ += 1
            reader.at += 2
        elif kind == _TAG_KIND:
            reader.byte()
            reader.number()
    return globals_, names


def _constants(reader: _Reader, first: int) -> dict[int, int]:
    """The values of the immutable globals, by index."""
    values: dict[int, int] = {}
    for index in range(first, first + reader.number()):
        type_, mutable, instruction = reader.byte(), reader.byte(), reader.byte()
        if instruction == _I32_CONST:
            value = reader.signed()
            if type_ == _I32 and not mutable:
                values[index] = value & 0xFFFFFFFF
        elif instruction == 0x42:  # i64.const
            reader.signed()
        elif instruction == 0x23:  # global.get
            reader.number()
        else:
            raise ToolchainError(f"lean.wasm is not the one we know: a global begins with {instruction:#x}")
        if reader.byte() != _END:
            raise ToolchainError("lean.wasm is not the one we know: a global of more than one instruction")
    return values


def _elements(reader: _Reader) -> dict[int, int]:
    """Place in the table by index of the function, of the one segment there is."""
    if (reader.number(), reader.number(), reader.byte()) != (1, 0, _I32_CONST):
        raise ToolchainError("lean.wasm is not the one we know: its table is filled in another way")
    offset = reader.signed()
    if reader.byte() != _END:
        raise ToolchainError("lean.wasm is not the one we know: its table begins elsewhere")
    return {reader.number(): offset + place for place in range(reader.number())}


def _table(reader: _Reader) -> int:
    """Size of the one table there is, which may grow without end."""
    if (reader.number(), reader.byte(), reader.byte()) != (1, _FUNCREF, 0):
        raise ToolchainError("lean.wasm is not the one we know: another table")
    return reader.number()


def _exports(reader: _Reader) -> Iterator[tuple[bytes, int, int, bytes]]:
    """Name, kind, index and the very bytes of each export."""
    for _ in range(reader.number()):
        start = reader.at
        name, kind, index = reader.name(), reader.byte(), reader.number()
        yield name, kind, index, reader.data[start : reader.at]


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    """Of a number that is not negative."""
    return _unsigned(value) if value >> (7 * len(_unsigned(value)) - 1) == 0 else _padded(value)


def _padded(value: int) -> bytes:
    raw = bytearray(_unsigned(value))
    raw[-1] |= 0x80
    return bytes(raw) + b"\0"
