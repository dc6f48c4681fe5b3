"""Writing all of it: into a pipe that is smaller than what is written, blocking or not, and into one that nobody reads."""

from __future__ import annotations

import os
import threading

import pytest

from cellwall.runtime.linux.files import write_all


@pytest.mark.parametrize("blocking", [True, False])
def test_all_of_it_arrives(blocking: bool) -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, blocking)
    data = os.urandom(1 << 20)
    found: list[bytes] = []

    def read() -> None:
        with open(read_fd, "rb") as file:
            found.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        write_all(write_fd, data)
    finally:
        os.close(write_fd)
        reader.join()
    assert found == [data]


def test_a_reader_that_has_gone_is_an_error() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    try:
        with pytest.raises(BrokenPipeError):
            write_all(write_fd, b"x")
    finally:
        os.close(write_fd)
