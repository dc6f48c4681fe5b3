"""How an ordinary user's launcher becomes root of a user namespace, and then the ordinary launcher.

One user namespace for all launchers of a user, so that each can enter the containers of the others: a launcher that
finds a living one joins its namespace; else it makes one and has newuidmap(1) write the map, 0 -> the user, 1 and up ->
the subordinate ids. Then it executes itself again, for memory that belongs to the new namespace.
Source: user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import os
import sys

from ..errors import SyscallError
from ..linux.process import CLONE_NEWNS, CLONE_NEWUSER, be_root, is_running, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def fail(text: str) -> NoReturn:
    """End with one line on the log, which the client shows."""
    os.write(2, (text + "\n").encode())
    os._exit(1)


def main() -> None:
    """Enter the user namespace and become ``server.main`` in it."""
    uid, gid = os.geteuid(), os.getegid()
    folder = os.environ.get("CELLWALL_USERNS_FOLDER", "")
    if not (folder and _join(folder)):
        _make(uid, gid)
    be_root(setgroups=False)
    unshare(CLONE_NEWNS)
    arguments = [*sys.orig_argv]
    arguments[0] = sys.executable
    arguments[-1] = arguments[-1].replace("launcher.rootless import", "launcher.server import")
    os.set_inheritable(3, True)
    os.execve(sys.executable, arguments, {**os.environ, "CELLWALL_IN_USERNS": str(uid)})


def _join(folder: str) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        pid, _, started = name.partition(".")
        if not (pid.isdigit() and started.isdigit()):
            continue
        if not is_running(int(pid), int(started)):
            try:
                os.unlink(f"{folder}/{name}")
            except FileNotFoundError:  # another launcher saw it too
                pass
            continue
        try:
            fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            setns(fd, CLONE_NEWUSER)
            return True
        except SyscallError:  # it ended, or hasn't entered its own yet
            continue
        finally:
            os.close(fd)
    return False


def _make(uid: int, gid: int) -> None:
    name = _user_name(uid)
    ranges = {kind: _subordinate(f"/etc/sub{kind}", name, uid) for kind in ("uid", "gid")}
    helpers = all(_find(f"new{kind}map") for kind in ("uid", "gid"))
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        # Outside: newuidmap must be run by a process that isn't in the new namespace.
        os.close(go_write)
        if os.read(go_read, 1) == b"m":
            try:
                failed = _map_with_helpers(parent, uid, gid, ranges)
                os.write(done_write, (failed or "ok").encode())
            except OSError as error:
                os.write(done_write, str(error).encode())
        os._exit(0)
    try:
        unshare(CLONE_NEWUSER)
    except SyscallError as error:
        fail(_why_not(error))
    if helpers and ranges["uid"] and ranges["gid"]:
        os.write(go_write, b"m")
        answer = os.read(done_read, 4096).decode()
        os.waitpid(child, 0)
        if answer != "ok":
            fail(answer)
    else:
        # One id only: every file of an image belongs to the user. Said by doctor and in the first cell.
        os.close(go_write)
        os.waitpid(child, 0)
        for path, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            try:
                with open(f"/proc/self/{path}", "w") as file:
                    file.write(text)
            except PermissionError as error:
                # Ubuntu's restriction lets the namespace be made, and gives it no capability.
                fail(_why_not(SyscallError(error.errno or 1, "write uid_map")))
        return
    os.setgroups([])


def _map_with_helpers(pid: int, uid: int, gid: int, ranges: dict[str, list[tuple[int, int]]]) -> str:
    for kind, own in (("uid", uid), ("gid", gid)):
        words = ["0", str(own), "1"]
        inside = 1
        for first, count in ranges[kind]:
            words += [str(inside), str(first), str(count)]
            inside += count
        program = _find(f"new{kind}map")
        out_read, out_write = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, out_write, 1), (os.POSIX_SPAWN_DUP2, out_write, 2)]
        helper = os.posix_spawn(program, [f"new{kind}map", str(pid), *words], os.environ, file_actions=actions)
        os.close(out_write)
        output = b""
        while piece := os.read(out_read, 4096):
            output += piece
        os.close(out_read)
        if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) != 0:
            text = " ".join(output.decode("utf-8", "replace").split())
            return f"new{kind}map refused the ids of /etc/sub{kind}: {text}"
    return ""


def _subordinate(path: str, name: str, uid: int) -> list[tuple[int, int]]:
    """The ranges ``(first, count)`` that ``path`` gives the user. Source: subuid(5)."""
    found = []
    try:
        with open(path) as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in (name, str(uid)) and fields[1].isdigit() and fields[2].isdigit():
                    if int(fields[2]) > 0:
                        found.append((int(fields[1]), int(fields[2])))
    except FileNotFoundError:
        pass
    return found


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _find(program: str) -> str:
    for folder in os.environ.get("PATH", "/usr/bin:/bin").split(":"):
        if os.access(f"{folder}/{program}", os.X_OK):
            return f"{folder}/{program}"
    return ""


def _why_not(error: SyscallError) -> str:
    for path, value, mend in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        try:
            with open(path) as file:
                if file.read().strip() == value:
                    return f"this machine gives ordinary users no user namespaces ({path} is {value}): run as root `{mend}`"
        except OSError:
            continue
    return f"this machine gives ordinary users no user namespaces ({error}): run cellwall as root, or ask its administrator"
