"""Layer archives as they come from a registry, decompressed while they stream: gzip, zstd, bzip2, xz and plain.

The format is told by its first bytes, never by a media type. isal decompresses gzip where it is installed, zlib otherwise.

Source: RFC 1952 (gzip; members may follow each other), RFC 8878 (zstd frames, skippable frames), image-spec layer.md.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Source(Protocol):
        def read(self, size: int, /) -> bytes: ...


_READ = 256 * 1024
# A zstd block of 4 bytes can stand for 128 KiB and the library can't be told to stop: 2 KiB become 64 MiB at the most.
_ZSTD_STEP = 2048
_OUTPUT = 1024 * 1024

GZIP = "gzip"
ZSTD = "zstd"
BZIP2 = "bzip2"
XZ = "xz"
PLAIN = "plain"


def compression(head: bytes) -> str:
    """The compression of a stream that begins with ``head`` (6 bytes tell them all apart)."""
    if head[:2] == b"\x1f\x8b":
        return GZIP
    if head[:4] == b"\x28\xb5\x2f\xfd" or (
        head[1:4] == b"\x2a\x4d\x18" and head[:1] >= b"\x50" and head[:1] <= b"\x5f"
    ):
        return ZSTD
    if head[:3] == b"BZh":
        return BZIP2
    if head[:6] == b"\xfd7zXZ\x00":
        return XZ
    return PLAIN


def decompressed(source: BinaryIO, digest: object = "archive") -> BinaryIO:
    """A buffered reader of what ``source`` holds, decompressed; it reads ``source`` only as far as needed and never closes it.

    ``source.read(n)`` may return fewer bytes than asked for; an empty answer is its end. ``digest`` names the layer in
    errors. Reading raises LayerError where the stream is corrupt or cut short. Padding of zeros after the last member is
    ignored, anything else there is an error.
    """
    return cast(BinaryIO, io.BufferedReader(Decompressed(source, digest), _READ))


class Decompressed(io.RawIOBase):
    """The raw reader behind ``decompressed``; ``compression`` says what was found. Whoever wants all of it takes ``piece``."""

    def __init__(self, source: Source, digest: object = "archive") -> None:
        head = b""
        while len(head) < 6 and (more := source.read(6 - len(head))):
            head += more
        self.compression = compression(head)
        self._source = source
        self._digest = digest
        self._pending = head
        self._ready = memoryview(b"")
        self._begun = False
        self._decoder, self._step, self._failures = _decoder(self.compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._ready:
            self._ready = memoryview(self.piece())
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def piece(self) -> bytes:
        """What comes next, of a size that suits the decoder (1 MiB at the most, zstd: 64); empty at the end. Not beside ``read``."""
        while True:
            chunk = self._plain() if self.compression == PLAIN else self._decode()
            if chunk is None:
                return b""
            if chunk:
                return chunk

    def _input(self) -> bytes:
        pending, self._pending = self._pending, b""
        return pending or self._source.read(_READ)

    def _plain(self) -> bytes | None:
        return self._input() or None

    def _decode(self) -> bytes | None:
        """The next decompressed piece (it may be empty), or None at the end."""
        if self._decoder.eof:
            rest = self._decoder.unused_data + self._pending
            self._pending = b""
            # Tape-sized archives end in zeros; gzip(1) ignores those and so does this.
            while not (rest := rest.lstrip(b"\0")):
                rest = self._source.read(_READ)
                if not rest:
                    return None
            while len(rest) < 6 and (more := self._source.read(_READ)):
                rest += more
            if compression(rest) != self.compression:
                raise LayerError(
                    self._digest, f"there are foreign bytes after the end of its {self.compression} stream"
                )
            self._decoder, self._step, self._failures = _decoder(self.compression)
            self._pending = rest
        # bz2 and lzma keep input that they haven't used yet: they are asked again with nothing until they want more.
        data = self._input() if getattr(self._decoder, "needs_input", True) else b""
        if not data and getattr(self._decoder, "needs_input", True):
            raise LayerError(self._digest, f"its {self.compression} stream is cut short; get it again")
        try:
            piece, self._pending = self._step(data)
        except self._failures as error:
            raise LayerError(self._digest, f"its {self.compression} stream is corrupt ({error})") from error
        return piece


def _decoder(kind: str) -> tuple[Any, Callable[[bytes], tuple[bytes, bytes]], tuple[Any, ...]]:
    """A new decoder, a function from input to (output, input not yet used), and what it raises on corrupt input."""
    if kind == ZSTD:
        # Imported here: only zstd layers need it.
        import zstandard

        zstd = zstandard.ZstdDecompressor().decompressobj()

        def step_zstd(data: bytes) -> tuple[bytes, bytes]:
            piece = zstd.decompress(data[:_ZSTD_STEP])
            return piece, data[_ZSTD_STEP:]

        return zstd, step_zstd, (zstandard.ZstdError,)
    if kind == BZIP2 or kind == XZ:
        block: Any = bz2.BZ2Decompressor() if kind == BZIP2 else lzma.LZMADecompressor(memlimit=256 << 20)

        def step_block(data: bytes) -> tuple[bytes, bytes]:
            return block.decompress(data, _OUTPUT), b""

        return block, step_block, (OSError, EOFError, lzma.LZMAError)
    return _gzip()


def gzip_compressor(*, reproducible: bool = False) -> Any:
    """An object with ``compress`` and ``flush`` that makes gzip without time or name: the same bytes for the same input.

    ``reproducible``: also on another processor. isal has code of its own for each kind, and a virtual machine that shows a plain
    one (QEMU's qemu64, kvm64) gets other bytes; zlib takes four times as long, for the same size.
    """
    if reproducible:
        return zlib.compressobj(1, wbits=31)
    try:
        from isal import isal_zlib
    except ImportError:  # another machine than x86_64 and aarch64
        return zlib.compressobj(6, wbits=31)
    return isal_zlib.compressobj(2, wbits=31)


def _gzip() -> tuple[Any, Callable[[bytes], tuple[bytes, bytes]], tuple[Any, ...]]:
    try:
        from isal import igzip_lib
    except ImportError:  # another machine than x86_64 and aarch64
        plain: Any = zlib.decompressobj(wbits=31)

        def step_zlib(data: bytes) -> tuple[bytes, bytes]:
            piece = plain.decompress(data, _OUTPUT)
            return piece, plain.unconsumed_tail

        return plain, step_zlib, (zlib.error,)
    # Keeps unused input itself, which is a fifth quicker than handing it back and forth.
    gzip: Any = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def step_gzip(data: bytes) -> tuple[bytes, bytes]:
        return gzip.decompress(data, _OUTPUT), b""

    return gzip, step_gzip, (igzip_lib.IsalError,)
