"""Where the facts of layers come from, beside the usual: registries, damaged and missing things, containers that end meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError, NotFound, RegistryError, StatusError
from cellwall.runtime.inspect.layers import compare, layers

from .. import registries
from ..layer_trees import entry, layer
from ..registries import Registry, busybox_layer, free_port, make_image, write_layout
from ..waiting import PATIENCE_S

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static")
# pytest finds the fixture here.
registry = registries.registry


def test_an_image_that_is_not_pulled(registry: Registry, engine: Engine, tmp_path: Path) -> None:
    """From its registry, and from a layout: what the manifest says, no trees, nothing kept. Once it is here there is more."""
    archives = [busybox_layer(), layer(entry("one", data=b"1" * 5000)), layer(entry(".wh.one"))]
    made = make_image(archives, history=[{"created_by": f"RUN step {number}"} for number in range(3)])
    layout = write_layout(tmp_path / "layout", {"x": made})
    name = registry.push(f"oci:{layout}:x", "lab/layers")
    manifest = json.loads(made.manifest)
    for reference in (name, f"oci:{layout}:x"):
        view = layers(engine, reference)
        assert (view.kind, view.driver, view.id) == ("remote image", "", manifest["config"]["digest"])
        assert [(one.digest, one.compressed_bytes, one.size_bytes) for one in reversed(view.layers)] == [
            (blob["digest"], blob["size"], None) for blob in manifest["layers"]
        ]
        assert [one.instruction for one in view.layers] == ["RUN step 2", "RUN step 1", "RUN step 0"]
        assert view.size_bytes is None and view.compressed_bytes == sum(blob["size"] for blob in manifest["layers"])
        assert "not pulled" in view.text() and "compressed" in str(view.html())
        with pytest.raises(NotFound, match="pull it first"):
            layers(engine, reference, path="/one")
        assert engine.images.list() == [] and not list(engine.paths.images.glob("blobs/*/*"))
    before = compare(engine, name, f"oci:{layout}:x")
    assert (before.shared, before.sizes, before.one_bytes) == (3, "compressed", 0)
    engine.image(name)
    view = layers(engine, name)
    assert (view.kind, view.size_bytes) == ("image", sum(one.size_bytes or 0 for one in view.layers))
    assert compare(engine, name, f"oci:{layout}:x").sizes == "compressed"
    shorter = write_layout(tmp_path / "shorter", {"x": make_image([*archives[:2], layer(entry("two"))])})
    engine.image(f"oci:{shorter}:x")
    found = compare(engine, name, f"oci:{shorter}:x")
    assert (found.shared, found.sizes, found.one_bytes, found.other_bytes) == (2, "content", 0, 0)
    assert found.shared_bytes == (view.layers[2].size_bytes or 0) + 5000


def test_names_that_nobody_knows(registry: Registry, engine: Engine) -> None:
    with pytest.raises(NotFound, match="no container .* and no image of that name here; no such image"):
        layers(engine, f"{registry.host}/lab/nothing:1")
    with pytest.raises(RegistryError, match="its registry can't be asked"):
        layers(engine, f"127.0.0.1:{free_port()}/lab/nothing:1")
    with pytest.raises(CellwallError):
        layers(engine, "A bad name")


def test_what_is_kept_beside_a_layer(engine: Engine, busybox: str) -> None:
    """It is used, made again where it is damaged, and goes with its layer."""
    engine.image(busybox)
    first = layers(engine, busybox)
    kept = sorted(engine.paths.storage.glob("*/layers/*/contents.json"))[0]
    inode, whole = kept.stat().st_ino, kept.read_text()
    assert layers(engine, busybox).to_dict() == first.to_dict() and kept.stat().st_ino == inode
    kept.write_text(whole.replace('"files": ', '"files": 1'))
    assert [one.contents for one in layers(engine, busybox).layers] != [one.contents for one in first.layers]
    for damage in ("", "{", '{"version": 0, "contents": {}}', "[]"):
        kept.write_text(damage)
        assert layers(engine, busybox).to_dict() == first.to_dict()
        assert kept.read_text() == whole
    kept.unlink()
    assert layers(engine, busybox).to_dict() == first.to_dict() and kept.exists()
    engine.images.remove(busybox)
    assert not kept.parent.exists() and not list(engine.paths.storage.glob("*/layers/*"))


def test_an_image_unpacked_by_another_driver(engine: Engine, busybox: str) -> None:
    """Its layers are found where they are; where they are nowhere, that is said."""
    engine.image(busybox, storage_driver="vfs")
    view = layers(engine, busybox)
    assert view.driver == "vfs" and view.layers[0].contents is not None
    for folder in engine.paths.storage.glob("vfs/layers/sha256-*"):
        shutil.rmtree(folder)
    gone = layers(engine, busybox)
    assert gone.driver == "" and gone.layers[0].contents is None and gone.layers[0].form == "blob"
    assert "aren't unpacked here" in gone.text()


def test_a_read_only_container_whose_image_lost_its_name(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine, read_only=True):
        image = engine.images.find(busybox)
        engine.images.remove(busybox, force=True)
        view = layers(engine, "lab", path="/bin/busybox")
        assert view.image_digest == image.digest and all(one.contents is not None for one in view.layers)
        assert view.path is not None and view.path.given_by.startswith("layer ")
        # It runs with --read-only, so that the kernel refuses every write.
        assert view.read_only and view.path.write is None and "nothing can be written" in view.text()
    engine.remove("lab")


def test_a_mount_hides_the_stack(engine: Engine, busybox: str, tmp_path: Path) -> None:
    """A bind mount, a volume, a tmpfs, and what every container has: said, running and stopped."""
    options = {"volume": [f"{tmp_path}:/home", "data:/etc"], "tmpfs": ["/tmp"]}
    with cellwall.container(busybox, name="lab", engine=engine, **options):
        for status in ("running", "exited"):
            for path, at, what in (
                ("/home/one", "/home", f"a bind mount of {tmp_path}"),
                ("/etc/passwd", "/etc", "the volume data"),
                ("/tmp", "/tmp", "a tmpfs"),
                ("/proc/self", "/proc", "the container's own /proc"),
            ):
                view = layers(engine, "lab", path=path)
                assert view.path is not None and view.path.covered_by is not None
                assert (view.path.covered_by.at, view.path.covered_by.what) == (at, what)
                assert view.path.write is None
                assert f"lies at {at} and hides the stack" in " ".join(view.text().split())
            if status == "running":
                engine.stop("lab")
    engine.remove("lab", force=True)
    engine.volumes.remove("data")


def test_the_image_host(engine: Engine) -> None:
    """This machine's folders have a stack of their own, with a writable layer in a container and without one in the image."""
    engine.image("host")
    here = layers(engine, "host", path="/usr/bin/env")
    assert here.path is not None and here.path.given_by == "this machine's /usr"
    with cellwall.container("host", name="lab", engine=engine) as box:
        box.run("rm /usr/bin/env; echo new > /usr/bin/made")
        view = layers(engine, "lab", path="/usr/bin/env")
        assert view.path is not None and not view.path.exists
        assert [(one.layer, one.role) for one in view.path.layers] == [
            ("the writable layer at /usr", "whiteout"),
            ("this machine's /usr", "hidden"),
        ]
        assert view.path.layers[1].size_bytes == os.stat("/usr/bin/env").st_size
        assert [(one.at, one.contents.added, one.contents.deleted) for one in view.writable if one.contents] == [
            ("/", 0, 0),
            ("/usr", 1, 1),
        ]
        assert {mount.at: mount.below for mount in view.mounts} == {"/": "", "/usr": "/usr"}
    engine.remove("lab")


def test_containers_that_end_while_they_are_read(engine: Engine, busybox: str) -> None:
    """Each look ends in facts or in a sentence, whenever the container goes; nobody else's files are ever shown."""
    seen: list[str] = []
    for _ in range(6):
        started = threading.Event()

        def run(started: threading.Event = started) -> None:
            cellwall.run(
                busybox,
                script="echo mine > /mine; echo; for i in 1 2 3 4 5 6 7 8 9; do :; done",
                engine=engine,
                on_stdout=lambda data: started.set(),
            )

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(PATIENCE_S)
        while thread.is_alive():
            for container in engine.containers():
                try:
                    view = layers(engine, container.id)
                except (NotFound, StatusError) as error:
                    seen.append(str(error))
                    continue
                (written,) = view.writable
                if written.contents is not None:
                    assert {child.name for child in written.contents.tree.children} <= {"mine"}
        thread.join(PATIENCE_S)
    assert all("ended" in told or "no container" in told for told in seen)


def test_on_the_command_line(engine: Engine, busybox: str) -> None:
    """Data with ``--format json``, whatever the options' order; mistakes in one line."""
    engine.image(busybox)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "cellwall", "layers", *words], capture_output=True, text=True)

    told = run("--format", "json", "--path", "/bin/sh", busybox)
    assert (told.stderr, told.returncode) == ("", 0)
    assert json.loads(told.stdout) == layers(engine, busybox, path="/bin/sh").to_dict()
    wrong = run("--compare", busybox)
    assert wrong.returncode == 125 and wrong.stderr.count("\n") == 1 and "needs two" in wrong.stderr
