"""``cgroups X`` on real containers: each figure beside the kernel's own file, read here apart from the view."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.cgroups import Group, hierarchy
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound, StatusError
from cellwall.runtime.inspect import cgroups, cgroups_target
from cellwall.runtime.inspect.cgroups import CgroupsView
from cellwall.runtime.inspect.cgroups_figures import Meter
from cellwall.runtime.inspect.cgroups_watch import Watch
from cellwall.runtime.linux.process import start_time
from cellwall.runtime.options import RunOptions

from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root", "cgroup-write")

MIB = 1 << 20
# One process that does nothing.
IDLE = "exec sleep 600"
Start = Callable[..., str]


@pytest.fixture
def start(engine: Engine, busybox: str) -> Iterator[Start]:
    """Starts a container in the background that runs a shell script, and removes it at the end; gives its name."""
    made: list[str] = []

    def run(script: str, **options: Any) -> str:
        name = f"look-{len(made)}"
        engine.run_detached(RunOptions(image=busybox, command=("sh", "-c", script), name=name, **options))
        made.append(name)
        return name

    yield run
    for name in made:
        engine.remove(name, force=True)


def soon(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    """Whether the condition becomes true: a bound for a hang, not a measure."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def look(engine: Engine, name: str) -> CgroupsView:
    return cgroups.look(cgroups_target.container(engine, name))


def file_of(engine: Engine, name: str, controller: str, v1: str, v2: str) -> Path:
    """A control file of a container, found by /proc and the mounts, not by the view. Skips where the controller isn't mounted."""
    pid = engine.container(name).pid
    tree = hierarchy().find(controller)
    if tree is None:
        pytest.skip(f"the {controller} controller isn't mounted here")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if controller in names.split(",") if tree.version == 1 else number == "0":
            return Path(f"{tree.point}{path}") / (v1 if tree.version == 1 else v2)
    raise AssertionError(controller)


def figure(meter: Meter, name: str) -> Any:
    """A meter's further figure by its name."""
    return next((one.value for one in meter.figures if one.name == name), None)


def value(meter: Meter, name: str) -> Any:
    found = getattr(meter, name)
    return None if found is None else found.value


def steady(engine: Engine, name: str, field: str, read: Callable[[], int]) -> None:
    """What the view says of memory is what the file says: looked at between two readings of it that are alike."""

    def alike() -> bool:
        before = read()
        seen = value(look(engine, name).meter("memory"), field)
        return before == read() and seen == before

    assert soon(alike)


def test_limits_set_by_dockers_flags_are_shown_as_the_files_have_them(engine: Engine, start: Start) -> None:
    name = start(
        IDLE,
        memory_bytes=64 * MIB,
        memory_reservation_bytes=32 * MIB,
        cpus=0.5,
        cpu_shares=512,
        cpuset_cpus="0",
        pids_limit=77,
    )
    view = look(engine, name)
    memory, cpu, pids, cpuset = (view.meter(one) for one in ("memory", "cpu", "processes", "cpuset"))

    def said(controller: str, v1: str, v2: str) -> str:
        return file_of(engine, name, controller, v1, v2).read_text().strip()

    assert value(memory, "limit") == 64 * MIB == int(said("memory", "memory.limit_in_bytes", "memory.max"))
    assert figure(memory, "reservation") == 32 * MIB == int(said("memory", "memory.soft_limit_in_bytes", "memory.low"))
    steady(engine, name, "use", lambda: int(said("memory", "memory.usage_in_bytes", "memory.current")))
    steady(engine, name, "peak", lambda: int(said("memory", "memory.max_usage_in_bytes", "memory.peak")))
    quota = said("cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert value(cpu, "limit") == 0.5
    assert quota == "50000"
    weight = "shares" if cpu.version == 1 else "weight"
    assert figure(cpu, weight) == int(said("cpu", "cpu.shares", "cpu.weight"))
    assert value(pids, "limit") == 77 == int(said("pids", "pids.max", "pids.max"))
    assert value(pids, "use") == int(said("pids", "pids.current", "pids.current"))
    assert figure(cpuset, "cpus") == "0" == said("cpuset", "cpuset.cpus", "cpuset.cpus")
    assert value(cpuset, "limit") == 1
    assert value(cpuset, "capacity") == os.cpu_count()
    assert not any(meter.limited_by for meter in view.meters)
    assert view.not_in_force == ()
    assert view.frozen is False
    # The group is the one that its process is in, tree by tree.
    groups = {line.split(":", 2)[2] for line in Path(f"/proc/{view.pid}/cgroup").read_text().splitlines()}
    assert {place.group for place in view.places} == groups
    assert all(place.own == (view.container_id in place.group) for place in view.places)
    assert {place.folder for place in view.places if place.own} == set(
        engine.known.state(view.container_id)["cellwall"]["cgroup"].values()  # type: ignore[index]
    )


def test_the_command_prints_the_same_as_data_and_as_text(
    engine: Engine, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    name = start(IDLE, memory_bytes=64 * MIB, pids_limit=77)
    assert main(["cgroups", name, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    view = look(engine, name)
    assert data["container_id"] == view.container_id
    assert [meter["name"] for meter in data["meters"]] == [meter.name for meter in view.meters]
    assert data["meters"][0]["limit"]["value"] == 64 * MIB
    assert [one["name"] for one in data["subsystems"]] == [
        "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "net_cls", "ns",
    ]  # fmt: skip
    assert main(["cgroups", name]) == 0
    text = capsys.readouterr().out
    assert "of 64 MiB" in text
    assert "of 77" in text
    assert max(map(len, text.splitlines())) <= 80
    html = view.html()
    for fact in ("of 64 MiB", "of 77", "net_cls", "removed in Linux 3.0", view.container_id):
        assert fact in html
        assert fact in text


def test_the_nine_subsystems_have_the_words_of_their_files(engine: Engine, start: Start) -> None:
    name = start(IDLE, memory_bytes=64 * MIB)
    for one in look(engine, name).subsystems:
        assert bool(one.values) != bool(one.note), one
        assert one.files_v1 or one.why_v1
        assert one.files_v2 or one.why_v2
        for entry in one.values:
            assert os.path.basename(entry.file) in (one.files_v1 if one.version == 1 else one.files_v2)
            # What is counted changes; limits and lists don't.
            if not entry.file.endswith((".stat", "usage", "usage_in_bytes", "current", "peak", "service_bytes")):
                assert entry.text == Path(entry.file).read_text().strip()
    devices = next(one for one in look(engine, name).subsystems if one.name == "devices")
    if devices.version == 1:
        assert "c 1:3 rwm" in devices.values[0].text.splitlines()


def test_kills_for_want_of_memory_are_counted(engine: Engine, start: Start) -> None:
    name = start("while :; do tail /dev/zero; [ -e /stop ] || sleep 60; done", memory_bytes=16 * MIB)
    file = file_of(engine, name, "memory", "memory.oom_control", "memory.events")
    assert soon(lambda: "\noom_kill 1" in file.read_text())
    memory = look(engine, name).meter("memory")
    assert figure(memory, "out-of-memory kills") == 1
    assert figure(memory, "times at the limit") > 0
    assert value(memory, "peak") <= 16 * MIB
    assert "out-of-memory kills" in [one.name for one in memory.figures if one.bad and one.value]
    text = look(engine, name).text()
    assert "✕ out-of-memory kills 1" in text


def test_throttling_is_counted(engine: Engine, start: Start) -> None:
    name = start("while :; do :; done", cpus=0.1)
    file = file_of(engine, name, "cpu", "cpu.stat", "cpu.stat")

    def counted() -> int:
        return int(dict(line.split() for line in file.read_text().splitlines())["nr_throttled"])

    assert soon(lambda: counted() >= 3)
    before = counted()
    cpu = look(engine, name).meter("cpu")
    assert before <= figure(cpu, "times throttled") <= counted()
    assert figure(cpu, "time throttled") > 0
    assert figure(cpu, "periods") >= figure(cpu, "times throttled")
    assert value(cpu, "limit") == 0.1
    assert 0 < value(cpu, "use")
    assert figure(cpu, "cpu time") > 0


def test_processes_that_could_not_be_made_are_counted(engine: Engine, start: Start) -> None:
    name = start("sleep 60 & (sleep 60 & sleep 60) & wait; wait", pids_limit=3)
    file = file_of(engine, name, "pids", "pids.events", "pids.events")
    assert soon(lambda: file.read_text().split()[1] != "0")
    pids = look(engine, name).meter("processes")
    assert figure(pids, "times at the limit") >= 1
    assert value(pids, "peak") == 3
    assert pids.share is not None and pids.share <= 1


def test_a_disk_that_is_held_to_a_rate_is_named_by_its_numbers(engine: Engine, start: Start) -> None:
    disk = next((one for one in sorted(Path("/sys/block").iterdir()) if not one.name.startswith(("loop", "ram"))), None)
    if disk is None or not Path(f"/dev/{disk.name}").is_block_device() or hierarchy().find("blkio") is None:
        pytest.skip("no disk here that a rate could be set for")
    from cellwall.runtime.options import Rate

    name = start(IDLE, device_read_bps=(Rate(f"/dev/{disk.name}", MIB),))
    found = look(engine, name).disks
    [held] = [one for one in found.disks if one.rates]
    assert held.device == (disk / "dev").read_text().strip()
    assert held.name == disk.name
    assert [(rate.name, rate.value, rate.unit) for rate in held.rates] == [("read", MIB, "bytes")]
    assert "read 1 MiB/s" in look(engine, name).text()


def test_pressure_is_that_of_the_groups_files_or_says_why_not(engine: Engine, start: Start) -> None:
    view = look(engine, start(IDLE))
    folder = next((place.folder for place in view.places if place.version == 2 and place.own), "")
    if not os.path.exists(f"{folder}/cpu.pressure"):
        assert view.pressure == ()
        assert "psi=1" in view.pressure_note or "version 2" in view.pressure_note
        assert view.pressure_note.split()[0] in view.text()
        return
    assert [one.resource for one in view.pressure][:3] == ["cpu", "memory", "io"]
    for one in view.pressure:
        assert one.file == f"{folder}/{one.resource}.pressure"
        total = int(Path(one.file).read_text().split("total=")[1].split()[0])
        assert one.some is not None and one.some.total_s * 1e6 <= total + 1


def test_a_paused_container_is_said_to_stand_still(engine: Engine, start: Start) -> None:
    name = start(IDLE)
    engine.pause(name)
    try:
        view = look(engine, name)
        assert view.frozen is True
        assert "paused" in view.text()
        assert "paused" in view.html()
    finally:
        engine.unpause(name)
    assert look(engine, name).frozen is False


def test_a_container_that_does_not_run_says_what_to_do(engine: Engine, start: Start) -> None:
    name = start("exit 0")
    assert engine.wait(name) == 0
    with pytest.raises(
        StatusError, match=f"container {name} is exited, and this needs it running: cellwall start {name}"
    ):
        look(engine, name)
    with pytest.raises(NotFound, match="no container nobody"):
        look(engine, "nobody")


def test_one_that_ends_while_it_is_read_gives_nobodys_figures(engine: Engine, start: Start) -> None:
    name = start(IDLE)
    target = cgroups_target.container(engine, name)
    engine.kill(name)
    for use in (lambda: cgroups.look(target), lambda: next(iter(Watch(target).views()))):
        with pytest.raises(StatusError, match="it ended while it was being looked at"):
            use()
    # Another process of that number isn't it either.
    other = replace(target, pid=os.getpid())
    with pytest.raises(StatusError):
        cgroups.look(other)


def test_a_further_command_is_in_the_containers_group(engine: Engine, start: Start) -> None:
    name = start(IDLE)
    more: dict[str, Any] = dict.fromkeys(("script", "workdir", "user", "size", "timeout_s"))
    engine.exec_detached(name, ["sleep", "60"], env={}, tty=False, privileged=False, **more)
    view = look(engine, name)
    assert value(view.meter("processes"), "use") >= 2
    assert all(place.group.endswith(view.container_id) for place in view.places if place.own)


def test_what_was_asked_for_in_vain_is_said(engine: Engine, start: Start) -> None:
    if hierarchy().find("net_cls") is not None:
        pytest.skip("the net_cls controller is mounted here")
    name = start(IDLE, net_cls_classid=0x10001, memory_bytes=64 * MIB)
    assert look(engine, name).not_in_force == (
        "--net-cls-classid is not in force: the net_cls controller isn't mounted on this machine",
    )
    # Somebody else writes another limit: what holds is what the file says.
    file_of(engine, name, "memory", "memory.limit_in_bytes", "memory.max").write_text(str(32 * MIB))
    view = look(engine, name)
    assert value(view.meter("memory"), "limit") == 32 * MIB
    assert f"--memory was asked for as {64 * MIB}" in view.not_in_force[0]
    assert "--memory was asked for" in view.text()
    assert "--memory was asked for" in view.html()


def test_this_process_and_a_limit_from_above() -> None:
    """A limit of a group further up holds as well, and the view says whose it is."""
    tree = hierarchy().find("pids")
    if tree is None:
        pytest.skip("the pids controller isn't mounted here")
    group = Group.create(f"test-view-{os.getpid()}", {"pids": {"limit": 55}})
    outer = group.paths.get("pids") or group.paths["unified"]
    inner = Path(outer) / "inner"
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        if "pids" not in group.paths:
            (Path(outer) / "cgroup.subtree_control").write_text("+pids")
        inner.mkdir()
        (inner / "pids.max").write_text("99")
        (inner / "cgroup.procs").write_text(str(child.pid))
        me = cgroups_target.this_process()
        view = cgroups.look(replace(me, pid=child.pid, started=start_time(child.pid)))
        pids = view.meter("processes")
        assert value(pids, "limit") == 55
        assert pids.limited_by == str(Path(outer).relative_to(tree.point).as_posix()).join(("/", ""))
        assert value(pids, "use") == 1
        assert f"limited by {pids.limited_by}" in view.text().replace("\n", " ") or pids.limited_by in view.html()
    finally:
        child.communicate(b"\n", timeout=30)
        inner.rmdir()
        assert soon(group.remove)
    own = cgroups.look(cgroups_target.this_process())
    assert own.pid == os.getpid()
    groups = {line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    assert {place.group for place in own.places} == groups


# -- watching


def test_watching_ends_with_the_container_and_keeps_what_was_seen(engine: Engine, start: Start) -> None:
    name = start("while :; do :; done", memory_bytes=64 * MIB)
    views = Watch(cgroups_target.container(engine, name), redraw_s=0.05).views()
    seen = []
    for view in views:
        seen.append(view)
        if len(seen) == 8:
            engine.kill(name)
    last = seen[-1]
    assert [view.state for view in seen] == ["runs"] * (len(seen) - 1) + ["ended"]
    assert value(last.meters[0], "limit") == 64 * MIB
    assert any(moment.memory_bytes for moment in last.moments)
    assert any(moment.cpus for moment in last.moments)
    assert [moment.at_s for moment in last.moments] == sorted(moment.at_s for moment in last.moments)
    assert "ended after" in last.text()
    assert "<svg" in last.html()


def test_watching_is_stopped_from_another_thread_and_by_time(engine: Engine, start: Start) -> None:
    target = cgroups_target.container(engine, start(IDLE))
    watch = Watch(target, redraw_s=600)
    views = watch.views()
    assert next(views).state == "runs"
    thread = threading.Thread(target=watch.stop)
    thread.start()
    assert [view.state for view in views] == ["stopped"]
    thread.join()
    assert [view.state for view in Watch(target, for_s=0.05, redraw_s=600).views()] == ["runs", "stopped"]
    before = Watch(target)
    before.stop()
    assert [view.state for view in before.views()][-1] == "stopped"


def test_the_command_watches_until_it_is_interrupted(engine: Engine, start: Start) -> None:
    name = start(IDLE)
    watching = subprocess.Popen(
        [sys.executable, "-m", "cellwall", "cgroups", name, "--watch", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert first["state"] == "runs"
    # It has shown what there was and waits: poll(2), or ppoll(2) where the machine has no other.
    assert soon(lambda: Path(f"/proc/{watching.pid}/syscall").read_text().split()[0] in ("7", "73", "271"))
    watching.send_signal(signal.SIGINT)
    rest, errors = watching.communicate(timeout=PATIENCE_S)
    assert (watching.returncode, errors) == (0, "")
    assert json.loads(rest.splitlines()[-1])["state"] == "stopped"
    assert main(["cgroups", name, "--for", "3"]) == 125


def test_on_a_terminal_each_view_is_drawn_over_the_one_before(engine: Engine, start: Start) -> None:
    name = start(IDLE)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cellwall", "cgroups", name, "--watch", "--for", "0.1"]
    watching = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    assert watching.wait(PATIENCE_S) == 0
    first, *later = re.split(rb"\x1b\[(\d+)A", written)
    [up, last] = later
    assert int(up) == first.count(b"\n")
    assert first.count(f"{name}  watched for".encode()) == last.count(b"it goes on") == 1


# -- another runtime's container, and its own reading of it


@pytest.mark.needs("runc", "busybox-static")
def test_runc_reads_the_same_of_its_container(tmp_path: Path) -> None:
    name = f"cellwall-look-{os.getpid()}"
    runc = ["runc", "--root", str(tmp_path / "state")]
    bundle = tmp_path / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    shutil.copy2(str(shutil.which("busybox")), bundle / "rootfs/bin/busybox")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/bin/busybox", "sleep", "600"]}
    spec["linux"]["cgroupsPath"] = f"/{name}"
    spec["linux"]["resources"] = {
        "memory": {"limit": 48 * MIB},
        "cpu": {"quota": 30_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 33},
    }
    (bundle / "config.json").write_text(json.dumps(spec))
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.run(
        [*runc, "run", "-d", "--bundle", str(bundle), "--pid-file", str(tmp_path / "pid"), name], **quiet
    )
    try:
        if started.returncode:
            pytest.skip("runc can't start a container here")
        pid = int((tmp_path / "pid").read_text())
        # runc has told its own program there to begin, which has several threads, and doesn't wait for the exec.
        until(lambda: Path(f"/proc/{pid}/comm").read_text() == "busybox\n", "the container's program")
        target = replace(cgroups_target.this_process(), pid=pid, started=start_time(pid))

        def theirs() -> dict[str, Any]:
            done = subprocess.run([*runc, "events", "--stats", name], capture_output=True, check=True)
            found: dict[str, Any] = json.loads(done.stdout)["data"]
            return found

        before, view, after = theirs(), cgroups.look(target), theirs()
        memory, pids, cpu, cpuset = (view.meter(one) for one in ("memory", "processes", "cpu", "cpuset"))
        assert value(memory, "limit") == 48 * MIB == before["memory"]["usage"]["limit"]
        if memory.version == 1:  # of version 2 runc tells no peak
            assert before["memory"]["usage"]["max"] <= value(memory, "peak") <= after["memory"]["usage"]["max"]
        assert value(pids, "limit") == 33 == before["pids"]["limit"]
        assert value(pids, "use") == 1 == before["pids"]["current"]
        assert value(cpu, "limit") == 0.3
        total = [one["cpu"]["usage"]["total"] / 1e9 for one in (before, after)]
        assert total[0] <= figure(cpu, "cpu time") <= total[1]
        assert figure(cpuset, "cpus") == "0"
    finally:
        subprocess.run([*runc, "delete", "-f", name], **quiet)
