"""The agent: it stands in a container as the container's own process does, and starts one further command after another there.

It is a child of the launcher that has joined from outside, as joining.py does, and then taken the user, the capabilities, the limits
and the filter of the container's process: a command has all of that from it, so nothing runs between the message and the exec
but ``posix_spawn``. It isn't in the pid namespace itself, whose children it makes: what runs in the container can't see it,
signal it or trace it, and its memory isn't dumpable. Its one way out is its socket to the launcher, and the launcher takes from it
who was started, how that ended, and why it couldn't be. See docs/adr/0017-agent.md.
It is asked by the launcher, or on a *line*: a socket that the launcher gave to its client, for one command after another without the
launcher between (line.py). What it says is the same on both.
Source: setns(2), posix_spawn(3), pid_namespaces(7).
"""

from __future__ import annotations

import os
import select
import signal
import socket
from errno import EAGAIN, ENOMEM

from ..errors import InitError
from ..linux import rlimits, seccomp
from ..linux.process import (
    PR_SET_NO_NEW_PRIVS,
    be_root,
    pidfd_open,
    prctl,
    set_command_line,
    set_name,
)
from . import users
from .init import die_with_launcher, report
from .joining import join
from .layer_mounts import inherited_limits
from .process import (
    IGNORED,
    Step,
    arguments_of,
    become,
    begin_session,
    candidates_of,
    enter,
    remove_text,
    start_first,
)
from .wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

NAME = "cellwall-agent"
_USER_FILES = ("/etc/passwd", "/etc/group")


def main(sync: socket.socket, pidfd: int, namespaces: int, cgroup_fds: list[int], process: dict[str, Any]) -> NoReturn:
    """Run the agent: called right after its clone, never returns. The arguments are as joining.main's; ``process`` is the container's.

    Each message is what is a command's own of its process (see ``process_of``), with its three streams; or ``line``, with one.
    """
    step = Step("join")
    try:
        # In the container's /proc it isn't there.
        set_name(NAME)
        set_command_line(NAME)
        join(pidfd, namespaces, cgroup_fds, [sync.fileno()])
        if process["new_user"]:
            be_root(setgroups=process["setgroups"])
        step.name = "session"
        begin_session()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        step.name = "rlimits"
        inherited_limits()
        lowered = rlimits.apply_bundle(process["rlimits"])
        step.name = "user"
        who = _Who(process)
        late_filter = become(process, who.uid, who.gid, who.groups, step)
        die_with_launcher(sync)
        if process["no_new_privileges"]:
            step.name = "no_new_privs"
            prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.umask(0o022)
        step.name = "seccomp"
        if late_filter:
            seccomp.load(late_filter, process["seccomp_flags"])
        step.name = "waiting for a command"
        line: socket.socket | None = None
        is_fresh = True
        poll = select.poll()
        poll.register(sync, select.POLLIN)
        while True:
            asking = sync if line is None or poll.poll()[0][0] == sync.fileno() else line
            message, fds = receive(asking)
            if message is None:  # the launcher, or what it was for, has ended
                os._exit(0)
            if "line" in message:
                line = socket.socket(fileno=fds[0])
                poll.register(line, select.POLLIN)
                continue
            wish: Any = message["process"]
            if is_fresh or who.is_same():
                is_fresh = False
                _serve(asking, process, wish, fds, who.home, lowered)
                continue
            # A command that joined now would be another user, or have another home: the launcher sees to it.
            send(sync, {"stale": message}, fds if asking is sync else [asking.fileno(), *fds])
            os._exit(0)
    except BaseException as error:
        report(sync, step, error)
    os._exit(125)


class _Who:
    """Who the commands are: user and groups by number, home; and whether the container's files would say the same now."""

    def __init__(self, process: dict[str, Any]) -> None:
        self._process = process
        self._known = _user_files()
        self._found = self._resolve()
        self.uid, self.gid, self.groups, self.home = self._found

    def _resolve(self) -> tuple[int, int, list[int], str]:
        return users.resolve(self._process["user"], self._process["groups"])

    def is_same(self) -> bool:
        now = _user_files()
        if now != self._known:
            try:
                if self._resolve() != self._found:
                    return False
            except (InitError, OSError):
                return False
            self._known = now
        return True


def _user_files() -> list[object]:
    """What tells one state of the files that say who a user is from another; what can't be told is like nothing else."""
    found: list[object] = []
    for path in _USER_FILES:
        try:
            known = os.stat(path)
            found.append((known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns))
        except (FileNotFoundError, NotADirectoryError):
            found.append(None)
        except OSError:
            found.append(object())
    return found


def _serve(
    asking: socket.socket, process: dict[str, Any], wish: dict[str, Any], fds: list[int], home: str, lowered: list[str]
) -> None:
    """Start the command of ``wish`` on ``fds``, and tell who asked of its start and its end."""
    try:
        _run(asking, process, wish, fds, home, lowered)
    finally:
        if script := wish.get("script"):
            remove_text(script["name"])


def _run(
    asking: socket.socket, process: dict[str, Any], wish: dict[str, Any], fds: list[int], home: str, lowered: list[str]
) -> None:
    step = Step("working folder")
    try:
        if lowered:
            send(asking, {"warnings": lowered})
        environment: dict[str, str] = {**process["env"], **wish["env"]}
        environment.setdefault("HOME", home)
        if (folder := wish["cwd"] or process["cwd"] or "/") != "/":
            enter(folder, create=False)
        step.name = "cell"
        arguments = arguments_of(wish, environment)
        step.name = "exec"
        streams = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]

        def spawn(path: str, words: list[str], variables: dict[str, str]) -> int:
            try:
                return os.posix_spawn(
                    path, words, variables, file_actions=streams, setsid=True, setsigmask=(), setsigdef=IGNORED
                )
            except OSError as error:
                if error.errno in (EAGAIN, ENOMEM):
                    text = f"make a process for {path}: {(error.strerror or '').lower()}"
                    raise InitError("exec", text, error.errno) from error
                raise

        pid = start_first(candidates_of(arguments[0], environment), arguments, environment, spawn)
    except Exception as error:
        report(asking, step, error)
        return
    finally:
        for fd in fds:
            os.close(fd)
        # Where it waits it holds on to nothing.
        os.chdir("/")
    pidfd = pidfd_open(pid)
    send(asking, {"spawned": pid}, [pidfd])
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    send(asking, {"ended": code})
