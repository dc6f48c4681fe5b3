"""What a default container can see and be, read from its own /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.linux.capabilities import names
from cellwall.runtime.security.capabilities import DEFAULT
from cellwall.runtime.security.profile import MASKED_PATHS

pytestmark = pytest.mark.needs("root")

NAMESPACES = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup")


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_every_namespace_is_its_own(engine: Engine, busybox: str) -> None:
    result = cellwall.run(
        busybox, script=f"cd /proc/self/ns; for n in {' '.join(NAMESPACES)}; do readlink $n; done", engine=engine
    )
    inside = result.stdout.split()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]
    assert len(inside) == len(NAMESPACES)
    assert not set(inside) & set(outside)


def test_two_containers_share_no_namespace_and_no_id(engine: Engine, busybox: str) -> None:
    script = f"cat /proc/self/uid_map; cd /proc/self/ns; readlink {' '.join(NAMESPACES)}; sleep 0.3"
    import threading

    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(cellwall.run(busybox, script=script, engine=engine).stdout))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = (set(text.split()[1:2] + text.split()[3:]) for text in found)
    assert not first & second


def test_security_state(engine: Engine, busybox: str) -> None:
    found = status(cellwall.run(busybox, ["cat", "/proc/self/status"], engine=engine).stdout)
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert set(names(int(found[name], 16))) <= set(DEFAULT), name
    assert set(names(int(found["CapEff"], 16))) <= set(DEFAULT)
    assert int(found["CapEff"], 16), "root inside has capabilities"
    assert found["Groups"] == "0"


def test_root_inside_is_nobody_outside(engine: Engine, busybox: str) -> None:
    inside, outside, count = map(
        int, cellwall.run(busybox, ["cat", "/proc/self/uid_map"], engine=engine).stdout.split()
    )
    assert inside == 0
    assert outside >= 0x70000000
    assert count == 65536


def test_no_foreign_descriptor(engine: Engine, busybox: str) -> None:
    found = cellwall.run(busybox, ["ls", "/proc/self/fd"], engine=engine).stdout.split()
    assert found == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    in_script = cellwall.run(busybox, script="ls /proc/self/fd", engine=engine).stdout.split()
    assert in_script == ["0", "1", "2", "3"]


def test_none_of_the_hosts_environment(engine: Engine, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWALL_TEST_SECRET", "token-4711")
    result = cellwall.run(busybox, script="env; cat /proc/*/environ", engine=engine)
    assert "token-4711" not in result.stdout
    lines = cellwall.run(busybox, ["env"], engine=engine).stdout.splitlines()
    assert {line.partition("=")[0] for line in lines} == {"PATH", "HOME", "HOSTNAME"}


def test_only_its_own_processes(engine: Engine, busybox: str) -> None:
    found = cellwall.run(busybox, script="ls -d /proc/[0-9]*", engine=engine).stdout.split()
    assert found[0] == "/proc/1"
    assert len(found) <= 3


def test_only_loopback_and_it_is_up(engine: Engine, busybox: str) -> None:
    script = (
        "ls /sys/class/net; cat /sys/class/net/lo/flags; nc -l -p 7 -e true & sleep 0.2; nc 127.0.0.1 7 && echo reached"
    )
    words = cellwall.run(busybox, script=script, engine=engine).stdout.split()
    assert words[0] == "lo"
    assert int(words[1], 16) & 1, "IFF_UP"


def test_the_hosts_network_on_request(engine: Engine, busybox: str) -> None:
    inside = cellwall.run(busybox, ["readlink", "/proc/self/ns/net"], network="host", engine=engine).stdout.strip()
    assert inside == os.readlink("/proc/self/ns/net")
    seen = cellwall.run(busybox, script="touch /sys/kernel/x 2>&1; echo $?", network="host", engine=engine).stdout
    assert seen.split()[-1] == "1"


@pytest.mark.parametrize(
    "path",
    ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/profiling", "/proc/irq/default_smp_affinity"],
)
def test_kernel_settings_are_read_only(engine: Engine, busybox: str, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    result = cellwall.run(busybox, script=f"echo 1 > {path}", engine=engine)
    assert result.exit_status != 0


def test_masked_paths_show_nothing(engine: Engine, busybox: str) -> None:
    there = [path for path in MASKED_PATHS if os.path.exists(path)]
    assert "/proc/keys" in there
    script = "for p in $@; do if [ -d $p ]; then ls $p | wc -l; else wc -c < $p; fi; done"
    result = cellwall.run(busybox, there, script=script, engine=engine)
    assert result.stdout.split() == ["0"] * len(there)


def test_device_nodes(engine: Engine, busybox: str) -> None:
    script = "find /dev ! -type d ! -type l | sort; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c"
    words = cellwall.run(busybox, script=script, engine=engine).stdout.split()
    nodes = [word for word in words if word.startswith("/dev/") and not word.startswith(("/dev/cell/", "/dev/pts"))]
    assert nodes == [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    assert words[-2:] == ["4", "8"]


def test_a_device_node_of_ones_own_is_refused(engine: Engine, busybox: str) -> None:
    result = cellwall.run(busybox, script="mknod /tmp/sda b 8 0", engine=engine)
    assert result.exit_status != 0
    result = cellwall.run(busybox, script="mknod /dev/sda b 8 0", engine=engine)
    assert result.exit_status != 0


@pytest.mark.parametrize(
    "command", ["mount -t tmpfs x /mnt", "unshare -m true", "unshare -U true", "chroot /proc/1/root true && dmesg -c"]
)
def test_what_is_refused(engine: Engine, busybox: str, command: str) -> None:
    assert cellwall.run(busybox, script=f"mkdir -p /mnt; {command}", engine=engine).exit_status != 0


def test_the_launcher_cannot_be_traced_or_read_from_a_named_container(engine: Engine, busybox: str) -> None:
    """Process 1 of a named container has the launcher's memory: nothing of it may be reached."""
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        script = "cat /proc/1/environ; ls /proc/1/fd; cat /proc/1/maps; readlink /proc/1/exe; head -c 1 /proc/1/mem"
        result = box.run(script, check=False)
        assert result.stdout == ""
        found = status(box.run(["cat", "/proc/1/status"]).stdout)
        assert found["Seccomp"] == "2"
        assert found["NoNewPrivs"] == "1"
        assert set(names(int(found["CapBnd"], 16))) <= set(DEFAULT)
        box.remove()


def test_an_image_with_device_nodes_gives_no_device(engine: Engine, cellwall_root: Path, tmp_path: Path) -> None:
    """A layer may hold a node of the host's disk: opening it must fail although its root owns it."""
    import io
    import tarfile

    from ..registries import busybox_layer, make_image, write_layout

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, number in (("zero", tarfile.CHRTYPE, (1, 5)), ("mem", tarfile.CHRTYPE, (1, 1))):
            entry = tarfile.TarInfo(f"nodes/{name}")
            entry.type, entry.mode = kind, 0o666
            entry.devmajor, entry.devminor = number
            tar.addfile(entry)
    folder = write_layout(tmp_path / "layout", {"latest": make_image([busybox_layer(), buffer.getvalue()])})
    for name in ("zero", "mem"):
        result = cellwall.run(f"oci:{folder}:latest", ["head", "-c", "1", f"/nodes/{name}"], engine=engine)
        assert result.exit_status != 0
        assert "ermission denied" in result.stderr


def test_setuid_binaries_give_nothing(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("cp /bin/busybox /tmp/id; chmod 4755 /tmp/id")
        result = box.run("/tmp/id -u; grep CapEff /proc/self/status", user="65534")
        assert result.stdout.split() == ["65534", "CapEff:", "0000000000000000"]
        box.remove()


def test_two_launchers_see_the_same_containers(engine: Engine, busybox: str, cellwall_root: Path) -> None:
    """A second process enters a container that this one's launcher made."""
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo from-here > /root/file")
        code = (
            "import cellwall.runtime.api as api, cellwall.runtime.engine as e\n"
            "print(api.Box(e.Engine.default(), 'lab').run('cat /root/file').stdout)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert output.stdout.strip() == "from-here", output.stderr
        box.remove()
