"""What a namespace gives its processes, in one line each, where it can be read without going in.

The host name is the exception: ``/proc`` tells everyone his own. nsenter(1) asks for it, in a process of its own, on a descriptor of
the namespace, which can't come to mean another. Source: proc_pid_net(5), proc_pid_cgroup(5), time_namespaces(7), mq_overview(7).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence

from .namespaces_facts import IdRange
from .process import ProcessFolder

# A machine that routes has a table that nobody looks through for a line.
_MOST_ROUTES = 1 << 18
_MOST_SHOWN = 4
_NAME_TIMEOUT_S = 3.0
ALL_IDS = 4294967295


def mounts(process: ProcessFolder) -> str:
    lines = [line for line in process.read("mountinfo").split(b"\n") if line]
    root = next((line.split(b" - ", 1)[1].split(b" ")[0] for line in lines if line.split(b" ", 5)[4] == b"/"), b"")
    return f"{_count(len(lines), 'mount')}{f', / is {os.fsdecode(root)}' if root else ''}"


def network(process: ProcessFolder) -> str:
    """Interfaces, and the addresses that aren't the loopback's or a link's own."""
    links = [
        os.fsdecode(line.partition(b":")[0].strip())
        for line in process.read("net/dev").splitlines()[2:]
        if b":" in line
    ]
    addresses = [*_addresses_4(process), *_addresses_6(process)]
    text = ", ".join(links[:_MOST_SHOWN]) + _rest(links)
    return f"{text}; {', '.join(addresses[:_MOST_SHOWN])}{_rest(addresses)}" if addresses else text or "no interface"


def _addresses_4(process: ProcessFolder) -> list[str]:
    """A machine's own addresses stand in its routing table as local ones. Source: net/ipv4/fib_trie.c"""
    found: dict[str, None] = {}
    address = ""
    for line in process.read("net/fib_trie", _MOST_ROUTES).decode(errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words == ["/32", "host", "LOCAL"] and not address.startswith("127."):
            found[address] = None
    return list(found)


def _addresses_6(process: ProcessFolder) -> list[str]:
    found = []
    try:
        lines = process.read("net/if_inet6", _MOST_ROUTES).decode(errors="replace").splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []
    for line in lines:
        words = line.split()
        # The fourth word is the scope; 0 is global.
        if len(words) == 6 and words[3] == "00":
            found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0])))
    return found


def queues(process: ProcessFolder) -> str:
    """How many POSIX message queues there are; empty where the container doesn't show them."""
    fd = process.open_inside("/dev/mqueue", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    try:
        # A plain folder of that name has no queues.
        return _count(len(os.listdir(fd)), "message queue") if _is_mqueue(process) else ""
    finally:
        os.close(fd)


def _is_mqueue(process: ProcessFolder) -> bool:
    return any(
        line.split(b" ", 5)[4] == b"/dev/mqueue" and b" - mqueue " in line
        for line in process.read("mountinfo").split(b"\n")
        if line
    )


def users(ranges: Sequence[IdRange]) -> str:
    if not ranges:
        return "no ids yet"
    if [(one.inside, one.outside, one.count) for one in ranges] == [(0, 0, ALL_IDS)]:
        return "every id as it is"
    return f"{_count(sum(one.count for one in ranges), 'id')}, root is {root_outside(ranges)} outside"


def root_outside(ranges: Sequence[IdRange]) -> str:
    for one in ranges:
        if one.inside == 0:
            return str(one.outside)
    return "nobody"


def cgroup(process: ProcessFolder) -> str:
    """The group that it is in: version 2's, or where that is the root the one that counts its processes."""
    paths = {}
    for line in os.fsdecode(process.read("cgroup")).split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number:
            paths[controllers] = path
    unified = paths.get("", "/")
    return unified if unified != "/" else paths.get("pids", next(iter(paths.values()), "/"))


def clocks(process: ProcessFolder) -> str:
    """How far its clocks are from the machine's. Source: time_namespaces(7)."""
    parts = []
    for line in process.read("timens_offsets").decode().splitlines():
        name, seconds, nanoseconds = line.split()
        offset = int(seconds) + int(nanoseconds) / 1e9
        if offset:
            parts.append(f"{name} {offset:+g} s")
    return ", ".join(parts) or "clocks as the machine's"


def host_names(processes: Sequence[ProcessFolder]) -> list[str]:
    """The host name that each of them sees; empty where it can't be asked for. Raises OSError where one has ended."""
    program = shutil.which("nsenter")
    asked: list[tuple[int, subprocess.Popen[bytes]]] = []
    found = [""] * len(processes)
    own = os.stat("/proc/self/ns/uts").st_ino
    try:
        for at, process in enumerate(processes):
            fds = [process.open("ns/uts")]
            try:
                if os.fstat(fds[0]).st_ino == own:
                    found[at] = os.uname().nodename
                elif program is not None:
                    words = [program, f"--uts=/proc/self/fd/{fds[0]}"]
                    if os.geteuid() != 0:
                        # In the user namespace that owns it an ordinary user has the right to.
                        fds.append(process.open("ns/user"))
                        words += [f"--user=/proc/self/fd/{fds[1]}", "--preserve-credentials"]
                    asked.append((at, _ask([*words, "uname", "-n"], fds)))
            finally:
                for fd in fds:
                    os.close(fd)
        for at, child in asked:
            try:
                output, _ = child.communicate(timeout=_NAME_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                continue
            if child.returncode == 0:
                found[at] = os.fsdecode(output).removesuffix("\n")
    finally:
        for _, child in asked:
            if child.poll() is None:
                child.kill()
                child.communicate()
    return found


def _ask(words: list[str], fds: list[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _rest(items: Sequence[str]) -> str:
    return f" and {len(items) - _MOST_SHOWN} more" if len(items) > _MOST_SHOWN else ""
