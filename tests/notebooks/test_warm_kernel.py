"""Kernels with spare containers (``--warm``): what is taken, what isn't, that nothing tells it but the time, and what is left."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cellwall.kernel import spares
from cellwall.kernel.spare import Command, Kind
from cellwall.kernel.spares import Spares
from cellwall.runtime import state
from cellwall.runtime.config import Config
from cellwall.runtime.containers import SPARE_LABEL
from cellwall.runtime.engine import Engine
from cellwall.runtime.options import Mount, RunOptions

from ..integration.test_rootless import user_with_subordinate_ids
from ..waiting import until
from .kernel_home import ENDLESS, Client, Home, client, home, image

__all__ = ["client", "home", "image"]

COMMAND = ("python3", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "/run/cellwall/connection.json")
# What a kernel can see of how it was started; what differs from kernel to kernel by its nature is left out.
SEEN = """
import json, os, sys, signal, socket
def read(path):
    with open(path) as file: return file.read()
host = socket.gethostname()
status = dict(line.split(":\\t", 1) for line in read("/proc/self/status").splitlines() if ":\\t" in line)
print(json.dumps({
    "words": [sys.argv, sys.orig_argv, read("/proc/self/cmdline"), read("/proc/self/comm"), sys.flags],
    "path": sys.path, "environment": {k: v.replace(host, "HOST") for k, v in os.environ.items()},
    "stdin": [repr(sys.stdin), repr(sys.__stdin__), os.readlink("/proc/self/fd/0"), sys.stdin.read(), os.get_inheritable(0), sys.stdin.line_buffering],
    "group": [os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0), os.getcwd(), os.umask(0o022)],
    "status": {k: status[k] for k in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "Seccomp", "NoNewPrivs", "SigIgn", "SigCgt", "SigBlk")},
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
    "mounts": sorted(" ".join(line.split()[3:6]).replace(host, "HOST") for line in read("/proc/self/mountinfo").splitlines()),
    "file": [oct(os.stat("/run/cellwall/connection.json").st_mode), os.stat("/run/cellwall/connection.json").st_uid],
    "left": sorted(os.listdir("/run/cellwall")), "main": sorted(n for n in dir(sys.modules["__main__"]) if not n.startswith("_")),
    "modules": sorted(n for n in sys.modules if n.startswith(("ipykernel", "IPython.ext", "json."))),
    "parent": read("/proc/1/cmdline").split("\\0")[0].strip(),
}, default=list))
"""


def wait_for(look: Callable[[], Any]) -> Any:
    return until(look, "a spare container, or its end")


def waiting(home: Home) -> dict[str, int]:
    """The spare containers that are ready, by id, and their first processes."""
    return {
        found["id"]: found["pid"]
        for found in state.each(str(home.run / "containers"))
        if SPARE_LABEL in found["cellwall"]["labels"] and found["status"] == "running" and state.runs(found)
    }


def spare(client: Client, *before: str) -> str:
    """The id of the container that waits, once there is one that isn't of ``before``.

    By the word of the process that made it, which can give it away only once it has heard that it runs.
    """
    return str(wait_for(lambda: next((one for one in client.tell("waiting") if one not in before), None)))


@pytest.mark.needs("root", "overlay")
def test_taken_once_and_not_to_be_told(client: Client, home: Home) -> None:
    folder = str(home.notebooks)
    # A module of the notebook's folder is the kernel's business, not that of what waits.
    (home.notebooks / "sqlite3.py").write_text("raise SystemExit('taken from the wrong folder')")
    home.cli("tag", "kernel:1", "kernel:w")
    home.cli("kernel", "install", "--image", "kernel:w", "--name", "warm", "-m", "200m", "--cpus", "1", "--warm", "1")
    environment = {"JPY_SESSION_NAME": "a notebook"}
    client.tell("start", "warm", folder, environment)
    cold = json.loads(client.text(SEEN))
    time.sleep(0.4)
    # A process that starts one kernel has no use for a spare.
    assert waiting(home) == {}
    client.tell("restart")
    first = spare(client)
    assert client.tell("container") != first
    client.tell("restart")
    assert client.tell("container") == first
    assert json.loads(client.text(SEEN)) == cold
    assert cold["environment"]["JPY_SESSION_NAME"] == "a notebook"
    # It is a kernel like any other now: for who looks, and for the interrupt.
    known = (state.load(str(home.run / "containers"), first) or {})["cellwall"]
    assert (known["command"][1:3], SPARE_LABEL in known["labels"]) == (["-m", "ipykernel_launcher"], False)
    done = client.run(ENDLESS, "interrupt")
    assert done["errors"] == ["KeyboardInterrupt"]
    assert first in client.text("%container")
    # Another one waits by then, and follows at once where this one dies. What that was asked for reaches its successor no more.
    second = spare(client, first)
    assert client.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")["status"] == "dead"
    client.tell("restart")
    assert client.tell("container") == second
    assert client.text("import time; time.sleep(0.5); print(2)").endswith("2\n")
    # What waits is said to be no kernel yet.
    spare(client, first, second)
    assert "(spare kernel)" in home.cli("ps")
    assert json.loads(home.cli("info", "--format", "json"))["Spares"]["Kernels"] == 1
    # Nothing is left, also of what waits, where the client is killed.
    client.kill()
    assert home.left() == []


@pytest.mark.soak
@pytest.mark.needs("root", "overlay")
def test_not_taken(client: Client, home: Home) -> None:
    folder = str(home.notebooks)
    home.cli("tag", "kernel:1", "kernel:w")
    home.cli("kernel", "install", "--image", "kernel:w", "--name", "warm", "-m", "200m", "--cpus", "1", "--warm", "1")
    # A notebook server is expected to start another one.
    (first,) = client.tell("start_of_many", "warm", folder)
    # Two that start at once don't share one.
    assert client.tell("start_two", "warm", folder).count(first) == 1

    # One that died isn't given to anybody.
    second, pid = wait_for(lambda: next(iter(waiting(home).items()), None))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: second not in waiting(home))
    client.tell("start", "warm", folder, {})
    assert client.text("print(1)") == "1\n"
    third = spare(client, second)
    client.tell("shutdown")

    # Who asks for less gets less, and the next one is made for that.
    client.tell("start", "warm", folder, {"KERNEL_MEMORY_LIMIT": "150m"})
    assert client.tell("container") != third
    fourth = spare(client, third)
    # An image of the same name that is another one.
    (home.root / "home/Dockerfile").write_text("FROM kernel:1\nENV MOVED=yes\n")
    home.cli("build", "-q", "-t", "kernel:w", str(home.root / "home"))
    client.tell("restart")
    assert client.tell("container") != fourth
    assert client.text("import os; print(os.environ['MOVED'])") == "yes\n"
    wait_for(lambda: fourth not in waiting(home))
    fifth = spare(client, fourth)
    client.tell("shutdown")
    # Other options, by a kernelspec of the same name.
    home.cli("kernel", "install", "--image", "kernel:w", "--name", "warm", "-m", "199m", "--warm", "1")
    client.tell("start", "warm", folder, {})
    assert client.tell("container") != fifth
    wait_for(lambda: fifth not in waiting(home))
    client.tell("shutdown")


@pytest.mark.soak
@pytest.mark.needs("root", "overlay")
def test_jupyters_own_suite(home: Home) -> None:
    home.cli("kernel", "install", "--image", "kernel:1", "--name", "warmed", "--warm", "1")
    home.environment |= {"KERNEL_UNDER_TEST": "warmed", "KERNEL_TAKES_A_SPARE": "1"}
    tests = ("kernel_info", "execute_stdout", "completion", "error", "stdout_encoding", "display_data")
    said = home.script(str(Path(__file__).parent / "kernel_suite.py"), "-v", *(f"-k=test_{name}" for name in tests))
    assert said.count("... ok") >= 4, said
    assert home.left() == []


@pytest.mark.soak
@pytest.mark.needs("root", "user-namespaces", "overlay-userns")
def test_an_ordinary_users(image: Path) -> None:
    account = user_with_subordinate_ids()
    root = Path(tempfile.mkdtemp(prefix="cw-k", dir="/tmp"))
    try:
        home = Home(root, image, (account.pw_uid, account.pw_gid))
        home.cli("kernel", "install", "--image", "kernel:1", "--name", "warm", "-m", "200m", "--warm", "1")
        client = Client(home)
        client.tell("start", "warm", str(home.notebooks), {})
        cold = json.loads(client.text(SEEN).splitlines()[-1])
        client.tell("restart")
        first = spare(client)
        client.tell("restart")
        assert client.tell("container") == first
        assert json.loads(client.text(SEEN).splitlines()[-1]) == cold
        spare(client, first)
        client.kill()
        assert home.left() == []
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--shell"], "--warm: is for isolated kernels"),
        (["--", "sh", "{connection_file}"], "--warm: is for kernels of ipykernel"),
        (["-p", "8000:8000", "--network", "bridge"], "--warm: a spare container can't be made beside its kernel with -p"),
        (["--volumes-from", "x"], "with --volumes-from"),
    ],
)  # fmt: skip
@pytest.mark.needs("root", "overlay")
def test_refused_at_install(home: Home, words: list[str], why: str) -> None:
    said = home.cli("kernel", "install", "--image", "kernel:1", "--name", "x", "--warm", "1", *words, status=125)
    assert why in said


def test_what_cannot_be_made_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares, "MOMENT_S", 0.0)
    engine = Engine(Config.load({"CELLWALL_ROOT": str(tmp_path)}))
    kind = Kind.of("k", ["words"], "sha256:0", RunOptions("gone:1", command=COMMAND), (0, 0))
    held = Spares(engine)
    try:
        with caplog.at_level(logging.WARNING):
            for count in (1, 2, 3, 3):
                held.started(kind, 1, logging.getLogger("spares"), many=True)
                wait_for(partial(_has, caplog, count))
            time.sleep(0.1)
    finally:
        engine.close()
    assert ["gone:1" in record.getMessage() for record in caplog.records] == [True] * 3
    assert held.waiting == []


def _has(caplog: pytest.LogCaptureFixture, count: int) -> bool:
    return len(caplog.records) >= count


def test_a_kind_knows_its_folders_again(tmp_path: Path) -> None:
    def kind() -> Kind:
        mount = Mount("bind", "/notebooks", source=str(tmp_path / "n"))
        return Kind.of("k", [], "", RunOptions("x", command=COMMAND, mounts=(mount,)), (0, 0))

    (tmp_path / "n").mkdir()
    before = kind()
    assert kind() == before
    (tmp_path / "n").rename(tmp_path / "old")
    (tmp_path / "n").mkdir()
    assert kind() != before


def test_a_waiting_command_is_as_long_as_the_kernels() -> None:
    command = Command.of(COMMAND)
    assert command is not None and command.whole == COMMAND
    assert len(" ".join(command.waiting)) == len(" ".join(COMMAND))
    assert command.waiting[:3] == ("python3", "-Xfrozen_modules=off", "-c")
    for other in (("python3", "kernel.py", "-m", "ipykernel"), ("R", "-e", "IRkernel::main()"), ("python3", "-m")):
        assert Command.of(other) is None
