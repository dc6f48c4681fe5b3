"""The two runtimes of a comparison, each in namespaces of its own that end with the test, whatever it has started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case, Group

TOP = Path(__file__).resolve().parents[2]
# crun before 1.15 refuses the hybrid mode of cgroups. podman keeps locks in /dev/shm and more in /run for the whole machine.
SET_UP = (
    "umount /sys/fs/cgroup/unified 2>/dev/null; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm; "
    "ip link set lo up; echo $$; exec cat"
)
# A line that takes longer than this hangs; nothing that passes comes near to it.
PATIENCE_S = 60
# Root may lack the right to podman's own limits.
PODMAN_CONFIG = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""


@dataclass(frozen=True)
class Said:
    """What came of one line. ``looked`` is what ``inspect`` says, by path."""

    status: int
    stdout: str
    stderr: str
    looked: dict[str, Any]


@contextmanager
def machine(set_up: str) -> Iterator[list[str]]:
    """A network, process and mount namespace of its own: what a command line must begin with to run in there.

    Every process in it ends with the block.
    """
    unshare = ["unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    with subprocess.Popen(
        [*unshare, "sh", "-c", set_up], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline()
            (pid,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            yield ["nsenter", "-t", pid, "-m", "-n", "-p"]
        finally:
            holder.kill()


class Hand:
    """One of the two: ``command`` is what its lines begin with, ``folder`` what ``{dir}`` stands for."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self.folder = folder
        self.environment = os.environ | environment

    def __call__(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        with ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write((stdin or "").encode())
            files[0].seek(0)
            status = self._run(list(words), [file.fileno() for file in files])
            for file in files:
                file.seek(0)
            out, err = (file.read().decode(errors="backslashreplace") for file in files[1:])
        return subprocess.CompletedProcess(words, status, out, err)

    def _run(self, words: list[str], files: list[int]) -> int:
        """Run the line with ``files`` as its streams; its exit status."""
        command = ["timeout", "-s", "ALRM", str(PATIENCE_S), *self.command, *words]
        done = subprocess.run(
            command, stdin=files[0], stdout=files[1], stderr=files[2], env=self.environment, cwd=self.folder
        )
        return done.returncode

    def check(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def play(self, case: Case) -> Said:
        done = self(*case.words(str(self.folder)), stdin=case.stdin)
        looked: dict[str, Any] = {}
        if case.look:
            name, _, paths = case.look.partition(":")
            (document,) = json.loads(self.check("inspect", name))
            document = json.loads(json.dumps(document).replace(str(self.folder), "{dir}"))
            looked = {path: at(document, path) for path in paths.split()}
        out, err = (text.replace(str(self.folder), "{dir}") for text in (done.stdout, done.stderr))
        out = out.replace("localhost/", "")  # podman's registry of what has none
        # netavark's DNS server says so where there is no /dev/log.
        err = err.replace("failed to connect to syslog: Initialization\n", "")
        return Said(done.returncode, case.normal(out), err, looked)

    def tidy(self, group: Group) -> None:
        now = ["-t", "0", "--ignore"] if self.name == "podman" else []
        if group.containers:
            self("rm", "-f", "-v", *now, *group.containers)
        if group.networks:
            self("network", "rm", *group.networks)
        if group.volumes:
            self("volume", "rm", *group.volumes)


class Served(Hand):
    """A hand whose lines run in forks of a process that has imported what they need: see server.py."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        super().__init__(name, command, folder, environment)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(2 * PATIENCE_S)
        with theirs:
            self._server = subprocess.Popen(
                [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=self.environment, cwd=folder
            )

    def _run(self, words: list[str], files: list[int]) -> int:
        message = json.dumps({"words": words, "folder": str(self.folder), "patience_s": PATIENCE_S}).encode()
        socket.send_fds(self._channel, [message], files)
        return int(self._channel.recv(100))

    def close(self) -> None:
        self._channel.close()
        assert self._server.wait(30) == 0


def at(document: Any, path: str) -> Any:
    """The value at a dotted path, or None. What podman 4 writes in a way of its own is put in docker's."""
    for name in path.split("."):
        if isinstance(document, list):
            document = [one.get(name) for one in document]
        else:
            document = (document or {}).get(name)
    if path == "Config.Entrypoint" and isinstance(document, list):
        return " ".join(document)
    if path in ("Name", "Id"):
        return str(document).lstrip("/")
    return document or None  # empty lists and null are the same to whoever reads them


@contextmanager
def podman(home: Path, layouts: dict[str, str]) -> Iterator[Hand]:
    """podman with a store of its own below ``home``, with images by name from OCI layouts."""
    home.mkdir()
    (folder := home / "dir").mkdir()
    (home / "conf").write_text(PODMAN_CONFIG)
    before = set(_groups())
    with machine(SET_UP) as inside:
        command = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/run", "--tmpdir", f"{home}/tmp"]
        hand = Hand(
            "podman",
            [*inside, *command, "--storage-driver", "overlay"],
            folder,
            {"CONTAINERS_CONF": str(home / "conf")},
        )
        for name, source in layouts.items():
            hand.check("tag", hand.check("pull", "-q", source).strip(), name)
        yield hand
    for group in sorted(set(_groups()) - before, reverse=True):
        with suppress(OSError):
            group.rmdir()


def _groups() -> Iterator[Path]:
    """podman's control groups."""
    # Others make and remove groups meanwhile, which only this walk takes as it comes.
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        if "libpod_parent" in folder.split("/"):
            yield Path(folder)


@contextmanager
def cellwall(home: Path, layouts: dict[str, str]) -> Iterator[Hand]:
    """The same of this checkout's command line."""
    home.mkdir()
    (folder := home / "dir").mkdir()
    environment = {"CELLWALL_ROOT": str(home / "root"), "PYTHONPATH": str(TOP / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    with machine("ip link set lo up; echo $$; exec cat") as inside:
        command = [*inside, sys.executable, str(Path(__file__).with_name("server.py"))]
        with closing(Served("cellwall", command, folder, environment)) as hand:
            for name, source in layouts.items():
                hand.check("pull", "-q", source)
                hand.check("tag", source, name)
            yield hand
