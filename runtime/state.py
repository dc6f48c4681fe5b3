"""What is known of running containers, on disk: one folder each with a ``state.json``, and the id ranges in use.

Every entry appears whole or not at all, changes one at a time, and names the launcher that answers for it by pid and start time, so that what
a killed launcher left behind can be told from what lives. Light: the launcher imports it.
Source: runtime-spec runtime.md#state (the fields of state.json; ours are below ``cellwall``).
"""

from __future__ import annotations

import fcntl
import json
import os
from errno import EEXIST, ENOTEMPTY

from .errors import AlreadyExists, CellwallError, UnsupportedError
from .linux.files import write_all
from .linux.process import is_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# Root's containers get ids from here up: above what distributions give to users (100,000 up), outside of systemd's
# ranges (dynamic users, nspawn's 0x00080000 to 0x6FFF0000), and below 2^31, which some filesystems end at.
FIRST_ID = 0x70000000
IDS_PER_CONTAINER = 65536
# What tells one state.json from the next: inode, size and time of the last change in ns.
Stamp = tuple[int, int, int]
RANGES = 4094
# Records and states that one process holds in memory, some 30 KB each: those of the containers that somebody works with.
_MOST_HELD = 16


def save(running: str, container_id: str, state: dict[str, Any]) -> Stamp:
    """Write ``state.json`` of ``container_id`` below the folder ``running``, in one step; returns its stamp.

    For whoever answers for the container: others ``change`` what is there.
    """
    with _Locked(running):
        return _save(running, container_id, state)


def change(running: str, container_id: str, what: Callable[[dict[str, Any]], object]) -> bool:
    """Have ``what`` change the state of ``container_id`` as it is now, whoever changes it beside; False where it has none any more."""
    with _Locked(running):
        found = load(running, container_id)
        if found is None:
            return False
        what(found)
        _save(running, container_id, found)
        return True


def _save(running: str, container_id: str, state: dict[str, Any]) -> Stamp:
    folder = f"{running}/{container_id}"
    temporary = f"{folder}/.tmp-state"
    data = json.dumps(state).encode()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        stamp = _stamp(os.fstat(fd))
    finally:
        os.close(fd)
    os.rename(temporary, f"{folder}/state.json")
    return stamp


def is_as_saved(running: str, container_id: str, stamp: Stamp) -> bool:
    """Whether ``state.json`` is the file that ``save`` gave ``stamp`` for: whoever changes it puts another in its place."""
    try:
        return _stamp(os.stat(f"{running}/{container_id}/state.json")) == stamp
    except (FileNotFoundError, NotADirectoryError):
        return False


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


def create(running: str, container_id: str, state: dict[str, Any]) -> Stamp:
    """Make the folder of ``container_id`` with its ``state.json`` in it; returns that's stamp. Raises AlreadyExists where there is one."""
    owner = state["cellwall"]["launcher"]
    temporary = f".tmp-{container_id}"
    folder = f"{running}/{temporary}.{owner['pid']}.{owner['started']}"
    os.mkdir(folder, 0o700)
    stamp = _save(running, os.path.basename(folder), state)
    try:
        # rename(2) replaces an empty folder only, and one of a container holds its state; one that is being removed is empty at its end.
        with _Locked(running):
            os.rename(folder, f"{running}/{container_id}")
    except OSError as error:
        remove(running, os.path.basename(folder))
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise
        raise AlreadyExists(
            f"container {container_id[:12]} runs already, or is still being cleaned up: try again"
        ) from error
    return stamp


def load(running: str, container_id: str) -> dict[str, Any] | None:
    """The state of ``container_id``, or None where it has none."""
    return read_json(f"{running}/{container_id}/state.json")


class Held:
    """JSON files that are only ever replaced whole, held in memory: one is read again when it was."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Stamp, dict[str, Any]]] = {}

    def read(self, path: str) -> dict[str, Any] | None:
        """What the file at ``path`` holds, which isn't to be changed; None where there is none."""
        try:
            stamp = _stamp(os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        held = self._files.get(path)
        if held is not None and held[0] == stamp:
            return held[1]
        found = read_json(path)
        if found is None:
            return None
        if len(self._files) >= _MOST_HELD:
            self._files.clear()
        # Stamped before it was read: what was replaced in between is read again.
        self._files[path] = (stamp, found)
        return found


def read_json(path: str) -> dict[str, Any] | None:
    """What the file at ``path`` holds; None where it isn't there."""
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def remove(running: str, container_id: str, *, stale: bool = False) -> None:
    """Forget ``container_id``; nothing where it isn't known, nor, with ``stale``, where it has been started again, by a launcher that lives."""
    try:
        with _Locked(running):
            if stale and (found := load(running, container_id)) and owner_lives(found["cellwall"]["launcher"]):
                return
            remove_files(f"{running}/{container_id}")
    except FileNotFoundError:  # the whole folder has been removed
        pass


def sweep(running: str) -> None:
    """Remove the folders that a process was killed over while it removed them: whoever lives and removes one has the lock until it is gone."""
    try:
        with _Locked(running):
            for name in os.listdir(running):
                folder = f"{running}/{name}"
                if not name.startswith(".") and not os.path.exists(f"{folder}/state.json"):
                    remove_files(folder)
    except FileNotFoundError:  # there has been no container yet
        pass


def remove_files(folder: str) -> None:
    """Remove a folder that holds files only, with what is still put down there meanwhile; nothing where it isn't there.

    Whoever else removes it may be quicker.
    """
    while True:
        for name in names_in(folder):
            try:
                os.unlink(f"{folder}/{name}")
            except FileNotFoundError:  # somebody was quicker
                pass
        try:
            os.rmdir(folder)
        except FileNotFoundError:  # the same, or it wasn't there
            return
        except OSError as error:
            if error.errno != ENOTEMPTY:
                raise


def names_in(folder: str) -> list[str]:
    """What is in a folder; nothing where it isn't there, or has just been removed."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def each(running: str) -> Iterator[dict[str, Any]]:
    """The states of all containers that are known."""
    for name in sorted(names_in(running)):
        if not name.startswith("."):
            state = load(running, name)
            if state is not None:
                yield state


def owner_lives(owner: dict[str, int]) -> bool:
    """Whether the launcher ``{"pid": …, "started": …}`` is the process it was."""
    return is_running(owner["pid"], owner["started"])


def runs(found: dict[str, Any]) -> bool:
    """Whether the container of that state runs, or is being made; not so while it is only being cleaned up."""
    if not owner_lives(found["cellwall"]["launcher"]):
        return False
    return not found["pid"] or is_running(found["pid"], found["cellwall"]["init_started"])


def claim_ids(folder: str, container_id: str, owner: dict[str, int]) -> tuple[int, int]:
    """Take a free id range for ``container_id``: ``(slot, first host id)``.

    A claim is a symbolic link whose text names the owner: made in one step, and refused where the slot is taken.
    Raises UnsupportedError where every range is in use.
    """
    text = f"{owner['pid']}:{owner['started']}:{container_id}"
    # Different containers begin to look at different places, so that the first try mostly works.
    first = int(container_id[:8], 16) % RANGES
    for offset in range(RANGES):
        slot = (first + offset) % RANGES
        try:
            os.symlink(text, f"{folder}/{slot}")
        except FileExistsError:
            continue
        return slot, FIRST_ID + slot * IDS_PER_CONTAINER
    raise UnsupportedError(f"all {RANGES} id ranges are in use", "remove containers that you no longer need")


def claim_slot(folder: str, slot: int, container_id: str, owner: dict[str, int]) -> None:
    """Take exactly the range of ``slot``, which may be the container's already. Raises CellwallError where another has it."""
    try:
        os.symlink(f"{owner['pid']}:{owner['started']}:{container_id}", f"{folder}/{slot}")
    except FileExistsError:
        if not os.readlink(f"{folder}/{slot}").endswith(f":{container_id}"):
            raise CellwallError(
                f"the id range that the container's files have ({slot}) is in use by another container: stop that one first"
            ) from None


def share_ids(folder: str, slot: int, other: str, container_id: str, owner: dict[str, int]) -> None:
    """Hold the range of ``slot``, which ``other`` has, for ``container_id`` as well: nobody else gets it before both are gone.

    Raises CellwallError where ``other`` doesn't have it any more.
    """
    with _Locked(folder):
        try:
            held = os.readlink(f"{folder}/{slot}").endswith(f":{other}") or os.path.islink(f"{folder}/{slot}+{other}")
        except FileNotFoundError:
            held = False
        if not held:
            raise CellwallError(f"container {other[:12]} ended meanwhile")
        os.symlink(f"{owner['pid']}:{owner['started']}:{container_id}", f"{folder}/{slot}+{container_id}")


def release_ids(folder: str, slot: int, container_id: str = "", *, stale: bool = False) -> None:
    """Give the range of ``slot`` back; where another container holds it as well, it is that one's from now on.

    ``container_id`` is whose it was, ``stale`` says that its owner has ended: it may have been given to another since, who keeps it then.
    Where the whole folder has been removed there is nothing to give back.
    """
    try:
        with _Locked(folder):
            try:
                if container_id:
                    os.unlink(f"{folder}/{slot}+{container_id}")
                    return
            except FileNotFoundError:  # it holds the range itself, or for others
                pass
            if (stale and _lives(f"{folder}/{slot}")) or not os.readlink(f"{folder}/{slot}").endswith(container_id):
                return
            heirs = [name for name in os.listdir(folder) if name.startswith(f"{slot}+") and _lives(f"{folder}/{name}")]
            if heirs:
                os.rename(f"{folder}/{heirs[0]}", f"{folder}/{slot}")
            else:
                os.unlink(f"{folder}/{slot}")
    except FileNotFoundError:  # that folder; or a reconcile that saw the owner end was quicker
        pass


class _Locked:
    """One at a time changes what is in the folder, where it isn't done in one step; a killed process gives the lock up. Source: flock(2)."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _lives(link: str) -> bool:
    """Whether the owner that the link's text names is the process it was."""
    try:
        pid, started, _ = os.readlink(link).split(":")
    except FileNotFoundError:
        return False
    return is_running(int(pid), int(started))


def stale_spares(folder: str) -> Iterator[str]:
    """The names of the sandboxes that launchers had ready when they were killed; see launcher/pool.py."""
    for name, owner in spares(folder):
        if not owner_lives(owner):
            yield name


def spares(folder: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The sandboxes that wait for a container: the name of each control group, and the launcher that answers for it."""
    for name in names_in(folder):
        try:
            pid, started = os.readlink(f"{folder}/{name}").split(":")
        except FileNotFoundError:  # used or given up between the look and the read
            continue
        yield name, {"pid": int(pid), "started": int(started)}


def stale_ids(folder: str) -> Iterator[int]:
    """The slots whose owner has ended."""
    for name in names_in(folder):
        if "+" in name:
            # A share: its container's own end, or this, gives it up.
            if not _lives(f"{folder}/{name}"):
                slot, _, container_id = name.partition("+")
                release_ids(folder, int(slot), container_id)
            continue
        try:
            pid, started, _ = os.readlink(f"{folder}/{name}").split(":")
        except FileNotFoundError:  # released between the look and the read
            continue
        if not is_running(int(pid), int(started)):
            yield int(name)
