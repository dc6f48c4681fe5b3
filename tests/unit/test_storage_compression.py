"""decompressed(): every format, split at every place, corrupt, cut short, bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.errors import LayerError
from cellwall.runtime.storage.compression import Decompressed, decompressed

ENCODERS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
DATA = random.Random(1).randbytes(700_000) + bytes(3_000_000) + b"tail"


class Dribble(io.RawIOBase):
    """A source whose reads are as short as the network likes them: ``sizes`` in turn."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data = data
        self.sizes = sizes
        self.position = 0
        self.calls = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        step = self.sizes[self.calls % len(self.sizes)]
        self.calls += 1
        step = min(step, size) if size >= 0 else step
        piece = self.data[self.position : self.position + step]
        self.position += len(piece)
        return piece


def read_all(data: bytes, sizes: list[int] | None = None) -> bytes:
    source = Dribble(data, sizes) if sizes else io.BytesIO(data)
    return decompressed(source, "sha256:test").read()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("sizes", [None, [1 << 20], [7], [1, 5000]])
def test_round_trip(kind: str, sizes: list[int] | None) -> None:
    data = DATA if sizes != [7] else DATA[:50_000]
    assert read_all(ENCODERS[kind](data), sizes) == data


@pytest.mark.parametrize("kind", ENCODERS)
def test_concatenated_members_and_zero_padding(kind: str) -> None:
    encode = ENCODERS[kind]
    joined = encode(DATA) + encode(b"second") + encode(b"") + encode(b"third") + bytes(1000)
    assert read_all(joined) == DATA + b"secondthird"
    assert read_all(joined, [333]) == DATA + b"secondthird"


@pytest.mark.parametrize("kind", ENCODERS)
def test_cut_short_at_many_places(kind: str) -> None:
    encoded = ENCODERS[kind](b"some text " * 500)
    for length in range(6, len(encoded)):
        with pytest.raises(LayerError, match="sha256:test"):
            read_all(encoded[:length])


@pytest.mark.parametrize("kind", ENCODERS)
def test_foreign_bytes_after_the_end(kind: str) -> None:
    with pytest.raises(LayerError, match="foreign bytes"):
        read_all(ENCODERS[kind](b"x" * 1000) + b"<html>")
    with pytest.raises(LayerError, match="foreign bytes"):
        read_all(ENCODERS[kind](b"x" * 1000) + bytes(700_000) + b"!")


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2"])
def test_corrupt_bytes(kind: str) -> None:
    encoded = bytearray(ENCODERS[kind](DATA[:100_000]))
    encoded[len(encoded) // 2] ^= 0x55
    with pytest.raises(LayerError, match="corrupt|cut short"):
        read_all(bytes(encoded))


def test_corrupt_zstd_frame_with_checksum() -> None:
    encoded = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(DATA[:100_000]))
    encoded[len(encoded) // 2] ^= 0x55
    with pytest.raises(LayerError, match="corrupt"):
        read_all(bytes(encoded))


def test_skippable_zstd_frame_comes_first() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert read_all(skippable + ENCODERS["zstd"](b"content")) == b"content"


@given(st.binary(max_size=64).filter(lambda b: Decompressed(io.BytesIO(b), "").compression == "plain"))
def test_plain_comes_through(data: bytes) -> None:
    assert read_all(data) == data


@settings(max_examples=50)
@given(st.binary(max_size=300), st.sampled_from(sorted(ENCODERS)), st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_gives_an_error_or_some_bytes(data: bytes, kind: str, place: int, change: int) -> None:
    encoded = bytearray(ENCODERS[kind](data))
    encoded[place % len(encoded)] ^= change
    try:
        read_all(bytes(encoded))
    except LayerError:
        pass


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_bomb_is_read_piece_by_piece(kind: str) -> None:
    """Reading a little of a stream that is nothing but zeros leaves most of it in its compressed form."""
    raw = bytes(64 << 20)
    source = io.BytesIO(ENCODERS[kind](raw))
    reader = decompressed(source, "bomb")
    assert reader.read(10) == bytes(10)
    decoder = reader.raw  # type: ignore[attr-defined]
    assert len(decoder._ready) <= 64 << 20
    if kind != "zstd":
        assert len(decoder._ready) <= 1 << 20
