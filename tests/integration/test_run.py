"""``cellwall.run``: exit statuses and why, streams, users, folders, environment, limits, changes."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.api import Box
from cellwall.runtime.cli.run_options import from_keywords
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound, SpecError, VolumeError
from cellwall.runtime.pump import Pipes

from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (["true"], 0, "exit status 0"),
        (["sh", "-c", "exit 7"], 7, "exit status 7"),
        (["nosuch"], 127, "nosuch: not found in the image's PATH"),
        (["/no/such"], 127, "/no/such: not found in the image"),
        (["/etc"], 126, "/etc: permission denied"),
        (["/etc/motd"], 126, "/etc/motd: permission denied"),
        (["sh", "-c", "kill -TERM $$; sleep 5 & kill -9 $!; wait $!"], 137, "exit status 137"),
    ],
)
def test_exit_status_and_reason(engine: Engine, busybox: str, command: list[str], status: int, reason: str) -> None:
    result = cellwall.run(busybox, command, engine=engine)
    assert result.exit_status == status
    assert result.reason.startswith(reason)


def test_a_signal_is_named(engine: Engine, busybox: str) -> None:
    result = cellwall.run(busybox, script="sh -c 'kill -SEGV $$'; exit $?", engine=engine)
    assert result.exit_status == 139
    init = cellwall.run(busybox, ["sh", "-c", "kill -SEGV $$"], init=True, engine=engine)
    assert init.exit_status == 139


def test_a_failure_raises_on_request(engine: Engine, busybox: str) -> None:
    import subprocess

    with pytest.raises(subprocess.CalledProcessError) as caught:
        cellwall.run(busybox, ["sh", "-c", "echo out; exit 3"], check=True, engine=engine)
    assert isinstance(caught.value, cellwall.CellError)
    assert str(caught.value) == "exit status 3"
    assert (caught.value.returncode, caught.value.output) == (3, "out\n")


def test_streams_are_byte_exact(engine: Engine, busybox: str) -> None:
    data = os.urandom(1_000_000)
    result = cellwall.run(busybox, script="cat; echo err >&2", input=data, text=False, engine=engine)
    assert result.stdout == data
    assert result.stderr == b"err\n"


def test_output_is_live(engine: Engine, busybox: str, tmp_path: Path) -> None:
    """Each line is written only once the one before has been seen: no clock decides."""
    lines: list[bytes] = []

    def on_stdout(data: bytes) -> None:
        lines.append(data)
        (tmp_path / data.decode().strip()).touch()

    script = "for i in 1 2 3; do echo $i; until [ -e /gate/$i ]; do sleep 0.01; done; done"
    result = cellwall.run(
        busybox, script=script, volume=[f"{tmp_path}:/gate"], on_stdout=on_stdout, timeout=PATIENCE_S, engine=engine
    )
    assert (lines, result.exit_status) == ([b"1\n", b"2\n", b"3\n"], 0)


def test_out_of_memory_says_so(engine: Engine, busybox: str) -> None:
    hog = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"
    result = cellwall.run(busybox, ["sh", "-c", hog], memory="64m", engine=engine)
    assert result.oom_killed
    assert result.exit_status == 137
    assert result.exit.memory_limit_bytes == 64 << 20
    assert result.usage.memory_peak_bytes is not None
    assert 60 << 20 <= result.usage.memory_peak_bytes <= 64 << 20
    assert result.reason.startswith("out of memory: peak 6")
    assert result.reason.endswith(" of 64 MiB, raise it with -m")
    with pytest.raises(cellwall.CellError, match="out of memory"):
        result.check()


def test_a_fork_bomb_stays_at_its_limit(engine: Engine, busybox: str) -> None:
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            for container in engine.containers():
                with suppress(NotFound):  # it ended a moment ago
                    for path in (engine.inspect(container.id)["CgroupPaths"] or {}).values():
                        with suppress(OSError, ValueError):
                            peak = max(peak, int((Path(path) / "pids.current").read_text()))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        # The machine answers meanwhile, and the whole bomb is gone with its container.
        result = cellwall.run(busybox, script="b() { b | b & }; b; sleep 2", pids_limit=64, timeout=6, engine=engine)
    finally:
        done.set()
        watcher.join()
    # Seen while it ran, and as the kernel counted it (the bomb may be over between two looks).
    assert peak <= 64
    assert result.usage.pids_peak is not None
    assert 32 <= result.usage.pids_peak <= 64
    assert result.exit.pids_limit_hit
    assert result.exit.pids_limit == 64


def test_a_timeout_ends_everything(engine: Engine, busybox: str) -> None:
    result = cellwall.run(busybox, script="setsid sleep 1000 & sleep 1000", timeout=0.5, engine=engine)
    assert result.timed_out
    assert result.exit_status == 137
    assert result.reason == "timed out after 0.5 s, raise it with --timeout"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, "0 0 0"),
        ("1234", "1234 0 0"),
        ("1234:99", "1234 99 99"),
        ("alice", "1000 100 5 7 100"),
        ("alice:audio", "1000 5 5"),
        ("1000", "1000 100 5 7 100"),
    ],
)
def test_users_are_those_of_the_image(engine: Engine, people: str, user: str | None, expected: str) -> None:
    script = "echo $(id -u) $(id -g) $(grep Groups /proc/self/status | cut -f2)"
    words = cellwall.run(people, script=script, user=user, engine=engine).stdout.split()
    assert words == expected.split()


@pytest.fixture
def people(tmp_path: Path) -> str:
    from ..registries import busybox_layer, make_image, tar_of, write_layout

    files: dict[str, bytes | str | None] = {
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n",
        "etc/group": b"root:x:0:\nusers:x:100:\naudio:x:5:alice\nvideo:x:7:alice,bob\n",
    }
    folder = write_layout(tmp_path / "people", {"latest": make_image([busybox_layer(), tar_of(files, mode=0o644)])})
    return f"oci:{folder}:latest"


@pytest.mark.parametrize("user", ["bob", "0:nogroup", "70000", "alice:70000"])
def test_an_unknown_user_is_named(engine: Engine, people: str, user: str) -> None:
    result = cellwall.run(people, ["true"], user=user, engine=engine)
    assert result.exit_status == 125
    assert user.split(":")[-1] in result.reason


def test_home_and_environment(engine: Engine, people: str) -> None:
    result = cellwall.run(
        people, script="echo $HOME $A $HOSTNAME $PATH", user="alice", env={"A": "b c"}, hostname="h1", engine=engine
    )
    assert result.stdout.split() == ["/home/alice", "b", "c", "h1", "/bin"]


def test_working_folder_is_made(engine: Engine, busybox: str) -> None:
    assert cellwall.run(busybox, ["pwd"], workdir="/new/place", engine=engine).stdout == "/new/place\n"
    wrong = cellwall.run(busybox, ["pwd"], workdir="/bin/sh", engine=engine)
    assert "not a folder" in wrong.reason


def test_changes_are_listed(engine: Engine, busybox: str) -> None:
    script = "echo x > /new; mkdir -p /d/e; rm /etc/motd; echo y >> /etc/group"
    found = [str(change) for change in cellwall.run(busybox, script=script, engine=engine).diff()]
    assert found == ["A /d", "A /d/e", "C /etc", "C /etc/group", "D /etc/motd", "A /new"]
    assert cellwall.run(busybox, ["true"], engine=engine).diff() == []


def test_nothing_of_a_container_stays(engine: Engine, busybox: str) -> None:
    cellwall.run(busybox, script="echo x > /etc/motd; rm -r /etc", engine=engine)
    assert cellwall.run(busybox, ["cat", "/etc/motd"], engine=engine).stdout == "hello from a layer\n"


def test_a_host_folder(engine: Engine, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    mounts = [f"{tmp_path}:/data", f"{tmp_path}:/readonly:ro"]
    result = cellwall.run(
        busybox,
        script="cat /data/in; echo back > /data/out; stat -c %u /data/in; echo x > /readonly/y",
        volume=mounts,
        engine=engine,
    )
    assert result.stdout.splitlines() == ["from the host", "0"]
    assert (tmp_path / "out").read_text() == "back\n"
    assert (tmp_path / "out").stat().st_uid == 0
    assert "Read-only" in result.stderr
    assert not (tmp_path / "y").exists()


def test_a_missing_host_folder(engine: Engine, busybox: str) -> None:
    with pytest.raises(VolumeError, match="no folder /nowhere"):
        cellwall.run(busybox, ["true"], volume=["/nowhere:/data"], engine=engine)


def test_a_mount_point_that_leads_out_stays_inside(engine: Engine, tmp_path: Path) -> None:
    """The image's /data is a link to a folder of the host: the bind mount must land in the container."""
    from ..registries import busybox_layer, make_image, tar_of, write_layout

    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "mark").write_text("here")
    image = make_image([busybox_layer(), tar_of({"data": str(outside)})])
    folder = write_layout(tmp_path / "layout", {"latest": image})
    result = cellwall.run(f"oci:{folder}:latest", ["true"], volume=[f"{tmp_path}/source:/data"], engine=engine)
    assert result.exit_status in (0, 125)
    assert list(outside.iterdir()) == []


def test_read_only_root_and_tmpfs(engine: Engine, busybox: str) -> None:
    script = "touch /x 2>/dev/null || echo refused; touch /scratch/y && echo kept; df -k /scratch | tail -1"
    words = cellwall.run(
        busybox, script=script, read_only=True, tmpfs=["/scratch:size=8m"], engine=engine
    ).stdout.split()
    assert words[:2] == ["refused", "kept"]
    assert words[3] == "8192"


def test_sysctl_ulimit_hostname_shm(engine: Engine, busybox: str) -> None:
    result = cellwall.run(
        busybox,
        script="cat /proc/sys/net/ipv4/ip_default_ttl; ulimit -n; hostname; df -k /dev/shm | tail -1",
        sysctl={"net.ipv4.ip_default_ttl": "42"},
        ulimit=["nofile=100:200"],
        hostname="box",
        shm_size="3m",
        engine=engine,
    )
    words = result.stdout.split()
    assert words[:3] == ["42", "100", "box"]
    assert words[4] == "3072"
    with pytest.raises(SpecError, match="kernel.panic"):
        cellwall.run(busybox, ["true"], sysctl={"kernel.panic": "1"}, engine=engine)


def test_scripts_and_interpreters(engine: Engine, busybox: str) -> None:
    assert cellwall.run(busybox, script="#!/bin/cat\nitself\n", engine=engine).stdout == "#!/bin/cat\nitself\n"
    assert cellwall.run(busybox, script="print 1", lang="awk -f", engine=engine).exit_status != 127
    missing = cellwall.run(busybox, script="1", lang="python", engine=engine)
    assert missing.exit_status == 127
    assert "python3: not found" in missing.reason


def test_an_image_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(NotFound):
        cellwall.run("no-such-image:1", ["true"], pull="never", engine=engine)


def test_a_named_container_answers_again(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo one > /root/file")
        assert box.run("cat /root/file").stdout == "one\n"
        failed = box.run("exit 9", check=False)
        assert failed.exit_status == 9
        assert box.run("ls /dev/cell").stdout.split() != []
    assert engine.container("lab").status == "exited"
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        assert box.run("cat /root/file").stdout == "one\n"
        assert "A /root/file" in [str(change) for change in engine.diff("lab")]
        box.remove()
    with pytest.raises(NotFound):
        engine.container("lab")


def test_a_commands_end_in_a_named_container_ends_only_its_own(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        read_fd, write_fd = os.pipe()
        null_fd = os.open(os.devnull, os.O_RDWR)
        with engine.exec("lab", ["sleep", "1000"], stdin_fd=null_fd, stdout_fd=write_fd, stderr_fd=write_fd) as other:
            result = box.run("setsid sleep 61 & sleep 62", timeout=0.3, check=False)
            assert result.timed_out
            assert other.poll() is None
            # Killed it is at once, and gone once the kernel has taken it apart.
            until(lambda: not {"sleep 61", "sleep 62"} & sleeping(box), "the end of what was timed out")
            assert "sleep 1000" in sleeping(box)
        for fd in (read_fd, write_fd, null_fd):
            os.close(fd)
        box.remove()


def sleeping(box: Box) -> set[str]:
    """The command lines in a container that are ``sleep``'s."""
    return {line for line in box.run("ps -o args").stdout.splitlines() if line.startswith("sleep ")}


def test_two_hundred_in_a_row(engine: Engine, busybox: str) -> None:
    def resident_kib() -> int:
        with open(f"/proc/{engine.launcher.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{engine.launcher.pid}/fd"))

    for _ in range(20):
        assert cellwall.run(busybox, ["true"], engine=engine).exit_status == 0
    memory, open_before = resident_kib(), descriptors()
    for _ in range(200):
        assert cellwall.run(busybox, ["true"], engine=engine).exit_status == 0
    assert resident_kib() - memory < 1024
    # Two sandboxes may wait for the next ones by now, and one be on its way.
    assert descriptors() <= open_before + 8 + 3 * 8


def test_twenty_at_once(engine: Engine, busybox: str) -> None:
    outputs: list[str] = []

    def one(number: int) -> None:
        outputs.append(cellwall.run(busybox, script=f"sleep 0.5; echo {number}", engine=engine).stdout.strip())

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, outputs)) == list(range(20))


def test_interrupt_kills_and_goes_on(engine: Engine, busybox: str) -> None:
    """Ctrl-C in the calling thread: what ran is gone at once, and the engine works on."""
    running = threading.Event()

    def interrupt() -> None:
        assert running.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        script = "setsid sleep 1000 & echo running; sleep 1000"
        cellwall.run(busybox, script=script, on_stdout=lambda _: running.set(), engine=engine)
    thread.join()
    until(lambda: engine.containers() == [], "the end of what ran")
    assert cellwall.run(busybox, ["true"], engine=engine).exit_status == 0


def test_async(engine: Engine, busybox: str) -> None:
    import asyncio

    from cellwall.runtime import aio

    async def both() -> list[str]:
        results = await asyncio.gather(*(aio.run(busybox, ["echo", str(n)], engine=engine) for n in range(3)))
        task = asyncio.ensure_future(aio.run(busybox, ["sleep", "60"], engine=engine))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [result.stdout for result in results]

    assert asyncio.run(both()) == ["0\n", "1\n", "2\n"]


def test_a_terminal(engine: Engine, busybox: str) -> None:
    from dataclasses import replace

    from cellwall.runtime.options import RunOptions

    options = replace(
        RunOptions(image=busybox, command=("sh", "-c", "tty; stty size; ls -l /dev/console | cut -c1")),
        tty=True,
        rm=True,
    )
    null_fd = os.open(os.devnull, os.O_RDWR)
    with engine.run(options, stdin_fd=null_fd, stdout_fd=null_fd, stderr_fd=null_fd, size=(33, 99)) as process:
        terminal_fd = process.wait_terminal()
        data = io.BytesIO()
        while True:
            try:
                piece = os.read(terminal_fd, 4096)
            except OSError:  # EIO: the last process of the terminal ended
                break
            if not piece:
                break
            data.write(piece)
        assert process.wait(PATIENCE_S).status == 0
    os.close(null_fd)
    assert data.getvalue().decode().split() == ["/dev/pts/0", "33", "99", "c"]


def test_the_hosts_processes_on_request(engine: Engine, busybox: str) -> None:
    seen = cellwall.run(busybox, ["test", "-d", f"/proc/{os.getpid()}"], pid="host", engine=engine)
    assert seen.exit_status == 0, seen.reason
    assert cellwall.run(busybox, ["test", "-d", f"/proc/{os.getpid()}"], engine=engine).exit_status == 1
    # They can be seen, and no more.
    script = f"kill -0 {os.getpid()} 2>/dev/null; echo $?; cat /proc/{os.getpid()}/environ 2>/dev/null | wc -c"
    assert cellwall.run(busybox, script=script, pid="host", engine=engine).stdout.split() == ["1", "0"]


@pytest.mark.parametrize("entry", [None, "/proc/self/fd/0"])
def test_an_image_with_something_else_where_a_file_goes(engine: Engine, tmp_path: Path, entry: str | None) -> None:
    from ..registries import busybox_layer, make_image, tar_of, write_layout

    image = make_image([busybox_layer(), tar_of({"etc/hosts": entry})])
    folder = write_layout(tmp_path / "layout", {"latest": image})
    result = cellwall.run(f"oci:{folder}:latest", ["true"], engine=engine)
    assert result.exit_status == 125
    assert result.reason.startswith("mount point /etc/hosts: ")
    assert (
        "the image has something else" if entry is None else "a link of the image leads out of the container"
    ) in result.reason


def test_a_real_time_signal_stops_a_container(engine: Engine, busybox: str) -> None:
    script = f"trap 'exit 7' {int(signal.SIGRTMIN) + 3}; echo ready; while :; do sleep 0.05; done"
    options = from_keywords(busybox, ("sh", "-c", script), name="lab", stop_signal="RTMIN+3")
    with Pipes(stdin=False) as made:
        stdin_fd, stdout_fd, stderr_fd = made.child_fds
        with engine.run(options, stdin_fd=stdin_fd, stdout_fd=stdout_fd, stderr_fd=stderr_fd) as process:
            assert os.read(made.ours["stdout"], 6) == b"ready\n"
            engine.stop("lab")
            assert process.wait(PATIENCE_S).status == 7
    engine.remove("lab")
