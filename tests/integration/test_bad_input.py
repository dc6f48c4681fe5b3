"""What a mistake with containers, volumes and networks is answered with: the status, and one line that says what is wrong and what mends it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..peer import hands
from ..peer.hands import Hand
from ..registries import busybox_image, write_layout
from ..waiting import until

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static", "bridge-links", "nftables-nat")

# Run in order before the mistakes: what they are mistakes about.
SET_UP = (
    "network create --subnet 10.88.1.0/29 small",
    "network create --subnet 10.88.2.0/30 tiny",
    "volume create data",
    "run -d --name web --network small --ip 10.88.1.2 -p 127.0.0.1:8081:80 --stop-signal KILL -v data:/d box:1 sleep 1000",
    "run -d --name last --network tiny --stop-signal KILL box:1 sleep 1000",
    "run -d --name deaf box:1 sh -c 'trap : TERM; echo set; while :; do sleep 0.1; done'",
    "run --name linker box:1 sh -c 'ln -s /proc /toproc; ln -s ../../../.. /up; ln -s /proc/self/root/.. /out; ln -s /none /dangling'",
    "commit linker linked:1",
)

# The line, the status, what is said.
MISTAKES = (
    # a port in use, by whom
    ("run --rm -p 127.0.0.1:8081:80 box:1 true", 125, "port 8081/tcp of 127.0.0.1 is in use by container web: take another with -p, or stop it"),
    ("run --rm -p 8081:80 box:1 true", 125, "port 8081/tcp of 0.0.0.0 is in use by container web: take another with -p, or stop it"),
    ("run --rm -p 8085:80 box:1 true", 125, "port 8085/tcp of 0.0.0.0 is in use by python3 (pid N): take another with -p, or end it"),
    ("run -d --name never -p 8085:80 box:1 true", 125, "port 8085/tcp of 0.0.0.0 is in use by python3 (pid N): take another with -p, or end it"),
    ("run --rm -p 70000:80 box:1 true", 125, "--publish: '70000:80': 70000 is no port; 1 to 65535 are"),
    # a name in use
    ("run --name web box:1 true", 125, "the name web is taken by container ID: remove it (cellwall rm web) or take another name"),
    ("create --name web box:1 true", 1, "the name web is taken by container ID: remove it (cellwall rm web) or take another name"),
    ("network create small", 1, "the name small is taken by a network: remove it (cellwall network rm small) or take another name"),
    # a relative host path
    (
        "run --rm -v some/folder:/x box:1 true", 125,
        "--volume: 'some/folder:/x': 'some/folder' is neither a path (absolute, or relative with a leading ./) nor a volume's name "
        "(letters, digits and _.-, at least two)",
    ),
    ("run --rm --mount type=bind,source=folder,target=/x box:1 true", 125,
     "--mount: 'type=bind,source=folder,target=/x': the source 'folder' must be absolute, or relative with a leading ./"),
    ("run --rm -v ./gone:/x box:1 true", 125, "--volume: no folder {dir}/gone on this machine: make it first (mkdir -p {dir}/gone), it isn't made by itself"),
    # a volume in use
    ("volume rm data", 1, "volume data is in use by container web: remove that first (cellwall rm web)"),
    # an unknown signal
    ("kill -s NOSUCH web", 125, "--signal: 'NOSUCH' isn't a signal; write its name or a number from 1 to 64"),
    ("stop -s 99 web", 125, "--signal: '99' isn't a signal; write its name or a number from 1 to 64"),
    ("run --rm --stop-signal NOSUCH box:1 true", 125, "--stop-signal: 'NOSUCH' isn't a signal; write its name or a number from 1 to 64"),
    # an address outside the subnet, one that is taken, the last one taken
    ("run --rm --network small --ip 10.9.9.9 box:1 true", 125, "--ip 10.9.9.9: not an address of network small, whose subnet is 10.88.1.0/29"),
    ("run --rm --network small --ip 10.88.1.2 box:1 true", 125, "--ip 10.88.1.2: container web has that address on network small: take another"),
    ("run --rm --network small --ip 10.88.1.1 box:1 true", 125, "--ip 10.88.1.1: that is the gateway of network small: take another address"),
    ("run --rm --network tiny box:1 true", 125, "network tiny has no free address left in 10.88.2.0/30: stop a container on it, or make a network with a larger subnet"),
    ("run --rm --ip 10.88.1.3 box:1 true", 125, "--ip: needs a network to be on: --network bridge or a network's name, not none"),
    ("network create --subnet 10.88.1.0/24 over", 1, "--subnet 10.88.1.0/24 overlaps 10.88.1.0/29 of network small: take another"),
    ("network rm small", 1, "network small is used by web, and this needs it unused: stop or disconnect them first"),
    # a mount over /proc, or outside of the root through links or ..
    ("run --rm -v {dir}:/proc box:1 true", 125, "--volume: /proc: nothing can be mounted over /proc, which the kernel makes for the container"),
    ("run --rm -v {dir}:/x/../proc/sys box:1 true", 125, "--volume: /proc/sys: nothing can be mounted over /proc, which the kernel makes for the container"),
    ("run --rm --tmpfs /proc box:1 true", 125, "--tmpfs: /proc: nothing can be mounted over /proc, which the kernel makes for the container"),
    ("run --rm -v {dir}:/toproc linked:1 true", 125, "mount point /toproc: it leads to /proc, which nothing can be mounted over"),
    ("run --rm -v {dir}:/toproc/x linked:1 true", 125,
     "mount point /toproc/x: it isn't there, and can't be made (no such file or directory): name a folder of the image's own"),
    ("run --rm -v {dir}:/out/x linked:1 true", 125, "mount point /out/x: a link of the image leads out of the container there"),
    ("run --rm -v {dir}:/dangling linked:1 true", 125, "mount point /dangling: dangling is a link that leads nowhere in the image"),
    ("run --rm -v {dir}:/ box:1 true", 125, "--volume: '{dir}:/': the container's root can't be mounted over"),
    ("run --rm -v {dir}:/dev box:1 true", 125, "what is mounted over /dev has no null, which hides files of /proc: mount below /dev instead"),
    # containers that aren't there
    ("run --rm --volumes-from nosuch box:1 true", 125, "--volumes-from: no container nosuch: cellwall ps -a lists them"),
    ("run --rm --volumes-from web:nosuch box:1 true", 125, "--volumes-from: 'web:nosuch': the mode 'nosuch' isn't known; ro, rw and z are"),
    ("run --rm --network container:nosuch box:1 true", 125, "no container nosuch: cellwall ps -a lists them"),
    ("run --rm --network nosuch box:1 true", 125, "no network nosuch: cellwall network ls lists them, network create makes one"),
)  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Iterator[Hand]:
    """The command line, with what the mistakes are about."""
    with tempfile.TemporaryDirectory(prefix="cw-", dir="/tmp") as name:
        layout = write_layout(Path(name, "layout"), {"latest": busybox_image()})
        with hands.cellwall(Path(name, "c"), {"box:1": f"oci:{layout}:latest"}) as hand:
            try:
                for line in SET_UP:
                    hand.check(*shlex.split(line))
                yield hand
            finally:
                hand("rm", "-f", "-v", "web", "last", "deaf", "linker", "never")
                hand("network", "rm", "small", "tiny")
                hand("volume", "rm", "data")


def test_each_mistake_is_told(made: Hand) -> None:
    inside = made.command[: made.command.index(sys.executable)]
    listen = "import socket; s = socket.create_server(('', 8085)); print(flush=True); input()"
    wrong = []
    with subprocess.Popen(
        [*inside, "python3", "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for line, status, says in MISTAKES:
            done = made(*shlex.split(line.replace("{dir}", str(made.folder))))
            said = done.stderr.replace(str(made.folder), "{dir}")
            said = re.sub(r"\b[0-9a-f]{12}\b", "ID", re.sub(r"pid \d+", "pid N", said))
            if (done.returncode, said, done.stdout) != (status, f"cellwall: {says}\n", ""):
                wrong.append(f"{line}\n    {done.returncode} {said}    expected {status} {says}")
        other.communicate("\n")
    assert "\n".join(wrong) == ""
    # Nothing of what was refused is left, but for what -d has made and couldn't start: that stays, as docker's.
    left = made.check("ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines()
    assert sorted(left) == ["deaf running", "last running", "linker exited", "never exited", "web running"]


def test_a_mount_never_leaves_the_root(made: Hand) -> None:
    for target, shown in (("/../../etc/out", "/etc/out"), ("/up/zzz", "/zzz"), ("/a/../../b", "/b")):
        image = "linked:1" if target.startswith("/up") else "box:1"
        seen = made.check("run", "--rm", "-v", f"{made.folder}:{target}", image, "sh", "-c", f"ls -d {shown}")
        assert seen == f"{shown}\n"
    assert not any(os.path.exists(path) for path in ("/etc/out", "/zzz", "/b"))


def test_a_stop_that_is_ignored_kills_and_says_so(made: Hand) -> None:
    until(lambda: made.check("logs", "deaf") == "set\n", "its trap")
    done = made("stop", "-t", "1", "deaf")
    assert (done.returncode, done.stdout) == (0, "deaf\n")
    assert done.stderr == "cellwall: container deaf didn't end within 1 s of SIGTERM, so it was killed\n"
    assert made.check("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "deaf") == "exited 137\n"
    done = made("stop", "-t", "1", "web")  # its stop signal is SIGKILL: nothing to tell
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("--network", "bridge"), ("-p", "8099:80")])
def test_without_the_right_to_networks(made: Hand, words: tuple[str, ...]) -> None:
    inside = made.command[: made.command.index(sys.executable)]
    less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        [*inside, *less, sys.executable, "-m", "cellwall", "run", "--rm", *words, "box:1", "true"],
        env=made.environment,
        cwd=made.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    assert done.stderr == (
        "cellwall: this process may not change nftables (CAP_NET_ADMIN): run as root of the machine, or take --network host\n"
    )
