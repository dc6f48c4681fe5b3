"""A docker daemon for a benchmark: with a store of its own, in a mount namespace of its own, ended with whoever started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peers import Skipped, remove_groups

if TYPE_CHECKING:
    from peers import Lineup

# Debian's, also where another one comes first in the path.
CLIENT = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
_START_S = 30.0


# What a daemon keeps for the whole machine goes with its mount namespace.
_OWN_FOLDERS = 'mount -t tmpfs tmpfs /run; [ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker; exec "$@"'


def start_daemon(lineup: Lineup, name: str) -> str | None:
    """The socket of a daemon with a store of its own that ends with this; None where it doesn't start, which is noted."""
    # Containerd's sockets lie deep below it, and their names may have 107 bytes.
    home = Path("/tmp", lineup.group)
    # Of its own, for dockerd leaves a parent without processors or memory nodes, in which crun can't start anything.
    lineup.stack.callback(lambda: remove_groups(Path("/sys/fs/cgroup").glob(f"*/{lineup.group}-docker")))
    home.mkdir(mode=0o700)
    lineup.stack.callback(shutil.rmtree, home)
    (home / "none.json").write_text("{}")
    command = [
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec", _OWN_FOLDERS, "sh"),
        *(
            "dockerd",
            "--config-file",
            f"{home}/none.json",
            "--data-root",
            f"{home}/data",
            "--exec-root",
            f"{home}/exec",
        ),
        *("--pidfile", f"{home}/pid", "-H", f"unix://{home}/d.sock", "--cgroup-parent", f"/{lineup.group}-docker"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    with open(home / "log", "wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    lineup.stack.callback(_end, daemon)
    deadline = time.monotonic() + _START_S
    while "API listen on" not in (home / "log").read_text(errors="replace"):
        if daemon.poll() is not None or time.monotonic() > deadline:
            lines = (home / "log").read_text(errors="replace").strip().splitlines()
            lineup.skipped.append(Skipped(name, f"dockerd doesn't start: {lines[-1] if lines else 'it said nothing'}"))
            return None
        time.sleep(0.05)
    return f"{home}/d.sock"


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(_START_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def with_rootfs(lineup: Lineup, name: str, image: str) -> list[str] | None:
    """The beginning of a client's words, for a daemon that has the line-up's root as ``image``; None where it can't be had, which is noted."""
    if lineup.missing(name, "dockerd", root=True) or lineup.missing(name, CLIENT):
        return None
    socket = start_daemon(lineup, name)
    if socket is None:
        return None
    archive = lineup.scratch / "rootfs.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(lineup.rootfs, arcname=".")
    start = [CLIENT, "-H", f"unix://{socket}"]
    try:
        lineup.here.check(*start, "import", "--change", "ENV PATH=/bin", str(archive), image)
    except RuntimeError as error:
        lineup.skipped.append(Skipped(name, str(error)))
        return None
    return start
