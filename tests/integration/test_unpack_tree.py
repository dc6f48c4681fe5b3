"""Unpacking by the real worker onto a real disk, one rule a test; each with both drivers where they could differ."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwall.runtime.errors import Cancelled, LayerError, NotFound, SyscallError
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import Limits, StorageDriver, open_driver

from ..layer_trees import entry, folder, layer, link, tree_facts
from ..mounted_layers import EROFS, LayerTrees

pytestmark = pytest.mark.needs("root", "overlay")


class Rig:
    """A driver on a folder of its own, and images by their archives."""

    def __init__(self, name: str, root: Path, limits: Limits | None = None) -> None:
        self.root = root
        self.paths = Paths(root, root / "run")
        self.driver: StorageDriver = open_driver(name, self.paths, limits=limits)
        self.containers = 0
        self.mounted = LayerTrees()
        self.layers = root / "storage" / name / "layers"

    def add(self, *archives: bytes) -> list[Digest]:
        chain = chain_ids([Digest.of(archive) for archive in archives])
        for at, archive in enumerate(archives):
            parents = chain[:at]
            parent = parents[-1] if parents else None
            self.driver.add_layer(chain[at], parent, parents, io.BytesIO(archive), digest=Digest.of(archive))
        return chain

    def layer_tree(self, chain_id: Digest) -> Path:
        return self.mounted.tree(self.layers / chain_id.replace(":", "-"))

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.root.rglob(".tmp-*")]


@pytest.fixture(params=["overlay", EROFS])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(request.param, tmp_path / "state")
    yield made
    made.mounted.close()
    assert made.leftovers() == []


@pytest.fixture
def vfs(tmp_path: Path) -> Rig:
    return Rig("vfs", tmp_path / "vfs-state")


def merged(rig: Rig, chain: Sequence[Digest]) -> Path:
    """The image's tree as the vfs driver copies it."""
    rig.containers += 1
    plan = rig.driver.prepare(f"c{rig.containers}", chain, kept=False, directory=None)
    assert plan[0]["type"] == "bind"
    return Path(plan[0]["source"])


def test_every_kind_of_entry(rig: Rig) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    (only,) = rig.add(
        layer(
            folder("./", mode=0o1755, mtime=5),
            folder("d", mode=0o2750, uid=7, gid=70_000, mtime=1.25),
            entry("d/setuid", data=b"x" * 3000, mode=0o6755, uid=3, gid=4, xattrs={"security.capability": capability}),
            entry(
                "d/marked",
                data=b"",
                xattrs={"user.note": b"hello\xff", "trusted.overlay.opaque": b"y", "user.overlay.x": b"y"},
            ),
            link("d/link", "/nowhere/else", uid=9, gid=9, mtime=77),
            link("d/hard", "d/setuid", tarfile.LNKTYPE, mode=0o6755, uid=3, gid=4),
            entry("fifo", tarfile.FIFOTYPE, mode=0o622),
            entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=17, mode=0o660, gid=6),
            entry("deep/" * 3 + "file", data=b"missing parents"),
            entry("/absolute", data=b"a"),
            entry("x/../inside", data=b"b"),
        )
    )
    tree = rig.layer_tree(only)
    facts = tree_facts(tree)
    assert stat.S_IMODE(tree.stat().st_mode) == 0o1755
    assert tree.stat().st_mtime == 5
    assert facts[b"d"]["mode"] == "drwxr-s---"
    assert (facts[b"d"]["uid"], facts[b"d"]["gid"], facts[b"d"]["mtime_ns"]) == (7, 70_000, 1_250_000_000)
    assert facts[b"d/setuid"]["mode"] == "-rwsr-sr-x"
    assert facts[b"d/setuid"]["xattrs"] == {"security.capability": capability}
    assert facts[b"d/hard"]["same_file_as"] == facts[b"d/setuid"]["same_file_as"]
    assert facts[b"d/marked"]["xattrs"] == {"user.note": b"hello\xff"}
    assert (facts[b"d/link"]["target"], facts[b"d/link"]["uid"]) == (b"/nowhere/else", 9)
    assert facts[b"d/link"]["mtime_ns"] == 77 * 10**9
    assert facts[b"fifo"]["mode"] == "prw--w--w-"
    assert (facts[b"null"]["mode"], facts[b"null"]["device"]) == ("crw-rw-rw-", os.makedev(1, 3))
    assert (facts[b"disk"]["mode"], facts[b"disk"]["device"], facts[b"disk"]["gid"]) == (
        "brw-rw----",
        os.makedev(8, 17),
        6,
    )
    assert facts[b"deep/deep"]["mode"] == "drwxr-xr-x"
    assert b"absolute" in facts
    assert b"inside" in facts
    # Looked for without getxattr's help: overlayfs would take this for its own.
    assert "trusted.overlay.opaque" not in os.listxattr(tree / "d/marked")
    assert rig.driver.layer_info(only).entries == 12


def test_odd_names(rig: Rig) -> None:
    names = [
        b"new\nline",
        b"\xff\xfe",
        b"a" * 255,
        "снег ☃".encode(),
        b" ",
        b"-rf",
        b"back\\slash",
        b"tab\t",
        b"d/" + b"b" * 200,
    ]
    (only,) = rig.add(layer(*(entry(name, data=name) for name in names), format=tarfile.GNU_FORMAT))
    assert set(tree_facts(rig.layer_tree(only))) == {*names, b"d"}


def test_the_last_of_a_name_wins_and_directories_merge(rig: Rig) -> None:
    (only,) = rig.add(
        layer(
            entry("a", data=b"first"),
            link("b", "a", tarfile.LNKTYPE),
            entry("a", data=b"second"),
            folder("d"),
            entry("d/file"),
            folder("d", mode=0o700),
            folder("gone"),
            folder("gone/below", mtime=9),
            entry("gone", data=b"now a file"),
            link("l", "elsewhere"),
            folder("l"),
            entry("l/inside"),
            entry("f"),
            link("f", "d"),
        )
    )
    tree = rig.layer_tree(only)
    assert (tree / "a").read_bytes() == b"second"
    assert (tree / "b").read_bytes() == b"first"
    assert stat.S_IMODE((tree / "d").stat().st_mode) == 0o700
    assert (tree / "d/file").is_file()
    assert (tree / "gone").is_file()
    assert (tree / "l").is_dir()
    assert not (tree / "l").is_symlink()
    assert not (tree / "elsewhere").exists()
    assert os.readlink(tree / "f") == "d"


def test_links_as_parents_are_followed_inside_the_tree_only(rig: Rig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    up = "../" * 30 + str(outside)[1:]
    (only,) = rig.add(
        layer(
            folder(str(outside)),
            link("absolute", str(outside)),
            entry("absolute/a", data=b"a"),
            link("relative", up),
            entry("relative/b", data=b"b"),
            link("hard", "absolute/a", tarfile.LNKTYPE),
            folder("usr"),
            folder("usr/lib"),
            link("lib", "usr/lib"),
            folder("lib/x"),
            entry("lib/x/c", data=b"c"),
        )
    )
    tree = rig.layer_tree(only)
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in (tree / str(outside)[1:]).iterdir()) == ["a", "b"]
    assert (tree / "hard").read_bytes() == b"a"
    assert (tree / "usr/lib/x/c").is_file()
    assert (tree / "lib").is_symlink()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([entry("../escape")], "leads out"),
        ([entry("a/../../escape")], "leads out"),
        ([entry("..")], "leads out"),
        ([link("hard", "../../etc/passwd", tarfile.LNKTYPE)], "leads out"),
        ([link("hard", "/etc/passwd", tarfile.LNKTYPE)], "isn't there"),
        ([link("l", "/etc"), link("hard", "l/passwd", tarfile.LNKTYPE)], "isn't there"),
        ([link("l", "/etc"), entry("l/passwd")], "whose target the layer lacks"),
        ([link("l", "l"), entry("l/x")], "symbolic links"),
        ([entry("f"), entry("f/x")], "no directory"),
        ([folder("d"), link("hard", "d", tarfile.LNKTYPE)], "directory"),
        ([link("hard", "hard2", tarfile.LNKTYPE)], "isn't there"),
        ([entry("d/.wh.")], "whiteout of nothing"),
        ([entry("d/.wh...")], "whiteout of nothing"),
        ([entry(".wh.d/below")], "below a whiteout"),
        ([entry("x", uid=2**32 - 1)], "no system knows"),
        ([entry("n" * 256)], "File name too long"),
        ([entry("./", data=b"")], "root"),
        ([link("l", "")], "link to nothing"),
        ([entry("d/f"), link("d", "d/f", tarfile.LNKTYPE)], "can't be made"),
    ],
)
def test_what_is_refused(rig: Rig, members: list[tuple[tarfile.TarInfo, bytes]], reason: str) -> None:
    archive = layer(*members)
    with pytest.raises(LayerError, match=reason) as caught:
        rig.add(archive)
    assert str(Digest.of(archive)) in str(caught.value)
    assert list(rig.layers.iterdir()) == []


def test_whiteouts_and_opaque_directories_in_both_drivers(rig: Rig, vfs: Rig) -> None:
    base = layer(
        folder("d", mode=0o750, uid=5, mtime=11),
        entry("d/one"),
        entry("d/two"),
        folder("o"),
        entry("o/old"),
        folder("r"),
        entry("r/old"),
        entry("gone", data=b"x"),
        folder("whole"),
        entry("whole/x"),
        folder("parent", mode=0o711, uid=3, gid=4, mtime=8, xattrs={"user.a": b"b"}),
        entry("both", data=b"lower"),
    )
    top = layer(
        entry("d/.wh.one"),
        entry("o/.wh..wh..opq"),
        folder("o", mode=0o700),
        entry("o/new"),
        entry(".wh.r"),
        folder("r"),
        entry("r/new"),
        entry(".wh.gone"),
        entry(".wh.whole"),
        entry("parent/added"),
        entry("both", data=b"upper"),
        entry(".wh.both"),
        entry(".wh.never-there"),
        entry(".wh..wh.aufs"),
        folder(".wh..wh.plnk"),
        entry(".wh..wh.plnk/1.2"),
    )
    chain = rig.add(base, top)
    tree = rig.layer_tree(chain[1])
    assert (tree / "d/one").is_char_device()
    assert os.getxattr(tree / "o", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(tree / "r", "trusted.overlay.opaque") == b"y"
    assert stat.S_IMODE((tree / "o").stat().st_mode) == 0o700
    status = (tree / "parent").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o711, 3, 4, 8)
    assert os.getxattr(tree / "parent", "user.a") == b"b"
    assert (tree / "d").stat().st_mtime == 11
    copy = merged(vfs, vfs.add(base, top))
    assert set(tree_facts(copy)) == {
        b"d",
        b"d/two",
        b"o",
        b"o/new",
        b"r",
        b"r/new",
        b"parent",
        b"parent/added",
        b"both",
    }
    assert (copy / "both").read_bytes() == b"upper"


def test_an_opaque_root_hides_all_layers_below(rig: Rig, vfs: Rig) -> None:
    archives = layer(entry("a"), folder("d"), entry("d/x")), layer(entry(".wh..wh..opq"), entry("b")), layer(entry("c"))
    plan = rig.driver.prepare("c", rig.add(*archives), kept=False, directory=None)
    assert len(plan[0]["lowers"]) == 2
    assert set(tree_facts(merged(vfs, vfs.add(*archives)))) == {b"b", b"c"}


def test_hard_links_into_lower_layers_are_copied_up(rig: Rig, vfs: Rig) -> None:
    base = layer(
        folder("d", uid=8),
        entry("d/file", data=b"content", mode=0o4711, uid=1, gid=2, mtime=3, xattrs={"user.a": b"b"}),
        link("d/sym", "file"),
        entry("hidden"),
    )
    middle = layer(entry(".wh.hidden"))
    top = layer(
        link("hard", "d/file", tarfile.LNKTYPE, mode=0o4711, uid=1, gid=2, mtime=3),
        link("d/sym2", "d/sym", tarfile.LNKTYPE),
    )
    chain = rig.add(base, middle, top)
    facts = tree_facts(rig.layer_tree(chain[2]))
    assert facts[b"hard"]["same_file_as"] == facts[b"d/file"]["same_file_as"]
    assert facts[b"hard"] == facts[b"d/file"]
    lower = tree_facts(rig.layer_tree(chain[0]))
    assert {**lower[b"d/file"], "same_file_as": b"d/file"} == facts[b"d/file"]
    assert facts[b"d/sym2"]["target"] == b"file"
    assert facts[b"d"]["uid"] == 8
    with pytest.raises(LayerError, match="isn't there"):
        rig.add(base, middle, layer(link("hard", "hidden", tarfile.LNKTYPE)))
    # The layer may then delete what it linked to.
    moved = layer(link("hard", "d/file", tarfile.LNKTYPE), entry("d/.wh.file"))
    copy = merged(vfs, vfs.add(base, moved))
    assert (copy / "hard").read_bytes() == b"content"
    assert not (copy / "d/file").exists()


def test_a_hard_links_own_entry_says_what_the_file_is(rig: Rig) -> None:
    (only,) = rig.add(
        layer(entry("a", mode=0o4755, uid=1), link("b", "a", tarfile.LNKTYPE, mode=0o4700, uid=2, gid=3, mtime=4))
    )
    facts = tree_facts(rig.layer_tree(only))[b"a"]
    assert (facts["mode"], facts["uid"], facts["gid"], facts["mtime_ns"]) == ("-rws------", 2, 3, 4 * 10**9)


def test_sparse_files_keep_their_holes(rig: Rig, vfs: Rig, tmp_path: Path) -> None:
    with (tmp_path / "image").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    for format in ("gnu", "pax"):
        command = ["tar", "-C", str(tmp_path), "--sparse", f"--format={format}", "-cf", "-", "image"]
        archive = subprocess.run(command, check=True, capture_output=True).stdout
        (only,) = rig.add(archive)
        for path in (rig.layer_tree(only) / "image", merged(vfs, vfs.add(archive)) / "image"):
            assert path.stat().st_size == 64 << 20
            with path.open("rb") as kept:
                # Not by st_blocks: erofs counts holes as well.
                assert 31 << 20 < os.lseek(kept.fileno(), 0, os.SEEK_DATA) <= 32 << 20
                assert os.lseek(kept.fileno(), 33 << 20, os.SEEK_HOLE) == 33 << 20
            assert path.read_bytes() == (tmp_path / "image").read_bytes()


def test_default_access_lists_do_not_leak_into_the_layers_own_entries(rig: Rig) -> None:
    acl = b"\x02\x00\x00\x00" + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, perm, who in (
            (1, 7, 2**32 - 1),
            (2, 7, 1234),
            (4, 5, 2**32 - 1),
            (16, 7, 2**32 - 1),
            (32, 5, 2**32 - 1),
        )
    )
    (only,) = rig.add(layer(folder("d", xattrs={"system.posix_acl_default": acl}), entry("d/file"), folder("d/sub")))
    tree = rig.layer_tree(only)
    assert os.getxattr(tree / "d", "system.posix_acl_default") == acl
    assert os.listxattr(tree / "d/file") == []
    assert os.listxattr(tree / "d/sub") == []


@pytest.mark.parametrize("name", ["overlay", EROFS])
def test_limits_on_size_and_count(name: str, tmp_path: Path) -> None:
    rig = Rig(name, tmp_path, Limits(size_bytes=100_000, entries=10))
    with pytest.raises(LayerError, match="more than 100000 bytes"):
        rig.add(layer(entry("a", data=bytes(60_000)), entry("b", data=bytes(60_000))))
    with pytest.raises(LayerError, match="more than 10 entries"):
        rig.add(layer(*(entry(f"e{number}") for number in range(11))))
    big = tarfile.TarInfo("huge")
    big.size = 2**60
    with pytest.raises(LayerError, match="more than 100000 bytes"):
        rig.add(big.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(LayerError, match="after the archive's end"):
        rig.add(layer(entry("a")) + bytes(120_000))
    assert rig.leftovers() == []


class Endless(io.RawIOBase):
    """An archive of one file that never ends; ``seen`` counts what was read of it."""

    def __init__(self) -> None:
        info = tarfile.TarInfo("endless")
        info.size = 2**35
        self.head = info.tobuf(tarfile.GNU_FORMAT)
        self.seen = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece, self.head = (self.head, b"") if self.head else (b"", b"")
        self.seen += len(piece) or 4096
        return piece or bytes(4096)


def test_cancelling_leaves_nothing(rig: Rig) -> None:
    source = Endless()
    chain = Digest.of(b"endless")
    with pytest.raises(Cancelled):
        rig.driver.add_layer(
            chain, None, [], cast(BinaryIO, source), digest=chain, cancelled=lambda: source.seen > 1 << 20
        )
    assert not rig.driver.has_layer(chain)
    assert list(rig.layers.iterdir()) == []


def test_an_error_of_the_source_leaves_nothing(rig: Rig) -> None:
    class Broken(Endless):
        def read(self, size: int = -1) -> bytes:
            if self.seen > 1 << 20:
                raise ConnectionResetError("the registry hung up")
            return super().read(size)

    with pytest.raises(ConnectionResetError):
        rig.driver.add_layer(Digest.of(b"x"), None, [], cast(BinaryIO, Broken()), digest="x")
    assert list(rig.layers.iterdir()) == []


def test_a_full_disk_is_said_with_what_mends_it(tmp_path: Path) -> None:
    from cellwall.runtime.linux.mounts import mount, umount2

    point = tmp_path / "small"
    point.mkdir()
    mount("tmpfs", str(point), "tmpfs", 0, "size=2m")
    try:
        rig = Rig("vfs", point)
        with pytest.raises(SyscallError, match=r"ENOSPC.*|free some space") as caught:
            rig.add(layer(entry("usr/big", data=bytes(4 << 20))))
        assert "usr/big" in str(caught.value)
        assert "CELLWALL_ROOT" in str(caught.value)
        assert rig.leftovers() == []
    finally:
        umount2(str(point))


def test_the_same_layer_from_many_threads_at_once(rig: Rig) -> None:
    archive = layer(folder("d"), *(entry(f"d/{number}", data=b"x") for number in range(300)))
    chain = Digest.of(archive)
    errors: list[BaseException] = []

    def add() -> None:
        try:
            rig.driver.add_layer(chain, None, [], io.BytesIO(archive), digest=chain)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(os.listdir(rig.layer_tree(chain) / "d")) == 300


def test_a_missing_parent_layer_is_said(rig: Rig) -> None:
    missing = Digest.of(b"missing")
    with pytest.raises(NotFound, match="pull its image again"):
        rig.driver.add_layer(Digest.of(b"x"), missing, [missing], io.BytesIO(layer(entry("a"))), digest="x")


part = st.sampled_from([b"a", b"b", b"..", b".", b"", b".wh.a", b".wh..wh..opq", b"c\n", b"\xff"])
path = st.lists(part, min_size=1, max_size=4).map(b"/".join)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(path, kinds, path), min_size=1, max_size=8), st.booleans())
def test_any_archive_stays_inside(tmp_path: Path, entries: list[tuple[bytes, bytes, bytes]], on_lower: bool) -> None:
    """Whatever an archive says, nothing changes beside its tree, and what can't be done is one LayerError."""
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    rig = Rig("overlay", root)
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    for name, kind, target in entries:
        data = b"x" if kind == tarfile.REGTYPE else b""
        # Every second link leads to the folder that holds the store.
        target = os.fsencode(root) if kind == tarfile.SYMTYPE and len(target) % 2 else target
        members.append(entry(name or b"x", kind, data, linkname=os.fsdecode(target)))
    archives = [layer(folder("a"), entry("a/b"), entry("b"), format=tarfile.GNU_FORMAT)] if on_lower else []
    rig.add(*archives)
    before = set(os.listdir(root)), set(os.listdir(root / "storage"))
    try:
        rig.add(*archives, layer(*members, format=tarfile.GNU_FORMAT))
    except LayerError:
        pass
    assert (set(os.listdir(root)), set(os.listdir(root / "storage"))) == before
    assert rig.leftovers() == []
    assert set(os.listdir(root / "storage/overlay")) <= {"layers", "checked"}
    for chain in os.listdir(root / "storage/overlay/layers"):
        assert sorted(os.listdir(root / "storage/overlay/layers" / chain)) == ["diff", "layer.json", "lock"]


def facts_of(rig: Rig, *archives: bytes) -> dict[bytes, Any]:
    return tree_facts(merged(rig, rig.add(*archives)))


names = st.sampled_from(["a", "b", "c"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(st.lists(names, min_size=1, max_size=3), st.sampled_from("fdwo")), max_size=6),
        min_size=2,
        max_size=4,
    )
)
def test_whiteouts_over_any_stack(tmp_path: Path, layers: list[list[tuple[list[str], str]]]) -> None:
    """A stack of layers of files, folders, whiteouts and opaque marks gives what the image specification says."""
    rig = Rig("vfs", Path(tempfile.mkdtemp(dir=tmp_path)))
    archives: list[bytes] = []
    expected: dict[str, bool] = {}
    for entries in layers:
        own: dict[str, bool] = {}
        members = []
        whiteouts: list[str] = []
        for parts, kind in entries:
            path = "/".join(parts)
            above = ["/".join(parts[:length]) for length in range(1, len(parts))]
            if any(own.get(parent) is False for parent in above):
                continue
            if kind in "fd" and own.get(path, kind == "d") is not (kind == "d"):
                continue
            own |= dict.fromkeys(above, True)
            if kind == "f":
                own[path] = False
                members.append(entry(path, data=b"x"))
            elif kind == "d":
                own[path] = True
                members.append(folder(path))
            elif kind == "w":
                whiteouts.append(path)
                members.append(entry("/".join([*parts[:-1], f".wh.{parts[-1]}"])))
            elif own.get(path) is not False:
                own[path] = True
                whiteouts.append(path + "/")
                members.append(entry(f"{path}/.wh..wh..opq"))
        for gone in whiteouts:
            expected = {
                path: value
                for path, value in expected.items()
                if not (path.startswith(gone) if gone.endswith("/") else path == gone or path.startswith(gone + "/"))
            }
        for path, is_folder in own.items():
            if not is_folder or expected.get(path) is False:
                expected = {known: value for known, value in expected.items() if not known.startswith(path + "/")}
            expected[path] = is_folder
        archives.append(layer(*members))
    found = facts_of(rig, *archives)
    assert {os.fsdecode(path): facts["mode"][0] == "d" for path, facts in found.items()} == expected
