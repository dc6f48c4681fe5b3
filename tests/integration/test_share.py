"""Containers made into images and handed on: commit, push, save, load, export, import; podman and skopeo read what comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import ImageError, InvalidReference, NotFound, SpecError, StatusError, UnsupportedError
from cellwall.runtime.images.saving import Format
from cellwall.runtime.linux.mounts import MNT_DETACH, umount2
from cellwall.runtime.pausing import paused

from .. import registries
from ..layer_trees import tree_facts
from ..registries import Registry
from ..waiting import PATIENCE_S, until
from .test_registry_pull import mounted
from .test_unpack_peers import differences, podman_tree

registry = registries.registry

pytestmark = pytest.mark.needs("root", "overlay")

FORMATS: tuple[Format, ...] = ("docker-archive", "oci-archive")
TOP = Path(__file__).resolve().parents[2]
SCRIPT = """
echo hi > /new; rm /etc/motd; ln /new /hard; mkdir -p /d/e; touch /d/e/x
rm -r /home; mkdir /home; touch /home/in; cp /bin/busybox /suid; chmod 4755 /suid; chmod 700 /root
dd if=/dev/zero of=/sparse bs=1 count=1 seek=10000000 2>/dev/null; mv /tmp /tmp2; chown 5:70 /d; echo data > /vol/hidden
"""


@contextmanager
def podman_home() -> Iterator[list[str]]:
    """podman with a store of its own: the beginning of its command line."""
    home = Path(tempfile.mkdtemp(prefix="cwp-", dir="/tmp"))
    (home / "root").mkdir()
    if shutil.which("netavark", path="/usr/lib/podman:/usr/libexec/podman:/usr/bin"):
        # In a new store it looks through CNI's settings first, and warns where CNI isn't installed.
        (home / "root/defaultNetworkBackend").write_text("netavark")
    try:
        yield ["podman", "--root", str(home / "root"), "--runroot", str(home / "run"), "--storage-driver", "overlay"]
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
            if line.split()[4].startswith(str(home)):
                umount2(line.split()[4], MNT_DETACH)
        shutil.rmtree(home)


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.needs("podman")
def test_a_committed_image_is_the_same_in_podman(
    driver: str, engine: Engine, busybox: str, registry: Registry, tmp_path: Path
) -> None:
    name = registry.name(f"share/{driver}:1")
    (tmp_path / "volume").mkdir()
    with cellwall.container(
        busybox,
        name="lab",
        engine=engine,
        storage_driver=driver,
        env={"FROM": "run"},
        volume=[f"{tmp_path}/volume:/vol"],
    ) as box:
        box.run(SCRIPT)
        image = box.commit(name, author="me", message="why", changes=['CMD ["sh", "-c", "cat /new; id -u"]', "ENV A=b"])
        # It goes on as before.
        assert box.run("cat /new").stdout == "hi\n"
    assert image.config["config"]["Env"] == ["PATH=/bin", "FROM=run", "A=b"]
    assert (image.config["author"], image.config["history"][-1]["comment"]) == ("me", "why")
    assert engine.warnings == []
    assert cellwall.run(name, engine=engine).stdout == "hi\n0\n"
    engine.images.push(name)

    plan = engine.driver.prepare("c0ffee", image.chain_ids, kept=False, directory=None)
    with mounted(plan, tmp_path / "merged") as tree:
        ours = tree_facts(tree)
    assert {b"new", b"hard", b"d/e/x", b"home/in", b"tmp2"} <= set(ours)
    assert not {b"etc/motd", b"tmp", b"vol", b"vol/hidden", b"dev/null", b"etc/hosts"} & set(ours)
    assert ours[b"suid"]["mode"] == "-rwsr-xr-x"
    assert (ours[b"d"]["uid"], ours[b"d"]["gid"], ours[b"hard"]["same_file_as"]) == (5, 70, b"hard")
    with podman_tree(f"docker://{name}", "overlay", "--tls-verify=false") as tree:
        assert "\n".join(differences(ours, tree_facts(tree))) == ""
    engine.remove("lab")


@pytest.mark.needs("podman")
def test_podman_runs_what_was_pushed(engine: Engine, busybox: str, registry: Registry) -> None:
    name = registry.name("share/run:1")
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo hi > /new; rm /etc/motd; chown 5 /new; chmod 4755 /new")
        box.commit(name, changes=['CMD ["sh", "-c", "cat /new; stat -c %u:%a /new; ls /etc"]'])
    engine.remove("lab")
    engine.images.push(name)
    # crun before 1.15 refuses the hybrid mode of cgroups, and root may lack the right to podman's own limits.
    apart = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--cgroups=disabled"]
    with podman_home() as podman:
        said = output(
            *(*apart, *podman, "run", "--rm", "--tls-verify=false", "--network", "none"),
            *(*limits, "--log-driver", "k8s-file", name),
        ).split()
    assert said[:2] == ["hi", "5:4755"]
    assert "passwd" in said
    assert "motd" not in said


@pytest.mark.needs("podman")
def test_podman_loads_what_was_saved_and_the_other_way(engine: Engine, busybox: str, tmp_path: Path) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run(SCRIPT.replace("echo data > /vol/hidden", ""))
        image = box.commit("lab:1")
    for format in FORMATS:
        archive = tmp_path / f"{format}.tar"
        with open(archive, "wb") as file:
            engine.images.save(["lab:1"], file, format=format)
        again = tmp_path / "again.tar"
        with open(again, "wb") as file:
            engine.images.save(["lab:1"], file, format=format)
        assert again.read_bytes() == archive.read_bytes()
        with podman_home() as podman:
            assert output(*podman, "load", "-i", str(archive)).split()[-1].endswith("/lab:1")
            assert output(*podman, "image", "inspect", "-f", "{{.Id}}", "lab:1").strip() == image.id.encoded
            saved = tmp_path / f"podman-{format}.tar"
            output(*podman, "save", "--format", format, "-o", str(saved), "lab:1")
            output("gzip", "-kf", str(saved))
        engine.images.remove("lab:1")
        with pytest.raises(NotFound):
            engine.images.find("lab:1")
        for path in (saved, saved.with_name(f"{saved.name}.gz")):
            loaded = engine.images.load(path)
            assert [(found.id, [name.path for name in names]) for found, names in loaded] == [
                (image.id, ["library/lab"])
            ]
        name = loaded[0][1][0].familiar()
        assert cellwall.run(name, ["cat", "/new"], engine=engine).stdout == "hi\n"
        engine.images.tag(name, "lab:1")
    assert len({found.id for found in engine.images.list() if "lab" in found.reference}) == 1
    engine.remove("lab")


def test_two_machines_make_the_same_image(busybox: str, monkeypatch: pytest.MonkeyPatch, cellwall_root: Path) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = set()
    for folder in ("a", "b"):
        monkeypatch.setenv("CELLWALL_ROOT", str(cellwall_root / folder))
        engine = Engine()
        with cellwall.container(busybox, name="lab", engine=engine) as box:
            box.run(
                "echo hi > /new; rm -r /home; mkdir /home; ln /new /hard; dd if=/dev/zero of=/z bs=1M count=3 2>/dev/null"
            )
            image = box.commit("lab:1")
        digests.add(image.digest)
        assert image.created == "2023-11-14T22:13:20Z"
        engine.remove("lab")
        engine.close()
        time.sleep(1.1)
    assert len(digests) == 1


def test_nothing_changed_is_no_layer(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        image = box.commit("lab:1", changes=["USER 1000"])
        base = engine.images.find(busybox)
        assert image.chain_ids == base.chain_ids
        assert image.config["history"][-1]["empty_layer"] is True
        for bad in ("RUN true", "USER", "EXPOSE x"):
            with pytest.raises(SpecError, match="--change"):
                box.commit("lab:2", changes=[bad])
        with pytest.raises(InvalidReference):
            box.commit("Lab:2")
        with pytest.raises(NotFound):
            engine.commit("nobody")
    assert cellwall.run("lab:1", ["id", "-u"], engine=engine).stdout == "1000\n"
    engine.remove("lab")


CAPABILITY = """
import os, struct, sys
from cellwall.runtime.linux.process import CLONE_NEWNS, CLONE_NEWUSER, setns
fds = [(os.open(f"/proc/{sys.argv[1]}/ns/{name}", os.O_RDONLY), kind) for name, kind in (("user", CLONE_NEWUSER), ("mnt", CLONE_NEWNS))]
for fd, kind in fds:
    setns(fd, kind)
os.setgid(0); os.setuid(0)
os.setxattr("/program", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
"""


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_capabilities_that_the_container_gave(driver: str, engine: Engine, busybox: str, tmp_path: Path) -> None:
    """The kernel writes the id of the user namespace's root into them: elsewhere that id is nobody's."""
    with cellwall.container(busybox, name="lab", engine=engine, storage_driver=driver) as box:
        box.run("echo x > /program; chmod 755 /program")
        pid = str(engine.container("lab").pid)
        subprocess.run(
            [sys.executable, "-c", CAPABILITY, pid], check=True, env={**os.environ, "PYTHONPATH": str(TOP / "src")}
        )
        image = box.commit("lab:1")
    with cellwall.container("lab:1", name="second", engine=engine) as box:
        box.run("touch /made")
    plan = engine.driver.prepare("c0ffee", engine.image("lab:1").chain_ids, kept=False, directory=None)
    with mounted(plan, tmp_path / "merged") as tree:
        found = os.getxattr(tree / "program", "security.capability")
    assert found == struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    assert len(image.layers) == 3
    engine.remove("lab")
    engine.remove("second")


def test_the_image_host_is_refused(engine: Engine) -> None:
    with cellwall.container("host", name="lab", engine=engine) as box, pytest.raises(UnsupportedError, match="host"):
        box.commit("lab:1")
    engine.remove("lab")


COMMIT = "from cellwall.runtime.engine import Engine; Engine().commit('lab', 'lab:killed')"


def test_killed_at_any_moment(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run(
            "dd if=/dev/urandom of=/big bs=1M count=20 2>/dev/null; (while :; do sleep 0.01; done) >/dev/null 2>&1 &"
        )
        store = engine.images
        before = {path.name for path in store._layout.root.glob("blobs/*/*")}
        layers = {path.name for path in engine.paths.storage.glob("*/layers/sha256-*")}
        for delay in (0.1, 0.2, 0.3, 0.4, 0.6):
            process = subprocess.Popen(
                [sys.executable, "-c", COMMIT], env={**os.environ, "PYTHONPATH": str(TOP / "src")}
            )
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            # The container goes on, whether it was paused at that moment or not.
            assert box.run("echo alive", timeout=PATIENCE_S).stdout == "alive\n"
            if process.returncode == 0 or "lab:killed" in {image.reference for image in store.list()}:
                store.remove("lab:killed")

            def swept() -> bool:
                store.sweep()
                return not store._layout.has_leftovers()

            until(swept, "the end of what was half done")
            assert {path.name for path in store._layout.root.glob("blobs/*/*")} == before
            assert {path.name for path in engine.paths.storage.glob("*/layers/sha256-*")} == layers
        engine.driver.sweep()
        assert engine.commit("lab", "lab:done").layers[-1].size_bytes > 20 << 20
    engine.remove("lab")


def test_exec_waits_while_a_commit_holds_it_still(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        container = engine.container("lab")
        found = engine.known.state(container.id)
        assert found is not None
        said: list[str] = []
        with paused(found["cellwall"]["cgroup"], str(engine.paths.running / container.id)):
            assert engine.container("lab").status == "paused"
            thread = threading.Thread(target=lambda: said.append(box.run("echo went on").stdout))
            thread.start()
            thread.join(0.3)
            assert said == []
        thread.join(PATIENCE_S)
        assert said == ["went on\n"]
        engine.pause("lab")
        with pytest.raises(StatusError, match="cellwall unpause lab"):
            box.run("true")
        engine.unpause("lab")
    engine.remove("lab")


def test_corrupt_archives(engine: Engine, busybox: str, tmp_path: Path) -> None:
    engine.image(busybox)
    engine.images.tag(busybox, "lab:1")
    good = tmp_path / "good.tar"
    with open(good, "wb") as file:
        engine.images.save(["lab:1"], file)
    engine.images.remove("lab:1")
    engine.images.remove(busybox)
    assert engine.images.list() == []
    data = good.read_bytes()
    middle = data.index(b"BusyBox v")
    for name, content in {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "flipped": data[:middle] + b"x" + data[middle + 1 :],
        "text": b"no archive at all" * 100,
        "other": registries.tar_of({"a": b"1"}),
    }.items():
        bad = tmp_path / name
        bad.write_bytes(content)
        with pytest.raises(ImageError):
            engine.images.load(bad)
        assert engine.images.list() == [], name
    with pytest.raises(NotFound):
        engine.images.load(tmp_path / "missing")
    with open(good, "rb") as file:
        assert len(engine.images.load(file)) == 1
    assert cellwall.run("lab:1", ["cat", "/etc/motd"], engine=engine).stdout == "hello from a layer\n"


def test_export_and_import(engine: Engine, busybox: str, tmp_path: Path) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo hi > /new; rm /etc/motd; chmod 4755 /bin/busybox")
        with open(tmp_path / "tree.tar", "wb") as file:
            engine.export("lab", file.fileno())
    with open(tmp_path / "tree.tar", "rb") as file:
        image = engine.import_tree(file, "flat:1", changes=['CMD ["cat", "/new"]'], message="flat")
    assert len(image.layers) == 1
    assert cellwall.run("flat:1", engine=engine).stdout == "hi\n"
    assert cellwall.run("flat:1", ["ls", "-la", "/etc/motd"], engine=engine).exit_status == 1
    with open(tmp_path / "bad", "w+b") as file:
        file.write(b"no archive" * 200)
        file.seek(0)
        with pytest.raises(ImageError):
            engine.import_tree(file, "bad:1")
    assert "bad:1" not in {found.reference for found in engine.images.list()}
    engine.remove("lab")


def test_prune_keeps_what_is_used(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo 1 > /one")
        box.commit("lab:1")
        box.run("echo 2 > /two")
        box.commit("lab:1")
        box.commit("lab:2")
    assert "<none>:<none>" in {image.reference for image in engine.images.list()}
    lines, freed = engine.images.prune()
    assert freed > 0
    assert [line for line in lines if line.startswith("deleted:")]
    assert {image.reference for image in engine.images.list()} == {"lab:1", "lab:2", busybox}
    assert cellwall.run("lab:1", ["cat", "/one", "/two"], engine=engine).stdout == "1\n2\n"
    assert engine.images.prune() == ([], 0)
    # What has just ended may still be cleaned up.
    until(lambda: len(engine.containers(all=True)) == 1, "the others' end")
    # The container's own image stays, and so does every layer of it.
    engine.images.prune(all=True)
    assert {image.reference for image in engine.images.list()} == {busybox}
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        assert box.run("cat /etc/group /two").stdout.endswith("2\n")
    engine.remove("lab")
    engine.images.prune(all=True)
    assert engine.images.list() == []
    assert list(engine.paths.storage.glob("*/layers/sha256-*")) == []


def test_the_command_line(
    engine: Engine, busybox: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], registry: Registry
) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo 1 > /one")

        def cellwall_says(*words: str) -> str:
            assert main(list(words)) == 0
            return capfd.readouterr().out

        name = registry.name("share/words:1")
        image_id = cellwall_says("commit", "-m", "a word", "-c", "WORKDIR /etc", "lab", name).strip()
        assert image_id == engine.images.find(name).id
        table = cellwall_says("history", name).splitlines()
        assert table[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
        assert table[1].startswith(image_id[7:19])
        assert table[1].endswith("a word")
        steps = json.loads(cellwall_says("image", "history", "--no-trunc", "--format", "json", name))
        assert [step["ID"] for step in steps] == [image_id, "<missing>", "<missing>"]
        assert cellwall_says("history", "-q", name).split() == [image_id[7:19], "<missing>", "<missing>"]
        pushed = cellwall_says("push", name).splitlines()
        assert pushed[0] == f"The push refers to repository [{registry.name('share/words')}]"
        assert {line.partition(": ")[2] for line in pushed[1:-1]} <= {
            "Pushed",
            "Layer already exists",
            "Mounted: from busybox",
        }
        digest = engine.images.find(name).digest
        size = len(engine.images._layout.read_blob(digest))
        assert pushed[-1] == f"1: digest: {digest} size: {size}"
        archive = str(tmp_path / "a.tar")
        assert cellwall_says("save", "-o", archive, name) == ""
        assert cellwall_says("rmi", name).startswith(f"Untagged: {name}\n")
        assert cellwall_says("load", "-i", archive) == f"Loaded image: {name}\n"
        cellwall_says("export", "-o", archive, "lab")
        assert cellwall_says("import", archive, "flat:1").startswith("sha256:")
        rows = json.loads(cellwall_says("system", "df", "--format", "json"))
        assert [(row["Type"], row["TotalCount"], row["Active"]) for row in rows] == [
            ("Images", 3, 1),
            ("Containers", 1, 1),
            ("Local Volumes", 0, 0),
            ("Build Cache", 0, 0),
        ]
        assert "Deleted" not in cellwall_says("image", "prune", "-f")
        assert "Total reclaimed space" in cellwall_says("image", "prune", "-a", "-f")
        assert main(["save", "-o", str(tmp_path / "b.tar"), "nothing:1"]) == 1
        assert not (tmp_path / "b.tar").exists()
        capfd.readouterr()
    said = cellwall_says("system", "prune", "-f")
    assert said.startswith("Deleted Containers:\n")
    assert engine.containers(all=True) == []
