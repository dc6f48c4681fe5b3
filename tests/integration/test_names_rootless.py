"""Networks of an ordinary user: through slirp4netns and through pasta, with names, ports, and nothing left when the launcher is killed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.interrupts import readable
from cellwall.runtime.probes.commands import find

from ..devices import for_everybody
from ..network_world import GOOD, World
from ..registries import busybox_image, write_layout
from ..waiting import PATIENCE_S
from .test_names_containers import LOOK, USUAL
from .test_rootless import SOURCE, user_with_subordinate_ids

pytestmark = pytest.mark.needs("root", "user-namespaces", "overlay-userns", "busybox-static")


class User:
    """The command line of an ordinary user on the machine of a World. ``without`` are programs that aren't there for it."""

    def __init__(self, world: World, home: Path, account: pwd.struct_passwd, without: list[str]) -> None:
        self.world = world
        self.home = home
        self.image = f"oci:{home}/image:latest"
        hidden = "".join(f"mount --bind /dev/null {path} && " for path in map(find, without) if path)
        environment = [
            f"PATH={os.environ['PATH']}",
            f"HOME={home}",
            f"XDG_RUNTIME_DIR={home}/run",
            f"CELLWALL_ROOT={world.root}/s",
            f"PYTHONPATH={home}:{os.pathsep.join(p for p in sys.path if p.endswith('site-packages'))}",
            "PYTHONDONTWRITEBYTECODE=1",
        ]
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        # Unlike runuser it becomes the command, so that killing it kills that.
        become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        run = [*become, "env", "-i", *environment, python, "-m", "cellwall"]
        self.words = ["sh", "-c", f'{hidden}cd / && exec "$@"', "sh", *run]

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.world.command(*self.words, *words),
            pass_fds=[self.world.machine.fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cellwall(self, *words: str, status: int = 0) -> str:
        process = self.popen(*words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, f"{words}: status {process.returncode}\n{out}{err}"
        return err if status else out


@pytest.fixture
def user(request: pytest.FixtureRequest, tmp_path: Path, cellwall_root: Path) -> Iterator[User]:
    account = user_with_subordinate_ids()
    home = Path(tempfile.mkdtemp(prefix="cw-user-", dir="/tmp"))
    # The checkout may lie where that user can't read.
    shutil.copytree(SOURCE / "runtime", home / "cellwall" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(SOURCE / name, home / "cellwall")
    (home / "run").mkdir()
    write_layout(home / "image", {"latest": busybox_image()})
    for top in (home, cellwall_root):
        for folder, _, _ in os.walk(top):
            os.chown(folder, account.pw_uid, account.pw_gid)
    world = World(tmp_path, cellwall_root)
    yield User(world, home, account, list(getattr(request, "param", ())))
    world.close()
    shutil.rmtree(home)


def endpoints(user: User) -> list[dict[str, Any]]:
    """What running containers have on networks, as it is on disk."""
    return [json.loads(path.read_bytes()) for path in (user.world.root / "s/run/networks").glob("*/*.json")]


def get(user: User, address: str, port: int) -> str:
    code = (
        f"import urllib.request as u; print(u.urlopen('http://{address}:{port}/', timeout=60).read().decode(), end='')"
    )
    return user.world.machine.run(sys.executable, "-I", "-c", code)


PROGRAMS = [
    pytest.param((["pasta"]), id="slirp4netns", marks=pytest.mark.needs("slirp4netns")),
    pytest.param((["slirp4netns"]), id="pasta", marks=pytest.mark.needs("pasta")),
]


@pytest.mark.parametrize("user", PROGRAMS, indirect=True)
def test_a_network_of_its_own(user: User, request: pytest.FixtureRequest) -> None:
    for_everybody("/dev/net/tun")
    slirp = "slirp4netns" in request.node.name
    flags = ["--network", "bridge", "--hostname", "me"]
    if slirp:
        flags += ["--add-host", "up:host-gateway"]
    show = 'cat /etc/hosts; echo; cat /etc/resolv.conf; echo; sh -c "$0" sh me good.test nowhere.test; wget -qO- http://good.test:8080/; '
    # A server that listens on the machine's loopback alone is out of reach.
    show += "for a in 127.0.0.1 10.0.2.2; do wget -T2 -qO- http://$a:8080/ 2>/dev/null && echo reached $a; done; true"
    told = user.cellwall("run", "--rm", *flags, user.image, "sh", "-c", show, LOOK)
    hosts, resolv, rest = told.split("\n\n")
    address = "10.0.2.100" if slirp else "198.51.100.1"
    up = "198.51.100.1\tup\n" if slirp else ""
    assert hosts + "\n" == f"{USUAL}{up}{address}\tme\n"
    assert resolv == "nameserver 127.0.0.11\nsearch machine.test\noptions timeout:3 ndots:0"
    assert rest.splitlines() == [f"me {address}", f"good.test {GOOD}", "nowhere.test -", f"reached {GOOD}:8080"]

    # Ports, also of a container in the background; a second one that wants the same; all gone at the end.
    serve = "mkdir /w; hostname >/w/index.html; httpd -p 80 -h /w && httpd -p 81 -h /w && echo up >/dev/stdout; exec sleep 1000"
    ports = ("-p", "127.0.0.1:18080:80", "-p", "18081:81")
    process = user.popen("run", "--name", "web", *flags, *ports, user.image, "sh", "-c", serve)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    try:
        assert get(user, "127.0.0.1", 18080) == get(user, "198.51.100.1", 18081) == "me\n"
        error = user.cellwall("run", "--rm", *ports, user.image, "true", status=125)
        assert "port 18080/tcp of 127.0.0.1 is in use by container web" in error
        (endpoint,) = endpoints(user)
        network = json.loads(user.cellwall("inspect", "web"))[0]["NetworkSettings"]["Networks"]["bridge"]
        assert network["IPAddress"] == address
        # Another one in its network: its server on the loopback interface, its files, its interfaces.
        look = ("sh", "-c", "wget -qO- http://127.0.0.1/; tail -n1 /etc/hosts; ls /sys/class/net")
        joined = user.cellwall("run", "--rm", "--network", "container:web", user.image, *look)
        assert joined.splitlines() == ["me", f"{address}\tme", *sorted(["lo", endpoint["interface"]])]

        # Killed with everything that was its own.
        (state,) = (user.world.root / "s/run/containers").iterdir()
        launcher = json.loads((state / "state.json").read_bytes())["cellwall"]["launcher"]["pid"]
        pidfd = os.pidfd_open(endpoint["helper"]["pid"])
        os.kill(launcher, signal.SIGKILL)
        assert readable(pidfd, PATIENCE_S), "the network's program has outlived its launcher"
        os.close(pidfd)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert endpoints(user) == [endpoint]
    user.cellwall("rm", "-f", "web")
    assert endpoints(user) == []
    user.cellwall("run", "--rm", *ports, user.image, "true")


@pytest.mark.parametrize("user", [["slirp4netns", "pasta"]], indirect=True)
def test_what_an_ordinary_user_cannot_have(user: User) -> None:
    for options, said in (
        (
            ("--network", "bridge"),
            "no program slirp4netns or pasta: sudo apt install slirp4netns, or use --network host",
        ),
        (("-p", "8080:80"), "no program slirp4netns or pasta"),
        (("--network", "lab"), "--network lab as an ordinary user: bridges of one's own need root"),
        (
            ("--network", "egress=good.test"),
            "nothing outside of the container's reach could enforce it: run it as root",
        ),
        (("--network", "bridge", "--ip", "10.0.0.2"), "--ip as an ordinary user: leave it out"),
    ):
        error = user.cellwall("run", "--rm", *options, user.image, "true", status=125)
        assert said in error.splitlines()[-1]
