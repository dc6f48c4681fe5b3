"""The tar reader against the standard library and GNU tar as writers, and against archives that lie."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.storage.tarheader import BLOCK, REGULAR, Member, TarError, number, pax_records
from cellwall.runtime.storage.tarstream import TarStream

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read(data: bytes) -> list[tuple[Member, bytes]]:
    """Every member with the content that its file would have."""
    fd = os.memfd_create("tar")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        stream = TarStream(fd)
        found = []
        while (member := stream.next_member()) is not None:
            found.append((member, content(stream, member)))
        stream.drain(1 << 20)
        return found
    finally:
        os.close(fd)


def content(stream: TarStream, member: Member) -> bytes:
    fd = os.memfd_create("file")
    try:
        pieces = [(0, member.size)] if member.sparse is None else member.sparse
        for offset, length in pieces:
            os.lseek(fd, offset, os.SEEK_SET)
            stream.copy_content(fd, length)
        os.ftruncate(fd, member.real_size)
        return os.pread(fd, member.real_size, 0)
    finally:
        os.close(fd)


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT, **more: Any) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format, errors="surrogateescape", **more) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return output.getvalue()


def info(name: str, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/") and not name.startswith("/")
)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            names,
            st.binary(max_size=2000),
            st.integers(0, 0o7777),
            st.integers(0, 2**32 - 2),
            st.integers(0, 2**33),
        ),
        max_size=5,
    ),
    st.sampled_from(["gnu", "pax"]),
)
def test_what_tarfile_writes_is_read_alike(entries: list[tuple[str, bytes, int, int, int]], format: str) -> None:
    members = [
        (info(name, mode=mode, uid=owner, gid=owner // 2, mtime=time), data)
        for name, data, mode, owner, time in entries
    ]
    found = read(archive(*members, format=FORMATS[format]))
    assert len(found) == len(entries)
    for (member, data), (name, expected, mode, owner, time) in zip(found, entries, strict=True):
        assert member.name == name.encode()
        assert (member.mode, member.uid, member.gid) == (mode, owner, owner // 2)
        assert member.mtime_ns == time * 10**9
        assert data == expected


@given(st.binary(min_size=1, max_size=150).filter(lambda name: b"\0" not in name and not name.endswith(b"/")))
def test_names_are_bytes(name: bytes) -> None:
    for format in ("gnu", "pax"):
        text = os.fsdecode(name)
        members = [(info(text, type=tarfile.SYMTYPE, linkname=text), b"")]
        ((member, _),) = read(archive(*members, format=FORMATS[format]))
        if format == "gnu":
            assert (member.name, member.linkname) == (name, name)


@pytest.mark.parametrize("format", FORMATS)
def test_every_type_and_number(format: str) -> None:
    kinds = {
        b"0": tarfile.REGTYPE,
        b"1": tarfile.LNKTYPE,
        b"2": tarfile.SYMTYPE,
        b"3": tarfile.CHRTYPE,
        b"4": tarfile.BLKTYPE,
        b"5": tarfile.DIRTYPE,
        b"6": tarfile.FIFOTYPE,
    }
    members = [
        (
            info(
                f"entry-{kind.decode()}", type=type, linkname="target" if kind in b"12" else "", devmajor=8, devminor=1
            ),
            b"",
        )
        for kind, type in kinds.items()
    ]
    found = read(archive(*members, format=FORMATS[format]))
    assert [bytes([member.type]) for member, _ in found] == list(kinds)
    assert (found[3][0].major, found[3][0].minor) == (8, 1)
    assert found[1][0].linkname == b"target"


def test_fractions_and_times_before_the_epoch() -> None:
    members = [(info("a", mtime=-1.5), b""), (info("b", mtime=1234567890.123456), b"")]
    first, second = read(archive(*members))
    assert first[0].mtime_ns == -1_500_000_000
    assert second[0].mtime_ns == 1_234_567_890_123_456_000
    ((old, _),) = read(archive((info("a", mtime=-5), b""), format=tarfile.GNU_FORMAT))
    assert old.mtime_ns == -5_000_000_000


def test_global_headers_are_passed_over() -> None:
    data = archive((info("file", mode=0o600), b"x"), pax_headers={"path": "elsewhere", "comment": "a commit"})
    ((member, found),) = read(data)
    assert (member.name, found) == (b"file", b"x")


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    expected = {}
    for name, pieces in {"holes": 60, "one": 1, "none": 0}.items():
        with (tmp_path / name).open("wb") as file:
            for piece in range(pieces):
                file.seek(piece * 65536 + 4096)
                file.write(bytes([piece + 1]) * 5000)
            file.truncate(60 * 65536)
        expected[name.encode()] = (tmp_path / name).read_bytes()
    (tmp_path / "plain").write_bytes(b"after")
    expected[b"plain"] = b"after"
    command = ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", "-", "holes", "one", "none", "plain"]
    found = read(subprocess.run(command, check=True, capture_output=True).stdout)
    assert {member.name: data for member, data in found} == expected
    assert found[0][0].sparse is not None
    assert found[0][0].size <= 60 * 8192


def test_attributes_in_both_writings() -> None:
    attributes = {"SCHILY.xattr.user.a": "text", "LIBARCHIVE.xattr.user.b": "AP8", "LIBARCHIVE.xattr.user.a": "AAAA"}
    ((member, _),) = read(archive((info("file", pax_headers=attributes), b"")))
    assert member.xattrs == {b"user.a": b"text", b"user.b": b"\x00\xff"}


def valid() -> bytes:
    return archive((info("folder/file", mode=0o644), b"content"), (info("x" * 200), b"more"))


def test_cut_short_anywhere() -> None:
    """Whatever is missing before the end of the last entry's content is noticed."""
    data = valid()
    for length in (1, 100, 511, 513, BLOCK + 3, BLOCK * 2 + 1, BLOCK * 3 + 5, BLOCK * 5 + 2):
        with pytest.raises(TarError, match="ends"):
            read(data[:length])


@settings(max_examples=300)
@given(st.integers(0, 4000), st.integers(0, 255))
def test_any_changed_byte_gives_members_or_a_tar_error(place: int, value: int) -> None:
    data = bytearray(valid())
    data[place % len(data)] = value
    try:
        read(bytes(data))
    except TarError:
        pass


@settings(max_examples=300)
@given(st.binary(max_size=3000))
def test_noise_gives_a_tar_error_or_nothing(noise: bytes) -> None:
    try:
        assert read(noise) == [] or noise[:1] != b"\0"
    except TarError:
        pass


@given(st.binary(max_size=400))
def test_any_extended_header_is_read_or_refused(data: bytes) -> None:
    try:
        pax_records(data, [])
    except TarError:
        pass


@given(
    st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="=\0"), min_size=1), st.binary(max_size=50))
)
def test_extended_headers_round_trip(records: dict[str, bytes]) -> None:
    data = b""
    for key, value in records.items():
        body = b" " + key.encode() + b"=" + value + b"\n"
        length = len(body)
        while length != len(str(length)) + len(body):
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    assert pax_records(data, []) == {key.encode(): value for key, value in records.items()}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"\0" * 8, 0),
        (b"\x80\0\0\0\0\0\1\0", 256),
        (b"\x80" + b"\0" * 4 + b"\xff\xff\xff", 0xFFFFFF),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert number(field, "field") == value


@pytest.mark.parametrize(
    "field", [b"0o17\0\0\0\0", b"1_0\0\0\0\0\0", b"-1\0\0\0\0\0\0", b"9\0\0\0\0\0\0\0", b"\xff" * 8]
)
def test_no_numbers(field: bytes) -> None:
    with pytest.raises(TarError):
        number(field, "field")


def test_content_where_none_may_be_is_refused() -> None:
    for kind in (tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        header = info("x", type=kind, size=5, linkname="y").tobuf(tarfile.USTAR_FORMAT)
        with pytest.raises(TarError, match="carries content"):
            read(header + b"hello".ljust(BLOCK, b"\0") + bytes(2 * BLOCK))


def test_a_size_beyond_the_stream_is_no_allocation() -> None:
    """A header that promises eight exabytes of extended header or content costs nothing but an error."""
    for kind in (b"x", b"L", b"K", tarfile.REGTYPE):
        header = info("x", type=kind, size=2**62).tobuf(tarfile.GNU_FORMAT)
        with pytest.raises(TarError, match="too large|ends"):
            read(header + bytes(BLOCK))


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "10"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,5,3,5"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,5,5"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,50"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "a,b"},
        {"GNU.sparse.map": "0,5"},
        {"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
    ],
)
def test_sparse_maps_that_lie(headers: dict[str, str]) -> None:
    with pytest.raises(TarError):
        read(archive((info("x", pax_headers=headers), b"hello")))


def test_old_directories_and_contiguous_files() -> None:
    first = info("folder/", type=b"\0").tobuf(tarfile.USTAR_FORMAT)
    second = info("file", type=b"7", size=2).tobuf(tarfile.USTAR_FORMAT)
    found = read(first + second + b"ok".ljust(BLOCK, b"\0") + bytes(2 * BLOCK))
    assert found[0][0].type == ord("5")
    assert (found[1][0].type, found[1][1]) == (REGULAR, b"ok")


def test_unknown_types_are_refused() -> None:
    with pytest.raises(TarError, match="type 'Z'"):
        read(info("x", type=b"Z").tobuf(tarfile.USTAR_FORMAT) + bytes(2 * BLOCK))
