"""The one door to libc: numbers of system calls, and a checked call.

Numbers are kept per full machine name. System calls that are younger than the unified table (424 and up) have the
same number everywhere; the older ones are listed by machine. Source: syscalls(2), arch/*/entry/syscalls in the kernel.
"""

from __future__ import annotations

import ctypes
import os

from ..errors import SyscallError, UnsupportedError

libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter's lock during the call: needed for a clone that returns twice.
pylibc = ctypes.PyDLL(None, use_errno=True)

MACHINE = os.uname().machine

_UNIFIED = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "statmount": 457,
    "listmount": 458,
}
_BY_MACHINE = {
    "x86_64": {
        "capget": 125,
        "capset": 126,
        "pivot_root": 155,
        "keyctl": 250,
        "unshare": 272,
        "mknodat": 259,
        "setns": 308,
        "seccomp": 317,
        "memfd_create": 319,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
    },
    "aarch64": {
        "capget": 90,
        "capset": 91,
        "pivot_root": 41,
        "keyctl": 219,
        "unshare": 97,
        "mknodat": 33,
        "setns": 268,
        "seccomp": 277,
        "memfd_create": 279,
        "setgroups": 159,
        "setresuid": 147,
        "setresgid": 149,
    },
}

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_pysyscall = pylibc.syscall
_pysyscall.restype = ctypes.c_long


def number(name: str) -> int:
    """The number of the system call ``name`` on this machine.

    Raises UnsupportedError on a machine whose table isn't here: there is no default number.
    """
    found = _UNIFIED.get(name)
    if found is not None:
        return found
    table = _BY_MACHINE.get(MACHINE)
    if table is None:
        raise UnsupportedError(f"machine {MACHINE}", "cellwall knows x86_64 and aarch64")
    return table[name]


def syscall(name: str, *arguments: object, what: str = "", door: object = _syscall) -> int:
    """Make the system call ``name`` and return its result; raise SyscallError(errno, ``what``) where it failed.

    Integers are passed as C longs, bytes as pointers to them, ``None`` as a null pointer; ctypes values as they are.
    """
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = door(ctypes.c_long(number(name)), *converted)  # type: ignore[operator]
    if result < 0:
        raise SyscallError(ctypes.get_errno(), what or name)
    return result


def syscall_holding_lock(name: str, *arguments: object, what: str = "") -> int:
    """As ``syscall``, without giving up the interpreter's lock: for clone3, whose child goes on in Python."""
    return syscall(name, *arguments, what=what, door=_pysyscall)


def check(result: int, what: str) -> int:
    """Return ``result`` of a libc function, or raise SyscallError(errno, ``what``) where it is negative."""
    if result < 0:
        raise SyscallError(ctypes.get_errno(), what)
    return result
