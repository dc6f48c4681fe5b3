"""The files of an image layout or of an image archive, by their names in it: a folder's, or a tar's.

Nothing is unpacked: a member of a tar is read in place, links within the archive are followed by name only.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from ..errors import ImageError, NotFound
from .job import Stop
from .manifest import layer_media_type

if TYPE_CHECKING:
    import tarfile

_CHUNK = 1 << 20
_LINKS = 8


class FolderFiles:
    """The files of a layout, by their path in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_dir():
            raise NotFound(
                f"no image layout at {path}: " + ("it isn't a folder" if path.exists() else "there is no such folder")
            )

    def open(self, name: str) -> BinaryIO:
        try:
            return open(self._path / name, "rb")
        except (FileNotFoundError, NotADirectoryError) as err:
            raise ImageError(f"{self._path}: {name} is missing in it") from err

    def holds(self, name: str) -> bool:
        return (self._path / name).exists()

    def close(self) -> None:
        pass


class TarFiles:
    """The members of a tar, by name; a compressed one is decompressed first, to a file without a name."""

    def __init__(self, path: Path, scratch: Path | None, stop: Stop) -> None:
        import tarfile

        self._path = path
        self._tar: tarfile.TarFile | None = None
        try:
            self._file: IO[bytes] = open(path, "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as err:
            raise NotFound(f"no image archive at {path}: {(err.strerror or '').lower()}") from err
        try:
            try:
                magic = self._file.read(4)
                self._file.seek(0)
            except OSError as err:
                raise ImageError(f"{path} can't be read: {(err.strerror or str(err)).lower()}") from err
            if not layer_media_type(magic).endswith(".tar"):
                if scratch is None:
                    raise ImageError(f"{path} is compressed")
                self._file = self._plain(scratch, stop)
            self._tar = tarfile.open(fileobj=self._file, mode="r:")
            self._members = {posixpath.normpath(member.name): member for member in self._tar}
        except (tarfile.TarError, EOFError) as err:
            self.close()
            raise ImageError(f"{path} isn't a tar archive, or it is cut short") from err
        except BaseException:
            self.close()
            raise

    def _plain(self, scratch: Path, stop: Stop) -> IO[bytes]:
        # Imported here: an archive that isn't compressed needs no temporary file.
        import tempfile

        from ..storage.compression import decompressed

        target = tempfile.TemporaryFile(dir=scratch)
        try:
            with self._file as source:
                stream = decompressed(cast(BinaryIO, source), self._path.name)
                while chunk := stream.read(_CHUNK):
                    stop.check()
                    target.write(chunk)
            target.seek(0)
        except BaseException:
            target.close()
            raise
        return target

    def open(self, name: str) -> BinaryIO:
        assert self._tar is not None
        wanted = posixpath.normpath(name)
        for _ in range(_LINKS):
            member = self._members.get(wanted)
            if member is None:
                raise ImageError(f"{self._path}: {name} is missing in it")
            if member.isreg():
                opened = self._tar.extractfile(member)
                assert opened is not None
                return cast(BinaryIO, opened)
            # docker save before 25 wrote a layer that two images share as a symlink.
            if member.issym():
                wanted = posixpath.normpath(posixpath.join(posixpath.dirname(wanted), member.linkname))
            elif member.islnk():
                wanted = posixpath.normpath(member.linkname)
            else:
                break
        raise ImageError(f"{self._path}: {name} isn't a regular file in it")

    def holds(self, name: str) -> bool:
        return name in self._members

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
        self._file.close()


def read_limited(files: FolderFiles | TarFiles, name: str, limit_bytes: int, where: str) -> bytes:
    with files.open(name) as file:
        raw = file.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise ImageError(f"{where}: {name} is larger than {limit_bytes} bytes")
    return raw
