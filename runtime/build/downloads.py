"""What ADD fetches over HTTP: streamed to a file, its digest worked out on the way, tried again when the network breaks off.

Source: Dockerfile reference, "ADD" ("Adding files from a remote URL", "ADD --checksum").
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import BuildError, Cancelled
from .archives import looks_like_tar

_MODE = 0o600
_ATTEMPTS = 4
_BACKOFF_S = 0.25
_CHUNK = 1 << 20
_TIMEOUT_S = 30.0


class Download:
    """One URL, fetched into ``folder`` at the first ``fetch``. ``checksum`` is empty, or what its content must have."""

    def __init__(self, url: str, checksum: str, folder: Path, stopped: Callable[[], bool]) -> None:
        self.url = url
        self._checksum = checksum
        self._folder = folder
        self._stopped = stopped
        self._digest = ""
        self._fds: list[int] = []

    @property
    def name(self) -> str:
        """What the file is called: the last part of the URL's path. Raises BuildError where there is none."""
        name = unquote(posixpath.basename(urlsplit(self.url).path))
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise BuildError(0, f"{self.url} names no file: its path must end in a name")
        return name

    def fetch(self) -> str:
        """Fetch it, once; its digest. Raises BuildError (the server refuses, the checksum is another), Cancelled."""
        if self._digest:
            return self._digest
        name = self.name
        self._folder.mkdir(0o700, exist_ok=True)
        algorithm = self._checksum.partition(":")[0] or "sha256"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._digest = f"{algorithm}:{self._once(self._folder / name, algorithm)}"
                break
            except _Again as again:
                if attempt == _ATTEMPTS:
                    raise BuildError(0, f"{self.url}: {again}; tried {_ATTEMPTS} times") from None
                self._wait(_BACKOFF_S * 2**attempt)
        if self._checksum and self._digest != self._checksum:
            found, self._digest = self._digest, ""
            raise BuildError(0, f"{self.url}: its content has the checksum {found}, not {self._checksum}")
        return self._digest

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check()
            time.sleep(0.05)

    def _check(self) -> None:
        if self._stopped():
            raise Cancelled("the build was stopped")

    def _once(self, path: Path, algorithm: str) -> str:
        import httpx

        hasher = hashlib.new(algorithm)
        try:
            with (
                httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S) as client,
                client.stream("GET", self.url) as response,
                open(path, "wb", opener=lambda name, flags: os.open(name, flags, _MODE)) as file,
            ):
                if response.status_code >= 500 or response.status_code == 429:
                    raise _Again(f"the server answers {response.status_code}")
                if response.status_code != 200:
                    raise BuildError(
                        0, f"{self.url}: the server answers {response.status_code} {response.reason_phrase}"
                    )
                for chunk in response.iter_bytes(_CHUNK):
                    self._check()
                    hasher.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                changed = _time(response.headers.get("Last-Modified"))
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _Again(str(error).lower() or type(error).__name__) from error
        os.utime(path, (changed, changed))
        return hasher.hexdigest()

    def is_archive(self) -> bool:
        """Whether what was fetched is a tar archive."""
        with open(self._folder / self.name, "rb") as file:
            return looks_like_tar(file)

    def open(self) -> int:
        """The file, open for reading; the caller closes it."""
        return os.open(self._folder / self.name, os.O_RDONLY | os.O_CLOEXEC)

    def folder_fd(self) -> int:
        """The folder that holds the file, and nothing else; closed with this."""
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


class _Again(Exception):
    """Worth another try."""


def _time(text: str | None) -> float:
    """Last-Modified in seconds; without one, the time of files that have none, as docker's."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
