"""Loads a compiled seccomp filter into the calling thread.

The program comes from ``runtime/security/seccomp.py``; this module only hands it to the kernel, so the launcher needs
no compiler. Source: seccomp(2), linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno

from ..errors import SpecError, SyscallError
from .libc import syscall

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2

SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

# sizeof(struct sock_filter), and BPF_MAXINSNS of linux/bpf_common.h.
INSTRUCTION_BYTES = 8
MAX_INSTRUCTIONS = 4096


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def load(program: bytes, flags: int = 0) -> None:
    """Put the calling thread, and all that it starts, under the filter ``program`` for good.

    ``program`` is an array of struct sock_filter in the machine's byte order; ``flags`` are SECCOMP_FILTER_FLAG_*.
    The thread needs no_new_privs, or CAP_SYS_ADMIN in its user namespace: without no_new_privs load the filter before
    capabilities are dropped. Raises SyscallError (EACCES: neither is there; EINVAL: the kernel refuses the program).
    Source: seccomp(2) SECCOMP_SET_MODE_FILTER.
    """
    count, rest = divmod(len(program), INSTRUCTION_BYTES)
    if rest or not 0 < count <= MAX_INSTRUCTIONS:
        raise SpecError("linux.seccomp", f"a filter of {len(program)} bytes isn't 1 to {MAX_INSTRUCTIONS} instructions")
    header = _Program(count, program)
    what = f"seccomp filter of {count} instructions"
    syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(header), what=what)


def action_available(action: int) -> bool:
    """Whether this kernel knows the filter's return value ``action``. Source: seccomp(2) SECCOMP_GET_ACTION_AVAIL."""
    value = ctypes.c_uint32(action)
    try:
        syscall("seccomp", SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(value), what=f"seccomp action {action:#x}")
    except SyscallError as err:
        if err.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True
