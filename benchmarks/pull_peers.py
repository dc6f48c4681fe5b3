"""Who pulls: cellwall on its storage drivers, podman, docker; each with a store of its own in one scratch folder.

What is timed are commands as they are typed, so each has the start of its program in it; docker's daemon runs already.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from peers import Skipped, remove_groups
from pull_image import NUMPY
from spawner import Spawner

PODMAN = "podman"
DOCKER = "docker"
# Of cellwall's drivers; the others copy, or need another filesystem.
DRIVERS = ("erofs", "overlay")
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Puller:
    """The commands of one peer. ``store`` is removed after each round; None: what the peer itself removes must do."""

    name: str
    where: Spawner
    pull: list[str]
    true: list[str]
    numpy: list[str]
    remove: list[str]
    environment: dict[str, str]
    store: Path | None
    note: str


class Pullers:
    """All peers; closing it ends their processes, mounts and control groups."""

    def __init__(self, scratch: Path, image: str) -> None:
        self.scratch = scratch
        self.image = image
        self.group = f"cellwall-bench-{os.getpid()}"
        self.stack = ExitStack()
        self.peers: list[Puller] = []
        self.skipped: list[Skipped] = []
        self.default = ""

    def assemble(self) -> None:
        self._cellwall()
        self._podman()
        self._docker()

    def close(self) -> None:
        self.stack.close()
        remove_groups([*Path("/sys/fs/cgroup").glob(self.group), *Path("/sys/fs/cgroup").glob(f"*/{self.group}")])

    def shown(self, argv: list[str]) -> str:
        text = shlex.join(argv).replace(str(self.scratch), "$SCRATCH").replace(self.image, "$IMAGE")
        return text.replace(f"{sys.executable} -m ", "")

    def _spawner(self, name: str, *unshare: str) -> Spawner:
        made = Spawner(str(self.scratch), name, unshare=unshare)
        self.stack.callback(made.close)
        return made

    def _cellwall(self) -> None:
        from cellwall.runtime.paths import Paths
        from cellwall.runtime.storage.driver import open_driver

        probed = self.scratch / "probed"
        chosen = open_driver(None, Paths(probed, probed / "run")).name
        where = self._spawner("cellwall", "--mount", "--propagation", "private")
        start = [sys.executable, "-m", "cellwall"]
        for driver in (chosen, *(other for other in DRIVERS if other != chosen)):
            name = f"cellwall, {driver}" + (" (the default)" if driver == chosen else "")
            self.default = self.default or name
            store = self.scratch / f"cellwall-{driver}"
            environment = {"CELLWALL_ROOT": str(store)}
            if driver != chosen:
                environment["CELLWALL_STORAGE_DRIVER"] = driver
            run = [*start, "run", "--rm", self.image]
            self.peers.append(
                Puller(
                    name,
                    where,
                    [*start, "pull", "--quiet", self.image],
                    [*run, "/bin/true"],
                    [*run, *NUMPY],
                    [*start, "rmi", self.image],
                    environment,
                    store,
                    "a new Python process each time; blobs, archives and indexes are synced before it ends",
                )
            )

    def _podman(self) -> None:
        if shutil.which("podman") is None:
            self.skipped.append(Skipped(PODMAN, "podman is not installed"))
            return
        # As in peers.py: what podman keeps for the whole machine, and what crun 1.8 can't bear.
        where = self._spawner("podman", "--mount", "--propagation", "private")
        if os.path.ismount("/sys/fs/cgroup/unified"):
            where.check("umount", "/sys/fs/cgroup/unified")
        for folder in ("/run", "/dev/shm"):
            where.check("mount", "-t", "tmpfs", "tmpfs", folder)
        home = self.scratch / "podman"
        start = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/runroot", "--tmpdir", f"{home}/tmp"]
        start += ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--cgroup-parent", f"/{self.group}"]
        run = [*start, "run", "--rm", "--network", "none", "--log-driver", "k8s-file", *limits, self.image]
        self.peers.append(
            Puller(
                PODMAN,
                where,
                [*start, "pull", "--quiet", "--tls-verify=false", self.image],
                [*run, "/bin/true"],
                [*run, *NUMPY],
                [*start, "rmi", self.image],
                {},
                home,
                "overlay",
            )
        )

    def _docker(self) -> None:
        missing = [program for program in ("docker", "dockerd", "containerd") if shutil.which(program) is None]
        if missing:
            self.skipped.append(Skipped(DOCKER, f"{', '.join(missing)} not installed"))
            return
        home = self.scratch / "docker"
        home.mkdir()
        socket = f"unix://{home}/s"
        daemon = [
            "dockerd", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "--pidfile", f"{home}/pid",
            "--host", socket, "--bridge", "none", "--iptables=false", "--storage-driver", "overlay2",
            "--cgroup-parent", f"/{self.group}",
        ]  # fmt: skip
        # Whatever it starts ends with its process namespace.
        unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = 'mount -t tmpfs tmpfs /run && exec "$@"'
        with open(home / "log", "wb") as log:
            process = subprocess.Popen(
                [*unshare, "sh", "-c", script, "sh", *daemon],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.stack.callback(_end, process)
        where = self._spawner("docker")
        start = ["docker", "--host", socket]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while where.run([*start, "version"])[1]:
            if process.poll() is not None or time.monotonic() > deadline:
                lines = (home / "log").read_text().strip().splitlines() or ["it said nothing"]
                self.skipped.append(Skipped(DOCKER, f"dockerd doesn't start: {lines[-1]}"))
                return
            time.sleep(0.2)
        run = [*start, "run", "--rm", "--network", "none", self.image]
        self.peers.append(
            Puller(
                DOCKER,
                where,
                [*start, "pull", "--quiet", self.image],
                [*run, "/bin/true"],
                [*run, *NUMPY],
                [*start, "rmi", self.image],
                {},
                None,
                "overlay2; its daemon runs already and keeps its store",
            )
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask dockerd to end, and let the kernel end it and its children where it doesn't."""
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            children = file.read().split()
    except FileNotFoundError:
        children = []
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
