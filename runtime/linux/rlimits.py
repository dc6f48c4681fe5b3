"""Resource limits of the calling process, by the names that OCI bundles use (``RLIMIT_NOFILE``).

Numbers are those of asm-generic/resource.h, which x86_64 and aarch64 share. Source: setrlimit(2).
"""

from __future__ import annotations

import ctypes
import errno

from ..errors import SpecError, SyscallError
from .libc import check, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
# RLIM_INFINITY: what bundles may also write as -1.
INFINITY = 2**64 - 1


class _Limit(ctypes.Structure):
    """struct rlimit on 64-bit machines."""

    _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]


_getrlimit = libc.getrlimit
_getrlimit.argtypes = [ctypes.c_int, ctypes.POINTER(_Limit)]
_getrlimit.restype = ctypes.c_int
_setrlimit = libc.setrlimit
_setrlimit.argtypes = [ctypes.c_int, ctypes.POINTER(_Limit)]
_setrlimit.restype = ctypes.c_int


def rlimit_name(name: str) -> str:
    """The bundle's name of docker's ``--ulimit`` name: ``nofile`` is RLIMIT_NOFILE. Raises SpecError."""
    full = name.upper() if name.upper().startswith("RLIMIT_") else f"RLIMIT_{name.upper()}"
    if full not in RLIMITS:
        known = ", ".join(sorted(known.removeprefix("RLIMIT_").lower() for known in RLIMITS))
        raise SpecError("--ulimit", f"{name!r} is not a limit; the limits are {known}")
    return full


def getrlimit(name: str) -> tuple[int, int]:
    """The soft and hard limit ``name`` (RLIMIT_*); INFINITY is unlimited. Source: getrlimit(2)."""
    limit = _Limit()
    check(_getrlimit(_number(name), ctypes.byref(limit)), f"getrlimit {name}")
    return limit.soft, limit.hard


def setrlimit(name: str, soft: int, hard: int) -> None:
    """Set the limit ``name`` (RLIMIT_*); -1 is unlimited. Source: setrlimit(2)."""
    limit = _Limit(soft & INFINITY, hard & INFINITY)
    check(_setrlimit(_number(name), ctypes.byref(limit)), f"setrlimit {name} {_said(soft)}:{_said(hard)}")


def apply_bundle(limits: Iterable[Mapping[str, Any]]) -> list[str]:
    """Set a bundle's ``process.rlimits`` (``type``, ``soft``, ``hard``); return one sentence for each that was lowered.

    Without CAP_SYS_RESOURCE in the first user namespace a hard limit can't be raised: the limit is then set as high as
    it goes, and that is reported. Do it before the change of user namespace. A soft limit above its hard limit and an
    unknown type raise SpecError. Source: runtime-spec config.md#posix-process.
    """
    lowered = []
    for limit in limits:
        name = str(limit["type"])
        soft, hard = int(limit["soft"]) & INFINITY, int(limit["hard"]) & INFINITY
        _number(name)
        if soft > hard:
            raise SpecError("process.rlimits", f"{name}: soft limit {_said(soft)} is above hard limit {_said(hard)}")
        try:
            setrlimit(name, soft, hard)
        except SyscallError as err:
            # EPERM: the hard limit would rise. (nofile: also above fs.nr_open, whoever asks.)
            if err.errno != errno.EPERM:
                raise
            _, most = getrlimit(name)
            setrlimit(name, min(soft, most), min(hard, most))
            lowered.append(
                f"ulimit {name.removeprefix('RLIMIT_').lower()} is {_said(min(soft, most))}:{_said(min(hard, most))},"
                f" not {_said(soft)}:{_said(hard)}: this process can't raise its hard limit of {_said(most)}"
            )
    return lowered


def _number(name: str) -> int:
    number = RLIMITS.get(name)
    if number is None:
        raise SpecError("process.rlimits", f"{name!r} is not a limit")
    return number


def _said(value: int) -> str:
    return "unlimited" if value & INFINITY == INFINITY else str(value)
