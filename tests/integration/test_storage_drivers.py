"""What drivers promise around their layers: mount plans, changes, release, sweeping after a kill, choosing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cellwall.runtime.config import Config
from cellwall.runtime.errors import NotFound, SpecError, SyscallError, UnsupportedError
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.launcher import rootfs
from cellwall.runtime.linux.mounts import AT_FDCWD, mount, move_mount, umount2
from cellwall.runtime.options import RunOptions
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import StorageDriver, explain, open_driver
from cellwall.runtime.storage.erofs_mount import open_lower
from cellwall.runtime.storage.lowers import Lowers
from cellwall.runtime.storage.merge import capability_of
from cellwall.runtime.storage.names import NAMES
from cellwall.runtime.storage.removal import remove_tree

from ..layer_trees import entry, folder, layer, link, tree_facts
from ..mounted_layers import DRIVERS, EROFS, FUSE, lower_paths
from ..waiting import until

if TYPE_CHECKING:
    from cellwall.runtime.storage.driver import Plan

SOURCE = str(Path(__file__).parents[2] / "src")

pytestmark = pytest.mark.needs("root", "overlay")

BASE = layer(
    folder("./", mode=0o755),
    folder("etc", mtime=5),
    entry("etc/passwd", data=b"root", uid=1, gid=2),
    entry("etc/group", data=b"root"),
    folder("dir"),
    entry("dir/one"),
    entry("dir/two"),
    folder("tree"),
    folder("tree/deep"),
    entry("tree/deep/file"),
    link("link", "etc"),
)
TOP = layer(
    folder("opt", uid=10),
    entry(
        "opt/x", mode=0o4755, uid=3, xattrs={"security.capability": struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)}
    ),
)


def opened(name: str, root: Path) -> tuple[StorageDriver, list[Digest]]:
    driver = open_driver(name, Paths(root, root / "run"))
    chain = chain_ids([Digest.of(BASE), Digest.of(TOP)])
    driver.add_layer(chain[0], None, [], io.BytesIO(BASE), digest="base")
    driver.add_layer(chain[1], chain[0], chain[:1], io.BytesIO(TOP), digest="top")
    return driver, chain


@contextlib.contextmanager
def mounted(plan: Plan, point: Path) -> Iterator[Path]:
    """The plan's root, as the launcher mounts it."""
    (first,) = plan
    if first["type"] == "bind":
        yield Path(first["source"])
        return
    point.mkdir()
    if first["type"] == "fuse-overlayfs":
        with served(plan, point):
            yield point
        return
    with lower_paths(first["lowers"]) as lowers:
        options = f"lowerdir={':'.join(lowers)}"
        if first["upper"]:
            options += f",upperdir={first['upper']},workdir={first['work']}"
        mount("overlay", str(point), "overlay", 0, options)
    try:
        yield point
    finally:
        umount2(str(point))


@contextlib.contextmanager
def served(plan: Plan, point: Path) -> Iterator[None]:
    """The plan's root at ``point``, served by the program as the launcher has it served to root's own user namespace."""
    made = rootfs.Rootfs()
    try:
        ids = rootfs.Ids(0, 65536, -1, idmap=False, make_nodes=True)
        rootfs.root_mounts(made, plan, ids, upper_bytes=0, userxattr=False)
        move_mount(made.fds[0], AT_FDCWD, str(point))
        made.close()
        made.close_late()
        try:
            yield
        finally:
            umount2(str(point))
    finally:
        made.close()
        made.close_late()
        made.close_uppers()
        for server in made.servers:
            server.kill()


def change(root: Path) -> None:
    """What a container may do to its tree."""
    (root / "etc/passwd").write_bytes(b"another")
    (root / "etc/group").unlink()
    (root / "new").mkdir()
    (root / "new/file").write_bytes(b"x")
    remove_tree(str(root / "tree"))
    remove_tree(str(root / "dir"))
    (root / "dir").mkdir()
    (root / "dir/two").write_bytes(b"two again")
    (root / "dir/three").write_bytes(b"3")
    os.chmod(root / "opt", 0o700)
    (root / "temporary").write_bytes(b"")
    (root / "temporary").unlink()


@pytest.mark.parametrize("name", DRIVERS)
def test_changes_of_a_kept_container(name: str, disk: Path, tmp_path: Path) -> None:
    driver, chain = opened(name, disk / "state")
    plan = driver.prepare("c1", chain, kept=True, directory=disk / "c1")
    with mounted(plan, tmp_path / "merged") as root:
        assert (root / "opt/x").exists()
        assert driver.diff(plan) == []
        change(root)
    assert [str(found) for found in driver.diff(plan)] == [
        "C /dir",
        "D /dir/one",
        "A /dir/three",
        "C /dir/two",
        "C /etc",
        "D /etc/group",
        "C /etc/passwd",
        "A /new",
        "A /new/file",
        "C /opt",
        "D /tree",
    ]
    assert driver.usage(plan) > 0
    again = driver.prepare("c1", chain, kept=True, directory=disk / "c1")
    assert again == plan
    with mounted(again, tmp_path / "merged2") as root:
        assert (root / "etc/passwd").read_bytes() == b"another"
    driver.release("c1", plan)
    assert os.listdir(disk / "c1") == []
    driver.release("c1", plan)


def test_the_plan_of_an_ephemeral_container(tmp_path: Path) -> None:
    driver, chain = opened("overlay", tmp_path)
    plan = driver.prepare("c1", chain, kept=False, directory=None)
    (only,) = plan
    assert set(only) == {"at", "type", "lowers", "upper", "work"}
    assert (only["at"], only["type"], only["upper"], only["work"]) == ("/", "overlay", None, None)
    assert [Path(lower).parent.name for lower in only["lowers"]] == [
        digest.replace(":", "-") for digest in reversed(chain)
    ]
    assert all(os.path.isabs(lower) for lower in only["lowers"])
    with pytest.raises(UnsupportedError, match="ephemeral"):
        driver.diff(plan)
    driver.release("c1", plan)


@pytest.mark.parametrize("name", DRIVERS)
def test_the_stack_shows_the_images_tree(name: str, disk: Path) -> None:
    driver, chain = opened(name, disk)
    assert driver.stack([]) == []
    with contextlib.ExitStack() as stack:
        fds = [open_lower(lower) for lower in driver.stack(chain)]
        for fd in fds:
            stack.callback(os.close, fd)
        lowers = Lowers(fds)
        assert lowers.names(b"") == {b"etc", b"dir", b"tree", b"link", b"opt"}
        found = lowers.find(b"etc/passwd")
        assert found is not None
        assert (found[1].st_uid, found[1].st_gid, found[1].st_size) == (1, 2, 4)
        assert lowers.exists(b"opt/x")
    base = [open_lower(lower) for lower in driver.stack(chain[:1])]
    try:
        assert not Lowers(base).exists(b"opt/x")
    finally:
        for fd in base:
            os.close(fd)
    driver.remove_layer(chain[1])
    with pytest.raises(NotFound):
        driver.stack(chain)


@pytest.mark.parametrize("name", ["overlay", EROFS, FUSE])
def test_the_upper_shows_the_mode_of_the_images_root(name: str, tmp_path: Path) -> None:
    driver = open_driver(name, Paths(tmp_path, tmp_path / "run"))
    only = Digest.of(b"root")
    driver.add_layer(only, None, [], io.BytesIO(layer(folder("./", mode=0o1751, uid=4, gid=5))), digest="x")
    above = Digest.of(b"above")
    driver.add_layer(above, only, [only], io.BytesIO(layer(entry("a"))), digest="x")
    plan = driver.prepare("c", [only, above], kept=True, directory=tmp_path / "c")
    status = os.stat(plan[0]["upper"])
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1751, 4, 5)


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_callers_umask_changes_nothing(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        driver, chain = opened("vfs", tmp_path)
        plan = driver.prepare("c", chain, kept=False, directory=None)
    finally:
        os.umask(old)
    root = Path(plan[0]["source"])
    assert root.stat().st_mode & 0o7777 == 0o755
    assert tree_facts(root)[b"etc"]["mode"] == "drwxr-xr-x"


def test_vfs_copies_carry_the_containers_own_ids(tmp_path: Path) -> None:
    driver, chain = opened("vfs", tmp_path)
    plan = driver.prepare("c", chain, kept=False, directory=None, id_map=(200_000, 65_536))
    root = Path(plan[0]["source"])
    assert (root.stat().st_uid, root.stat().st_gid) == (200_000, 200_000)
    facts = tree_facts(root)
    assert (facts[b"etc/passwd"]["uid"], facts[b"etc/passwd"]["gid"]) == (200_001, 200_002)
    assert facts[b"link"]["uid"] == 200_000
    assert facts[b"opt/x"]["mode"] == "-rwsr-xr-x"
    # Read from a namespace whose root doesn't own them, revision 3 shows as it is.
    assert facts[b"opt/x"]["xattrs"]["security.capability"] == struct.pack(
        "<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 200_000
    )
    assert driver.diff(plan) == []
    os.chown(root / "etc/group", 200_007, 200_000)
    assert [str(found) for found in driver.diff(plan)] == ["C /etc", "C /etc/group"]
    driver.release("c", plan)
    assert not root.exists()


def test_vfs_refuses_ids_that_the_container_lacks(tmp_path: Path) -> None:
    driver, chain = opened("vfs", tmp_path)
    with pytest.raises(Exception, match="belongs to id 10"):
        driver.prepare("c", chain, kept=False, directory=None, id_map=(200_000, 10))
    assert list(tmp_path.rglob(".tmp-*")) == []
    assert list(tmp_path.rglob("rootfs")) == []


def test_capabilities_of_other_revisions_stay_as_they_are() -> None:
    for value in (
        struct.pack("<III", 0x01000001, 1, 1),
        struct.pack("<IIIIII", 0x03000001, 1, 0, 0, 0, 7),
        b"\x00\x00\x00\x02",
    ):
        assert capability_of(value, 5) == value


@pytest.mark.parametrize("name", DRIVERS)
def test_layers_are_removed_whole_and_said_when_missing(name: str, disk: Path) -> None:
    driver, chain = opened(name, disk)
    driver.remove_layer(chain[1])
    assert not driver.has_layer(chain[1])
    assert driver.has_layer(chain[0])
    with pytest.raises(NotFound, match="pull its image again"):
        driver.prepare("c", chain, kept=False, directory=None)
    with pytest.raises(NotFound):
        driver.layer_info(chain[1])
    driver.remove_layer(chain[1])
    assert len(list((disk / "storage" / name / "layers").iterdir())) == 1


MAKER = """
import io, select, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import open_driver
root = Path(sys.argv[1])
driver = open_driver(sys.argv[4], Paths(root, root / "run"))
class Slow(io.RawIOBase):
    sent = False
    def read(self, size=-1):
        if self.sent:
            print("waiting", flush=True)
            # In short steps: Python heeds a signal that comes just before one of its waits only after that wait.
            while not select.select([sys.stdin], [], [], 0.05)[0]:
                pass
        self.sent = True
        return Path(sys.argv[3]).read_bytes()[:3000]
driver.add_layer(Digest.of(b"x"), None, [], Slow(), digest="x")
"""


@pytest.mark.parametrize("name", DRIVERS)
def test_what_a_killed_process_left_is_swept_and_what_lives_is_not(name: str, disk: Path, tmp_path: Path) -> None:
    root = disk / "state"
    archive = tmp_path / "base.tar"
    archive.write_bytes(BASE)
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", MAKER, str(root), source, str(archive), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"waiting\n"
        driver = open_driver(name, Paths(root, root / "run"))
        layers = root / "storage" / name / "layers"
        (unfinished,) = os.listdir(layers)
        assert unfinished.startswith(".tmp-")
        assert driver.sweep() == 0
        assert os.listdir(layers) == [unfinished]
        maker.send_signal(signal.SIGKILL)
        maker.wait()
        # The worker sees the end of its lifeline, and with it the lock goes.
        until(driver.sweep, "the worker's end")
    assert os.listdir(layers) == []
    assert driver.sweep() == 0


@pytest.mark.parametrize("name", DRIVERS)
def test_an_interrupt_leaves_nothing(name: str, disk: Path, tmp_path: Path) -> None:
    """Ctrl-C in the caller, in the middle of a layer: KeyboardInterrupt, no worker, no folder."""
    root = disk / "state"
    archive = tmp_path / "base.tar"
    archive.write_bytes(BASE)
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", MAKER, str(root), source, str(archive), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stderr is not None
        assert maker.stdout.readline() == b"waiting\n"
        maker.send_signal(signal.SIGINT)
        assert maker.stderr.read().strip().endswith(b"KeyboardInterrupt")
    assert os.listdir(root / "storage" / name / "layers") == []


def test_removal_goes_deep_and_never_follows_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"stays")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    dirfd = os.open(tree, os.O_RDONLY)
    for depth in range(1500):
        os.mkdir("d", dir_fd=dirfd)
        below = os.open("d", os.O_RDONLY, dir_fd=dirfd)
        os.close(dirfd)
        dirfd = below
        if depth % 100 == 0:
            os.symlink(outside, "link", dir_fd=dirfd)
    os.close(dirfd)
    remove_tree("tree", os.open(tmp_path, os.O_RDONLY))
    assert not tree.exists()
    assert (outside / "file").read_bytes() == b"stays"
    remove_tree(str(tmp_path / "nothing"))
    os.symlink(outside, tmp_path / "link")
    remove_tree(str(tmp_path / "link"))
    assert (outside / "file").exists()


def test_choosing_a_driver(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "run")
    best = "overlay" if explain(paths)["erofs"] else "erofs"
    assert open_driver(None, paths).name == best
    assert open_driver("vfs", paths).name == "vfs"
    with pytest.raises(SpecError, match="'zfs' is none of overlay, erofs, fuse-overlayfs, btrfs, vfs"):
        open_driver("zfs", paths)
    assert list(tmp_path.rglob(".tmp-*")) == []


@pytest.mark.parametrize(("name", "since"), [("aufs", "24.0 (2023)"), ("devicemapper", "25.0 (2024)")])
def test_what_docker_had_once_is_known_by_name(name: str, since: str, tmp_path: Path) -> None:
    """The error says what became of it and what to use, wherever the name stands; nothing is made on disk."""
    paths = Paths(tmp_path, tmp_path / "run")
    with pytest.raises(UnsupportedError, match=re.escape(since)) as raised:
        open_driver(name, paths)
    assert "use -s " in str(raised.value)
    assert explain(paths)[name] == str(raised.value).partition(": ")[2]
    environment = {"PATH": os.environ["PATH"], "CELLWALL_ROOT": str(tmp_path), "PYTHONPATH": SOURCE}
    for words, variables in ((["-s", name], {}), ([], {"CELLWALL_STORAGE_DRIVER": name})):
        command = [sys.executable, "-m", "cellwall", "run", "--rm", *words, "host", "true"]
        done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stdout) == (125, "")
        assert since in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob(f"storage/{name}"))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_taken_and_explained(name: str, tmp_path: Path) -> None:
    reason = explain(Paths(tmp_path, tmp_path / "run"))[name]
    assert reason is None or "use -s" in reason
    config = Config.load({"CELLWALL_STORAGE_DRIVER": name, "CELLWALL_ROOT": str(tmp_path)})
    assert config.fill(RunOptions(image="x")).storage_driver == name


def test_a_store_that_cannot_be_written_is_said_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "storage").write_bytes(b"a file where the folder should be")
    paths = Paths(tmp_path, tmp_path / "run")
    with pytest.raises(UnsupportedError, match="CELLWALL_ROOT"):
        open_driver("overlay", paths)
    driver = open_driver("vfs", paths)
    with pytest.raises(SyscallError, match="CELLWALL_ROOT"):
        driver.add_layer(Digest.of(b"x"), None, [], io.BytesIO(BASE), digest="x")


def test_where_overlay_cannot_stack_vfs_is_taken(tmp_path: Path) -> None:
    """A filesystem that is itself an overlay takes no further upper layer: the check must find that out."""
    for name in ("lower", "upper", "work", "store"):
        (tmp_path / name).mkdir()
    store = tmp_path / "store"
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount("overlay", str(store), "overlay", 0, options)
    try:
        paths = Paths(store, store / "run")
        with pytest.raises(UnsupportedError, match="use -s vfs"):
            open_driver("overlay", paths)
        assert open_driver(None, paths).name == "vfs"
        reasons = explain(paths)
        assert reasons["vfs"] is None
        assert "use -s vfs" in str(reasons["overlay"])
        assert list(store.rglob(".tmp-*")) == []
    finally:
        umount2(str(store))


def test_the_worker_has_nothing_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no descriptor but its own, no capability beyond files, no way out of the tree."""
    monkeypatch.setenv("SECRET_TOKEN", "secret")

    def children() -> set[str]:
        return set(Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split())

    before = children()
    held = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(held, True)
    seen: dict[str, object] = {}

    class Looking(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            if seen:
                return b""
            # Give it one block and look at it once it waits for more.
            (worker,) = children() - before
            told = Path(f"/proc/{worker}/status")
            until(lambda: "NoNewPrivs:\t1" in told.read_text(), "a worker that has given up what it may")
            status = told.read_text()
            lines = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
            seen["effective"] = int(lines["CapEff"], 16)
            seen["environment"] = Path(f"/proc/{worker}/environ").read_bytes()
            seen["root"] = os.listdir(f"/proc/{worker}/root")
            seen["mounts"] = len(Path(f"/proc/{worker}/mountinfo").read_text().splitlines())
            seen["files"] = [os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()]
            return b""

    driver = open_driver("overlay", Paths(tmp_path, tmp_path / "run"))
    try:
        driver.add_layer(Digest.of(b"x"), None, [], Looking(), digest="x")  # type: ignore[arg-type]
    finally:
        os.close(held)
    assert b"SECRET" not in seen["environment"]  # type: ignore[operator]
    assert seen["root"] == []
    assert seen["mounts"] == 1
    assert "/etc/passwd" not in seen["files"]  # type: ignore[operator]
    # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SYS_ADMIN (trusted.*), MKNOD, SETFCAP
    assert int(str(seen["effective"])) & ~(0b11111 | 1 << 21 | 1 << 27 | 1 << 31) == 0


def test_old_archives_and_tarfile_agree(tmp_path: Path) -> None:
    """The tree of a real folder, archived by the standard library in each format, comes back as it was."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"d{number % 7}").mkdir(exist_ok=True)
        (source / f"d{number % 7}/file-{number}").write_bytes(os.urandom(number * 1000))
    os.link(source / "d0/file-0", source / "hard")
    os.symlink("d1", source / "sym")
    os.mkfifo(source / "fifo")
    # A quarter of a second survives tarfile's floating point.
    for path in sorted(source.rglob("*"), reverse=True):
        os.utime(path, ns=(10**9, 1_700_000_000_250_000_000), follow_symlinks=False)
    driver = open_driver("vfs", Paths(tmp_path / "state", tmp_path / "run"))
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=format) as tar:
            tar.add(source, ".")
        chain = Digest.of(output.getvalue())
        driver.add_layer(chain, None, [], io.BytesIO(output.getvalue()), digest="x")
        found = tree_facts(tmp_path / "state/storage/vfs/layers" / chain.replace(":", "-") / "diff")
        expected = tree_facts(source)
        if format != tarfile.PAX_FORMAT:
            for facts in (*found.values(), *expected.values()):
                facts["mtime_ns"] = facts["mtime_ns"] // 10**9
        assert found == expected
