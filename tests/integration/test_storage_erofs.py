"""The erofs driver beside the overlay driver: the same trees and the same refusals; containers on mounted layers."""

from __future__ import annotations

import io
import os
import resource
import stat
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError, LayerError, UnsupportedError
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.launcher import layer_mounts
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import StorageDriver, open_driver
from cellwall.runtime.storage.erofs import ErofsDriver
from cellwall.runtime.storage.erofs_check import check_erofs
from cellwall.runtime.storage.erofs_mount import open_lower

from ..layer_trees import Facts, entry, folder, layer, link, tree_facts
from ..mounted_layers import LayerTrees
from ..registries import busybox_layer, make_image, write_layout
from .test_storage_drivers import mounted

pytestmark = pytest.mark.needs("root", "overlay", "erofs")


class Store:
    """A driver on a folder of its own."""

    def __init__(self, name: str, root: Path) -> None:
        self.driver: StorageDriver = open_driver(name, Paths(root, root / "run"))
        self.layers = root / "storage" / name / "layers"

    def add(self, *archives: bytes) -> list[Digest]:
        chain = chain_ids([Digest.of(archive) for archive in archives])
        for at, archive in enumerate(archives):
            below = chain[:at]
            self.driver.add_layer(chain[at], below[-1] if below else None, below, io.BytesIO(archive), digest="test")
        return chain

    def folder(self, chain_id: Digest) -> Path:
        return self.layers / chain_id.replace(":", "-")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store("erofs", tmp_path / "erofs-state")


def tree_or_refusal(store: Store, archives: list[bytes]) -> dict[bytes, Facts] | str:
    """The last layer's tree with its marks for overlayfs, or why it was refused."""
    try:
        chain = store.add(*archives)
    except LayerError as error:
        return str(error).partition(": ")[2]
    trees = LayerTrees()
    try:
        tree = trees.tree(store.folder(chain[-1]))
        found = tree_facts(tree)
        for path, facts in found.items():
            if facts["mode"].startswith("d"):
                names = os.listxattr(os.fsencode(tree) + b"/" + path)
                facts["opaque"] = "trusted.overlay.opaque" in names
            if facts["mode"] == "c---------":
                facts["mtime_ns"] = 0  # a whiteout's time is nobody's
        status = os.stat(tree)
        found[b"."] = {"mode": stat.filemode(status.st_mode), "uid": status.st_uid, "gid": status.st_gid}
    finally:
        trees.close()
    return found


def without_made_up_times(ours: dict[bytes, Facts] | str, theirs: dict[bytes, Facts] | str) -> None:
    """Forget the times of folders that no archive mentions: unpacking makes them when it runs, all others are long ago."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return
    for path, facts in theirs.items():
        if facts["mode"].startswith("d") and facts.get("mtime_ns", 0) > 10**18:
            del facts["mtime_ns"]
            ours.get(path, {}).pop("mtime_ns", None)


parts = st.sampled_from([b"a", b"b", b"c", b"..", b".wh.a", b".wh..wh..opq", b"\xff"])
paths = st.lists(parts, min_size=1, max_size=3).map(b"/".join)
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
attributes = st.sampled_from(
    [
        {},
        {},
        {"user.note": b"\x00x"},
        {"user.overlay.opaque": b"y", "trusted.overlay.opaque": b"y"},
        {"security.capability": struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)},
        {"security.capability": b"nonsense"},
    ]
)
members = st.tuples(paths, kinds, paths, st.sampled_from([0o644, 0o4755, 0o1777]), st.integers(0, 2), attributes)

LOWER = layer(
    folder("./", mode=0o751, uid=9),
    folder("a", mode=0o700, uid=4, gid=5, mtime=6, xattrs={"user.a": b"lower"}),
    entry("a/b", data=b"lower"),
    folder("c"),
    folder("c/a", mode=0o711, mtime=8),
    entry("b"),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members, min_size=1, max_size=8), st.booleans())
def test_any_archive_is_what_unpacking_makes_of_it(tmp_path: Path, entries: list[Any], on_lower: bool) -> None:
    made = []
    for number, (name, kind, target, mode, uid, xattrs) in enumerate(entries):
        data = b"x" * number if kind == tarfile.REGTYPE else b""
        made.append(
            entry(
                name,
                kind,
                data,
                linkname=os.fsdecode(target),
                mode=mode,
                uid=uid,
                mtime=1000 + number,
                xattrs=xattrs,
                devmajor=number % 3,
            )
        )
    archives = [*([LOWER] if on_lower else []), layer(*made)]
    root = tmp_path / "state"
    ours = tree_or_refusal(Store("erofs", root), archives)
    theirs = tree_or_refusal(Store("overlay", root), archives)
    without_made_up_times(ours, theirs)
    assert ours == theirs
    assert [path for path in root.glob("storage/*/layers/*") if path.name.startswith(".tmp-")] == []


ODD = {
    "a hard link into a lower layer": [link("hard", "a/b", tarfile.LNKTYPE)],
    "a link as parent": [folder("real"), link("l", "real"), entry("l/inside")],
    "an access list": [
        entry(
            "f",
            xattrs={
                "system.posix_acl_access": struct.pack(
                    "<IHHIHHIHHIHHIHHI",
                    2,
                    *(1, 6, 2**32 - 1),
                    *(2, 4, 99),
                    *(4, 4, 2**32 - 1),
                    *(16, 4, 2**32 - 1),
                    *(32, 4, 2**32 - 1),
                )
            },
        )
    ],
    "a name of a link that is too long to be one": [link("x" * 200, "y" * 5000)],
}


@pytest.mark.parametrize("what", ODD)
def test_what_an_index_cannot_say_is_unpacked_or_refused(what: str, store: Store, tmp_path: Path) -> None:
    archives = [LOWER, layer(*ODD[what])]
    ours = tree_or_refusal(store, archives)
    theirs = tree_or_refusal(Store("overlay", tmp_path / "overlay-state"), archives)
    assert ours == theirs
    chain = chain_ids([Digest.of(archive) for archive in archives])
    assert sorted(os.listdir(store.folder(chain[0]))) == ["index", "layer.json", "lock", "tar"]
    if not isinstance(ours, str):
        assert sorted(os.listdir(store.folder(chain[1]))) == ["diff", "layer.json", "lock"]
        assert "unpacked_because" in (store.folder(chain[1]) / "layer.json").read_text()


def test_layers_of_both_kinds_stack(store: Store, tmp_path: Path) -> None:
    chain = store.add(LOWER, layer(link("hard", "a/b", tarfile.LNKTYPE)), layer(entry("top"), entry("a/.wh.b")))
    plan = store.driver.prepare("c", chain, kept=True, directory=tmp_path / "c")
    assert [type(lower) for lower in plan[0]["lowers"]] == [dict, str, dict]
    with mounted(plan, tmp_path / "merged") as root:
        assert set(tree_facts(root)) == {b"a", b"b", b"c", b"c/a", b"hard", b"top"}
        assert (root / "hard").read_bytes() == b"lower"
        (root / "hard").write_bytes(b"changed")
        (root / "c/a").rmdir()
    assert [str(change) for change in store.driver.diff(plan)] == ["C /c", "D /c/a", "C /hard"]


def test_layers_are_added_side_by_side(store: Store) -> None:
    """The upper one is stored and indexed while the lower one isn't there yet, and takes the root's owner from it at the end."""
    archives = [layer(folder("./", mode=0o1751, uid=4, gid=5), entry("a")), layer(entry("b")), layer(entry("new/c"))]
    chain = chain_ids([Digest.of(archive) for archive in archives])
    waited: list[int] = []

    def add(at: int, parents_ready: Callable[[], object] | None = None) -> None:
        store.driver.add_layer(
            chain[at], None, chain[:at], io.BytesIO(archives[at]), digest="x", parents_ready=parents_ready
        )

    def lowest_comes_last() -> None:
        waited.append(len(list(store.layers.glob(".tmp-*/index"))))
        add(0)

    add(1, lowest_comes_last)
    assert waited == [1]
    # The third has an entry whose parent may be anywhere below: it is indexed again.
    add(2)
    for chain_id in chain:
        fd = open_lower(store.driver.stack([*chain[: chain.index(chain_id)], chain_id])[0])
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o1751, 4, 5)
    with pytest.raises(LayerError):
        store.driver.add_layer(Digest.of(b"y"), None, chain, io.BytesIO(b"x" * 512), digest="x")


def test_an_unpacked_layer_below_gives_the_root_as_well(store: Store) -> None:
    below = layer(folder("./", mode=0o710, uid=6, gid=7), *ODD["a link as parent"])
    chain = store.add(below, layer(entry("d")))
    assert (store.folder(chain[0]) / "diff").is_dir(), "choose another archive that needs unpacking"
    fd = open_lower(store.driver.stack(chain)[0])
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o710, 6, 7)


def test_large_directories_long_links_and_many_inodes(store: Store) -> None:
    """What spans blocks of the index: a directory of thousands, links at and over a block, names of every length."""
    made = [folder("d"), *(entry(f"d/{'n' * (number % 200)}{number}", data=b"%d" % number) for number in range(3000))]
    made += [link(f"l{size}", "t" * size) for size in (1, 383, 384, 385, 447, 448, 449, 511, 512, 513, 4095)]
    (only,) = store.add(layer(*made))
    trees = LayerTrees()
    try:
        tree = trees.tree(store.folder(only))
        found = tree_facts(tree)
        assert len(found) == 3012
        for number in range(3000):
            assert (tree / f"d/{'n' * (number % 200)}{number}").read_bytes() == b"%d" % number
        for info, _ in made[3001:]:
            assert os.fsdecode(found[os.fsencode(info.name)]["target"]) == info.linkname
    finally:
        trees.close()


@pytest.mark.parametrize("count", [128])
@pytest.mark.timeout(300)
def test_as_many_layers_as_overlayfs_stacks(count: int, engine: Engine, tmp_path: Path) -> None:
    layers = [busybox_layer(), *(layer(entry(f"layer-{number}", data=b"%d" % number)) for number in range(1, count))]
    image = f"oci:{write_layout(tmp_path / 'layout', {'latest': make_image(layers, compression='none')})}:latest"
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    script = "ls / | grep -c layer-; cat /layer-1 /layer-127; echo; echo new > /layer-5; ulimit -Sn"
    result = cellwall.run(image, script=script, storage_driver="erofs", diff=True, engine=engine)
    assert result.stdout.split() == [str(count - 1), "1127", str(soft)], result.stderr
    assert [str(change) for change in result.diff()] == ["C /layer-5"]


def test_one_more_is_refused(store: Store) -> None:
    layers = [layer(entry(f"layer-{number}")) for number in range(2)]
    chain = store.add(*layers)
    with pytest.raises(UnsupportedError, match="overlayfs stacks 500 at most"):
        store.driver.prepare("c", [*chain[:1] * 500, chain[1]], kept=False, directory=None)


def test_a_container_on_mounted_layers(engine: Engine, busybox: str) -> None:
    script = "cat /etc/motd; stat -c '%u:%g' /bin/busybox; echo more >> /etc/motd; cat /etc/motd; rm /bin/cat; touch /root/new"
    for _ in range(2):
        result = cellwall.run(busybox, script=script, storage_driver="erofs", diff=True, engine=engine)
        lines = result.stdout.splitlines()
        assert lines == ["hello from a layer", "0:0", "hello from a layer", "more"], result.stderr
        assert {"C /etc/motd", "D /bin/cat", "A /root/new"} <= {str(change) for change in result.diff()}


def test_a_kept_container_keeps_what_it_wrote(engine: Engine, busybox: str) -> None:
    try:
        with cellwall.container(busybox, name="kept", storage_driver="erofs", engine=engine) as running:
            assert running.run("echo written > /etc/motd; rm /bin/cat; id -u").stdout == "0\n"
        with cellwall.container(busybox, name="kept", storage_driver="erofs", engine=engine) as running:
            assert running.run("read line < /etc/motd; echo $line").stdout == "written\n"
        found = [str(change) for change in engine.diff("kept")]
        assert "C /etc/motd" in found
        assert "D /bin/cat" in found
    finally:
        engine.remove("kept", force=True)


def test_a_store_that_the_overlay_driver_has_filled_goes_on(engine: Engine, busybox: str) -> None:
    """Its image is indexed from its blobs at the next use, its containers stay as they were made, and both forms go together."""
    container = cellwall.container(busybox, name="kept", storage_driver="overlay", engine=engine)
    container.run("echo mine > /mine")
    own, other = engine.of_driver(None)[0], engine.of_driver("overlay")[0]
    image = engine.image(busybox, pull="never", storage_driver="overlay")
    assert own.name == "erofs"
    assert all(map(other.has_layer, image.chain_ids)) and not any(map(own.has_layer, image.chain_ids))
    assert cellwall.run(busybox, ["cat", "/etc/motd"], engine=engine).stdout == "hello from a layer\n"
    assert all(map(own.has_layer, image.chain_ids))
    assert container.run("cat /mine").stdout == "mine\n"
    container.remove()
    engine.images.remove(busybox)
    assert not any(map(other.has_layer, image.chain_ids)) and not any(map(own.has_layer, image.chain_ids))


def test_the_host_image(engine: Engine) -> None:
    script = "test -d /usr/bin && echo usr; echo x > /etc/x; id -u"
    result = cellwall.run("host", script=script, storage_driver="erofs", engine=engine)
    assert result.stdout.split() == ["usr", "0"], result.stderr


def test_a_layer_is_mounted_once_and_not_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (only,) = store.add(layer(entry("f", data=b"x")))
    lower = store.driver.prepare("c", [only], kept=False, directory=None)[0]["lowers"][0]
    first: list[layer_mounts.LayerMount] = []
    second: list[layer_mounts.LayerMount] = []
    (path,) = layer_mounts.paths_of([lower], first)
    assert layer_mounts.paths_of([lower], second) == [path]
    assert Path(path, "f").read_bytes() == b"x"
    layer_mounts.give_back(first)
    monkeypatch.setattr(layer_mounts, "IDLE_S", 0.0)
    layer_mounts.expire()
    assert Path(path, "f").read_bytes() == b"x"
    layer_mounts.give_back(second)
    layer_mounts.expire()
    assert not Path(path, "f").exists()


def test_a_layer_pulled_again_is_mounted_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = layer(entry("f", data=b"x"))
    (only,) = store.add(archive)
    lower = store.driver.prepare("c", [only], kept=False, directory=None)[0]["lowers"][0]
    held: list[layer_mounts.LayerMount] = []
    layer_mounts.paths_of([lower], held)
    store.driver.remove_layer(only)
    assert not store.driver.has_layer(only)
    # A running container still reads what it has.
    assert Path(f"/proc/self/fd/{held[0].fd}/f").read_bytes() == b"x"
    store.add(archive)
    layer_mounts.paths_of([lower], held)
    assert held[0] is not held[1]
    fds = [mount.fd for mount in held]
    monkeypatch.setattr(layer_mounts, "IDLE_S", 0.0)
    layer_mounts.give_back(held)
    layer_mounts.expire()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_an_ordinary_user_is_told_what_to_use(tmp_path: Path) -> None:
    class Rootless:
        rootless = True

        def userns_fd(self) -> int | None:
            return None

    with pytest.raises(UnsupportedError, match="only root can mount erofs.*use -s overlay"):
        open_driver("erofs", Paths(tmp_path, tmp_path / "run"), Rootless())


def test_where_the_disk_cannot_carry_it_the_check_says_so(tmp_path: Path) -> None:
    with pytest.raises((CellwallError, OSError)):
        check_erofs(str(tmp_path / "missing"))
    before = os.listdir(tmp_path)
    check_erofs(str(tmp_path))
    assert os.listdir(tmp_path) == before


def test_a_refusal_is_remembered_where_nobody_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying takes a process and some mounts; who asks by name gets it tried anew."""
    paths = Paths(tmp_path, tmp_path / "run")
    tried: list[str] = []

    def refuses(self: ErofsDriver, folder: Path, lock_fd: int) -> None:
        tried.append("tried")
        raise UnsupportedError("erofs", "this kernel is too old")

    with monkeypatch.context() as patched:
        patched.setattr(ErofsDriver, "_try", refuses)
        assert [open_driver(None, paths).name for _ in range(3)] == ["overlay"] * 3
        assert len(tried) == 1
        with pytest.raises(UnsupportedError, match="too old"):
            open_driver("erofs", paths)
        assert len(tried) == 2
    assert open_driver(None, paths).name == "overlay"
    assert open_driver("erofs", paths).name == "erofs"
    assert open_driver(None, paths).name == "erofs"
    assert list(tmp_path.rglob(".tmp-*")) == []
