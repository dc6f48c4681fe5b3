"""A container's mount tree, as its first process puts it together: what the launcher prepared, and what only it can mount.

The image may have put symbolic links anywhere: each mount point is resolved as inside the root.
Source: openat2(2) RESOLVE_IN_ROOT, move_mount(2), pivot_root(2), mount_namespaces(7), runtime-spec config.md#mounts.
"""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, ELOOP, ENOENT, ENOTDIR, EROFS, EXDEV

from ..errors import InitError, SyscallError
from ..linux.mounts import (
    AT_FDCWD,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    mount_setattr,
    move_mount,
    new_mount,
    open_tree,
    pivot_root,
    umount2,
)
from ..linux.process import openat2
from . import PROC_FILES
from .rootfs import split_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .process import Step

# Made by the first process, in its own namespaces: the kernel gives each to whoever has the namespace.
_OWN_FILESYSTEMS = {"proc", "sysfs", "devpts", "mqueue", "tmpfs", "cgroup", "cgroup2"}
# Where the new root is before it is the root: any folder that every system has, for it goes away with the old root.
_NEW_ROOT = "/proc"


class Tree:
    """The mounts of one container. ``root_fd`` is its root, from the first mount on; ``close`` gives up what is held."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.root_fd = -1
        self._place = _NEW_ROOT
        # Kept, for the new root covers /proc for a while.
        self._open_files = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Files that are attached when all other mounts are: mount point and descriptor.
        self._files: list[tuple[str, int]] = []

    def attach(self, entries: list[dict[str, Any]], fds: list[int]) -> None:
        """Attach mounts in order: those of ``fds``, and those that only this process can make."""
        for entry in entries:
            target = entry["target"]
            self._step.name = f"mount {target or 'files'}"
            own = entry.get("filesystem")
            if "trees" in entry:
                if entry["trees"]:
                    _attach_cgroups(self.root_fd, entry)
                continue
            mount_fd = _own_mount(own, entry) if own else fds[entry["fd"]]
            if mount_fd < 0:
                continue
            if self.root_fd < 0:
                move_mount(mount_fd, AT_FDCWD, _NEW_ROOT)
                self.root_fd = mount_fd
                continue
            if entry["kind"] == "files":
                self._take_files(mount_fd, entry["targets"])
                if not entry.get("late"):
                    self.attach_files()
            else:
                self._attach(mount_fd, entry)
            os.close(mount_fd)

    def become_root(self) -> None:
        """Make this tree the root of the mount namespace, and let the old one go."""
        os.fchdir(self.root_fd)
        pivot_root(".", ".")
        umount2(".", MNT_DETACH)
        os.chdir("/")
        self._place = ""

    def attach_files(self) -> None:
        """Attach the files that are still held back."""
        for target, file_fd in self._files:
            self._step.name = "mount files"
            target_fd = _target(self.root_fd, target, "file")
            try:
                move_mount(file_fd, target_fd)
            except SyscallError as error:
                raise InitError(
                    "mounts", f"mount point {target}: the image has something else than a file there"
                ) from error
            os.close(target_fd)
            os.close(file_fd)
        self._files.clear()

    def close(self) -> None:
        os.close(self.root_fd)
        os.close(self._open_files)

    def _attach(self, mount_fd: int, entry: dict[str, Any]) -> None:
        target = entry["target"]
        target_fd = _target(self.root_fd, target, entry["kind"])
        if entry.get("user"):
            place = os.readlink(str(target_fd), dir_fd=self._open_files)
            _check_place(place.removeprefix(self._place), target)
        try:
            move_mount(mount_fd, target_fd)
        except SyscallError as error:
            if error.errno not in (EINVAL, ENOTDIR):
                raise
            raise InitError(
                "mounts", f"mount point {target}: a folder can't be mounted on a file, nor a file on a folder"
            ) from error
        os.close(target_fd)

    def _take_files(self, tmpfs_fd: int, targets: list[str]) -> None:
        # In the old root's /dev for a moment: before Linux 6.15 only an attached mount can be cloned.
        move_mount(tmpfs_fd, AT_FDCWD, "/dev")
        self._files += [(target, open_tree(AT_FDCWD, f"/dev/{index}")) for index, target in enumerate(targets)]


def _check_place(place: str, target: str) -> None:
    """Refuse a mount over the container's root or over what the kernel tells of it, where links have led it there."""
    if place in ("", "/") or ((place == "/proc" or place.startswith("/proc/")) and place not in PROC_FILES):
        over = "its root" if place in ("", "/") else place
        raise InitError("mounts", f"mount point {target}: it leads to {over}, which nothing can be mounted over")


def may_be_covered(path: str) -> bool:
    """Whether somebody's own mounts can come to lie over ``path``: of what ``_check_place`` refuses they can't."""
    return not path.startswith("/proc/") or ".." in path or path in PROC_FILES


def _own_mount(filesystem: str, entry: dict[str, Any]) -> int:
    if filesystem not in _OWN_FILESYSTEMS:
        raise InitError("mounts", f"mount {entry['target']}: filesystem {filesystem!r} can't be mounted in a container")
    attributes, options = split_options(entry.get("options", []))
    try:
        return new_mount(filesystem, {"source": filesystem, **options}, attributes)
    except SyscallError:
        if entry.get("optional"):
            return -1
        raise


def _attach_cgroups(root_fd: int, entry: dict[str, Any]) -> None:
    """Show the version 1 trees that the container is in, each from its own group down, as docker does. Source: cgroup_namespaces(7)."""
    attributes, _ = split_options(entry["options"])
    folder_fd = new_mount("tmpfs", {"source": "tmpfs", "mode": "0755", "size": "64k"}, attributes & ~MOUNT_ATTR_RDONLY)
    target_fd = _target(root_fd, entry["target"], "dir")
    move_mount(folder_fd, target_fd)
    os.close(target_fd)
    for tree in entry["trees"]:
        controllers = tree.split(",")
        os.mkdir(tree, 0o755, dir_fd=folder_fd)
        for name in controllers if len(controllers) > 1 else ():
            os.symlink(tree, name, dir_fd=folder_fd)
        try:
            tree_fd = new_mount("cgroup", {"source": "cgroup", **dict.fromkeys(controllers)}, attributes)
        except SyscallError:  # what a program doesn't find there it does without
            continue
        point_fd = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder_fd)
        move_mount(tree_fd, point_fd)
        os.close(point_fd)
        os.close(tree_fd)
    mount_setattr(folder_fd, attributes)
    os.close(folder_fd)


def _target(root_fd: int, target: str, kind: str) -> int:
    """A descriptor of mount point ``target``, made where it is missing, resolved as inside the root.

    The image may have put symbolic links there: openat2 keeps them inside. Source: openat2(2) RESOLVE_IN_ROOT.
    """
    flags = os.O_PATH | (os.O_DIRECTORY if kind == "dir" else 0)
    try:
        return openat2(root_fd, target, flags)
    except SyscallError as error:
        if error.errno != ENOENT:
            raise _bad_target(target, error) from error
    parts = [part for part in target.split("/") if part not in ("", ".")]
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        last = depth == len(parts)
        try:
            os.close(openat2(root_fd, path, os.O_PATH | (0 if last and kind == "file" else os.O_DIRECTORY)))
            continue
        except SyscallError as error:
            if error.errno != ENOENT:
                raise _bad_target(target, error) from error
        parent_fd = openat2(root_fd, "/".join(parts[: depth - 1]) or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            if last and kind == "file":
                os.close(os.open(parts[depth - 1], os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent_fd))
            else:
                os.mkdir(parts[depth - 1], 0o755, dir_fd=parent_fd)
        except OSError as error:
            if error.errno == EROFS:
                raise InitError(
                    "mounts",
                    f"mount point {target}: it isn't there, and what it would be made in is read-only: make it first",
                ) from error
            if error.errno != EEXIST:
                # A link may lead to /proc or /sys, where nobody makes files.
                raise InitError(
                    "mounts",
                    f"mount point {target}: it isn't there, and can't be made ({(error.strerror or '').lower()}): "
                    "name a folder of the image's own",
                ) from error
            # A dangling link: what it names isn't there, and making that is not ours to guess.
            raise InitError(
                "mounts", f"mount point {target}: {path} is a link that leads nowhere in the image"
            ) from error
        finally:
            os.close(parent_fd)
    return openat2(root_fd, target, flags)


def _bad_target(target: str, error: SyscallError) -> InitError:
    if error.errno in (ELOOP, EXDEV):
        return InitError("mounts", f"mount point {target}: a link of the image leads out of the container there")
    if error.errno == ENOTDIR:
        return InitError("mounts", f"mount point {target}: the image has something else than a folder there")
    return InitError("mounts", f"mount point {target}: {error}")
