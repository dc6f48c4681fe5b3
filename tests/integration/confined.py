"""A process under a filter and with a limited set of capabilities that tries things and says what came of each.

Run as ``python -I -S confined.py SOURCE`` with one JSON object on its standard input; it has one thread, so it may fork.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def system_call(number: int, *args: int) -> int:
    """The errno of a raw system call, 0 where it worked."""
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg & 0xFFFFFFFFFFFFFFFF) for arg in args])
    return ctypes.get_errno() if result < 0 else 0


def i386_call(number: int, first: int = 0) -> int:
    """The errno of a system call through i386's door, ``int 0x80``, which a 64-bit process of x86_64 has as well."""
    # push rbx; mov eax, number; mov ebx, first; xor ecx, ecx; xor edx, edx; int 0x80; pop rbx; ret
    code = (
        b"\x53\xb8"
        + struct.pack("<I", number)
        + b"\xbb"
        + struct.pack("<I", first)
        + b"\x31\xc9\x31\xd2\xcd\x80\x5b\xc3"
    )
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result: int = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return -result if -4096 < result < 0 else 0


def in_child(action: Callable[..., int], *args: object) -> int | str:
    """What ``action`` returns in a forked process: an int, or ``signal N`` where that ended it."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = action(*args)
        except OSError as err:
            answer = err.errno or -1
        os.write(write_fd, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_fd)
    said = b""
    while part := os.read(read_fd, 4096):
        said += part
    os.close(read_fd)
    _, status = os.waitpid(pid, 0)
    return int(json.loads(said)) if said else f"signal {os.WTERMSIG(status)}"


# One thing for each of docker's fourteen capabilities that nobody does without it. In a tmpfs of its own at /tmp.


def chown() -> None:
    os.close(os.open("/tmp/own", os.O_CREAT | os.O_WRONLY))
    os.chown("/tmp/own", 1000, 1000)


def dac_override() -> None:
    os.close(os.open("/tmp/closed", os.O_RDWR))


def fowner() -> None:
    os.chmod("/tmp/strange", 0o640)


def fsetid() -> None:
    os.chmod("/tmp/group", 0o2755)
    if not os.stat("/tmp/group").st_mode & 0o2000:
        raise PermissionError(1, "the set-group-id bit was taken")


def kill() -> None:
    os.kill(int(os.environ["STRANGER"]), 0)


def setgid() -> None:
    os.setgid(1234)


def setuid() -> None:
    os.setuid(1234)


def setpcap() -> None:
    if libc.prctl(24, 0, 0, 0, 0) < 0:  # PR_CAPBSET_DROP CAP_CHOWN
        raise OSError(ctypes.get_errno(), "prctl")


def net_bind_service() -> None:
    with socket.socket() as low:
        low.bind(("0.0.0.0", 80))


def net_raw() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def sys_chroot() -> None:
    os.chroot("/tmp")


def mknod() -> None:
    os.mknod(f"/tmp/null-{os.getpid()}", 0o20666, os.makedev(1, 3))


def audit_write() -> None:
    """A message of a user's own kind (1100) to the kernel's audit: its answer is an errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as audit:
        text = b"cellwall test\0"
        audit.send(struct.pack("=IHHII", 16 + len(text), 1100, 5, 1, 0) + text)
        audit.settimeout(10)
        while True:
            answer = audit.recv(4096)
            # NLMSG_ERROR about our message, and nothing else that the kernel may have to say. Source: netlink(7)
            if len(answer) >= 20 and struct.unpack_from("=H", answer, 4) == (2,):
                (code,) = struct.unpack_from("=i", answer, 16)
                if code:
                    raise OSError(-code, "audit")
                return


def setfcap() -> None:
    os.setxattr("/tmp/file", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))


FOURTEEN = {
    "CAP_CHOWN": chown,
    "CAP_DAC_OVERRIDE": dac_override,
    "CAP_FOWNER": fowner,
    "CAP_FSETID": fsetid,
    "CAP_KILL": kill,
    "CAP_SETGID": setgid,
    "CAP_SETUID": setuid,
    "CAP_SETPCAP": setpcap,
    "CAP_NET_BIND_SERVICE": net_bind_service,
    "CAP_NET_RAW": net_raw,
    "CAP_SYS_CHROOT": sys_chroot,
    "CAP_MKNOD": mknod,
    "CAP_AUDIT_WRITE": audit_write,
    "CAP_SETFCAP": setfcap,
}


def prepare() -> int:
    """A mount, network and user's world of its own; returns the pid of a process of another user."""
    from cellwall.runtime.linux import mounts, process

    process.unshare(process.CLONE_NEWNS | process.CLONE_NEWNET)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount("test", "/tmp", "tmpfs")
    for name, mode, owner in (("closed", 0, 1000), ("strange", 0o600, 1000), ("group", 0o755, 0), ("file", 0o755, 0)):
        os.close(os.open(f"/tmp/{name}", os.O_CREAT | os.O_WRONLY))
        os.chmod(f"/tmp/{name}", mode)
        os.chown(f"/tmp/{name}", owner, 4321)
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setuid(1000)
        # A change of user clears it.
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(write_fd)
        signal.pause()
    # Until it closes its end it isn't another user's.
    os.close(write_fd)
    os.read(read_fd, 1)
    os.close(read_fd)
    return pid


def capability_trial(name: str, held: list[str], program: bytes) -> int:
    from cellwall.runtime.linux import capabilities, process, seccomp

    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    capabilities.limit_to(held)
    seccomp.load(program)
    FOURTEEN[name]()
    return 0


def call_trial(program: bytes, door: str, args: list[int]) -> int:
    from cellwall.runtime.linux import process, seccomp

    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(program)
    return i386_call(*args) if door == "i386" else system_call(*args)


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    # All now: the checkout may lie below /tmp, which a trial hides.
    import cellwall.runtime.linux.capabilities
    import cellwall.runtime.linux.mounts
    import cellwall.runtime.linux.process
    import cellwall.runtime.linux.seccomp  # noqa: F401

    asked = json.load(sys.stdin)
    program = bytes.fromhex(asked["program"])
    answers = {}
    for label, door, args in asked.get("calls", []):
        answers[label] = in_child(call_trial, program, door, args)
    if "capabilities" in asked:
        stranger = prepare()
        os.environ["STRANGER"] = str(stranger)
        every = asked["capabilities"]
        for name in FOURTEEN:
            answers[name] = in_child(capability_trial, name, every, program)
            answers[f"without {name}"] = in_child(capability_trial, name, [n for n in every if n != name], program)
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
