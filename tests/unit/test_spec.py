"""Options and an image's config become the bundle's config."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.cli.run_options import parse_run
from cellwall.runtime.containers import options_from_dict, options_to_dict
from cellwall.runtime.errors import NotFound, SpecError, VolumeError
from cellwall.runtime.images.platforms import Platform
from cellwall.runtime.options import Mount, Port, Rate, RunOptions, Script, Ulimit
from cellwall.runtime.spec import command_of, plan

IMAGE: dict[str, Any] = {
    "config": {
        "Entrypoint": ["/entry"],
        "Cmd": ["default"],
        "Env": ["PATH=/image/bin", "A=image", "B=image"],
        "WorkingDir": "/work",
        "User": "alice",
        "Labels": {"from": "image", "both": "image"},
    }
}
ID = "0123456789ab" + "0" * 52


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["/entry", "default"]),
        ({"command": ("x",)}, ["/entry", "x"]),
        ({"entrypoint": ("/other", "-a")}, ["/other", "-a"]),
        ({"entrypoint": ("",), "command": ("y", "z")}, ["y", "z"]),
    ],
)
def test_command(options: dict[str, Any], expected: list[str]) -> None:
    assert command_of(RunOptions(image="i", **options), IMAGE) == expected


def test_no_command_is_refused() -> None:
    with pytest.raises(SpecError, match="names no command"):
        plan(RunOptions(image="i"), {}, ID)


def test_environment_order() -> None:
    made = plan(RunOptions(image="i", env={"B": "user", "C": "user"}), IMAGE, ID)
    assert made.process["env"] == {"PATH": "/image/bin", "HOSTNAME": ID[:12], "A": "image", "B": "user", "C": "user"}


def test_config_is_an_oci_bundles() -> None:
    spec = plan(RunOptions(image="i", labels={"both": "user"}, memory_bytes=1 << 26, cpus=1.5), IMAGE, ID).spec
    assert json.loads(json.dumps(spec)) == spec
    assert spec["ociVersion"].startswith("1.")
    assert spec["process"]["cwd"] == "/work"
    assert {n["type"] for n in spec["linux"]["namespaces"]} == {
        "mount",
        "user",
        "pid",
        "network",
        "ipc",
        "uts",
        "cgroup",
    }
    assert spec["linux"]["resources"]["memory"] == {"limit": 1 << 26}
    assert spec["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
    assert spec["annotations"]["org.cellwall.label.both"] == "user"
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]


def test_limits_are_there_when_none_is_given() -> None:
    resources = plan(RunOptions(image="i"), IMAGE, ID).spec["linux"]["resources"]
    assert resources["memory"]["limit"] > 0
    assert resources["pids"]["limit"] > 0


def test_host_namespaces() -> None:
    spec = plan(RunOptions(image="i", network="host", pid="host", userns="host"), IMAGE, ID).spec
    assert {n["type"] for n in spec["linux"]["namespaces"]} == {"mount", "ipc", "uts", "cgroup"}
    sys_mount = next(m for m in spec["mounts"] if m["destination"] == "/sys")
    assert sys_mount["type"] == "bind"
    assert "ro" in sys_mount["options"]


@pytest.mark.parametrize("field", ["uts", "userns", "cgroupns"])
def test_other_namespaces_of_another_container_are_refused(field: str) -> None:
    with pytest.raises(SpecError, match="not available yet"):
        plan(RunOptions(image="i", **{field: "container:x"}), IMAGE, ID)  # type: ignore[arg-type]


def test_ports_under_the_machines_network_are_told() -> None:
    made = plan(RunOptions(image="i", network="host", publish=(Port(80),)), IMAGE, ID)
    assert made.warnings == (
        "--publish is not in force: under --network host the container's ports are this machine's own",
    )
    assert plan(RunOptions(image="i", network="bridge", publish=(Port(80),)), IMAGE, ID).warnings == ()


def test_sysctls_of_the_host_are_refused() -> None:
    with pytest.raises(SpecError, match="would change the host"):
        plan(RunOptions(image="i", sysctls={"vm.overcommit_memory": "1"}), IMAGE, ID)
    with pytest.raises(SpecError, match="shares with the host"):
        plan(RunOptions(image="i", network="host", sysctls={"net.ipv4.ip_forward": "1"}), IMAGE, ID)


def test_mounts(tmp_path: Path) -> None:
    mounts = (Mount("bind", "/data", str(tmp_path), True), Mount("tmpfs", "/t", options=("size=8m",)))
    spec = plan(RunOptions(image="i", mounts=mounts), IMAGE, ID).spec
    bound = next(m for m in spec["mounts"] if m["destination"] == "/data")
    assert bound["source"] == str(tmp_path)
    assert {"nosuid", "nodev", "ro"} <= set(bound["options"])
    scratch = next(m for m in spec["mounts"] if m["destination"] == "/t")
    assert {"nosuid", "nodev", "noexec", "size=8m"} <= set(scratch["options"])
    with pytest.raises(VolumeError, match="mkdir -p"):
        plan(RunOptions(image="i", mounts=(Mount("bind", "/data", "/no/such"),)), IMAGE, ID)


def test_devices() -> None:
    made = plan(RunOptions(image="i", devices=("/dev/zero:/dev/nil:r",)), IMAGE, ID).spec["linux"]
    assert made["devices"][0] | {"fileMode": 0} == {
        "path": "/dev/nil", "type": "c", "major": 1, "minor": 5, "fileMode": 0, "uid": 0, "gid": 0, "source": "/dev/zero",
    }  # fmt: skip
    assert made["resources"]["devices"][-1] == {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}
    with pytest.raises(NotFound):
        plan(RunOptions(image="i", devices=("/dev/no-such",)), IMAGE, ID)
    with pytest.raises(SpecError, match="no device node"):
        plan(RunOptions(image="i", devices=("/etc/passwd",)), IMAGE, ID)


def test_a_cells_text() -> None:
    made = plan(RunOptions(image="i"), {}, ID, script=Script(b"echo \xff", "python"))
    assert base64.b64decode(made.process["script"]["text"]) == b"echo \xff"
    assert made.process["script"]["interpreter"] == ["python3"]
    assert plan(RunOptions(image="i"), {}, ID, script=Script(b"x")).process["script"]["interpreter"] == []
    assert plan(RunOptions(image="i"), {}, ID, script=Script(b"x", "awk -f")).process["script"]["interpreter"] == [
        "awk",
        "-f",
    ]


def test_privileged_and_security_options() -> None:
    made = plan(RunOptions(image="i", privileged=True), IMAGE, ID)
    assert made.process["seccomp"] == ""
    assert "CAP_SYS_ADMIN" in made.process["capabilities"]
    assert "seccomp" not in made.spec["linux"]
    assert made.spec["linux"]["maskedPaths"] == []
    assert not plan(RunOptions(image="i", security_opt=("no-new-privileges=false",)), IMAGE, ID).process[
        "no_new_privileges"
    ]


def test_options_survive_json() -> None:
    options = RunOptions(
        image="i",
        command=("a", "b"),
        env={"A": "1"},
        mounts=(Mount("bind", "/d", "/s", True, ("noexec",)),),
        ulimits=(Ulimit("nofile", 1, 2),),
        device_read_bps=(Rate("/dev/vda", 5),),
        entrypoint=("x",),
        timeout_s=1.5,
    )
    assert options_from_dict(json.loads(json.dumps(options_to_dict(options)))) == options


def test_errors_name_the_flag_that_was_typed() -> None:
    for line, flag in (
        ("-v /nowhere:/x i c", "--volume"),
        ("--mount type=bind,source=/nowhere,target=/x i c", "--mount"),
        ("--mount source=named,target=/x i c", "--mount"),
        ("--device-read-bps /dev/null:1mb i c", "--device-read-bps"),
        ("--device-write-iops /dev/nowhere:9 i c", "--device-write-iops"),
    ):
        with pytest.raises((SpecError, VolumeError, NotFound), match=f"^{flag}: "):
            plan(parse_run(line.split()), {}, ID)


def test_an_image_of_another_platform_that_nobody_asked_for_is_told() -> None:
    here = Platform.here()
    foreign = {"os": "linux", "architecture": "arm64" if here.architecture != "arm64" else "amd64"}
    (warning,) = plan(parse_run(["i", "c"]), foreign, ID).warnings
    assert f"(linux/{foreign['architecture']})" in warning and f"({here})" in warning
    assert plan(parse_run(["--platform", f"linux/{foreign['architecture']}", "i", "c"]), foreign, ID).warnings == ()
    for own in ({}, {"os": "linux", "architecture": here.architecture}):
        assert plan(parse_run(["i", "c"]), own, ID).warnings == ()
