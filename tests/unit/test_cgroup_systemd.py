"""The few words of D-Bus that cellwall speaks, against messages written out by hand and a bus made of a socket."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from cellwall.runtime.cgroups import systemd
from cellwall.runtime.cgroups.systemd import (
    array_of_properties,
    method_call,
    read_fields,
    read_string_at,
    scopes,
    string,
)
from cellwall.runtime.errors import UnsupportedError


def test_hello_byte_for_byte() -> None:
    message = method_call(
        1, ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"), "Hello", "", b""
    )
    # What `busctl` puts on the wire apart from the order of the fields.
    assert message[:16] == b"l\x01\x00\x01" + struct.pack("<III", 0, 1, 109)
    assert message[16:24] == b"\x01\x01o\x00" + struct.pack("<I", 21)
    assert len(message) == 16 + 112
    assert read_fields(message[16 : 16 + 109]) == {
        1: "/org/freedesktop/DBus",
        2: "org.freedesktop.DBus",
        3: "Hello",
        6: "org.freedesktop.DBus",
    }


def test_a_property_stands_on_eight() -> None:
    # Offset 4: the array's length takes 4 to 8, its first struct begins there without padding.
    assert (
        array_of_properties([("A", "s", string("b"))], 4)
        == struct.pack("<I", 18) + b"\1\0\0\0A\0\1s\0\0\0\0\1\0\0\0b\0"
    )
    # Offset 0: four bytes of padding, which the length doesn't count.
    assert array_of_properties([("A", "s", string("b"))], 0)[:8] == struct.pack("<II", 18, 0)


def test_a_string_longer_than_its_message_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than its message"):
        read_string_at(struct.pack("<I", 100) + b"abc\0", 0)


def test_no_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(UnsupportedError, match="enable-linger"):
        systemd.start_scope("cellwall-1-0.scope", [os.getpid()])


def test_no_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(UnsupportedError, match="xdg_runtime_dir is not set"):
        systemd.start_scope("cellwall-1-0.scope", [os.getpid()])


@pytest.mark.parametrize("answer", [b"REJECTED EXTERNAL\r\n", b""])
def test_a_bus_that_refuses_or_closes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={path}")
        with pytest.raises(UnsupportedError, match="no user manager answers"):
            systemd.start_scope("cellwall-1-0.scope", [os.getpid()])
        thread.join()


def test_scopes_of_a_user(tmp_path: Path) -> None:
    slices = tmp_path / "user.slice/user-1000.slice/user@1000.service/app.slice"
    for name in ("cellwall-7-0a.scope", "cellwall-9-0b.scope", "run-r1.scope", "cellwall.slice"):
        (slices / name).mkdir(parents=True)
    point = str(tmp_path)
    found = [f"{slices}/cellwall-7-0a.scope", f"{slices}/cellwall-9-0b.scope"]
    assert scopes(point, f"{point}/user.slice/user-1000.slice/session-1.scope") == found
    assert scopes(point, f"{slices}/cellwall-7-0a.scope/launcher") == found
    assert scopes(point, f"{point}/system.slice/cron.service") == []
    assert scopes(point, f"{point}/user.slice/user-1001.slice/session-2.scope") == []
