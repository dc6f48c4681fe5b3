"""A container's root served by the fuse-overlayfs program: one process a container, which ends with it.

The process is a child of the launcher that puts the layers (read-only) and the writable folder, both with the container's id
map, into a mount namespace of its own, goes into the container's user namespace, makes the FUSE mount there, hands it to
the launcher, gives up all but the capabilities that owning files takes, and executes the program. So whoever takes the
program over is nobody outside, and has the container's own files and read-only layers to look at.

It lies outside of the container's control group: frozen with it, it would leave processes of the container waiting for an
answer in a way that can't be frozen. It ends when the kernel takes the mount down, and when the launcher is killed.
Source: fuse(4), user_namespaces(7), mount_namespaces(7) (mounts that a less privileged namespace copies are locked).
"""

from __future__ import annotations

import os
import signal
import socket

from ..errors import CellwallError, SyscallError, UnsupportedError
from ..interrupts import HANG_S, readable
from ..linux import capabilities
from ..linux.mounts import (
    AT_FDCWD,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    mount_setattr,
    move_mount,
    new_mount,
)
from ..linux.process import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLOSE_RANGE_CLOEXEC,
    PR_SET_NO_NEW_PRIVS,
    activity,
    be_root,
    clone3,
    close_range,
    is_ending,
    prctl,
    setns,
    unshare,
)
from ..storage import fuse_mount
from . import init, layer_mounts
from .rootfs import UPPER_BYTES, clone_mount
from .wire import complain, pair, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .rootfs import Ids, Rootfs
    from .sandbox import Sandbox

# A folder that every system has and the program doesn't need: what it serves is attached there.
_PLACE = "/sys"
# At its end it may have to write down what the kernel has of the container's files, however long its disk takes: it is let do that. One
# that does nothing from one look to the next has nothing left to do, and still hasn't seen that its mount is gone: it hangs.
_LOOK_S = 5.0


class FuseServer:
    """A running fuse-overlayfs: ``pidfd`` is readable once it has ended; ``output_fd`` holds what it wrote."""

    def __init__(self, pid: int, pidfd: int, output_fd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._output_fd = output_fd
        self._end: str | None = None
        self._ticks = -1

    def end(self) -> str | None:
        """How it ended, in words, or None while it runs; never waits. Closes its descriptors once it has."""
        if self.pidfd < 0:
            return self._end
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            result = None
            self._end = "ended"
        if result is not None:
            how = "with status" if result.si_code == os.CLD_EXITED else "by signal"
            told = fuse_mount.last_words(self._output_fd)
            self._end = f"ended {how} {result.si_status}" + (f": {told}" if told else "")
        if self._end is not None:
            os.close(self.pidfd)
            os.close(self._output_fd)
            self.pidfd = self._output_fd = -1
        return self._end

    def is_at_work(self) -> bool:
        """Whether it has done anything since the last time that this was asked, or waits for its disk or for a processor."""
        states, ticks = activity(self.pid)
        before, self._ticks = self._ticks, ticks
        return ticks != before or bool(states & set("RD"))

    def kill(self) -> None:
        """End it at once and wait for that."""
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
            self.end()


class Servers:
    """The servers of one container, watched by the launcher's loop."""

    def __init__(self, container: Sandbox) -> None:
        self._container = container
        self._then: Callable[[], None] | None = None
        self._deadline: Callable[[], None] | None = None

    def watch(self) -> None:
        """See to it that the end of a server is the end of its container."""
        server = self._container.server
        for one in self._container.rootfs.servers:
            server.expected.add(one.pid)
            server.watch(one.pidfd, self._ended)

    def failure(self, known: dict[str, Any] | None) -> dict[str, Any] | None:
        """Why the container failed: a server that ended, whatever the container's own process made of it (``known``)."""
        for one in self._container.rootfs.servers:
            # Whoever needs a file of a mount that is lost ends before the server has: by SIGBUS, or with an error of its own.
            if one.pidfd >= 0 and is_ending(one.pid):
                readable(one.pidfd, HANG_S)
            self._forget_ended(one)
            end = one.end()
            if end is not None:
                return {"failed": "fuse-overlayfs", "message": f"fuse-overlayfs {end}", "errno": 0, "status": 125}
        return known

    def stop(self, then: Callable[[], None]) -> None:
        """Call ``then`` once every server has seen that its mount is gone, or has been killed for not seeing it."""
        self._then = then
        self._look()
        self._finish()

    def _look(self) -> None:
        hanging = [one.pid for one in self._container.rootfs.servers if one.pidfd >= 0 and not one.is_at_work()]
        if hanging:
            complain(
                f"fuse-overlayfs (process {hanging[0]}) is idle, and doesn't see that its mount is gone: it is killed"
            )
            self._deadline = None
            self.kill()
        else:
            self._deadline = self._container.server.after(_LOOK_S, self._look)

    def kill(self) -> None:
        """End them at once."""
        for one in self._container.rootfs.servers:
            if one.pidfd >= 0:
                self._container.server.forget(one.pidfd)
            one.kill()
            self._container.server.expected.discard(one.pid)
        self._finish()

    def _ended(self) -> None:
        container = self._container
        for one in container.rootfs.servers:
            self._forget_ended(one)
        if self._then is not None:
            self._finish()
        elif container.pidfd >= 0:
            container.failure = self.failure(container.failure)
            container.kill()

    def _forget_ended(self, one: FuseServer) -> None:
        pidfd = one.pidfd
        # Closed by ``end``, so it must not be polled any more.
        if pidfd >= 0 and readable(pidfd, 0):
            self._container.server.forget(pidfd)
            one.end()
            self._container.server.expected.discard(one.pid)

    def _finish(self) -> None:
        if self._then is not None and all(one.pidfd < 0 for one in self._container.rootfs.servers):
            then, self._then = self._then, None
            deadline, self._deadline = self._deadline, None
            self._container.server.cancel(deadline)
            then()


def fuse_root(rootfs: Rootfs, item: dict[str, Any], ids: Ids, upper_bytes: int) -> None:
    """Add the mount of a plan's entry of type ``fuse-overlayfs``, and its server, to ``rootfs``."""
    held: list[int] = []
    try:
        paths = layer_mounts.paths_of(item["lowers"], rootfs.layers)
        for path in paths:
            fd, _ = clone_mount(path, ids, attributes=MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)
            held.append(fd)
        if item["upper"] is None:
            names = ("upper", "work")
            owner = str(ids.base)
            options: dict[str, str | int | None] = {
                "mode": "0700",
                "uid": owner,
                "gid": owner,
                "size": str(upper_bytes or UPPER_BYTES),
            }
            home_fd = new_mount("tmpfs", options, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)
            held.append(home_fd)
            for name in names:
                os.mkdir(name, 0o755, dir_fd=home_fd)
                os.chown(name, ids.base, ids.base, dir_fd=home_fd)
            os.chmod(names[0], os.stat(held[0]).st_mode & 0o7777, dir_fd=home_fd)
            upper_dirfd = os.open(names[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=home_fd)
        else:
            names = (os.path.basename(item["upper"]), os.path.basename(item["work"]))
            home_fd, _ = clone_mount(
                os.path.dirname(item["upper"]), ids, attributes=MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID
            )
            held.append(home_fd)
            upper_dirfd = os.open(item["upper"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        rootfs.uppers.append({"at": item["at"], "fd": upper_dirfd, "lowers": paths, "marks": "fuse-overlayfs"})
        mount_fd, server = _start(item["program"], held[:-1], home_fd, names, ids, volatile=item["upper"] is None)
        rootfs.servers.append(server)
        rootfs.add(item["at"], mount_fd)
    finally:
        rootfs.late += held


def _start(
    program: str, lowers: list[int], home_fd: int, names: tuple[str, str], ids: Ids, *, volatile: bool
) -> tuple[int, FuseServer]:
    """The mount and its server, which has been executed. Raises CellwallError where a step of it failed."""
    output_fd = os.memfd_create("cellwall-fuse-overlayfs", os.MFD_CLOEXEC)
    ours, theirs = pair()
    try:
        pid, pidfd = clone3(0)
    except BaseException:
        os.close(output_fd)
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        try:
            ours.close()
            init.close_others([theirs.fileno(), home_fd, output_fd, ids.userns_fd, *lowers])
            _serve(theirs, program, lowers, home_fd, names, ids, output_fd, volatile)
        except CellwallError as error:
            _tell(theirs, str(error))
        except BaseException as error:
            _tell(theirs, f"{type(error).__name__}: {error}")
        finally:
            os._exit(125)
    theirs.close()
    server = FuseServer(pid, pidfd, output_fd)
    mount_fd = -1
    try:
        with ours:
            ours.settimeout(HANG_S)
            failure = ""
            # The mount first; then its end of the socket closes at the exec, or it says what failed.
            while (received := receive(ours))[0] is not None:
                message, fds = received
                if fds:
                    mount_fd = fds[0]
                elif message is not None:
                    failure = str(message["failed"])
        if failure or mount_fd < 0:
            raise CellwallError(f"fuse-overlayfs: {failure or 'it ended before it had a mount'}")
    except BaseException:
        if mount_fd >= 0:
            os.close(mount_fd)
        server.kill()
        raise
    return mount_fd, server


def _tell(sync: socket.socket, text: str) -> None:
    try:
        send(sync, {"failed": text})
    except OSError:  # the launcher has gone, and there is no one left to tell
        pass


def _serve(
    sync: socket.socket,
    program: str,
    lowers: list[int],
    home_fd: int,
    names: tuple[str, str],
    ids: Ids,
    output_fd: int,
    volatile: bool,
) -> NoReturn:
    """Become the program. Each step needs what a later one gives up."""
    os.setsid()
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC)
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mount_setattr(root_fd, MOUNT_ATTR_RDONLY, recursive=True)
    os.close(root_fd)
    mount("tmpfs", _PLACE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    paths = []
    for number, fd in enumerate([*lowers, home_fd]):
        paths.append(f"{_PLACE}/{number}")
        os.mkdir(paths[-1], 0o755)
        move_mount(fd, AT_FDCWD, paths[-1])
        os.close(fd)
    if ids.own_userns:
        setns(ids.userns_fd, CLONE_NEWUSER)
        # A copy of the mounts that belongs to the container's namespace: read-only ones stay so for whoever is root there.
        unshare(CLONE_NEWNS)
    # Before the change of user: the device is often root's alone.
    device_fd = fuse_mount.open_device()
    mount_fd = fuse_mount.mount_fuse(device_fd)
    send(sync, {"mounted": True}, [mount_fd])
    os.close(mount_fd)
    if ids.own_userns:
        be_root(setgroups=ids.count > 1)
    capabilities.limit_to(fuse_mount.CAPABILITIES)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    init.die_with_launcher(sync)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.dup2(output_fd, 1, inheritable=True)
    os.dup2(output_fd, 2, inheritable=True)
    close_range(3, flags=CLOSE_RANGE_CLOEXEC)
    os.set_inheritable(device_fd, True)
    home = paths.pop()
    words = fuse_mount.arguments(
        program, paths, f"{home}/{names[0]}", f"{home}/{names[1]}", device_fd, volatile=volatile
    )
    try:
        os.execve(program, words, {"PATH": os.defpath})
    except SyscallError:
        raise
    except OSError as error:
        raise UnsupportedError(f"{program}: {(error.strerror or '').lower()}", fuse_mount.MEND) from error
