"""Kernels in containers, by provisioner and by argv: Jupyter's own suite, life and death, what is seen from inside, and what is left."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..in_process import cellwall
from ..integration.test_rootless import user_with_subordinate_ids
from ..leaks import opened, processes, read
from ..waiting import until
from .kernel_home import ENDLESS, Client, Home, client, home, image

__all__ = ["client", "home", "image"]

pytestmark = pytest.mark.needs("root", "overlay")
KINDS = pytest.mark.parametrize("kind", ["box", "argv"])


@KINDS
def test_jupyters_own_suite(home: Home, kind: str) -> None:
    said = home.suite(kind)
    assert said.count("... ok") >= 10, said
    assert home.left() == []


INSIDE = """
import json, os
def read(path):
    try:
        with open(path) as file: return file.read()
    except PermissionError: return ""
def place(fd):
    try: return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError: return "closed"  # that of the listing, and what another thread has just had open
print(json.dumps({
    "interfaces": [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]],
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "fds": [place(fd) for fd in os.listdir("/proc/self/fd")],
    "arguments": [read(f"/proc/{pid}/cmdline") for pid in (1, os.getpid())],
    "environment": [read(f"/proc/{pid}/environ") for pid in (1, os.getpid())],
    "connection": oct(os.stat("/run/cellwall/connection.json").st_mode & 0o777),
    "mounts": [line.split()[2:5] for line in read("/proc/self/mountinfo").splitlines()],
    "pid": os.getpid(), "folder": os.getcwd(), "limit": os.path.exists("/sys/fs/cgroup/memory"),
}))
"""


def of_this_machine(mounts: list[list[str]]) -> list[str]:
    """Where one of this machine's filesystems is mounted in the kernel's container, but for devices and the kernel's own."""
    mine = {line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return [at for device, _, at in mounts if device in mine and not at.startswith(("/dev/", "/proc/", "/sys/"))]


@KINDS
def test_what_is_seen_from_inside(client: Client, home: Home, kind: str) -> None:
    said = client.tell("start", kind, str(home.notebooks), {"KERNEL_SECRET": "hidden"})
    assert (said["provisioner"] == "CellwallProvisioner") == (kind == "box")
    found = json.loads(client.text(INSIDE))
    assert found["interfaces"] == ["lo"]
    # Its init and itself: no process of the host's.
    assert found["pids"] == [1, found["pid"]]
    # Pipes and sockets of its own, and the null device: nothing that has a path on the host.
    assert [
        fd for fd in found["fds"] if fd.startswith("/") and not fd.startswith(("/dev/null", "/proc/", "/root/"))
    ] == []
    assert found["folder"] == str(home.notebooks)
    assert of_this_machine(found["mounts"]) == [str(home.notebooks)]
    # It shares no socket with whoever started it, and the pipe of its raw output alone.
    servers = set(opened(client.process.pid).values())
    shared = [fd for fd in servers.intersection(found["fds"]) if fd.startswith(("socket:", "pipe:"))]
    assert [fd.partition(":")[0] for fd in shared] in ([], ["pipe"])
    assert found["connection"] == "0o600"
    assert "hidden" not in str(found)
    assert said["key"] not in str(found)
    for pid, _, command in processes():
        assert said["key"] not in command
        assert said["key"].encode() not in read(f"/proc/{pid}/environ")
    assert stat.S_IMODE(os.stat(said["connection_file"]).st_mode) == 0o600
    # The folder is the host's own, with the caller as owner; the rest of the host isn't there.
    assert client.text("open('made', 'w').write('x'); import os; print(os.path.exists('/etc/shadow'))") == "False\n"
    assert (home.notebooks / "made").stat().st_uid == 0
    if kind == "box":
        folders = list((home.run / "k").iterdir())
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700]
    assert "usr/bin/python3" in client.text("print(get_ipython().run_line_magic('layers', '--path /usr/bin/python3'))")
    assert client.tell("forge")
    assert not (home.notebooks / "forged").exists()
    client.tell("shutdown")


@KINDS
def test_life_and_death(client: Client, home: Home, kind: str) -> None:
    client.tell("start", kind, str(home.notebooks), {})
    assert client.run(ENDLESS, "interrupt")["errors"] == ["KeyboardInterrupt"]
    # As in a local kernel the interrupt reaches a child that the kernel waits for.
    assert client.text("print('here')") == "here\n"
    done = client.run("import os\nprint(os.system('echo .; sleep 600'))", "interrupt")
    assert done["status"] in ("ok", "error")
    assert client.text("kept = 1\nprint(kept)") == "1\n"
    client.tell("restart")
    assert client.run("print(kept)")["errors"] == ["NameError"]
    done = client.run("held = []\nwhile True: held.append(bytearray(1 << 20))")
    assert done["status"] == "dead"
    assert "the kernel ran out of memory: 200 MiB of 200 MiB; install it with more `-m`" in done["text"]
    client.tell("restart")
    # It may die before it has said that a cell runs, or before anybody has heard it: the cell is known all the same.
    client.text(UNHEARD)
    done = client.run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert done["status"] == "dead"
    assert "the kernel died: killed by signal 11 (SIGSEGV)" in done["text"]
    assert client.tell("is_alive") is False
    client.tell("restart")
    if kind == "box":
        # Where none runs, the next kernel says it.
        client.text("import os, threading; threading.Timer(0.2, os.kill, (os.getpid(), 9)).start()")
        until(lambda: client.tell("is_alive") is False, "the kernel's end")
        client.tell("restart")
        told = client.text("import time; time.sleep(0.2)")
        assert "the kernel died: killed by signal 9 (SIGKILL)" in told and "(the kernel before this one)" in told
    # A child that goes away from its parent goes with the container.
    client.text("import os\nif os.fork() == 0:\n os.setsid()\n os.execvp('sleep', ['sleep', '9876'])")
    client.tell("shutdown")
    assert home.left() == []
    assert not [command for _, _, command in processes() if command == "sleep 9876"]


# From its next cell on the kernel doesn't say that one has begun.
UNHEARD = """
kernel = get_ipython().kernel
say = kernel._publish_status
kernel._publish_status = lambda status, *more, **named: None if status == "busy" else say(status, *more, **named)
"""
DEAF = """
import signal, threading
for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
print('.', flush=True)
for turn in range(10**9):
    if threading.Event().wait(0.2) or turn % 5 == 0: print(turn, flush=True)
"""


@KINDS
def test_a_killed_client_leaves_nothing(client: Client, home: Home, kind: str) -> None:
    client.tell("start", kind, str(home.notebooks), {})
    client.text("print(1)")
    # Another client's kernel of the same name has nothing to do with it.
    other = Client(home)
    other.tell("start", kind, str(home.notebooks), {})
    client.kill()
    assert other.text("print(2)") == "2\n"
    other.kill()
    assert home.left() == []


def test_variables_of_the_request(client: Client, home: Home) -> None:
    (home.notebooks / "below").mkdir(exist_ok=True)
    wanted = {"KERNEL_MEMORY_LIMIT": "150m", "KERNEL_WORKING_DIR": str(home.notebooks / "below")}
    # With a notebook beside it, cellwall's own folder, with its run-time folder in it, is seen, and empty.
    client.tell("start", "box", str(home.root), wanted)
    said = client.text("import os; print(os.getcwd())")
    assert "this kernel sees the whole home folder" in said and said.endswith(f"\n{home.notebooks}/below\n")
    assert home.run.is_relative_to(home.root / "s")
    assert client.text("print(os.listdir('../../s'))") == "[]\n"
    done = client.run("held = []\nwhile True: held.append(bytearray(1 << 20))")
    assert "150 MiB of 150 MiB" in done["text"]
    client.tell("shutdown")
    for variable, value, why in (
        ("KERNEL_MEMORY_LIMIT", "1g", "more than this kernel allows, which is 200m: install it with more -m"),
        ("KERNEL_IMAGE", "other:1", "isn't allowed by this kernel: install it with --allow-image other:1"),
        ("KERNEL_WORKING_DIR", "/etc", "lies in no folder that this kernel has mounted"),
    ):
        with pytest.raises(AssertionError, match=why):
            client.tell("start", "box", str(home.notebooks), {variable: value})


ASK = """
import json
def ask(magic, line=""):
    value = get_ipython().run_line_magic(magic, line)
    if value is not None:
        bundle = value._repr_mimebundle_()
        print(json.dumps([str(value), sorted(bundle), bundle["text/html"][:4], value.to_dict()]))
"""
STRANGE = """
import os, socket
def put(data, hears=True):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(60)
        listener.bind("/run/cellwall/new")
        listener.listen(1)
        os.rename("/run/cellwall/new", "/run/cellwall/ask")
        peer, _ = listener.accept()
        os.unlink("/run/cellwall/ask")
    peer.settimeout(60)
    try:
        peer.sendall(data)
        return peer if not hears else peer.recv(1 << 16).decode()
    except OSError as error:
        return type(error).__name__
no = [put(data) for data in (b"\\x00\\xff\\n", b"[" * 3000 + b"\\n", b"{}\\n", b'{"magic": "run", "words": []}\\n',
    b'{"magic": "layers", "words": ["\\\\ud800"]}\\n', b'{"magic": "layers", "words": ["\\\\u0000"]}\\n', b'{"magic": "layers", "words": [1]}\\n')]
print([answer for answer in no if "no question" not in answer], "no question" in put(b"x" * 5000))
asked = b'{"magic": "mounts", "words": []}\\n'
silent = [put(asked, False) for _ in range(300)]
print(len([peer for peer in silent if not isinstance(peer, str)]), put(asked + b"more"))
os.symlink("/etc/passwd", "/run/cellwall/new"); os.rename("/run/cellwall/new", "/run/cellwall/ask")
"""


def test_the_magics_are_about_the_kernels_own_container(client: Client, home: Home) -> None:
    client.tell("start", "box", str(home.notebooks), {})
    names = client.text("print(sorted(globals()))")
    assert "cellwall" not in names and "View" not in names
    client.text(ASK)
    container = home.cli("ps", "-q", "--no-trunc").strip()
    # What they are outside, from the same facts: a kernel writes by itself now and then, so it is looked at from both sides at rest.
    path = "--path /etc/../../etc/passwd"

    def alike() -> bool:
        before = home.cli("layers", *path.split(), container)
        text, kinds, html, data = json.loads(client.text(f"ask('layers', '{path}')"))
        again = json.loads(client.text(f"%layers {path} --format json"))
        assert (kinds, html) == (["text/html", "text/plain"], "<div")
        at_rest = home.cli("layers", *path.split(), container) == before
        assert not at_rest or (text.rstrip(), again) == (before.rstrip(), data)
        return at_rest

    until(alike, "a kernel that writes nothing")
    assert json.loads(client.text("ask('mounts')"))[0].rstrip() == home.cli("mounts", container).rstrip()
    group = json.loads(client.text("ask('cgroups')"))
    assert container in json.dumps(group[3]) and "200 MiB" in group[0]
    assert container[:12] in json.loads(client.text("ask('namespaces')"))[0]
    assert container in client.text("%container")
    assert json.loads(client.text("%container inspect"))[0]["Id"] == container
    # No other container, nothing but looks.
    for line, why in (
        (f"%layers {container}", "shows this kernel's own container: leave"),
        ("%layers --compare a b", "leave 'a' out"),
        ("%container rm", "takes one of top, stats, diff, inspect, port here"),
        ("%container inspect other", "takes one of"),
        ("%mounts --nonsense", "--nonsense"),
    ):
        done = client.run(line)
        assert done["status"] == "error" and why in done["text"], done
    client.text(STRANGE)
    assert client.text("print(0)") == "0\n"
    client.tell("shutdown")


NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "box", "display_name": "box", "language": "python"}},
    "cells": [
        {"cell_type": "code", "id": f"c{n}", "source": text, "metadata": {}, "outputs": [], "execution_count": None}
        for n, text in enumerate(["x = 20", "print(x + 22)"])
    ],
}


def test_another_user_in_the_image(client: Client, home: Home) -> None:
    home.cli("kernel", "install", "--image", "kernel:1", "--name", "sam", "-u", "sam")
    client.tell("start", "sam", str(home.notebooks), {})
    assert client.text("import os; open('of-sam', 'w').close(); print(os.getuid())") == "1000\n"
    # What that user makes is the caller's here.
    assert (home.notebooks / "of-sam").stat().st_uid == 0
    client.tell("shutdown")
    # The same as a kernel that listens at ports, which are nobody's but its own.
    home.cli("kernel", "install", "--image", "kernel:1", "--name", "sam", "-u", "sam", "--transport", "tcp")
    client.tell("start", "sam", str(home.notebooks), {})
    seen = "print(json.load(open('/run/cellwall/connection.json'))['transport'], [p for p in os.listdir('/proc') if p.isdigit()] == ['1', str(os.getpid())])"
    assert client.text(f"import json, os; {seen}") == "tcp True\n"
    assert len(client.text("print('x' * (3 << 20))")) == (3 << 20) + 1
    client.kill()
    assert home.left() == []
    home.cli("kernel", "remove", "sam")


@pytest.mark.soak
def test_clients_unchanged(home: Home) -> None:
    (home.notebooks / "n.ipynb").write_text(json.dumps(NOTEBOOK))
    run = "import nbformat, nbclient\nn = nbformat.read('n.ipynb', 4)\nnbclient.NotebookClient(n).execute()\nnbformat.write(n, 'run.ipynb')"
    lines = (
        ("-m", "nbconvert", "--to", "notebook", "--execute", "--output", "converted.ipynb", "n.ipynb"),
        ("-m", "papermill", "--no-progress-bar", "n.ipynb", "milled.ipynb"),
        ("-c", run),
    )
    # Three clients at once: each has a kernel of its own.
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda words: home.script(*words), lines))
    for name in ("converted", "milled", "run"):
        cells = json.loads((home.notebooks / f"{name}.ipynb").read_text())["cells"]
        assert "42\n" in "".join(cells[-1]["outputs"][0]["text"]), name
    console = home.popen(
        "-m", "jupyter_console", "--kernel", "box", "--simple-prompt",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said, _ = console.communicate("print(6 * 7)\nexit\n", timeout=120)
    assert "42" in said, said
    assert home.left() == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--name", "x"], "--image: cellwall kernel install needs an image"),
        (["--image", "kernel:1"], "--name: '' is no name of a kernel"),
        (["--image", "kernel:1", "--name", "a/b"], "'a/b' is no name of a kernel"),
        (["--image", "kernel:1", "--name", "x", "--folder", "maybe"], "--folder"),
        (["--image", "kernel:1", "--name", "x", "--language", "cobol"], "has no kernel for cobol; it has python: name one with --language"),
        (["--image", "kernel:1", "--name", "x", "--", "true"], "needs the word {connection_file}"),
        (["--image", "kernel:1", "--name", "x", "--user", "--sys-prefix"], "take one of them"),
        (["--image", "kernel:1", "--name", "x", "-m", "lots"], "--memory"),
        (["--image", "kernel:1", "--name", "x", "-t"], "-t"),
        (["--image", "gone:1", "--name", "x", "--dry-run"], "gone:1"),
    ],
)  # fmt: skip
def test_mistakes_at_install(home: Home, words: list[str], why: str) -> None:
    said = cellwall("--root", str(home.root / "s"), "kernel", "install", *words)
    assert said.returncode == (1 if "gone:1" in words else 125)
    assert said.stderr.startswith("cellwall: ") and said.stderr.count("\n") == 1, said.stderr
    assert why in said.stderr


def test_mistakes_at_start(client: Client, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", home.environment["JUPYTER_DATA_DIR"])

    def cli(*words: str) -> str:
        done = cellwall("--root", str(home.root / "s"), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for name, command, why in (
        ("nothing", "/nothing/there", "can't be started: /nothing/there: not found in the image"),
        ("fails", "false", "ended before it was ready: exit status 1"),
        # It has left itself behind as a daemon would.
        ("forks", "setsid sh -c 'sleep 600' &", "ended before it was ready: exit status 0"),
    ):
        words = ["sh", "-c", command, "{connection_file}"] if " " in command else [command, "{connection_file}"]
        cli("kernel", "install", "--image", "kernel:1", "--name", name, "--", *words)
        with pytest.raises(AssertionError, match=why):
            client.tell("start", name, str(home.notebooks), {})
    cli(
        "kernel", "install", "--image", "kernel:1", "--name", "slow", "--", "sh", "-c", "sleep 600", "{connection_file}"
    )
    with pytest.raises(AssertionError, match="no sockets after 1 s; a longer time"):
        client.tell("start", "slow", str(home.notebooks), {"KERNEL_LAUNCH_TIMEOUT": "1"})
    cli("tag", "kernel:1", "short:1")
    cli("kernel", "install", "--image", "short:1", "--name", "short", "--pull", "never")
    cli("rmi", "short:1")
    with pytest.raises(AssertionError, match="short:1"):
        client.tell("start", "short", str(home.notebooks), {})
    # As an image with an ipykernel of ours is named, which no registry has.
    spec = Path(home.environment["JUPYTER_DATA_DIR"], "kernels/short/kernel.json")
    spec.write_text(spec.read_text().replace("short:1", "localhost/cellwall-kernel:gone"))
    with pytest.raises(
        AssertionError, match="which this kernel was installed with, has been removed: run cellwall kernel install"
    ):
        client.tell("start", "short", str(home.notebooks), {})
    with pytest.raises(AssertionError, match="would hide the image's own folder"):
        client.tell("start", "box", "/usr", {})
    with monkeypatch.context() as patch:
        patch.setitem(home.environment, "CELLWALL_ROOT", f"{home.root}/{'x' * 80}")
        far = Client(home)
    with pytest.raises(AssertionError, match="too long for a Unix socket, which has 107 bytes: set CELLWALL_ROOT"):
        far.tell("start", "box", str(home.notebooks), {})
    far.end()
    assert "nothing" in cli("kernel", "list", "-q").split()
    cli("kernel", "remove", "nothing", "fails", "forks", "slow", "short")
    assert sorted(cli("kernel", "list", "-q").split()) == ["argv", "box"]


HOSTILE = """
import os, socket
for n in range(1, 6): os.unlink(f'/run/cellwall/k-{n}')
os.symlink('/var/run/secret.sock', '/run/cellwall/k-1')
try: open('/run/cellwall/full', 'wb').write(bytes(1 << 20))
except OSError as error: print(error.strerror)
try: open('/dev/shm/full', 'wb').write(bytes(1 << 27))
except OSError as error: print(error.strerror)
os.write(1, b'\\x1b[2J garbage \\x00\\xff' * 1000)
"""


def test_a_hostile_kernel(client: Client, home: Home) -> None:
    client.tell("start", "box", str(home.notebooks), {})
    assert client.text(HOSTILE).count("No space left on device") == 2
    # In two cells: a kernel's socket holds a thousand messages, as ZMQ's do, and drops what comes behind them. What was written
    # around the kernel's streams may come as late as with the next cell.
    client.run("from comm import create_comm\nmade = [create_comm(target_name='t') for _ in range(500)]")
    comms = client.text("made += [create_comm(target_name='t') for _ in range(500)]\nprint(len(made))")
    assert comms.endswith("1000\n")
    # What it writes is its own memory, and takes nothing of this machine's.
    done = client.run("with open('/tmp/full', 'wb') as file:\n while True: file.write(bytes(1 << 20))")
    assert done["status"] == "dead" and "the kernel ran out of memory: 200 MiB of 200 MiB" in done["text"], done
    client.tell("restart")
    assert client.tell("interrupt_in_vain", DEAF)
    assert home.left() == []


@pytest.mark.soak
def test_a_layer_of_wheels(home: Home, tmp_path: Path) -> None:
    """An ipykernel of a few lines: what is made of it, and that it is made once."""
    from ..kernel_image import python_image, write_wheel
    from ..registries import write_layout

    files = {
        "ipykernel/__init__.py": "",
        "ipykernel/kernelapp.py": "",
        "ipykernel_launcher.py": "raise SystemExit('no kernel, but called')",
    }
    wheels = write_wheel(tmp_path / "wheels", "ipykernel", "7.0.0", files)
    layout = write_layout(tmp_path / "image", {"latest": python_image(User="1000:1000")})
    words = ["kernel", "install", "--image", f"oci:{layout}:latest", "--name", "layered", "--wheels", str(wheels)]
    said = home.cli(*words)
    assert "has Python without ipykernel: adding it as a layer, from the wheels in" in said
    assert "was made before" in home.cli(*words)
    with pytest.raises(AssertionError, match="no kernel, but called"):
        made = Client(home)
        try:
            made.tell("start", "layered", str(home.notebooks), {})
        finally:
            made.end()
    (wheels / "ipykernel-7.0.0-py3-none-any.whl").unlink()
    assert "there is no wheel in it" in home.cli(*words, status=1)
    home.cli("kernel", "remove", "layered")


@pytest.mark.soak
@pytest.mark.needs("user-namespaces", "overlay-userns")
def test_an_ordinary_users_kernel(image: Path) -> None:
    account = user_with_subordinate_ids()
    root = Path(tempfile.mkdtemp(prefix="cw-k", dir="/tmp"))
    try:
        home = Home(root, image, (account.pw_uid, account.pw_gid))
        for kind in ("box", "argv"):
            client = Client(home)
            client.tell("start", kind, str(home.notebooks), {})
            found = json.loads(client.text(INSIDE).splitlines()[-1])
            assert (found["interfaces"], found["pids"], found["connection"]) == (["lo"], [1, found["pid"]], "0o600")
            assert of_this_machine(found["mounts"]) == [str(home.notebooks)]
            client.text("open('made', 'w').write('x')")
            assert (home.notebooks / "made").stat().st_uid == account.pw_uid
            done = client.run(ENDLESS, "interrupt")
            assert done["errors"] == ["KeyboardInterrupt"]
            client.tell("restart")
            assert client.text("print(1)").endswith("1\n")
            shown = client.text("print(get_ipython().run_line_magic('layers', '--path /usr/bin/python3'))")
            assert "usr/bin/python3" in shown
            client.tell("shutdown")
            client.end()
            said = home.suite(kind)
            assert said.count("... ok") >= 10, said
            assert home.left() == []
        home.cli("kernel", "install", "--image", "kernel:1", "--name", "ports", "--transport", "tcp")
        client = Client(home)
        client.tell("start", "ports", str(home.notebooks), {})
        assert client.text("print(2)").endswith("2\n")
        client.kill()
        assert home.left() == []
        words = ["--image", "kernel:1", "--name", "sam", "-u", "sam"]
        assert "install it with -u 0: that root is you" in home.cli("kernel", "install", *words, status=1)
    finally:
        shutil.rmtree(root)
