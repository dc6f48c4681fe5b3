"""``--cidfile``: a new container's id, in a file that mustn't be there before. Source: docker-container-run(1)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import AlreadyExists, NotFound
from .linux.files import write_all


@contextmanager
def id_file(path: str | None) -> Iterator[Callable[[str], None]]:
    """Make the file, and give the block what writes the id to it; the file goes where no container came of it.

    Raises AlreadyExists, NotFound (no such folder).
    """
    if path is None:
        yield lambda _: None
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise AlreadyExists(
            f"--cidfile: {path} exists: make sure that its container doesn't run any more, then remove the file"
        ) from None
    except OSError as error:
        raise NotFound(
            f"--cidfile: {path}: {(error.strerror or '').lower()}: name a file in a folder that is there"
        ) from None
    written = False

    def write(container_id: str) -> None:
        nonlocal written
        write_all(fd, container_id.encode())
        written = True

    try:
        yield write
    finally:
        os.close(fd)
        if not written:
            os.unlink(path)
