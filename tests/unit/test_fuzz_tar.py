"""Archives made of every form and every lie: the tar reader, from a pipe and from a file, and the index built of them."""

from __future__ import annotations

import os
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellwall.runtime.storage.erofs_index import build_index
from cellwall.runtime.storage.erofs_tree import IndexTree, TarFile, Unindexable
from cellwall.runtime.storage.lowers import Lowers
from cellwall.runtime.storage.tarheader import TarError
from cellwall.runtime.storage.tarstream import TarStream

from ..hostile_tars import HOSTILE, Hostile
from ..raw_tar import END, base_256, content, header, long_name, pax, piece, sparse

FIELDS = ("type", "name", "linkname", "mode", "uid", "gid", "mtime_ns", "size", "real_size", "major", "minor", "xattrs")

parts = st.sampled_from(
    [
        b"a",
        b"b",
        b"..",
        b".",
        b"",
        b".wh.a",
        b".wh.",
        b".wh...",
        b".wh..wh..opq",
        b".wh..wh.x",
        b"\xff",
        b"n" * 40,
        b" ",
    ]
)
paths = st.lists(parts, min_size=1, max_size=4).map(b"/".join).map(lambda path: path[:99])
kinds = st.sampled_from(
    [b"0", b"0", b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"g", b"Z", b"x", b"L"]
)
sizes = st.sampled_from([0, 1, 511, 512, 513, 2000]) | st.sampled_from(
    [base_256(-1, 12), base_256(1 << 70, 12), base_256(600, 12), b"77777777777\0", b"      12 \0", b"+1", b"\0" * 12]
)
small = st.integers(0, 0o7777777) | st.sampled_from([base_256(-1, 8), base_256(1 << 40, 8), b"9", b"\xff" * 8])
times = st.integers(0, 1 << 32) | st.sampled_from([base_256(-(1 << 80), 12), base_256(1 << 62, 12), b"x"])
numbers = st.sampled_from([b"0", b"5", b"512", b"-1", b"9" * 19, b"9" * 25, b"1.5", b"", b"1e3", b"\xb2"])
records = st.one_of(
    st.tuples(st.sampled_from([b"path", b"linkpath", b"GNU.sparse.name"]), paths | st.just(b"a\0b")),
    st.tuples(
        st.sampled_from(
            b"size uid gid mtime SCHILY.devmajor GNU.sparse.size GNU.sparse.realsize GNU.sparse.major GNU.sparse.minor "
            b"GNU.sparse.offset GNU.sparse.numbytes".split()
        ),
        numbers,
    ),
    st.tuples(st.just(b"GNU.sparse.map"), st.lists(numbers, max_size=6).map(b",".join)),
    st.tuples(
        st.sampled_from(
            [b"SCHILY.xattr.user.a", b"SCHILY.xattr.", b"LIBARCHIVE.xattr.user.a", b"SCHILY.xattr.user.\0"]
        ),
        st.binary(max_size=9),
    ),
)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    """One entry: its headers before it, its own, and content that may not be as long as they say."""
    before = draw(
        st.lists(
            st.one_of(
                st.lists(records, min_size=1, max_size=4).map(lambda found: pax(*found)),
                st.binary(max_size=40).map(lambda raw: pax(raw=raw)),
                paths.map(long_name),
                paths.map(lambda path: long_name(path, b"K")),
            ),
            max_size=2,
        )
    )
    size = draw(sizes)
    if draw(st.integers(0, 5)) == 0:
        places = draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 900)), max_size=4))
        data = b"d" * draw(st.sampled_from([sum(length for _, length in places), 512]))
        real = draw(st.sampled_from([b"00000007777\0", base_256(1 << 64, 12), base_256(3000, 12)]))
        return b"".join(before) + sparse(draw(paths), real, b"".join(piece(*place) for place in places), data)
    made = header(
        draw(paths),
        draw(kinds),
        size,
        link=draw(paths),
        mode=draw(small),
        uid=draw(small),
        gid=draw(small),
        mtime=draw(times),
        device=(draw(small), draw(small)),
        magic=draw(st.sampled_from([b"ustar\x0000", b"ustar  \0", b"\0" * 8])),
        prefix=draw(st.sampled_from([b"", b"", b"p", b"..", b"p/../.."])),
    )
    data = b"c" * size if isinstance(size, int) and draw(st.integers(0, 9)) else draw(st.binary(max_size=600))
    return b"".join(before) + made + content(data)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Entries, an end or none, and then some damage: a cut, or bytes that were changed."""
    whole = b"".join(draw(st.lists(entries(), max_size=5))) + draw(st.sampled_from([END, END, b"", END[:512], END * 3]))
    if draw(st.booleans()):
        return whole
    if draw(st.booleans()):
        return whole[: draw(st.integers(0, len(whole)))]
    damaged = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        if damaged:
            damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged)


def fields(stream: TarStream) -> list[Any]:
    """Every member as it was read, and at the end what it was refused for."""
    found: list[Any] = []
    try:
        while (member := stream.next_member()) is not None:
            found.append([getattr(member, name) for name in FIELDS] + [member.sparse])
    except TarError as error:
        assert str(error)
        # Told to a file the end is seen one step before it is read from a pipe.
        found.append(str(error).partition(" ends inside")[0])
    return found


def in_pipe(data: bytes) -> list[Any]:
    read_fd, write_fd = os.pipe()

    def write() -> None:
        try:
            at = 0
            # Odd pieces: headers must not depend on where a read ends.
            while at < len(data):
                at += os.write(write_fd, data[at : at + 777])
        except BrokenPipeError:  # it has seen enough
            pass
        finally:
            os.close(write_fd)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return fields(TarStream(read_fd))
    finally:
        os.close(read_fd)
        thread.join()


def in_file(data: bytes) -> int:
    fd = os.memfd_create("tar")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def indexed(data: bytes) -> bytes | str:
    """The index of an archive, or why there is none."""
    fd = in_file(data)
    try:
        archive = TarFile(fd)
        tree = IndexTree(Lowers([]), 1 << 30, 1000)
        tree.read(archive)
        return build_index(tree.root, archive.size, bytes(16))
    except (TarError, Unindexable) as error:
        return str(error)
    finally:
        os.close(fd)


@settings(max_examples=300, deadline=None)
@given(archives())
def test_an_archive_is_read_or_refused_the_same_from_a_pipe_and_from_a_file(data: bytes) -> None:
    fd = in_file(data)
    try:
        from_file = fields(TarFile(fd))
    finally:
        os.close(fd)
    assert from_file == in_pipe(data)


@settings(max_examples=300, deadline=None)
@given(archives())
@example(header(b".", b"5", uid=base_256(1 << 40, 8)))
@example(pax((b"GNU.sparse.size", b"9" * 20), (b"GNU.sparse.map", b"9,1")) + header(b"a", size=1) + content(b"x"))
def test_an_archive_is_indexed_or_refused(data: bytes) -> None:
    found = indexed(data)
    # An index is as large as the entries it lists, whatever sizes they state.
    assert isinstance(found, str) or len(found) < 20_000 + 3 * len(data)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_hostile_archives_take_little_memory_and_no_crash(case: Hostile) -> None:
    tracemalloc.start()
    try:
        found = indexed(case.archive)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    # Where an index can't be had the archive is unpacked, and that refuses it: see test_hostile_tars.py.
    assert isinstance(found, str) or not case.refused


@pytest.mark.parametrize(
    "case", [case for case in HOSTILE if not case.refused and len(case.archive) < 4096], ids=lambda c: c.name
)
def test_cut_anywhere_an_archive_is_refused_or_shorter(case: Hostile) -> None:
    whole = in_pipe(case.archive)
    for end in range(0, len(case.archive), 97):
        found = in_pipe(case.archive[:end])
        if found and isinstance(found[-1], str):
            found.pop()
        assert found == whole[: len(found)]
