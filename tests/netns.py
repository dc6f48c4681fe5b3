"""Network namespaces of a test: made and entered by threads, so that this process stays where it is.

A thread's namespaces are its own, and a socket stays in the one that it was made in. Source: network_namespaces(7), setns(2).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cellwall.runtime.linux.process import CLONE_NEWNET, setns, unshare

T = TypeVar("T")


class Netns:
    """A network namespace with ``lo`` up, for as long as it is open."""

    def __init__(self) -> None:
        self.fd = in_thread(self._make)

    @staticmethod
    def _make() -> int:
        unshare(CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 1))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Netns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, action: Callable[[], T]) -> T:
        """What ``action`` returns, done in this namespace."""

        def inside() -> T:
            setns(self.fd, CLONE_NEWNET)
            return action()

        return in_thread(inside)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        return self.do(lambda: socket.socket(family, kind))

    def command(self, *words: str) -> list[str]:
        """``words`` as a command that runs in this namespace; whoever starts it passes ``self.fd`` on."""
        return ["nsenter", f"--net=/proc/self/fd/{self.fd}", *words]

    def run(self, *words: str, **options: Any) -> str:
        """The output of a command that ran here; an exception where it failed."""
        done = subprocess.run(
            self.command(*words), pass_fds=[self.fd], capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return str(done.stdout)

    def popen(self, words: Sequence[str], *, pass_fds: Sequence[int] = (), **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(self.command(*words), pass_fds=[self.fd, *pass_fds], **options)


def in_thread(action: Callable[[], T]) -> T:
    """What ``action`` returns or raises, done by a thread of its own."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(action())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def link(one: Netns, other: Netns, name: str, one_address: str, other_address: str) -> None:
    """Join two namespaces by a veth pair; addresses with their prefix length."""
    one.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    # The number in /proc is the fd of the process that asks: `ip` gets it.
    subprocess.run(
        [*one.command("ip", "link", "set", f"{name}p", "netns", f"/proc/self/fd/{other.fd}")],
        pass_fds=[one.fd, other.fd],
        check=True,
    )
    for space, interface, address in ((one, name, one_address), (other, f"{name}p", other_address)):
        space.run("ip", "address", "add", address, "dev", interface, "nodad")
        space.run("ip", "link", "set", interface, "up")
