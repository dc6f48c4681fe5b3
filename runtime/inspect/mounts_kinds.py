"""What a mount is to a person: a bind, a volume, a path that is hidden or read-only, memory, a device, the kernel's own.

Told from what the kernel says of the mount, and of this process's own mounts, where a bind's folder is looked up.
Source: proc_pid_mountinfo(5); runtime-spec config-linux.md#masked-paths, #readonly-paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .mounts_table import Row, hidden_by

# What the kernel shows of itself. Source: filesystems(5), /proc/filesystems
_KERNEL = frozenset(
    "proc sysfs cgroup cgroup2 devpts mqueue securityfs selinuxfs debugfs tracefs bpf bpffs configfs pstore efivarfs "
    "fusectl hugetlbfs binfmt_misc autofs nsfs rpc_pipefs pipefs sockfs nfsd resctrl".split()
)
_LAYERED = ("overlay", "aufs", "fuse.fuse-overlayfs")
# A tmpfs that holds the folders of version 1.
_CGROUPS = "/sys/fs/cgroup"
# kind: what it means. The order is that of legends.
KINDS = {
    "root": "the root of the tree",
    "layers": "layers of an image, one over the other",
    "volume": "a volume, which outlives the container",
    "bind": "a folder or file of the machine",
    "file": "a small file made for this container",
    "tmpfs": "memory, gone at the end",
    "device": "a device",
    "devices": "a folder of devices of its own",
    "masked": "hides what the kernel has there",
    "read-only": "the kernel's own, made read-only",
    "kernel": "what the kernel shows of itself",
    "disk": "a filesystem of its own",
}


class Places:
    """Where this process sees what a filesystem has: from the rows of its own mountinfo."""

    def __init__(self, rows: Sequence[Row]) -> None:
        covered = hidden_by(rows)
        self._order = {row.id: at for at, row in enumerate(rows)}
        # The first of those that mount the same part of a filesystem, by both.
        self._of: dict[tuple[str, str], Row] = {}
        for row in rows:
            if row.id not in covered:
                self._of.setdefault((row.device, row.root), row)

    def path_of(self, row: Row) -> str:
        """A path of this process that leads to what ``row`` mounts; empty where none does."""
        # Rows stand in the order of their making: in its own namespace a mount isn't a bind of what came later.
        own = self._order.get(row.id, len(self._order))
        part = row.root
        while True:
            here = self._of.get((row.device, part))
            if here is not None and self._order[here.id] < own:
                return (here.target.rstrip("/") + row.root[len(part.rstrip("/")) :]).rstrip("/") or "/"
            if part == "/" or "/" not in part:
                return ""
            part = part.rpartition("/")[0] or "/"


def volume_of(path: str, volumes: str) -> str:
    """The name of the volume below the folder ``volumes`` that ``path`` is in; empty where it is in none."""
    inside = path.removeprefix(f"{volumes.rstrip('/')}/")
    name, _, rest = inside.partition("/")
    return name if inside != path and (rest == "_data" or rest.startswith("_data/")) else ""


def kind_of(row: Row, parent: Row | None, place: str, volume: str, is_device: Callable[[], str]) -> str:
    """One of ``KINDS``. ``place`` is where this process sees it; ``is_device`` answers ``c``, ``b``, ``null`` (1:3) or nothing."""
    if parent is None:
        return "root"
    if parent.filesystem in ("proc", "sysfs"):
        if row.device == parent.device and row.is_readonly:
            return "read-only"
        if _masks(row, is_device):
            return "masked"
    if row.filesystem in _KERNEL or row.target == _CGROUPS:
        return "kernel"
    if row.root != "/" and is_device():
        return "device"
    if volume:
        return "volume"
    if place:
        # The machine's own memory is no other than its disk: what stays there stays.
        return "bind"
    if row.filesystem in ("tmpfs", "devtmpfs", "ramfs"):
        if row.root != "/":
            return "file" if row.source == "cellwall" else "bind"
        return "devices" if row.filesystem == "devtmpfs" or row.target == "/dev" else "tmpfs"
    if row.root != "/":
        return "bind"
    return "layers" if row.filesystem in _LAYERED else "disk"


def _masks(row: Row, is_device: Callable[[], str]) -> bool:
    """Whether it hides what is beneath it in /proc or /sys: an empty folder that stays empty, or /dev/null."""
    if row.filesystem not in ("tmpfs", "devtmpfs"):
        return False
    if row.root == "/":
        return row.is_readonly and row.target != _CGROUPS
    return is_device() == "null"
