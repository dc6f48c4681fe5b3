"""A build's context: a folder of the user's, less what its ``.dockerignore`` leaves out.

Source: Docker docs, "Build context", ".dockerignore files".
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import BuildError
from ..storage.lowers import Lowers
from .dockerignore import ignore_names, ignore_patterns, parse_dockerignore
from .tree import Tree


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
                text = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            parse_dockerignore(text)
            return tuple(ignore_patterns(text.decode("utf-8", "surrogateescape")))
        return ()


def ignore_file_of(dockerfile: Path) -> Path:
    """The file beside ``dockerfile`` that counts instead of the context's ``.dockerignore``."""
    return dockerfile.with_name(ignore_names(dockerfile.name)[0])
