"""A build's context: a folder of the user's, less what its ``.dockerignore`` leaves out.

Source: Docker docs, "Build context", ".dockerignore files".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType

from ..errors import BuildError
from ..storage.lowers import Lowers
from .dockerignore import ignore_names, ignore_patterns, parse_dockerignore
from .tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# Far more than anybody writes by hand, and little beside what a machine has.
_INSTRUCTIONS_MAX = 16 << 20


class Context:
    """The folder ``path`` (None: an empty context), open between ``with`` and its end.

    ``ignore_file``, where it is there, counts instead of the context's own ``.dockerignore``.
    """

    def __init__(self, path: Path | None, ignore_file: Path | None = None) -> None:
        self.path = path
        self._ignore_file = ignore_file
        self.fd = -1
        self.ignore: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if self.path is not None:
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                why = (error.strerror or "").lower()
                raise BuildError(0, f"the build context {self.path}: {why}: name a folder") from error
            self.ignore = self._patterns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def tree(self) -> Tree:
        """The context's files, those that are ignored included: selections leave them out."""
        return Tree(Lowers([self.fd] if self.fd >= 0 else []))

    def _patterns(self) -> tuple[str, ...]:
        assert self.path is not None
        candidates = [self._ignore_file] if self._ignore_file is not None else []
        for path in [*candidates, self.path / ".dockerignore"]:
            try:
                text = read_instructions(path)
            except (FileNotFoundError, IsADirectoryError):
                continue
            parse_dockerignore(text)
            return tuple(ignore_patterns(text.decode("utf-8", "surrogateescape")))
        return ()


def read_instructions(path: Path) -> bytes:
    """A Dockerfile or ``.dockerignore``, whole. Raises BuildError where it is no file of that kind, and FileNotFoundError.

    A context may come from anyone: a device never ends, and a pipe waits for a writer.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BuildError(0, f"{path} is no regular file")
            text = file.read(_INSTRUCTIONS_MAX + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise
    except OSError as error:
        raise BuildError(0, f"{path}: {(error.strerror or '').lower()}") from error
    if len(text) > _INSTRUCTIONS_MAX:
        raise BuildError(0, f"{path} holds more than {_INSTRUCTIONS_MAX >> 20} MiB")
    return text


def ignore_file_of(dockerfile: Path) -> Path:
    """The file beside ``dockerfile`` that counts instead of the context's ``.dockerignore``."""
    return dockerfile.with_name(ignore_names(dockerfile.name)[0])
