"""One image store, many processes and sudden deaths, the short form; ``make soak`` takes the long one."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.containers import Containers
from cellwall.runtime.engine import Engine
from cellwall.runtime.images.image import Image
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.linux.process import start_time
from cellwall.runtime.options import RunOptions
from cellwall.runtime.paths import Paths
from cellwall.runtime.reconcile import reconcile
from cellwall.runtime.storage.driver import RootIdentity
from cellwall.runtime.storage.scratch import Scratch

from ..fault_registry import run_fault_registry
from ..mounted_layers import EROFS
from ..registries import Registry, run_registry, write_layout
from ..store_check import StoreCheck, names
from ..store_kills import Rig, images
from ..store_races import Commands, pull_against_removal
from ..waiting import PATIENCE_S

pytestmark = pytest.mark.needs("root", "overlay")
DRIVERS = ["overlay", EROFS]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with run_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def storage_driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def choose(name: str) -> str:
        monkeypatch.setenv("CELLWALL_STORAGE_DRIVER", name)
        return name

    return choose


@pytest.mark.parametrize("driver", DRIVERS)
def test_many_pull_one_image(driver: str, cellwall_root: Path) -> None:
    made = images()["one"]
    with run_fault_registry() as asked:
        name = asked.add("many/one", made)
        said = Commands(cellwall_root, driver).at_once([["pull", name]] * 6)
    assert sum("Pull complete" in output for output in said) == 1
    # Each blob is asked for once, whoever wants it.
    assert len(asked.paths("/blobs/")) == 3
    assert StoreCheck(cellwall_root, driver).faults() == []
    assert names(cellwall_root) == {name}


def test_pull_against_removal(cellwall_root: Path, registry: Registry, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", images())
    name = registry.push(f"oci:{layout}:one", "races/one:1")
    done, wrong = pull_against_removal(Commands(cellwall_root, "overlay"), name, 4)
    assert wrong == []
    assert done["run"] and done["run named"] and done["prune"]
    # The last command's leftovers are for the next.
    Commands(cellwall_root, "overlay").at_once([["images"]])
    assert StoreCheck(cellwall_root, "overlay").faults() == []


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_some_kills(
    cellwall_root: Path, registry: Registry, tmp_path: Path, storage_driver: Callable[[str], str]
) -> None:
    rig = Rig(cellwall_root, registry, tmp_path, storage_driver("overlay"))
    assert rig.check.faults() == []
    assert {seed: found for seed in range(108, 116) if (found := rig.trial(seed))} == {}


class Interrupted(Engine):
    """An engine beside which another process removes an image right after it was found, once."""

    removed = False

    def image_of(self, options: RunOptions, *rest: Any) -> Image:
        image = super().image_of(options, *rest)
        if not self.removed:
            self.removed = True
            self.images.remove(str(image.id), force=True)
        return image


@pytest.fixture
def interrupted(cellwall_root: Path) -> Iterator[Interrupted]:
    engine = Interrupted()
    yield engine
    engine.close()


@pytest.mark.parametrize("kind", ["ephemeral", "kept", "keeper"])
def test_an_image_that_goes_after_the_look_at_it_is_fetched_again(
    kind: str, interrupted: Interrupted, busybox: str
) -> None:
    options = RunOptions(
        image=busybox, command=("true",), rm=kind == "ephemeral", name="lab" if kind == "keeper" else None
    )
    if kind == "keeper":
        assert interrupted.ensure(options).status == "running"
        interrupted.remove("lab", force=True)
    else:
        fd = os.open(os.devnull, os.O_RDWR)
        with interrupted.run(options, stdin_fd=fd, stdout_fd=fd, stderr_fd=fd) as process:
            assert process.wait(PATIENCE_S).status == 0
        os.close(fd)
        for container in interrupted.containers(all=True):
            interrupted.remove(container.id, force=True)
    assert interrupted.removed


def test_layers_under_a_running_container_stay(engine: Engine, busybox: str) -> None:
    """As where a removal looked for containers just before this one came: index.json forgets the image, the sweep looks again."""
    options = RunOptions(image=busybox, command=("sh", "-c", "read x; cat /etc/motd"), rm=True)
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    with engine.run(options, stdin_fd=in_read, stdout_fd=out_write, stderr_fd=out_write) as process:
        process.wait_started()
        blind = ImageStore(engine.paths, engine.driver, layers_in_use=engine.known.layers)
        layers = engine.images.find(busybox).chain_ids
        blind.remove(busybox)
        assert blind.list() == []
        os.write(in_write, b"\n")
        assert process.wait(PATIENCE_S).status == 0
        assert os.read(out_read, 100) == b"hello from a layer\n"
        assert all(map(engine.driver.has_layer, layers))
        process.wait_gone()
    for fd in (in_read, in_write, out_read, out_write):
        os.close(fd)
    blind.sweep()
    assert not any(map(engine.driver.has_layer, layers))


def test_a_folder_that_another_removes_is_left_to_it(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, RootIdentity())
    # As in the midst of a removal: the lock file has gone already, the folder not yet.
    (tmp_path / ".tmp-half").mkdir()
    fd = os.open(tmp_path / ".tmp-half", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert scratch.sweep() == 0
    assert os.listdir(tmp_path / ".tmp-half") == []
    os.close(fd)
    assert scratch.sweep() == 1
    assert os.listdir(tmp_path) == []


def test_a_container_in_the_making_is_no_leftover(tmp_path: Path) -> None:
    containers = Containers(Paths(tmp_path / "data", tmp_path / "run"))
    ended = threading.Event()

    def start_over_and_over() -> None:
        while not ended.is_set():
            reconcile(containers, lambda known: None, lambda record: None)

    thread = threading.Thread(target=start_over_and_over)
    thread.start()
    try:
        for number in range(150):
            maker = {"pid": os.getpid(), "started": start_time(os.getpid())}
            containers.create({"id": f"c{number}", "name": f"n{number}", "plan": [], "maker": maker, "remover": None})
            containers.folder(f"c{number}").joinpath("record.json").unlink()
            # Once its record is gone it is anybody's to remove.
            with suppress(FileNotFoundError):
                containers.folder(f"c{number}").rmdir()
    finally:
        ended.set()
        thread.join()
