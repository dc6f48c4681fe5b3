"""kill -9 of whoever makes or holds a container's networks, at any moment: the next command leaves the host as it was before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from ..network_namespaces import Cellwall, Namespace, linked, made
from ..registries import busybox_image, write_layout

pytestmark = [pytest.mark.soak, pytest.mark.needs("root", "nft", "ip", "bridge-links", "nftables-nat")]

ROUNDS = 60
# What the command lines of each kind hold.
KINDS = {
    "worker": (b"network.worker",),
    "launcher": (b"cellwall-launcher", b"runtime.launcher."),
    "command": (b"-m\0cellwall",),
}


def kill(host: Namespace, kind: str) -> None:
    """Kill every process of that kind in the namespace, or all of them."""
    patterns = KINDS.get(kind) or tuple(pattern for patterns in KINDS.values() for pattern in patterns)
    inode = os.fstat(host.fd).st_ino
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.stat(f"{folder}/ns/net").st_ino != inode:
                continue
            if any(pattern in (folder / "cmdline").read_bytes() for pattern in patterns):
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:  # it ended meanwhile
            continue


@pytest.mark.timeout(600)
def test_nothing_is_left_whoever_is_killed_whenever(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    image = f"oci:{write_layout(tmp_path, {'latest': busybox_image()})}:latest"
    root = Path(tempfile.mkdtemp(prefix="cw-kills-", dir="/tmp"))
    with made() as host, made() as client:
        linked(host, client, "up0", {"192.0.2.1/24": "192.0.2.2/24"})
        cellwall = Cellwall(host, root)
        cellwall("run", "--rm", image, "true")
        before = host.facts()
        for number in range(ROUNDS):
            kept = chance.choice((["-d"], ["--rm"]))
            words = cellwall.words(
                "run", *kept, "--name", "victim", "-p", "8080:80", "-p", "53:53/udp", image, "sleep", "0.3"
            )
            process = host.popen(words, cellwall.environment)
            # The moment is by chance, and any will do.
            time.sleep(chance.uniform(0.1, 1.2))
            kind = chance.choice((*KINDS, "all"))
            kill(host, kind)
            process.communicate(timeout=60)
            cellwall("ps", "-a")
            cellwall("rm", "-f", "victim", status=None)
            told = (seed, number, kind, kept)
            assert host.facts() == before, told
            assert list((root / "run/networks").glob("*/*")) == [], told
    shutil.rmtree(root)
