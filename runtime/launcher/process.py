"""The last steps before a program runs in a container: who it is, what it may do, and the exec itself.

Shared by a container's first process and by commands that join it later. It runs inside the container's root, in memory
that isn't dumpable. Order matters here, and each comment says why.
Source: runtime-spec config.md#process, capabilities(7), seccomp(2), execve(2), pty(7).
"""

from __future__ import annotations

import binascii
import fcntl
import os
import signal
import socket
import struct
import time
from errno import EACCES, EEXIST, EISDIR, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM

from ..errors import InitError, SyscallError
from ..linux import capabilities, rlimits, seccomp
from ..linux.files import write_all
from ..linux.mounts import AT_FDCWD, move_mount, open_tree
from ..linux.process import (
    CLOSE_RANGE_CLOEXEC,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    close_range,
    new_session_keyring,
    openat2,
    prctl,
)

# Nothing can be imported after pivot_root: all that runs in a container is loaded with the launcher.
from . import DEFAULT_PATH, keeper, users
from .layer_mounts import inherited_limits
from .wire import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
# Python ignores the first two, the launcher the third, and an ignored signal stays so across exec: programs expect the default.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)
# Where a cell's text lies: on the container's own /dev, which is a tmpfs that every container has.
CELL_FOLDER = "/dev/cell"


class Step:
    """What is being done, for the error message if it fails, and for a trace where one is wanted (tracing.py)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.stamps: list[list[Any]] | None = None

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if self.stamps is not None:
            self.done()
        self._name = name

    def trace(self) -> None:
        """Stamp the end of each step from now on."""
        self.stamps = []

    def done(self) -> None:
        """The step that has a name is over."""
        if self.stamps is not None:
            self.stamps.append([self._name, time.monotonic_ns()])


def begin_session() -> None:
    """Have a session and a keyring of one's own. Source: setsid(2), session-keyring(7)."""
    os.setsid()
    new_session_keyring()


def exec_process(sync: socket.socket, process: dict[str, Any], fds: list[int], step: Step) -> NoReturn:
    """Become the program of ``process`` (or, for ``keeper``, the container's own small init). Raises InitError.

    The caller has begun a session.
    """
    if process["terminal"]:
        step.name = "terminal"
        fds = [*_terminal(sync, process), *fds]
    step.name = "standard streams"
    for number in range(3):
        # Never in place: the received descriptors lie above 2, for the launcher keeps those three open.
        os.dup2(fds[number], number, inheritable=True)
    if process["terminal"]:
        fcntl.ioctl(0, _TIOCSCTTY, 0)
    step.name = "rlimits"
    inherited_limits()
    lowered = rlimits.apply_bundle(process["rlimits"])
    if lowered:
        send(sync, {"warnings": lowered})
    step.name = "user"
    uid, gid, groups, home = users.resolve(process["user"], process["groups"])
    environment: dict[str, str] = process["env"]
    environment.setdefault("HOME", home)
    step.name = "working folder"
    cwd = process["cwd"] or "/"
    enter(cwd, create=process.get("make_cwd", True))
    step.name = "cell"
    arguments = arguments_of(process, environment)
    late_filter = become(process, uid, gid, groups, step)
    step.name = "working folder"
    enter(cwd, create=False)
    if process["no_new_privileges"]:
        step.name = "no_new_privs"
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o022)
    step.name = "exec"
    if process["keeper"]:
        keeper.keep(sync, late_filter)
    candidates = candidates_of(arguments[0], environment)
    if step.stamps is not None:
        send(sync, {"stamps": step.stamps})
    # Not closed now: the sync socket must live until the exec has worked.
    close_range(3, flags=CLOSE_RANGE_CLOEXEC)
    _default_signals()
    if process["init"]:
        keeper.run_below(sync, candidates, arguments, environment, late_filter, group=bool(process.get("signal_group")))
    if late_filter:
        seccomp.load(late_filter, process["seccomp_flags"])
    exec_first(candidates, arguments, environment)


def become(process: dict[str, Any], uid: int, gid: int, groups: list[int], step: Step) -> bytes:
    """Be the process's user, with its capabilities and no more; returns the filter that is to be loaded after no_new_privs, if any.

    Raises InitError where the user is outside of the container's ids.
    """
    step.name = "capabilities"
    keep = process["capabilities"]
    filter_program = binascii.a2b_base64(process["seccomp"])
    late_filter = filter_program if process["no_new_privileges"] else b""
    # The bounding set needs CAP_SETPCAP, which the next steps may take away.
    capabilities.limit_bounding(keep)
    if filter_program and not late_filter:
        # Without no_new_privs a filter needs CAP_SYS_ADMIN: so it comes before the capabilities go.
        seccomp.load(filter_program, process["seccomp_flags"])
    step.name = "user"
    prctl(PR_SET_KEEPCAPS, 1)
    try:
        if process["setgroups"]:
            os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise InitError(
            "user",
            f"user {uid}:{gid} is outside the {process['id_count']} ids of this container: take a smaller one"
            + (
                ""
                if process["id_count"] >= 65536
                else ", or let your administrator grant more (`cellwall doctor`, subids)"
            ),
            error.errno or 0,
        ) from error
    prctl(PR_SET_KEEPCAPS, 0)
    # Changing the user made the kernel forget it.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if uid == 0:
        capabilities.hold(keep)
    else:
        # As docker's: a user other than root has none, and a program with file capabilities gets them from the bounding set.
        capabilities.hold(())
    return late_filter


def exec_first(candidates: list[str], arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """execve the first of ``candidates`` that there is. Raises InitError with docker's status 126 or 127."""
    start_first(candidates, arguments, environment, os.execve)
    raise AssertionError("execve returned")


def start_first(
    candidates: list[str],
    arguments: list[str],
    environment: dict[str, str],
    start: Callable[[str, list[str], dict[str, str]], int],
) -> int:
    """``start`` the first of ``candidates`` that there is; returns what that does. Raises InitError as ``exec_first``."""
    name = arguments[0]
    refused: OSError | None = None
    for path in candidates:
        try:
            return start(path, arguments, environment)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                if os.path.exists(path) and not os.path.isdir(path):
                    raise InitError(
                        "exec",
                        f"{path}: its interpreter isn't in the image (see its #! line, or its ELF loader)",
                        ENOENT,
                        127,
                    ) from error
                continue
            refused = error
            if error.errno != EACCES:
                break
    if refused is None:
        where = "in the image" if "/" in name else "in the image's PATH"
        raise InitError("exec", f"{name}: not found {where}", ENOENT, 127)
    number = refused.errno or 0
    mend = {
        EACCES: "permission denied: is it executable, and may its user run it",
        EISDIR: "is a folder",
        ENOEXEC: "not a program of this machine, and without a #! line",
        ELOOP: "too many links",
        EPERM: "not permitted",
    }.get(number, (refused.strerror or "").lower())
    raise InitError("exec", f"{name}: {mend}", number, 126) from refused


def candidates_of(name: str, environment: dict[str, str]) -> list[str]:
    """The paths where the program ``name`` may be. Raises InitError for an empty word."""
    if not name:
        raise InitError("exec", "the command is an empty word: say a program's name", ENOENT, 127)
    if "/" in name:
        return [name]
    return [f"{folder or '.'}/{name}" for folder in environment.get("PATH", DEFAULT_PATH).split(":")]


def arguments_of(process: dict[str, Any], environment: dict[str, str]) -> list[str]:
    """The command, or the interpreter of a cell's text, which is written to a file in the container first."""
    script = process.get("script")
    if script is None:
        return list(process["args"])
    text = binascii.a2b_base64(script["text"])
    path = f"{CELL_FOLDER}/{script['name']}"
    try:
        os.mkdir(CELL_FOLDER, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise InitError(
            "cell", f"the cell's text can't be written to {CELL_FOLDER}: {(error.strerror or '').lower()}"
        ) from error
    # The container could have put a link there: a new file in the real folder, or nothing.
    folder_fd = openat2(AT_FDCWD, CELL_FOLDER, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)
    fd = os.open(
        script["name"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder_fd
    )
    try:
        os.fchmod(fd, 0o755)
        write_all(fd, text)
    finally:
        os.close(fd)
        os.close(folder_fd)
    interpreter = list(script["interpreter"])
    if not interpreter and text.startswith(b"#!"):
        line = text[2:].split(b"\n", 1)[0].decode("utf-8", "surrogateescape").strip()
        # As the kernel reads it: a path, and all the rest as one argument.
        interpreter = line.split(None, 1)
    if not interpreter:
        interpreter = [_first_present(["bash", "sh"], environment)]
    return [*interpreter, path, *process["args"]]


def remove_text(name: str, root_fd: int = -1) -> None:
    """Remove the text ``name`` of a cell, never following a link that was put there; ``root_fd``: the container's root, from outside."""
    resolve = RESOLVE_NO_SYMLINKS if root_fd < 0 else RESOLVE_NO_SYMLINKS | RESOLVE_IN_ROOT
    try:
        folder_fd = openat2(
            root_fd if root_fd >= 0 else AT_FDCWD, CELL_FOLDER, os.O_PATH | os.O_DIRECTORY, resolve=resolve
        )
        try:
            os.unlink(name, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
    except OSError:  # the container ended meanwhile, or has removed it itself
        pass


def _first_present(names: list[str], environment: dict[str, str]) -> str:
    for name in names:
        if any(os.access(path, os.X_OK) for path in candidates_of(name, environment)):
            return name
    raise InitError(
        "exec", f"the image has no {' or '.join(names)} to run the cell: name its interpreter with --lang", ENOENT, 127
    )


def enter(folder: str, *, create: bool) -> None:
    """Make ``folder`` the working folder, with ``create`` also one that isn't there. Raises InitError."""
    _change_folder(folder, create=create)
    # A link of /proc may lead out of the root: the kernel has no path for such a folder then. Source: getcwd(3).
    try:
        inside = os.getcwd().startswith("/")
    except OSError as error:
        inside = error.errno != ENOENT
    if not inside:
        raise InitError("working folder", f"working folder {folder}: it is outside of the container", ENOENT, 126)


def _change_folder(folder: str, *, create: bool) -> None:
    try:
        os.chdir(folder)
    except FileNotFoundError:
        if not create:
            raise InitError(
                "working folder", f"working folder {folder}: no such folder in the container", ENOENT, 127
            ) from None
        # As docker does for WORKDIR: made, owned by root.
        os.makedirs(folder, 0o755, exist_ok=True)
        os.chdir(folder)
    except PermissionError as error:
        if not create:
            raise InitError(
                "working folder", f"working folder {folder}: its user may not enter it", EACCES, 126
            ) from error
    except NotADirectoryError as error:
        raise InitError(
            "working folder", f"working folder {folder}: not a folder in the image", ENOTDIR, 126
        ) from error


def _terminal(sync: socket.socket, process: dict[str, Any]) -> list[int]:
    """A new terminal of the container's own devpts: its main end goes to the launcher, the other becomes stdio.

    Source: pty(7), ioctl_tty(2) TIOCGPTPEER (which needs no path, so the container can't swap it).
    """
    main_fd = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(main_fd, _TIOCSPTLCK, struct.pack("i", 0))
    peer_fd = fcntl.ioctl(main_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    rows, columns = process.get("size") or (24, 80)
    fcntl.ioctl(main_fd, _TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    if os.getpid() == 1:
        _bind_console(peer_fd)
    send(sync, {"terminal": True}, [main_fd])
    os.close(main_fd)
    return [peer_fd, peer_fd, peer_fd]


def _bind_console(peer_fd: int) -> None:
    """Show the terminal as /dev/console, as runtime-spec config-linux.md asks."""
    try:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno != EEXIST:
            raise
    try:
        fd = open_tree(AT_FDCWD, f"/dev/pts/{os.path.basename(os.ttyname(peer_fd))}")
    except SyscallError:
        return
    move_mount(fd, AT_FDCWD, "/dev/console")
    os.close(fd)


def _default_signals() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
