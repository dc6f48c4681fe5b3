"""``namespaces`` beside what lsns, nsenter, capsh and ps say, on containers that share in every way that there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound, StatusError
from cellwall.runtime.inspect.mounts import mounts_of
from cellwall.runtime.inspect.namespaces import namespaces_of
from cellwall.runtime.inspect.namespaces_facts import TYPES, Subject

from ..in_process import cellwall
from ..tree import TOP

pytestmark = pytest.mark.needs("root", "user-namespaces")

Cli = Callable[..., str]


@pytest.fixture
def cli(cellwall_root: Path) -> Iterator[Cli]:
    def run(*words: str, status: int = 0) -> str:
        # What a container writes goes past this process.
        if words[0] == "exec" or words[:2] == ("run", "--rm"):
            line = [sys.executable, "-m", "cellwall", *words]
            done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        else:
            done = cellwall(*words)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    yield run
    names = run("ps", "-aq", "--no-trunc").split()
    if names:
        run("rm", "-f", *names)


def told(*words: str) -> str:
    """What another program says."""
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def by_name(engine: Engine, *names: str) -> dict[str, Subject]:
    return {subject.name: subject for subject in namespaces_of(engine.known, names).subjects}


def from_lsns(pid: int) -> dict[str, int]:
    """Type and inode of a process's namespaces, as lsns reads them."""
    rows = json.loads(told("lsns", "--json", "--output", "ns,type", "--task", str(pid)))["namespaces"]
    return {row["type"]: int(row["ns"]) for row in rows}


def decoded(bits: str) -> set[str]:
    """Capabilities by libcap's names."""
    names = told(shutil.which("capsh", path="/usr/sbin:/sbin:/usr/bin") or "capsh", f"--decode={bits}").strip()
    return {name.upper() for name in names.partition("=")[2].split(",") if name}


def test_every_figure_is_the_kernels(cli: Cli, engine: Engine) -> None:
    cli(
        *"run -d --name one --hostname seen-inside --cap-add NET_ADMIN --cap-drop CHOWN -u 1000 host sleep 100000".split()
    )
    cli("exec", "-d", "one", "sleep", "100001")
    pid = engine.container("one").pid
    one = by_name(engine, "one")["one"]
    listed = from_lsns(pid)
    assert {space.type: space.inode for space in one.namespaces} == {kind: listed[kind] for kind in TYPES}
    gives = {space.type: space.gives for space in one.namespaces}
    enter = ["nsenter", "--target", str(pid)]
    assert gives["uts"] == told(*enter, "--uts", "hostname").strip() == "seen-inside"
    links = [link["ifname"] for link in json.loads(told(*enter, "--net", "ip", "-j", "link"))]
    assert gives["net"] == ", ".join(links) == "lo"
    mounts = told("findmnt", "--task", str(pid), "--list", "--noheadings", "--output", "TARGET").splitlines()
    assert (
        gives["mnt"]
        == f"{len(mounts)} mounts, / is {told('findmnt', '--task', str(pid), '-no', 'FSTYPE', '/').strip()}"
    )
    assert gives["cgroup"] in Path(f"/proc/{pid}/cgroup").read_text()
    assert engine.container("one").id in gives["cgroup"]
    # Maps and rights, from the files and through libcap.
    for ranges, kind in ((one.uid_map, "uid"), (one.gid_map, "gid")):
        rows = [tuple(map(int, row.split())) for row in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines()]
        assert [(row.inside, row.outside, row.count) for row in ranges] == rows
    assert f"root is {one.uid_map[0].outside} outside" in gives["user"]
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    for kind, names in (
        ("Eff", one.capabilities.effective),
        ("Prm", one.capabilities.permitted),
        ("Inh", one.capabilities.inheritable),
        ("Bnd", one.capabilities.bounding),
        ("Amb", one.capabilities.ambient),
    ):
        assert set(names) == decoded(status[f"Cap{kind}"])
    assert one.capabilities.beyond_default == ("CAP_NET_ADMIN",)
    assert one.capabilities.below_default == ("CAP_CHOWN",)
    assert one.capabilities.effective == ()  # its user is 1000
    assert (one.no_new_privileges, one.seccomp, one.seccomp_filters) == (True, "filter", 1)
    assert (status["NoNewPrivs"], status["Seccomp"], status["Seccomp_filters"]) == ("1", "2", "1")
    # Processes: inside by the container's own ps, outside by its group.
    inside = told(*enter, "--pid", "--mount", "--user", "--setuid", "0", "ps", "-eo", "pid=,args=").splitlines()
    known = {int(row.split()[0]): row.split(None, 1)[1] for row in inside if "ps -eo" not in row}
    assert {member.container_pid: member.command for member in one.processes} == known
    assert [(member.container_pid, member.joined, member.depth) for member in one.processes] == [
        (1, False, 0),
        (next(number for number in known if number != 1), True, 0),
    ]
    # exec's command runs as the container's user too; outside it is another id.
    assert {(member.container_uid, member.uid) for member in one.processes} == {(1000, one.uid_map[0].outside + 1000)}
    group = cli("top", "one", "-eo", "pid").split()[1:]
    assert sorted(member.pid for member in one.processes) == sorted(map(int, group))
    host = by_name(engine)["one"]
    assert host == one


def test_what_is_shared_and_with_whom(cli: Cli, engine: Engine) -> None:
    cli("run", "-d", "--name", "base", "--ipc", "shareable", "host", "sleep", "100000")
    cli("run", "-d", "--name", "nets", "--network", "container:base", "host", "sleep", "100000")
    cli("run", "-d", "--name", "pids", "--pid", "container:base", "--ipc", "container:base", "host", "sleep", "100000")
    cli(
        *"run -d --name open --pid host --userns host --network host --uts host --ipc host --cgroupns host host sleep 100000".split()
    )
    names = ("base", "nets", "pids", "open")
    found = by_name(engine, *names)
    here = namespaces_of(engine.known).subjects[0]
    inodes = {name: from_lsns(engine.container(name).pid) for name in names} | {here.name: from_lsns(os.getpid())}
    for name, subject in found.items():
        for space in subject.namespaces:
            assert space.inode == inodes[name][space.type]
            others = {other for other in found if other != name and inodes[other][space.type] == space.inode}
            assert set(space.shared_with) == others, (name, space.type)
    assert "nets" in found["base"].namespace("net").shared_with
    assert "base" in found["pids"].namespace("pid").shared_with
    assert [space.type for space in found["open"].namespaces if here.name not in space.shared_with] == ["mnt"]
    # In another's pid namespace a process has that one's numbers; in the machine's it has one number.
    assert [member.container_pid for member in found["pids"].processes] != [1]
    assert [member.pid == member.container_pid for member in found["open"].processes] == [True]
    assert found["open"].uid_map[0].count == 4294967295
    assert found["open"].namespace("uts").gives == os.uname().nodename
    # All that run, the oldest first; one that ends isn't there, and one that was named is missed by name.
    view = namespaces_of(engine.known)
    assert [subject.name for subject in view.subjects] == [here.name, *names]
    text = cli("namespaces")
    assert "◇ = base" in text
    assert max(map(len, text.splitlines())) <= 80
    cli("kill", "nets")
    assert [subject.name for subject in namespaces_of(engine.known).subjects[1:]] == ["base", "pids", "open"]
    with pytest.raises(
        StatusError, match=r"container nets is exited, and this needs it running: start it \(cellwall start nets\)"
    ):
        namespaces_of(engine.known, ["base", "nets"])
    with pytest.raises(NotFound):
        namespaces_of(engine.known, ["nobody"])
    data = json.loads(cli("namespaces", "base", "base", "--format", "json"))
    assert [subject["name"] for subject in data["subjects"]] == [here.name, "base"]
    assert data["subjects"][1]["namespaces"][0]["inode"] == inodes["base"]["mnt"]
    assert "only created" not in cli("create", "--name", "unstarted", "host", "true")
    assert "container unstarted is created" in cli("namespaces", "unstarted", status=1)


def test_paused_ephemeral_and_many_processes(cli: Cli, engine: Engine) -> None:
    cli(
        "run",
        "-d",
        "--name",
        "busy",
        "--pids-limit",
        "400",
        "host",
        "sh",
        "-c",
        "for i in $(seq 260); do sleep 100000 & done; wait",
    )
    cli("run", "-d", "--rm", "--name", "brief", "host", "sleep", "100000")
    group = cli("top", "brief", "-eo", "pid").split()[1:]
    assert [str(member.pid) for member in by_name(engine, "brief")["brief"].processes] == group
    cli("exec", "busy", "sh", "-c", "until [ $(ps -eo args= | grep -cx 'sleep 100000') -eq 260 ]; do :; done")
    cli("pause", "busy")
    try:
        busy = by_name(engine, "busy")["busy"]
        assert busy.status == "paused"
        assert (busy.count, len(busy.processes), busy.more) == (261, 200, 61)
        assert busy.namespace("uts").gives == engine.container("busy").id[:12]
        assert [member.depth for member in busy.processes] == [0] + [1] * 199
        assert "… and 61 more processes" in cli("namespaces", "busy")
    finally:
        cli("unpause", "busy")


def test_a_name_does_nothing(cli: Cli, engine: Engine) -> None:
    name = "\x1b[31m<img src=x onerror=alert(1)>\n\u202e"
    cli("run", "-d", "--name", "odd", "host", "bash", "-c", 'exec -a "$0" sleep 100000', name)
    cli("exec", "odd", "sh", "-c", "until [ $(cat /proc/1/comm) = sleep ]; do :; done")
    view = namespaces_of(engine.known, ["odd"])
    assert view.subjects[1].processes[0].command == f"{name} 100000"
    for shown in (cli("namespaces", "odd"), view.html()):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[31m" in shown
    assert "<img" not in view.html()


def test_a_process_with_namespaces_of_its_own(cli: Cli, engine: Engine) -> None:
    """One that a privileged container puts into further namespaces is told with what it has for itself, and its children's."""
    script = "unshare --uts --pid --fork --kill-child sh -c 'hostname deeper; exec sleep 100001' & wait"
    cli("run", "-d", "--name", "outer", "--privileged", "host", "sh", "-c", script)
    cli("exec", "outer", "sh", "-c", "until ps -eo args= | grep -qx 'sleep 100001'; do :; done")
    outer = by_name(engine, "outer")["outer"]
    found = {member.command: member for member in outer.processes}
    deep = found["sleep 100001"]
    assert deep.own == ("pid", "uts")
    assert found[next(name for name in found if name.startswith("unshare"))].own == ("uts",)
    assert os.stat(f"/proc/{deep.pid}/ns/uts").st_ino != outer.namespace("uts").inode
    # Its number in the container, not the one in its own namespace, which is 1.
    numbers = re.search(r"^NSpid:(.*)$", Path(f"/proc/{deep.pid}/status").read_text(), re.M)
    assert numbers is not None
    assert [deep.container_pid, 1] == [int(number) for number in numbers[1].split()[-2:]]
    assert deep.depth == 2


def test_a_container_that_ends_while_it_is_read(cli: Cli, engine: Engine) -> None:
    """Whatever moment it ends at: its own facts, or the error that says so."""
    for number in range(4):
        cli("run", "-d", "--rm", "--name", f"gone{number}", "host", "sleep", "100000")
        pid = engine.container(f"gone{number}").pid
        listed = from_lsns(pid)
        killer = threading.Timer(0.002 * number, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises((StatusError, NotFound), match="is exited, and this needs it running|no container gone"):
            while True:
                found = by_name(engine, f"gone{number}")[f"gone{number}"]
                assert {space.type: space.inode for space in found.namespaces} == {kind: listed[kind] for kind in TYPES}
                assert [member.pid for member in found.processes] == [pid]
                by_target = {point.target: point.kind for point in mounts_of(engine.known, f"gone{number}").mounts}
                assert by_target["/"] == "root"
        killer.join()
        # What is shown of all that run has it no more.
        assert len(namespaces_of(engine.known).subjects) == 1


def read_elsewhere(code: str, *, first: str = "") -> Any:
    """What a fresh Python says of itself, as JSON, started by ``first`` (unshare with options)."""
    words = [*first.split(), sys.executable, "-c", code]
    return json.loads(told(*words))


@pytest.mark.needs("namespaces")
def test_children_elsewhere_and_other_clocks(cellwall_root: Path) -> None:
    """Of a process whose children will be in other namespaces than it, and of one whose clocks are shifted."""
    code = (
        "import json\n"
        "from cellwall.runtime.containers import Containers\n"
        "from cellwall.runtime.paths import Paths\n"
        "from cellwall.runtime.inspect.namespaces import namespaces_of\n"
        "print(json.dumps(namespaces_of(Containers(Paths.default())).to_dict()))\n"
    )
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("a kernel without time namespaces")
    shifted = read_elsewhere(code, first="unshare --time --monotonic 1000 --boottime -7 --fork")["subjects"][0]
    assert {space["type"]: space["gives"] for space in shifted["namespaces"]}[
        "time"
    ] == "monotonic +1000 s, boottime -7 s"
    before = "import os, ctypes\nctypes.CDLL(None).unshare(0x80)\n"
    apart = read_elsewhere(before + code)["subjects"][0]
    time = next(space for space in apart["namespaces"] if space["type"] == "time")
    assert time["for_children"] not in (None, time["inode"])


INSIDE = """
import json, os
from cellwall.runtime.containers import Containers
from cellwall.runtime.inspect.mounts import mounts_of
from cellwall.runtime.inspect.mounts_words import inside
from cellwall.runtime.inspect.namespaces import namespaces_of
from cellwall.runtime.paths import Paths
known = Containers(Paths.default())
(here,) = namespaces_of(known).subjects
view = mounts_of(known)
bind = next(point for point in view.mounts if point.target == "/mine")
print(json.dumps({
    "name": here.name,
    "inodes": {space.type: space.inode for space in here.namespaces},
    "files": {space.type: os.stat(f"/proc/self/ns/{space.type}").st_ino for space in here.namespaces},
    "gives": here.namespace("uts").gives,
    "numbers": [[one.pid, one.container_pid, one.depth, one.joined, one.uid, one.container_uid] for one in here.processes],
    "count": here.count,
    "owner": [os.stat("/mine/file").st_uid, inside(bind.uid_map, view.uid_map)],
    "idmapped": bind.idmapped,
}))
"""


def test_in_a_container_it_is_about_that_one(cli: Cli, tmp_path: Path) -> None:
    """What a kernel in a container sees of itself: its ids are its own there, whatever they are outside."""
    shutil.copytree(TOP / "runtime", tmp_path / "cellwall" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "__init__.py", tmp_path / "cellwall")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").touch()
    script = f'sleep 1000 & exec {shutil.which("python3", path="/usr/bin:/bin")} -B -c "$0"'
    words = ["-v", f"{tmp_path}:/src:ro", "-v", f"{mine}:/mine", "-e", "PYTHONPATH=/src", "-e", "CELLWALL_ROOT=/tmp/x"]
    seen = json.loads(
        cli("run", "--rm", *words, "-u", "1000", "--hostname", "within", "host", "sh", "-c", script, INSIDE)
    )
    assert (seen["name"], seen["gives"]) == ("here", "within")
    assert seen["inodes"] == seen["files"]
    assert seen["numbers"] == [[1, 1, 0, False, 1000, 1000], [2, 2, 1, False, 1000, 1000]]
    assert seen["count"] == 2
    if seen["idmapped"]:
        assert seen["owner"][0] == 1000
        assert [0, 1000, 1] in seen["owner"][1]
