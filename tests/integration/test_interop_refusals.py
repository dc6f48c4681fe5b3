"""Bad input while images are shared: each is one sentence and a status, and nothing half-made is left, neither by name nor on disk."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.linux.mounts import MNT_DETACH, umount2

from .. import registries
from ..leaks import leftovers
from ..registries import Registry, run_registry, tar_of

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static")

registry = registries.registry
Says = Callable[..., tuple[int, str]]


@pytest.fixture
def says(engine: Engine, capfd: pytest.CaptureFixture[str]) -> Says:
    """The status of a command line, and what it says on standard error without the lines of progress."""

    def run(*words: str | Path) -> tuple[int, str]:
        capfd.readouterr()
        status = main([str(word) for word in words])
        told = capfd.readouterr().err.splitlines()
        return status, "\n".join(line for line in told if ": Pull" not in line and ": Retrying" not in line)

    return run


def kept(engine: Engine) -> tuple[set[str], set[str], set[str], set[str]]:
    """Names, blobs, layers and temporary files in the store."""
    images = engine.paths.images
    return (
        {image.reference for image in engine.images.list()},
        {path.name for path in images.glob("blobs/*/*")},
        {path.name for path in engine.paths.storage.glob("*/layers/sha256-*")},
        {*leftovers(images), *leftovers(engine.paths.storage)},
    )


@pytest.fixture
def archives(engine: Engine, busybox: str, tmp_path: Path) -> dict[str, Path]:
    """One image, and two, as docker's archive and as OCI's; the store is empty then."""
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo hi > /new")
        box.commit("lab:1")
        box.commit("other:2", changes=["CMD id"])
    engine.remove("lab")
    made = {}
    for name, refs, form in (
        ("docker", ["lab:1"], "docker-archive"),
        ("two", ["lab:1", "other:2"], "docker-archive"),
        ("oci", ["lab:1"], "oci-archive"),
    ):
        made[name] = tmp_path / f"{name}.tar"
        with open(made[name], "wb") as file:
            engine.images.save(refs, file, format=form)  # type: ignore[arg-type]
    engine.images.prune(all=True)
    assert kept(engine) == (set(), set(), set(), set())
    return made


def changed(archive: Path, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The archive with each file as ``change`` wants it, or without it."""
    output = io.BytesIO()
    with tarfile.open(archive) as source, tarfile.open(fileobj=output, mode="w") as target:
        for member in source:
            opened = source.extractfile(member)
            assert opened is not None
            content = change(member.name, opened.read())
            if content is not None:
                member.size = len(content)
                target.addfile(member, io.BytesIO(content))
    return output.getvalue()


def manifest(archive: Path, change: Callable[[list[dict[str, Any]]], object]) -> bytes:
    """The archive with its manifest.json changed."""

    def edit(name: str, content: bytes) -> bytes:
        if name != "manifest.json":
            return content
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return changed(archive, edit)


def test_load(engine: Engine, archives: dict[str, Path], says: Says, tmp_path: Path) -> None:
    good, oci = archives["docker"].read_bytes(), archives["oci"].read_bytes()
    middle, packed = good.index(b"BusyBox v"), gzip.compress(good, 1)
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 0xFF
    with tarfile.open(archives["docker"]) as tar:
        largest = max(tar.getmembers(), key=lambda member: member.size).name
    bad = tmp_path / "bad"
    cases = {
        "empty": (b"", "isn't a tar archive, or it is cut short"),
        "text": (b"no archive\n" * 100, "isn't a tar archive, or it is cut short"),
        "cut": (good[: len(good) // 2], "isn't a tar archive, or it is cut short"),
        "another tar": (tar_of({"a": b"1"}), "holds no image: neither a manifest.json (docker save) nor an index.json"),
        "a bit": (good[:middle] + b"x" + good[middle + 1 :], "nothing of it was kept"),
        "gzip, cut": (packed[: len(packed) // 2], "gzip stream is cut short; get it again"),
        "gzip, a bit": (bytes(broken), "gzip stream is corrupt"),
        "a name": (manifest(archives["docker"], lambda m: m[0].update(RepoTags=["UPPER:1"])), "must be lower case"),
        "escape codes": (manifest(archives["docker"], lambda m: m[0].update(RepoTags=["a:\x1b[31m"])), "isn't a tag"),
        "a path out": (
            manifest(archives["docker"], lambda m: m[0].update(Layers=["../../../etc/passwd"])),
            "../../../etc/passwd is missing in it",
        ),
        "a layer too few": (manifest(archives["docker"], lambda m: m[0]["Layers"].pop()), "3 diff_ids for 2 layers"),
        "layers in another order": (manifest(archives["docker"], lambda m: m[0]["Layers"].reverse()), "nothing of it was kept"),
        "no layer": (
            changed(archives["docker"], lambda name, content: None if name == largest else content),
            f"{largest} is missing in it",
        ),
        "no JSON": (
            changed(archives["docker"], lambda name, content: b"{" if name == "manifest.json" else content),
            "isn't JSON",
        ),
        "a later layout": (
            changed(archives["oci"], lambda name, content: b'{"imageLayoutVersion": "2.0.0"}' if name == "oci-layout" else content),
            "is an image layout of version '2.0.0', and this cellwall reads version 1",
        ),
        "an OCI blob": (
            changed(archives["oci"], lambda name, content: content[:-9] + b"x" + content[-8:] if len(content) > 100_000 else content),
            "nothing of it was kept",
        ),
    }  # fmt: skip
    assert len(oci) != len(good)
    for what, (content, sentence) in cases.items():
        bad.write_bytes(content)
        status, told = says("load", "-i", bad)
        assert (status, len(told.splitlines())) == (1, 1), what
        assert told.startswith("cellwall: "), what
        assert sentence in told, what
        assert "\x1b" not in told
        assert kept(engine) == (set(), set(), set(), set()), what
    for words, sentence in (
        (["-i", tmp_path / "missing"], f"cellwall: no image archive at {tmp_path}/missing: no such file or directory"),
        (["-i", tmp_path], f"cellwall: no image archive at {tmp_path}: is a directory"),
    ):
        assert says("load", *words) == (1, sentence)
    assert says("load", "extra") == (125, "cellwall: cellwall load: takes no 'extra': name the file with -i")
    assert kept(engine) == (set(), set(), set(), set())


def test_load_of_two_with_one_damaged(engine: Engine, archives: dict[str, Path], says: Says, tmp_path: Path) -> None:
    """The whole one is there, and the sentence says so."""
    with tarfile.open(archives["two"]) as tar:
        opened = tar.extractfile("manifest.json")
        assert opened is not None
        second = json.load(opened)[1]["Config"]
    bad = tmp_path / "bad"
    bad.write_bytes(changed(archives["two"], lambda name, content: None if name == second else content))
    status, told = says("load", "-i", bad)
    assert status == 1
    assert told.endswith(f"{second} is missing in it; what came before it in the archive is here: lab:1")
    names, _, layers, temporary = kept(engine)
    assert (names, len(layers), temporary) == ({"lab:1"}, 3, set())
    assert cellwall.run("lab:1", ["cat", "/new"], engine=engine).stdout == "hi\n"


@pytest.mark.parametrize("stdin", ["cut", "closed"])
def test_load_from_standard_input(
    stdin: str, engine: Engine, archives: dict[str, Path], cellwall_root: Path, tmp_path: Path
) -> None:
    """The sentence names no temporary file of ours."""
    command = "cellwall load" + (" <&-" if stdin == "closed" else f" < {tmp_path}/cut")
    (tmp_path / "cut").write_bytes(archives["docker"].read_bytes()[:100_000])
    top = Path(__file__).resolve().parents[2]
    script = f'cellwall() {{ {os.environ.get("PYTHON", "python3")} -m cellwall "$@"; }}; {command}'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(top / "src"), *_site_packages()])}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, cwd="/")
    assert (done.returncode, done.stderr) == (1, "cellwall: the archive isn't a tar archive, or it is cut short\n")
    assert kept(engine) == (set(), set(), set(), set())


def _site_packages() -> list[str]:
    import sys

    return [path for path in sys.path if path.endswith("site-packages")]


def test_a_store_that_was_damaged(
    engine: Engine, archives: dict[str, Path], says: Says, registry: Registry, tmp_path: Path
) -> None:
    """Neither saved nor pushed: whoever gets it would find out later."""
    assert says("load", "-q", "-i", archives["oci"]) == (0, "")
    name = registry.name("damaged/lab:1")
    engine.images.tag("lab:1", name)
    layer = engine.images.find("lab:1").layers[0].digest
    blob = engine.images._layout.blob_path(layer)
    whole = blob.read_bytes()
    for content, sentence in (
        (whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], f"layer {layer.short} in the image store is damaged: pull the image again"),
        (whole[:-1], f"{layer.short} is missing from the image store: pull the image again"),
        (None, f"{layer.short} is missing from the image store: pull the image again"),
    ):  # fmt: skip
        if content is None:
            blob.unlink()
        else:
            blob.write_bytes(content)
        status, told = says("save", "--format", "oci-archive", "-o", tmp_path / "out.tar", "lab:1")
        assert (status, told.endswith(sentence)) == (1, True), told
        status, told = says("push", name)
        assert (status, told.endswith(sentence)) == (1, True), told
        assert says("save", "-o", tmp_path / "out.tar", "lab:1")[0] == 1
        assert sorted(path.name for path in tmp_path.iterdir() if "out.tar" in path.name) == []
    # Nothing there by that name.
    listed = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], capture_output=True, text=True
    )
    assert listed.returncode != 0
    assert kept(engine)[3] == set()


def test_what_is_written_to_is_full(engine: Engine, archives: dict[str, Path], says: Says, tmp_path: Path) -> None:
    assert says("load", "-q", "-i", archives["docker"]) == (0, "")
    with cellwall.container("lab:1", name="lab", engine=engine) as box:
        box.run("true")
    assert says("save", "-o", "/dev/full", "lab:1") == (
        1,
        "cellwall: /dev/full can't be written: no space left on device",
    )
    assert says("export", "-o", "/dev/full", "lab") == (
        1,
        "cellwall: /dev/full can't be written: no space left on device",
    )
    assert says("save", "-o", "/nowhere/x", "lab:1") == (1, "cellwall: /nowhere/x: no such file or directory")
    assert says("save", "-o", tmp_path, "lab:1") == (1, f"cellwall: {tmp_path}: is a directory")
    target = tmp_path / "x.tar"
    target.write_bytes(b"as it was")
    assert says("save", "-o", target, "lab:1", "nothing:1")[0] == 1
    assert says("export", "-o", target, "nobody")[0] == 1
    assert target.read_bytes() == b"as it was"
    assert kept(engine)[3] == set()
    engine.remove("lab")


FULL = """
mount -t tmpfs -o size={size} tmpfs {root}
export CELLWALL_ROOT={root}
cellwall() {{ {python} -m cellwall "$@"; }}
say() {{ "$@" >&2; echo "$? $*"; find {root} -name '.tmp-*'; }}
cellwall load -q -i {archive}
cellwall run --name lab -s overlay lab:1 sh -c 'dd if=/dev/urandom of=/big bs=1M count=2 2>/dev/null'
cellwall image prune -f > /dev/null
before=$(find {root}/images/blobs {root}/storage -mindepth 1 -maxdepth 3 | grep -v /upper | sort)
head -c 100M /dev/zero > {root}/filler || true
truncate -s -900k {root}/filler
say cellwall commit lab big:1
say cellwall import {archive} flat:1
say cellwall save -o {out}/x.tar lab:1
say cellwall save --format oci-archive -o {out}/y.tar lab:1
cellwall images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'
ls {out}
[ "$before" = "$(find {root}/images/blobs {root}/storage -mindepth 1 -maxdepth 3 | grep -v /upper | sort)" ] && echo as before
"""


def test_a_store_that_is_full(archives: dict[str, Path], tmp_path: Path, cellwall_root: Path) -> None:
    import sys

    (tmp_path / "root").mkdir()
    (tmp_path / "out").mkdir()
    top = Path(__file__).resolve().parents[2]
    script = FULL.format(
        size="16M", root=tmp_path / "root", out=tmp_path / "out", archive=archives["oci"], python=sys.executable
    )
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(top / "src")},
    )
    assert done.stdout.splitlines() == [
        "Loaded image: lab:1",
        "1 cellwall commit lab big:1",
        f"1 cellwall import {archives['oci']} flat:1",
        f"1 cellwall save -o {tmp_path}/out/x.tar lab:1",
        f"0 cellwall save --format oci-archive -o {tmp_path}/out/y.tar lab:1",
        "lab:1",
        "y.tar",
        "as before",
    ], done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("cellwall: ")]
    assert len(told) == 3, done.stderr
    assert all("no space left" in line and str(tmp_path / "root") in line for line in told)
    assert "or save as oci-archive" in told[2]


def test_commit_and_import(engine: Engine, archives: dict[str, Path], says: Says, tmp_path: Path) -> None:
    assert says("load", "-q", "-i", archives["docker"]) == (0, "")
    with cellwall.container("lab:1", name="lab", engine=engine) as box:
        box.run("echo x > /x")
    before = kept(engine)
    escape = tmp_path / "escape.tar"
    escape.write_bytes(tar_of({"../../etc/evil": b""}))
    (tmp_path / "empty").touch()
    packed = gzip.compress(archives["docker"].read_bytes(), 1)
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "text").write_bytes(b"no archive\n" * 1000)
    with not_found() as url:
        cases: list[tuple[list[str | Path], int, str]] = [
            (["commit", "nobody", "x:1"], 1, "no container nobody: cellwall ps -a lists them"),
            (["commit", "lab", "UPPER:1"], 1, "must be lower case"),
            (["commit", "lab", "x@sha256:" + "0" * 64], 1, "a name with a tag is needed"),
            (["commit", "-c", "RUN x", "lab", "x:1"], 125, "begins with none of CMD, "),
            (["commit", "-c", "EXPOSE 99999", "lab", "x:1"], 125, "a range of ports from 1 to 65535"),
            (["import", tmp_path / "missing", "x:1"], 1, "no such file or directory"),
            (["import", tmp_path / "empty", "x:1"], 1, "the archive is empty"),
            (["import", tmp_path / "text", "x:1"], 1, "this is no tar archive, or it is damaged"),
            (["import", tmp_path / "cut.gz", "x:1"], 1, "gzip stream is cut short; get it again"),
            (["import", tmp_path, "x:1"], 1, "is a directory"),
            (["import", escape, "x:1"], 1, "'../../etc/evil' leads out of the layer"),
            (["import", archives["docker"], "UPPER:1"], 1, "must be lower case"),
            (["import", "ftp://x/y", "x:1"], 125, "reads from http:// and https:// only"),
            (["import", "http://127.0.0.1:1/x", "x:1"], 1, "http://127.0.0.1:1/x: connection refused"),
            (["import", url, "x:1"], 1, "not found"),
        ]
        for words, expected, sentence in cases:
            status, told = says(*words)
            assert (status, len(told.splitlines())) == (expected, 1), (words, told)
            assert sentence in told, words
            assert kept(engine) == before, words
    engine.remove("lab")


@pytest.mark.parametrize("epoch", ["tomorrow", "-1", "99999999999999999", "9" * 5000])
def test_an_epoch_that_is_none(
    epoch: str, engine: Engine, busybox: str, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo x > /x")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    status, told = says("commit", "lab", "x:1")
    assert status == 125
    assert told.startswith("cellwall: SOURCE_DATE_EPOCH: ")
    assert len(told) < 200
    assert kept(engine)[0] == {busybox}
    engine.remove("lab")


class NotFoundServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


class not_found:
    """A web server that has nothing: the URL of something there."""

    def __enter__(self) -> str:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFoundServer)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/x.tar"

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of two megabytes, on a loop device."""
    image, point = tmp_path / "disk", tmp_path / "small"
    with open(image, "wb") as file:
        file.truncate(2 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    point.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    yield point
    umount2(str(point), MNT_DETACH)


@pytest.mark.needs("docker-registry", "mkfs.ext4", "skopeo")
def test_a_registry_whose_disk_is_full(engine: Engine, archives: dict[str, Path], says: Says, small_disk: Path) -> None:
    assert says("load", "-q", "-i", archives["docker"]) == (0, "")
    with cellwall.container("lab:1", name="lab", engine=engine) as box:
        box.run("dd if=/dev/urandom of=/big bs=1M count=3 2>/dev/null")
        with run_registry(small_disk / "registry") as full:
            name = full.name("lab/big:1")
            box.commit(name)
            status, told = says("push", name)
            assert status == 1
            assert f"{full.host} has no room left for layer " in told
            listed = subprocess.run(
                ["skopeo", "list-tags", "--tls-verify=false", f"docker://{full.name('lab/big')}"], capture_output=True
            )
            assert listed.returncode != 0
    engine.remove("lab")
