"""Who waits for a line of a terminal, and that it is the same wait until a line has come."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

from cellwall.kernel.shell.reading import waits

from ..waiting import until


def test_a_wait_is_the_same_until_its_line_has_come() -> None:
    main_fd, peer_fd = pty.openpty()
    code = "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)\nwhile input() != 'end': pass"
    with subprocess.Popen([sys.executable, "-c", code], stdin=peer_fd, stdout=peer_fd, process_group=0) as reader:
        try:
            first = until(lambda: waits(reader.pid, reader.pid), "a wait for a line")
            assert waits(reader.pid, reader.pid) == first
            assert waits(reader.pid, reader.pid + 1) == frozenset()
            # A line for the next read is the next wait; so is one that a signal began anew.
            os.write(main_fd, b"one\n")
            second = until(lambda: waits(reader.pid, reader.pid) - first, "the next wait")
            reader.send_signal(signal.SIGUSR1)
            until(lambda: waits(reader.pid, reader.pid) - first - second, "the wait that follows a signal")
            os.write(main_fd, b"end\n")
            assert reader.wait(60) == 0
            assert waits(reader.pid, reader.pid) == frozenset()
        finally:
            reader.kill()
            os.close(main_fd)
            os.close(peer_fd)
