"""The system calls that a Lean process may not make, as a filter program for the Linux kernel (seccomp).

A Lean that judges proofs computes, reads files, and makes threads. So the filter lets everything pass but what is named
here: it is a list of what is refused, because the list of what is needed differs between versions of Lean, Node and
glibc. It is put together by the driver and laid on by the launcher (:mod:`lean_env.sandbox`), which fills in what only
it knows: its own process id, and the address of the path that it executes.

A filter sees numbers, no paths and no memory behind pointers. Hence files may be opened for reading, and for appending,
which Lean's own channel needs: where the size of files is limited to 0, that can make an empty file at most.

Source: seccomp(2), linux/seccomp.h, linux/bpf_common.h, and the kernel's tables of system calls.
"""

import platform
import sys
from typing import NamedTuple

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes each, low half first

_ACCMODE, _CREAT, _TRUNC, _APPEND, _TMPFILE = 0o3, 0o100, 0o1000, 0o2000, 0o20000000
_CLONE_THREAD = 0x10000

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000

# name: number on x86-64, number on arm64; None where it has none.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # sockets and other ways to talk
    "socket": (41, 198), "socketpair": (53, 199), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # processes
    "fork": (57, None), "vfork": (58, None), "execveat": (322, 281), "ptrace": (101, 117), "kill": (62, 129),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272), "setpgid": (109, 154),
    "setsid": (112, 157), "setpriority": (141, 140), "personality": (135, 92),
    # users, name spaces, mounts
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "capset": (126, 91),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    # the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116), "iopl": (172, None),
    "ioperm": (173, None), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    # files: whatever changes one other than by writing to it
    "creat": (85, None), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip
# Answered as if the kernel did not know them, so that callers fall back on what can be looked at.
_UNKNOWN = {"clone3": (435, 435), "openat2": (437, 437)}
_CLONE, _TGKILL, _PRLIMIT, _EXECVE = (56, 220), (234, 131), (302, 261), (59, 221)
_OPEN, _OPENAT = (2, None), (257, 56)


class Filter(NamedTuple):
    """A program as (code, jump if true, jump if false, constant), and where the launcher's own constants belong."""

    program: tuple[tuple[int, int, int, int], ...]
    pid: tuple[int, ...]
    """Instructions that compare with the launcher's process id."""
    path: tuple[int, ...]
    """Instructions that compare with the address of the executed path: low half, high half. Empty: not compared."""


def available() -> bool:
    """Whether the kernel takes filters, and this architecture is one that we know the numbers of."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    errno_action = ctypes.c_uint32(_ERRNO)
    seccomp_call = 317 if platform.machine() == "x86_64" else 277
    get_action_avail = 2
    return bool(libc.syscall(seccomp_call, get_action_avail, 0, ctypes.byref(errno_action)) == 0)


def refusals(*, execute_once: bool) -> Filter:
    """The filter for this machine's architecture.

    With ``execute_once`` the launcher's own execve is the only one there can be: it is told by the address of its path,
    which the program that it starts has no means to know. A script needs more than one.
    """
    arch, column = _ARCHITECTURES[platform.machine()]
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if arch == _ARCHITECTURES["x86_64"][0]:
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    pid: list[int] = []
    path: list[int] = []
    for numbers, answer in [*((n, _EPERM) for n in _REFUSED.values()), *((n, _ENOSYS) for n in _UNKNOWN.values())]:
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | answer)]

    def rule(numbers: tuple[int | None, int | None], body: list[tuple[int, int, int, int]]) -> int:
        """``body`` for one call, which it must end; where it begins."""
        number = numbers[column]
        if number is None:
            return 0
        code.append((_EQUAL, 0, len(body), number))
        code.extend(body)
        return len(code) - len(body)

    refuse, allow = (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)
    rule(_CLONE, [_argument(0), (_AND, 0, 0, _CLONE_THREAD), (_EQUAL, 1, 0, 0), allow, refuse])
    pid.append(rule(_TGKILL, [_argument(0), (_EQUAL, 0, 1, 0), allow, refuse]) + 1)
    rule(_PRLIMIT, [_argument(0), (_EQUAL, 0, 1, 0), allow, refuse])
    for numbers, which in ((_OPEN, 1), (_OPENAT, 2)):
        rule(numbers, [
            _argument(which), (_AND, 0, 0, _ACCMODE | _CREAT | _TRUNC | _TMPFILE), (_EQUAL, 3, 0, 0),
            _argument(which), (_AND, 0, 0, _APPEND | _TRUNC | _TMPFILE), (_EQUAL, 0, 1, _APPEND), allow, refuse,
        ])  # fmt: skip
    if execute_once:
        begin = rule(_EXECVE, [
            _argument(0), (_EQUAL, 0, 3, 0), _argument(0, high=True), (_EQUAL, 0, 1, 0), allow, refuse,
        ])  # fmt: skip
        path = [begin + 1, begin + 3]
    code.append(allow)
    return Filter(tuple(code), tuple(pid), tuple(path))


def _argument(which: int, *, high: bool = False) -> tuple[int, int, int, int]:
    return _LOAD, 0, 0, _ARGUMENTS + 8 * which + 4 * high
