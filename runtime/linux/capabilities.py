"""Capabilities of the calling thread: the five sets, by the names that OCI bundles use (``CAP_CHOWN``).

A name that this kernel doesn't know is left out when it is dropped and refused when it is asked for; a capability that
the process doesn't have can't be given, so every set is intersected with what there is.
Source: capabilities(7), capget(2), prctl(2) PR_CAPBSET_DROP and PR_CAP_AMBIENT, linux/capability.h.
"""

from __future__ import annotations

import ctypes
from errno import EINVAL, EPERM

from ..errors import SpecError, SyscallError
from .libc import syscall
from .process import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# In bit order: the position is the number of the capability.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
_BIT = {name: number for number, name in enumerate(NAMES)}
_VERSION_3 = 0x20080522


def mask(names: Iterable[str]) -> int:
    """The bits of ``names``; raises SpecError for a name that isn't a capability."""
    bits = 0
    for name in names:
        number = _BIT.get(name)
        if number is None:
            raise SpecError("process.capabilities", f"{name!r} is not a capability")
        bits |= 1 << number
    return bits


def names(bits: int) -> tuple[str, ...]:
    """The names of the bits that are set, in bit order; a bit without a name is ``CAP_<number>``."""
    return tuple(
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    )


def capget(pid: int = 0) -> tuple[int, int, int]:
    """The effective, permitted and inheritable set of ``pid`` (0: the calling thread), as bits. Source: capget(2)."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, pid)
    data = (ctypes.c_uint32 * 6)()
    syscall("capget", ctypes.byref(header), ctypes.byref(data), what=f"capget {pid}")
    return data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's three sets, given as bits. Source: capget(2)."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low = 0xFFFFFFFF
    data = (ctypes.c_uint32 * 6)(
        effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )
    syscall("capset", ctypes.byref(header), ctypes.byref(data), what=f"capset {permitted:#x}")


def bounding() -> int:
    """The bounding set of the calling thread, as bits. Source: prctl(2) PR_CAPBSET_READ."""
    bits = 0
    for number in range(64):
        try:
            if prctl(PR_CAPBSET_READ, number):
                bits |= 1 << number
        except SyscallError as err:
            if err.errno != EINVAL:
                raise
            break  # the first number that this kernel doesn't know
    return bits


def limit_bounding(keep: Iterable[str]) -> None:
    """Drop every capability but ``keep`` from the bounding set, also those younger than this table.

    Needs CAP_SETPCAP in the effective set: do it before a change of user. Source: prctl(2) PR_CAPBSET_DROP.
    """
    kept = mask(keep)
    for number in range(64):
        if kept >> number & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except SyscallError as err:
            # The first number that this kernel doesn't know; or CAP_SETPCAP is missing, and with it all that is to be dropped.
            if err.errno == EINVAL or (err.errno == EPERM and not bounding() & ~kept):
                return
            raise


def hold(
    permitted: Iterable[str],
    effective: Iterable[str] | None = None,
    inheritable: Iterable[str] = (),
    ambient: Iterable[str] = (),
) -> None:
    """Have exactly these sets (``effective`` None: all of ``permitted``), each intersected with what the thread has.

    An ambient capability must be permitted and inheritable as well, so those that aren't are left out.
    Source: capabilities(7), "Thread capability sets"; prctl(2) PR_CAP_AMBIENT.
    """
    _, has, inherits = capget()
    permitted_bits = mask(permitted) & has
    effective_bits = permitted_bits if effective is None else mask(effective) & permitted_bits
    # Without CAP_SETPCAP the inheritable set can't grow beyond itself and the permitted one; with it, beyond the
    # bounding set it can't.
    inheritable_bits = mask(inheritable) & (permitted_bits | inherits)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    capset(effective_bits, permitted_bits, inheritable_bits)
    ambient_bits = mask(ambient) & permitted_bits & inheritable_bits
    for number in range(ambient_bits.bit_length()):
        if ambient_bits >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def limit_to(keep: Sequence[str]) -> None:
    """Have ``keep`` and no more in the bounding, permitted and effective sets; nothing inheritable or ambient.

    Inheritable stays empty as in docker since CVE-2022-24769: with it, a file that has inheritable bits would give
    them to an unprivileged user in the container.
    """
    limit_bounding(keep)
    hold(keep)


def apply_bundle(sets: Mapping[str, Sequence[str]]) -> None:
    """Have the sets of a bundle's ``process.capabilities`` (``bounding effective inheritable permitted ambient``).

    A set that isn't named is empty. Where the user changes in between, call ``limit_bounding`` before and ``hold`` after.
    Source: runtime-spec config.md#linux-process.
    """
    limit_bounding(sets.get("bounding") or ())
    hold(
        sets.get("permitted") or (),
        sets.get("effective") or (),
        sets.get("inheritable") or (),
        sets.get("ambient") or (),
    )
