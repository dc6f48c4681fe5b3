"""Pulls from Debian's docker-registry, filled by skopeo, into a store with the real storage drivers."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import ImageError, NotFound, RegistryError
from cellwall.runtime.images.image import PullEvent
from cellwall.runtime.images.layout import REF_NAME
from cellwall.runtime.images.settings import Patience, RegistryConfig, RegistrySettings
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.linux import mounts
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import StorageDriver, open_driver

from .. import registries
from ..mounted_layers import lower_paths
from ..registries import (
    OCI_INDEX,
    Registry,
    busybox_image,
    busybox_layer,
    make_image,
    make_index,
    sha256_of,
    tar_of,
    write_layout,
)
from ..tar_driver import TarDriver
from ..waiting import until

registry = registries.registry
tls_registry = registries.tls_registry

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's own credentials stay out of it; returns where docker's file would be."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    for variable in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "home/.docker/config.json"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "data", tmp_path / "run")


@pytest.fixture
def store(paths: Paths) -> ImageStore:
    return ImageStore(paths, TarDriver(paths.storage / "vfs"))


def inspect(layout: Path, name: str) -> dict[str, Any]:
    """What skopeo sees of an image in a layout."""
    answer = subprocess.run(["skopeo", "inspect", f"oci:{layout}:{name}"], check=True, capture_output=True, timeout=60)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_skopeo_sees_the_same_image(registry: Registry, store: ImageStore, paths: Paths) -> None:
    name = registry.name("busybox:latest")
    image = store.pull(name)
    here = inspect(paths.images, name)
    there = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True, timeout=60
    )
    assert here["Digest"] == json.loads(there.stdout)["Digest"] == image.digest
    assert here["Layers"] == [layer.digest for layer in image.layers]
    # And can copy it out again, which reads every blob.
    copied = paths.data / "copy"
    command = ["skopeo", "copy", "--quiet", f"oci:{paths.images}:{name}", f"oci:{copied}:x"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert inspect(copied, "x")["Digest"] == image.digest


def test_schema_2(registry: Registry, store: ImageStore, paths: Paths, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "l", {"x": make_image([tar_of({"a": b"1"})])})
    name = registry.push(f"oci:{layout}:x", "lab/schema2", "--format", "v2s2")
    image = store.pull(name)
    assert image.digest != image.manifest_digest
    assert inspect(paths.images, f"{name}:latest")["Digest"] == image.manifest_digest
    pinned = store.pull(f"{name}@{image.digest}")
    assert pinned.id == image.id


def test_unknown_names(registry: Registry, store: ImageStore) -> None:
    for name in ("gone:latest", "busybox:gone"):
        with pytest.raises(NotFound, match=f"no such image: {registry.name(name)}"):
            store.pull(registry.name(name))


def test_tls_with_a_log_in(
    tls_registry: Registry, paths: Paths, no_credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tls_registry.name("busybox:latest")
    quick = Patience(backoff_s=0.01)

    def store(**settings: Any) -> ImageStore:
        config = RegistryConfig({tls_registry.host: RegistrySettings(**settings)}, patience=quick)
        return ImageStore(paths, TarDriver(paths.storage / "vfs"), config)

    with pytest.raises(RegistryError, match="certificate of .* isn't trusted .*ca_file.*insecure"):
        store().pull(name)
    with pytest.raises(RegistryError, match="needs a log-in"):
        store(ca_file=tls_registry.ca_file).pull(name)
    tls_registry.auth_file(no_credentials)
    image = store(ca_file=tls_registry.ca_file).pull(name)
    assert store(insecure=True).pull(name) == image
    # podman's file, chosen by its variable, comes first.
    other = tls_registry.auth_file(tmp_path / "auth.json")
    other.write_text(other.read_text().replace(tls_registry.host, "elsewhere"))
    no_credentials.unlink()
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(other))
    with pytest.raises(RegistryError, match="needs a log-in"):
        store(ca_file=tls_registry.ca_file).pull(name)


def test_a_ca_file_that_isn_t_there(tls_registry: Registry, paths: Paths) -> None:
    config = RegistryConfig({tls_registry.host: RegistrySettings(ca_file=Path("/gone/ca.crt"))})
    with pytest.raises(ImageError, match="the CA file /gone/ca.crt for .* can't be read"):
        ImageStore(paths, TarDriver(paths.storage / "vfs"), config).pull(tls_registry.name("busybox"))


def test_a_registry_as_a_mirror(registry: Registry, paths: Paths, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "l", {"x": make_image([tar_of({"a": b"1"})])})
    registry.push(f"oci:{layout}:x", "library/from-the-hub:latest")
    config = RegistryConfig({"docker.io": RegistrySettings(mirrors=(registry.host,))})
    image = ImageStore(paths, TarDriver(paths.storage / "vfs"), config).pull("from-the-hub")
    assert image.reference == "from-the-hub:latest"


def test_layers_come_in_parallel(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    tars = [tar_of({f"file{number}": os.urandom(300_000)}) for number in range(12)]
    layout = write_layout(tmp_path / "l", {"x": make_image(tars)})
    name = registry.push(f"oci:{layout}:x", "lab/many")
    events: list[PullEvent] = []
    image = store.pull(name, progress=events.append)
    assert len(image.layers) == 12
    done = [event.layer for event in events if event.phase == "done"]
    assert done == [layer.digest.short for layer in image.layers], "unpacked base first"
    for layer in image.layers:
        last = [event for event in events if event.layer == layer.digest.short and event.phase == "downloading"][-1]
        assert last.current == last.total == layer.size_bytes


def test_archives_that_other_tools_write(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    image = store.pull(registry.name("busybox"))
    source = f"docker://{registry.name('busybox:latest')}"
    for kind, target in (("docker-archive", "d.tar:lab:1"), ("oci-archive", "o.tar:lab:1"), ("oci", "folder:lab:1")):
        command = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"{kind}:{tmp_path}/{target}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        for text in (f"{kind}:{tmp_path}/{target}", f"{kind}:{tmp_path}/{target.partition(':')[0]}"):
            got = store.get(text)
            assert got.chain_ids == image.chain_ids and got.config["config"] == image.config["config"], text
            assert got.reference == text


def test_what_umoci_writes(store: ImageStore, tmp_path: Path) -> None:
    def umoci(*arguments: str) -> None:
        subprocess.run(["umoci", *arguments], check=True, capture_output=True, cwd=tmp_path, timeout=60)

    write_layout(tmp_path / "lab", {"base": make_image([busybox_layer()])})
    (tmp_path / "more").mkdir()
    (tmp_path / "more/file").write_text("x")
    umoci("insert", "--rootless", "--image", "lab:base", "--tag", "more", "more", "/opt")
    umoci("insert", "--rootless", "--image", "lab:more", "--tag", "less", "--whiteout", "/opt/file")
    assert [len(store.get(f"oci:{tmp_path}/lab:{tag}").layers) for tag in ("base", "more", "less")] == [1, 2, 3]


# -- with the real drivers


@pytest.fixture(params=["overlay", "vfs"])
def driver(request: pytest.FixtureRequest, paths: Paths) -> StorageDriver:
    paths.data.mkdir(exist_ok=True)
    return open_driver(request.param, paths)


@contextmanager
def mounted(plan: list[dict[str, Any]], folder: Path) -> Iterator[Path]:
    """The root that a plan gives, read-only. Only what the drivers make for a plain image."""
    (entry,) = plan
    if entry["type"] == "bind":
        yield Path(entry["source"])
        return
    folder.mkdir()
    with lower_paths(entry["lowers"]) as paths:
        # Overlayfs takes one lower only with an upper: the mount point itself is a second, and empty.
        lowers = ":".join(paths if len(paths) > 1 else [*paths, str(folder)])
        mounts.mount("overlay", str(folder), "overlay", mounts.MS_RDONLY, f"lowerdir={lowers}")
    try:
        yield folder
    finally:
        mounts.umount2(str(folder), 0)


def entries(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below ``root``: type and mode, owner, size, content, link, device, attributes, and which are one file."""
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[int, str] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            relative = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif not stat.S_ISDIR(status.st_mode):
                content = status.st_rdev
            attributes = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
                if not name.startswith(("trusted.overlay.", "user.overlay."))
            }
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            found[relative] = (status.st_mode, status.st_uid, status.st_gid, content, attributes, links)
            first.setdefault(status.st_ino, relative)
    return found


@contextmanager
def seen_by_buildah(name: str, folder: Path) -> Iterator[Path]:
    """The root of an image as containers/storage unpacks it: the library of podman, buildah and CRI-O. Its own state folders."""
    state = ["--root", str(folder / "root"), "--runroot", str(folder / "runroot"), "--storage-driver", "vfs"]

    def buildah(*arguments: str) -> str:
        answer = subprocess.run(
            ["buildah", *state, *arguments], check=True, capture_output=True, text=True, timeout=120
        )
        return answer.stdout.strip()

    container = buildah("from", "--pull-always", "--tls-verify=false", f"docker://{name}")
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("umount", container)
        buildah("rm", container)
        buildah("rmi", "--all")


def odd_image(folder: Path) -> str:
    """Makes an image with umoci whose upper layer is odd: whiteouts, hardlinks, attributes, a fifo, a device, names."""
    lab = write_layout(folder / "lab", {"x": busybox_image()})
    bundle = folder / "bundle"

    def umoci(*arguments: str) -> None:
        subprocess.run(["umoci", *arguments], check=True, capture_output=True, timeout=60)

    umoci("unpack", "--image", f"{lab}:x", str(bundle))
    root = bundle / "rootfs"
    (root / "etc/motd").unlink()
    (root / "bin/ps").unlink()
    (root / "home").rmdir()
    (root / "odd \n\u00e9").mkdir(0o711)
    (root / "odd \n\u00e9" / ("n" * 200)).write_bytes(b"long")
    os.link(root / "bin/busybox", root / "bin/again")
    os.setxattr(root / "etc/group", "user.lab", b"\0value")
    os.mkfifo(root / "tmp/fifo")
    os.mknod(root / "tmp/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "tmp/suid").write_bytes(b"#!/bin/sh\n")
    os.chown(root / "tmp/suid", 1234, 5678)
    (root / "tmp/suid").chmod(0o4755)
    umoci("repack", "--image", f"{lab}:y", str(bundle))
    umoci("unpack", "--image", f"{lab}:y", str(folder / "expected"))
    return f"oci:{lab}:y"


@pytest.mark.needs("root", "overlay")
def test_the_pulled_root_is_what_others_unpack(
    registry: Registry, driver: StorageDriver, paths: Paths, tmp_path: Path
) -> None:
    name = registry.push(odd_image(tmp_path), f"lab/odd-{driver.name}")
    store = ImageStore(paths, driver)
    image = store.pull(name)
    plan = driver.prepare("c0ffee", image.chain_ids, kept=False, directory=None)
    try:
        with mounted(plan, tmp_path / "merged") as merged:
            got = entries(merged)
    finally:
        driver.release("c0ffee", plan)
    with seen_by_buildah(name, tmp_path / "buildah") as root:
        by_buildah = entries(root)
    for who, expected in (("umoci", entries(tmp_path / "expected/rootfs")), ("buildah", by_buildah)):
        assert set(got) == set(expected), who
        for path, found in expected.items():
            assert got[path] == found, (who, path)
    store.remove(name)
    assert not any(map(driver.has_layer, image.chain_ids))


def small_disk(folder: Path, megabytes: int) -> None:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)


@pytest.mark.needs("root")
@pytest.mark.parametrize("megabytes", [1, 4])
def test_a_disk_that_fills_up_during_a_pull(
    registry: Registry, store: ImageStore, tmp_path: Path, megabytes: int
) -> None:
    """With 1 MB while downloading, with 4 while unpacking: the layer is 2 MB of noise and 20 MB of zeros."""
    tar = tar_of({"noise": os.urandom(2 << 20), "zeros": bytes(20 << 20)})
    layout = write_layout(tmp_path / "l", {"x": make_image([tar])})
    name = registry.push(f"oci:{layout}:x", "lab/large")
    disk = tmp_path / "disk"
    small_disk(disk, megabytes)
    try:
        paths = Paths(disk / "data", disk / "run")
        small = ImageStore(paths, open_driver("vfs", paths))
        with pytest.raises(ImageError, match=f"no space left for images in {paths.images}.*CELLWALL_ROOT"):
            small.pull(name)
        assert small.list() == []
        left = sorted(path.name for path in disk.rglob("*") if path.is_file() and not path.name.startswith(".lock-"))
        assert left == ["index.json", "oci-layout"]
    finally:
        mounts.umount2(str(disk), 0)


@pytest.mark.needs("root", "overlay")
def test_a_killed_pull_leaves_nothing_after_the_next_sweep(
    registry: Registry, driver: StorageDriver, paths: Paths
) -> None:
    """A real process is killed at each phase of a real pull."""
    name = registry.name("busybox:latest")
    for phase in ("waiting", "downloading", "verifying", "unpacking", "done"):
        script = f"""
import os, signal
from pathlib import Path
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import open_driver
paths = Paths(Path({str(paths.data)!r}), Path({str(paths.run)!r}))
def progress(event):
    if event.phase == {phase!r}:
        os.kill(os.getpid(), signal.SIGKILL)
ImageStore(paths, open_driver({driver.name!r}, paths)).pull({name!r}, progress=progress)
"""
        environment = {**os.environ, "PYTHONPATH": str(TOP / "src")}
        killed = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        store = ImageStore(paths, driver)

        def left(store: ImageStore = store) -> list[str]:
            store.sweep()
            driver.sweep()
            usual = ("blobs", "index.json", "oci-layout", "sha256")
            found = [path for path in paths.images.rglob("*") if path.name not in usual and path.name[:6] != ".lock-"]
            return [str(path) for path in [*found, *paths.storage.glob(f"{driver.name}/layers/*")]]

        # What a worker of it has in hand is its own until it has seen the end.
        until(lambda: left() == [], left)
        assert store.list() == [], phase
    image = store.pull(name)
    assert all(map(driver.has_layer, image.chain_ids))


@pytest.mark.needs("root", "overlay")
def test_a_pull_and_a_removal_at_once(registry: Registry, driver: StorageDriver, paths: Paths, tmp_path: Path) -> None:
    """Two images share their base; one comes and goes while the other does: neither ever misses a layer."""
    base = busybox_layer()
    layout = write_layout(
        tmp_path / "l", {tag: make_image([base, tar_of({tag: b"1"})], config={"Cmd": [tag]}) for tag in ("a", "b")}
    )
    names = [registry.push(f"oci:{layout}:{tag}", f"lab/shared-{driver.name}:{tag}") for tag in ("a", "b")]
    failures: list[BaseException] = []

    def come_and_go(name: str) -> None:
        store = ImageStore(paths, driver)
        try:
            for _ in range(4):
                image = store.pull(name)
                with store.held():
                    found = store.find(name)
                    assert all(map(driver.has_layer, found.chain_ids))
                assert image.id == found.id
                store.remove(name)
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = ImageStore(paths, driver)
    store.sweep()
    assert store.list() == [] and list(paths.storage.glob(f"{driver.name}/layers/*")) == []


def test_an_index_of_several_platforms(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    images = {f"linux/{arch}": make_image([tar_of({arch: b"1"})], architecture=arch) for arch in ("amd64", "arm64")}
    index = make_index(images)
    layout = write_layout(tmp_path / "l", {platform[6:]: image for platform, image in images.items()})
    (layout / "blobs/sha256" / sha256_of(index)[7:]).write_bytes(index)
    entry = {"mediaType": OCI_INDEX, "digest": sha256_of(index), "size": len(index), "annotations": {REF_NAME: "multi"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    name = registry.push(f"oci:{layout}:multi", "lab/multi", "--all")
    for platform, image in images.items():
        got = store.pull(name, platform=platform)
        assert (got.digest, got.index_digest, got.platform) == (image.digest, sha256_of(index), platform)
        assert store.find(name, platform) == got
    with pytest.raises(NotFound, match="it has: linux/amd64, linux/arm64"):
        store.pull(name, platform="linux/riscv64")
