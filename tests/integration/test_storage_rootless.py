"""The store of an ordinary user: files carry the ids of the user's namespace, and only its workers can make or remove them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..devices import for_everybody
from ..layer_trees import entry, folder, layer, link, tree_facts
from ..mounted_layers import BTRFS, FUSE

pytestmark = pytest.mark.needs("root", "user-namespaces", "overlay-userns")

USER = 54_321
SUBIDS = 400_000

SCRIPT = """
import io, json, os, subprocess, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import open_driver

holder = subprocess.Popen(["unshare", "--user", "sleep", "100"])
fd = -1
try:
    while os.readlink(f"/proc/{holder.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
        pass
    print(holder.pid, flush=True)
    assert sys.stdin.readline() == "mapped\\n"
    fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)

    class Identity:
        rootless = True
        def userns_fd(self):
            return fd

    root = Path(sys.argv[1])
    archives = [Path(name).read_bytes() for name in sys.argv[4:]]
    driver = open_driver(sys.argv[3], Paths(root, root / "run"), Identity())
    chain = chain_ids([Digest.of(archive) for archive in archives])
    for at, archive in enumerate(archives):
        driver.add_layer(chain[at], chain[at - 1] if at else None, chain[:at], io.BytesIO(archive), digest="x")
    kept = root / "kept"
    plan = driver.prepare("c", chain, kept=True, directory=kept)
    print(json.dumps([plan, chain]), flush=True)
    assert sys.stdin.readline() == "looked\\n"
    print(json.dumps([str(change) for change in driver.diff(plan)]), flush=True)
    driver.release("c", plan)
    for chain_id in chain:
        driver.remove_layer(chain_id)
    assert driver.sweep() == 0
    print(json.dumps(sorted(str(path.relative_to(root)) for path in root.rglob("*"))), flush=True)
finally:
    holder.kill()
    holder.wait()
"""


@pytest.fixture
def home(disk: Path) -> Path:
    """A folder that the user owns and can reach."""
    made = disk / "home"
    made.mkdir(mode=0o700)
    os.chown(made, USER, USER)
    return made


def interpreter() -> str:
    """A Python that the user may execute: this one, or the system's where this one lies in a closed folder."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        code = "import os, sys; sys.exit(sys.version_info < (3, 11) or not os.access(sys.executable, os.X_OK))"
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", candidate, "-c", code]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("needs a Python 3.11 that every user may execute")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("name", ["overlay", "vfs", FUSE, BTRFS])
def test_an_ordinary_users_store(name: str, home: Path) -> None:
    if name == "fuse-overlayfs":
        for_everybody("/dev/fuse")
    base = layer(
        folder("./"),
        folder("d", uid=5, gid=6, mode=0o700),
        entry("d/file", data=b"x", mode=0o4755, uid=1000, gid=1000),
        entry("d/capable", xattrs={"security.capability": b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)}),
        entry("null", b"3", devmajor=1, devminor=3),
        folder("o"),
        entry("o/old"),
        entry("gone"),
        link("l", "d", uid=7),
    )
    top = layer(entry("o/.wh..wh..opq"), entry(".wh.gone"), entry("o/new"), entry("d/more", uid=9))
    names = []
    for number, archive in enumerate((base, top)):
        path = home / f"{number}.tar"
        path.write_bytes(archive)
        path.chmod(0o644)
        names.append(str(path))
    store = home / "store"
    store.mkdir()
    os.chown(store, USER, USER)
    source = str(Path(__file__).parents[2] / "src")
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", interpreter(), "-c", SCRIPT]
    with subprocess.Popen(
        [*command, str(store), source, name, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        text=True,
    ) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        for file in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{file}").write_text(f"0 {USER} 1\n1 {SUBIDS} 65535\n")
        print("mapped", file=user.stdin, flush=True)
        plan, chain = json.loads(user.stdout.readline())
        layers = store / "storage" / name / "layers"
        facts = tree_facts(layers / chain[0].replace(":", "-") / "diff")
        assert (facts[b"d"]["uid"], facts[b"d"]["gid"]) == (SUBIDS + 4, SUBIDS + 5)
        assert (facts[b"d/file"]["uid"], facts[b"d/file"]["mode"]) == (SUBIDS + 999, "-rwsr-xr-x")
        assert facts[b"o"]["uid"] == USER
        assert facts[b"l"]["uid"] == SUBIDS + 6
        # Capabilities that count for the namespace's root only. Source: capabilities(7), revision 3
        assert facts[b"d/capable"]["xattrs"]["security.capability"][-4:] == USER.to_bytes(4, "little")
        assert b"null" not in facts
        upper = layers / chain[1].replace(":", "-") / "diff"
        if name == "btrfs":
            assert not (upper / "gone").exists()
            assert os.listdir(upper / "o") == ["new"]
        else:
            assert (upper / "gone").is_char_device()
            assert os.getxattr(upper / "o", "user.overlay.opaque") == b"y"
        assert (upper / "d").stat().st_uid == SUBIDS + 4
        if plan[0]["type"] != "bind":
            changed = Path(plan[0]["upper"]) / "added"
        else:
            root = Path(plan[0]["source"])
            assert set(tree_facts(root)) == {b"d", b"d/file", b"d/capable", b"d/more", b"o", b"o/new", b"l"}
            assert (root / "d/more").stat().st_uid == SUBIDS + 8
            changed = root / "added"
        changed.write_bytes(b"")
        os.chown(changed, SUBIDS, SUBIDS)
        print("looked", file=user.stdin, flush=True)
        assert json.loads(user.stdout.readline()) == ["A /added"]
        left = json.loads(user.stdout.readline())
        assert [path for path in left if "/layers/" in path or path.startswith("kept/")] == []
        assert user.wait() == 0
