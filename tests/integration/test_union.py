"""Unions on the real kernel, beside the same folders mounted by hand: what is seen, what writes leave, and what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.api import run_options
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError, NotFound, SpecError, UnsupportedError
from cellwall.runtime.linux.mounts import MS_BIND, MS_RDONLY, mount, umount2
from cellwall.runtime.options import Mount, RunOptions, Script
from cellwall.runtime.results import Result
from cellwall.runtime.union.jobs import scan
from cellwall.runtime.union.mounting import Asked, opened
from cellwall.runtime.union.syntax import parse
from cellwall.runtime.union.view import UnionView

from ..layer_trees import tree_facts
from ..tree import TOP

pytestmark = pytest.mark.needs("root", "overlay")


@contextmanager
def by_hand(folders: list[Path], point: Path) -> Iterator[Path]:
    """The folders, top first, mounted as a person would mount them."""
    point.mkdir(exist_ok=True)
    mount("overlay", str(point), "overlay", MS_RDONLY, "lowerdir=" + ":".join(map(str, folders)))
    try:
        yield point
    finally:
        umount2(str(point))


def seen(root: Path) -> dict[str, str]:
    """Every path below a folder: what a file holds, where a link leads, ``/`` for a directory."""
    found = {}
    for above, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(above, name)
            if not os.path.lexists(path):
                continue  # a whiteout in a directory that only one branch has: the kernel lists its name, and finds nothing
            told = (
                "/"
                if path.is_dir() and not path.is_symlink()
                else os.readlink(path)
                if path.is_symlink()
                else path.read_text()
            )
            found[str(path.relative_to(root))] = told
    return found


# -- what is seen


def plant(folder: Path, chance: random.Random, depth: int = 0) -> None:
    """A random tree whose names meet those of other trees; every file holds the name of its branch."""
    folder.mkdir(exist_ok=True)
    branch = folder.parents[depth - 1].name if depth else folder.name
    for name in "abcd":
        path = folder / name
        match chance.choice(
            ["", "file", "folder", "folder", "opaque", "whiteout", "link"] if depth < 2 else ["", "file", "whiteout"]
        ):
            case "file":
                path.write_text(branch)
            case "folder":
                plant(path, chance, depth + 1)
            case "opaque":
                plant(path, chance, depth + 1)
                os.setxattr(path, "trusted.overlay.opaque", b"y")
            case "whiteout":
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            case "link":
                path.symlink_to(branch)


@pytest.mark.parametrize("seed", range(16))
def test_the_view_is_the_kernels(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folders = [tmp_path / f"branch{index}" for index in range(chance.randint(2, 4))]
    for folder in folders:
        plant(folder, chance)
    request = {"branches": [{"path": str(folder)} for folder in folders], "upper": None, "writable": None, "start": ""}
    found: Any = scan(request | {"depth": 9, "limit": 0})
    shown = {}
    for row in found["rows"]:
        path = bytes.fromhex(row["path"]).decode()
        have = [index for index, folder in enumerate(folders) if os.path.lexists(folder / path)]
        physical = [index for index in have if not stat.S_ISCHR(os.lstat(folders[index] / path).st_mode)]
        assert sorted({*row["shown"], *row["hidden"]}) == physical, f"{path}: every branch that has it is told"
        if row["shown"]:
            shown[path] = "/" if row["kind"] == "directory" else folders[row["shown"][0]].name
        else:
            assert row["gone"] is not None, f"{path} is hidden by something"
    with by_hand(folders, tmp_path / "merged") as merged:
        assert shown == seen(merged)
        # Which directories merge shows in what they hold.
        for row in found["rows"]:
            if row["kind"] == "directory" and len(row["shown"]) > 1:
                path = bytes.fromhex(row["path"]).decode()
                assert all((folders[index] / path).is_dir() for index in row["shown"])
        for row in found["rows"]:
            start: Any = scan(request | {"start": row["path"], "depth": 9, "limit": 0})
            below = [
                other
                for other in found["rows"]
                if other["path"] == row["path"] or other["path"].startswith(row["path"] + b"/".hex())
            ]
            if row["shown"]:
                assert start["rows"] == (below if row["kind"] == "directory" else [row]), (
                    "a part is as it is in the whole"
                )


# -- what writes leave


@pytest.fixture
def branches(tmp_path: Path) -> dict[str, Path]:
    """Three folders: tmp, var and opt."""
    made = {name: tmp_path / name for name in ("tmp", "var", "opt")}
    for path in made.values():
        path.mkdir()
    (made["tmp"] / "own").write_text("tmp")
    (made["tmp"] / "both").write_text("tmp")
    (made["var"] / "both").write_text("var")
    (made["var"] / "log" / "deep").mkdir(parents=True)
    (made["var"] / "log" / "a").write_text("var")
    (made["var"] / "log" / "deep" / "x").write_text("var")
    (made["var"] / "dir").mkdir()
    (made["var"] / "dir" / "1").write_text("var")
    (made["var"] / "gone").mkdir()
    (made["var"] / "gone" / "1").write_text("var")
    (made["opt"] / "log").mkdir()
    (made["opt"] / "log" / "a").write_text("opt")
    (made["opt"] / "log" / "b").write_text("opt")
    (made["opt"] / "kept").write_text("opt")
    return made


def text_of(branches: dict[str, Path]) -> str:
    return f"br={branches['tmp']}=rw:{branches['var']}=ro:{branches['opt']}=ro"


SCRIPT = """
echo new > log/new
echo more >> log/a
echo more >> own
rm both
mv log/b log/c
rm -r dir; mkdir dir; echo 2 > dir/2
rm -r gone
ln -s target link
chmod 700 log/deep
rm log/deep/x; echo x > log/deep/x
"""
# action, path, branch that had it, whiteout, opaque
EFFECTS = [
    ("deleted", "both", "tmp", True, False),
    ("replaced", "dir", "var", False, True),
    ("created", "dir/2", None, False, False),
    ("deleted", "gone", "var", True, False),
    ("created", "link", None, False, False),
    ("copied up", "log/a", "var", False, False),
    ("deleted", "log/b", "opt", True, False),
    ("moved", "log/c", None, False, False),
    ("copied up", "log/deep", "var", False, False),
    ("replaced", "log/deep/x", "var", False, False),
    ("created", "log/new", None, False, False),
    ("changed", "own", "tmp", False, False),
]


def run(engine: Engine, text: str, script: str, *, write: bool = False, **options: Any) -> tuple[Result, UnionView]:
    """A script in a container in which the union is mounted, with the view after it."""
    spec = parse(text)
    wanted = RunOptions(options.pop("image", "host"), rm=True, workdir=spec.mount_point, **options)
    with opened(engine, spec, Asked(write=write, depth=9), wanted) as union:
        result = run_options(wanted, script=Script(script.encode()), mounts=[union.mount], engine=engine)
        return result, union.view(ran=True)


def effects_of(view: UnionView) -> list[tuple[str, str, str | None, bool, bool]]:
    assert view.effects is not None
    return [
        (e.action, e.path, None if e.source is None else Path(view.branch(e.source)).name, e.whiteout, e.opaque)
        for e in view.effects
    ]


def test_writes_are_kept_apart_and_told(engine: Engine, branches: dict[str, Path], tmp_path: Path) -> None:
    before = {name: tree_facts(path) for name, path in branches.items()}
    result, view = run(engine, text_of(branches), SCRIPT)
    assert (result.exit_status, result.stderr) == (0, b"")
    assert effects_of(view) == EFFECTS
    assert {name: tree_facts(path) for name, path in branches.items()} == before, (
        "the folders of the machine stay as they were"
    )


def test_written_branches_hold_what_was_told(engine: Engine, branches: dict[str, Path], tmp_path: Path) -> None:
    """With ``write`` the branch has what the view says: the union mounted by hand afterwards is the one that the script left."""
    apart = run(engine, text_of(branches), SCRIPT)[1]
    lower = {name: tree_facts(branches[name]) for name in ("var", "opt")}
    result, view = run(engine, text_of(branches), SCRIPT + "find . ! -name . | sort; cat log/a own", write=True)
    assert result.exit_status == 0, result.stderr
    assert effects_of(view) == EFFECTS
    for effect in view.effects or ():
        path = branches["tmp"] / effect.path
        status = os.lstat(path) if os.path.lexists(path) else None
        assert effect.whiteout == (status is not None and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0)
        if effect.opaque:
            assert os.getxattr(path, "trusted.overlay.opaque") == b"y"
    assert {name: tree_facts(branches[name]) for name in ("var", "opt")} == lower
    with by_hand(list(branches.values()), tmp_path / "merged") as merged:
        paths = sorted(f"./{path}" for path in seen(merged))
        inside = result.stdout.decode().splitlines()
        assert sorted(inside[: len(paths)]) == paths
        assert inside[len(paths) :] == ["varmore", "tmpmore"]
        for entries in (view.entries, apart.entries):
            assert sorted(entry.path for entry in entries if entry.shown) == sorted(seen(merged))
    assert [(e.path, e.shown, e.hidden, e.gone, e.opaque) for e in view.entries] == [
        (e.path, e.shown, e.hidden, e.gone, e.opaque) for e in apart.entries
    ], "what is kept apart is told as it would be in the branch"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "opt", "tmp", "var"], "no work folder is left"
    again = run(engine, text_of(branches), "true")[1]
    assert again.effects == ()


def test_more_in_a_written_branch(engine: Engine, branches: dict[str, Path]) -> None:
    """What was in the branch before: replaced, deleted without a trace, and back again where a whiteout was."""
    os.mknod(branches["tmp"] / "kept", stat.S_IFCHR, os.makedev(0, 0))
    (branches["tmp"] / "tree" / "in").mkdir(parents=True)
    (branches["tmp"] / "old").write_text("tmp")
    script = "rm own; rm -r tree; echo back > kept; rm old; mkdir old; chmod 700 log"
    _, view = run(engine, text_of(branches), script, write=True)
    assert effects_of(view) == [
        ("created", "kept", "tmp", False, False),
        ("copied up", "log", "var", False, False),
        ("replaced", "old", "tmp", False, False),
        ("deleted", "own", "tmp", False, False),
        ("deleted", "tree", "tmp", False, False),
    ]


def test_ids_are_the_machines(engine: Engine, branches: dict[str, Path]) -> None:
    """Root in the container is root of the folders: it reads what root may, and what it writes for good is root's."""
    (branches["var"] / "secret").write_text("s")
    (branches["var"] / "secret").chmod(0o600)
    os.chown(branches["var"] / "log" / "a", 1234, 4321)
    script = "cat secret; stat -c %u:%g log/a secret; echo x >> log/a; echo n > n; cat /proc/self/uid_map"
    result, _ = run(engine, text_of(branches), script, write=True)
    assert result.stdout.decode().split()[:3] == ["s1234:4321", "0:0", "0"]
    assert result.stdout.decode().split()[4] != "0", "it has a user namespace all the same"
    copied, made = os.stat(branches["tmp"] / "log" / "a"), os.stat(branches["tmp"] / "n")
    assert (copied.st_uid, copied.st_gid, made.st_uid, made.st_gid) == (1234, 4321, 0, 0)


def test_a_union_without_rw_is_read_only(engine: Engine, branches: dict[str, Path]) -> None:
    for text in (f"br={branches['var']}=ro:{branches['opt']}", f"mount -r -t aufs -o {text_of(branches)} none /aufs"):
        result, view = run(engine, text, "touch x; echo $?; touch log/a")
        assert result.exit_status != 0
        assert b"Read-only file system" in result.stderr
        assert (view.effects, view.spec.writable) == ((), None)
    with pytest.raises(SpecError, match="--write needs a branch to write to"):
        run(engine, f"br={branches['var']}=ro", "true", write=True)


def test_mount_options_and_a_place_of_ones_own(engine: Engine, branches: dict[str, Path]) -> None:
    text = f"mount -t aufs -o {text_of(branches)},noexec none /a/place"
    result, _ = run(engine, text, "pwd; grep ' /a/place ' /proc/self/mountinfo | cut -d ' ' -f 6")
    place, options = result.stdout.decode().split()
    assert place == "/a/place"
    assert {"nosuid", "nodev", "noexec", "rw"} <= set(options.split(","))


def test_one_branch_alone(engine: Engine, branches: dict[str, Path]) -> None:
    for write in (False, True):
        result, view = run(engine, f"br={branches['tmp']}", "rm own; ls", write=write)
        assert (result.stdout, effects_of(view)) == (b"both\n", [("deleted", "own", "tmp", False, False)])


def test_paths_and_limits(engine: Engine, branches: dict[str, Path]) -> None:
    spec, options = parse(text_of(branches)), RunOptions("host", rm=True)

    def shown(**asked: Any) -> UnionView:
        with opened(engine, spec, Asked(**asked), options) as union:
            return union.view(ran=False)

    assert [entry.path for entry in shown(depth=1).entries] == ["both", "dir", "gone", "kept", "log", "own"]
    for path in ("log", "/aufs/log/", "./log"):
        assert [entry.path for entry in shown(path=path, depth=1).entries] == ["log", "log/a", "log/b", "log/deep"]
    (entry,) = shown(path="/aufs/log/a").entries
    assert (entry.shown, entry.hidden) == ((1,), (2,))
    few = shown(limit=3)
    assert ([entry.path for entry in few.entries], few.more) == (["both", "log", "log/a"], 9), (
        "what overlaps comes first"
    )
    with pytest.raises(NotFound, match="/aufs/nothing: no branch has it"):
        shown(path="nothing")
    with pytest.raises(SpecError, match=r"/log isn't in the union, which is at /aufs: /aufs/log or log is"):
        shown(path="/log")


# -- what is refused


def test_branches_that_are_none(engine: Engine, branches: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(branches["var"] / "log")
    for text, message in (
        (f"{branches['tmp']}\n{tmp_path}/none", "line 2, column 1: .*/none: no such file or directory: make it first"),
        (f"{branches['tmp']}:{tmp_path}/file", f"line 1, column {len(str(branches['tmp'])) + 2}: .*/file is no folder"),
        (f"{branches['var']}\n{tmp_path}/link", "line 2, column 1: .* overlap"),
        ("/usr/share\n/proc", "line 2, column 1: /proc is on proc, which can be no branch"),
    ):
        with pytest.raises(SpecError, match=message):
            run(engine, text, "true")
    with pytest.raises(SpecError, match="to be the leftmost branch"):
        run(engine, f"{branches['tmp']}=ro\n{branches['var']}=rw", "true", write=True)


def test_a_mount_of_its_own_cannot_be_written_to(engine: Engine, branches: dict[str, Path]) -> None:
    mount(str(branches["tmp"]), str(branches["tmp"]), None, MS_BIND)
    try:
        with pytest.raises(UnsupportedError, match="it is a mount of its own"):
            run(engine, text_of(branches), "true", write=True)
        assert run(engine, text_of(branches), "cat own")[0].stdout == b"tmp"
    finally:
        umount2(str(branches["tmp"]))


def test_what_is_mounted_below_a_branch_is_told(engine: Engine, branches: dict[str, Path]) -> None:
    mount("tmpfs", str(branches["var"] / "dir"), "tmpfs")
    try:
        (branches["var"] / "dir" / "mounted").write_text("")
        result, view = run(engine, text_of(branches), "ls dir")
    finally:
        umount2(str(branches["var"] / "dir"))
    assert result.stdout == b"1\n"
    assert any("dir: mounted below" in warning for warning in view.warnings)
    assert not any(entry.path == "dir/mounted" for entry in view.entries)


def test_two_unions_that_write_to_one_folder(engine: Engine, branches: dict[str, Path]) -> None:
    spec, options = parse(text_of(branches)), RunOptions("host", rm=True)
    with (
        opened(engine, spec, Asked(write=True), options),
        pytest.raises(CellwallError, match="another union writes to it"),
    ):
        run(engine, text_of(branches), "true", write=True)


def test_a_killed_process_leaves_nothing_for_long(engine: Engine, branches: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cellwall.runtime.engine import Engine\n"
        "from cellwall.runtime.options import RunOptions\n"
        "from cellwall.runtime.union.mounting import Asked, opened\n"
        "from cellwall.runtime.union.syntax import parse\n"
        "with opened(Engine(), parse(sys.argv[1]), Asked(write=True), RunOptions('host', rm=True)):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TOP / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", code, text_of(branches)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-union-")], (
            "it works beside the branch"
        )
        child.send_signal(signal.SIGKILL)
    run(engine, text_of(branches), "true")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opt", "tmp", "var"]
    assert list((engine.paths.data / "unions").iterdir()) == []


# -- folders of an image


@pytest.mark.parametrize("driver", ["overlay", pytest.param("erofs", marks=pytest.mark.needs("erofs")), "vfs"])
def test_folders_of_an_image(engine: Engine, busybox: str, branches: dict[str, Path], driver: str) -> None:
    script = "echo me > passwd; rm sh; cat log/a; ls -d busybox log"
    mounts = (Mount("bind", "/data", str(branches["var"])),)
    text = "br=/data=rw:/etc=ro:/bin=ro"
    result, view = run(engine, text, script, image=busybox, storage_driver=driver, mounts=mounts)
    assert result.stdout == b"varbusybox\nlog\n", result.stderr
    assert effects_of(view) == [("copied up", "passwd", "etc", False, False), ("deleted", "sh", "bin", True, False)]
    entry = next(entry for entry in view.entries if entry.path == "sh")
    assert (entry.shown, entry.gone, entry.hidden) == ((), 0, (2,))
    assert not (branches["var"] / "passwd").exists()
    with pytest.raises(SpecError, match="line 1, column 9: /none: no such folder in the image"):
        run(engine, "br=/etc:/none", "true", image=busybox, storage_driver=driver)
    with pytest.raises(SpecError, match="an image is never written to"):
        run(engine, "br=/etc", "true", image=busybox, storage_driver=driver, write=True)


# -- the command line


def cellwall(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(TOP / "src")}
    return subprocess.run([sys.executable, "-m", "cellwall", *words], env=environment, capture_output=True, text=True)


def test_the_founding_line_on_the_command_line(cellwall_root: Path, branches: dict[str, Path]) -> None:
    words = ["union", *f"mount -t aufs -o {text_of(branches)} none /aufs".split()]
    done = cellwall(*words, "sh", "-c", "cat log/b; rm log/b; exit 3")
    assert done.returncode == 3
    assert done.stdout.startswith("optunion of 3 folders of this machine at /aufs\n")
    left = f"deleted   log/b   {branches['opt']}   whiteout log/b (character device 0:0; aufs: log/.wh.b)"
    assert left in done.stdout
    shown = cellwall(*words)
    assert shown.returncode == 0
    assert f"log/a        {branches['var']}" in shown.stdout
    assert "WRITE" not in shown.stdout, "nothing ran"
    data = json.loads(cellwall("union", "--format", "json", text_of(branches), "cat", "kept").stdout)
    assert (data["result"]["stdout"], data["effects"], data["branches"][0]["writable"]) == ("opt", [], True)
    for line, status, said in (
        (
            ["union", "br=/none"],
            125,
            "cellwall: union: line 1, column 4: /none: no such file or directory: make it first",
        ),
        (["union"], 125, "cellwall: union: needs branches"),
        (["union", text_of(branches), "no-such-command"], 127, "cellwall: no-such-command: not found"),
    ):
        failed = cellwall(*line)
        assert failed.returncode == status
        assert failed.stderr.splitlines()[-1].startswith(said)
        assert failed.stdout == ""
