"""Kernel features tried for real, each in a forked process with namespaces of its own: whatever it makes goes with it.

Runs as ``python -I -S`` (see ``attempt.py``), which has one thread, so that it may fork; never imported by the notebook's
process. Prints one JSON object: trial to ``{"errno", "text"}``, errno 0 where it worked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from errno import EOPNOTSUPP

from ..errors import CellwallError
from ..linux import capabilities, mounts, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ALLOW_ALL = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW (both machines are little-endian)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _enter_user_namespace(flags: int = 0) -> None:
    """A user namespace in which the caller is root, with further namespaces of ``flags``."""
    uid, gid = os.geteuid(), os.getegid()
    process.unshare(process.CLONE_NEWUSER | flags)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {uid} 1")
    _write("/proc/self/gid_map", f"0 {gid} 1")


def _private_mounts() -> None:
    process.unshare(process.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)


def _tmpfs() -> None:
    """Be in a new tmpfs that only this process sees."""
    mounts.mount("cellwall-probe", "/tmp", "tmpfs", 0, "size=1m,mode=0700")
    os.chdir("/tmp")


def user_namespace() -> str:
    """Also what a namespace gives: Ubuntu's AppArmor lets one be made, and takes its capabilities away."""
    _enter_user_namespace(process.CLONE_NEWNS)
    _tmpfs()
    return ""


def namespace(flag: int) -> Callable[[], str]:
    def trial() -> str:
        if os.geteuid() != 0:
            _enter_user_namespace(flag)
        else:
            process.unshare(flag)
        return ""

    return trial


def _overlay(options: str) -> None:
    _tmpfs()
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(name)
    with open("lower/file", "w") as file:
        file.write("below")
    mounts.mount("cellwall-probe", "merged", "overlay", 0, f"lowerdir=lower,upperdir=upper,workdir=work{options}")
    # A removal needs a whiteout, which is a device node or a link to one.
    os.unlink("merged/file")
    os.mkdir("merged/folder")
    if os.path.exists("merged/file") or not os.path.isdir("upper/folder"):
        raise OSError(5, "the mounted tree isn't what was written")


def overlay() -> str:
    _private_mounts()
    _overlay("")
    return ""


def overlay_user_namespace() -> str:
    _enter_user_namespace(process.CLONE_NEWNS)
    _overlay(",userxattr")
    return ""


def overlay_lowerdir_plus() -> str:
    """fsconfig's ``lowerdir+``, one lower layer at a time (Linux 6.5): the old mount's string ends at one page."""
    if os.geteuid() != 0:
        _enter_user_namespace(process.CLONE_NEWNS)
    else:
        _private_mounts()
    _tmpfs()
    os.mkdir("a")
    os.mkdir("b")
    context_fd = mounts.fsopen("overlay")
    mounts.fsconfig(context_fd, "lowerdir+", "/tmp/a")
    mounts.fsconfig(context_fd, "lowerdir+", "/tmp/b")
    mounts.fsmount(context_fd)
    return ""


def _map_of_another() -> int:
    """A descriptor of a user namespace that maps 0 to 100000; its process has ended by then."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
            process.unshare(process.CLONE_NEWUSER)
            os.write(write_fd, b"+")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write_fd)
    try:
        if not os.read(read_fd, 1):
            raise OSError(1, "no user namespace for the map")
        _write(f"/proc/{pid}/uid_map", "0 100000 65536")
        _write(f"/proc/{pid}/gid_map", "0 100000 65536")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(read_fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def idmapped(path: str) -> Callable[[], str]:
    """An idmapped copy of the mount that holds ``path`` ("": a tmpfs)."""

    def trial() -> str:
        userns_fd = _map_of_another()
        _private_mounts()
        if not path:
            _tmpfs()
        tree_fd = mounts.open_tree(mounts.AT_FDCWD, path or "/tmp")
        mounts.mount_setattr(tree_fd, mounts.MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
        shown = os.stat(path or "/tmp").st_uid
        mapped = os.stat(f"/proc/self/fd/{tree_fd}/").st_uid
        if mapped != shown + 100000:
            raise OSError(5, f"owner {shown} became {mapped}")
        return ""

    return trial


def erofs(folder: str) -> Callable[[], str]:
    """A layer of the erofs driver, mounted from files in ``folder`` and read back."""

    def trial() -> str:
        from ..storage.erofs_check import check_erofs

        check_erofs(folder)
        return ""

    return trial


def new_mount() -> str:
    if os.geteuid() != 0:
        _enter_user_namespace(process.CLONE_NEWNS)
    else:
        _private_mounts()
    tree_fd = mounts.new_mount("tmpfs", {"size": "64k"})
    target_fd = os.open("/tmp", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.move_mount(tree_fd, target_fd)
    return ""


def proc_mount() -> str:
    """A proc of a new pid namespace: refused where parts of the present one are covered, as in most containers."""
    flags = process.CLONE_NEWNS | process.CLONE_NEWPID
    if os.geteuid() != 0:
        _enter_user_namespace(flags)
    else:
        process.unshare(process.CLONE_NEWUSER | flags)
        _write("/proc/self/uid_map", "0 0 1")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", "0 0 1")
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            mounts.mount("proc", "/proc", "proc", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
        except OSError as err:
            status = err.errno or 255
        os._exit(status)
    _, ended = os.waitpid(pid, 0)
    if status := os.waitstatus_to_exitcode(ended):
        raise OSError(abs(status), "mount proc")
    return ""


def clone3() -> str:
    pid, pidfd = process.clone3(0)
    if pid == 0:
        os._exit(0)
    os.close(pidfd)
    os.waitpid(pid, 0)
    return ""


def pidfd() -> str:
    fd = process.pidfd_open(os.getpid())
    process.pidfd_send_signal(fd, 0)
    os.close(fd)
    return ""


def openat2() -> str:
    os.close(process.openat2(mounts.AT_FDCWD, "/", os.O_PATH, resolve=process.RESOLVE_IN_ROOT))
    return ""


def close_range() -> str:
    process.close_range(1000, 1010)
    return ""


def filter_() -> str:
    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(_ALLOW_ALL)
    return ""


def _own_network() -> None:
    if os.geteuid() != 0:
        _enter_user_namespace(process.CLONE_NEWNET)
    else:
        process.unshare(process.CLONE_NEWNET)


def link(kind: str) -> Callable[[], str]:
    """A network link of that kind, made in a namespace of the trial's own. Source: rtnetlink(7), RTM_NEWLINK."""

    def trial() -> str:
        from ..network import nftables as netlink

        _own_network()
        body = bytes(16) + netlink.text(3, "cw-probe") + netlink.nest(18, netlink.text(1, kind))
        flags = netlink.REQUEST | netlink.ACK | netlink.CREATE | netlink.EXCL
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.bind((0, 0))
            sock.send(struct.pack("=IHHII", 16 + len(body), 16, flags, 1, 0) + body)
            number: int = -struct.unpack_from("=i", sock.recv(4096), 16)[0]
        if number:
            raise OSError(number, f"make a {kind} link: {os.strerror(number).lower()}")
        return ""

    return trial


def nftables_nat() -> str:
    """All that a network's table holds: maps, NAT, masquerading, what fib and ct tell."""
    from ..errors import NetworkError, UnsupportedError
    from ..network import rules

    _own_network()
    subnets = [{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]
    network = {"id": "0" * 64, "bridge": "cw-probe", "internal": False, "masquerade": True, "icc": True}
    try:
        rules.make(network | {"subnets": subnets})
    except UnsupportedError as error:
        # The probe that asks says what mends it.
        raise OSError(EOPNOTSUPP, error.feature) from error
    except NetworkError as error:
        raise OSError(EOPNOTSUPP, str(error)) from error
    return ""


def held() -> str:
    """Which capabilities there are, as names: root itself may lack some."""
    return " ".join(capabilities.names(capabilities.capget()[0]))


def _trials(folder: str) -> dict[str, Callable[[], str]]:
    return {
        "user-namespace": user_namespace,
        "mount-namespace": namespace(process.CLONE_NEWNS),
        "pid-namespace": namespace(process.CLONE_NEWPID),
        "network-namespace": namespace(process.CLONE_NEWNET),
        "uts-namespace": namespace(process.CLONE_NEWUTS),
        "ipc-namespace": namespace(process.CLONE_NEWIPC),
        "cgroup-namespace": namespace(process.CLONE_NEWCGROUP),
        "time-namespace": namespace(process.CLONE_NEWTIME),
        "overlay": overlay,
        "overlay-user-namespace": overlay_user_namespace,
        "overlay-lowerdir-plus": overlay_lowerdir_plus,
        "idmapped-tmpfs": idmapped(""),
        "idmapped-folder": idmapped(folder),
        "erofs": erofs(folder),
        "new-mount": new_mount,
        "proc-mount": proc_mount,
        "clone3": clone3,
        "pidfd": pidfd,
        "openat2": openat2,
        "close-range": close_range,
        "seccomp": filter_,
        "capabilities": held,
        "bridge-link": link("bridge"),
        "veth-link": link("veth"),
        "nftables-nat": nftables_nat,
    }


def _said(error: OSError) -> str:
    """In words, without the number that Python puts before them."""
    if isinstance(error, CellwallError):
        return str(error)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


def _run(trial: Callable[[], str]) -> dict[str, object]:
    """The outcome of ``trial`` in a process of its own."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            outcome: dict[str, object] = {"errno": 0, "text": trial()}
        except OSError as err:
            outcome = {"errno": err.errno or -1, "text": _said(err)}
        except Exception as err:
            outcome = {"errno": -1, "text": f"{type(err).__name__}: {err}"}
        os.write(write_fd, json.dumps(outcome).encode()[:4096])
        os._exit(0)
    os.close(write_fd)
    answer = b""
    while part := os.read(read_fd, 4096):
        answer += part
    os.close(read_fd)
    _, status = os.waitpid(pid, 0)
    if answer:
        found: dict[str, object] = json.loads(answer)
        return found
    return {"errno": -1, "text": f"the trial ended with status {os.waitstatus_to_exitcode(status)}"}


def main(arguments: list[str]) -> None:
    """``arguments``: the folder that holds, or will hold, the images; then the names of the trials (none: all)."""
    folder, *wanted = arguments
    trials = _trials(folder)
    print(json.dumps({name: _run(trials[name]) for name in wanted or trials}))


if __name__ == "__main__":
    main(sys.argv[1:])
