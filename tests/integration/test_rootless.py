"""Containers of an ordinary user: in a user namespace of the launcher's, with subordinate ids where there are some."""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..devices import for_everybody
from ..registries import busybox_image, make_image, write_layout

pytestmark = pytest.mark.needs("root", "user-namespaces", "overlay-userns")

SOURCE = Path(__file__).resolve().parents[2]
User = Callable[[str], Any]


def user_with_subordinate_ids() -> pwd.struct_passwd:
    for line in Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else ():
        try:
            found = pwd.getpwnam(line.split(":")[0])
        except KeyError:
            continue
        if found.pw_uid:
            return found
    pytest.skip("no user of this machine has subordinate ids: sudo useradd --create-home NAME gives one")


@pytest.fixture(params=["subordinate ids", "one id"])
def user(request: pytest.FixtureRequest, cellwall_root: Path) -> Iterator[User]:
    """Runs Python code as an ordinary user with a state folder of their own; returns what it printed, as JSON."""
    if request.param == "one id":
        uid = gid = 64123
    else:
        account = user_with_subordinate_ids()
        uid, gid = account.pw_uid, account.pw_gid
    home = Path(tempfile.mkdtemp(prefix="cw-user-", dir="/tmp"))
    # The checkout may lie where that user can't read.
    shutil.copytree(SOURCE / "runtime", home / "cellwall" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "__init__.py", home / "cellwall")
    (home / "run").mkdir()
    write_layout(home / "image", {"latest": busybox_image()})
    for folder, _, _ in os.walk(home):
        os.chown(folder, uid, gid)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "PYTHONPATH": f"{home}:{os.pathsep.join(p for p in sys.path if p.endswith('site-packages'))}",
    }

    def run(code: str) -> Any:
        script = f"import cellwall, json, os\nimage = 'oci:{home}/image:latest'\n" + code
        done = subprocess.run(
            [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-c", script],
            user=uid,
            group=gid,
            extra_groups=[],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.has_ids = request.param != "one id"  # type: ignore[attr-defined]
    yield run
    shutil.rmtree(home)


def test_isolation(user: User) -> None:
    found = user(
        "r = cellwall.run(image, script='cat /proc/self/status /proc/self/uid_map; id -u; touch /x && stat -c %u /x /bin/sh')\n"
        "print(json.dumps({'out': r.stdout, 'status': r.exit_status, 'diff': [str(c) for c in r.diff()]}))"
    )
    assert found["status"] == 0
    lines = found["out"].splitlines()
    assert "Seccomp:\t2" in lines
    assert "NoNewPrivs:\t1" in lines
    assert lines[-3:] == ["0", "0", "0"]
    assert found["diff"] == ["A /x"]


def test_a_named_container_and_a_second_launcher(user: User) -> None:
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "from cellwall.runtime.api import Box\n"
        "box = cellwall.container(image, name='lab')\n"
        "box.run('echo hi > /root/file')\n"
        "box.run('true')\n"
        "pid = Engine.default().launcher.pid\n"
        "children = open(f'/proc/{pid}/task/{pid}/children').read().split()\n"
        "agents = sum(open(f'/proc/{child}/comm').read() == 'cellwall-agent\\n' for child in children)\n"
        "other = Engine()\n"
        "said = Box(other, 'lab').run('cat /root/file; id -u').stdout.split()\n"
        "other.close()\n"
        "box.remove()\n"
        "print(json.dumps([*said, agents]))"
    )
    assert found == ["hi", "0", 1]


def test_the_view_of_layers(user: User) -> None:
    """Files that are other ids' are read all the same: by a worker in the store's user namespace."""
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "from cellwall.runtime.inspect.layers import layers\n"
        "with cellwall.container(image, name='lab') as box:\n"
        "    box.run('mkdir -m 700 /private; echo secret > /private/file; rm /bin/ls')\n"
        "    engine = Engine.default()\n"
        "    view = layers(engine, 'lab', path='/private/file')\n"
        "    written = view.writable[0].contents\n"
        "    deleted = layers(engine, 'lab', path='/bin/ls').path\n"
        "    print(json.dumps([view.path.given_by, view.path.size_bytes, view.path.mode, written.added, written.deleted,\n"
        "        deleted.exists, [row.role for row in deleted.layers], list(view.mounts[0].options)[-1],\n"
        "        all(layer.contents is not None for layer in view.layers)]))\n"
        "box.remove()"
    )
    assert found == [
        "the writable layer",
        7,
        "rw-r--r--",
        2,
        1,
        False,
        ["whiteout", "hidden"],
        "userxattr",
        True,
    ]


def test_another_user_inside(user: User) -> None:
    found = user(
        "r = cellwall.run(image, ['id', '-u'], user='1000')\nprint(json.dumps([r.exit_status, r.stdout, r.reason]))"
    )
    if user.has_ids:  # type: ignore[attr-defined]
        assert found[:2] == [0, "1000\n"]
    else:
        assert found[0] == 125
        assert "outside the 1 ids of this container" in found[2]


def test_files_of_users_that_there_are_no_ids_for(user: User) -> None:
    """Too few subordinate ids: the file, its owner and the command that mends it are named, and nothing is left."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("etc/owned")
        entry.uid, entry.gid = 1000, 4_000_000
        tar.addfile(entry)
    with tempfile.TemporaryDirectory(prefix="cw-image-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        write_layout(Path(folder, "layout"), {"latest": make_image([buffer.getvalue()])})
        found = user(
            "from cellwall.runtime.errors import LayerError\n"
            "from cellwall.runtime.engine import Engine\n"
            "try:\n"
            f"    cellwall.run('oci:{folder}/layout:latest', ['true'])\n"
            "except LayerError as error:\n"
            "    print(json.dumps([str(error), len(Engine.default().images.list())]))"
        )
    assert "'etc/owned' belongs to 1000:4000000" in found[0]
    assert "usermod --add-subuids" in found[0]
    assert found[1] == 0


def test_what_is_not_in_force_is_said(user: User) -> None:
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "r = cellwall.run(image, ['true'], memory='64m')\n"
        "print(json.dumps([r.exit.memory_limit_bytes, Engine.default().warnings]))"
    )
    # Either the limit holds (a delegated group), or the user is told that it doesn't.
    assert found[0] == 64 << 20 or any("--memory is not in force" in text for text in found[1])


def test_nothing_is_left(user: User) -> None:
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "cellwall.run(image, script='setsid sleep 50 & sleep 0.1')\n"
        "cellwall.run(image, script='sleep 50', timeout=0.3)\n"
        "engine = Engine.default(); engine.close()\n"
        "left = [p.name for p in engine.paths.run.rglob('*') if not p.is_dir()]\n"
        "print(json.dumps(left))"
    )
    # But for what is remembered of what happened.
    assert found == ["events.jsonl"]


def test_a_committed_image(user: User) -> None:
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "box = cellwall.container(image, name='lab')\n"
        "box.run('echo hi > /new; rm /etc/motd; rm -r /home; mkdir /home; echo 1 > /home/in; chmod 4711 /new')\n"
        + ("box.run('chown 1000:2000 /new')\n" if user.has_ids else "")  # type: ignore[attr-defined]
        + "made = box.commit('lab:1')\n"
        "box.remove()\n"
        "r = cellwall.run('lab:1', script='cat /new; stat -c \"%a %u %g\" /new; ls /home /etc')\n"
        "print(json.dumps([len(made.layers), r.stdout.split(), Engine.default().warnings]))"
    )
    owner = ["1000", "2000"] if user.has_ids else ["0", "0"]  # type: ignore[attr-defined]
    # chown takes the setuid bit away, as everywhere.
    assert found[0] == 3
    assert found[1][0] == "hi"
    assert found[1][2:4] == owner
    assert "in" in found[1]
    assert "motd" not in found[1]


def test_the_hosts_network(user: User) -> None:
    found = user(
        "r = cellwall.run(image, ['readlink', '/proc/self/ns/net'], network='host')\n"
        "print(json.dumps([r.exit_status, r.stdout.strip() == os.readlink('/proc/self/ns/net'), r.reason]))"
    )
    assert found[:2] == [0, True], found[2]


@pytest.mark.needs("fuse", "fuse-overlayfs")
def test_fuse_overlayfs(user: User) -> None:
    """The program serves ordinary users too: an ephemeral container, a kept one that starts again, its changes, its layer."""
    for_everybody("/dev/fuse")
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "options = {'storage_driver': 'fuse-overlayfs'}\n"
        "script = 'rm -r /home /etc/motd; mkdir /home; chmod 4755 /bin/busybox; stat -c %u:%f /bin/busybox; head -1 /proc/mounts'\n"
        "once = cellwall.run(image, script=script, **options)\n"
        "box = cellwall.container(image, name='lab', **options)\n"
        "first = box.run('rm -r /home; mkdir /home; echo hi > /root/file')\n"
        "box.commit('made')\n"
        "after = cellwall.run('made', script='cat /root/file', **options)\n"
        "changes = [str(c) for c in Engine.default().diff('lab')]\n"
        "box.remove()\n"
        "print(json.dumps([once.stdout.split(), [str(c) for c in once.diff()], changes, after.stdout]))"
    )
    said, once, changes, after = found
    assert said[:4] == ["0:89ed", "fuse-overlayfs", "/", "fuse.fuse-overlayfs"]
    assert once == ["C /bin", "C /bin/busybox", "C /etc", "D /etc/motd", "C /home"]
    assert changes == ["C /home", "C /root", "A /root/file"]
    assert after == "hi\n"


def test_a_union(user: User) -> None:
    found = user(
        "import contextlib, io\n"
        "from pathlib import Path\n"
        "from cellwall.runtime.cli import main\n"
        "home = Path(os.environ['HOME'])\n"
        "for name in ('tmp', 'var'):\n"
        "    (home / name).mkdir()\n"
        "    (home / name / 'shared').write_text(name)\n"
        "    (home / name / name).write_text(name)\n"
        "text = f'br={home}/tmp=rw:{home}/var=ro'\n"
        "script = 'cat shared; echo x >> var; rm shared; mkdir new; mv tmp new'\n"
        "told = []\n"
        "for words in ([], ['--write']):\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        main(['union', '--format', 'json', '--image', 'host', *words, text, 'sh', '-c', script])\n"
        "    told.append(json.loads(out.getvalue()))\n"
        "print(json.dumps({'told': told, 'left': sorted(os.listdir(home / 'tmp')),"
        " 'above': sorted(n for n in os.listdir(home) if n.startswith('.tmp'))}))"
    )
    for told in found["told"]:
        assert told["result"]["stdout"] == "tmp"
        effects = [(effect["action"], effect["path"], effect["whiteout"]) for effect in told["effects"]]
        assert ("copied up", "var", False) in effects
        assert ("deleted", "shared", True) in effects
        assert ("created", "new", False) in effects
    assert found["left"] == ["new", "shared", "var"], "shared is a whiteout"
    assert found["above"] == []


def test_a_container_that_lives_by_itself(user: User) -> None:
    """Started by one engine, found by the next, joined, attached to, ended; and removed with its files by its own shim."""
    found = user(
        "from cellwall.runtime.engine import Engine\n"
        "from cellwall.runtime.cli.run_options import parse_run\n"
        "from cellwall.runtime import attaching\n"
        "def options(*words): return parse_run(['-d', *words])\n"
        "command = ['sh', '-c', 'read x; echo $x; exit 3']\n"
        "first = Engine(); first.run_detached(options('-i', '--name', 'lives', '--restart', 'always', image, *command))\n"
        "first.close()\n"
        "engine = Engine(); box = engine.container('lives'); running = str(engine.paths.running)\n"
        "null = os.open(os.devnull, os.O_RDWR)\n"
        "joined = engine.exec('lives', ['true'], stdin_fd=null, stdout_fd=null, stderr_fd=null).wait().status\n"
        "sock = attaching.connect(running, box.id)\n"
        "attaching.say(sock, attaching.hello(stdin=True, stdout=True, stderr=True))\n"
        "sock.send(b'0hello\\n')\n"
        "while packet := attaching.hear(sock): pass\n"
        "sock.close(); engine.stop('lives', 0)\n"
        "log = b''.join(entry.data for entry in engine.logs('lives')).decode()\n"
        "count = engine.container('lives').restart_count; engine.remove('lives')\n"
        "command = ['sh', '-c', 'mkdir -p /a/b; chown 5:5 /a; echo made; sleep 1000']\n"
        "engine.run_detached(options('--rm', '--name', 'goes', image, *command))\n"
        "engine.stop('goes', 0)\n"
        "left = [n for n in os.listdir(engine.paths.containers) if n != '.lock']\n"
        "engine.close()\n"
        "print(json.dumps([box.status, joined, log, count, left]))"
    )
    assert found == ["running", 0, "hello\n", 1, []]


def test_a_store_of_roots_is_refused_by_name(user: User, cellwall_root: Path) -> None:
    from cellwall.runtime.store_version import check_version

    check_version(cellwall_root)
    said = user(
        f"""
os.environ["CELLWALL_ROOT"] = {str(cellwall_root)!r}
try:
    cellwall.run(image, ["true"])
    print(json.dumps(""))
except cellwall.CellwallError as error:
    print(json.dumps(str(error)))
"""
    )
    assert said.startswith(f"read {cellwall_root}/version: permission denied: the containers there are another user's")


def test_namespaces_and_mounts(user: User) -> None:
    """Views of an ordinary user's container, held by the kernel's own files; a process of root's is refused by name."""
    seen = user(
        """
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.inspect.mounts import mounts_of
from cellwall.runtime.inspect.namespaces import namespaces_of
from cellwall.runtime.inspect.namespaces_reading import inodes
from cellwall.runtime.inspect.process import ProcessFolder
os.mkdir(os.path.expanduser("~/shared"))
with cellwall.container(image, name="lab", volume=[os.path.expanduser("~/shared") + ":/shared"], tmpfs=["/etc"], hostname="mine") as box:
    box.run("true")
    engine = Engine.default()
    pid = engine.container("lab").pid
    view = namespaces_of(engine.known, ["lab"])
    lab = view.subjects[1]
    mounts = {point.target: point for point in mounts_of(engine.known, "lab", hidden=True).mounts}
    with cellwall.container(image, name="bare") as bare:
        entries = bare.run("ls -A /etc | grep -vcE '^(hosts|hostname|resolv.conf)$'").stdout
    files = {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")}
    rows = [list(map(int, row.split())) for row in open(f"/proc/{pid}/uid_map")]
    with ProcessFolder(1, "process 1") as process:
        try:
            inodes(process)
            refused = ""
        except OSError as error:
            refused = str(process.error(error))
    print(json.dumps({
        "inodes": [lab.namespace(kind).inode == inode for kind, inode in files.items()],
        "name": lab.namespace("uts").gives,
        "map": [[one.inside, one.outside, one.count] for one in lab.uid_map] == rows,
        "setgroups": lab.setgroups,
        "inside": [[one.container_pid, one.container_uid, one.uid == os.getuid()] for one in lab.processes],
        "bind": [mounts["/shared"].kind, mounts["/shared"].path == os.path.expanduser("~/shared")],
        "null": mounts["/dev/null"].kind,
        "masked": mounts["/proc/keys"].kind,
        "hidden": [mounts["/etc"].beneath_entries, mounts["/shared"].beneath_entries],
        "bare": int(entries),
        "refused": refused,
        "isolated": lab.namespace("user").shared_with == (),
    }))
"""
    )
    assert seen["inodes"] == [True] * 7
    assert seen["name"] == "mine"
    assert seen["map"]
    assert seen["hidden"] == [seen["bare"], 0]
    assert seen["bare"] > 0
    assert seen["isolated"]
    assert seen["setgroups"] == user.has_ids  # type: ignore[attr-defined]
    assert seen["inside"] == [[1, 0, True]]
    assert seen["bind"] == ["bind", True]
    assert (seen["null"], seen["masked"]) == ("device", "masked")
    assert "another user's: look as that user, or as root" in seen["refused"]
