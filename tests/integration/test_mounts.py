"""What a container has mounted of this machine: whose its files are, where it may be, what it shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellwall.runtime.launcher.bind_ids import rows
from cellwall.runtime.linux import mounts as kernel

from ..in_process import cellwall
from ..volume_image import write_images

pytestmark = pytest.mark.needs("root", "overlay")

CELLWALL = [sys.executable, "-m", "cellwall"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_images(tmp_path_factory.mktemp("mount-images"))


@pytest.fixture
def run(cellwall_root: Path, images: dict[str, str], tmp_path: Path) -> Cli:
    """``run --rm`` with options and a shell's script in the image ``plain``."""

    def run(options: str, script: str, *, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        words = [*CELLWALL, "run", "--rm", *options.split(), images["plain"], "sh", "-c", script]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, **env}
        )
        assert done.returncode == status, (options, done.stdout, done.stderr)
        return done

    return run


def owners(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()}


def test_what_a_container_writes_belongs_to_the_caller(run: Cli, tmp_path: Path) -> None:
    """And what is the caller's belongs to whoever the command runs as: so it may write where the caller may."""
    work = tmp_path / "work"
    work.mkdir(mode=0o700)
    (work / "mine").write_text("m")
    (work / "mine").chmod(0o600)
    (work / "other").touch()
    os.chown(work / "other", 1000, 1000)
    see = "stat -c '%n %u:%g' mine other; cat mine; touch by-$(id -u)"
    assert run("-v ./work:/w -w /w", see).stdout == "mine 0:0\nother 1000:1000\nm"
    # By number, by name (the group of its entry), and as a group of its own.
    assert run("-v ./work:/w -w /w -u 1000", see).stdout == "mine 1000:1000\nother 0:0\nm"
    assert run("-v ./work:/w -w /w -u me", see).stdout == "mine 1000:1000\nother 0:0\nm"
    assert run("-v ./work:/w -w /w -u 1234:5678", see).stdout.startswith("mine 1234:5678\nother 1000:1000\n")
    assert set(owners(work).values()) == {(0, 0), (1000, 1000)}
    assert owners(work)["by-1000"] == owners(work)["by-1234"] == (0, 0)
    # A database gives its folder to its own user, and that is kept, as in docker.
    run("-v ./work:/w -w /w", "touch db && chown 999:999 db")
    assert owners(work)["db"] == (999, 999)
    # Under sudo the caller is the person behind it, where the folder is that person's.
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 4321, 4321)
    sudo = {"SUDO_UID": "4321", "SUDO_GID": "4321"}
    assert run("-v ./home:/w -w /w", "stat -c %u:%g .; touch f", **sudo).stdout == "0:0\n"
    assert run("-v ./home:/w -w /w -u 1000", "touch g; stat -c %u g", **sudo).stdout == "1000\n"
    assert owners(home) == {"f": (4321, 4321), "g": (4321, 4321)}
    run("-v ./work:/w -w /w", "touch h", **sudo)
    assert owners(work)["h"] == (0, 0)


@pytest.mark.parametrize(
    ("caller", "user", "wanted"),
    [
        (0, 0, [(0, 9000, 1), (1, 9001, 99)]),
        (0, 5, [(0, 9005, 1), (1, 9001, 4), (5, 9000, 1), (6, 9006, 94)]),
        (7, 0, [(0, 9007, 1), (1, 9001, 6), (7, 9000, 1), (8, 9008, 92)]),
        (500, 3, [(0, 9000, 3), (500, 9003, 1), (4, 9004, 96)]),
        (99, 98, [(0, 9000, 98), (98, 9099, 1), (99, 9098, 1)]),
    ],
)
def test_the_map_exchanges_two_ids(caller: int, user: int, wanted: list[tuple[int, int, int]]) -> None:
    found = rows(caller, user, 9000, 100)
    assert sorted(found) == sorted(wanted)
    outside = [host + step for _, host, count in found for step in range(count)]
    assert len(outside) == len(set(outside))


def test_what_is_mounted_where(run: Cli, tmp_path: Path, images: dict[str, str]) -> None:
    (tmp_path / "a/sub").mkdir(parents=True)
    (tmp_path / "a/f").write_text("f")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/g").write_text("g")
    # A file, a folder on a folder's folder whatever the order, over a link of the image, on a read-only root.
    script = "cat /a/f /a/sub/g /one; echo x 2>/dev/null > /a/f || echo no; echo y > /a/sub/new; cat /data/deep/g; touch /v/n; touch /x 2>/dev/null || echo ro"
    done = run("--read-only -v ./b:/a/sub -v ./a:/a:ro -v ./a/f:/one -v ./b:/link -v /v", script)
    assert done.stdout == "fgfno\ngro\n"
    assert (tmp_path / "b/new").read_text() == "y\n"
    # The caller's own /etc/hosts is his; what is mounted below a folder comes along, read-only as well, or not at all.
    (tmp_path / "a/hosts").write_text("mine\n")
    assert run("-v ./a/hosts:/etc/hosts", "cat /etc/hosts").stdout == "mine\n"
    kernel.mount("tmpfs", str(tmp_path / "a/sub"), "tmpfs", 0, "mode=0755")
    try:
        (tmp_path / "a/sub/inner").write_text("i")
        assert run("-v ./a:/a:ro", "cat /a/sub/inner; echo z 2>/dev/null > /a/sub/inner || echo no").stdout == "ino\n"
        mount = f"--mount type=bind,src={tmp_path}/a,dst=/a,bind-nonrecursive"
        assert run(mount, "ls /a/sub").stdout == ""
        # As shown inside: what is mounted later, where that was asked for and the mount shares it.
        kernel.mount(None, str(tmp_path / "a/sub"), None, kernel.MS_PRIVATE)  # under systemd all are shared
        slave = "-v ./a/sub:/s:rslave"
        assert "is not a shared or slave mount" in run(slave, "true", status=125).stderr
        kernel.mount(None, str(tmp_path / "a/sub"), None, kernel.MS_SHARED)
        (tmp_path / "a/sub/late").mkdir()
        for option, seen in (("rslave", "later\n"), ("rprivate", "")):
            words = [*CELLWALL, "run", "--rm", "-i", "-v", f"./a/sub:/s:{option}", images["plain"], "sh"]
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as box:
                assert box.stdin is not None
                assert box.stdout is not None
                print("echo up", file=box.stdin, flush=True)
                assert box.stdout.readline() == "up\n"
                kernel.mount("tmpfs", str(tmp_path / "a/sub/late"), "tmpfs")
                try:
                    (tmp_path / "a/sub/late/later").touch()
                    print("ls /s/late", file=box.stdin, flush=True)
                    box.stdin.close()
                    assert box.stdout.read() == seen
                finally:
                    kernel.umount2(str(tmp_path / "a/sub/late"), kernel.MNT_DETACH)
    finally:
        kernel.umount2(str(tmp_path / "a/sub"), kernel.MNT_DETACH)


def test_images_and_parts_of_volumes(run: Cli, images: dict[str, str], tmp_path: Path) -> None:
    image = f"--mount type=image,src={images['data']},dst=/img"
    # The order is that of the depth, whatever its kind.
    (tmp_path / "z").write_text("z\n")
    script = "cat /img/data/file; echo x 2>/dev/null > /img/y || echo ro; cat /img/data/deep/z"
    assert run(f"-v .:/img/data/deep {image}", script).stdout == "of the image\nro\nz\n"
    assert run(f"{image},image-subpath=data/deep", "ls /img").stdout == "pipe\n"
    run("-v vol:/v", "mkdir -p /v/in/side; echo s > /v/in/side/f; ln -s /etc /v/out; ln -s in /v/link")
    part = "--mount type=volume,src=vol,dst=/p,volume-subpath="
    assert run(f"{part}in/side", "cat /p/f").stdout == "s\n"
    assert run(f"{part}link/side", "cat /p/f").stdout == "s\n"
    for subpath in ("out", "nosuch"):
        assert "cellwall: bind " in run(part + subpath, "true", status=125).stderr


BAD = [
    ("-v ./f:/proc", "nothing can be mounted over /proc"),
    ("-v ./f:/proc/sys/kernel", "nothing can be mounted over /proc"),
    ("-v ./f:/proc/self/root/etc", "nothing can be mounted over /proc"),
    ("-v ./f:/loop", "it leads to /proc, which nothing can be mounted over"),
    ("-v ./f:/loop/sys", "it leads to /proc/sys"),
    ("--tmpfs /loop/1", "it leads to /proc/1"),
    ("-v ./f:/loop/self/root/x", "mount point /loop/self/root/x"),
    ("-v ./f:/up", "it leads to its root"),
    ("-v ./f:/..", "the container's root can't be mounted over"),
    ("-v ./f:/etc/passwd", "something else than a folder there"),
    ("-v ./z:/etc", "a folder can't be mounted on a file, nor a file on a folder"),
    ("-v ./none:/x", "mkdir -p"),
    ("-v f/x:/x", "neither a path"),
    ("-v f:/x", "at least two"),
    ("-v ./f:x", "must be absolute"),
    ("--mount type=bind,src=f,dst=/x", "must be absolute, or relative with a leading ./"),
    ("-v ./f:/x:rshared", "--userns host"),
    ("-v ./f:/x:ro -v ./f:/x/y", "read-only: make it first"),
    ("-v ./f:/x -v ./f:/x", "mounted twice"),
    ("--volumes-from nosuch", "no container nosuch"),
    ("--mount type=image,src=oci:/nosuch,dst=/x", "nosuch"),
]


def test_bad_mounts_are_one_clear_line(
    cellwall_root: Path, images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cellwall("pull", "-q", images["plain"])
    (tmp_path / "f").mkdir()
    (tmp_path / "z").touch()
    for options, text in BAD:
        done = cellwall("run", "--rm", *options.split(), images["plain"], "true")
        assert done.returncode == 125, options
        assert text in done.stderr, (options, done.stderr)
        assert done.stderr.count("\n") == 1, (options, done.stderr)
