from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pytest

from cellwall.runtime.errors import (
    Cancelled,
    DigestMismatch,
    ImageError,
    InvalidReference,
    LayerError,
    NotFound,
    SpecError,
    StatusError,
)
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.images.image import PullEvent
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.paths import Paths

from ..registries import MadeImage, make_image, make_index, sha256_of, tar_of, write_layout
from ..tar_driver import TarDriver

BASE, TOP = tar_of({"base": b"1" * 5000}), tar_of({"top": b"2"})
IMAGE = make_image([BASE, TOP])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "data", tmp_path / "run")


@pytest.fixture
def driver(paths: Paths) -> TarDriver:
    return TarDriver(paths.storage / "vfs")


@pytest.fixture
def store(paths: Paths, driver: TarDriver) -> ImageStore:
    return ImageStore(paths, driver)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", {"1.0": IMAGE})


def names(store: ImageStore) -> list[str]:
    return sorted(image.reference for image in store.list())


def left(store: ImageStore, paths: Paths) -> list[str]:
    """Everything in the store's folder but what an empty one has."""
    usual = {"oci-layout", "index.json", "blobs", "sha256", ".lock-use", ".lock-index", ".lock-names"}
    return sorted(path.name for path in paths.images.rglob("*") if path.name not in usual)


# -- sources on this machine


def test_an_image_from_a_layout(store: ImageStore, driver: TarDriver, layout: Path) -> None:
    image = store.get(f"oci:{layout}:1.0")
    assert image.reference == f"oci:{layout}:1.0"
    assert (image.id, image.digest) == (IMAGE.config_digest, IMAGE.digest)
    assert [layer.diff_id for layer in image.layers] == [sha256_of(BASE), sha256_of(TOP)]
    assert driver.added == image.chain_ids
    assert [driver.path(chain_id).read_bytes() for chain_id in image.chain_ids] == [BASE, TOP]
    assert image.config["config"]["Cmd"] == ["sh"]
    assert (image.platform, image.created) == ("linux/amd64", "2024-01-02T03:04:05Z")
    assert store.find(f"oci:{layout}:1.0") == image
    assert store.find(image.id.short) == image


def test_an_image_is_unpacked_once(store: ImageStore, driver: TarDriver, layout: Path) -> None:
    first = store.get(f"oci:{layout}:1.0")
    events: list[PullEvent] = []
    assert store.get(f"oci:{layout}", progress=events.append).id == first.id
    assert len(driver.added) == 2
    assert {event.phase for event in events if event.layer} == {"exists"}


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_the_second_time_no_layer_is_read(store: ImageStore, layout: Path, tmp_path: Path, kind: str) -> None:
    """Also not to be copied again: what isn't needed may even be gone."""
    if kind == "oci":
        text = f"oci:{layout}"
        first = store.get(text)
        (layout / "blobs/sha256" / IMAGE.layers[0][7:]).unlink()
    elif kind == "oci-archive":
        text = f"oci-archive:{archive_of(layout, tmp_path / 'o.tar')}"
        first = store.get(text)
    else:
        text = f"docker-archive:{docker_archive(tmp_path / 'd.tar', {'lab:1': IMAGE})}"
        first = store.get(text)
    events: list[PullEvent] = []
    assert store.get(text, progress=events.append) == first
    assert events == []


def test_a_layout_that_changed_is_read_again(store: ImageStore, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "l", {"x": IMAGE})
    store.get(f"oci:{source}:x")
    other = make_image([BASE])
    write_layout(source, {"x": other})
    assert store.get(f"oci:{source}:x").id == other.config_digest


def test_names_in_a_layout(store: ImageStore, tmp_path: Path) -> None:
    other = make_image([BASE])
    source = write_layout(tmp_path / "l", {"docker.io/library/x:1": IMAGE, "y": other})
    assert store.get(f"oci:{source}:x:1").id == IMAGE.config_digest
    assert store.get(f"oci:{source}:y").id == other.config_digest
    with pytest.raises(NotFound, match="holds 2 images; add :NAME, one of: docker.io/library/x:1, y"):
        store.get(f"oci:{source}")
    with pytest.raises(NotFound, match="no image of that name"):
        store.get(f"oci:{source}:z")


def test_what_isn_t_a_layout(store: ImageStore, tmp_path: Path, paths: Paths) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        store.get(f"oci:{tmp_path}/gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="isn't a folder"):
        store.get(f"oci:{tmp_path}/file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="index.json is missing"):
        store.get(f"oci:{tmp_path}/empty")
    with pytest.raises(NotFound, match="no image archive"):
        store.get(f"docker-archive:{tmp_path}/gone.tar")
    with pytest.raises(ImageError, match="isn't a tar archive"):
        (tmp_path / "file").write_bytes(b"x" * 2000)
        store.get(f"oci-archive:{tmp_path}/file")
    assert left(store, paths) == []


def archive_of(folder: Path, target: Path, *, compress: bool = False) -> Path:
    with tarfile.open(target, "w:gz" if compress else "w") as tar:
        tar.add(folder, ".")
    return target


@pytest.mark.parametrize("compress", [False, True])
def test_an_oci_archive(store: ImageStore, layout: Path, tmp_path: Path, paths: Paths, compress: bool) -> None:
    archive = archive_of(layout, tmp_path / "image.tar", compress=compress)
    image = store.get(f"oci-archive:{archive}")
    assert (image.id, image.digest) == (IMAGE.config_digest, IMAGE.digest)
    assert not list(paths.images.glob(".tmp-*"))


def docker_archive(target: Path, images: dict[str, MadeImage], *, repeat_as_link: bool = False) -> Path:
    """What ``docker save`` writes, by hand: in this form a layer that comes twice is a symlink."""
    listed = []
    written: dict[str, str] = {}
    with tarfile.open(target, "w") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))

        for number, (tag, image) in enumerate(images.items()):
            layers = []
            for digest in image.layers:
                name = f"{number}-{digest[7:19]}/layer.tar"
                plain = gzip.decompress(image.blobs[digest])
                if repeat_as_link and digest in written:
                    member = tarfile.TarInfo(name)
                    member.type, member.linkname = tarfile.SYMTYPE, f"../{written[digest]}"
                    tar.addfile(member)
                else:
                    add(name, plain)
                    written[digest] = name
                layers.append(name)
            add(f"{number}.json", image.config)
            listed.append({"Config": f"{number}.json", "RepoTags": [tag], "Layers": layers})
        add("manifest.json", json.dumps(listed).encode())
    return target


def test_a_docker_archive(store: ImageStore, driver: TarDriver, tmp_path: Path) -> None:
    other = make_image([BASE], config={"Cmd": ["other"]})
    archive = docker_archive(tmp_path / "a.tar", {"lab:1": IMAGE, "lab:2": other}, repeat_as_link=True)
    first = store.get(f"docker-archive:{archive}:lab:1")
    second = store.get(f"docker-archive:{archive}:docker.io/library/lab:2")
    assert (first.id, second.id) == (IMAGE.config_digest, other.config_digest)
    assert second.layers[0].chain_id == first.layers[0].chain_id
    assert [driver.path(chain_id).read_bytes() for chain_id in first.chain_ids] == [BASE, TOP]
    with pytest.raises(NotFound, match="lab:1, lab:2"):
        store.get(f"docker-archive:{archive}")


def test_a_docker_archive_cut_short(store: ImageStore, driver: TarDriver, paths: Paths, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", {"lab:1": IMAGE})
    # In the middle of the first layer.
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(ImageError, match="cut short|missing"):
        store.get(f"docker-archive:{archive}")
    assert left(store, paths) == [] and not driver.layers()


def test_a_blob_that_was_changed_is_refused(store: ImageStore, driver: TarDriver, layout: Path, paths: Paths) -> None:
    blob = layout / "blobs/sha256" / IMAGE.layers[1][7:]
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatch, match=IMAGE.layers[1]):
        store.get(f"oci:{layout}")
    assert left(store, paths) == [] and not driver.layers()


# -- what may be wrong with layers


def test_a_layer_that_isn_t_its_diff_id(store: ImageStore, driver: TarDriver, paths: Paths, tmp_path: Path) -> None:
    wrong = make_image([BASE, TOP], diff_ids=[sha256_of(BASE), sha256_of(b"something else")])
    source = write_layout(tmp_path / "l", {"x": wrong})
    with pytest.raises(DigestMismatch, match="decompressed"):
        store.get(f"oci:{source}")
    assert left(store, paths) == []
    assert not driver.layers(), "the good layer below was left behind"


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: raw[:40] + b"\0" * 20 + raw[60:]])
def test_a_corrupt_gzip(store: ImageStore, driver: TarDriver, paths: Paths, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    image = make_image([BASE])
    packed = damage(image.blobs[image.layers[0]])
    manifest = json.loads(image.manifest)
    manifest["layers"][0] |= {"digest": sha256_of(packed), "size": len(packed)}
    broken = MadeImage(json.dumps(manifest).encode(), image.config, {**image.blobs, sha256_of(packed): packed}, [])
    source = write_layout(tmp_path / "l", {"x": broken})
    with pytest.raises(LayerError, match="corrupt|cut short"):
        store.get(f"oci:{source}")
    assert left(store, paths) == [] and not driver.layers()


def test_a_blob_is_read_also_where_its_layer_is_unpacked_already(
    store: ImageStore, driver: TarDriver, paths: Paths, tmp_path: Path, layout: Path
) -> None:
    """A docker archive's blobs have no digest but what they hold: only the diff_id tells that one is damaged."""
    store.get(f"oci:{layout}")
    layers, blobs = driver.layers(), sorted((paths.images / "blobs/sha256").iterdir())
    other = make_image([BASE, TOP], config={"Cmd": ["other"]})
    archive = docker_archive(tmp_path / "a.tar", {"lab:1": other})
    raw = archive.read_bytes()
    assert raw.count(b"1" * 5000) == 1
    archive.write_bytes(raw.replace(b"1" * 5000, b"1" * 4000 + b"!" + b"1" * 999))
    with pytest.raises(DigestMismatch, match="decompressed"):
        store.get(f"docker-archive:{archive}")
    assert driver.layers() == layers
    assert sorted((paths.images / "blobs/sha256").iterdir()) == blobs


def test_the_earlier_state_survives_a_failure(
    store: ImageStore, driver: TarDriver, tmp_path: Path, layout: Path
) -> None:
    first = store.get(f"oci:{layout}")
    layers = driver.layers()
    # Shares the base, and fails on the layer above it.
    wrong = make_image([BASE, TOP], diff_ids=[sha256_of(BASE), sha256_of(b"x")], config={"Cmd": ["y"]})
    with pytest.raises(DigestMismatch):
        store.get(f"oci:{write_layout(tmp_path / 'l', {'x': wrong})}")
    assert driver.layers() == layers
    assert store.find(f"oci:{layout}") == first


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_compression(store: ImageStore, driver: TarDriver, tmp_path: Path, compression: str) -> None:
    image = make_image([BASE, TOP], compression=compression)
    got = store.get(f"oci:{write_layout(tmp_path / 'l', {'x': image})}")
    assert [driver.path(chain_id).read_bytes() for chain_id in got.chain_ids] == [BASE, TOP]


def test_the_same_layer_twice(store: ImageStore, driver: TarDriver, tmp_path: Path) -> None:
    image = make_image([BASE, TOP, TOP])
    got = store.get(f"oci:{write_layout(tmp_path / 'l', {'x': image})}")
    assert len(set(got.chain_ids)) == 3 == len(driver.added)


def test_an_image_without_layers(store: ImageStore, tmp_path: Path) -> None:
    image = store.get(f"oci:{write_layout(tmp_path / 'l', {'x': make_image([])})}")
    assert image.layers == ()


# -- names


@pytest.fixture
def lab(store: ImageStore) -> ImageStore:
    """A store with ``lab:1``."""
    store.add_image("lab:1", {"config": {"Cmd": ["a"]}}, [BytesIO(BASE)], created_by=["make base"])
    return store


def test_an_image_made_here(lab: ImageStore, driver: TarDriver, tmp_path: Path) -> None:
    image = lab.find("lab:1")
    assert image.reference == "lab:1"
    assert image.config["rootfs"] == {"type": "layers", "diff_ids": [sha256_of(BASE)]}
    assert [layer.created_by for layer in image.layers] == ["make base"]
    assert image.config["os"] == "linux" and image.config["created"]
    file = tmp_path / "layer.tar.gz"
    file.write_bytes(gzip.compress(TOP))
    upper = lab.add_image("lab:2", image.config, [BytesIO(BASE), file])
    assert upper.layers[0].chain_id == image.layers[0].chain_id
    assert [layer.media_type.rpartition(".")[2] for layer in upper.layers] == ["tar", "tar+gzip"]
    assert driver.path(upper.layers[1].chain_id).read_bytes() == TOP


def test_short_and_full_names_find_the_same(lab: ImageStore) -> None:
    image = lab.find("lab:1")
    assert lab.find("docker.io/library/lab:1") == image
    for text in (image.id, image.id.encoded, image.id.short, image.id.encoded[:3]):
        assert lab.find(text) == image
    for text in ("lab", "lab:2", "0" * 64, "sha256:" + "0" * 64):
        with pytest.raises(NotFound, match="no such image here"):
            lab.find(text)
    with pytest.raises(InvalidReference):
        lab.find("LAB:1")


def test_a_name_moves_and_the_old_image_stays_without_one(lab: ImageStore) -> None:
    old = lab.find("lab:1")
    new = lab.add_image("lab:1", {}, [BytesIO(TOP)])
    assert lab.find("lab:1").id == new.id != old.id
    assert names(lab) == ["<none>:<none>", "lab:1"]
    assert lab.find(old.id).reference == "<none>:<none>"
    # The same image again: nothing changes.
    lab.tag("lab:1", "lab:1")
    assert names(lab) == ["<none>:<none>", "lab:1"]
    # Named again, it is no nameless one any more.
    lab.tag(old.id, "lab:old")
    assert names(lab) == ["lab:1", "lab:old"]


def test_a_tag_needs_a_name(lab: ImageStore) -> None:
    for name in ("oci:/x", "host", f"lab@{Digest.of(b'')}", "Lab"):
        with pytest.raises(InvalidReference):
            lab.tag("lab:1", name)
    with pytest.raises(NotFound):
        lab.tag("gone:1", "lab:2")


def test_platforms_of_one_name_stand_side_by_side(store: ImageStore, tmp_path: Path) -> None:
    images = {p: make_image([BASE], architecture=p[6:], config={"Cmd": [p]}) for p in ("linux/amd64", "linux/s390x")}
    source = write_layout(tmp_path / "l", {"a": images["linux/amd64"], "b": images["linux/s390x"]})
    index = make_index(images)
    (source / "blobs/sha256" / sha256_of(index)[7:]).write_bytes(index)
    entry = {"mediaType": json.loads(index)["mediaType"], "digest": sha256_of(index), "size": len(index)}
    (source / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    for platform, image in images.items():
        assert store.get(f"oci:{source}", platform=platform).id == image.config_digest
    for platform, image in images.items():
        assert store.find(f"oci:{source}", platform).id == image.config_digest
    with pytest.raises(NotFound, match="isn't there for linux/riscv64; it has: linux/amd64, linux/s390x"):
        store.get(f"oci:{source}", platform="linux/riscv64")
    with pytest.raises(NotFound, match="isn't here for linux/arm64, only for linux/amd64, linux/s390x"):
        store.find(f"oci:{source}", "linux/arm64")
    assert len(store.list()) == 2
    assert len(store.remove(f"oci:{source}")) == 4
    assert store.list() == []


def test_bad_options(store: ImageStore) -> None:
    with pytest.raises(SpecError, match="--pull"):
        store.get("x", pull="sometimes")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="--platform"):
        store.get("x", platform="linux/")
    with pytest.raises(NotFound, match="no such image here: x; `cellwall pull x`"):
        store.get("x", pull="never")


# -- removal


def test_the_last_name_takes_the_image_with_it(lab: ImageStore, driver: TarDriver, paths: Paths) -> None:
    image = lab.find("lab:1")
    lab.tag("lab:1", "lab:2")
    assert lab.remove("lab:1") == ["Untagged: lab:1"]
    assert lab.find("lab:2").id == image.id
    assert lab.remove("lab:2") == ["Untagged: lab:2", f"Deleted: {image.id}", f"Deleted: {image.layers[0].chain_id}"]
    assert left(lab, paths) == [] and not driver.layers()
    with pytest.raises(NotFound, match="no such image here: lab:2"):
        lab.remove("lab:2")


def test_shared_layers_stay(lab: ImageStore, driver: TarDriver) -> None:
    base = lab.find("lab:1")
    upper = lab.add_image("lab:2", {}, [BytesIO(BASE), BytesIO(TOP)])
    lines = lab.remove("lab:2")
    assert f"Deleted: {upper.layers[1].chain_id}" in lines and f"Deleted: {base.layers[0].chain_id}" not in lines
    assert driver.has_layer(base.layers[0].chain_id)
    assert lab.get("lab:1") == base


def test_by_id_all_names_of_one_repository_go(lab: ImageStore) -> None:
    image = lab.find("lab:1")
    lab.tag("lab:1", "lab:2")
    lines = lab.remove(image.id.short)
    assert sorted(lines)[-2:] == ["Untagged: lab:1", "Untagged: lab:2"]
    assert lab.list() == []


def test_by_id_several_repositories_need_force(lab: ImageStore) -> None:
    image = lab.find("lab:1")
    lab.tag("lab:1", "other:1")
    with pytest.raises(StatusError, match="several repositories \\(lab, other\\)"):
        lab.remove(image.id)
    assert names(lab) == ["lab:1", "other:1"]
    lab.remove(image.id, force=True)
    assert lab.list() == []


def test_a_container_keeps_its_image(lab: ImageStore, driver: TarDriver) -> None:
    image = lab.find("lab:1")
    lab.in_use = lambda image_id: ["c0ffee"] if image_id == image.id else []
    with pytest.raises(StatusError, match="used by container c0ffee.*--force"):
        lab.remove("lab:1")
    assert names(lab) == ["lab:1"]
    # By docker's rule another name may go.
    lab.tag("lab:1", "lab:2")
    assert lab.remove("lab:2") == ["Untagged: lab:2"]
    assert lab.remove("lab:1", force=True) == ["Untagged: lab:1"]
    assert driver.has_layer(image.layers[0].chain_id)
    assert lab.find(image.id).reference == "<none>:<none>"
    lab.in_use = lambda image_id: []
    lab.remove(image.id)
    assert not driver.layers() and lab.list() == []


def test_a_name_that_could_be_an_id(lab: ImageStore) -> None:
    lab.tag("lab:1", "fade:latest")
    assert lab.remove("fade") == ["Untagged: fade:latest"]
    assert names(lab) == ["lab:1"]


def test_a_damaged_image_can_still_be_removed(lab: ImageStore, paths: Paths) -> None:
    image = lab.find("lab:1")
    (paths.images / "blobs/sha256" / image.id.encoded).unlink()
    fresh = ImageStore(paths, TarDriver(paths.storage / "vfs"))
    with pytest.raises(ImageError, match="missing from the image store"):
        fresh.find("lab:1")
    assert fresh.remove("lab:1")[0] == "Untagged: lab:1"
    assert fresh.list() == []


# -- another driver, another process, a kill


def test_an_image_pulled_with_another_driver_is_unpacked_again(lab: ImageStore, paths: Paths) -> None:
    other = TarDriver(paths.storage / "overlay")
    other.name = "overlay"
    store = ImageStore(paths, other)
    image = store.get("lab:1", pull="never")
    assert other.added == image.chain_ids
    store.remove("lab:1")
    assert not other.layers()
    # The first driver's layers go when it is next used.
    assert lab.sweep() == image.chain_ids
    assert not TarDriver(paths.storage / "vfs").layers()


def test_a_removal_reaches_the_other_driver(lab: ImageStore, paths: Paths) -> None:
    first, other = TarDriver(paths.storage / "vfs"), TarDriver(paths.storage / "overlay")
    other.name = "overlay"
    store = ImageStore(paths, other, other_driver={"vfs": first}.__getitem__)
    store.get("lab:1")
    assert first.layers() == other.layers() != set()
    lines = store.remove("lab:1")
    assert len(set(lines)) == len(lines), lines
    assert first.layers() == other.layers() == set()
    assert left(store, paths) == []


def test_a_killed_pull_is_swept(tmp_path: Path, paths: Paths, layout: Path) -> None:
    """A real process is killed while it unpacks the second layer."""
    script = f"""
import os, signal, sys
from pathlib import Path
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.paths import Paths
from tests.tar_driver import TarDriver
def before(chain_id):
    if driver.added:
        os.kill(os.getpid(), signal.SIGKILL)
paths = Paths(Path({str(paths.data)!r}), Path({str(paths.run)!r}))
driver = TarDriver(paths.storage / "vfs", before)
ImageStore(paths, driver).get("oci:{layout}")
"""
    top = Path(__file__).resolve().parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=top, env={"PYTHONPATH": f"{top}:{top / 'src'}"}, timeout=60
    )
    assert killed.returncode == -9
    driver = TarDriver(paths.storage / "vfs")
    assert len(driver.layers()) == 1 and list(paths.images.glob(".tmp-*"))
    # The next one to open the store tidies up.
    store = ImageStore(paths, driver)
    assert store.list() == []
    assert left(store, paths) == [] and not driver.layers()
    # And nothing stands in the way of another try.
    assert store.get(f"oci:{layout}").id == IMAGE.config_digest


def test_two_threads_bring_the_same_image(store: ImageStore, layout: Path, driver: TarDriver) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(store.get(f"oci:{layout}").id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [IMAGE.config_digest] * 4
    assert len(store.list()) == 1 and len(driver.layers()) == 2


# -- cancelling


def test_cancelling_undoes_everything(paths: Paths, layout: Path) -> None:
    cancelled = threading.Event()
    driver = TarDriver(paths.storage / "vfs")

    def before(chain_id: Digest) -> None:
        if driver.added:
            cancelled.set()
            assert asked.wait(30)

    asked = threading.Event()

    def ask() -> bool:
        if cancelled.is_set():
            asked.set()
        return cancelled.is_set()

    driver.before_layer = before
    store = ImageStore(paths, driver)
    with pytest.raises(Cancelled):
        store.get(f"oci:{layout}", cancelled=ask)
    assert left(store, paths) == [] and not driver.layers() and store.list() == []


def test_what_progress_raises_ends_the_pull(store: ImageStore, paths: Paths, driver: TarDriver, layout: Path) -> None:
    def progress(event: PullEvent) -> None:
        if event.phase == "done":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.get(f"oci:{layout}", progress=progress)
    assert left(store, paths) == [] and not driver.layers()


def test_a_full_disk_says_so(store: ImageStore, paths: Paths, driver: TarDriver, layout: Path) -> None:
    def full(chain_id: Digest) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    driver.before_layer = full
    with pytest.raises(ImageError, match="no space left.*rmi.*CELLWALL_ROOT"):
        store.get(f"oci:{layout}")
    assert left(store, paths) == [] and not driver.layers()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="not installed: skopeo")
def test_skopeo_reads_the_store(lab: ImageStore, paths: Paths) -> None:
    inspected = subprocess.run(
        ["skopeo", "inspect", f"oci:{paths.images}:docker.io/library/lab:1"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(inspected.stdout)["Digest"] == lab.find("lab:1").manifest_digest


# -- host


def test_host_is_made_once_and_again_when_etc_changed(
    store: ImageStore, driver: TarDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = store.get("host")
    assert image.reference == "host"
    assert image.config["config"]["Cmd"]
    assert store.find("host") == image and store.get("host") == image
    assert len(driver.added) == 1
    # As if /etc had changed: made again, and the same files give the same image.
    monkeypatch.setattr("cellwall.runtime.images.intake.host_stamp", lambda: "another")
    assert store.get("host").id == image.id
    assert names(store) == ["host"]
    assert len(driver.added) == 1
    with pytest.raises(NotFound, match="host isn't there for linux/s390x"):
        store.get("host", platform="linux/s390x")


def test_an_old_host_goes_unless_a_container_needs_it(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwall.runtime.storage import host

    first = store.get("host")
    monkeypatch.setattr(host, "skeleton", lambda: BASE)
    second = store.pull("host")
    assert second.id != first.id and [image.id for image in store.list()] == [second.id]
    monkeypatch.setattr(host, "skeleton", lambda: TOP)
    store.in_use = lambda image_id: ["c0ffee"]
    third = store.pull("host")
    assert {image.id for image in store.list()} == {second.id, third.id}


def test_the_stamp_sees_what_changed(tmp_path: Path) -> None:
    from cellwall.runtime.images.intake import host_stamp

    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("a")
    first = host_stamp(tmp_path)
    assert host_stamp(tmp_path) == first
    (tmp_path / "etc/passwd").write_text("ab")
    second = host_stamp(tmp_path)
    (tmp_path / "usr").mkdir()
    assert len({first, second, host_stamp(tmp_path)}) == 3
