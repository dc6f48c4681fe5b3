"""Archives that are written, read back by Python's tarfile, by GNU tar and by the reader of layers."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from cellwall.runtime.storage.layer_writer import LayerWriter
from cellwall.runtime.storage.tarheader import DIRECTORY, REGULAR, SYMLINK
from cellwall.runtime.storage.tarwriter import TarWriter, sparse_map

TIME = 1_700_000_000


def read(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path, errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def test_what_fits_no_header_goes_into_records(tmp_path: Path) -> None:
    with open(tmp_path / "a.tar", "wb") as file:
        tar = TarWriter(file.fileno())
        tar.entry(b"d/", DIRECTORY, mode=0o1777, uid=65_536, gid=2_097_151, mtime=TIME)
        tar.entry(b"d/f", REGULAR, mode=0o4755, uid=3_000_000, gid=4_294_967_294, size=3, mtime=-5)
        tar.content(b"abc")
        tar.pad(3)
        tar.entry(b"x" * 101, SYMLINK, linkname=b"y" * 300, mtime=1 << 40)
        tar.entry(b"x" * 100, REGULAR, xattrs=[(b"user.a", b"\0=\n\xff")])
        tar.entry(b"n\xff\n", REGULAR)
        tar.finish()
    members = read(tmp_path / "a.tar")
    assert list(members) == ["d", "d/f", "x" * 101, "x" * 100, "n\udcff\n"]
    assert (members["d"].mode, members["d"].uid, members["d"].gid) == (0o1777, 65_536, 2_097_151)
    assert (members["d/f"].uid, members["d/f"].gid, members["d/f"].mtime) == (3_000_000, 4_294_967_294, -5)
    assert (members["x" * 101].linkname, members["x" * 101].mtime) == ("y" * 300, 1 << 40)
    # tarfile reads only UTF-8 here; the bytes stand in the archive as they are.
    assert b"SCHILY.xattr.user.a=\0=\n\xff\n" in (tmp_path / "a.tar").read_bytes()


def test_the_length_of_a_record_counts_itself(tmp_path: Path) -> None:
    for size in range(80, 120):
        with open(tmp_path / "a.tar", "wb") as file:
            tar = TarWriter(file.fileno())
            tar.entry(b"a", REGULAR, xattrs=[(b"user.a", b"v" * size)])
            tar.finish()
        assert read(tmp_path / "a.tar")["a"].pax_headers["SCHILY.xattr.user.a"] == "v" * size


def written(folder: Path, out: Path, **options: Any) -> None:
    root_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(out, "wb") as file:
            writer = LayerWriter(file.fileno(), root_fd, **options)
            for name in sorted(os.listdir(folder)):
                writer.add(os.fsencode(name), os.fsencode(name), root_fd)
            writer.finish()
    finally:
        os.close(root_fd)


def test_holes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    contents = {}
    for name, pieces, size in (
        ("end", [(0, 70_000)], 9_000_000),
        ("middle", [(3 << 20, 10), ((3 << 20) + 200_000, 10)], (3 << 20) + 200_010),
        ("nothing", [], 2 << 20),
        ("odd", [(1_234_567, 333_333)], 5_555_555),
        ("whole", [(0, 300_000)], 300_000),
    ):
        with (tree / name).open("wb") as file:
            file.truncate(size)
            for offset, length in pieces:
                file.seek(offset)
                file.write(b"x" * length)
        contents[name] = (tree / name).read_bytes()
    written(tree, tmp_path / "sparse.tar", holes_min=1 << 20)
    written(tree, tmp_path / "plain.tar")
    assert (tmp_path / "sparse.tar").stat().st_size < 2 << 20
    assert (tmp_path / "plain.tar").stat().st_size > sum(map(len, contents.values()))
    for archive in ("sparse.tar", "plain.tar"):
        with tarfile.open(tmp_path / archive) as tar:
            found = {member.name: tar.extractfile(member) for member in tar}
            assert {name: file.read() for name, file in found.items() if file} == contents
    # The map doesn't tell how the filesystem stored it: a copy whose holes are zeros in part has the same.
    with (tree / "middle").open("r+b") as stored:
        stored.seek(1 << 20)
        stored.write(bytes(4096))
    written(tree, tmp_path / "again.tar", holes_min=1 << 20, epoch=0)
    written(tree, tmp_path / "third.tar", holes_min=1 << 20, epoch=0)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "third.tar").read_bytes()
    assert (tmp_path / "again.tar").stat().st_size == (tmp_path / "sparse.tar").stat().st_size


def test_a_sparse_map_fills_whole_blocks() -> None:
    for count in (0, 1, 40, 500):
        table = sparse_map([(at * 1000, 10) for at in range(count)])
        assert len(table) % 512 == 0
        assert table.split(b"\n")[0] == b"%d" % count


def test_sockets_are_left_out_and_links_kept(tmp_path: Path) -> None:
    import socket

    tree = tmp_path / "tree"
    tree.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tree / "socket"))
        (tree / "b").write_bytes(b"1")
        os.link(tree / "b", tree / "a")
        (tree / "link").symlink_to("a")
        os.link(tree / "link", tree / "link2", follow_symlinks=False)
        written(tree, tmp_path / "a.tar")
    members = read(tmp_path / "a.tar")
    assert {name: member.type for name, member in members.items()} == {
        "a": tarfile.REGTYPE,
        "b": tarfile.LNKTYPE,
        "link": tarfile.SYMTYPE,
        "link2": tarfile.LNKTYPE,
    }
    assert (members["b"].linkname, members["link2"].linkname) == ("a", "link")
    assert io.BytesIO((tmp_path / "a.tar").read_bytes()).getbuffer().nbytes % 512 == 0
