"""Docker with a daemon of its own, started by hand: what it unpacks and runs is compared with what cellwall does.

The daemon sees its own /run and /etc/docker, keeps its data in a folder of ours, and makes no bridge, no firewall rule and no
forwarding. It shares the network, so it reaches a registry on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellwall.runtime.linux.mounts import MNT_DETACH, MS_RDONLY, mount, umount2

_START_TIMEOUT_S = 60.0
_PRIVATE = 'mount -t tmpfs tmpfs /run; [ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker; exec "$@"'


@dataclass(frozen=True)
class Docker:
    """The command line of a running daemon."""

    home: Path

    def __call__(self, *words: str, status: int = 0) -> str:
        """What ``docker WORDS…`` prints. Fails the test where it ends with another status."""
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.home}/d.sock", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "DOCKER_CONFIG": str(self.home / "config")},
        )
        assert done.returncode == status, f"docker {' '.join(words)}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout.strip()

    @contextmanager
    def tree(self, image: str) -> Iterator[Path]:
        """The root of an image that is here, as docker unpacked it: its layers' folders under overlayfs."""
        layers = json.loads(self("image", "inspect", "-f", "{{json .GraphDriver.Data}}", image))
        lowers = [layers["UpperDir"], *filter(None, layers.get("LowerDir", "").split(":"))]
        # Overlayfs takes one lower only with an upper.
        empty, point = self.home / "empty", self.home / "tree"
        empty.mkdir(exist_ok=True)
        point.mkdir(exist_ok=True)
        mount("overlay", str(point), "overlay", MS_RDONLY, f"lowerdir={':'.join([*lowers, str(empty)])}")
        try:
            yield point
        finally:
            umount2(str(point))


@contextmanager
def run_dockerd() -> Iterator[Docker]:
    """A daemon with a store of its own; ended, and its store removed, when the block ends."""
    # Short, for containerd's sockets lie deep below it.
    home = Path(tempfile.mkdtemp(prefix="cwd-", dir="/tmp"))
    command = [
        # It ends with its tests, also where these are killed.
        *("setpriv", "--pdeathsig", "TERM"),
        *("unshare", "--mount", "sh", "-ec", _PRIVATE, "sh", "dockerd", "--config-file", str(home / "none.json")),
        *("--data-root", str(home / "data"), "--exec-root", str(home / "exec"), "--pidfile", str(home / "pid")),
        *("-H", f"unix://{home}/d.sock", "--cgroup-parent", f"/{home.name}", "--storage-driver", "overlay2"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    (home / "none.json").write_text("{}")
    log = home / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        docker = Docker(home)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (home / "d.sock").exists() or "API listen on" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"dockerd doesn't start on this machine: {log.read_text()[-1000:]}")
            time.sleep(0.05)
        yield docker
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _remove_groups(home.name)
        for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
            if line.split()[4].startswith(f"{home}/"):
                umount2(line.split()[4], MNT_DETACH)
        shutil.rmtree(home)


def _remove_groups(name: str) -> None:
    """The empty control groups of that name: dockerd leaves the parent that it was given."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        group = Path(fields[4], name)
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2") and group.is_dir():
            group.rmdir()


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root: dockerd runs as root"
    absent = [program for program in ("dockerd", "docker") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}; sudo apt install docker.io" if absent else ""


@pytest.fixture(scope="session")
def docker_or_none() -> Iterator[Docker | None]:
    """Docker with an empty store, for the whole session, where it is installed; give images names of the test's own."""
    if _missing():
        yield None
        return
    with run_dockerd() as running:
        yield running


@pytest.fixture(scope="session")
def docker(docker_or_none: Docker | None) -> Docker:
    """Docker, for tests that are about nothing else."""
    if docker_or_none is None:
        pytest.skip(_missing())
    return docker_or_none
