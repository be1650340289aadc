"""A worker without Lean, for probing what confines one: it speaks the protocol, opens its channel as Check.lean does, and
runs the Python text that it is sent. Its reply says what came of it: the value, or the name of the error.
"""

import errno
import json
import os
from typing import Any


def outcome(code: str, scope: dict[str, Any]) -> str:
    try:
        return str(eval(code, scope))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except MemoryError:
        return "MemoryError"


def main() -> None:
    verdicts = open(os.environ["PROVER_VERDICT"], "ab", buffering=0)  # noqa: PTH123, SIM115
    requests = open(os.environ["PROVER_REQUEST"], "rb", buffering=0)  # noqa: PTH123, SIM115
    import ctypes
    import mmap
    import signal
    import socket
    import subprocess
    import threading

    libc = ctypes.CDLL(None, use_errno=True)
    libc.pthread_self.restype = ctypes.c_void_p
    libc.pthread_getattr_np.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

    def call(number: int, *arguments: Any) -> str:
        """A system call of the C library's, by number."""
        done = libc.syscall(number, *arguments)
        return errno.errorcode[ctypes.get_errno()] if done < 0 else "done"

    def in_thread(act: Any) -> str:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(act()))
        thread.start()
        thread.join()
        return str(found[0])

    def filled(megabytes: int) -> str:
        """Memory that is written to, and stays."""
        held = mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, len(held), 4096):
            held[page] = 1
        scope["held"] = held
        return "filled"

    scope: dict[str, Any] = {
        "os": os, "socket": socket, "subprocess": subprocess, "signal": signal, "call": call, "filled": filled,
        "in_thread": in_thread, "open": open, "fds": [verdicts.fileno(), requests.fileno()], "libc": libc,
        "pthread_stack": lambda: libc.pthread_getattr_np(libc.pthread_self(), ctypes.create_string_buffer(256)),
    }  # fmt: skip
    verdicts.write(b'{"ready": true, "version": "probe"}\n')
    buffer = b""
    while data := requests.read(65536):
        buffer += data
        if buffer.endswith(b"\n"):
            request = json.loads(buffer)
            buffer = b""
            reply = {"nonce": request["nonce"], "said": outcome(request["code"], scope)}
            verdicts.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
