"""Groups of the real kernel: made, joined, counted, killed and removed, in whichever version this machine has.

The same tests run where version 1, version 2, or both are mounted, as root and (version 2) as an ordinary user with
a systemd of their own; on a hybrid machine also with each version's trees alone. A test that needs a controller that isn't
there says so by skipping.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.cgroups import Group, Hierarchy, hierarchy, orphans
from cellwall.runtime.cgroups.files import read
from cellwall.runtime.errors import AlreadyExists, CgroupError, SpecError, UnsupportedError
from cellwall.runtime.linux.process import clone3

from ..waiting import PATIENCE_S

MIB = 1 << 20
DEVICES: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
]
Make = Callable[..., Group]
Start = Callable[..., int]

pytestmark = pytest.mark.needs("cgroup-write")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trees" in metafunc.fixturenames:
        mode = hierarchy().mode
        metafunc.parametrize("trees", ["hybrid", "v1", "v2"] if mode == "hybrid" else [mode], indirect=True)


@pytest.fixture
def trees(request: pytest.FixtureRequest) -> Hierarchy:
    """The trees that the test works in. All of them are the kernel's own."""
    found = hierarchy()
    if request.param == found.mode:
        return found
    return Hierarchy([tree for tree in found.trees if f"v{tree.version}" == request.param])


@pytest.fixture
def make(trees: Hierarchy) -> Iterator[Make]:
    """Makes groups, and removes them again when the test is over."""
    groups: list[Group] = []

    def create(resources: dict[str, Any], **more: Any) -> Group:
        group = Group.create(f"test-{os.getpid()}-{len(groups)}", resources, trees=trees, **more)
        groups.append(group)
        return group

    yield create
    for group in groups:
        group.kill()
        assert soon(group.remove), f"{group.paths} stays busy: {group.pids()}"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts children that run a function in a group; all are reaped when the test is over."""
    children: list[int] = []

    def run(group: Group, function: Callable[[], object], leaf: str = "", cloned: bool = True) -> int:
        clone_fd = group.clone_fd(leaf, partial=True) if cloned else -1
        fds = group.join_fds(leaf, cloned=clone_fd >= 0)
        ready, done = os.pipe()
        pid, pidfd = clone3(0, clone_fd)
        if pid == 0:
            try:
                for fd in fds:
                    os.write(fd, b"0")
                os.write(done, b"x")
                function()
            finally:
                os._exit(0)
        children.append(pid)
        os.close(done)
        for fd in (pidfd, *fds, *([clone_fd] if clone_fd >= 0 else [])):
            os.close(fd)
        joined = os.read(ready, 1)
        os.close(ready)
        assert joined == b"x", "the child couldn't join"
        return pid

    yield run
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):  # the test has waited for it
            continue


def soon(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    """Whether the condition becomes true: a bound for a hang, not a measure."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def sleep() -> None:
    time.sleep(600)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def need(trees: Hierarchy, controller: str) -> None:
    """Skip where ``controller`` has no tree here."""
    if trees.find(controller) is None:
        pytest.skip(f"the {controller} controller isn't mounted here")


def without(group: Group, flag: str) -> None:
    for sentence in group.unsupported:
        if sentence.startswith(flag):
            pytest.skip(sentence)


def own_group(controller: str, pid: int) -> str:
    """The path of ``pid``'s group in the controller's tree, or in version 2's."""
    text = read(f"/proc/{pid}/cgroup") or ""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (not controllers and not controller):
            return path
    return next(line[3:] for line in text.splitlines() if line.startswith("0::"))


def test_a_child_is_in_every_tree_of_its_group(make: Make, start: Start) -> None:
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}})
    pid = start(group, sleep)
    for key, path in group.paths.items():
        mine = own_group("" if key == "unified" else key.split(",")[0], pid)
        assert path.endswith(mine), (key, path, mine)
        assert (read(f"{path}/cgroup.procs") or "").split() == [str(pid)]
    assert group.pids() == [pid]


def test_a_child_that_was_not_cloned_into_it(make: Make, start: Start) -> None:
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}})
    pid = start(group, sleep, cloned=False)
    for path in group.paths.values():
        assert (read(f"{path}/cgroup.procs") or "").split() == [str(pid)]


def test_join_moves_another_process(make: Make) -> None:
    group = make({"pids": {"limit": 64}})
    pid, pidfd = clone3(0)
    if pid == 0:
        try:
            sleep()
        finally:
            os._exit(0)
    os.close(pidfd)
    try:
        group.join(pid)
        assert group.pids() == [pid]
    finally:
        os.kill(pid, signal.SIGKILL)
        wait(pid)


def test_only_the_trees_that_are_needed(trees: Hierarchy, make: Make) -> None:
    if trees.mode == "v2":
        assert set(make({"memory": {"limit": 64 * MIB}}).paths) == {"unified"}
        return
    group = make({"memory": {"limit": 64 * MIB}})
    killer = "unified" if trees.unified else "freezer"
    assert {key for path in group.paths for key in path.split(",")} == {"memory", killer}


def test_open_finds_it_again(make: Make, start: Start) -> None:
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}})
    pid = start(group, sleep)
    again = Group.open(group.paths)
    assert again.pids() == [pid]
    assert again.events()["memory_limit_bytes"] == group.events()["memory_limit_bytes"]
    again.kill()
    assert wait(pid) == -signal.SIGKILL
    assert soon(again.remove)
    assert group.pids() == []
    assert set(group.events().values()) == {None}
    group.kill()
    assert group.remove()


def test_memory_limit_and_out_of_memory(trees: Hierarchy, make: Make, start: Start) -> None:
    need(trees, "memory")
    group = make({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}})
    without(group, "--memory is")
    assert group.events()["memory_limit_bytes"] == 32 * MIB
    assert group.events()["oom_kills"] == 0
    pid = start(group, lambda: bytearray(128 * MIB))
    assert wait(pid) == -signal.SIGKILL
    events = group.events()
    assert events["oom_kills"] >= 1
    if events["memory_peak_bytes"] is not None:  # memory.peak is younger than version 2 (Linux 5.19)
        assert 16 * MIB <= events["memory_peak_bytes"] <= 32 * MIB


def test_what_fits_is_not_killed(trees: Hierarchy, make: Make, start: Start) -> None:
    need(trees, "memory")
    group = make({"memory": {"limit": 128 * MIB}})
    pid = start(group, lambda: bytearray(16 * MIB))
    assert wait(pid) == 0
    assert group.events()["oom_kills"] == 0


def test_pids_limit_holds_and_is_counted(trees: Hierarchy, make: Make, start: Start) -> None:
    need(trees, "pids")
    group = make({"pids": {"limit": 16}})
    without(group, "--pids-limit")
    assert group.events()["pids_limit_hits"] == 0

    def bomb() -> None:
        for _ in range(40):
            try:
                if os.fork() == 0:
                    sleep()
            except BlockingIOError:
                continue
        sleep()

    pid = start(group, bomb)
    assert soon(lambda: group.events()["pids_limit_hits"] >= 24), group.events()
    assert len(group.pids()) == 16
    events = group.events()
    assert events["pids_limit"] == 16
    if events["pids_peak"] is not None:
        assert events["pids_peak"] == 16
    group.kill()
    assert wait(pid) == -signal.SIGKILL
    assert soon(lambda: group.pids() == [])


def test_kill_reaches_what_forks_without_end(make: Make, start: Start) -> None:
    group = make({"pids": {"limit": 64}})

    def multiply() -> None:
        while True:
            try:
                if os.fork() == 0:
                    os.setsid()
            except BlockingIOError:
                continue

    pid = start(group, multiply)
    assert soon(lambda: len(group.pids()) > 4)
    group.kill()
    assert wait(pid) == -signal.SIGKILL
    assert soon(lambda: group.pids() == [])


def test_kill_of_a_paused_group(make: Make, start: Start) -> None:
    group = make({"pids": {"limit": 64}})
    pid = start(group, sleep)
    group.freeze()
    group.kill()
    assert wait(pid) == -signal.SIGKILL


def test_freeze_stops_and_thaw_goes_on(make: Make, start: Start, tmp_path: Path) -> None:
    group = make({"pids": {"limit": 64}})
    count = tmp_path / "count"
    count.write_bytes(b"")

    def counting() -> None:
        fd = os.open(count, os.O_WRONLY | os.O_APPEND)
        while True:
            os.write(fd, b".")
            time.sleep(0.001)

    start(group, counting)
    assert soon(lambda: count.stat().st_size > 3)
    group.freeze()
    before = count.stat().st_size
    time.sleep(0.05)
    assert count.stat().st_size == before
    group.thaw()
    assert soon(lambda: count.stat().st_size > before)


def test_a_leaf_is_killed_alone(make: Make, start: Start) -> None:
    group = make({"pids": {"limit": 64}, "memory": {"limit": 64 * MIB}})
    first = start(group, sleep)
    leaf = group.leaf("exec-1")
    assert leaf == "exec-1"
    second = start(group, sleep, leaf)
    assert group.pids(leaf) == [second]
    assert group.pids() == sorted([first, second])
    assert group.leave(leaf) is False
    group.kill(leaf)
    assert wait(second) == -signal.SIGKILL
    assert soon(lambda: group.leave(leaf))
    assert group.pids() == [first]


def test_remove_says_false_while_busy_and_takes_nested_groups(make: Make, start: Start) -> None:
    group = make({"pids": {"limit": 64}})
    pid = start(group, sleep)
    assert group.remove() is False
    assert group.pids() == [pid]
    main = group.main
    assert main is not None
    os.makedirs(f"{main.path}/a/b")
    group.kill()
    wait(pid)
    assert soon(group.remove)
    assert not any(os.path.exists(path) for path in group.paths.values())


def test_orphans_and_find(trees: Hierarchy, make: Make) -> None:
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}})
    name = os.path.basename(next(iter(group.paths.values())))
    assert name in orphans(trees=trees)
    assert Group.find(name, trees=trees).paths == group.paths
    assert group.remove()
    assert name not in orphans(trees=trees)
    assert Group.find(name, trees=trees).paths == {}


def test_the_parent_goes_with_its_last_group(make: Make) -> None:
    one = make({"pids": {"limit": 64}}, parent=f"cellwall-test-{os.getpid()}")
    two = make({"pids": {"limit": 64}}, parent=f"cellwall-test-{os.getpid()}")
    parents = {os.path.dirname(path) for path in one.paths.values()}
    assert one.remove()
    assert all(map(os.path.isdir, parents))
    assert two.remove()
    assert not any(os.path.isdir(parent) for parent in parents if not parent.endswith(".scope"))


def test_the_same_name_twice(trees: Hierarchy, make: Make) -> None:
    group = make({"pids": {"limit": 64}})
    name = os.path.basename(next(iter(group.paths.values())))
    with pytest.raises(AlreadyExists, match=name):
        Group.create(name, {"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}}, trees=trees)
    assert all(map(os.path.isdir, group.paths.values())), "the group that was there must stay"
    assert Group.find(name, trees=trees).paths == group.paths, "and nothing may be made beside it"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_that_leads_elsewhere(trees: Hierarchy, name: str) -> None:
    with pytest.raises(CgroupError):
        Group.create(name, {}, trees=trees)


def test_all_or_nothing(trees: Hierarchy, make: Make) -> None:
    need(trees, "cpuset")
    name = f"test-{os.getpid()}-none"
    with pytest.raises(SpecError, match="--cpuset-cpus.*this machine has 0"):
        Group.create(name, {"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}, "cpu": {"cpus": "4000"}}, trees=trees)
    assert Group.find(name, trees=trees).paths == {}


def test_cpu_limits_are_written(trees: Hierarchy, make: Make) -> None:
    need(trees, "cpu")
    group = make({"cpu": {"quota": 20_000, "period": 100_000, "shares": 512}})
    without(group, "--cpus")
    names = ("cpu.max", "cpu.cfs_quota_us", "cpu.shares", "cpu.weight")
    found = [(name, read(f"{path}/{name}")) for path in group.paths.values() for name in names]
    written = {name: text for name, text in found if text is not None}
    if "cpu.max" in written:
        assert written == {"cpu.max": "20000 100000\n", "cpu.weight": "59\n"}
    else:
        assert written == {"cpu.cfs_quota_us": "20000\n", "cpu.shares": "512\n"}


def test_cpu_quota_throttles(trees: Hierarchy, make: Make, start: Start) -> None:
    need(trees, "cpu")
    group = make({"cpu": {"quota": 10_000, "period": 100_000}})
    without(group, "--cpus")

    def spin() -> None:
        while True:
            pass

    start(group, spin)
    assert soon(lambda: (group.stats()["cpu"].get("throttled_periods") or 0) >= 3), group.stats()["cpu"]


def test_cpu_time_is_counted(trees: Hierarchy, make: Make, start: Start) -> None:
    group = make({"pids": {"limit": 64}})

    def spin() -> None:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    assert wait(start(group, spin)) == 0
    used = group.events()["cpu_s"]
    if used is None:
        assert trees.unified is None, "version 2 counts it in every group"
        pytest.skip("neither a version 2 tree nor cpuacct counts for this group")
    assert used >= 0.15


def test_cpuset_of_one_cpu(trees: Hierarchy, make: Make, start: Start) -> None:
    need(trees, "cpuset")
    group = make({"cpu": {"cpus": "0"}})
    without(group, "--cpuset-cpus")
    pid = start(group, sleep)
    assert os.sched_getaffinity(pid) == {0}


def disk() -> tuple[int, int]:
    """Major and minor number of a whole disk of this machine."""
    for block in sorted(Path("/sys/block").iterdir()):
        if (block / "device").exists() or block.name.startswith(("loop", "ubd", "ram")):
            major, _, minor = (block / "dev").read_text().strip().partition(":")
            return int(major), int(minor)
    pytest.skip("no disk here")


def test_rates_of_a_disk(trees: Hierarchy, make: Make) -> None:
    need(trees, "blkio")
    major, minor = disk()
    item = {"major": major, "minor": minor}
    group = make(
        {
            "blockIO": {
                "throttleReadBpsDevice": [item | {"rate": 1 << 20}],
                "throttleWriteIOPSDevice": [item | {"rate": 50}],
            }
        }
    )
    without(group, "--device-read-bps")
    texts = [
        read(f"{path}/{name}") for path in group.paths.values() for name in ("io.max", "blkio.throttle.read_bps_device")
    ]
    assert any(text and f"{major}:{minor} " in text and str(1 << 20) in text for text in texts), texts
    texts = [
        read(f"{path}/{name}")
        for path in group.paths.values()
        for name in ("io.max", "blkio.throttle.write_iops_device")
    ]
    assert any(text and f"{major}:{minor} " in text and "50" in text for text in texts), texts


def test_rates_of_what_is_no_disk(trees: Hierarchy) -> None:
    need(trees, "blkio")
    disk()
    name = f"test-{os.getpid()}-nodisk"
    rates = {"throttleReadBpsDevice": [{"major": 4095, "minor": 7, "rate": 1 << 20}]}
    try:
        group = Group.create(name, {"blockIO": rates}, trees=trees)
    except SpecError as error:
        assert error.field == "--device-read-bps"
        assert "name the whole disk" in str(error)
        assert Group.find(name, trees=trees).paths == {}
    else:
        assert group.remove()
        assert [sentence.partition(" ")[0] for sentence in group.unsupported] == ["--device-read-bps"]


def test_weight_of_a_disk(trees: Hierarchy, make: Make) -> None:
    need(trees, "blkio")
    group = make({"blockIO": {"weight": 500}})
    without(group, "--blkio-weight")
    names = ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")
    texts = [read(f"{path}/{name}") for path in group.paths.values() for name in names]
    assert any(text and ("500" in text or "4950" in text) for text in texts), texts


def test_update(trees: Hierarchy, make: Make) -> None:
    need(trees, "memory")
    group = make({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "pids": {"limit": 64}})
    without(group, "--memory is")
    # Up and down again: memory and swap together may at no time be less than memory.
    for limit in (256 * MIB, 32 * MIB):
        group.update({"memory": {"limit": limit, "swap": limit}, "pids": {"limit": 7}})
        assert group.events()["memory_limit_bytes"] == limit
        assert group.events()["pids_limit"] == 7
    with pytest.raises(SpecError, match="--memory"):
        group.update({"memory": {"limit": 1}})
    group.update({"memory": {"limit": -1, "swap": -1}})
    assert group.events()["memory_limit_bytes"] is None


def test_update_says_what_it_could_not(make: Make) -> None:
    group = make({"pids": {"limit": 64}})
    group.update({"network": {"classID": 1}})
    assert [sentence.partition(" ")[0] for sentence in group.unsupported] == ["--net-cls-classid"]


def test_a_missing_controller_is_said(trees: Hierarchy, make: Make) -> None:
    if trees.find("net_cls") is not None:
        pytest.skip("net_cls is mounted here")
    group = make({"network": {"classID": 0x100001}})
    assert group.unsupported == [
        "--net-cls-classid is not in force: the net_cls controller isn't mounted on this machine"
    ]


@pytest.mark.needs("root")
def test_devices_are_decided(make: Make, start: Start) -> None:
    group = make({"devices": DEVICES})
    without(group, "--device")
    answers = {}
    for device in ("/dev/null", "/dev/zero"):
        read_end, write_end = os.pipe()

        def attempt(device: str = device, write_end: int = write_end) -> None:
            try:
                os.close(os.open(device, os.O_RDONLY))
                os.write(write_end, b"opened")
            except PermissionError:
                os.write(write_end, b"refused")

        wait(start(group, attempt))
        os.close(write_end)
        answers[device] = os.read(read_end, 16)
        os.close(read_end)
    assert answers == {"/dev/null": b"opened", "/dev/zero": b"refused"}


@pytest.mark.needs("root")
def test_devices_can_be_changed(make: Make, start: Start) -> None:
    group = make({"devices": DEVICES})
    without(group, "--device")
    group.update({"devices": [*DEVICES, {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}]})
    assert wait(start(group, lambda: os._exit(0 if os.open("/dev/zero", os.O_RDONLY) >= 0 else 1))) == 0
    assert group.unsupported == []


def test_stats(make: Make, start: Start) -> None:
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}})
    without(group, "--memory is")
    start(group, sleep)
    stats = group.stats()
    assert stats["memory"]["limit_bytes"] == 64 * MIB
    assert 0 < stats["memory"]["usage_bytes"] <= stats["memory"]["peak_bytes"] <= 64 * MIB
    assert stats["memory"]["stat"]
    assert stats["pids"]["current"] == 1
    assert stats["pids"]["limit"] == 64


def test_descriptors_are_closed(make: Make, start: Start) -> None:
    group = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 64}, "devices": DEVICES})
    before = sorted(os.listdir("/proc/self/fd"))
    pid = start(group, sleep)
    group.freeze()
    group.thaw()
    group.events()
    group.stats()
    group.kill()
    wait(pid)
    with pytest.raises(CgroupError):
        Group.open({key: f"{path}-gone" for key, path in group.paths.items()}).join_fds()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.needs("root")
def test_a_user_without_delegation_gets_sentences(trees: Hierarchy, make: Make, start: Start) -> None:
    read_end, write_end = os.pipe()

    def attempt() -> None:
        os.environ.pop("XDG_RUNTIME_DIR", None)
        os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            group = Group.create(f"test-{os.getpid()}-user", {"pids": {"limit": 64}}, trees=trees)
            group.kill()
            os.write(write_end, "|".join([str(group.paths), str(group.remove()), *group.unsupported]).encode())
        except BaseException as error:
            os.write(write_end, repr(error).encode())

    wait(start(make({}), attempt))
    os.close(write_end)
    said = os.read(read_end, 4096).decode()
    os.close(read_end)
    assert said.startswith("{}|True|--pids-limit is not in force: "), said
    if trees.find("pids") is not None:
        assert "run as root" in said


def test_several_at_once_make_and_remove_the_parent(trees: Hierarchy, make: Make, start: Start) -> None:
    """The parent goes with one's last group while another is making its own below it."""
    outer = make({})
    parent = f"cellwall-race-{os.getpid()}"
    read_end, write_end = os.pipe()

    def attempt() -> None:
        try:
            for turn in range(60):
                resources = {"pids": {"limit": 7}, "memory": {"limit": 64 * MIB}}
                group = Group.create(f"{os.getpid()}-{turn}", resources, parent=parent, trees=trees)
                limit = group.events()["pids_limit"]
                assert limit == 7 or group.unsupported, (limit, group.paths)
                assert soon(group.remove)
        except BaseException as error:
            os.write(write_end, repr(error).encode() + b"\n")

    children = [start(outer, attempt) for _ in range(4)]
    for pid in children:
        wait(pid)
    os.close(write_end)
    said = os.read(read_end, 65536).decode()
    os.close(read_end)
    assert said == ""
    # A user's scope holds other tests' groups as well.
    assert [name for name in orphans(parent, trees=trees) if not name.startswith("test-")] == []


@pytest.mark.needs("root")
def test_a_read_only_mount_is_said(trees: Hierarchy, start: Start, make: Make) -> None:
    """In a mount namespace of its own, where every tree is mounted read-only."""
    from cellwall.runtime.linux import mounts
    from cellwall.runtime.linux.process import CLONE_NEWNS, unshare

    read_end, write_end = os.pipe()

    def attempt() -> None:
        try:
            unshare(CLONE_NEWNS)
            mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
            for tree in trees.trees:
                mounts.mount(None, tree.point, None, mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)
            Group.create(f"test-{os.getpid()}-ro", {"devices": DEVICES}, trees=trees)
            os.write(write_end, b"made")
        except UnsupportedError as error:
            os.write(write_end, f"{error.feature}|{error.mend}".encode())
        except BaseException as error:
            os.write(write_end, repr(error).encode())

    wait(start(make({}), attempt))
    os.close(write_end)
    said = os.read(read_end, 4096).decode()
    os.close(read_end)
    assert "mounted read-only|run `mount -o remount,rw" in said


IN_USER_NAMESPACE = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from cellwall.runtime.cgroups import Group
from cellwall.runtime.linux.process import clone3

group = Group.create(sys.argv[2], {"memory": {"limit": 64 << 20}, "pids": {"limit": 7}})
fd = group.clone_fd()
pid, _ = clone3(0, fd)
if pid == 0:
    signal.pause()
listed = group.pids() == [pid]
group.kill()
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
events = group.events()
for _ in range(1000):
    if group.remove():
        break
print(json.dumps([os.getuid(), group.unsupported, listed, status, events["memory_limit_bytes"], events["pids_limit"]]))
"""


@pytest.mark.needs("cgroup-v2-only", "user-namespaces", "cgroup-memory", "cgroup-pids")
@pytest.mark.skipif(os.geteuid() == 0, reason="an ordinary user becomes root of a user namespace here")
def test_the_launcher_of_a_user_is_root_of_a_user_namespace() -> None:
    """Where its uid is 0 and the bus knows it by another."""
    src = Path(__file__).resolve().parents[2] / "src"
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        sys.executable,
        "-I",
        "-S",
        "-c",
        IN_USER_NAMESPACE,
        str(src),
        f"test-{os.getpid()}-ns",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, [], True, -signal.SIGKILL, 64 * MIB, 7]
