"""Descriptors, signals and terminals joined to a process: real processes, pipes and terminals, by attach_driver.py."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cellwall.runtime import logs
from cellwall.runtime.cli.attach import Streams, written
from cellwall.runtime.errors import CellwallError

DRIVER = [sys.executable, str(Path(__file__).with_name("attach_driver.py"))]
BYTES = bytes(range(256)) * 4096 * 3  # 3 MiB: many times what a pipe holds


def read_until(fd: int, wanted: bytes) -> bytes:
    """What comes from ``fd`` up to ``wanted``; ends with what there is where the other side has gone."""
    found = b""
    while wanted not in found:
        assert select.select([fd], [], [], 30)[0], found
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            break
        if not chunk:
            break
        found += chunk
    return found


def test_bytes_come_through_unchanged_in_both_directions() -> None:
    done = subprocess.run([*DRIVER, "-i", "sh", "-c", "tee /dev/stderr"], input=BYTES, capture_output=True)
    assert done.returncode == 0
    assert done.stdout == BYTES
    assert done.stderr == BYTES


def test_a_file_is_standard_input_as_well(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(BYTES)
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        subprocess.run([*DRIVER, "-i", "cat"], stdin=stdin, stdout=stdout, check=True)
    assert (tmp_path / "out").read_bytes() == BYTES


def test_without_interactive_standard_input_is_empty() -> None:
    done = subprocess.run([*DRIVER, "cat"], input=b"secret", capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_command_that_does_not_read_is_no_error() -> None:
    done = subprocess.run([*DRIVER, "-i", "sh", "-c", "exec <&-; echo done; exit 4"], input=BYTES, capture_output=True)
    assert (done.returncode, done.stdout) == (4, b"done\n")


def test_standard_input_works_on_after_the_command_closed_its_output() -> None:
    done = subprocess.run(
        [*DRIVER, "-i", "sh", "-c", "exec >&- 2>&-; read a; exit $a"], input=b"5\n", capture_output=True
    )
    assert done.returncode == 5


def test_a_reader_that_leaves_ends_the_writer() -> None:
    """As ``yes | head -1`` does: the command gets SIGPIPE, and nothing hangs."""
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen([*DRIVER, "yes"], stdout=write_fd)
    os.close(write_fd)
    assert os.read(read_fd, 2) == b"y\n"
    os.close(read_fd)
    assert process.wait(30) == 128 + signal.SIGPIPE


def test_statuses_and_signals_of_the_command() -> None:
    assert subprocess.run([*DRIVER, "sh", "-c", "exit 42"]).returncode == 42
    assert subprocess.run([*DRIVER, "sh", "-c", "kill -TERM $$"]).returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    command = f"trap 'echo got; exit 7' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen([*DRIVER, "sh", "-c", command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate()[0] == b"got\n"
    assert process.returncode == 7


def test_the_third_request_to_end_kills() -> None:
    command = "trap 'echo no' INT TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen([*DRIVER, "sh", "-c", command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        assert process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGKILL
    process.stdout.close()


def test_a_stopped_reader_does_not_hold_signals_up() -> None:
    """The loop is inside a write to a full pipe then; the signal has to reach the command all the same."""
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(
        [*DRIVER, "sh", "-c", "trap 'exit 9' TERM; while :; do echo full of words; done"], stdout=write_fd
    )
    os.close(write_fd)
    found = os.read(read_fd, 1)
    assert found == b"f"
    process.send_signal(signal.SIGTERM)
    while os.read(read_fd, 65536):
        pass
    os.close(read_fd)
    assert process.wait(30) == 9


def test_the_log_gets_a_copy_of_each_stream(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DRIVER, "--log", str(tmp_path / "log"), "sh", "-c", "printf 'o\\377'; printf e >&2"], capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"o\xff", b"e")
    entries = [(entry.stream, entry.data) for entry in logs.read(tmp_path / "log")]
    assert sorted(entries) == [("stderr", b"e"), ("stdout", b"o\xff")]


def test_the_log_goes_on_when_the_reader_left(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    command = "echo first; read go; echo second"
    process = subprocess.Popen(
        [*DRIVER, "-i", "--log", str(tmp_path / "log"), "sh", "-c", command], stdin=subprocess.PIPE, stdout=write_fd
    )
    os.close(write_fd)
    assert os.read(read_fd, 6) == b"first\n"
    os.close(read_fd)
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    assert process.wait(30) == 0
    assert b"".join(entry.data for entry in logs.read(tmp_path / "log")) == b"first\nsecond\n"


class Terminal:
    """A driver on a terminal of its own; ``main_fd`` is where a person would sit."""

    def __init__(self, *words: str, rows: int = 33, columns: int = 111) -> None:
        self.main_fd, peer_fd = pty.openpty()
        self.peer_fd = peer_fd
        termios.tcsetwinsize(peer_fd, (rows, columns))
        self.mode = termios.tcgetattr(peer_fd)
        self.process = subprocess.Popen(
            [*DRIVER, *words], stdin=peer_fd, stdout=peer_fd, stderr=peer_fd, start_new_session=True
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.main_fd)
        os.close(self.peer_fd)


def test_a_terminal_is_raw_while_it_lasts_and_comes_back() -> None:
    with Terminal(
        "-i", "-t", "sh", "-c", "tty >/dev/null && stty size; echo ready; read line; echo got $line; exit 3"
    ) as terminal:
        found = read_until(terminal.main_fd, b"ready")
        assert b"33 111" in found
        assert not termios.tcgetattr(terminal.peer_fd)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        os.write(terminal.main_fd, b"word\r")
        read_until(terminal.main_fd, b"got word")
        assert terminal.process.wait(30) == 3
        assert termios.tcgetattr(terminal.peer_fd) == terminal.mode


def test_control_c_on_a_raw_terminal_reaches_the_command_as_a_key() -> None:
    with Terminal("-i", "-t", "sh", "-c", "echo ready; head -c 1 | od -An -tx1") as terminal:
        read_until(terminal.main_fd, b"ready")
        os.write(terminal.main_fd, b"\x04")  # an end of file typed by the person is the container's to read
        assert terminal.process.wait(30) == 0


def test_a_changed_size_is_passed_on() -> None:
    command = "trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done"
    with Terminal("-i", "-t", "sh", "-c", command) as terminal:
        read_until(terminal.main_fd, b"ready")
        termios.tcsetwinsize(terminal.main_fd, (44, 99))
        terminal.process.send_signal(signal.SIGWINCH)
        assert b"44 99" in read_until(terminal.main_fd, b"44 99")
        assert terminal.process.wait(30) == 6


def test_a_terminal_comes_back_when_the_command_is_told_to_end() -> None:
    with Terminal("-i", "-t", "sh", "-c", "echo ready; sleep 1000") as terminal:
        read_until(terminal.main_fd, b"ready")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(30) == 128 + signal.SIGTERM
        assert termios.tcgetattr(terminal.peer_fd) == terminal.mode


def test_a_terminal_without_input_stays_as_it_is() -> None:
    with Terminal("-t", "sh", "-c", "echo ready; sleep 1000") as terminal:
        read_until(terminal.main_fd, b"ready")
        assert termios.tcgetattr(terminal.peer_fd) == terminal.mode
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(30) == 128 + signal.SIGTERM


def test_much_output_and_input_on_a_terminal() -> None:
    with Terminal("-i", "-t", "sh", "-c", "stty raw -echo; echo ready; head -c 200000 | wc -c; exit 2") as terminal:
        read_until(terminal.main_fd, b"ready")
        sent = 0
        while sent < 200000:
            sent += os.write(terminal.main_fd, b"x" * min(1000, 200000 - sent))
        assert b"200000" in read_until(terminal.main_fd, b"200000")
        assert terminal.process.wait(30) == 2


def test_a_terminal_needs_a_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from cellwall.runtime.cli.attach import Streams; Streams(True, True)"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "standard input is no terminal: leave -t out" in done.stderr


def test_streams_close_what_they_opened() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for interactive in (False, True):
        with Streams(interactive, False) as streams:
            assert len({streams.stdin_fd, streams.stdout_fd, streams.stderr_fd}) == 3
    with pytest.raises(CellwallError), Streams(False, False):
        raise CellwallError("on the way")
    assert set(os.listdir("/proc/self/fd")) == before


def test_writing_to_a_descriptor_that_someone_made_non_blocking() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    reader = subprocess.Popen(["cat"], stdin=read_fd, stdout=subprocess.PIPE)
    os.close(read_fd)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if written(write_fd, BYTES) else 1)
    os.close(write_fd)
    assert reader.communicate()[0] == BYTES
    assert os.waitpid(pid, 0)[1] == 0
