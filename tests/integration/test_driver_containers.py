"""One suite for every storage driver that the machine has: real containers on it, from the first look to the last removal."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import LayerInfo, StorageDriver, open_driver
from cellwall.runtime.storage.erofs_mount import open_lower
from cellwall.runtime.storage.lowers import Lowers

from ..layer_trees import Facts, entry, folder, layer, link, tree_facts
from ..leaks import descendants, stat
from ..mounted_layers import DRIVERS
from ..registries import busybox_layer, make_image, tar_of, write_layout
from ..waiting import until

pytestmark = [pytest.mark.needs("root", "overlay", "busybox-static"), pytest.mark.parametrize("name", DRIVERS)]

# CAP_NET_RAW, permitted and effective, revision 2. Source: capabilities(7)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def capable_program() -> bytes:
    return Path(os.path.realpath("/bin/busybox")).read_bytes()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Layers with everything that drivers could show differently."""
    below = layer(
        folder("dir", mtime=1_500_000_000),
        entry("dir/one", data=b"1"),
        entry("dir/two", data=b"2"),
        folder("gone"),
        entry("gone/file", data=b"x"),
        folder("kept", mode=0o1777, uid=5, gid=6),
        entry("kept/owned", data=b"mine", uid=1000, gid=2000, mode=0o4750),
        entry("kept/noted", data=b"n", xattrs={"user.note": b"hello"}),
        link("kept/hard", "kept/owned", tarfile.LNKTYPE, uid=1000, gid=2000, mode=0o4750),
        entry("bin/busybox-capable", data=capable_program(), mode=0o755, xattrs={"security.capability": CAPABILITY}),
        folder("covered"),
        entry("covered/below", data=b"b"),
        folder("move"),
        folder("move/deep"),
        entry("move/deep/file", data=b"moved"),
        entry("file", data=b"old"),
    )
    above = layer(
        entry("dir/.wh.one"),
        entry(".wh.gone"),
        folder("covered"),
        entry("covered/.wh..wh..opq"),
        entry("covered/above", data=b"a"),
        entry("file", data=b"new"),
    )
    made = make_image([busybox_layer(), below, above])
    return f"oci:{write_layout(tmp_path_factory.mktemp('drivers'), {'latest': made})}:latest"


LOOK = """
id -u
ls /dir /covered /gone 2>/dev/null | tr '\\n' ' '; echo
stat -c '%u:%g %f %n' /kept /kept/owned /bin/busybox /
stat -c '%h' /kept/hard
cat /file /covered/above; echo
"""

CHANGE = """
set -e
echo more >> /file
rm /dir/two
mv /move /moved
chown 7:8 /kept/noted
chmod 2755 /kept/noted
cp /bin/busybox /setuid; chown 1000:1000 /setuid; chmod 4755 /setuid
ln /setuid /another
rm -r /covered; mkdir /covered; echo again > /covered/again
ln -s /file /symbolic
mkfifo /fifo
mkdir -p /made/deep; echo x > /made/deep/x; chmod 700 /made
"""

CHANGES = [
    "A /another",
    "C /covered",
    "D /covered/above",
    "A /covered/again",
    "C /dir",
    "D /dir/two",
    "A /fifo",
    "C /file",
    "C /kept",
    "C /kept/noted",
    "A /made",
    "A /made/deep",
    "A /made/deep/x",
    "D /move",
    "A /moved",
    "A /moved/deep",
    "A /moved/deep/file",
    "A /setuid",
    "A /symbolic",
]


def stored(disk: Path, name: str) -> set[str]:
    """What the driver has on disk beside its layers' content."""
    root = disk / "storage" / name
    return {str(path.relative_to(root)) for pattern in ("*", "layers/*", "containers/*") for path in root.glob(pattern)}


def test_an_ephemeral_container(name: str, image: str, driver_engine: Engine, disk: Path) -> None:
    """What it sees is the image's tree with the image's owners; what it does is listed; nothing is left."""
    cellwall.run(image, ["true"], engine=driver_engine, storage_driver=name)
    before = stored(disk, name)
    result = cellwall.run(image, script=LOOK + CHANGE, engine=driver_engine, storage_driver=name)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "0",
        "/covered: above  /dir: two ",
        "5:6 43ff /kept",
        "1000:2000 89e8 /kept/owned",
        "0:0 81ed /bin/busybox",
        "0:0 41ed /",
        "2",
        "newa",
    ]
    assert [str(change) for change in result.diff()] == CHANGES
    assert stored(disk, name) == before
    assert (disk / "containers").is_dir() and os.listdir(disk / "containers") == []


def test_capabilities_of_files_count(name: str, image: str, driver_engine: Engine) -> None:
    """A program of the image with file capabilities gets them, run by another user than root."""
    result = cellwall.run(
        image,
        ["/bin/busybox-capable", "grep", "CapEff", "/proc/self/status"],
        user="1000",
        security_opt=["no-new-privileges=false"],
        engine=driver_engine,
        storage_driver=name,
    )
    assert int(result.stdout.split()[1], 16) == 1 << 13


def test_a_kept_container(name: str, image: str, driver_engine: Engine, disk: Path, tmp_path: Path) -> None:
    """It starts again with what it wrote; its layer, unpacked by umoci, is its own tree; nothing is left of it."""
    engine = driver_engine
    with cellwall.container(image, name="lab", engine=engine, storage_driver=name) as box:
        assert engine.diff("lab") == []
        box.run(CHANGE, check=True)
    before = tree_of_export(engine, tmp_path)
    with cellwall.container(image, name="lab", engine=engine, storage_driver=name) as box:
        assert box.run("cat /file; stat -c %u:%f /another", check=True).stdout == "newmore\n1000:89ed\n"
    assert [str(change) for change in engine.diff("lab")] == CHANGES
    committed = engine.commit("lab", "made")
    command = [
        "umoci",
        "unpack",
        "--image",
        f"{disk}/images:{tag_of(disk, committed.digest)}",
        str(tmp_path / "bundle"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    unpacked = comparable(tree_facts(tmp_path / "bundle/rootfs"))
    assert unpacked == before
    assert {key for facts in unpacked.values() for key in facts["xattrs"]} == {"user.note", "security.capability"}
    record = engine.known.record(engine.container("lab").id)
    assert record is not None
    # The copy of busybox, which vfs copied anyway.
    assert engine.of_driver(name)[0].usage(record["plan"]) >= 500_000
    result = cellwall.run("made", script="cat /file /covered/again; ls /dir", engine=engine, storage_driver=name)
    assert (result.stdout, result.stderr) == ("newmore\nagain\n", "")
    engine.remove("lab")
    assert os.listdir(disk / "containers") == [".lock"]
    assert not list((disk / "storage" / name).glob("containers/*"))


def comparable(facts: dict[bytes, Facts]) -> dict[bytes, Facts]:
    """Less what the container's own mounts are put on, and in whole seconds."""
    points = (b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc")
    found = {}
    for path, fact in facts.items():
        if path not in points and not path.startswith((b"dev/", b"proc/", b"sys/")):
            found[path] = {**fact, "mtime_ns": fact["mtime_ns"] // 10**9}
    return found


def tree_of_export(engine: Engine, tmp_path: Path) -> dict[bytes, Facts]:
    """The container's whole tree, by way of its archive and GNU tar."""
    with open(tmp_path / "tree.tar", "w+b") as file:
        engine.export("lab", file.fileno())
    (tmp_path / "tree").mkdir()
    command = [
        "tar",
        "-C",
        str(tmp_path / "tree"),
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--delay-directory-restore",
        "-xpf",
        str(tmp_path / "tree.tar"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return comparable(tree_facts(tmp_path / "tree"))


def tag_of(disk: Path, digest: Digest) -> str:
    """The name that the layout has for an image, as umoci takes it."""
    import json

    for found in json.loads((disk / "images/index.json").read_text())["manifests"]:
        if found["digest"] == str(digest):
            return str(found["annotations"]["org.opencontainers.image.ref.name"])
    raise AssertionError(f"no {digest} in the layout")


def test_many_at_once_add_one_layer(name: str, disk: Path) -> None:
    """Each is told the same; one is kept, and nothing half done."""
    base, top = tar_of({"a": None, "a/file": b"x" * 100_000}), layer(entry("a/.wh.file"), entry("a/other", data=b"y"))
    chain = chain_ids([Digest.of(base), Digest.of(top)])
    drivers = [open_driver(name, Paths(disk, disk / "run")) for _ in range(6)]
    together = threading.Barrier(len(drivers))

    def add(driver: StorageDriver) -> list[LayerInfo]:
        together.wait()
        first = driver.add_layer(chain[0], None, [], io.BytesIO(base), digest="base")
        return [first, driver.add_layer(chain[1], chain[0], chain[:1], io.BytesIO(top), digest="top")]

    with concurrent.futures.ThreadPoolExecutor(len(drivers)) as pool:
        found = list(pool.map(add, drivers))
    assert found == [found[0]] * len(drivers)
    layers = disk / "storage" / name / "layers"
    assert sorted(os.listdir(layers)) == sorted(digest.replace(":", "-") for digest in chain)
    with contextlib.ExitStack() as stack:
        fds = [open_lower(lower) for lower in drivers[0].stack(chain)]
        for fd in fds:
            stack.callback(os.close, fd)
        assert Lowers(fds).names(b"a") == {b"other"}


CLIENT = """
import sys
import cellwall
from cellwall.runtime.engine import Engine
engine = Engine.default()
cellwall.run(sys.argv[1], ["true"], engine=engine, storage_driver=sys.argv[2])
print(engine.launcher.pid, flush=True)
cellwall.run(sys.argv[1], ["sh", "-c", "echo running; sleep 1000"], engine=engine, storage_driver=sys.argv[2],
    on_stdout=lambda data: print("running", flush=True))
"""


@pytest.mark.parametrize("victim", ["client", "launcher"])
def test_nothing_is_left_of_a_killed_one(name: str, victim: str, image: str, driver_engine: Engine, disk: Path) -> None:
    """kill -9 of the notebook's process, or of its launcher: no process, and after the next start no file of the container."""
    source = str(Path(__file__).parents[2] / "src")
    environment = {"PATH": os.environ["PATH"], "CELLWALL_ROOT": str(disk), "PYTHONPATH": source}
    command = [sys.executable, "-c", CLIENT, image, name]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        launcher = int(client.stdout.readline())
        before = set(descendants(client.pid))
        assert client.stdout.readline() == b"running\n"
        family = set(descendants(client.pid)) | before
        assert len(family) >= (3 if name == "fuse-overlayfs" else 2)
        os.kill(client.pid if victim == "client" else launcher, signal.SIGKILL)
        client.wait()
    until(lambda: not [pid for pid in family if stat(pid)[:1] not in ([], ["Z"])], "the end of all that it had started")
    assert driver_engine.containers(all=True) == []
    result = cellwall.run(image, ["cat", "/file"], engine=driver_engine, storage_driver=name)
    assert result.stdout == "new"
    assert stored(disk, name) == {path for path in stored(disk, name) if not path.startswith("containers/")}
    assert not list((disk / "storage").rglob(".tmp-*"))
