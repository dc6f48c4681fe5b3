"""A group of one's own for an ordinary user: a delegated transient scope, asked of the user's systemd over D-Bus.

In version 2 a process may be moved only by who may write to the common parent of both groups. A login session's group
belongs to root, so the user manager has to move it. The calling process is moved into the scope, where it makes groups beside
its own for its containers. Only what this needs of D-Bus is here.
Source: org.freedesktop.systemd1(5), systemd's CGROUP_DELEGATION.md, the D-Bus specification.
"""

from __future__ import annotations

import os
import struct

from ..errors import UnsupportedError
from .files import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# systemd answers in milliseconds; a machine that boots takes longer.
TIMEOUT_S = 10.0
# The caller's own group beside those of its containers: a group that passes controllers on may hold no process.
OWN = "launcher"
_MEND = "log in through systemd (`loginctl enable-linger` gives you a user manager), or run as root"
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_METHOD_RETURN, _ERROR, _SIGNAL = 2, 3, 4


def delegated(point: str) -> str:
    """Move the calling process into a new scope and return the folder, below ``point``, for its containers' groups.

    Where it is in such a scope already, that one. Raises UnsupportedError where no user manager answers.
    """
    own = _own_path()
    if not _is_ours(own):
        name = f"cellwall-{os.getpid()}-{int.from_bytes(os.urandom(4), 'big'):08x}.scope"
        start_scope(name, [os.getpid()])
        own = _own_path()
        if not _is_ours(own):
            raise UnsupportedError(
                "no control group of your own", f"systemd started {name} without moving this process into it"
            )
    folder = point + (own.removesuffix(f"/{OWN}") if own.endswith(f"/{OWN}") else own)
    if not own.endswith(f"/{OWN}"):
        try:
            os.mkdir(f"{folder}/{OWN}")
            write(f"{folder}/{OWN}/cgroup.procs", "0")
        except OSError as error:
            raise UnsupportedError(
                f"no control group of your own: {folder}: {(error.strerror or '').lower()}", _MEND
            ) from error
    return folder


def scopes(point: str, own: str) -> list[str]:
    """The folders of all scopes that ``delegated`` made for this user and that live. ``own``: the caller's group's folder."""
    for part in own.removeprefix(point).split("/"):
        user = part.removeprefix("user-").removesuffix(".slice")
        if part != user and user.isdecimal():
            break
    else:
        return []
    slices = f"{point}/user.slice/user-{user}.slice/user@{user}.service/app.slice"
    try:
        names = os.listdir(slices)
    except OSError:  # no user manager runs
        return []
    return [f"{slices}/{name}" for name in sorted(names) if _is_ours(f"/{name}")]


def _is_ours(path: str) -> bool:
    name = path.removesuffix(f"/{OWN}").rpartition("/")[2]
    return name.startswith("cellwall-") and name.endswith(".scope")


def _own_path() -> str:
    for line in (read("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise UnsupportedError("no control group of your own: this machine has no cgroup v2", "run as root")


def start_scope(name: str, pids: list[int]) -> None:
    """Start the delegated transient scope ``name`` holding ``pids``, and wait until it runs. Raises UnsupportedError."""
    try:
        connection = Connection(_address())
    except OSError as error:
        raise UnsupportedError(
            f"no control group of your own: no user manager answers ({(error.strerror or str(error)).lower()})", _MEND
        ) from error
    try:
        connection.call(_BUS, "Hello")
        connection.call(_BUS, "AddMatch", "s", string(f"type='signal',interface='{_MANAGER[2]}',member='JobRemoved'"))
        # Without it the manager sends no signals.
        connection.call(_MANAGER, "Subscribe")
        properties = [
            ("Description", "s", string("cellwall's containers")),
            ("Delegate", "b", struct.pack("<I", 1)),
            ("Slice", "s", string("app.slice")),
            ("CollectMode", "s", string("inactive-or-failed")),
            ("PIDs", "au", struct.pack(f"<I{len(pids)}I", 4 * len(pids), *pids)),
        ]
        body = align(string(name), 4) + string("fail")
        body = align(body, 4) + array_of_properties(properties, len(align(body, 4)))
        body = align(body, 4) + struct.pack("<I", 0)  # no auxiliary units
        # The empty array of structs is padded as if it had one.
        body = align(body, 8)
        job = read_string(connection.call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body))
        result = connection.wait_for_job(job)
    except (OSError, ValueError, struct.error) as error:
        raise UnsupportedError(
            f"no control group of your own: the user manager's answer can't be read ({error})", _MEND
        ) from error
    finally:
        connection.close()
    if result != "done":
        raise UnsupportedError(f"no control group of your own: systemd couldn't start {name} ({result})", _MEND)


def _address() -> str:
    """The path of the user bus's socket. Source: the D-Bus specification, Server Addresses."""
    for address in os.environ.get("DBUS_SESSION_BUS_ADDRESS", "").split(";"):
        kind, _, rest = address.partition(":")
        for pair in rest.split(","):
            if kind == "unix" and pair.startswith("path="):
                return pair[5:]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise FileNotFoundError(2, "XDG_RUNTIME_DIR is not set")
    return f"{runtime}/bus"


class Connection:
    """A D-Bus connection that makes one call at a time. Every wait ends after ``TIMEOUT_S`` with an OSError."""

    def __init__(self, path: str) -> None:
        import socket

        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.settimeout(TIMEOUT_S)
        self.serial = 0
        self.buffer = b""
        self.signals: list[tuple[str, bytes]] = []
        try:
            self.socket.connect(path)
            # No uid is named: in a user namespace ours is 0, and the bus takes the one of the socket.
            self.socket.sendall(b"\0AUTH EXTERNAL\r\n")
            self._line(b"DATA")
            self.socket.sendall(b"DATA\r\n")
            self._line(b"OK")
            self.socket.sendall(b"BEGIN\r\n")
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        self.socket.close()

    def _line(self, expected: bytes) -> None:
        while b"\r\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        if not line.startswith(expected):
            raise OSError(1, f"the bus refuses: {line.decode(errors='replace')}")

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise OSError(32, "the bus closed the connection")
        self.buffer += piece

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def call(self, target: tuple[str, str, str], member: str, signature: str = "", body: bytes = b"") -> bytes:
        """The body of the answer to ``member`` of ``target`` (destination, path, interface). Raises UnsupportedError."""
        self.serial += 1
        self.socket.sendall(method_call(self.serial, target, member, signature, body))
        while True:
            kind, fields, answer = self._receive()
            if kind == _SIGNAL:
                self.signals.append((str(fields.get(3, "")), answer))
            elif fields.get(5) == self.serial:
                if kind == _ERROR:
                    text = read_string(answer) if str(fields.get(8, "")).startswith("s") else fields.get(4)
                    raise UnsupportedError(f"no control group of your own: systemd refuses ({text})", _MEND)
                return answer

    def wait_for_job(self, job: str) -> str:
        """The result of the manager's ``job``: ``done``, ``failed``, … Source: org.freedesktop.systemd1(5), JobRemoved."""
        while True:
            while self.signals:
                member, body = self.signals.pop(0)
                if member != "JobRemoved":
                    continue
                path, offset = read_string_at(body, 4)
                _, offset = read_string_at(body, offset)
                result, _ = read_string_at(body, offset)
                if path == job:
                    return result
            kind, fields, body = self._receive()
            if kind == _SIGNAL:
                self.signals.append((str(fields.get(3, "")), body))

    def _receive(self) -> tuple[int, dict[int, object], bytes]:
        head = self._take(16)
        if head[:1] != b"l":
            raise ValueError("a message in the other byte order")
        body_length, _, fields_length = struct.unpack_from("<III", head, 4)
        if body_length > 1 << 24 or fields_length > 1 << 20:
            raise ValueError("a message that is too long")
        fields = self._take(fields_length + -fields_length % 8)[:fields_length]
        return head[1], read_fields(fields), self._take(body_length)


def align(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def string(text: str) -> bytes:
    """A string (or object path) as D-Bus writes it, from a multiple of 4 on."""
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw + b"\0"


def signature_of(text: str) -> bytes:
    return bytes([len(text)]) + text.encode() + b"\0"


def array_of_properties(properties: Iterable[tuple[str, str, bytes]], start: int) -> bytes:
    """``a(sv)``, for offset ``start`` in the body (a multiple of 4). Every value begins at a multiple of 4."""
    before = -(start + 4) % 8
    items = b""
    for name, kind, value in properties:
        items = align(items, 8) + string(name) + signature_of(kind)
        items = align(items, 4) + value
    return struct.pack("<I", len(items)) + bytes(before) + items


def method_call(serial: int, target: tuple[str, str, str], member: str, signature: str, body: bytes) -> bytes:
    """One whole message. Source: the D-Bus specification, Message Format."""
    destination, path, interface = target
    fields = b""
    for code, kind, text in ((1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)):
        fields = align(fields, 8) + bytes([code]) + signature_of(kind) + string(text)
    if signature:
        fields = align(fields, 8) + bytes([8]) + signature_of("g") + signature_of(signature)
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), serial, len(fields))
    return align(head + fields, 8) + body


def read_string(body: bytes) -> str:
    return read_string_at(body, 0)[0]


def read_string_at(data: bytes, offset: int) -> tuple[str, int]:
    """The string at ``offset``, which is aligned first, and the offset after it."""
    offset += -offset % 4
    (length,) = struct.unpack_from("<I", data, offset)
    end = offset + 4 + length
    if end >= len(data):
        raise ValueError("a string longer than its message")
    return data[offset + 4 : end].decode(errors="replace"), end + 1


def read_fields(data: bytes) -> dict[int, object]:
    """Header fields by code: 3 member, 4 error name, 5 reply serial, 8 signature; others are stepped over."""
    found: dict[int, object] = {}
    offset = 0
    while offset < len(data):
        offset += -offset % 8
        code, length = data[offset], data[offset + 1]
        kind = data[offset + 2 : offset + 2 + length]
        offset += 3 + length
        if kind in (b"s", b"o"):
            found[code], offset = read_string_at(data, offset)
        elif kind == b"u":
            offset += -offset % 4
            (found[code],) = struct.unpack_from("<I", data, offset)
            offset += 4
        elif kind == b"g":
            length = data[offset]
            found[code] = data[offset + 1 : offset + 1 + length].decode()
            offset += length + 2
        else:
            raise ValueError(f"a header field of type {kind!r}")
    return found
