"""Processes, namespaces and descriptors: clone3, setns, unshare, prctl, pidfds, openat2, close_range.

Source: clone(2), setns(2), unshare(2), prctl(2), pidfd_open(2), pidfd_send_signal(2), openat2(2), close_range(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
from errno import EAGAIN, ESRCH

from ..errors import SyscallError
from .libc import check, libc, number, syscall, syscall_holding_lock

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# Of a process, in its flags: its end has begun. Set before anything of it is let go, long before it is a zombie. Source: do_exit in the
# kernel's kernel/exit.c.
PF_EXITING = 0x4

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_prctl = libc.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_prctl.restype = ctypes.c_int
_sethostname = libc.sethostname
_sethostname.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
_sethostname.restype = ctypes.c_int
_setdomainname = libc.setdomainname
_setdomainname.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
_setdomainname.restype = ctypes.c_int


def clone3(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork with ``flags`` (CLONE_NEW*): ``(0, -1)`` in the child, ``(pid, pidfd)`` in the parent, which owns the pidfd.

    The caller has one thread: the child goes on in Python. ``cgroup_fd`` needs CLONE_INTO_CGROUP (cgroup v2, Linux 5.7).
    Source: clone(2).
    """
    pidfd = ctypes.c_int(-1)
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    # With CLONE_PARENT the child is the caller's sibling and inherits its exit signal: none may be given.
    exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD
    arguments = (ctypes.c_uint64 * 11)(
        flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0)
    )
    pid = syscall_holding_lock("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments), what=f"clone3 {flags:#x}")
    if pid == 0:
        return 0, -1
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """Move the calling process, which has one thread, into new namespaces. Source: unshare(2)."""
    syscall("unshare", flags, what=f"unshare {flags:#x}")


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace of ``fd``; for a pidfd, ``flags`` says which of its process's namespaces. Source: setns(2)."""
    syscall("setns", fd, flags, what=f"setns {flags:#x}")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Source: prctl(2)."""
    return check(_prctl(option, arg2, arg3, arg4, arg5), f"prctl {option}")


def set_name(name: str) -> None:
    """Name the calling thread (at most 15 bytes are kept). Source: PR_SET_NAME(2const)."""
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def set_command_line(text: str) -> None:
    """Write ``text`` over this process's arguments, as ``ps`` shows them, and over nothing else.

    Source: proc_pid_stat(5), fields 48 and 49 (arg_start, arg_end).
    """
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        ctypes.memmove(start, text.encode()[: end - start].ljust(end - start, b"\0"), end - start)


def pidfd_open(pid: int) -> int:
    """A descriptor of process ``pid`` that the caller closes; readable once it has ended. Source: pidfd_open(2).

    Raises ProcessLookupError where there is none.
    """
    try:
        return syscall("pidfd_open", pid, 0, what=f"pidfd_open {pid}")
    except SyscallError as error:
        raise _lookup(error) from error


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to exactly the process of ``pidfd``. Source: pidfd_send_signal(2).

    Raises ProcessLookupError where it has ended.
    """
    try:
        syscall("pidfd_send_signal", pidfd, number, None, 0, what=f"pidfd_send_signal {number}")
    except SyscallError as error:
        raise _lookup(error) from error


def _lookup(error: SyscallError) -> OSError:
    """Python's own class for ESRCH, which callers expect beside a process."""
    return ProcessLookupError(error.errno, str(error)) if error.errno == ESRCH else error


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def be_root(*, setgroups: bool) -> None:
    """Be root of the user namespace that was just made or joined; ``setgroups``, where it lets groups be set, without supplementary groups.

    Source: user_namespaces(7), "The /proc/pid/setgroups file".
    """
    os.setresgid(0, 0, 0)
    if setgroups:
        os.setgroups([])
    os.setresuid(0, 0, 0)


# So many renames in a row can't be met by chance.
_OPENAT2_TRIES = 100


# A build asks it thousands of times: by types that are said once.
_openat2 = libc["syscall"]
_openat2.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t]
_openat2.restype = ctypes.c_long
_OPENAT2 = number("openat2")


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open ``path`` below ``dirfd`` under the rules of ``resolve``; O_CLOEXEC is always set. Source: openat2(2).

    Where the path has a ``..``, any rename or mount on the machine meanwhile is EAGAIN: it is tried again.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    raw = path if isinstance(path, bytes) else os.fsencode(path)
    for _ in range(_OPENAT2_TRIES):
        fd: int = _openat2(_OPENAT2, dirfd, raw, how, ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if (errno := ctypes.get_errno()) != EAGAIN:
            break
    raise SyscallError(errno, f"open {os.fsdecode(path)}")


_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2


class filesystem_ids:
    """While the block runs, files are made as user and group ``number``, with the capabilities that the thread has.

    Without the secure bit a file-system user other than root would lose those over files. Needs CAP_SETPCAP, CAP_SETUID.
    Source: setfsuid(2), capabilities(7) SECBIT_NO_SETUID_FIXUP.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._bits = 0

    def __enter__(self) -> None:
        self._bits = prctl(_PR_GET_SECUREBITS)
        prctl(_PR_SET_SECUREBITS, self._bits | _SECBIT_NO_SETUID_FIXUP)
        libc.setfsgid(self._number)
        libc.setfsuid(self._number)

    def __exit__(self, *_: object) -> None:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())
        prctl(_PR_SET_SECUREBITS, self._bits)


CLOSE_RANGE_CLOEXEC = 4


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close (or mark close-on-exec) every descriptor from ``first`` to ``last``. Source: close_range(2)."""
    syscall("close_range", first, last, flags, what="close_range")


def new_session_keyring() -> None:
    """Leave the session keyring that was inherited, which a possessor may read. Source: keyctl(2)."""
    try:
        syscall("keyctl", 1, None, what="keyctl KEYCTL_JOIN_SESSION_KEYRING")
    except OSError:  # a kernel without keyrings, or one where a filter outside forbids them: so it does inside
        pass


def sethostname(name: str) -> None:
    """Source: sethostname(2)."""
    raw = name.encode()
    check(_sethostname(raw, len(raw)), f"sethostname {name}")


def setdomainname(name: str) -> None:
    """Source: setdomainname(2)."""
    raw = name.encode()
    check(_setdomainname(raw, len(raw)), f"setdomainname {name}")


def read_stat(pid: int) -> tuple[bytes, list[bytes]]:
    """The name of process ``pid``, and the fields of its ``/proc/PID/stat`` behind that. Raises ProcessLookupError where there is none."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    # The name may hold anything, brackets too.
    end = stat.rindex(b")")
    return stat[stat.index(b"(") + 1 : end], stat[end + 2 :].split()


def start_time(pid: int) -> int:
    """When process ``pid`` started, in clock ticks since boot; with the pid it names a process for good.

    Raises ProcessLookupError where there is none (a zombie counts as none). Source: proc_pid_stat(5), field 22.
    """
    _, fields = read_stat(pid)
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(pid)
    return int(fields[19])


def is_ending(pid: int) -> bool:
    """Whether process ``pid``, which wasn't waited for yet, has ended or the kernel takes it apart. Source: proc_pid_stat(5), field 9."""
    return bool(int(read_stat(pid)[1][6]) & PF_EXITING)


def activity(pid: int) -> tuple[set[str], int]:
    """The states of the threads of process ``pid`` (``R``, ``S``, ``D``, …), and the processor time that it has used, in ticks of the clock.

    Nothing and 0 where it was waited for. Source: proc_pid_stat(5), fields 3, 14 and 15.
    """
    try:
        states = {read_stat(int(task))[1][0].decode() for task in os.listdir(f"/proc/{pid}/task")}
        _, fields = read_stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return set(), 0
    return states, int(fields[11]) + int(fields[12])


def is_running(pid: int, started: int) -> bool:
    """Whether process ``pid`` is the one that started at ``started`` (see ``start_time``) and hasn't ended."""
    try:
        return start_time(pid) == started
    except ProcessLookupError:
        return False
