"""What comes out of a command's pipes: every byte in order, and more room for a stream that fills its pipe."""

from __future__ import annotations

import fcntl
import os
import threading
from hashlib import sha256

import pytest

from cellwall.runtime.linux.files import write_all
from cellwall.runtime.pump import Pipes


def capacity(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def test_a_pipe_that_was_full_holds_more() -> None:
    with Pipes(stdin=False) as made:
        _, stdout_fd, stderr_fd = made.child_fds
        usual = capacity(stdout_fd)
        os.write(stdout_fd, b"a few words")
        assert made.read("stdout") == b"a few words"
        assert capacity(stdout_fd) == usual
        full = os.urandom(usual)
        os.write(stdout_fd, full)
        assert made.read("stdout") == full
        assert capacity(stdout_fd) > usual
        assert capacity(stderr_fd) == usual, "the other stream's is left alone"
        os.set_blocking(made.ours["stdout"], False)
        with pytest.raises(BlockingIOError):
            made.read("stdout")


@pytest.mark.parametrize("piece", [1, 4097, 1 << 20])
def test_every_byte_comes_in_order(piece: int) -> None:
    sent = os.urandom(5000 if piece == 1 else 3_000_001)
    with Pipes(stdin=False) as made:
        fd = os.dup(made.child_fds[1])
        made.close_child()

        def write() -> None:
            for at in range(0, len(sent), piece):
                write_all(fd, sent[at : at + piece])
            os.close(fd)

        writer = threading.Thread(target=write)
        writer.start()
        got = bytearray()
        while data := made.read("stdout"):
            got += data
        writer.join()
    assert len(got) == len(sent)
    assert sha256(got).digest() == sha256(sent).digest()
