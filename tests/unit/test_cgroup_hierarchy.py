"""Reading /proc/self/cgroup and mountinfo: where each controller is, and where this process is in its tree."""

from __future__ import annotations

import pytest

from cellwall.runtime.cgroups.hierarchy import build, own_folder, parse_mountinfo, parse_own, unescape

V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
OWN = "9:name=systemd:/init\n5:devices:/\n4:memory:/box/one\n1:cpu,cpuacct:/\n0::/user.slice\n"


def test_own_paths_by_controller() -> None:
    assert parse_own(OWN) == {"devices": "/", "memory": "/box/one", "cpu": "/", "cpuacct": "/", "": "/user.slice"}


def test_a_path_may_hold_colons() -> None:
    assert parse_own("3:pids:/a:b\n0::/c:d\n") == {"pids": "/a:b", "": "/c:d"}


def test_hybrid() -> None:
    found = build(V1_MOUNTS + UNIFIED_MOUNT, OWN, lambda point: ["hugetlb"])
    assert found.mode == "hybrid"
    memory = found.find("memory")
    assert memory is not None
    assert (memory.version, memory.folder) == (1, "/sys/fs/cgroup/memory/box/one")
    cpu = found.find("cpuacct")
    assert cpu is not None
    assert (cpu.key, cpu.folder) == ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct")
    hugetlb = found.find("hugetlb")
    assert hugetlb is not None
    assert (hugetlb.key, hugetlb.folder) == ("unified", "/sys/fs/cgroup/unified")
    assert found.find("net_cls") is None
    assert found.find("freezer") is found.unified


@pytest.mark.parametrize(
    ("mountinfo", "mode"),
    [
        ("", "none"),
        (V1_MOUNTS, "v1"),
        ("29 23 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "v2"),
        (V1_MOUNTS + UNIFIED_MOUNT, "hybrid"),
    ],
)
def test_mode(mountinfo: str, mode: str) -> None:
    assert build(mountinfo, OWN, lambda point: []).mode == mode


def test_version_2_names() -> None:
    mount = "29 23 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    found = build(mount, "0::/user.slice/session-1.scope\n", lambda point: ["cpu", "io", "memory"])
    for controller in ("blkio", "cpuacct", "cpu", "memory", "freezer", "devices"):
        assert found.find(controller) is found.unified
    for controller in ("pids", "net_cls", "cpuset"):
        assert found.find(controller) is None


def test_a_named_tree_carries_nothing() -> None:
    assert [names for _, _, _, names in parse_mountinfo(V1_MOUNTS)] == [("cpu", "cpuacct"), ("memory",), ("devices",)]


def test_a_mount_over_a_tree_hides_it() -> None:
    hidden = V1_MOUNTS + "50 35 0:40 / /sys/fs/cgroup/memory ro - tmpfs tmpfs ro\n"
    assert build(hidden, OWN).find("memory") is None


def test_a_tree_mounted_twice_is_one() -> None:
    twice = V1_MOUNTS + "60 23 0:32 / /mnt/memory rw - cgroup cgroup rw,memory\n"
    assert [tree.point for tree in build(twice, OWN).trees if "memory" in tree.controllers] == ["/sys/fs/cgroup/memory"]


@pytest.mark.parametrize(
    ("root", "own", "folder"),
    [
        ("/", "/", "/c"),
        ("/", "/a/b", "/c/a/b"),
        ("/docker/x", "/docker/x", "/c"),
        ("/docker/x", "/docker/x/y", "/c/y"),
        ("/docker/x", "/docker/xy", "/c"),  # a neighbour whose name begins alike
        ("/", "/../other", "/c"),  # outside the cgroup namespace
        ("/", "/..", "/c"),
    ],
)
def test_own_folder(root: str, own: str, folder: str) -> None:
    assert own_folder("/c", root, own) == folder


def test_unescape() -> None:
    assert unescape("/a\\040b\\134c") == "/a b\\c"
    assert unescape("/plain") == "/plain"


def test_unescape_takes_each_escape_once() -> None:
    assert unescape("/a\\134040b") == "/a\\040b"
