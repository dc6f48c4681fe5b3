"""A session at a terminal, by tmux: what a person sees and types reaches the container and comes back as docker's does."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..waiting import PATIENCE_S
from .supervised import Home, home

pytestmark = [
    pytest.mark.needs("root"),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: apt-get install tmux"),
]


@pytest.fixture(scope="module")
def box(busybox: str) -> Iterator[Home]:
    with home(busybox) as made:
        yield made


class Screen:
    """A terminal of tmux with a shell in it; what the shell and its programs write is read from ``fifo``."""

    def __init__(self, box: Home, folder: Path) -> None:
        self._socket = str(folder / "tmux")
        self._seen = b""
        fifo = folder / "out"
        os.mkfifo(fifo)
        environment = {**box.environment, "ENV": "", "PATH": f"{folder}:{os.environ['PATH']}"}
        (folder / "cellwall").write_text(f'#!/bin/sh\nexec {sys.executable} -m cellwall "$@"\n')
        (folder / "cellwall").chmod(0o755)
        self._environment = environment
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "exec sh")
        self.tmux("set", "-g", "status", "off")
        self._fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.tmux("pipe-pane", f"exec cat >{fifo}")
        self.type("PS1='ou''ter$ '", "Enter")  # dash gives root another
        self.until("outer$ ")

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], env=self._environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        """Type ``text`` as it is, then keys by tmux's names (Enter, C-c)."""
        if text:
            self.tmux("send-keys", "-l", text)
        if keys:
            self.tmux("send-keys", *keys)

    def until(self, wanted: str) -> None:
        """Read what is written up to ``wanted``."""
        while wanted.encode() not in self._seen:
            assert select.select([self._fd], [], [], PATIENCE_S)[0], (wanted, self._seen[-2000:])
            self._seen += os.read(self._fd, 65536)
        self._seen = self._seen.partition(wanted.encode())[2]

    def close(self) -> None:
        self.tmux("kill-server")
        os.close(self._fd)


@pytest.fixture
def screen(box: Home, tmp_path: Path) -> Iterator[Screen]:
    made = Screen(box, tmp_path)
    yield made
    made.close()


def test_a_session(box: Home, screen: Screen) -> None:
    screen.type("cellwall run -it -e 'PS1=in> ' --name session box:1 sh", "Enter")
    screen.until("in> ")
    # What is typed is echoed as it stands, so what is looked for differs from it.
    screen.type("stty size | tr ' ' x", "Enter")
    screen.until("24x80")
    screen.tmux("resize-window", "-x", "100", "-y", "30")
    screen.type("stty size | tr ' ' x", "Enter")
    screen.until("30x100")
    told = 'trap "stty size | tr \\" \\" y" WINCH; echo wai""ts; while :; do sleep 0.1; done'
    screen.type(f"sh -c '{told}'", "Enter")
    screen.until("waits")
    screen.tmux("resize-window", "-x", "90", "-y", "20")
    screen.until("20y90")
    screen.type("", "C-c")
    screen.until("in> ")

    # One process from the first word on, so that the key can't come between a shell and its child.
    screen.type("sh -c \"echo be''gins; exec sleep 1000\"", "Enter")
    screen.until("begins")
    screen.type("", "C-c")
    screen.until("in> ")
    screen.type("echo status=$?", "Enter")
    screen.until("status=130")

    told = 'trap "echo aga""in" CONT; echo sle""eps; while :; do sleep 0.1; done'
    screen.type(f"sh -c '{told}'", "Enter")
    screen.until("sleeps")
    screen.type("", "C-z")
    screen.until("Stopped")
    screen.until("in> ")
    screen.type("fg", "Enter")
    screen.until("again")
    screen.type("", "C-c")
    screen.until("in> ")

    screen.type("busybox vi /tmp/file", "Enter")
    screen.until("\x1b[2;1H~")
    screen.type("ihello")
    screen.until("Hhello")
    screen.type("", "Escape")
    screen.until("- /tmp/file")
    screen.type(":wq", "Enter")
    screen.until("in> ")
    screen.type("tr a-z A-Z </tmp/file", "Enter")
    screen.until("HELLO")

    # ctrl-p alone goes through with the key behind it; with ctrl-q it lets go.
    screen.type("", "C-p", "C-q")
    screen.until("outer$ ")
    assert box.engine.container("session").status == "running"
    screen.type("echo st''ill=$?; cellwall attach session", "Enter")
    screen.until("still=0")
    screen.type("", "Enter")
    screen.until("in> ")
    screen.type("echo $((40+2)); exit 9", "Enter")
    screen.until("42")
    screen.until("outer$ ")
    screen.type("echo ended=$?", "Enter")
    screen.until("ended=9")
    assert box.engine.wait("session") == 9

    screen.type("cellwall start -ai --detach-keys ctrl-x session", "Enter")
    screen.until("in> ")
    screen.type("", "C-x")
    screen.until("outer$ ")
    box.engine.remove("session", force=True)


def test_a_client_that_is_killed_leaves_its_container(box: Home, screen: Screen) -> None:
    screen.type("cellwall run -it -e 'PS1=in> ' --name killed box:1 sh", "Enter")
    screen.until("in> ")
    screen.type("VALUE=kept", "Enter")
    screen.until("in> ")
    pids = screen.tmux("list-panes", "-F", "#{pane_pid}").split()
    children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()
    os.kill(int(children[0]), 9)
    screen.until("Killed")
    # It couldn't put the terminal back, as docker's couldn't.
    screen.type("", "C-j")
    screen.type("stty sane; echo me''nded", "C-j")
    screen.until("mended")
    screen.until("outer$ ")
    screen.type("cellwall attach killed", "Enter")
    screen.type("", "Enter")
    screen.until("in> ")
    screen.type("echo $VALUE | tr a-z A-Z", "Enter")
    screen.until("KEPT")
    box.engine.stop("killed", 0)
    screen.until("outer$ ")
    box.engine.remove("killed", force=True)
