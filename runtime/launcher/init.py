"""The first process of a container, from its clone to its exec.

It is a child of the launcher that goes on in Python: it joins its cgroup, attaches the mounts that the launcher made,
pivots into them, and waits for the process to start (``create`` and ``start`` of the OCI runtime specification). Its
memory is the launcher's and isn't dumpable, so nothing in the container can trace it or open its descriptors.

Errors go to the launcher as one message, ``{"failed": step, "message": ..., "errno": ..., "status": ...}``.
Source: runtime-spec config.md and config-linux.md, pivot_root(2), mount_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from errno import EEXIST, EINVAL, ELOOP, ENOENT, ENOTDIR, EROFS, EXDEV

from ..errors import CellwallError, InitError, SyscallError
from ..linux.mounts import (
    AT_FDCWD,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    mount,
    mount_setattr,
    move_mount,
    new_mount,
    open_tree,
    pivot_root,
    umount2,
)
from ..linux.process import (
    CLONE_NEWCGROUP,
    PR_SET_PDEATHSIG,
    close_range,
    openat2,
    prctl,
    setdomainname,
    sethostname,
    unshare,
)
from . import PROC_FILES
from .process import Step, exec_process
from .rootfs import split_options
from .wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
# Made by the first process, in its own namespaces: the kernel gives each to whoever has the namespace.
_OWN_FILESYSTEMS = {"proc", "sysfs", "devpts", "mqueue", "tmpfs", "cgroup", "cgroup2"}


# Where the new root is before it is the root.
_NEW_ROOT = "/proc"


def main(sync: socket.socket) -> NoReturn:
    """Run the first process: called right after the clone, never returns."""
    step = Step("clone")
    try:
        # The launcher's descriptors lead to other containers and to the machine, by way of /proc/self/fd.
        close_others([sync.fileno()])
        message, fds = receive(sync)
        if message is None:
            os._exit(0)
        if message.get("trace"):
            step.trace()
        _join(message, fds, step)
        step.name = "waiting for the mounts"
        message, fds = receive(sync)
        if message is None:
            os._exit(0)
        _setup(message, fds, step)
        step.name = "waiting for the process"
        send(sync, {"created": True})
        message, fds = receive(sync)
        if message is None:  # the launcher gave the container up before it was started
            os._exit(0)
        exec_process(sync, message, fds, step)
    except BaseException as error:
        report(sync, step, error)
    os._exit(125)


def close_others(kept: list[int]) -> None:
    """Close every descriptor above 2 but ``kept``: what a clone has of the launcher's. Source: close_range(2)."""
    first = 3
    for fd in sorted(set(kept)):
        if fd > first:
            close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_range(first)


def report(sync: socket.socket, step: Step, error: BaseException) -> None:
    """Tell the launcher what failed and in which step."""
    number = getattr(error, "errno", None) or 0
    status = error.status if isinstance(error, InitError) else 125
    if isinstance(error, CellwallError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    if isinstance(error, InitError):
        message = text
    else:
        message = f"{step.name}: {text}"
    try:
        send(sync, {"failed": step.name, "message": message, "errno": number, "status": status})
    except OSError:  # the launcher has gone, and there is no one left to tell
        pass


def die_with_launcher(sync: socket.socket) -> None:
    """Have the kernel kill this process when the launcher ends, also where it ended a moment ago.

    Call it again after each change of user: the kernel forgets it then. Source: PR_SET_PDEATHSIG(2const).
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if sync.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
            os._exit(0)
    except BlockingIOError:
        pass


def _join(message: dict[str, Any], fds: list[int], step: Step) -> None:
    """Join the container's cgroup, while the launcher makes its mounts."""
    step.name = "cgroup"
    for cgroup_fd in fds:
        # "0" is the caller, in every version. The descriptor was opened by the launcher, whose rights count.
        os.write(cgroup_fd, b"0")
        os.close(cgroup_fd)
    if message["cgroup_namespace"]:
        # Only now: the namespace's root is the group that its maker is in.
        unshare(CLONE_NEWCGROUP)


def _setup(setup: dict[str, Any], fds: list[int], step: Step) -> None:
    step.name = "user namespace"
    if setup["new_user"]:
        os.setresgid(0, 0, 0)
        if setup["setgroups"]:
            os.setgroups([])
        os.setresuid(0, 0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    step.name = "mounts"
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    if setup["loopback"]:
        _raise_loopback()
    root_fd = attach_mounts(setup["mounts"], fds, step)
    os.fchdir(root_fd)
    step.name = "pivot_root"
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    step.name = "hostname"
    if setup["hostname"]:
        sethostname(setup["hostname"])
    if setup["domainname"]:
        setdomainname(setup["domainname"])
    step.name = "sysctl"
    for key, value in setup["sysctl"].items():
        _sysctl(key, value)
    step.name = "masked paths"
    for path in setup["readonly_paths"]:
        _make_readonly(path)
    _mask(setup["masked_paths"])
    if setup["readonly_root"]:
        step.name = "read-only root"
        mount_setattr(root_fd, MOUNT_ATTR_RDONLY)
    os.close(root_fd)


def attach_mounts(entries: list[dict[str, Any]], fds: list[int], step: Step) -> int:
    """Attach the mounts in order; returns a descriptor of the new root."""
    root_fd = -1
    # Kept, for the new root covers /proc for a while.
    open_files = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for entry in entries:
        target = entry["target"]
        step.name = f"mount {target or 'files'}"
        own = entry.get("filesystem")
        if "trees" in entry:
            if entry["trees"]:
                _attach_cgroups(root_fd, entry)
            continue
        mount_fd = _own_mount(own, entry) if own else fds[entry["fd"]]
        if mount_fd < 0:
            continue
        if root_fd < 0:
            # Any folder that every system has; it goes away with the old root.
            move_mount(mount_fd, AT_FDCWD, _NEW_ROOT)
            root_fd = mount_fd
            continue
        if entry["kind"] == "files":
            _attach_files(root_fd, mount_fd, entry["targets"])
        else:
            target_fd = _target(root_fd, target, entry["kind"])
            if entry.get("user"):
                _check_place(os.readlink(str(target_fd), dir_fd=open_files).removeprefix(_NEW_ROOT), target)
            try:
                move_mount(mount_fd, target_fd)
            except SyscallError as error:
                if error.errno not in (EINVAL, ENOTDIR):
                    raise
                raise InitError(
                    "mounts", f"mount point {target}: a folder can't be mounted on a file, nor a file on a folder"
                ) from error
            os.close(target_fd)
        os.close(mount_fd)
    os.close(open_files)
    return root_fd


def _check_place(place: str, target: str) -> None:
    """Refuse a mount over the container's root or over what the kernel tells of it, where links have led it there."""
    if place in ("", "/") or ((place == "/proc" or place.startswith("/proc/")) and place not in PROC_FILES):
        over = "its root" if place in ("", "/") else place
        raise InitError("mounts", f"mount point {target}: it leads to {over}, which nothing can be mounted over")


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


def _attach_files(root_fd: int, tmpfs_fd: int, targets: list[str]) -> None:
    # In the old root's /dev for a moment: before Linux 6.15 only an attached mount can be cloned.
    move_mount(tmpfs_fd, AT_FDCWD, "/dev")
    for index, target in enumerate(targets):
        file_fd = open_tree(AT_FDCWD, f"/dev/{index}")
        target_fd = _target(root_fd, target, "file")
        try:
            move_mount(file_fd, target_fd)
        except SyscallError as error:
            raise InitError(
                "mounts", f"mount point {target}: the image has something else than a file there"
            ) from error
        os.close(target_fd)
        os.close(file_fd)


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


def _raise_loopback() -> None:
    """Set ``lo`` up in the new network namespace. Source: netdevice(7) SIOCSIFFLAGS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _sysctl(key: str, value: str) -> None:
    path = "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise InitError("sysctl", f"--sysctl {key}={value}: {(error.strerror or '').lower()}") from error


def _make_readonly(path: str) -> None:
    """Bind ``path`` read-only on itself; nothing where it isn't there. Source: runtime-spec config-linux.md."""
    try:
        fd = open_tree(AT_FDCWD, path)
    except SyscallError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return
        raise
    mount_setattr(fd, MOUNT_ATTR_RDONLY)
    move_mount(fd, AT_FDCWD, path)
    os.close(fd)


def _mask(paths: list[str]) -> None:
    """Hide ``paths``: a file behind /dev/null, a folder behind an empty read-only tmpfs."""
    if paths and not os.path.exists("/dev/null"):
        raise InitError(
            "masked paths",
            "what is mounted over /dev has no null, which hides files of /proc: mount below /dev instead",
        )
    for path in paths:
        try:
            folder = os.path.isdir(path)
            if not folder and not os.path.lexists(path):
                continue
            if folder:
                attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
                fd = new_mount("tmpfs", {"size": "0", "mode": "0555", "nr_inodes": "2"}, attributes)
                move_mount(fd, AT_FDCWD, path)
                os.close(fd)
            else:
                mount("/dev/null", path, flags=MS_BIND)
        except FileNotFoundError:  # /proc changed between the look and the mount
            continue
