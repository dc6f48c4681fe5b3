"""Bind mounts of the OCI spec, as detached mounts with the container's id map: folders and files of the machine, volumes.

Source: open_tree(2), mount_setattr(2), mount_namespaces(7) (propagation), proc_pid_mountinfo(5), openat2(2) (RESOLVE_BENEATH).
"""

from __future__ import annotations

import os
import stat

from ..errors import SyscallError, VolumeError
from ..linux.mounts import MS_PRIVATE, MS_SLAVE
from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from .bind_ids import new_users, rows, user_of
from .rootfs import Ids, Rootfs, clone_mount, split_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SLAVE = ("slave", "rslave")
_SHARED = ("shared", "rshared")


class BindMounts:
    """The bind mounts of one container, whose command runs as ``user`` (``user[:group]``). Close it once they are made.

    ``root_fd`` is the container's root, for the names of users in it.
    """

    def __init__(self, rootfs: Rootfs, ids: Ids, user: str, root_fd: int) -> None:
        self._rootfs = rootfs
        self._ids = ids
        self._user = user
        self._root_fd = root_fd
        self._own: tuple[int, int] | None = None
        self._maps: dict[tuple[int, int], Ids] = {}

    def close(self) -> None:
        for ids in self._maps.values():
            if ids.userns_fd != self._ids.userns_fd:
                os.close(ids.userns_fd)
        self._maps.clear()

    def add(self, item: dict[str, Any]) -> None:
        """Add one, with the container's id map where the filesystem can have one. Raises VolumeError."""
        options = item.get("options", [])
        attributes, _ = split_options(options)
        shown = source = item["source"]
        if item.get("subpath"):
            shown = f"{source}/{item['subpath'].strip('/')}"
        source_fd = _open(source, item.get("subpath"), shown)
        try:
            is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
            propagation = _propagation(options, source_fd, shown)
            try:
                fd, mapped = clone_mount(
                    f"/proc/self/fd/{source_fd}",
                    self._ids_for(item.get("caller")),
                    attributes=attributes,
                    recursive="rbind" in options,
                    must_map=False,
                    propagation=propagation,
                )
            except SyscallError as error:
                raise VolumeError(f"bind {shown}: {(error.strerror or '').lower()}") from error
        finally:
            os.close(source_fd)
        # The host's own /proc and /sys are nobody's files by their nature: nothing to be told.
        if not mapped and source not in ("/proc", "/sys"):
            self._rootfs.warnings.append(
                f"{shown}: its filesystem can't translate user ids, so its files belong to nobody in this container; "
                "a folder on ext4, xfs, btrfs or tmpfs can"
            )
        more = {"user": True} if item.get("user") else {}
        self._rootfs.add(item["destination"], fd, kind="dir" if is_directory else "file", **more)

    def _ids_for(self, caller: list[int] | None) -> Ids:
        """The id map in which the files of ``caller`` are those of the container's user."""
        ids = self._ids
        if caller is None or not ids.idmap or not ids.can_idmap:
            return ids
        uid, gid = caller
        found = self._maps.get((uid, gid))
        if found is None:
            own_uid, own_gid = self._own_user()
            if (uid, gid) == (own_uid, own_gid) or max(own_uid, own_gid) >= ids.count:
                found = ids
            else:
                userns_fd = new_users(rows(uid, own_uid, ids.base, ids.count), rows(gid, own_gid, ids.base, ids.count))
                found = Ids(ids.base, ids.count, userns_fd, idmap=True, make_nodes=ids.make_nodes)
            self._maps[uid, gid] = found
        return found

    def _own_user(self) -> tuple[int, int]:
        if self._own is None:
            # A root that a program serves (fuse) may hang: only numbers are known then.
            self._own = user_of(self._user, -1 if self._rootfs.servers else self._root_fd)
        return self._own


def _open(source: str, subpath: str | None, shown: str) -> int:
    try:
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
        if not subpath:
            return fd
        try:
            # A container may have put links there: they lead nowhere outside of the volume.
            return openat2(fd, subpath.strip("/"), os.O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(fd)
    except OSError as error:
        raise VolumeError(f"bind {shown}: {(error.strerror or '').lower()}: make it first, or name another") from error


def _propagation(options: list[str], source_fd: int, shown: str) -> int:
    """What mount_setattr gets; 0 leaves it in its peer group. Raises VolumeError where the source's mount shares nothing."""
    wanted = next((option for option in options if option in (*_SLAVE, *_SHARED)), None)
    if wanted is None:
        return MS_PRIVATE
    point, tags = _mount_of(source_fd)
    shares = any(tag.startswith("shared:") for tag in tags)
    if wanted in _SHARED:
        if not shares:
            raise VolumeError(
                f"path {shown} is mounted on {point} but it is not a shared mount: mount --make-rshared {point} makes it one"
            )
        return 0
    if not shares and not any(tag.startswith("master:") for tag in tags):
        raise VolumeError(
            f"path {shown} is mounted on {point} but it is not a shared or slave mount: mount --make-rshared {point} makes it one"
        )
    return MS_SLAVE


def _mount_of(fd: int) -> tuple[str, list[str]]:
    """Mount point and propagation tags of the mount that ``fd`` is on."""
    with open(f"/proc/self/fdinfo/{fd}") as file:
        number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            if fields[0] == number:
                return fields[4], fields[6 : fields.index("-")]
    return "/", []
