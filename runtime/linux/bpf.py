"""The two uses of bpf(2) that a control group of version 2 needs: load a program for devices, attach it.

Source: bpf(2), include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os

from ..errors import SyscallError, UnsupportedError
from .libc import MACHINE, libc

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_DETACH = 9
_BPF_PROG_GET_FD_BY_ID = 13
_BPF_PROG_QUERY = 16
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_BPF_F_ALLOW_MULTI = 2
# Programs of one kind on one group; the kernel allows 64.
_MOST_PROGRAMS = 64


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
    ]


class _Attach(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    ]


class _Query(ctypes.Structure):
    _fields_ = [
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    ]


def _bpf(command: int, attributes: ctypes.Structure, what: str) -> int:
    if MACHINE not in _NUMBERS:
        raise UnsupportedError(f"bpf on machine {MACHINE}", "cellwall knows x86_64 and aarch64")
    result: int = libc.syscall(
        ctypes.c_long(_NUMBERS[MACHINE]),
        ctypes.c_long(command),
        ctypes.byref(attributes),
        ctypes.c_long(ctypes.sizeof(attributes)),
    )
    if result < 0:
        raise SyscallError(ctypes.get_errno(), what)
    return result


def load_device_program(instructions: bytes) -> int:
    """A descriptor of the loaded program, which the caller closes. Raises SyscallError (EPERM without CAP_BPF)."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    # No helper is called, so the license binds nothing.
    words = ctypes.create_string_buffer(b"MIT")
    attributes = _Load(
        prog_type=_BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(words),
        prog_name=b"cellwall_dev",
    )
    return _bpf(_BPF_PROG_LOAD, attributes, "load a BPF program for devices")


def replace_device_program(group_fd: int, program_fd: int) -> None:
    """Attach the program to the group of folder descriptor ``group_fd``, then take off those that it had before.

    Programs of the groups above stay in force: a device must be allowed by all of them. Raises SyscallError.
    """
    before = _attached(group_fd)
    _bpf(
        _BPF_PROG_ATTACH,
        _Attach(group_fd, program_fd, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI),
        "attach a BPF program for devices",
    )
    for number in before:
        fd = _bpf(_BPF_PROG_GET_FD_BY_ID, _Attach(target_fd=number), f"open BPF program {number}")
        try:
            _bpf(_BPF_PROG_DETACH, _Attach(group_fd, fd, _BPF_CGROUP_DEVICE, 0), f"detach BPF program {number}")
        finally:
            os.close(fd)


def _attached(group_fd: int) -> list[int]:
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    query = _Query(
        target_fd=group_fd, attach_type=_BPF_CGROUP_DEVICE, prog_ids=ctypes.addressof(ids), prog_cnt=_MOST_PROGRAMS
    )
    _bpf(_BPF_PROG_QUERY, query, "list the BPF programs of a group")
    return list(ids[: query.prog_cnt])
