"""``mounts [X]``: the mounts of a container, or of this process, as the kernel has them at this moment.

Facts are read from ``/proc/PID/mountinfo`` of the container's first process, id maps by statmount (linux/mount_stat.py); the kind of
a mount is told in mounts_kinds.py. How it looks is in mounts_text.py and mounts_html.py.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import CellwallError, SpecError
from ..linux.mount_stat import listmount, mount_namespace_id, statmount_ids
from .mounts_beneath import count_beneath
from .mounts_kinds import Places, kind_of, volume_of
from .mounts_table import Row, hidden_by, in_tree_order, rows_of
from .namespaces_facts import IdRange
from .namespaces_reading import id_map
from .process import ProcessFolder, process_of, running_container
from .view import COLUMNS, View

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..cli.parser import Parser
    from ..containers import Container, Containers
    from ..engine import Engine

USAGE = "[OPTIONS] [CONTAINER]"
# So many are in the data, in the tree's order; the twins show fewer (mounts_words.py), and say how many more there are.
MOST_MOUNTS = 1000
# So many are read at all: the tree is made of them.
MOST_READ = 20_000
MOST_DEVICES = 40
# Looking at what is there asks a server that may never answer.
_REMOTE = ("fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs")


@dataclass(frozen=True, slots=True)
class Shift:
    """``count`` ids from ``on_disk`` on, which this user namespace sees as those from ``shown`` on."""

    on_disk: int
    shown: int
    count: int


# The uid map of an idmapped mount, and its gid map.
Shifts = tuple[tuple[Shift, ...], tuple[Shift, ...]]


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount. ``root`` is the part of the filesystem that is mounted, ``path`` where this process sees that (empty: nowhere).

    ``hidden_by`` is the target of the mount that is over it (None: it can be seen), ``hides`` are the targets of those that it is over.
    ``uid_map`` and ``gid_map`` are an idmapped mount's: ids on the filesystem, and this user namespace's ids that they are shown as.
    ``beneath_entries`` and ``beneath_bytes`` are of the folder or file that it hides (None: not asked for, or not to be told).
    """

    id: int
    parent_id: int
    depth: int
    target: str
    kind: str
    filesystem: str
    source: str
    root: str
    device: str
    path: str
    volume: str
    options: tuple[str, ...]
    superblock_options: tuple[str, ...]
    propagation: str
    hidden_by: str | None = None
    hides: tuple[str, ...] = ()
    idmapped: bool = False
    uid_map: tuple[Shift, ...] = ()
    gid_map: tuple[Shift, ...] = ()
    beneath_entries: int | None = None
    beneath_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device in the container's ``/dev``; ``type`` is ``c`` or ``b``, ``mode`` as ``0666``."""

    path: str
    type: str
    major: int
    minor: int
    mode: str


@dataclass(frozen=True, slots=True)
class MountsView(View):
    """The mounts of a container (``id`` empty: of this process), a mount before what stands on it.

    ``count`` is how many there are, ``more`` how many of them aren't in ``mounts``. ``shared``: this process has the same mounts.
    ``uid_map`` and ``gid_map`` are the ids of the container and what this process sees them as.
    """

    name: str
    id: str
    pid: int
    namespace: int
    shared: bool
    count: int
    mounts: tuple[MountPoint, ...]
    more: int = 0
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    more_devices: int = 0

    def text(self, columns: int = COLUMNS) -> str:
        from .mounts_text import text

        return text(self, columns)

    def html(self) -> str:
        from .mounts_html import html

        return html(self)


def add_options(parser: Parser) -> None:
    parser.flag("--hidden", help="count what each mount hides of the folder or file beneath it; takes a moment longer")


def read(engine: Engine, said: argparse.Namespace, words: Sequence[str]) -> MountsView:
    if len(words) > 1:
        raise SpecError("mounts", f"one container at a time, and {len(words)} were named: {' '.join(words)}")
    return mounts_of(engine.known, words[0] if words else None, hidden=said.hidden)


def mounts_of(known: Containers, name: str | None = None, *, hidden: bool = False) -> MountsView:
    """The mounts of the running container ``name``, or of this process; with ``hidden`` what is beneath each is counted.

    Raises NotFound, StatusError where it doesn't run or ends meanwhile, CellwallError where it is another user's.
    """
    volumes = str(known.paths.volumes)
    if name is None:
        with ProcessFolder(os.getpid(), "this process") as process:
            return _read(process, None, volumes, hidden)
    container, found = running_container(known, name)
    with process_of(container, found) as process:
        return _read(process, container, volumes, hidden)


def _read(process: ProcessFolder, container: Container | None, volumes: str, hidden: bool) -> MountsView:
    own_namespace = os.stat("/proc/self/ns/mnt").st_ino
    try:
        namespace_fd = process.open("ns/mnt")
        try:
            namespace = os.fstat(namespace_fd).st_ino
            rows, count = rows_of(process.read("mountinfo"), MOST_READ)
            maps = _id_maps(rows, namespace_fd)
        finally:
            os.close(namespace_fd)
        shared = namespace == own_namespace
        if shared:
            here = rows
        else:
            with open("/proc/self/mountinfo", "rb") as file:
                here, _ = rows_of(file.read(), MOST_READ)
        points = _points(process, rows, Places(here), maps, volumes)
        if hidden:
            points = _with_beneath(process, points)
        devices, more_devices = _devices(process)
        uid_map, gid_map = id_map(process, "uid"), id_map(process, "gid")
        if process.link("ns/user") == os.readlink("/proc/self/ns/user"):
            # Of this process's own namespace a map tells what its ids are in the one above: here they are themselves.
            uid_map, gid_map = (
                tuple(IdRange(one.inside, one.inside, one.count) for one in ranges) for ranges in (uid_map, gid_map)
            )
        if process.is_ending():  # what was read of it last may be what was left of it
            raise process.ended()
    except OSError as error:
        if isinstance(error, CellwallError):
            raise
        raise process.error(error) from None
    return MountsView(
        name=container.name if container is not None else "",
        id=container.id if container is not None else "",
        pid=process.pid,
        namespace=namespace,
        shared=shared,
        count=count,
        mounts=points,
        more=count - len(points),
        uid_map=uid_map,
        gid_map=gid_map,
        devices=devices,
        more_devices=more_devices,
    )


def _points(
    process: ProcessFolder,
    rows: list[Row],
    places: Places,
    maps: dict[int, Shifts],
    volumes: str,
) -> tuple[MountPoint, ...]:
    by_id = {row.id: row for row in rows}
    covered = hidden_by(rows)
    covers: dict[int, list[str]] = {}
    for below, above in covered.items():
        covers.setdefault(above, []).append(by_id[below].target)
    found: list[MountPoint] = []
    for depth, row in in_tree_order(rows):
        if len(found) == MOST_MOUNTS:
            break
        parent = by_id.get(row.parent_id)
        path = places.path_of(row)
        volume = volume_of(path, volumes)
        kind = kind_of(
            row,
            None if parent is row else parent,
            path,
            volume,
            partial(_device_type, process, row, by_id, covered),
        )
        uids, gids = maps.get(row.id, ((), ()))
        found.append(
            MountPoint(
                id=row.id,
                parent_id=row.parent_id,
                depth=depth,
                target=row.target,
                kind=kind,
                filesystem=row.filesystem,
                source=row.source,
                root=row.root,
                device=row.device,
                path=path,
                volume=volume,
                options=row.options,
                superblock_options=row.superblock_options,
                propagation=row.propagation,
                hidden_by=by_id[covered[row.id]].target if row.id in covered else None,
                hides=tuple(covers.get(row.id, ())[:MOST_DEVICES]),
                idmapped=row.is_idmapped,
                uid_map=uids,
                gid_map=gids,
            )
        )
    return tuple(found)


def _with_beneath(process: ProcessFolder, points: tuple[MountPoint, ...]) -> tuple[MountPoint, ...]:
    """The mounts with what is beneath them; of the kernel's own filesystems what is there is told by no number."""
    by_id = {point.id: point for point in points}
    asked = [
        point
        for point in points
        if point.hidden_by is None
        and point.kind not in ("root", "kernel", "masked", "read-only")
        and point.parent_id in by_id
    ]
    found = count_beneath(process, [(by_id[point.parent_id].target, point.target) for point in asked])
    counted: dict[int, MountPoint] = {}
    for point, one in zip(asked, found, strict=True):
        if one is not None and one[0] == "entries":
            counted[point.id] = replace(point, beneath_entries=one[1])
        elif one is not None:
            counted[point.id] = replace(point, beneath_bytes=one[1])
    return tuple(counted.get(point.id, point) for point in points)


def _device_type(process: ProcessFolder, row: Row, by_id: dict[int, Row], covered: dict[int, int]) -> str:
    """What ``kind_of`` asks: whether a device is mounted there. Nothing that could wait for a server is looked at."""
    if row.id in covered:
        return ""
    step: Row | None = row
    while step is not None:
        if step.filesystem.startswith(_REMOTE) and step.parent_id in by_id:
            return ""
        above = by_id.get(step.parent_id)
        step = None if above is step else above
    try:
        fd = process.open_inside(row.target, os.O_PATH | os.O_NOFOLLOW)
    except OSError:  # not for this user to see, or moved meanwhile: it is told as what it is mounted from
        return ""
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if stat.S_ISBLK(found.st_mode):
        return "b"
    if not stat.S_ISCHR(found.st_mode):
        return ""
    return "null" if (os.major(found.st_rdev), os.minor(found.st_rdev)) == (1, 3) else "c"


def _devices(process: ProcessFolder) -> tuple[tuple[DeviceNode, ...], int]:
    """The devices that lie in the process's ``/dev``, by name, and how many more there are. None where it can't be read."""
    try:
        fd = process.open_inside("/dev", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    except OSError:
        return (), 0
    found = []
    try:
        for name in sorted(os.listdir(fd)):
            try:
                known = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:  # removed meanwhile
                continue
            if stat.S_ISCHR(known.st_mode) or stat.S_ISBLK(known.st_mode):
                kind = "b" if stat.S_ISBLK(known.st_mode) else "c"
                major, minor = os.major(known.st_rdev), os.minor(known.st_rdev)
                mode = f"{stat.S_IMODE(known.st_mode):04o}"
                found.append(DeviceNode(f"/dev/{name}", kind, major, minor, mode))
    finally:
        os.close(fd)
    return tuple(found[:MOST_DEVICES]), max(0, len(found) - MOST_DEVICES)


def _id_maps(rows: list[Row], namespace_fd: int) -> dict[int, Shifts]:
    """The maps of the idmapped mounts, by their ids in mountinfo; none where this kernel can't tell them, or not to this user."""
    wanted = {row.id for row in rows if row.is_idmapped}
    found: dict[int, Shifts] = {}
    if not wanted:
        return found
    try:
        namespace_id = mount_namespace_id(namespace_fd)
        for mount_id in listmount(namespace_id):
            if not wanted:
                break
            try:
                number, uids, gids = statmount_ids(mount_id, namespace_id)
            except OSError:  # unmounted between the look and the question
                continue
            if number in wanted:
                wanted.remove(number)
                found[number] = (tuple(Shift(*row) for row in uids), tuple(Shift(*row) for row in gids))
    except (OSError, CellwallError):
        pass
    return found
