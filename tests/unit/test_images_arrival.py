"""A blob read behind its download: it waits, it begins again with it, and has no end before it is verified."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellwall.runtime.errors import Cancelled, ImageError
from cellwall.runtime.images.arrival import Arrival, Blob, Restarted
from cellwall.runtime.images.job import Stop

from ..waiting import PATIENCE_S

MUCH = 300 * 1024


class Download:
    """What writes the file, by hand. ``verify`` waits for ``end`` and raises what it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrival = Arrival()
        self.stop = Stop()
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self.verified = 0
        self.begin()

    def begin(self) -> None:
        self.path.write_bytes(b"")
        self.arrival.came(0)

    def write(self, content: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(content)
            self.arrival.came(file.tell())

    def end(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self._ended.set()
        self.arrival.end()

    def verify(self) -> None:
        assert self._ended.wait(PATIENCE_S)
        self.verified += 1
        if self._failure is not None:
            raise self._failure

    def blob(self) -> Blob:
        return Blob(self.path, self.arrival, self.verify, self.stop)


@pytest.fixture
def download(tmp_path: Path) -> Download:
    return Download(tmp_path / "blob")


def all_of(blob: Blob) -> bytes:
    pieces = []
    while piece := blob.read(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def test_it_is_read_while_it_comes(download: Download) -> None:
    with download.blob() as blob:
        download.write(b"a" * MUCH)
        assert blob.read(1 << 20) == b"a" * MUCH
        assert not blob.settled and download.verified == 0
        download.write(b"b" * 10)
        download.end()
        assert blob.read(1 << 20) == b"b" * 10
        assert blob.read(1 << 20) == b""
        assert blob.settled and download.verified == 1


def test_it_has_no_end_before_it_is_verified(download: Download) -> None:
    download.write(b"a" * MUCH)
    with ThreadPoolExecutor() as pool, download.blob() as blob:
        reading = pool.submit(all_of, blob)
        with pytest.raises(TimeoutError):
            reading.result(0.2)
        download.end()
        assert reading.result(PATIENCE_S) == b"a" * MUCH


def test_what_the_download_failed_with_is_raised(download: Download) -> None:
    with download.blob() as blob:
        download.write(b"a" * MUCH)
        blob.read(100)
        download.end(ImageError("not what was promised"))
        with pytest.raises(ImageError, match="not what was promised"):
            all_of(blob)
        assert not blob.settled


def test_a_download_that_begins_again_is_told(download: Download) -> None:
    with download.blob() as blob:
        download.write(b"a" * MUCH)
        blob.read(100)
        download.begin()
        download.write(b"b" * MUCH)
        assert blob.restarted
        with pytest.raises(Restarted):
            blob.read(100)
    download.end()
    with download.blob() as blob:
        assert all_of(blob) == b"b" * MUCH


def test_one_that_begins_again_before_anything_was_read_is_nothing_to_tell(download: Download) -> None:
    with download.blob() as blob:
        download.write(b"a" * 10)
        download.begin()
        download.write(b"b" * 10)
        download.end()
        assert all_of(blob) == b"b" * 10
        assert not blob.restarted


def test_waiting_ends_with_the_pull(download: Download) -> None:
    with ThreadPoolExecutor() as pool, download.blob() as blob:
        reading = pool.submit(blob.read, 100)
        download.stop.set()
        with pytest.raises(Cancelled):
            reading.result(PATIENCE_S)


def test_a_blob_that_is_here(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"here")
    told: list[int] = []
    with Blob(path, None, lambda: told.append(1), Stop()) as blob:
        blob.settle()
        assert all_of(blob) == b"here"
    assert told == [1]
