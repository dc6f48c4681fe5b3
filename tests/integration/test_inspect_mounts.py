"""``mounts`` beside findmnt and the files themselves: on containers, and in a namespace with thousands of mounts."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound, SpecError, StatusError
from cellwall.runtime.inspect import mounts
from cellwall.runtime.inspect.mounts import MountPoint, MountsView, mounts_of

from .test_inspect_namespaces import Cli, cli, told

__all__ = ["cli"]
pytestmark = pytest.mark.needs("root", "user-namespaces", "overlay")


def from_findmnt(pid: int) -> dict[int, dict[str, str]]:
    columns = "id,target,fsroot,fstype,vfs-options,fs-options,propagation,maj:min"
    rows = json.loads(told("findmnt", "--task", str(pid), "--list", "--json", "--output", columns))["filesystems"]
    return {int(row["id"]): row for row in rows}


def by_target(view: MountsView) -> dict[str, MountPoint]:
    return {point.target: point for point in view.mounts}


def test_every_mount_is_findmnts(cli: Cli, engine: Engine, tmp_path: Path) -> None:
    odd = tmp_path / "a b#c\\d\te\n<script>\x1b[31m\u202e"
    odd.mkdir()
    (odd / "file").write_text("x")
    os.chown(odd / "file", 0, 0)
    cli("volume", "create", "kept")
    words = ["-v", f"{odd}:/odd/x y", "-v", "kept:/kept:ro", "--tmpfs", "/scratch:size=1m"]
    cli(
        "run", "-d", "--name", "web", *words, "-v", f"{odd}/file:/etc/one-file", "-u", "1000", "host", "sleep", "100000"
    )
    pid = engine.container("web").pid
    view = mounts_of(engine.known, "web")
    listed = from_findmnt(pid)
    assert {point.id for point in view.mounts} == set(listed)
    assert (view.count, view.more, view.pid, view.shared) == (len(listed), 0, pid, False)
    assert view.namespace == os.stat(f"/proc/{pid}/ns/mnt").st_ino
    for point in view.mounts:
        row = listed[point.id]
        assert (point.target, point.root) == (row["target"], row["fsroot"])
        assert (point.filesystem, point.device, point.propagation) == (
            row["fstype"],
            row["maj:min"],
            row["propagation"],
        )
        # findmnt drops "idmapped" in its older versions, as it isn't an option of mount(8).
        assert set(point.options) - {"idmapped"} == set(row["vfs-options"].split(",")) - {"idmapped"}
        assert ",".join(point.superblock_options) == row["fs-options"]
        assert point.hidden_by is None
    found = by_target(view)
    assert (found["/odd/x y"].kind, found["/odd/x y"].path) == ("bind", str(odd))
    assert (found["/etc/one-file"].kind, found["/etc/one-file"].path) == ("bind", f"{odd}/file")
    assert (found["/kept"].kind, found["/kept"].volume, "ro" in found["/kept"].options) == ("volume", "kept", True)
    assert found["/scratch"].kind == found["/dev/shm"].kind == "tmpfs"
    assert found["/"].kind == "root"
    assert {found[path].kind for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")} == {"file"}
    assert {found[path].kind for path in ("/proc", "/sys", "/dev/pts", "/dev/mqueue")} == {"kernel"}
    # What is hidden is empty inside, what is read-only can't be written, and nothing else below /proc and /sys is mounted over.
    script = 'for p; do [ -d "$p" ] && ls -A "$p" || cat "$p"; done'
    hidden = [point.target for point in view.mounts if point.kind == "masked"]
    assert hidden
    assert cli("exec", "-u", "0", "web", "sh", "-c", script, "sh", *hidden) == ""
    options = engine.inspect("web")["HostConfig"]
    assert set(hidden) <= set(options["MaskedPaths"])
    closed = [point.target for point in view.mounts if point.kind == "read-only"]
    assert set(closed) == {path for path in options["ReadonlyPaths"] if Path(path).exists()} - {
        "/proc/sysrq-trigger"
    } | ({"/proc/sysrq-trigger"} & {point.target for point in view.mounts})
    # Ids: the caller's file is the container's user's; who owns what on disk, as the container itself sees it.
    if found["/odd/x y"].idmapped:
        users = mounts_words_inside(found["/odd/x y"], view)
        inside = int(cli("exec", "web", "stat", "-c", "%u", "/odd/x y/file"))
        assert users[0] == inside == 1000
        assert users[1000] == 0
    # Devices, as the container's own stat has them.
    numbers = cli(
        "exec",
        "web",
        "sh",
        "-c",
        "cd /dev; for d in *; do [ -c $d -o -b $d ] && [ ! -L $d ] && stat -c '/dev/%n %t:%T %a' $d; done; true",
    )
    stated = {row.split()[0]: row.split()[1:] for row in numbers.splitlines()}
    assert {
        device.path: [f"{device.major:x}:{device.minor:x}", device.mode.lstrip("0")] for device in view.devices
    } == stated
    # Both twins, and the data of the command line.
    for shown in (cli("mounts", "web"), view.html()):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[31m" in shown
    assert "<script" not in view.html()
    assert max(map(len, cli("mounts", "web").splitlines())) <= 80
    assert json.loads(cli("mounts", "web", "--format", "json")) == json.loads(json.dumps(view.to_dict()))


def mounts_words_inside(point: MountPoint, view: MountsView) -> dict[int, int]:
    """Id on disk to id inside, for the ids that a test looks at."""
    from cellwall.runtime.inspect.mounts_words import inside

    return {
        first + offset: shown + offset
        for first, shown, count in inside(point.uid_map, view.uid_map)
        for offset in range(min(count, 2000))
    }


def test_without_id_maps_and_the_machines_own(cli: Cli, engine: Engine, tmp_path: Path) -> None:
    cli(
        "run",
        "-d",
        "--name",
        "plain",
        "--userns",
        "host",
        "--network",
        "host",
        "-v",
        f"{tmp_path}:/b",
        "host",
        "sleep",
        "100000",
    )
    view = mounts_of(engine.known, "plain")
    listed = from_findmnt(engine.container("plain").pid)
    assert {point.id: point.propagation for point in view.mounts} == {
        number: row["propagation"] for number, row in listed.items()
    }
    assert by_target(view)["/b"].kind == "bind"
    assert not any(point.idmapped for point in view.mounts)
    own = mounts_of(engine.known)
    assert (own.id, own.shared, own.pid) == ("", True, os.getpid())
    assert {point.id for point in own.mounts} == set(from_findmnt(os.getpid()))
    assert "mounts of this process" in cli("mounts")
    cli("kill", "plain")
    with pytest.raises(StatusError, match="container plain is exited"):
        mounts_of(engine.known, "plain")
    with pytest.raises(NotFound):
        mounts_of(engine.known, "nobody")
    with pytest.raises(SpecError, match="one container at a time"):
        mounts.read(engine, argparse.Namespace(hidden=False), ["plain", "plain"])


def test_what_mounts_hide(cli: Cli, engine: Engine, tmp_path: Path) -> None:
    """Beside a container of the same image that has nothing mounted there."""
    (tmp_path / "file").touch()
    (tmp_path / "folder/empty").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "folder" / str(number)).touch()
    words = ["-v", f"{tmp_path}/folder:/usr/share", "--tmpfs", "/usr/share/empty", "-v", f"{tmp_path}/file:/etc/passwd"]
    cli("run", "-d", "--name", "over", *words, "--tmpfs", "/new", "--tmpfs", "/usr/sbin", "host", "sleep", "100000")
    seen = cli(
        "run", "--rm", "host", "sh", "-c", "ls -A /usr/share | wc -l; ls -A /usr/sbin | wc -l; stat -c %s /etc/passwd"
    )
    share, programs, passwd = map(int, seen.split())
    found = by_target(mounts_of(engine.known, "over", hidden=True))
    beneath = {target: (point.beneath_entries, point.beneath_bytes) for target, point in found.items()}
    assert beneath["/usr/share"] == (share, None)
    assert beneath["/usr/sbin"] == (programs, None)
    assert beneath["/etc/passwd"] == (None, passwd)
    # Made to be mounted on, in the image and in the folder that is mounted itself.
    assert beneath["/new"] == beneath["/usr/share/empty"] == (0, None)
    assert beneath["/proc"] == beneath["/"] == (None, None)
    shown = cli("mounts", "over", "--hidden")
    assert f"hides {share:,} entries" in " ".join(shown.split())
    assert f"hides a file of {passwd:,} bytes" in " ".join(shown.split())
    assert "hides" not in " ".join(cli("mounts", "over").split()).partition("kinds")[0]
    # Nothing of the look is left in the container, which sees its own as before.
    assert sorted(cli("exec", "over", "ls", "-A", "/usr/share").split()) == ["0", "1", "2", "empty"]


# Run in a mount namespace of its own: mounts what its arguments say, and tells what the view and the kernel say of it.
ALONE = """
import json, os, subprocess, sys
from cellwall.runtime.containers import Containers
from cellwall.runtime.inspect.mounts import mounts_of
from cellwall.runtime.linux.mounts import MS_BIND, MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, mount
from cellwall.runtime.linux.process import CLONE_NEWNS, unshare
from cellwall.runtime.paths import Paths

os.chdir(sys.argv[1])
unshare(CLONE_NEWNS)
mount(None, "/", flags=MS_REC | MS_PRIVATE)
top = os.getcwd()
def at(path, source="tmpfs", kind="tmpfs", flags=0):
    os.makedirs(path, exist_ok=True)
    mount(source, path, kind, flags)
def visible(path):
    # The id of the mount that a path leads to, None where it leads nowhere. Source: proc_pid_fdinfo(5)
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return int(open(f"/proc/self/fdinfo/{fd}").read().partition("mnt_id:")[2].split()[0])
    finally:
        os.close(fd)
"""


def alone(code: str, folder: Path) -> Any:
    done = subprocess.run([sys.executable, "-c", ALONE + code, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_covered_and_what_is_shared(cellwall_root: Path, tmp_path: Path) -> None:
    """Which mounts no path leads to, as opening the paths shows, and propagation as findmnt has it."""
    told_ = alone(
        """
at("a"); at("a/b"); at("a/b/c"); at("x/y"); at("x"); at("x/y"); at("d"); at("d"); at("d"); at("d/e")
at("s"); mount(None, "s", flags=MS_SHARED)
at("r", f"{top}/s", None, MS_BIND); mount(None, "r", flags=MS_SLAVE)
at("both", f"{top}/s", None, MS_BIND); mount(None, "both", flags=MS_SLAVE); mount(None, "both", flags=MS_SHARED)
mount(None, "a/b", flags=1 << 17)
at("a", f"{top}/s", None, MS_BIND)
view = mounts_of(Containers(Paths.default()))
mine = [p for p in view.mounts if p.target.startswith(top + "/")]
rows = subprocess.run(["findmnt", "--task", str(os.getpid()), "-l", "-J", "-o", "id,propagation"], capture_output=True, check=True).stdout
rows = {row["id"]: row["propagation"] for row in json.loads(rows)["filesystems"]}
print(json.dumps([[p.target[len(top):], visible(p.target) != p.id, p.hidden_by, p.propagation, rows[p.id], p.kind, p.path[len(top):]] for p in mine]))
""",
        tmp_path,
    )
    assert len(told_) == 14
    for target, covered, hidden_by, propagation, by_findmnt, kind, path in told_:
        assert covered == (hidden_by is not None), target
        for word in ("shared", "slave", "unbindable"):
            assert (word in propagation) == (word in by_findmnt), (target, propagation, by_findmnt)
        assert (propagation == "private") == (by_findmnt == "private")
    kinds = {target: (kind, path) for target, covered, _, _, _, kind, path in told_ if not covered}
    assert kinds["/r"] == kinds["/both"] == kinds["/a"] == ("bind", "/s")
    assert kinds["/s"] == ("tmpfs", "")
    assert {target for target, covered, *_ in told_ if covered} == {"/a", "/a/b", "/a/b/c", "/x/y", "/d"}


def test_five_thousand_mounts(cellwall_root: Path, tmp_path: Path) -> None:
    found = alone(
        """
before = mounts_of(Containers(Paths.default())).count
os.makedirs("m"); at("m")
for number in range(5000):
    os.mkdir(f"m/{number}"); mount("m", f"m/{number}", None, MS_BIND)
view = mounts_of(Containers(Paths.default()))
text, html = view.text(), view.html()
print(json.dumps([before, view.count, len(view.mounts), view.more, len(text.splitlines()), len(html), text.count(" more mounts"), html.count(" more mounts")]))
""",
        tmp_path,
    )
    before, count, kept, more, lines, size, in_text, in_html = found
    assert count == before + 5001
    assert (kept, more) == (1000, count - 1000)
    assert lines < 1500
    assert size < 100_000
    assert in_text >= 1
    assert in_html >= 1
