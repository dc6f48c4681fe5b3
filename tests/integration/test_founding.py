"""The founding text's four lines, as they are typed: in a shell, and in a notebook; with images from a registry on loopback."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .. import founding_images
from ..leaks import Leaks
from ..notebooks.driver import Notebook
from ..peer.hands import machine
from ..registries import free_port, missing_programs, run_registry, write_layout
from ..tree import TOP

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static", "bridge-links", "nftables-nat")

# Where /home is empty but for the folder that the first line names, and there is nothing but loopback.
# With a user `dock` beside those whom the machine has: the checkout may lie with one of them.
SET_UP = """
ip link set lo up
mount --rbind /home /media; mount -t tmpfs tmpfs /home
for one in /media/*; do [ ! -d "$one" ] || { mkdir "/home/${one##*/}"; mount --rbind "$one" "/home/${one##*/}"; }; done
mkdir -p /home/dock/Downloads
echo $$; exec cat
"""
FIRST = "cellwall run -it -v /home/dock/Downloads:/usr/Downloads ubuntu64 /bin/bash"
WEB = "cellwall run -d -P -v /webapp training/webapp python app.py"
DATA = "cellwall run -d -v /dbdata --name=dbdata training/postgres"
NEXT = "cellwall run -d --volumes-from dbdata --name=db1 training/postgres"
READY = "database system is ready to accept connections"


class Host:
    """The machine of the test: ``shell`` runs a line in it, as someone would type it."""

    def __init__(self, inside: list[str], root: Path, environment: dict[str, str]) -> None:
        self.inside = inside
        self.root = root
        self.environment = environment

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def shell(self, line: str) -> str:
        done = self.run("bash", "-c", line)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def typed(self, line: str, keys: str) -> str:
        """Run ``line`` on a terminal, type ``keys`` there; what the terminal showed. Fails where the line does."""
        main_fd, peer_fd = pty.openpty()
        with subprocess.Popen(
            [*self.inside, "setsid", "--ctty", "--wait", "bash", "-c", line],
            env=self.environment,
            stdin=peer_fd,
            stdout=peer_fd,
            stderr=peer_fd,
        ) as process:
            os.close(peer_fd)
            os.write(main_fd, keys.encode())
            shown = b""
            try:
                while data := os.read(main_fd, 65536):
                    shown += data
            except OSError:  # the terminal's last process has ended
                pass
            os.close(main_fd)
        assert process.returncode == 0, shown
        return shown.decode()

    def ready(self, name: str, says: str) -> None:
        """Wait until the server in the container has said that it is ready; its log is followed until then."""
        shown = ""
        with subprocess.Popen(
            [*self.inside, "cellwall", "logs", "-f", name],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as follower:
            assert follower.stdout is not None
            for line in follower.stdout:
                shown += line
                if says in line:
                    follower.terminate()
                    break
            follower.stdout.close()
        assert says in shown, shown


@pytest.fixture(scope="module")
def registry() -> Iterator[Path]:
    """The folder of a registry that has the images."""
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="cellwall-registry-") as name:
        folder = Path(name)
        with run_registry(folder / "registry") as running:
            for image, repository in (
                (founding_images.ubuntu64(), "library/ubuntu64"),
                (founding_images.webapp(), "training/webapp"),
                (founding_images.postgres(), "training/postgres"),
            ):
                layout = write_layout(folder / "layout", {"latest": image})
                running.push(f"oci:{layout}:latest", repository, "--preserve-digests")
                shutil.rmtree(layout)
        yield folder / "registry"


@pytest.fixture
def host(registry: Path, leaks: Leaks | None) -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    port = free_port()
    (root / "config.toml").write_text(
        f'[registries."docker.io"]\nmirrors = ["127.0.0.1:{port}"]\n[registries."127.0.0.1:{port}"]\ninsecure = true\n'
    )
    (root / "bin").mkdir()
    (root / "bin/cellwall").write_text(f'#!/bin/sh\nexec {sys.executable} -m cellwall "$@"\n')
    (root / "bin/cellwall").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{root}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(TOP / "src"),
        "CELLWALL_CONFIG": str(root / "config.toml"),
        "CELLWALL_ROOT": str(root / "state"),
        "HOME": str(root),
    }
    if leaks is not None:
        leaks.own(root)
    with ExitStack() as stack:
        inside = stack.enter_context(machine(SET_UP))
        stack.enter_context(run_registry(registry, port=port, inside=inside))
        yield (made := Host(inside, root, environment))
        made.run("bash", "-c", "cellwall rm -f -v $(cellwall ps -aq)")  # where the test has failed
    if leaks is not None:
        leaks.close(root)
    shutil.rmtree(root)


def everything_goes(host: Host) -> None:
    """Remove all containers; nothing of them is on the machine then."""
    host.shell("cellwall rm -f -v $(cellwall ps -aq)")
    host.shell("cellwall volume prune -f")
    assert host.shell("cellwall ps -aq; cellwall volume ls -q") == ""
    assert [link["ifname"] for link in json.loads(host.shell("ip -j link show type veth"))] == []
    assert "/webapp" not in host.shell("cat /proc/mounts")


def test_in_a_shell(host: Host) -> None:
    shown = host.typed(FIRST, "echo made by $BASH > /usr/Downloads/file; tty; exit\n")
    assert "/dev/pts/0" in shown
    assert host.shell("cat /home/dock/Downloads/file") == "made by /bin/bash\n"
    assert host.shell("stat -c %u:%g /home/dock/Downloads/file") == "0:0\n"

    web = host.shell(WEB).strip()
    assert re.fullmatch("[0-9a-f]{64}", web)
    host.ready(web, "listening")
    (line,) = host.shell(f"cellwall port {web}").splitlines()
    assert line.startswith("5000/tcp -> 0.0.0.0:")
    port = line.rpartition(":")[2]
    assert host.shell(f"busybox wget -qO- http://127.0.0.1:{port}/") == "Hello world!\n"
    name = host.shell("cellwall inspect -f '{{.Name}}' " + web).strip().lstrip("/")
    assert host.shell(f"cellwall run --rm --network bridge ubuntu64 wget -qO- http://{name}:5000/") == "Hello world!\n"
    assert host.shell(f"cellwall exec {web} sh -c 'grep -c \" /webapp \" /proc/mounts'") == "1\n"

    host.shell(DATA)
    host.ready("dbdata", READY)
    host.shell("cellwall exec dbdata psql -c 'create table t (word text)' -c \"insert into t values ('kept')\"")
    host.shell(NEXT)  # it waits for the files, which have one server at a time
    host.shell("cellwall stop dbdata && cellwall rm dbdata")
    host.ready("db1", READY)
    assert host.shell("cellwall exec db1 psql -At -c 'select word from t'") == "kept\n"
    everything_goes(host)


def test_in_a_notebook(host: Host) -> None:
    with Notebook(host.environment, inside=host.inside) as notebook:

        def magic(line: str) -> str:
            cell = notebook.run(line.replace("cellwall ", "%container ", 1))
            assert cell.error is None, (line, cell.shown_error)
            return cell.shown

        assert notebook.run("%load_ext cellwall").error is None
        cell = notebook.start(FIRST.replace("cellwall ", "%container ", 1), typing=True)
        cell.wait_for("# ")
        notebook.type("echo made by $BASH > /usr/Downloads/file; exit")
        assert cell.wait().error is None
        assert host.shell("cat /home/dock/Downloads/file; stat -c %u:%g /home/dock/Downloads/file") == (
            "made by /bin/bash\n0:0\n"
        )
        web = magic(WEB).split()[-1]
        host.ready(web, "listening")
        port = magic(f"cellwall port {web}").strip().rpartition(":")[2]
        shown = notebook.value(f"__import__('urllib.request').request.urlopen('http://127.0.0.1:{port}/').read()")
        assert shown == b"Hello world!\n"
        magic(DATA)
        host.ready("dbdata", READY)
        magic("cellwall exec dbdata psql -c 'create table t (word text)' -c \"insert into t values ('kept')\"")
        magic(NEXT)
        magic("cellwall stop dbdata")
        magic("cellwall rm dbdata")
        host.ready("db1", READY)
        assert magic("cellwall exec db1 psql -At -c 'select word from t'") == "kept\n"
    everything_goes(host)  # what was started in a notebook is seen from the shell
