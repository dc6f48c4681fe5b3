"""A cell's terminal, seen from its main end: its settings, signals to what runs in its foreground, and where its output ends.

Source: ioctl_tty(2), termios(3), pty(7).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import struct
import termios
from typing import Any

_TIOCGPTPEER = 0x5441
_TIOCSIG = 0x40045436
_ECHOCTL = 0o001000
COLUMNS, ROWS = 80, 24


class Terminal:
    """Owns ``main_fd``. ``peer_fd`` is the end that the container's processes have, opened without becoming anybody's terminal."""

    def __init__(self, main_fd: int) -> None:
        self.main_fd = main_fd
        os.set_blocking(main_fd, False)
        self.peer_fd = fcntl.ioctl(main_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
        settings = termios.tcgetattr(main_fd)
        settings[1] &= ~termios.ONLCR  # a line ends as its program wrote it
        settings[3] = (settings[3] | termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN) & ~_ECHOCTL
        self._settings: list[Any] = settings
        self.reset()

    def reset(self) -> None:
        """Undo what a cell did to the settings, and throw away input that nobody has read."""
        try:
            termios.tcsetattr(self.main_fd, termios.TCSANOW, self._settings)
            termios.tcflow(self.peer_fd, termios.TCOON)
            termios.tcflush(self.peer_fd, termios.TCIFLUSH)
        except termios.error:  # the shell has ended and taken the terminal with it
            pass

    def read(self) -> bytes:
        """Output, as it comes; empty where there is none."""
        try:
            return os.read(self.main_fd, 65536)
        except OSError:  # EAGAIN, or EIO after the last process has closed it
            return b""

    def write(self, data: bytes) -> int:
        """Type ``data``; returns how many bytes fitted."""
        try:
            return os.write(self.main_fd, data)
        except OSError:
            return 0

    def fence(self) -> bytes | None:
        """Write a mark behind all output so far and return it: what is read before it was written before. None: not now.

        The kernel moves output to this end by a worker of its own, so that "nothing more to read" doesn't mean "all read".
        """
        mark = b"\x1b]7718;" + secrets.token_hex(16).encode() + b"\x07"
        try:
            return mark if os.write(self.peer_fd, mark) == len(mark) else None
        except OSError:  # full, or hung up
            return None

    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(self._local() & termios.ECHO)

    def hides(self) -> bool:
        """Whether a line is read without showing it, as programs do that ask for a password."""
        return self._local() & (termios.ECHO | termios.ICANON) == termios.ICANON

    def _local(self) -> int:
        try:
            return int(termios.tcgetattr(self.main_fd)[3])
        except termios.error:
            return 0

    def end_of_input(self) -> bytes:
        """The character that ends the input, where one does."""
        try:
            character = termios.tcgetattr(self.main_fd)[6][termios.VEOF]
        except termios.error:
            return b""
        return character if isinstance(character, bytes) else b"\x04"

    def unread(self) -> int:
        """How many bytes of input lie there that nobody has read."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self.peer_fd, termios.FIONREAD, bytes(4)))[0])
        except OSError:
            return 0

    def foreground(self) -> int:
        """The process group in the foreground, as this machine numbers it; 0 where there is none."""
        try:
            return max(0, os.tcgetpgrp(self.main_fd))
        except OSError:
            return 0

    def interrupt(self) -> None:
        """Send SIGINT to the foreground, whatever the settings say of Ctrl-C."""
        try:
            fcntl.ioctl(self.main_fd, _TIOCSIG, signal.SIGINT)
        except OSError:  # it has hung up
            pass

    def close_peer(self) -> None:
        """Give up the other end, so that reading comes to an end with the container's processes."""
        if self.peer_fd >= 0:
            os.close(self.peer_fd)
            self.peer_fd = -1

    def close(self) -> None:
        """Give up both ends."""
        self.close_peer()
        if self.main_fd >= 0:
            os.close(self.main_fd)
            self.main_fd = -1
