"""Messages between the client and the launcher."""

from __future__ import annotations

import os

import pytest

from cellwall.runtime.launcher.wire import pair, receive, send


@pytest.mark.parametrize("size", [0, 1, 60_000, 70_000, 3_000_000])
def test_message_with_descriptors(size: int) -> None:
    left, right = pair()
    read_fd, write_fd = os.pipe()
    with left, right:
        send(left, {"text": "x" * size}, [write_fd])
        message, fds = receive(right)
        assert message == {"text": "x" * size}
        assert len(fds) == 1
        assert not os.get_inheritable(fds[0])
        os.write(fds[0], b"through")
        assert os.read(read_fd, 10) == b"through"
    for fd in (read_fd, write_fd, *fds):
        os.close(fd)


def test_the_end() -> None:
    left, right = pair()
    with right:
        send(left, {"last": 1})
        left.close()
        assert receive(right) == ({"last": 1}, [])
        assert receive(right) == (None, [])
        with pytest.raises(BrokenPipeError):
            send(right, {})


def test_no_descriptor_is_lost_when_the_peer_left_without_reading() -> None:
    left, right = pair()
    before = len(os.listdir("/proc/self/fd"))
    send(left, {"a": 1}, [0])
    right.close()
    left.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2
