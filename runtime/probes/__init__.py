"""What this machine can and can't do: one probe per feature, each a real question to the kernel, kept once answered.

Nothing stays behind: what a probe makes is in namespaces of a process that ends (``attempt.py``). The same probes answer
`cellwall doctor`, the first cell's warnings and the tests' ``needs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..cgroups.hierarchy import hierarchy
from . import attempt, cgroups, commands, identity, kernel, network, storage
from .probe import Answer, Probe, Status

__all__ = ["Probe", "Status", "answer", "forget", "names", "probe", "run_all", "sections"]

_FUNCTIONS: dict[str, Callable[[], Answer]] = (
    identity.PROBES | kernel.PROBES | cgroups.PROBES | storage.PROBES | network.PROBES | commands.PROBES
)
_known: dict[str, Probe] = {}

# What doctor lists, in its order. A word that is left out here is for tests, and would tell a user nothing.
_LISTED = {
    "machine": ("kernel", "python", "user", "capabilities", "disk-space"),
    "isolation": (
        "user-namespaces",
        "uidmap",
        "subids",
        "namespaces",
        "seccomp",
        "proc-mount",
        "clone3",
        "pidfd",
        "openat2",
        "close-range",
    ),
    "limits": (
        "cgroups",
        "cgroup-write",
        *(f"cgroup-{name.replace('_', '-')}" for name in cgroups.CONTROLLERS),
        "cgroup-kill",
        "swap-accounting",
        "pressure",
    ),
    "storage": (
        "overlay",
        "overlay-userns",
        "overlay-lowerdir-plus",
        "idmapped-mounts",
        "new-mount-api",
        "tmpfs",
        "erofs",
        "btrfs",
        "fuse",
    ),
    "storage drivers": (
        "driver-overlay",
        "driver-erofs",
        "driver-fuse-overlayfs",
        "driver-btrfs",
        "driver-vfs",
        "driver-aufs",
        "driver-devicemapper",
    ),
    "network": (
        "network-namespaces",
        "bridge-links",
        "veth-links",
        "nftables-nat",
        "forwarding",
        "tun",
        "pasta",
        "slirp4netns",
    ),
    "programs": ("mmdebstrap", "debootstrap", "skopeo", "crun", "runc", "fuse-overlayfs"),
}


def names() -> tuple[str, ...]:
    """Every word that ``probe`` and ``answer`` know."""
    return tuple(_FUNCTIONS)


def probe(name: str) -> Probe:
    """What this machine has of ``name``. Asked once per process (see ``forget``). Raises KeyError on an unknown name."""
    if name not in _known:
        status, detail, mend = _FUNCTIONS[name]()
        _known[name] = Probe(name, status, detail, mend)
    return _known[name]


def answer(word: str) -> str | None:
    """Why this machine doesn't have ``word``, with what mends it; None where it has. Raises KeyError on an unknown word."""
    found = probe(word)
    if found.status == "ok":
        return None
    return f"{found.detail} ({found.mend})" if found.mend else found.detail


def run_all() -> list[Probe]:
    """Every probe that doctor lists, in its order."""
    return [found for _, listed in sections() for found in listed]


def sections() -> Iterator[tuple[str, list[Probe]]]:
    """The heading and the probes of each part of doctor's list."""
    attempt.attempt_all()
    for heading, listed in _LISTED.items():
        yield heading, [probe(name) for name in listed]


def forget() -> None:
    """Ask anew: the machine may have been mended."""
    _known.clear()
    attempt.forget()
    hierarchy(fresh=True)
