"""A container's mounts, prepared in the launcher as detached mounts and attached by the container's first process.

The launcher has the privileges that the container lacks (trusted xattrs, device nodes, idmapped mounts), the container
has the mount namespace. So the launcher makes what needs privilege, as descriptors that belong to no namespace, and the
first process attaches them in its own. Nothing has to be cleaned up: a detached mount goes with its last descriptor,
an attached one with its namespace. Source: fsopen(2), open_tree(2), mount_setattr(2), overlayfs.rst, tmpfs.rst.
"""

from __future__ import annotations

import os
import stat
from errno import EINVAL, ENOSYS

from ..errors import SyscallError, UnsupportedError, VolumeError
from ..linux.files import write_all
from ..linux.mounts import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    fsconfig,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    new_mount,
    open_tree,
    umount2,
)
from ..linux.process import CLONE_NEWNS, filesystem_ids, openat2, unshare
from . import layer_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .fuse_server import FuseServer

ATTRIBUTES = {
    "ro": MOUNT_ATTR_RDONLY,
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
}
# What a mount's options may say without being the filesystem's own.
_NEUTRAL = {
    "rw",
    "suid",
    "dev",
    "exec",
    "rbind",
    "bind",
    "rprivate",
    "private",
    "relatime",
    "strictatime",
    "noatime",
    "diratime",
}

DEFAULT_DEVICES = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
]
_DEV_LINKS = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
]
_CLONE_HERE = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH
# Docker's default for an ephemeral writable layer is the disk's size; here it is memory, so it has a bound.
UPPER_BYTES = 10 << 30


class Ids:
    """How a container's ids look from outside. ``base`` is the host id of its root, ``count`` how many follow.

    ``idmap``: files on disk carry the image's ids, and mounts must translate them; ``can_idmap``: they can.
    ``make_nodes``: device nodes can be made (root); else the host's are bound. ``own_userns``: ``userns_fd`` is the container's
    own, not the launcher's.
    """

    def __init__(
        self,
        base: int,
        count: int,
        userns_fd: int,
        *,
        idmap: bool,
        make_nodes: bool,
        can_idmap: bool = True,
        own_userns: bool = False,
    ) -> None:
        self.can_idmap = can_idmap
        self.own_userns = own_userns
        self.base = base
        self.count = count
        self.userns_fd = userns_fd
        self.idmap = idmap
        self.make_nodes = make_nodes


class Rootfs:
    """The prepared mounts of one container: ``entries`` in the order to attach them, ``fds`` the descriptors they name.

    ``upper_fds`` are directories with what the container wrote, by mount point, for the list of its changes.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self.uppers: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        # What the mounts were made of. Closing a detached mount waits for the kernel, so that is done off the client's path.
        self.late: list[int] = []
        # Layers that are mounted for this container, among others, until it has ended.
        self.layers: list[layer_mounts.LayerMount] = []
        # Programs that serve mounts of this container.
        self.servers: list[FuseServer] = []

    def add(self, target: str, fd: int, kind: str = "dir", **more: Any) -> None:
        self.entries.append({"target": target, "fd": len(self.fds), "kind": kind, **more})
        self.fds.append(fd)

    def close(self) -> None:
        """Close every descriptor: call it once the first process has its copies."""
        while self.fds:
            os.close(self.fds.pop())
        self.entries.clear()

    def close_late(self) -> None:
        """Close what the mounts were made of: any time after they were made."""
        while self.late:
            os.close(self.late.pop())

    def upper_places(self) -> list[dict[str, Any]]:
        """By mount point the descriptor of each writable layer in this process, and its device and inode number."""
        places = []
        for upper in self.uppers:
            status = os.fstat(upper["fd"])
            places.append({"at": upper["at"], "fd": upper["fd"], "file": [status.st_dev, status.st_ino]})
        return places

    def close_uppers(self) -> None:
        """Close what the list of changes is read from, the layers included: once nobody asks for it any more."""
        while self.uppers:
            os.close(self.uppers.pop()["fd"])
        layer_mounts.give_back(self.layers)


def split_options(options: list[str]) -> tuple[int, dict[str, str | None]]:
    """Mount attributes and the filesystem's own options of an OCI mount's ``options``."""
    attributes = 0
    rest: dict[str, str | None] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if option in ATTRIBUTES:
            attributes |= ATTRIBUTES[option]
        elif option not in _NEUTRAL:
            rest[key] = value if equals else None
    return attributes, rest


def clone_mount(
    path: str,
    ids: Ids,
    *,
    attributes: int = 0,
    recursive: bool = False,
    must_map: bool = True,
    propagation: int = MS_PRIVATE,
) -> tuple[int, bool]:
    """A detached copy of the mount at ``path`` with the container's id map: ``(fd, whether it is mapped)``."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    fd = open_tree(AT_FDCWD, path, flags)
    try:
        if attributes or propagation != MS_PRIVATE:
            mount_setattr(fd, attributes, propagation=propagation, recursive=recursive)
        if not ids.idmap:
            return fd, True
        try:
            if not ids.can_idmap:
                raise SyscallError(ENOSYS, "mount_setattr")
            _map_ids(fd, ids, recursive)
        except SyscallError as error:
            if must_map:
                raise UnsupportedError(
                    f"the filesystem of {path} can't translate user ids ({error})",
                    "keep the data folder on ext4, xfs, btrfs or tmpfs with Linux 5.19 or newer, or use -s vfs",
                ) from error
            return fd, False
        return fd, True
    except BaseException:
        os.close(fd)
        raise


def _map_ids(fd: int, ids: Ids, recursive: bool) -> None:
    try:
        mount_setattr(fd, MOUNT_ATTR_IDMAP, userns_fd=ids.userns_fd, recursive=recursive)
    except SyscallError:
        if not recursive:
            raise
        # One of the mounts below can't (the host's /proc, say): it stays as it is, and its files are nobody's.
        mount_setattr(fd, MOUNT_ATTR_IDMAP, userns_fd=ids.userns_fd)


def root_mounts(rootfs: Rootfs, plan: list[dict[str, Any]], ids: Ids, *, upper_bytes: int, userxattr: bool) -> None:
    """Add the mounts of a storage plan (see storage/driver.py): the root first, then what lies on it.

    Writable layers that have no folder of their own share one tmpfs of ``upper_bytes``.
    """
    tmpfs_fd = -1
    try:
        for index, item in enumerate(plan):
            if item["type"] == "bind":
                # A private copy whose ids were changed on disk, or the rootless store: never mapped again.
                own_ids = item.get("id_map", [0, 0])[0] > 0
                mapped = Ids(ids.base, ids.count, ids.userns_fd, idmap=ids.idmap and not own_ids, make_nodes=False)
                attributes = MOUNT_ATTR_NODEV | (ATTRIBUTES["ro"] if item.get("readonly") else 0)
                fd, _ = clone_mount(item["source"], mapped, attributes=attributes)
                rootfs.add(item["at"], fd)
                continue
            if item["type"] == "fuse-overlayfs":
                from .fuse_server import fuse_root

                fuse_root(rootfs, item, ids, upper_bytes)
                continue
            if item["type"] == "union":
                from .union_mount import union_mount  # rarely needed, and it needs this module

                union_mount(rootfs, item, ids, userxattr=userxattr)
                continue
            if item["upper"] is None and tmpfs_fd < 0:
                tmpfs_fd = new_mount("tmpfs", {"mode": "0700", "size": str(upper_bytes or UPPER_BYTES)})
            _overlay(rootfs, item, ids, tmpfs_fd, index, userxattr)
    finally:
        if tmpfs_fd >= 0:
            rootfs.late.append(tmpfs_fd)


def overlay_options(*, userxattr: bool) -> dict[str, str | int | None]:
    """The options of every overlay mount but its layers."""
    options: dict[str, str | int | None] = {"source": "overlay"}
    if userxattr:
        options["userxattr"] = None
    else:
        # Whole files and plain folders in the writable layer, whatever the kernel's default is: the list of changes reads it.
        options |= {"redirect_dir": "off", "metacopy": "off"}
    return options


def _overlay(rootfs: Rootfs, item: dict[str, Any], ids: Ids, tmpfs_fd: int, index: int, userxattr: bool) -> None:
    held: list[int] = []
    try:
        lowers, paths = [], layer_mounts.paths_of(item["lowers"], rootfs.layers)
        for path in paths:
            fd, mapped = clone_mount(path, ids, must_map="fallback" not in item)
            held.append(fd)
            if not mapped:
                # The host's own folder on a filesystem without id maps: shown as it is, read-only, owned by nobody.
                mount_setattr(fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
                held.remove(fd)
                rootfs.add(item["at"], fd)
                rootfs.warnings.append(
                    f"{path} is read-only in this container: its filesystem can't translate user ids"
                )
                return
            lowers.append(fd)
        options = overlay_options(userxattr=userxattr)
        if item["upper"] is None:
            names = (f"u{index}", f"w{index}")
            for name in names:
                os.mkdir(name, 0o755, dir_fd=tmpfs_fd)
                os.chown(name, ids.base, ids.base, dir_fd=tmpfs_fd)
            # The merged root shows its upper folder's mode.
            os.chmod(names[0], os.stat(lowers[0]).st_mode & 0o7777, dir_fd=tmpfs_fd)
            upper_fd = tmpfs_fd
            upper_dirfd = os.open(names[0], os.O_RDONLY | os.O_DIRECTORY, dir_fd=tmpfs_fd)
        else:
            # upperdir and workdir must lie on one mount: the folder above both is cloned.
            upper_fd, _ = clone_mount(os.path.dirname(item["upper"]), ids)
            held.append(upper_fd)
            names = (os.path.basename(item["upper"]), os.path.basename(item["work"]))
            upper_dirfd = os.open(item["upper"], os.O_RDONLY | os.O_DIRECTORY)
        rootfs.uppers.append({"at": item["at"], "fd": upper_dirfd, "lowers": paths})
        # What overlayfs makes by itself (in the work folder, and when it copies up) it makes as its mounter: on a mapped
        # upper layer that must be an id of the map.
        with filesystem_ids(ids.base):
            fd = new_overlay(options, lowers, upper_fd, names)
        kind = "dir"
        if "part" in item:
            held.append(fd)
            fd, kind = _part(fd, item)
        rootfs.add(item["at"], fd, kind)
        # An image may hold device nodes, and the overlay belongs to the host's user namespace, which would honour them.
        attributes = (MOUNT_ATTR_NODEV if ids.idmap else 0) | (MOUNT_ATTR_RDONLY if item.get("readonly") else 0)
        if attributes:
            mount_setattr(fd, attributes)
    finally:
        rootfs.late += held


def _part(mount_fd: int, item: dict[str, Any]) -> tuple[int, str]:
    """A detached mount of one file or folder in the detached mount ``mount_fd``, links followed inside it; and which of both it is."""
    attached: list[str] = []
    try:
        try:
            inner_fd = openat2(mount_fd, item["part"], os.O_PATH | os.O_CLOEXEC)
        except SyscallError as error:
            raise VolumeError(
                f"mount of {item['part']}: {(error.strerror or '').lower()}: it isn't in {item['of']}"
            ) from error
        try:
            try:
                fd = open_tree(inner_fd, "", _CLONE_HERE)
            except SyscallError as error:
                if error.errno != EINVAL:
                    raise
                # Before Linux 6.15 only what is attached somewhere can be cloned.
                attached = attach([mount_fd])
                fd = open_tree(inner_fd, "", _CLONE_HERE)
            return fd, "dir" if stat.S_ISDIR(os.fstat(inner_fd).st_mode) else "file"
        finally:
            os.close(inner_fd)
    finally:
        for path in attached:
            umount2(path, MNT_DETACH)


def new_overlay(options: dict[str, str | int | None], layers: list[int], upper_fd: int, names: tuple[str, str]) -> int:
    """A detached overlay of ``layers`` (detached mounts, top first) with upper and work folders ``names`` of ``upper_fd``."""
    attached: list[str] = []
    paths = [f"/proc/self/fd/{fd}" for fd in (*layers, upper_fd)]
    try:
        try:
            return _overlay_of(options, paths, names)
        except SyscallError as error:
            if error.errno != EINVAL or len(layers) == 0:
                raise
            # Before Linux 6.15 a layer has to be attached somewhere: in the launcher's own mount namespace, for a moment.
            attached = attach([*layers, upper_fd])
            return _overlay_of(options, attached, names)
    finally:
        for path in attached:
            umount2(path, MNT_DETACH)


def _overlay_of(options: dict[str, str | int | None], paths: list[str], names: tuple[str, str]) -> int:
    *lowers, above = paths
    context_fd = fsopen("overlay")
    try:
        # One key a layer (Linux 6.5): the joined string that mount(2) takes ends at a page.
        try:
            for lower in lowers:
                fsconfig(context_fd, "lowerdir+", lower)
        except SyscallError as error:
            if len(":".join(lowers)) >= 4096:
                raise UnsupportedError(
                    f"overlay of {len(lowers)} layers ({error})", "Linux 6.5 or newer takes them"
                ) from error
            fsconfig(context_fd, "lowerdir", ":".join(lowers))
        fsconfig(context_fd, "upperdir", f"{above}/{names[0]}")
        fsconfig(context_fd, "workdir", f"{above}/{names[1]}")
        for key, value in options.items():
            fsconfig(context_fd, key, value)
        return fsmount(context_fd, what=f"mount overlay of {len(lowers)} layers")
    finally:
        os.close(context_fd)


# A folder of ours where ``attach`` may mount; set by the first container.
attach_directory = ""
_attached_here = False


def attach(fds: list[int]) -> list[str]:
    """Attach detached mounts in a mount namespace that is the launcher's alone; returns their paths."""
    global _attached_here
    if not _attached_here:
        unshare(CLONE_NEWNS)
        # Slave: what the host mounts later is seen here, and nothing from here is seen there.
        mount(None, "/", flags=MS_REC | MS_SLAVE)
        os.makedirs(attach_directory, 0o700, exist_ok=True)
        mount("tmpfs", attach_directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700,size=1m")
        _attached_here = True
    paths = []
    for fd in fds:
        path = f"{attach_directory}/{fd}"
        os.makedirs(path, exist_ok=True)
        move_mount(fd, AT_FDCWD, path)
        paths.append(path)
    return paths


def device_mount(rootfs: Rootfs, target: str, options: list[str], ids: Ids, extra: list[dict[str, Any]]) -> None:
    """Add a private ``/dev``: a tmpfs with docker's default nodes and links, and folders for what is mounted below it."""
    attributes, rest = split_options(options)
    # Not nodev: the nodes in it are made here and are the point of it.
    owner = {"uid": str(ids.base), "gid": str(ids.base)}
    fd = new_mount(
        "tmpfs", {"source": "tmpfs", "mode": "0755", "size": "65536k", **owner, **rest}, attributes & ~MOUNT_ATTR_NODEV
    )
    rootfs.add(target, fd)
    old_umask = os.umask(0)
    try:
        for name, major, minor in DEFAULT_DEVICES:
            _node(rootfs, fd, target, name, 0o20666, major, minor, ids, f"/dev/{name}")
        for device in extra:
            name = device["path"].removeprefix(target.rstrip("/") + "/")
            folder = os.path.dirname(name)
            if folder:
                os.makedirs(f"/proc/self/fd/{fd}/{folder}", exist_ok=True)
            kind = 0o60000 if device["type"] == "b" else 0o20000
            mode = kind | device.get("fileMode", 0o660)
            source = device.get("source", device["path"])
            _node(rootfs, fd, target, name, mode, device["major"], device["minor"], ids, source)
        for name, link in _DEV_LINKS:
            os.symlink(link, name, dir_fd=fd)
            os.chown(name, ids.base, ids.base, dir_fd=fd, follow_symlinks=False)
        for name in ("pts", "shm", "mqueue", "cell"):
            os.mkdir(name, 0o755, dir_fd=fd)
            os.chown(name, ids.base, ids.base, dir_fd=fd)
    finally:
        os.umask(old_umask)


def _node(
    rootfs: Rootfs, dirfd: int, target: str, name: str, mode: int, major: int, minor: int, ids: Ids, source: str
) -> None:
    if ids.make_nodes:
        os.mknod(name, mode, os.makedev(major, minor), dir_fd=dirfd)
        os.chown(name, ids.base, ids.base, dir_fd=dirfd)
        return
    # A user namespace can't make nodes: the host's own is bound onto an empty file, once that is attached.
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=dirfd))
    rootfs.add(f"{target}/{name}", open_tree(AT_FDCWD, source), kind="file")


def files_mount(rootfs: Rootfs, files: dict[str, str | dict[str, Any]], ids: Ids) -> None:
    """Add ``files`` by container path, each as a bind mount from one small tmpfs: /etc/hosts and its kind, secrets.

    A file is its text, or ``{"data": bytes as Latin-1, "mode", "uid", "gid"}`` with the container's ids.
    """
    if not files:
        return
    described: list[dict[str, Any]] = [
        file if isinstance(file, dict) else {"data": file.encode().decode("latin-1")} for file in files.values()
    ]
    size = (1 << 20) + 2 * sum(len(file["data"]) for file in described)
    tmpfs_fd = new_mount(
        "tmpfs", {"source": "cellwall", "mode": "0755", "size": str(size)}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    )
    for index, file in enumerate(described):
        fd = os.open(str(index), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=tmpfs_fd)
        try:
            write_all(fd, file["data"].encode("latin-1"))
            os.fchown(fd, ids.base + file.get("uid", 0), ids.base + file.get("gid", 0))
            os.fchmod(fd, file.get("mode", 0o644))
        finally:
            os.close(fd)
    rootfs.add("", tmpfs_fd, kind="files", targets=list(files))
