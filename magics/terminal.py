"""Commands that want a terminal (`%container run -it …`, `exec -it`, `attach`) in a notebook: they get one, and its keys come from ``input()``.

A front end that takes no input (nbconvert, papermill) types the end of input, so that a shell ends. In IPython on a real terminal the
command has that one. Source: pty(7), ioctl_tty(2), jupyter-client messaging, *stdin requests*.
"""

from __future__ import annotations

import contextvars
import os
import pty
import re
import selectors
import signal
import subprocess
import termios
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..runtime.cli.command import GROUPS
from ..runtime.cli.parser import HelpRequested, Parser
from ..runtime.cli.run_options import add_run_options
from ..runtime.cli.terminal_options import OF_THE_TERMINAL, add_terminal_options
from ..runtime.errors import CellwallError

# So long without output, and whoever reads the terminal is asked for what to type. A prompt comes faster, a person types slower.
QUIET_S = 0.4
# The same while the command hasn't taken the terminal's line mode off: it may still be pulling its image.
NOT_JOINED_S = 3.0
END_OF_INPUT = b"\x04"
# How wide a notebook's cell shows text without a scroll bar.
SIZE = (24, 100)
CHUNK = 65536
# A command that was told that its terminal is gone takes its container down; one that doesn't is killed.
GRACE_S = 0.6
# What a front end doesn't draw: private modes (bracketed paste, the cursor), and titles of the window.
_UNSEEN = re.compile(rb"\x1b\[\?[0-9;]*[hl]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r(?=\n)")
_UNFINISHED = re.compile(rb"(?:\x1b(?:\[(?:\?[0-9;]*)?|\][^\x07\x1b]{0,200}\x1b?)?|\r)\Z")
_EXEC_VALUES = ("-e", "-w", "-u", "--env", "--env-file", "--workdir", "--user", "--timeout", "--detach-keys")


class Feed(Protocol):
    def feed(self, data: bytes) -> object: ...


def wants_terminal(words: list[str]) -> bool:
    """Whether ``cellwall WORDS…`` is joined to a terminal: what docker would refuse without one."""
    if words and words[0] in GROUPS:
        words = words[1:]
    name, rest = (words[0], words[1:]) if words else ("", [])
    if "--help" in rest:
        return False
    if name == "attach":
        return True
    if name == "start":
        return any(word in ("--attach", "--interactive") or re.fullmatch("-[ai]+", word) for word in rest)
    if name == "exec":
        return _exec_wants(rest)
    if name != "run":
        return False
    parser = Parser("cellwall run", interspersed=False)
    add_run_options(parser, omit=OF_THE_TERMINAL)
    add_terminal_options(parser)
    parser.flag("-q", "--quiet")
    try:
        said, _ = parser.parse(rest)
    except (CellwallError, HelpRequested):
        return False  # the command itself says what is wrong
    return bool(said.tty and not said.detach)


def _exec_wants(words: list[str]) -> bool:
    found = False
    words = list(words)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in ("-d", "--detach"):
            return False
        if word in _EXEC_VALUES:
            del words[:1]
        elif word == "--tty" or re.fullmatch("-[it]*t[it]*", word):
            found = True
    return found


def run(command: list[str], shown: Feed, errors: Feed, shell: Any) -> int:
    """Run ``command`` on a terminal until it ends; its exit status. What it says itself, on standard error, doesn't go there. Where it is interrupted, the command is told that its terminal is gone."""
    if getattr(shell, "kernel", None) is None and os.isatty(0):
        return subprocess.run(command).returncode
    main_fd, peer_fd = pty.openpty()
    try:
        termios.tcsetwinsize(peer_fd, SIZE)
        child = subprocess.Popen(command, stdin=peer_fd, stdout=peer_fd, stderr=subprocess.PIPE, start_new_session=True)
    except BaseException:
        os.close(main_fd)
        raise
    finally:
        os.close(peer_fd)
    assert child.stderr is not None
    terminal = _Terminal(main_fd, shown, child.stderr.fileno(), errors)
    try:
        terminal.serve(input)
        return child.wait()
    except BaseException:
        child.send_signal(signal.SIGHUP)
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        terminal.close()
        child.stderr.close()


class _Terminal:
    """The main end of a terminal: a thread shows what comes, this one asks for what to type whenever nothing comes."""

    def __init__(self, main_fd: int, shown: Feed, errors_fd: int, errors: Feed) -> None:
        self._fd = main_fd
        self._feeds = {main_fd: _Drawn(shown).feed, errors_fd: errors.feed}
        self._changed = threading.Condition()
        self._came = 0
        self._ended = False
        self._asking = False
        self._main = threading.get_ident()
        # ipykernel finds the cell that output belongs to in a context variable.
        context = contextvars.copy_context()
        self._pump = threading.Thread(target=context.run, args=(self._show,), name="cellwall terminal", daemon=True)
        self._pump.start()

    def serve(self, ask: Callable[[], str]) -> None:
        """Return when the command has ended."""
        try:
            while not self._wait_until_quiet():
                try:
                    with self._changed:
                        if self._ended:
                            return
                        self._asking = True
                    typed = ask().encode() + b"\r"
                except (EOFError, RuntimeError):  # IPython's StdinNotImplementedError is one
                    typed = END_OF_INPUT
                finally:
                    with self._changed:
                        self._asking = False
                os.write(self._fd, typed)
        except KeyboardInterrupt:
            # From _show, as nobody reads any more what was asked for; else from whoever interrupts the cell.
            if not self._ended:
                raise

    def _wait_until_quiet(self) -> bool:
        """Wait until nothing has come for a while; whether the command has ended instead."""
        with self._changed:
            came = -1
            while not self._ended and came != self._came:
                came = self._came
                joined = not termios.tcgetattr(self._fd)[3] & termios.ICANON
                self._changed.wait(QUIET_S if joined else NOT_JOINED_S)
            return self._ended

    def close(self) -> None:
        """Call it when the command has ended: show what is left, and close the terminal."""
        self._pump.join()
        os.close(self._fd)

    def _show(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd, feed in self._feeds.items():
                selector.register(fd, selectors.EVENT_READ, feed)
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        data = os.read(key.fd, CHUNK)
                    except OSError:  # EIO: the last process that had the terminal has ended
                        data = b""
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fd)
                    with self._changed:
                        self._came += 1
                        self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            if self._asking:
                signal.pthread_kill(self._main, signal.SIGINT)


class _Drawn:
    """What of a terminal's output a front end can draw."""

    def __init__(self, shown: Feed) -> None:
        self._shown = shown
        self._held = b""

    def feed(self, data: bytes) -> None:
        data = self._held + data
        rest = _UNFINISHED.search(data)
        self._held = data[rest.start() :] if rest else b""
        self._shown.feed(_UNSEEN.sub(b"", data[: len(data) - len(self._held)]))
