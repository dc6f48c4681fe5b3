"""The command line on real containers: statuses, streams, signals, terminals, kept ones, ones in the background."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root")

CELLWALL = [sys.executable, "-m", "cellwall"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def image(cellwall_root: Path, busybox: str) -> str:
    """The name of a busybox image in the store of this test."""
    for words in (["pull", "-q", busybox], ["tag", busybox, "box:1"]):
        subprocess.run([*CELLWALL, *words], check=True, capture_output=True)
    return "box:1"


@pytest.fixture
def cli(image: str) -> Cli:
    def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*CELLWALL, *words], input=stdin, capture_output=True, text=True, timeout=60)

    return run


def test_host_is_taken_in_without_a_word(cellwall_root: Path) -> None:
    """Nothing is pulled for it by who only runs it."""
    ran = subprocess.run([*CELLWALL, "run", "--rm", "host", "true"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Pull complete" not in ran.stderr
    subprocess.run([*CELLWALL, "rmi", "host"], check=True, capture_output=True)
    assert "Pull complete" in subprocess.check_output([*CELLWALL, "pull", "host"], text=True)


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        (["box:1", "echo", "-n", "--rm"], 0, "--rm", ""),
        (["box:1", "sh", "-c", "echo o; echo e >&2; exit 3"], 3, "o\n", "e\n"),
        (["--init", "box:1", "sh", "-c", "kill -TERM $$"], 143, "", ""),
        (["box:1", "nosuch"], 127, "", "cellwall: nosuch: not found"),
        (["box:1", "/etc"], 126, "", "cellwall: /etc: permission denied"),
        (["--pull", "never", "nosuch:1", "true"], 125, "", "cellwall: "),
        (["-v", "/no/such/folder:/x", "box:1", "true"], 125, "", "cellwall: "),
        (["-u", "nosuch", "box:1", "true"], 125, "", "cellwall: "),
        (
            ["--timeout", "200ms", "box:1", "sleep", "60"],
            137,
            "",
            "cellwall: timed out after 0.2 s, raise it with --timeout",
        ),
        (["-e", "A=b c", "--entrypoint", "sh", "box:1", "-c", "echo $A; pwd", "-w"], 0, "b c\n/\n", ""),
        (["-w", "/tmp", "--hostname", "lab", "box:1", "sh", "-c", "pwd; hostname"], 0, "/tmp\nlab\n", ""),
        (["--tmpfs", "/x:size=64k", "box:1", "sh", "-c", "df -k /x | tail -1 | awk '{print $2}'"], 0, "64\n", ""),
        (["--ulimit", "nofile=100:200", "box:1", "sh", "-c", "ulimit -n; ulimit -Hn"], 0, "100\n200\n", ""),
    ],
)
def test_run_ends_as_its_command(cli: Cli, words: list[str], status: int, out: str, err: str) -> None:
    done = cli("run", "--rm", *words)
    assert (done.returncode, done.stdout) == (status, out)
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") <= 1
    assert bool(done.stderr) == bool(err)


def test_closed_standard_streams_dont_mix_up_the_pipes(image: str) -> None:
    command = f"exec {sys.executable} -m cellwall run -i --rm {image} sh -c 'cat; echo o; echo e >&2; exit 3'"
    done = subprocess.run(["sh", "-c", f"{command} <&-"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"o\n", b"e\n")
    done = subprocess.run(["sh", "-c", f"{command} >&-"], stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"e\n")


@pytest.mark.needs("cgroup-write", "cgroup-memory")
def test_running_out_of_memory_is_told(cli: Cli) -> None:
    done = cli("run", "--rm", "-m", "32m", "box:1", "tail", "/dev/zero")
    assert done.returncode == 137
    assert done.stderr == "cellwall: out of memory: peak 32 MiB of 32 MiB, raise it with -m\n"


def test_standard_input_is_passed_on_where_asked(cli: Cli) -> None:
    assert cli("run", "--rm", "-i", "box:1", "cat", stdin="words\n" * 50000).stdout == "words\n" * 50000
    assert cli("run", "--rm", "box:1", "cat", stdin="words\n").stdout == ""


def test_a_bind_mount_and_its_read_only_form(cli: Cli, cellwall_root: Path) -> None:
    shared = cellwall_root / "shared"
    shared.mkdir()
    (shared / "in").write_text("from the host\n")
    done = cli("run", "--rm", "-v", f"{shared}:/s:ro", "box:1", "sh", "-c", "cat /s/in; touch /s/out")
    assert done.stdout == "from the host\n"
    assert "Read-only" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(image: str, number: signal.Signals) -> None:
    command = f"trap 'echo got; exit 6' {number.name[3:]}; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen([*CELLWALL, "run", "--rm", image, "sh", "-c", command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"got\n"
    assert process.returncode == 6


def test_a_kept_container_and_what_is_known_of_it(cli: Cli) -> None:
    done = cli(
        "run",
        "--name",
        "kept",
        "-l",
        "a=b",
        "box:1",
        "sh",
        "-c",
        "echo out; echo err >&2; touch /new; rm /etc/motd; exit 4",
    )
    assert done.returncode == 4
    assert cli("ps").stdout.count("\n") == 1
    (entry,) = json.loads(cli("ps", "-a", "--format", "json").stdout)
    assert (entry["Names"], entry["State"], entry["ExitCode"], entry["Labels"]) == ("kept", "exited", 4, "a=b")
    assert entry["Status"].startswith("Exited (4)")
    assert cli("ps", "-aq", "--no-trunc", "-f", "name=kept").stdout.strip().startswith(entry["ID"])
    logs = cli("logs", "kept")
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    changes = cli("diff", "kept").stdout.splitlines()
    assert {"A /new", "D /etc/motd", "C /etc"} <= set(changes)
    assert cli("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "kept").stdout == "exited 4\n"
    taken = cli("run", "--name", "kept", "box:1", "true")
    assert taken.returncode == 125
    assert "kept" in taken.stderr
    used = cli("rmi", cli("images", "-q", "box").stdout.strip())
    assert used.returncode == 1
    assert "kept" in used.stderr
    assert cli("images", "-q", "box").stdout
    assert cli("start", "-a", "kept").returncode == 4
    assert cli("logs", "kept").stdout == "out\nout\n"
    assert cli("rm", "kept").stdout == "kept\n"
    gone = cli("rm", "kept")
    assert (gone.returncode, gone.stderr) == (1, "cellwall: no container kept: cellwall ps -a lists them\n")
    assert cli("rm", "-f", "kept").returncode == 0
    assert json.loads(cli("ps", "-a", "--format", "json").stdout) == []


def test_a_container_in_the_background_outlives_the_command_line(cli: Cli) -> None:
    command = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    made = cli("run", "-d", "--name", "bg", "box:1", "sh", "-c", command)
    assert made.returncode == 0
    assert cli("ps", "-q", "--no-trunc").stdout == made.stdout
    with subprocess.Popen([*CELLWALL, "logs", "-f", "bg"], stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "ready\n"
        assert cli("exec", "-e", "A=1", "bg", "sh", "-c", "echo $A; exit 8").returncode == 8
        assert cli("exec", "-i", "bg", "cat", stdin="in").stdout == "in"
        assert cli("exec", "bg", "nosuch").returncode == 127
        refused = cli("rm", "bg")
        assert (refused.returncode, "running" in refused.stderr) == (1, True)
        assert cli("kill", "-s", "USR2", "nosuch").returncode == 1
        assert cli("stop", "bg").stdout == "bg\n"
        assert follower.stdout.read() == "bye\n"
    assert cli("inspect", "-f", "{{.State.ExitCode}}", "bg").stdout == "5\n"
    assert cli("exec", "bg", "true").returncode == 125
    assert cli("start", "bg").stdout == "bg\n"
    assert json.loads(cli("ps", "--format", "json").stdout)[0]["Names"] == "bg"
    assert cli("rm", "-f", "bg").returncode == 0


def test_a_container_in_the_background_that_removes_itself(cli: Cli) -> None:
    made = cli("run", "-d", "--rm", "--name", "short", "-t", "box:1", "sh", "-c", "read line </dev/null; sleep 0.3")
    assert made.returncode == 0
    cli("logs", "-f", "short")
    shim = [line for line in cli("ps", "-a", "--format", "{{.Names}}").stdout.splitlines() if line]
    if shim:  # its process in the background is still putting things away
        cli("rm", "-f", "short")
    assert cli("ps", "-aq").stdout == ""


def test_what_cannot_start_in_the_background_says_so(cli: Cli) -> None:
    done = cli("run", "-d", "--name", "bad", "box:1", "nosuch")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "cellwall: nosuch: not found in the image's PATH\n"
    assert cli("rm", "bad").returncode == 0
    done = cli("run", "-d", "--pull", "never", "nosuch:1")
    assert (done.returncode, done.stdout) == (125, "")


def test_a_name_is_free_again_after_rm(cli: Cli) -> None:
    for _ in range(2):
        assert cli("run", "--rm", "--name", "again", "box:1", "true").returncode == 0
        assert cli("run", "--rm", "--name", "again", "box:1", "nosuch").returncode == 127
    assert cli("ps", "-aq").stdout == ""


def test_images_by_name_and_id(cli: Cli) -> None:
    (entry,) = [row for row in json.loads(cli("images", "--format", "json").stdout) if row["Repository"] == "box"]
    assert entry["Tag"] == "1"
    assert cli("images", "-q", "box").stdout == entry["ID"] + "\n"
    assert cli("images", "-q", "nosuch").stdout == ""
    assert cli("run", "--rm", entry["ID"], "true").returncode == 0
    details = json.loads(cli("image", "inspect", "box:1").stdout)[0]
    assert details["RepoTags"] == ["box:1"]
    assert details["Id"].startswith(f"sha256:{entry['ID']}")
    assert cli("inspect", "nosuch").returncode == 1
    assert cli("tag", "box:1", "box:2").returncode == 0
    # An image counts once, however many names it has.
    one = cli("info", "--format", "{{.Images}}").stdout
    assert int(one) == len(set(cli("images", "-q").stdout.split()))
    assert cli("rmi", "box:2").stdout == "Untagged: box:2\n"


def test_info_says_what_is_in_force_and_from_where(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, cellwall_root: Path
) -> None:
    monkeypatch.setenv("CELLWALL_PIDS_LIMIT", "77")
    found = json.loads(cli("info", "--format", "json").stdout)
    assert found["DataRoot"] == str(cellwall_root)
    settings = {row["Key"]: (row["Value"], row["Source"]) for row in found["Settings"]}
    assert settings["defaults.pids_limit"] == (77, "CELLWALL_PIDS_LIMIT")
    assert settings["root"] == (str(cellwall_root), "CELLWALL_ROOT")
    assert "CELLWALL_PIDS_LIMIT" in cli("info").stdout


def test_doctor_in_both_forms(cli: Cli) -> None:
    probes = {
        probe["name"]: probe["status"] for probe in json.loads(cli("doctor", "--format", "json").stdout)["probes"]
    }
    assert probes["user-namespaces"] in ("ok", "limited", "missing")
    text = cli("doctor").stdout
    for name in probes:
        assert name in text


def test_doctor_asked_for_some_things(cli: Cli) -> None:
    """They alone are told, and the status says whether all of them are there."""
    every = json.loads(cli("doctor", "--format", "json").stdout)["probes"]
    lacking = next(probe for probe in every if probe["name"] == "driver-aufs")
    fine = cli("doctor", "kernel", "python")
    assert (fine.returncode, fine.stdout.splitlines()[-1]) == (0, "2 ok, 0 limited, 0 missing")
    found = cli("doctor", "kernel", "driver-aufs", "--format", "json")
    assert [probe["name"] for probe in json.loads(found.stdout)["probes"]] == ["kernel", "driver-aufs"]
    assert found.returncode == (0 if lacking["status"] == "ok" else 1)
    if found.returncode:
        assert f"cellwall: driver-aufs is {lacking['status']}: {lacking['detail']}" in found.stderr
    unknown = cli("doctor", "no-such-thing")
    assert unknown.returncode == 125
    assert "'no-such-thing' is no line of `cellwall doctor`" in unknown.stderr


def read_until(fd: int, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        assert select.select([fd], [], [], 30)[0], found
        found += os.read(fd, 65536)
    return found


@contextmanager
def on_a_terminal(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """``cellwall`` with a terminal of its own: the process, our end, its end. What still runs at the end is killed."""
    main_fd, peer_fd = pty.openpty()
    process = None
    try:
        termios.tcsetwinsize(peer_fd, (30, 100))
        process = subprocess.Popen(
            [*CELLWALL, *words], stdin=peer_fd, stdout=peer_fd, stderr=peer_fd, start_new_session=True
        )
        yield process, main_fd, peer_fd
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        for fd in (main_fd, peer_fd):
            with suppress(OSError):  # the test closed it
                os.close(fd)


def test_a_shell_on_a_terminal(image: str) -> None:
    words = ["run", "-it", "--rm", "-e", "PS1=$ ", image, "sh"]
    with on_a_terminal(*words) as (process, main_fd, peer_fd):
        mode = termios.tcgetattr(peer_fd)
        read_until(main_fd, b"$ ")
        os.write(main_fd, b"stty size; tty\r")
        assert b"30 100\r\n/dev/pts/0" in read_until(main_fd, b"/dev/pts/0")
        os.write(main_fd, b"echo re''ady; cat\r")
        read_until(main_fd, b"ready")
        # Ctrl-C ends the cat in the container, not the command line. Between the echo and the cat the shell may drop one.
        found = b""
        while b"$ " not in found:
            os.write(main_fd, b"\x03")
            if select.select([main_fd], [], [], 1)[0]:
                found += os.read(main_fd, 65536)
        termios.tcsetwinsize(main_fd, (44, 99))
        process.send_signal(signal.SIGWINCH)
        os.write(main_fd, b"stty size\r")
        read_until(main_fd, b"44 99")
        os.write(main_fd, b"exit 9\r")
        assert process.wait(30) == 9
        assert termios.tcgetattr(peer_fd) == mode


def test_a_terminal_that_hangs_up_leaves_its_container_running(cli: Cli, image: str) -> None:
    command = "trap '' HUP; echo ready; sleep 1000"
    with on_a_terminal("run", "-it", "--rm", "--name", "left", image, "sh", "-c", command) as found:
        process, main_fd, peer_fd = found
        read_until(main_fd, b"ready")
        os.close(peer_fd)
        os.close(main_fd)
        assert process.wait(30) == 1
    assert "left" in cli("ps").stdout
    cli("rm", "-f", "left")
    assert "left" not in cli("ps", "-a").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["pull"], ["run", "--rm"], ["run", "-d"]])
def test_a_pull_that_is_told_to_end_ends(cellwall_root: Path, words: list[str], number: signal.Signals) -> None:
    """The registry here takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"127.0.0.1:{server.getsockname()[1]}/slow:1"
        process = subprocess.Popen(
            [*CELLWALL, *words, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        connection, _ = server.accept()
        os.killpg(process.pid, number)  # as a terminal does: to all of the foreground
        out, err = process.communicate(timeout=30)
        connection.close()
    assert process.returncode == 128 + number
    assert (out, err) == (b"", b"")
