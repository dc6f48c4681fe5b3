"""linux.resources: values out of range are refused by flag, the rest becomes the right files' values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cgroups import SUBSYSTEMS, check, v1, v2
from cellwall.runtime.cgroups.placement import not_in_force
from cellwall.runtime.cgroups.resources import device_lines, io_weight_of_blkio, parse_list, weight_of_shares
from cellwall.runtime.errors import SpecError

MIB = 1 << 20
ALL: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
    "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 64},
    "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}]},
    "network": {"classID": 0x100001},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
}


@pytest.mark.parametrize(
    ("resources", "flag"),
    [
        ({"memory": {"limit": 4096}}, "--memory"),
        ({"memory": {"limit": -2}}, "--memory"),
        ({"memory": {"limit": "64m"}}, "--memory"),
        ({"memory": {"limit": True}}, "--memory"),
        ({"memory": {"limit": 1 << 64}}, "--memory"),
        ({"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}, "--memory-swap"),
        ({"memory": {"swap": 64 * MIB}}, "--memory-swap"),
        ({"memory": {"limit": 64 * MIB, "reservation": 65 * MIB}}, "--memory-reservation"),
        ({"cpu": {"quota": 999}}, "--cpus"),
        ({"cpu": {"period": 999}}, "linux.resources.cpu.period"),
        ({"cpu": {"period": 1_000_001}}, "linux.resources.cpu.period"),
        ({"cpu": {"shares": 1}}, "--cpu-shares"),
        ({"cpu": {"shares": 262_145}}, "--cpu-shares"),
        ({"cpu": {"cpus": "0-"}}, "--cpuset-cpus"),
        ({"cpu": {"cpus": "3-1"}}, "--cpuset-cpus"),
        ({"cpu": {"cpus": "0-99999999999"}}, "--cpuset-cpus"),
        ({"cpu": {"mems": "x"}}, "--cpuset-mems"),
        ({"pids": {"limit": -2}}, "--pids-limit"),
        ({"pids": {"limit": 1 << 23}}, "--pids-limit"),
        ({"blockIO": {"weight": 9}}, "--blkio-weight"),
        ({"blockIO": {"weight": 1001}}, "--blkio-weight"),
        ({"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": -1}]}}, "--device-write-bps"),
        ({"network": {"classID": 1 << 32}}, "--net-cls-classid"),
        ({"devices": [{"allow": True, "access": "rx"}]}, "--device"),
        ({"devices": [{"allow": True, "type": "z"}]}, "--device"),
    ],
)
def test_out_of_range_names_the_flag(resources: dict[str, Any], flag: str) -> None:
    with pytest.raises(SpecError) as caught:
        check(resources)
    assert caught.value.field == flag


@pytest.mark.parametrize(
    "resources",
    [
        {},
        ALL,
        {"memory": {"limit": -1, "swap": -1}},
        {"memory": {"limit": 6 * MIB, "swap": 6 * MIB}},
        {"memory": {"limit": 64 * MIB, "swap": -1}},
        {"cpu": {"quota": -1, "shares": 0}},
        {"pids": {"limit": -1}},
    ],
)
def test_in_range(resources: dict[str, Any]) -> None:
    check(resources)


def written(version: Any, resources: dict[str, Any]) -> list[tuple[str, str]]:
    return [(setting.files[0], setting.value) for setting in version.settings(resources)]


def test_version_1_files() -> None:
    assert written(v1, ALL) == [
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory.soft_limit_in_bytes", str(32 * MIB)),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.shares", "1024"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "64"),
        ("blkio.weight", "500"),
        ("blkio.throttle.read_bps_device", "8:0 1024"),
        ("net_cls.classid", str(0x100001)),
        ("hugetlb.2MB.limit_in_bytes", str(4 * MIB)),
    ]


def test_a_limit_that_is_not_in_force_is_said_once_by_its_flag() -> None:
    assert not_in_force("cpu", {"cpu": {"quota": 50_000, "period": 100_000}}, "why") == ["--cpus is not in force: why"]


def test_version_2_files() -> None:
    assert written(v2, ALL) == [
        ("memory.swap.max", str(32 * MIB)),  # swap alone, not memory and swap together
        ("memory.max", str(64 * MIB)),
        ("memory.low", str(32 * MIB)),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "64"),
        ("io.bfq.weight", "500"),
        ("io.weight", "default 4950"),
        ("io.max", "8:0 rbps=1024"),
        ("hugetlb.2MB.max", str(4 * MIB)),
    ]


def test_no_limit() -> None:
    none: dict[str, Any] = {
        "memory": {"limit": -1, "swap": -1},
        "cpu": {"quota": -1, "period": 50_000},
        "pids": {"limit": -1},
    }
    assert written(v1, none)[0] == ("memory.limit_in_bytes", "-1")
    assert dict(written(v1, none))["pids.max"] == "max"
    assert written(v2, none) == [
        ("memory.swap.max", "max"),
        ("memory.max", "max"),
        ("cpu.max", "max 50000"),
        ("pids.max", "max"),
    ]


def test_every_setting_is_of_a_controller_that_is_asked_for() -> None:
    assert {setting.controller for setting in v1.settings(ALL)} == set(v1.controllers_for(ALL))
    assert {setting.controller for setting in v2.settings(ALL)} == set(v2.controllers_for(ALL))


def test_a_default_container_asks_for_three_controllers() -> None:
    default = {"memory": {"limit": 1 << 30}, "pids": {"limit": 4096}, "devices": [{"allow": False, "access": "rwm"}]}
    assert v1.controllers_for(default) == ["memory", "pids", "devices"]
    assert v2.controllers_for(default) == ["memory", "pids"]


def test_memory_without_a_limit_is_still_counted() -> None:
    assert v1.controllers_for({"memory": {}}) == ["memory"]


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262_144, 10_000)])
def test_defaults_and_ends_of_the_two_scales_meet(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


@given(st.integers(2, 262_143))
def test_more_shares_never_weigh_less(shares: int) -> None:
    assert 1 <= weight_of_shares(shares) <= weight_of_shares(shares + 1) <= 10_000


@given(st.integers(10, 1000))
def test_io_weight_is_in_range(weight: int) -> None:
    assert 1 <= io_weight_of_blkio(weight) <= 10_000


def test_io_weight_ends() -> None:
    assert (io_weight_of_blkio(10), io_weight_of_blkio(1000)) == (1, 10_000)


def test_lists() -> None:
    assert parse_list("0-2,5", "--cpuset-cpus") == [0, 1, 2, 5]
    assert parse_list("3, 1", "--cpuset-cpus") == [1, 3]


@given(st.sets(st.integers(0, 4095), min_size=1))
def test_a_list_of_single_numbers_comes_back(numbers: set[int]) -> None:
    assert parse_list(",".join(map(str, numbers)), "--cpuset-cpus") == sorted(numbers)


@given(st.text(alphabet="0123456789,-x ", max_size=12))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    try:
        found = parse_list(text, "--cpuset-cpus")
    except SpecError:
        return
    assert found == sorted(set(found)) and found


def test_device_rules_as_lines() -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "b", "major": 8},
        {"allow": True, "type": "c", "major": 136, "minor": -1},
        {"allow": True, "type": "a", "major": 7, "access": "r"},
        {"allow": True, "type": "p"},
    ]
    assert device_lines(rules) == [
        (False, "a *:* rwm"),
        (True, "c 1:3 rw"),
        (True, "b 8:* rwm"),
        (True, "c 136:* rwm"),
        (True, "b 7:* r"),
        (True, "c 7:* r"),
    ]


def test_the_nine_founding_subsystems_each_have_a_file_or_a_reason() -> None:
    assert [name for name, _, _, _ in SUBSYSTEMS] == [
        "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "net_cls", "ns",
    ]  # fmt: skip
    for name, _, files_v1, files_v2 in SUBSYSTEMS:
        for files in (files_v1, files_v2):
            assert files, name
