"""The first process of a container, from its clone to its exec.

It is a child of the launcher that goes on in Python: it joins its cgroup, attaches the mounts that the launcher made
and pivots into them (sandbox.py), and waits, for a moment or in the pool, until it is told which container this is. Its
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
from errno import ENOENT, ENOTDIR

from ..errors import CellwallError, InitError, SyscallError
from ..linux.mounts import (
    AT_FDCWD,
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
)
from ..linux.process import (
    CLONE_NEWCGROUP,
    PR_SET_PDEATHSIG,
    be_root,
    close_range,
    prctl,
    set_name,
    setdomainname,
    sethostname,
    unshare,
)
from .mount_tree import Tree
from .process import Step, begin_session, exec_process
from .wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
SPARE_NAME = "cellwall-spare"


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
        tree = _setup(message, fds, step)
        step.name = "session"
        begin_session()
        # What a person sees of one that waits.
        set_name(SPARE_NAME)
        send(sync, {"created": True})
        step.name = "waiting for a container"
        # A sandbox that was prepared ahead stays here (pool.py).
        message, fds = receive(sync)
        if message is None:  # the launcher gave it up
            os._exit(0)
        if message.get("trace") and step.stamps is None:
            step.trace()
        container: dict[str, Any] = message
        _furnish(container, fds, tree, step)
        exec_process(sync, container["process"], fds[container["mount_fds"] :], step)
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


def _setup(setup: dict[str, Any], fds: list[int], step: Step) -> Tree:
    """What is the same for every container of the sandbox's kind. Returns its mount tree, which is the root by then."""
    step.name = "user namespace"
    if setup["new_user"]:
        be_root(setgroups=setup["setgroups"])
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    step.name = "mounts"
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    if setup["loopback"]:
        _raise_loopback()
    tree = Tree(step)
    tree.attach(setup["mounts"], fds)
    step.name = "pivot_root"
    tree.become_root()
    step.name = "sysctl"
    for key, value in setup["sysctl"].items():
        _sysctl(key, value)
    _hide(setup, step)
    return tree


def _furnish(container: dict[str, Any], fds: list[int], tree: Tree, step: Step) -> None:
    """What is the one container's own: its folders, files and names. The rest of ``fds`` is its process's."""
    tree.attach(container["mounts"], fds)
    tree.attach_files()
    step.name = "hostname"
    if container["hostname"]:
        sethostname(container["hostname"])
    if container["domainname"]:
        setdomainname(container["domainname"])
    # Behind what somebody mounts there, too.
    _hide(container, step)
    if container["readonly_root"]:
        step.name = "read-only root"
        mount_setattr(tree.root_fd, MOUNT_ATTR_RDONLY)
    tree.close()


def _hide(said: dict[str, Any], step: Step) -> None:
    step.name = "masked paths"
    for path in said["readonly_paths"]:
        _make_readonly(path)
    _mask(said["masked_paths"])


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
    empty = ""
    for path in paths:
        try:
            folder = os.path.isdir(path)
            if not folder and not os.path.lexists(path):
                continue
            if folder and empty:
                # The same one once more, as read-only as it is: a filesystem takes longer to make than a mount.
                mount(empty, path, flags=MS_BIND)
            elif folder:
                attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
                fd = new_mount("tmpfs", {"size": "0", "mode": "0555", "nr_inodes": "2"}, attributes)
                move_mount(fd, AT_FDCWD, path)
                os.close(fd)
                empty = path
            else:
                mount("/dev/null", path, flags=MS_BIND)
        except FileNotFoundError:  # /proc changed between the look and the mount
            continue
