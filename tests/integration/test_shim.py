"""Containers that live by themselves: their shim, who is attached, how they end, are started again, and are checked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime import attaching, detaching, logs
from cellwall.runtime.cli.run_options import parse_run
from cellwall.runtime.config import Config
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import AlreadyExists, InitError, LauncherError, NotFound, StatusError
from cellwall.runtime.interrupts import readable
from cellwall.runtime.options import RunOptions

from ..leaks import cgroups, mounts
from ..waiting import PATIENCE_S, kill, until
from .supervised import Home, home

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def box(busybox: str) -> Iterator[Home]:
    with home(busybox) as made:
        yield made


def options(line: str, *command: str) -> RunOptions:
    return parse_run(["-d", *line.split(), "box:1", *command])


def run(box: Home, line: str, *command: str) -> str:
    """Run a container in the background; returns its id."""
    return box.engine.run_detached(options(line, *command)).id


def logged(box: Home, name: str) -> bytes:
    return b"".join(entry.data for entry in box.engine.logs(name))


def until_logged(box: Home, name: str, wanted: bytes) -> None:
    """Wait until the container has written ``wanted``."""
    pidfd = os.pidfd_open(box.engine.known.state(box.engine.container(name).id)["cellwall"]["launcher"]["pid"])  # type: ignore[index]
    try:
        for entry in logs.follow(box.engine.known.folder(box.engine.container(name).id) / logs.NAME, pidfd):
            if wanted in entry.data:
                return
    finally:
        os.close(pidfd)
    raise AssertionError(wanted)


class Client:
    """One that is attached."""

    def __init__(self, box: Home, container_id: str, **wanted: bool) -> None:
        sock = attaching.connect(str(box.running), container_id)
        assert sock is not None
        self.socket = sock
        sock.settimeout(PATIENCE_S)
        wants = {"stdin": True, "stdout": True, "stderr": True} | wanted
        attaching.say(sock, {"attach": wants})
        self.told: list[dict[str, object]] = []
        self.output = bytearray()
        self.next()

    def type(self, data: bytes) -> None:
        self.socket.send(b"0" + data)

    def next(self) -> bool:
        packet = attaching.hear(self.socket)
        if packet[:1] == b"{":
            self.told.append(json.loads(packet))
        else:
            self.output += packet[1:]
        return bool(packet)

    def until(self, wanted: bytes) -> None:
        seen = 0
        while self.output.find(wanted, seen) < 0:
            seen = max(0, len(self.output) - len(wanted))
            assert self.next(), bytes(self.output[-1000:])

    def rest(self) -> bytes:
        while self.next():
            pass
        self.socket.close()
        return bytes(self.output)


def test_it_outlives_whoever_started_it(box: Home) -> None:
    """Started in a thread, as in a notebook, by an engine that is closed; another engine finds it and all that it can do."""
    first = Engine(Config.load(flags={"root": str(box.root)}))
    made: list[str] = []
    command = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    thread = threading.Thread(
        target=lambda: made.append(first.run_detached(options("--name lives", "sh", "-c", command)).id)
    )
    thread.start()
    thread.join(PATIENCE_S)
    first.close()
    shim = box.shim("lives")
    # Nobody's child here: its end leaves this process no zombie.
    with pytest.raises(ChildProcessError):
        os.waitpid(shim, os.WNOHANG)
    found = box.engine.container("lives")
    assert (found.id, found.status) == (made[0], "running")
    with pytest.raises(AlreadyExists, match="the name lives is taken"):
        run(box, "--name lives", "true")
    with pytest.raises(StatusError, match="running"):
        box.engine.start("lives")
    client = Client(box, found.id)
    box.engine.reconcile()
    until_logged(box, "lives", b"ready")
    box.engine.stop("lives")
    assert client.rest().endswith(b"bye\n")
    assert client.told[-1]["exited"]["code"] == 5  # type: ignore[index]
    assert box.left() == []
    assert logged(box, "lives") == b"ready\nbye\n"
    ended = box.engine.container("lives").exit
    assert ended is not None and (ended.status, box.engine.wait("lives")) == (5, 5)
    box.engine.remove("lives")


def test_a_shim_is_small(box: Home) -> None:
    run(box, "--name small", "sleep", "1000")
    shim = box.shim("small")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{shim}/status").read_text().splitlines())
    assert int(status["VmRSS"].split()[0]) < 16 << 10
    assert status["Threads"].strip() == "1"
    assert os.readlink(f"/proc/{shim}/cwd") == "/"
    assert not set(os.listdir(f"/proc/{shim}/fd")) - {str(number) for number in range(40)}
    assert {os.readlink(f"/proc/{shim}/fd/{fd}") for fd in (0, 1)} == {"/dev/null"}
    box.engine.remove("small", force=True)


def test_a_killed_shim_takes_its_container_along_and_nothing_stays(box: Home) -> None:
    points = mounts()
    container_id = run(box, "--name orphan --restart always", "sleep", "1000")
    pid = box.engine.container("orphan").pid
    pidfd = os.pidfd_open(pid)
    try:
        shim = box.shim("orphan")
        kill(shim)
        assert readable(pidfd, PATIENCE_S)
    finally:
        os.close(pidfd)
    found = box.engine.container("orphan")
    assert (found.status, found.exit and found.exit.status) == ("exited", 137)
    other = Engine(Config.load(flags={"root": str(box.root)}))
    state = other.inspect("orphan")["State"]
    assert (state["Status"], state["ExitCode"], state["Reason"]) == (
        "exited",
        137,
        f"the process that it lived by ({shim}) was killed",
    )
    assert os.listdir(box.running) == []
    other.remove("orphan", force=True)
    other.close()
    assert [group for group in cgroups() if container_id in group] == []
    assert [point for point in mounts() - points if str(box.root) in point] == []
    assert os.listdir(box.engine.paths.ids) == []
    with pytest.raises(NotFound):
        box.engine.container("orphan")


def test_a_killed_shim_of_a_container_that_was_to_go(box: Home) -> None:
    container_id = run(box, "--rm --name goes", "sleep", "1000")
    kill(box.shim("goes"))
    assert box.left() == []
    Engine(Config.load(flags={"root": str(box.root)})).known  # noqa: B018
    assert not box.engine.known.folder(container_id).exists()


@pytest.mark.parametrize(("command", "status"), [("nosuch", 127), ("/etc", 126)])
def test_what_cannot_start_is_told_to_the_caller(box: Home, command: str, status: int) -> None:
    with pytest.raises(InitError, match=command) as caught:
        run(box, "--name bad", command)
    assert caught.value.status == status
    found = box.engine.container("bad")
    assert (found.status, found.exit and found.exit.status) == ("exited", status)
    box.engine.remove("bad")
    with pytest.raises(InitError):
        run(box, "--name bad --rm", command)
    with pytest.raises(NotFound):
        box.engine.container("bad")
    assert box.left() == []


def test_a_container_that_is_made_and_started_later(box: Home) -> None:
    made = box.cli("create", "--name", "later", "-i", "box:1", "sh", "-c", "cat; echo end")
    assert box.engine.container("later").status == "created"
    assert box.engine.wait("later") == 0
    # Input that comes along with the start ends with it.
    done = box.cli("start", "-ai", "later", stdin="typed\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "typed\nend\n", "")
    assert made.stdout.strip() == box.engine.container("later").id
    assert box.cli("start", "later").stdout == "later\n"
    assert box.cli("start", "later").stdout == "later\n"
    assert box.cli("restart", "-t", "0", "later").stdout == "later\n"
    assert box.engine.container("later").status == "running"
    refused = box.cli("create", "--name", "later", "box:1")
    assert (refused.returncode, "the name later is taken" in refused.stderr) == (1, True)
    box.engine.remove("later", force=True)


def test_it_removes_itself(box: Home) -> None:
    with box.events("selfish") as wait:
        container_id = run(box, "--rm --name selfish -i", "sh", "-c", "read x; exit 3")
        folder = box.engine.known.folder(container_id)
        assert folder.exists()
        waiter = box.spawn("wait", "selfish", stdout=subprocess.PIPE)
        client = Client(box, container_id)
        client.type(b"go\n")
        assert client.rest() == b""
        assert wait("die")["exitCode"] == "3"
        wait("destroy")
    assert not folder.exists()
    assert waiter.communicate(timeout=60)[0] in (b"3\n", b"")
    # A restart isn't its end.
    run(box, "--rm --name selfish", "sleep", "1000")
    box.engine.restart("selfish", 0)
    assert box.engine.container("selfish").status == "running"
    box.engine.stop("selfish", 0)
    with pytest.raises(NotFound):
        box.engine.container("selfish")


def test_several_are_attached_at_once(box: Home) -> None:
    container_id = run(
        box, "--name many -i", "sh", "-c", "while read line; do echo err >&2; echo got $line; done; echo never"
    )
    first, second = Client(box, container_id), Client(box, container_id, stderr=False, stdin=False)
    first.type(b"one\n")
    first.until(b"got one\n")
    first.until(b"err\n")
    second.until(b"got one\n")
    first.socket.close()
    # Without a terminal of its own a container started in the background keeps its input for the next.
    third = Client(box, container_id)
    third.type(b"two\n")
    third.until(b"got two\n")
    second.until(b"got two\n")
    assert b"err" not in second.output
    box.engine.kill("many")
    third.rest()
    second.rest()
    assert second.told[-1]["exited"]["signal"] == 9  # type: ignore[index]
    assert logged(box, "many").count(b"err\n") == 2
    box.engine.remove("many")


def test_one_that_does_not_read_holds_up_nobody_for_long(box: Home) -> None:
    size = 24 << 20
    command = f"read x; head -c {size} /dev/zero | tr '\\0' 'x'; echo; echo end; read x"
    container_id = run(box, "--name held -i --log-opt max-size=64m", "sh", "-c", command)
    shim = box.shim("held")
    stuck = Client(box, container_id)
    reader = Client(box, container_id, stdin=False)
    stuck.type(b"go\n")
    reader.until(b"end\n")
    peak_kib = int(Path(f"/proc/{shim}/status").read_text().split("VmHWM:")[1].split()[0])
    box.engine.kill("held")
    assert len(reader.rest()) == size + 5
    # It was dropped with what it hadn't taken, and has no word of the end.
    stuck.rest()
    assert len(stuck.output) < size and not any("exited" in told for told in stuck.told)
    assert len(logged(box, "held")) == size + 5
    assert peak_kib < 40 << 10
    box.engine.remove("held", force=True)


def test_restart_policies(box: Home) -> None:
    with box.events("again") as wait:
        run(box, "--name again --restart on-failure:2", "sh", "-c", "echo x; exit 3")
        assert [wait("die")["exitCode"] for _ in range(3)] == ["3"] * 3
    assert box.engine.wait("again") == 3
    found = box.engine.inspect("again")
    assert (found["RestartCount"], found["State"]["Status"], found["State"]["ExitCode"]) == (2, "exited", 3)
    assert logged(box, "again") == b"x\n" * 3
    box.engine.remove("again")

    with box.events("ever") as wait:
        run(box, "--name ever --restart always", "sh", "-c", "exit 0")
        for _ in range(5):
            wait("die")
        # The next start is 1.6 s behind that end, and where that is too soon for a busy machine the one after it is twice as far.
        while True:
            ever = box.engine.container("ever")
            shown = box.cli("ps", "--format", "{{.Names}} {{.Status}}").stdout
            if ever.status == "restarting" and ever.finished is not None:
                # Half of that is left for what follows: looked at late, another start may have come in between.
                if time.time() - ever.finished < 0.05 * 2 ** (ever.restart_count - 1):
                    break
            wait("die")
        assert ever.restart_count >= 5
        assert shown.startswith("ever Restarting (0)")
        with pytest.raises(StatusError):
            box.engine.kill("ever")
    assert box.engine.container("ever").status == "exited"
    assert box.left() == []
    box.engine.remove("ever")


def test_who_stops_it_ends_it(box: Home) -> None:
    for end in ("stop", "kill", "remove"):
        run(box, "--name ends --restart unless-stopped", "sleep", "1000")
        if end == "remove":
            box.engine.remove("ends", force=True)
            continue
        box.engine.stop("ends", 0) if end == "stop" else box.engine.kill("ends")
        assert box.engine.wait("ends") == 137
        assert box.engine.container("ends").restart_count == 0
        box.engine.remove("ends", force=True)
    # A signal that asks for no end doesn't.
    with box.events("ends") as wait:
        run(
            box, "--name ends --restart always", "sh", "-c", "trap 'exit 4' USR1; echo set; while :; do sleep 0.1; done"
        )
        until_logged(box, "ends", b"set")
        client = Client(box, box.engine.container("ends").id)
        box.engine.kill("ends", "USR1")
        client.rest()
        assert wait("die")["exitCode"] == "4"
        wait("restart")
        wait("start")
    box.engine.remove("ends", force=True)


def test_health(box: Home) -> None:
    line = "--name sick --health-interval 50ms --health-retries 2 --health-start-period 0"
    made = detaching.create(
        box.engine,
        box.engine.config.fill(
            parse_run([*line.split(), "--health-cmd", "echo looked; test -e /tmp/ok", "box:1", "sleep", "1000"])
        ),
        box.engine.image("box:1"),
    )
    with box.events("sick") as wait:
        box.engine.start(made["id"])
        assert box.engine.container("sick").health in ("starting", "unhealthy")
        wait("health_status: unhealthy")
        assert "(unhealthy)" in box.cli("ps", "--format", "{{.Status}}").stdout
        assert box.cli("exec", "sick", "touch", "/tmp/ok").returncode == 0
        wait("health_status: healthy")
        assert "(healthy)" in box.cli("ps", "--format", "{{.Status}}").stdout

        def five() -> dict[str, Any] | None:
            found: dict[str, Any] = box.engine.inspect("sick")["State"]["Health"]
            return found if len(found["Log"]) == 5 else None

        # The last five checks are kept.
        health = until(five, "five checks")
        assert health is not None
        assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
        assert health["Log"][-1]["Output"] == "looked\n" and health["Log"][-1]["ExitCode"] == 0
    box.engine.stop("sick", 0)
    assert box.engine.container("sick").health is None
    box.engine.remove("sick")


def test_a_health_check_that_hangs_is_ended(box: Home) -> None:
    with box.events("slow") as wait:
        line = "--name slow --health-cmd sleep\\ 1000 --health-interval 50ms --health-timeout 100ms --health-retries 1"
        words = line.replace("\\ ", "\0").split()
        box.engine.run_detached(parse_run(["-d", *(w.replace("\0", " ") for w in words), "box:1", "sleep", "1000"]))
        wait("health_status: unhealthy")
        (check, *_) = box.engine.inspect("slow")["State"]["Health"]["Log"]
        assert (check["ExitCode"], "exceeded timeout (0.1s)" in check["Output"]) == (-1, True)
    box.engine.remove("slow", force=True)


def test_exec_in_the_background(box: Home) -> None:
    container_id = run(box, "--name host1 -i", "sh", "-c", "mkfifo /f; echo ready; cat /f; read x")
    client = Client(box, container_id)
    until_logged(box, "host1", b"ready")
    assert box.cli("exec", "-d", "-e", "A=hello", "host1", "sh", "-c", "echo $A $(tty) >/f").returncode == 0
    client.until(b"hello not a tty\n")
    assert box.cli("exec", "-d", "host1", "nosuch").returncode == 127
    assert box.cli("exec", "-dt", "host1", "sh", "-c", "tty >/tmp/t; sleep 1000").returncode == 0
    # Those of the first two go when their command has ended, or couldn't be started.
    until(lambda: len(box.shims()) == 2, "two shims")
    box.engine.remove("host1", force=True)
    client.rest()


def test_standard_streams_can_be_opened_by_name(box: Home) -> None:
    run(box, "--name opens -u 1000", "sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr")
    assert box.engine.wait("opens") == 0
    assert sorted(logged(box, "opens").split()) == [b"err", b"out"]
    box.engine.remove("opens")


def test_logs(box: Home) -> None:
    line = "--name logs --log-opt max-size=20k --log-opt max-file=100 --log-opt labels=tier --label tier=db -i"
    container_id = run(box, line, "sh", "-c", "while read n; do echo err >&2; seq $n; done")
    with box.spawn("logs", "-f", "logs", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        client = Client(box, container_id, stderr=False)
        client.type(b"3\n")
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
        client.type(b"1500\n2\n")
        client.until(b"1500\n1\n2\n")
        box.engine.kill("logs")
        out, err = follower.communicate(timeout=60)
    assert out == b"".join(b"%d\n" % n for n in [*range(1, 1501), 1, 2])
    assert err == b"err\n" * 3
    assert len(list(box.engine.known.folder(container_id).glob("log.jsonl*"))) > 3
    tail = box.cli("logs", "-n", "2", "logs")
    assert (tail.stdout + tail.stderr).count("\n") == 2
    stamped = box.cli("logs", "-t", "--details", "--tail", "1", "logs")
    assert (stamped.stdout + stamped.stderr).split()[1] == "tier=db"
    assert box.cli("logs", "--since", "0", "--until", "1", "logs").stdout == ""
    assert box.cli("logs", "-f", "logs").stdout == "1\n2\n3\n" + out.decode()
    client.socket.close()
    box.engine.remove("logs", force=True)
    run(box, "--name quiet --log-driver none", "echo", "unheard")
    assert box.engine.wait("quiet") == 0
    refused = box.cli("logs", "quiet")
    assert (refused.returncode, "--log-driver none" in refused.stderr) == (1, True)
    box.engine.remove("quiet")


def test_attach_says_why_not(box: Home) -> None:
    with box.spawn("run", "--name", "front", "box:1", "sh", "-c", "echo; sleep 1000", stdout=subprocess.PIPE) as front:
        assert front.stdout is not None and front.stdout.readline()
        refused = box.cli("attach", "front")
        assert (refused.returncode, "cellwall logs -f front" in refused.stderr) == (1, True)
        box.engine.kill("front")
    assert box.cli("attach", "front").stderr == "cellwall: container front is exited, and this needs it running\n"
    box.engine.remove("front")
    assert box.cli("run", "-d", "-a", "stdout", "box:1").returncode == 125


def test_signals_are_passed_on_by_attach_and_the_status_comes_back(box: Home) -> None:
    command = "trap 'echo usr; exit 7' USR1; echo ready; while :; do sleep 0.1; done"
    container_id = run(box, "--name proxied", "sh", "-c", command)
    watching = Client(box, container_id)
    with box.spawn("attach", "--no-stdin", "proxied", stdout=subprocess.PIPE) as attached:
        until_logged(box, "proxied", b"ready")
        # Its handlers are there once its hello is answered; a signal before that ends it, as any program.
        while len(_sockets(box, attached.pid)) < 1:
            os.sched_yield()
        attached.send_signal(signal.SIGUSR1)
        out, _ = attached.communicate(timeout=60)
    if attached.returncode != -signal.SIGUSR1:
        assert (attached.returncode, out[-4:]) == (7, b"usr\n")
    watching.socket.close()
    box.engine.remove("proxied", force=True)


def _sockets(box: Home, pid: int) -> list[str]:
    """The signal handlers of a process, once it has one for SIGUSR1."""
    text = Path(f"/proc/{pid}/status").read_text()
    caught = int(text.split("SigCgt:")[1].split()[0], 16)
    return ["SIGUSR1"] if caught >> (signal.SIGUSR1 - 1) & 1 else []


def test_a_caller_that_dies_before_the_start_leaves_nothing_running(box: Home) -> None:
    """The shim is asked by a socket whose other end closes at once: nobody knows of the container, so it ends."""
    from cellwall.runtime import launching
    from cellwall.runtime.containers import options_from_dict
    from cellwall.runtime.spec import plan
    from cellwall.runtime.supervision import wish_of

    record = detaching.create(box.engine, options("--name unborn", "sleep", "1000"), box.engine.image("box:1"))
    chosen = options_from_dict(record["options"])
    made = plan(chosen, box.engine.image("box:1").config, record["id"], **box.engine.limits())
    launcher = detaching.spawn(box.engine, own_users=True)
    folder = str(box.engine.known.folder(record["id"]))
    request = launching.request_of(box.engine, record, made, chosen)
    launcher.request(request | {"operation": "supervise", "supervise": wish_of(folder, record, chosen)}).close()
    # Until it has its name, it can't be found by that.
    pidfd = os.pidfd_open(launcher.pid)
    launcher.close()
    assert readable(pidfd, PATIENCE_S)
    os.close(pidfd)
    assert (box.left(), os.listdir(box.running)) == ([], [])
    box.engine.remove("unborn")


def test_a_socket_that_says_nonsense_harms_nobody(box: Home) -> None:
    container_id = run(box, "--name robust", "sleep", "1000")
    for packet in (b"{nonsense", b"x", b"9123", b'{"size": "big"}', b'{"signal": 99999}', b'{"attach": 1}', b"[]"):
        sock = attaching.connect(str(box.running), container_id)
        assert sock is not None
        with sock:
            sock.send(packet)
            sock.settimeout(PATIENCE_S)
            if packet[:1] != b"{" or packet == b"{nonsense":
                assert attaching.hear(sock) == b""
    idle = [attaching.connect(str(box.running), container_id) for _ in range(20)]
    assert box.engine.container("robust").status == "running"
    assert attaching.ask(str(box.running), container_id, {"stop": True})
    for one in idle:
        assert isinstance(one, socket.socket)
        one.close()
    box.engine.remove("robust", force=True)
    assert not attaching.ask(str(box.running), container_id, {"stop": True})


def test_a_shim_that_hangs_is_not_taken_for_none(box: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a container that is stopped would be started again by its policy."""
    container_id = run(box, "--name hangs --restart always", "sleep", "1000")
    shim, pid = box.shim("hangs"), box.engine.container(container_id).pid
    os.kill(shim, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(attaching, "HANG_S", 0.1)
            with pytest.raises(LauncherError, match="hasn't answered for"):
                box.engine.stop("hangs", 0)
        assert box.engine.container(container_id).pid == pid, "it was ended, and would come again"
    finally:
        os.kill(shim, signal.SIGCONT)
    box.engine.remove("hangs", force=True)
