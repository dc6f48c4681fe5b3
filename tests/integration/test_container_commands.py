"""pause, rename, update, top, stats, events, port, inspect and ps's filters on real containers, by the command line."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import StatusError
from cellwall.runtime.events import Reader

from ..network_namespaces import made
from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root")

# These read and write descriptors, or leave a process behind; all others are run in this process, which is quicker.
OF_THEIR_OWN = ("run", "create", "exec", "start")
CELLWALL = [sys.executable, "-m", "cellwall"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(cellwall_root: Path, busybox: str) -> Iterator[Cli]:
    """Runs a command line on a store with the image box:1, and removes every container at the end."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        if words[0] in OF_THEIR_OWN:
            return subprocess.run([*CELLWALL, *words], capture_output=True, text=True, timeout=60)
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            status = main(words)
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    assert run("pull", "-q", busybox).returncode == 0
    assert run("tag", busybox, "box:1").returncode == 0
    yield run
    names = run("ps", "-aq", "--no-trunc").stdout.split()
    assert not names or run("rm", "-f", *names).returncode == 0


def test_a_paused_container_stands_still_and_still_ends(cli: Cli, engine: Engine) -> None:
    assert cli("run", "-d", "--name", "lab", "box:1", "sh", "-c", "while :; do echo x >> /n; done").returncode == 0

    written = f"/proc/{engine.container('lab').pid}/root/n"

    def count() -> int:
        return os.stat(written).st_size

    until(lambda: os.path.exists(written), "the container's first words")
    assert cli("pause", "lab").stdout == "lab\n"
    # Its pauser is gone by now.
    before = count()
    assert cli("ps", "--format", "{{.Names}} {{.State}}").stdout == "lab paused\n"
    assert " (Paused)" in cli("ps", "--format", "{{.Status}}").stdout
    assert (
        cli("inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", "lab").stdout
        == "paused true true\n"
    )
    for words, said in (
        (["exec", "lab", "true"], "container lab is paused, and this needs it running: cellwall unpause lab"),
        (["pause", "lab"], "container lab is paused already"),
        (["rm", "lab"], "container lab is paused, and this needs it stopped"),
        (["start", "lab"], "container lab is paused"),
    ):
        done = cli(*words)
        assert done.returncode != 0
        assert said in done.stderr
    assert count() == before, "something ran on"
    # A commit that pauses by itself leaves it paused.
    assert cli("commit", "lab", "copy:1").returncode == 0
    assert engine.container("lab").status == "paused"
    assert cli("unpause", "lab").stdout == "lab\n"
    assert "is running, and this needs it paused" in cli("unpause", "lab").stderr
    assert cli("exec", "lab", "echo", "on").stdout == "on\n"
    # A paused one is asked to end like any other: it goes on with the signal.
    polite = "trap 'exit 7' TERM; touch /set; while :; do sleep 0.01; done"
    cli("run", "-d", "--name", "polite", "box:1", "sh", "-c", polite)
    cli("exec", "polite", "sh", "-c", "until [ -e /set ]; do :; done")
    engine.pause("polite")
    assert cli("stop", "-t", "30", "polite").returncode == 0
    assert cli("inspect", "-f", "{{.State.ExitCode}}", "polite").stdout == "7\n"
    for words in (["stop", "-t", "0", "lab"], ["kill", "lab"], ["rm", "-f", "lab"]):
        if engine.container("lab").status == "exited":
            assert cli("start", "lab").returncode == 0
        engine.pause("lab")
        assert cli(*words).returncode == 0, words
        engine_says = [box.status for box in engine.containers(all=True)]
        assert "paused" not in engine_says, words
        if words[0] == "kill":
            engine.stop("lab")
    assert cli("pause", "lab").stderr.startswith("cellwall: no container lab")


def test_a_stop_by_sigkill_has_nothing_to_tell(cli: Cli, engine: Engine) -> None:
    """However short the time that it is given: the kernel takes a process apart in its own."""
    assert cli("run", "-d", "--name", "lab", "box:1", "sleep", "1000").returncode == 0
    assert engine.stop("lab", 1e-9, "KILL") == ""
    assert cli("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "lab").stdout == "exited 137\n"


@pytest.mark.needs("cgroup-cpuset")
def test_update_and_rename(cli: Cli, engine: Engine) -> None:
    cli("run", "-d", "--name", "lab", "-m", "64m", "box:1", "sleep", "1000")
    found = engine.inspect("lab")
    paths = found["CgroupPaths"]
    pid = found["State"]["Pid"]
    words = ["--memory", "96m", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "77"]
    done = cli("update", *words, "lab")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lab\n", "")
    # In trees that it wasn't started in as well, and it is in them.
    after = engine.inspect("lab")
    if list(paths) == ["unified"]:
        group = Path(paths["unified"])
        in_force = {
            name: (group / name).read_text().strip() for name in ("cpu.max", "cpuset.cpus", "memory.max", "pids.max")
        }
        assert in_force == {
            "cpu.max": "50000 100000",
            "cpuset.cpus": "0",
            "memory.max": f"{96 << 20}",
            "pids.max": "77",
        }
    else:
        assert set(after["CgroupPaths"]) > set(paths)
    membership = Path(f"/proc/{pid}/cgroup").read_text()
    by_controller = {name: Path(path) for key, path in after["CgroupPaths"].items() for name in key.split(",")}
    if "cpu" in by_controller:
        assert (by_controller["cpu"] / "cpu.cfs_quota_us").read_text() == "50000\n"
        assert (by_controller["cpuset"] / "cpuset.cpus").read_text() == "0\n"
        assert (by_controller["memory"] / "memory.limit_in_bytes").read_text() == f"{96 << 20}\n"
        assert (by_controller["pids"] / "pids.max").read_text() == "77\n"
        for name in ("cpu", "cpuset"):
            assert re.search(rf":{name}(,\w+)*:.*{after['Id']}", membership), name
    host = after["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["CpuShares"], host["CpusetCpus"], host["PidsLimit"]) == (
        96 << 20, 500_000_000, 512, "0", 77,
    )  # fmt: skip
    # A command that comes later is under the same limits.
    assert cli("exec", "lab", "cat", "/proc/self/cgroup").stdout.count("\n") == membership.count("\n")
    for words, said in (
        (["lab"], "says nothing to change"),
        (["--memory", "1k", "lab"], "--memory: 1k is out of range"),
        (["--cpu-quota", "5000", "lab"], "--cpu-quota: says the same as --cpus"),
        (["--memory-swap", "80m", "lab"], "--memory-swap: 80m is out of range"),
        (["--memory", "90m", "nosuch"], "no container nosuch"),
    ):
        done = cli("update", *words)
        assert done.returncode != 0
        assert done.stderr.startswith("cellwall: ")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    # The next start has them too.
    assert cli("stop", "-t", "0", "lab").returncode == 0
    assert not any(Path(path).exists() for path in after["CgroupPaths"].values())
    assert cli("update", "--pids-limit", "55", "lab").returncode == 0
    assert cli("start", "lab").returncode == 0
    again = engine.inspect("lab")
    assert (again["HostConfig"]["PidsLimit"], again["HostConfig"]["Memory"]) == (55, 96 << 20)
    if "cpu" in by_controller:
        assert any("cpuset" in key for key in again["CgroupPaths"])
    # Names.
    cli("run", "-d", "--name", "other", "box:1", "sleep", "1000")
    assert "the name other is taken by container" in cli("rename", "lab", "other").stderr
    assert "has that name already" in cli("rename", "lab", "lab").stderr
    assert "NEW_NAME" in cli("rename", "lab", "a b").stderr
    assert cli("rename", "lab", "bench").stdout == ""
    assert engine.container("bench").id == found["Id"]
    assert cli("inspect", "-f", "{{.Name}}", "bench").stdout == "/bench\n"
    assert cli("rm", "lab").returncode == 1
    # One that goes with its command has no record, only a state.
    done = cli("run", "-d", "--rm", "box:1", "sleep", "1000")
    short = done.stdout.strip()
    assert cli("rename", short, "gone").returncode == 0
    assert cli("update", "-m", "50m", "gone").returncode == 0
    assert engine.inspect("gone")["HostConfig"]["Memory"] == 50 << 20
    assert (
        cli(
            "events",
            "--since",
            "1h",
            "--until",
            "1ms",
            "--filter",
            "event=rename",
            "--format",
            "{{.Actor.Attributes.oldName}} {{.Actor.Attributes.name}}",
        ).stdout.splitlines()[0]
        == "lab bench"
    )


def test_top_stats_port_and_filters(cli: Cli, engine: Engine, cellwall_root: Path) -> None:
    started = cli("run", "-d", "--name", "lab", "--label", "tier=web", "-v", f"{cellwall_root}:/data:ro", "box:1",
                  "sh", "-c", "sleep 1000 & exec sleep 2000")  # fmt: skip
    assert started.returncode == 0, started.stderr
    cli("run", "--name", "done", "--network", "host", "box:1", "sh", "-c", "head -c 5000 /dev/zero > /f; exit 3")
    pid = engine.container("lab").pid
    # A moment ago the one was still the shell, and the other its copy.
    until(lambda: cli("top", "lab", "-o", "pid,args").stdout.count(" sleep ") == 2, "two sleeping processes")
    lines = cli("top", "lab").stdout.splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    rows = [line.split(None, 7) for line in lines[1:]]
    assert [row[7] for row in rows] == ["sleep 2000", "sleep 1000"]
    assert rows[0][1] == str(pid)
    assert rows[1][2] == str(pid)
    chosen = cli("top", "lab", "-o", "pid,args")
    assert [line.split()[1:] for line in chosen.stdout.splitlines()[1:]] == [["sleep", "2000"], ["sleep", "1000"]]
    assert "no PID column" in cli("top", "lab", "-o", "args").stderr
    assert cli("top", "done").stderr == "cellwall: container done is exited, and this needs it running\n"
    found = json.loads(cli("stats", "--no-stream", "-a", "--format", "json").stdout)
    by_name = {row["Name"]: row for row in found}
    assert by_name["lab"]["PIDs"] == 2
    assert re.fullmatch(r"\d+\.\d\d%", by_name["lab"]["CPUPerc"])
    assert re.fullmatch(r"[\d.]+(K|M)iB / [\d.]+GiB", by_name["lab"]["MemUsage"])
    assert by_name["done"]["PIDs"] == 0
    assert [row["Name"] for row in json.loads(cli("stats", "--no-stream", "--format", "json").stdout)] == ["lab"]
    assert cli("stats", "--no-stream", "nosuch").returncode == 1
    assert cli("port", "lab").stdout == ""
    assert "no public port 80/tcp published for lab" in cli("port", "lab", "80").stderr
    for said, names in (
        ("volume=/data", "lab"),
        (f"volume={cellwall_root}", "lab"),
        ("network=host", "done"),
        ("network=none", "lab"),
        ("status=paused", ""),
        ("health=none", "lab done"),
        ("publish=80", ""),
        ("expose=80-90/tcp", ""),
        ("before=done", "lab"),
        ("since=lab", "done"),
        ("exited=3", "done"),
        ("label=tier", "lab"),
    ):
        shown = cli("ps", "-a", "--filter", said, "--format", "{{.Names}}")
        assert sorted(shown.stdout.split()) == sorted(names.split()), said
    assert sorted(cli("ps", "-a", "-f", "name=lab", "-f", "name=don", "--format", "{{.Names}}").stdout.split()) == [
        "done",
        "lab",
    ]
    for said in ("health=ill", "status=asleep", "publish=x"):
        assert cli("ps", "-a", "-f", said).returncode == 125, said
    assert cli("ps", "-f", "since=nosuch").returncode == 1
    sized = cli("ps", "-as", "--format", "table {{.Names}}\\t{{.Size}}").stdout
    assert re.search(r"done +[\d.]+kB \(virtual [\d.]+MB\)", sized), sized
    assert cli("inspect", "-s", "-f", "{{gt .SizeRootFs .SizeRw}}", "done").stdout == "true\n"


def test_inspect_has_dockers_form(cli: Cli, engine: Engine, cellwall_root: Path) -> None:
    cli(
        "run", "-d", "--name", "lab", "-e", "A=1", "-w", "/tmp", "--tmpfs", "/t:size=1m", "-v", f"{cellwall_root}:/data:ro",
        "--cap-add", "NET_ADMIN", "--annotation", "org.x=y", "--stop-timeout", "3", "--add-host", "db:10.0.0.1", "--entrypoint", "sleep",
        "--memory-reservation", "32m", "--cpu-period", "50000", "--cpu-quota", "25000", "--device-cgroup-rule", "c 42:* rmw", "box:1", "1000",
    )  # fmt: skip
    found = json.loads(cli("inspect", "lab").stdout)[0]
    assert found["State"]["Running"]
    assert not found["State"]["Dead"]
    assert (found["Path"], found["Args"], found["RestartCount"]) == ("sleep", ["1000"], 0)
    config = found["Config"]
    assert (config["Entrypoint"], config["Cmd"], config["WorkingDir"], config["StopTimeout"]) == (
        ["sleep"],
        ["1000"],
        "/tmp",
        3,
    )
    assert "A=1" in config["Env"]
    assert config["Hostname"] == found["Id"][:12]
    host = found["HostConfig"]
    assert host["Binds"] == [f"{cellwall_root}:/data:ro"]
    assert (host["CapAdd"], host["NetworkMode"], host["ExtraHosts"]) == (["NET_ADMIN"], "none", ["db:10.0.0.1"])
    assert (host["CpuPeriod"], host["CpuQuota"], host["MemoryReservation"]) == (50000, 25000, 32 << 20)
    assert (host["Annotations"], host["DeviceCgroupRules"]) == ({"org.x": "y"}, ["c 42:* rmw"])
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert host["Tmpfs"] == {"/t": "size=1048576"}
    by_place = {mount["Destination"]: mount for mount in found["Mounts"]}
    assert (by_place["/data"]["Type"], by_place["/data"]["RW"], by_place["/data"]["Source"]) == (
        "bind",
        False,
        str(cellwall_root),
    )
    assert by_place["/t"]["Type"] == "tmpfs"
    assert list(found["NetworkSettings"]["Networks"]) == ["none"]
    assert found["GraphDriver"]["Name"] == found["Driver"]
    for template, said in (
        (
            "{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}",
            " ".join(f"{m['Type']}:{m['Destination']}" for m in found["Mounts"]) + " ",
        ),
        ('{{index .Config.Labels "none"}}|', "|"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{.Config.Cmd}} {{json .Config.Cmd}}", '[1000] ["1000"]'),
        ("{{len .Args}}", "1"),
    ):
        assert cli("inspect", "-f", template, "lab").stdout == f"{said}\n", template
    assert "there is no 'Nope'" in cli("inspect", "-f", "{{.Nope}}", "lab").stderr
    assert cli("inspect", "--type", "image", "lab").returncode == 1
    assert json.loads(cli("inspect", "--type", "image", "box:1").stdout)[0]["RepoTags"] == ["box:1"]
    # The device is allowed in the group of the running container.
    group = next((path for key, path in found["CgroupPaths"].items() if "devices" in key.split(",")), None)
    if group is not None:
        assert "c 42:* rwm" in Path(group, "devices.list").read_text()


def test_a_cidfile_is_written_once(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "id"
    for words in (["run", "-d"], ["run"], ["create"]):
        done = cli(*words, "--cidfile", str(file), "box:1", "true")
        assert done.returncode == 0, done.stderr
        assert cli("inspect", "-f", "{{.Id}}", file.read_text()).stdout.strip() == file.read_text()
        assert f"--cidfile: {file} exists" in cli(*words, "--cidfile", str(file), "box:1", "true").stderr
        file.unlink()
    for wrong in (["nosuch:1"], ["--pid", "container:nosuch", "box:1"]):
        assert cli("run", "--pull", "never", "--cidfile", str(file), *wrong, "true").returncode == 125
        assert not file.exists(), wrong
    assert "name a file in a folder that is there" in cli("run", "--cidfile", "/no/such/id", "box:1").stderr


def test_stopped_containers_are_pruned(cli: Cli) -> None:
    for name, words in (("runs", ["-d"]), ("red", ["--label", "a=1"]), ("blue", ["--label", "a=2"])):
        cli("run", "--name", name, *words, "box:1", *(["sleep", "1000"] if name == "runs" else ["true"]))
    assert "'color' isn't known" in cli("container", "prune", "-f", "--filter", "color=red").stderr
    assert cli("container", "prune", "-f", "--filter", "until=1h").stdout.startswith("Total reclaimed space: 0B")
    assert len(cli("container", "prune", "-f", "--filter", "label=a=1").stdout.splitlines()) == 4
    assert sorted(cli("ps", "-a", "--format", "{{.Names}}").stdout.split()) == ["blue", "runs"]
    assert cli("container", "prune", "--force").stdout.startswith("Deleted Containers:")
    assert cli("ps", "-a", "--format", "{{.Names}}").stdout == "runs\n"


def test_events_come_as_they_happen(cli: Cli, engine: Engine) -> None:
    cli("run", "-d", "--name", "lab", "box:1", "sleep", "1000")
    watching = subprocess.Popen(
        [
            *CELLWALL,
            "events",
            "--filter",
            "container=lab",
            "--filter",
            "event=pause",
            "--filter",
            "event=unpause",
            "--since",
            "1h",  # it may be listening only after what happens now
            "--format",
            "json",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    try:
        engine.pause("lab")
        first = json.loads(watching.stdout.readline())
        engine.unpause("lab")
        second = json.loads(watching.stdout.readline())
    finally:
        watching.send_signal(signal.SIGINT)
        rest, _ = watching.communicate()
    assert (first["Action"], second["Action"], rest) == ("pause", "unpause", "")
    assert first["Actor"]["Attributes"]["name"] == "lab"
    assert first["Actor"]["ID"] == engine.container("lab").id
    assert watching.returncode == 128 + signal.SIGINT
    with pytest.raises(StatusError, match="this needs it paused"):
        engine.unpause("lab")
    assert "'color' isn't known" in cli("events", "--filter", "color=red").stderr


def test_a_restart_by_policy_has_what_was_updated(cli: Cli, engine: Engine) -> None:
    cli("run", "-d", "--name", "lab", "-m", "64m", "--restart", "always", "box:1", "sleep", "1000")
    assert cli("update", "-m", "80m", "lab").returncode == 0
    assert cli("rename", "lab", "bench").returncode == 0
    with Reader(str(engine.paths.run)) as reader:
        list(reader.new())
        # Not by cellwall, which would keep it from being started again.
        os.kill(engine.container("bench").pid, signal.SIGKILL)
        seen: list[str] = []
        while "start" not in seen:
            assert select.select([reader], [], [], PATIENCE_S)[0]
            seen += [event["Action"] for event in reader.new()]
    assert seen[:2] == ["die", "restart"] or "restart" in seen
    again = engine.inspect("bench")
    assert (again["RestartCount"], again["HostConfig"]["RestartPolicy"]["Name"]) == (1, "always")
    by_controller = {name: path for key, path in again["CgroupPaths"].items() for name in key.split(",")}
    limit = Path(by_controller.get("memory", by_controller.get("unified", "")))
    file = limit / "memory.limit_in_bytes" if "memory" in by_controller else limit / "memory.max"
    assert file.read_text() == f"{80 << 20}\n"
    # Another policy holds for the one that runs.
    assert cli("update", "--restart", "no", "bench").returncode == 0
    os.kill(engine.container("bench").pid, signal.SIGKILL)
    assert cli("wait", "bench").stdout == "137\n"
    assert engine.container("bench").status == "exited"
    assert engine.inspect("bench")["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert "--restart: starts a container again that --rm" in cli("run", "--rm", "--restart", "always", "box:1").stderr


@pytest.mark.needs("nftables-nat")
def test_ports_and_networks(cli: Cli, engine: Engine) -> None:
    with made() as host:
        host.ip("link", "set", "lo", "up")

        def at_host(*words: str) -> str:
            done = host.command(*CELLWALL, *words, env=dict(os.environ))
            assert done.returncode == 0, done.stderr
            return done.stdout

        at_host("network", "create", "--subnet", "10.55.0.0/24", "lab")
        ports = ["-p", "127.0.0.1:8080:80", "-p", "9000-9002:9000-9002", "--expose", "443"]
        at_host("run", "-d", "--name", "web", "--network", "lab", "--ip", "10.55.0.9", *ports, "box:1", "sleep", "1000")
        shown = "0.0.0.0:9000-9002->9000-9002/tcp, 127.0.0.1:8080->80/tcp, 443/tcp"
        assert cli("ps", "--format", "{{.Ports}}|{{.Networks}}").stdout == f"{shown}|lab\n"
        assert cli("port", "web", "80").stdout == "127.0.0.1:8080\n"
        assert cli("port", "web").stdout.splitlines()[0] == "80/tcp -> 127.0.0.1:8080"
        for said, found in (
            ("publish=80", "web"),
            ("publish=9001-9005", "web"),
            ("publish=443", ""),
            ("expose=443", "web"),
            ("network=lab", "web"),
            ("network=none", ""),
        ):
            assert cli("ps", "--filter", said, "--format", "{{.Names}}").stdout.strip() == found, said
        settings = engine.inspect("web")["NetworkSettings"]
        assert settings["Networks"]["lab"]["IPAddress"] == settings["IPAddress"] == "10.55.0.9"
        assert settings["Networks"]["lab"]["IPAMConfig"] == {"IPv4Address": "10.55.0.9"}
        assert settings["Ports"]["443/tcp"] is None
        template = "{{range $p, $c := .NetworkSettings.Ports}}{{if $c}}{{$p}}->{{(index $c 0).HostPort}} {{end}}{{end}}"
        assert (
            cli("inspect", "-f", template, "web").stdout
            == "80/tcp->8080 9000/tcp->9000 9001/tcp->9001 9002/tcp->9002 \n"
        )
        # Others find it by its new name.
        at_host("rename", "web", "site")
        assert engine.inspect("site")["NetworkSettings"]["Networks"]["lab"]["DNSNames"][0] == "site"
        at_host("rm", "-f", "site")
        at_host("network", "rm", "lab")
