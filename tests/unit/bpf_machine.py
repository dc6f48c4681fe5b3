"""A machine for seccomp's subset of classic BPF, and libseccomp as a second compiler: what the filter tests judge by.

Source: the kernel's Documentation/networking/filter.rst and seccomp_check_filter(); seccomp_rule_add(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000


def unpack(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", program))


def run(
    program: list[tuple[int, int, int, int]], arch: int, number: int, args: tuple[int, ...] = ()
) -> tuple[int, int]:
    """What ``program`` returns for a system call, and how many instructions that took."""
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(*args, *[0] * (6 - len(args))))
    place = accumulator = steps = 0
    while True:
        code, yes, no, value = program[place]
        steps += 1
        place += 1
        match code:
            case 0x20:
                assert value % 4 == 0
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x06:
                return value, steps
            case 0x05:
                place += value
            case 0x15:
                place += yes if accumulator == value else no
            case 0x25:
                place += yes if accumulator > value else no
            case 0x35:
                place += yes if accumulator >= value else no
            case 0x45:
                place += yes if accumulator & value else no
            case 0x54:
                accumulator &= value
            case _:
                raise AssertionError(f"instruction {code:#x} isn't one that the compilers use")


class _Arg(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
_TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_ATTRIBUTE_BAD_ARCHITECTURE = 2


def libseccomp() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Arg),
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def resolve(architecture: str, name: str) -> int:
    """libseccomp's number of ``name``; negative where it has none, or a made-up one."""
    number: int = libseccomp().seccomp_syscall_resolve_name_arch(_TOKENS[architecture], name.encode())
    return number


def peer_compile(profile: dict[str, Any], value_of: Any) -> bytes:
    """``profile`` as runc would have libseccomp compile it; ``value_of(action, errnoRet)`` is the filter's return value."""
    library = libseccomp()
    default = value_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    assert context
    try:
        names = profile.get("architectures") or []
        for name in names:
            library.seccomp_arch_add(context, _TOKENS[name])
        for token in (0xC000003E, 0xC00000B7):
            if names and token not in [_TOKENS[name] for name in names]:
                library.seccomp_arch_remove(context, token)
        library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCHITECTURE, KILL_PROCESS)
        for entry in profile["syscalls"]:
            action = value_of(entry["action"], entry.get("errnoRet"))
            if action == default:
                continue
            args = [
                _Arg(a["index"], _OPERATORS[a["op"].removeprefix("SCMP_CMP_")], a["value"], a.get("valueTwo", 0))
                for a in entry.get("args") or []
            ]
            split = len({arg.arg for arg in args}) < len(args)
            for name in entry["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number == -1:
                    continue
                for group in [[arg] for arg in args] if split else [args]:
                    array = (_Arg * len(group))(*group)
                    code = library.seccomp_rule_add_array(context, action, number, len(group), array)
                    # Rules that exist already, and names of another machine (EDOM), are as runc takes them.
                    assert -code in (0, errno.EEXIST, errno.EDOM), (name, entry, code)
        fd = os.memfd_create("filter")
        try:
            assert library.seccomp_export_bpf(context, fd) == 0
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
    finally:
        library.seccomp_release(context)
