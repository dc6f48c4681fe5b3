"""What a default container can see and be, read from its own /proc: one that is made for itself, and one that begins in a spare sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.linux.capabilities import names
from cellwall.runtime.security.capabilities import DEFAULT
from cellwall.runtime.security.profile import MASKED_PATHS
from cellwall.runtime.tracing import Trace

from ..leaks import Leaks
from ..waiting import PATIENCE_S

pytestmark = pytest.mark.needs("root")

NAMESPACES = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup")


Run = Callable[..., cellwall.Result]


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """An engine that has nothing made ahead, and one that has, on one store; what they leave is looked at when they have ended."""
    check = Leaks()
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    check.own(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLWALL_ROOT", str(root))
        made = {"cold": Engine(), "warm": Engine()}
    made["cold"].pool = 0
    for engine in made.values():
        # Its launcher counts as there from the first test on.
        cellwall.run("host", ["true"], engine=engine)
    yield made
    for engine in made.values():
        engine.close()
    check.close(root)
    shutil.rmtree(root)
    assert check.left() == []


@pytest.fixture(params=["cold", "warm"])
def run(request: pytest.FixtureRequest, engines: dict[str, Engine], busybox: str) -> Run:
    """``cellwall.run`` of busybox, in a container that began as the test's parameter says."""

    def in_a_container(args: Sequence[str] = (), **options: Any) -> cellwall.Result:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            trace = Trace()
            result = cellwall.run(busybox, args, engine=engines[request.param], trace=trace, **options)
            ahead = "cgroup made" not in [stamp.what for stamp in trace.stamps]
            if ahead == (request.param == "warm"):
                return result
            assert request.param == "warm", "nothing is made ahead for this engine"
            assert time.monotonic() < deadline, "waited in vain for a container that begins in a spare sandbox"

    return in_a_container


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_every_namespace_is_its_own(run: Run) -> None:
    result = run(script=f"cd /proc/self/ns; for n in {' '.join(NAMESPACES)}; do readlink $n; done")
    inside = result.stdout.split()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]
    assert len(inside) == len(NAMESPACES)
    assert not set(inside) & set(outside)


def test_two_containers_share_no_namespace_and_no_id(run: Run, tmp_path: Path) -> None:
    script = f"hostname; cat /proc/self/uid_map; for n in {' '.join(NAMESPACES)}; do readlink /proc/self/ns/$n; done; echo said\n"
    script += "until [ -e /gate/$(hostname) ]; do sleep 0.01; done"

    def own(meanwhile: Callable[[], object]) -> set[str]:
        """The ids and namespaces of a container, while which runs ``meanwhile`` is done."""
        said = bytearray()

        def hear(data: bytes) -> None:
            said.extend(data)
            if said.endswith(b"said\n"):
                meanwhile()
                (tmp_path / said.split()[0].decode()).touch()
                said.clear()

        words = run(script=script, volume=[f"{tmp_path}:/gate"], on_stdout=hear).stdout.split()
        assert len(words) == 4 + len(NAMESPACES) + 1
        return {words[2], *words[4:-1]}

    second: list[set[str]] = []
    first = own(lambda: second.append(own(lambda: None)))
    assert not first & second[-1]


def test_security_state(run: Run) -> None:
    found = status(run(["cat", "/proc/self/status"]).stdout)
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert set(names(int(found[name], 16))) <= set(DEFAULT), name
    assert set(names(int(found["CapEff"], 16))) <= set(DEFAULT)
    assert int(found["CapEff"], 16), "root inside has capabilities"
    assert found["Groups"] == "0"


def test_root_inside_is_nobody_outside(run: Run) -> None:
    inside, outside, count = map(int, run(["cat", "/proc/self/uid_map"]).stdout.split())
    assert inside == 0
    assert outside >= 0x70000000
    assert count == 65536


def test_no_foreign_descriptor(run: Run) -> None:
    found = run(["ls", "/proc/self/fd"]).stdout.split()
    assert found == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    in_script = run(script="ls /proc/self/fd").stdout.split()
    assert in_script == ["0", "1", "2", "3"]


def test_none_of_the_hosts_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWALL_TEST_SECRET", "token-4711")
    result = run(script="env; cat /proc/*/environ")
    assert "token-4711" not in result.stdout
    lines = run(["env"]).stdout.splitlines()
    assert {line.partition("=")[0] for line in lines} == {"PATH", "HOME", "HOSTNAME"}


def test_only_its_own_processes(run: Run) -> None:
    found = run(script="ls -d /proc/[0-9]*").stdout.split()
    assert found[0] == "/proc/1"
    assert len(found) <= 3


def test_only_loopback_and_it_is_up(run: Run) -> None:
    script = (
        "ls /sys/class/net; cat /sys/class/net/lo/flags; nc -l -p 7 -e true & sleep 0.2; nc 127.0.0.1 7 && echo reached"
    )
    words = run(script=script).stdout.split()
    assert words[0] == "lo"
    assert int(words[1], 16) & 1, "IFF_UP"


def test_the_hosts_network_on_request(engine: Engine, busybox: str) -> None:
    # It has a folder of the machine, so nothing of it is made ahead.
    inside = cellwall.run(busybox, ["readlink", "/proc/self/ns/net"], network="host", engine=engine).stdout.strip()
    assert inside == os.readlink("/proc/self/ns/net")
    seen = cellwall.run(busybox, script="touch /sys/kernel/x 2>&1; echo $?", network="host", engine=engine).stdout
    assert seen.split()[-1] == "1"


@pytest.mark.parametrize(
    "path",
    ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/profiling", "/proc/irq/default_smp_affinity"],
)
def test_kernel_settings_are_read_only(run: Run, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    result = run(script=f"echo 1 > {path}")
    assert result.exit_status != 0


def test_masked_paths_show_nothing(run: Run) -> None:
    there = [path for path in MASKED_PATHS if os.path.exists(path)]
    assert "/proc/keys" in there
    script = "for p in $@; do if [ -d $p ]; then ls $p | wc -l; else wc -c < $p; fi; done"
    result = run(there, script=script)
    assert result.stdout.split() == ["0"] * len(there)


def test_device_nodes(run: Run) -> None:
    script = "find /dev ! -type d ! -type l | sort; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c"
    words = run(script=script).stdout.split()
    nodes = [word for word in words if word.startswith("/dev/") and not word.startswith(("/dev/cell/", "/dev/pts"))]
    assert nodes == [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    assert words[-2:] == ["4", "8"]


def test_a_device_node_of_ones_own_is_refused(run: Run) -> None:
    result = run(script="mknod /tmp/sda b 8 0")
    assert result.exit_status != 0
    result = run(script="mknod /dev/sda b 8 0")
    assert result.exit_status != 0


@pytest.mark.parametrize(
    "command", ["mount -t tmpfs x /mnt", "unshare -m true", "unshare -U true", "chroot /proc/1/root true && dmesg -c"]
)
def test_what_is_refused(run: Run, command: str) -> None:
    assert run(script=f"mkdir -p /mnt; {command}").exit_status != 0


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
