"""A running container held still: until somebody lets it go (``pause``, ``unpause``), or for a moment and let go in any case.

For a moment: a helper process freezes the container's group and thaws it when its standard input ends, which the kernel sees to,
also when this process is killed meanwhile. It has the container's run-time folder locked while it does, so that others can wait for it.
Whether a container is paused is asked of the kernel each time, and written down nowhere.
Source: cgroups(7); admin-guide/cgroup-v1/freezer-subsystem; flock(2); docker-container-pause(1).
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import events
from .errors import CellwallError, CgroupError, StatusError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any

    from .cgroups.group import Group
    from .containers import Containers

_PACKAGES = str(Path(__file__).absolute().parents[2])
_PACKAGE = __name__.partition(".")[0]
_CODE = f"""
import fcntl, json, os, sys
sys.path.append(sys.argv[1])
from {_PACKAGE}.runtime.errors import CellwallError, UnsupportedError
from {_PACKAGE}.runtime.cgroups.group import Group
group = Group.open(json.loads(sys.argv[2]))
fcntl.flock(int(sys.argv[3]), fcntl.LOCK_EX)
try:
    try:
        group.freeze()
    except CellwallError as error:
        os.write(1, (b"u" if isinstance(error, UnsupportedError) else b"c") + str(error).encode())
        raise SystemExit(1)
    os.write(1, b"\\0")
    os.read(0, 1)
finally:
    try:
        group.thaw()
    except CellwallError:
        pass  # it has ended, or it can't be frozen anyway
"""


def pause(known: Containers, name_or_id: str) -> None:
    """See ``Engine.pause``."""
    container = known.find(name_or_id)
    found = known.state(container.id)
    if found is None or not found["pid"]:
        raise StatusError(f"container {container.name}", container.status, "running")
    if container.status == "paused":
        raise StatusError(f"container {container.name}", "paused already", "running")
    try:
        _group(found).freeze()
    except FileNotFoundError:
        raise StatusError(f"container {container.name}", "exited", "running") from None
    events.emit_container(str(known.paths.run), "pause", container.id, found["cellwall"] | {"name": container.name})


def unpause(known: Containers, name_or_id: str) -> None:
    """See ``Engine.unpause``."""
    container = known.find(name_or_id)
    found = known.state(container.id)
    if found is None or not thaw(found):
        raise StatusError(f"container {container.name}", container.status, "paused")
    events.emit_container(str(known.paths.run), "unpause", container.id, found["cellwall"] | {"name": container.name})


def is_paused(found: dict[str, Any]) -> bool:
    """Whether the container of that state stands still; asks the kernel."""
    from .cgroups.group import is_frozen

    return is_frozen(found["cellwall"].get("cgroup") or {})


def wait_for_moment(folder: str) -> None:
    """Return once nobody holds the container with that run-time folder still for a moment, or it has ended."""
    try:
        lock_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
    finally:
        os.close(lock_fd)


def thaw(found: dict[str, Any]) -> bool:
    """Let the container of that state go on; False where it wasn't paused."""
    if not is_paused(found):
        return False
    with suppress(FileNotFoundError):  # it ended meanwhile, and its group went with it
        _group(found).thaw()
    return True


def _group(found: dict[str, Any]) -> Group:
    from .cgroups.group import Group

    return Group.open(found["cellwall"].get("cgroup") or {})


@contextmanager
def paused(paths: dict[str, str], folder: str) -> Iterator[None]:
    """The processes of the group ``paths`` (by controller) stand still while the block runs.

    ``folder``: the container's run-time folder. Raises CgroupError, UnsupportedError, FileNotFoundError where the container has ended.
    """
    lock_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        helper = _spawn(paths, lock_fd)
    finally:
        os.close(lock_fd)
    try:
        assert helper.stdout is not None
        answer = os.read(helper.stdout.fileno(), 4096)
        if answer[:1] == b"u":
            raise UnsupportedError(answer[1:].decode(errors="replace"))
        if answer != b"\0":
            raise CgroupError(answer[1:].decode(errors="replace") or "the helper that pauses the container ended early")
        yield
    finally:
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.close()
        died = helper.wait() != 0
        helper.stdout.close()
        if died:
            from .cgroups.group import Group

            with suppress(CellwallError):  # the container has ended meanwhile, and its group with it
                Group.open(paths).thaw()


def _spawn(paths: dict[str, str], lock_fd: int) -> subprocess.Popen[bytes]:
    import subprocess

    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CODE, _PACKAGES, json.dumps(paths), str(lock_fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[lock_fd],
        env={key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ},
        cwd="/",
        # A Ctrl-C in a terminal is the caller's to handle.
        process_group=0,
    )
