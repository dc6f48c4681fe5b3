"""``cellwall lock`` beside a real registry: tags that move, bundles on empty stores without a network, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from .. import registries
from ..lock_world import blobs, cellwall, done, failed, lock_of, output_of, push, spawned, version, write_notebook
from ..registries import Registry, run_registry, write_layout
from ..tree import TOP
from .test_registry_pull import no_credentials

__all__ = ["no_credentials"]

pytestmark = pytest.mark.needs("root", "overlay", "docker-registry", "skopeo")
registry = registries.registry

SHOW = ("sh", "-c", "echo version $VERSION $(cat /version)")


def locked(notebook: Path) -> dict[str, str]:
    return {"CELLWALL_LOCKED": "1", "CELLWALL_LOCK": str(notebook)}


def test_a_tag_that_moves(registry: Registry, tmp_path: Path, cellwall_root: Path) -> None:
    name, first = push(registry, tmp_path, "lock/moves:1", 1)
    notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name}\nid", f"%container run {name} id")
    before = json.loads(notebook.read_text())
    store = cellwall_root / "a"
    assert f"{first}   locked" in done(cellwall(store, "lock", str(notebook)))
    (entry,) = lock_of(notebook)["images"]
    assert entry == {
        "name": name,
        "platform": "linux/amd64",
        "from": "registry",
        "repository": name.rpartition(":")[0],
        "digest": first,
        "manifest": first,
        "id": version(1).config_digest,
    }
    after = json.loads(notebook.read_text())
    del after["metadata"]["cellwall"]
    assert after == before
    # Nothing was pulled for it, and nothing is written where nothing changes.
    assert "lock/moves" not in done(cellwall(store, "images"))
    stamp = notebook.stat()
    done(cellwall(store, "lock", str(notebook)))
    assert notebook.stat() == stamp
    assert "unchanged" in done(cellwall(store, "lock", "--check", str(notebook)))

    _, second = push(registry, tmp_path, "lock/moves:1", 2)
    assert second != first
    failed(cellwall(store, "lock", "--check", str(notebook)), 1, "has moved", first, second, "--update")
    rows = json.loads(cellwall(store, "lock", "--check", "--format", "json", str(notebook)).stdout)
    assert [(row["State"], row["Locked"], row["Now"]) for row in rows] == [("moved", first, second)]
    assert notebook.stat() == stamp
    # Locked once more it keeps what it has.
    done(cellwall(store, "lock", str(notebook)))
    assert lock_of(notebook)["images"] == [entry]

    assert output_of(store, name, *SHOW) == "version 2 2\n"
    assert output_of(store, name, *SHOW, environment=locked(notebook)) == "version 1 1\n"
    asked = {"CELLWALL_LOCK": str(notebook)}
    assert done(spawned(store, "run", "--rm", "--locked", name, *SHOW, environment=asked)) == "version 1 1\n"
    assert (
        done(spawned(store, "run", "--rm", "--locked=false", name, *SHOW, environment=locked(notebook)))
        == "version 2 2\n"
    )
    assert output_of(store, name, *SHOW, environment=asked) == "version 2 2\n"
    # The image has no name here any more, and is still the one that is run.
    done(cellwall(store, "rmi", "-f", name))
    assert output_of(store, name, *SHOW, environment=locked(notebook), pull="never") == "version 1 1\n"

    assert "moved" in done(cellwall(store, "lock", "--update", str(notebook)))
    assert [image["digest"] for image in lock_of(notebook)["images"]] == [second]
    done(cellwall(store, "lock", "--check", str(notebook)))
    assert output_of(cellwall_root / "b", name, *SHOW, environment=locked(notebook)) == "version 2 2\n"


def test_everything_that_names_an_image_obeys(registry: Registry, tmp_path: Path, cellwall_root: Path) -> None:
    name, _ = push(registry, tmp_path, "lock/all:1", 1)
    dockerfile = f"FROM {name} AS a\nRUN cp /version /from\nFROM {name}\nCOPY --from=a /from /from\n"
    notebook = write_notebook(
        tmp_path / "n.ipynb",
        f"%%dockerfile -t made:1\n{dockerfile}",
        "%%layer made:1 -t made:2\nid",
        f"%%container made:2 --mount type=image,source={name},target=/other\nid",
    )
    store = cellwall_root / "a"
    done(cellwall(store, "lock", str(notebook)))
    found = lock_of(notebook)
    assert [image["name"] for image in found["images"]] == [name]
    assert found["made"] == ["docker.io/library/made:1", "docker.io/library/made:2"]
    push(registry, tmp_path, "lock/all:1", 2)
    done(cellwall(store, "pull", name))
    # The lock names what the notebook makes, and doesn't bring it in.
    failed(
        cellwall(store, "run", "made:1", **locked(notebook)),
        125,
        "made:1 is made by n.ipynb itself",
        "run the cell that makes it",
    )
    (tmp_path / "Dockerfile").write_text(dockerfile)
    done(cellwall(store, "build", "-q", "-t", "made:1", str(tmp_path), **locked(notebook)))
    assert output_of(store, "made:1", "cat", "/from", environment=locked(notebook)) == "1\n"
    mount = [f"type=image,source={name},target=/other"]
    shown = output_of(store, "made:1", "cat", "/other/version", environment=locked(notebook), mount=mount)
    assert shown == "1\n"
    assert output_of(store, name, "cat", "/other/version", mount=mount) == "2\n"
    union = ("union", "--image", name, "br=/etc=ro:/bin=ro")
    assert done(spawned(store, *union, "sh", "-c", "echo $VERSION", environment=locked(notebook))).startswith("1\n")
    assert done(cellwall(store, "create", name, **locked(notebook)))
    assert version(1).digest in done(cellwall(store, "pull", name, **locked(notebook)))
    done(cellwall(store, "tag", name, "named:1", **locked(notebook)))
    assert output_of(store, "named:1", *SHOW) == "version 1 1\n"
    # A build in the unlocked way has another base, and the cache knows.
    done(cellwall(store, "build", "-q", "-t", "made:1", str(tmp_path)))
    assert output_of(store, "made:1", "cat", "/from") == "2\n"


def test_a_bundle_on_an_empty_store_without_a_network(tmp_path: Path, cellwall_root: Path) -> None:
    first, second = cellwall_root / "a", cellwall_root / "b"
    bundle = tmp_path / "bundle.tar"
    with run_registry(tmp_path / "registry") as own:
        name, digest = push(own, tmp_path, "lab/one:1", 1)
        other, _ = push(own, tmp_path, "lab/two:1", 2)
        exact = f"{other.rpartition(':')[0]}@{version(2).digest}"
        notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name}\nid", f"%%container {exact}\nid")
        done(cellwall(first, "lock", "--bundle", str(bundle), str(notebook)))
        again = tmp_path / "again.tar"
        done(cellwall(first, "lock", "--bundle", str(again), str(notebook)))
        assert again.read_bytes() == bundle.read_bytes()
        push(own, tmp_path, "lab/one:1", 2)
    # From here on there is no registry.
    here = cellwall(second, "run", "--rm", "-q", name, *SHOW, **locked(notebook))
    assert len(failed(here, 125, digest, "load the notebook's bundle").splitlines()) == 1
    done(cellwall(second, "load", "-i", str(bundle)))
    assert output_of(second, name, *SHOW, environment=locked(notebook)) == "version 1 1\n"
    assert output_of(second, exact, *SHOW, environment=locked(notebook)) == "version 2 2\n"
    assert blobs(second) == blobs(first)
    for image in lock_of(notebook)["images"]:
        facts = [json.loads(done(cellwall(store, "image", "inspect", image["id"]))) for store in (first, second)]
        assert facts[0][0]["RootFS"] == facts[1][0]["RootFS"]
    # Nobody answers: what is here is compared, and that is said.
    rows = json.loads(done(cellwall(second, "lock", "--check", "--format", "json", str(notebook))))
    assert {row["State"] for row in rows} == {"unchanged"}
    assert "compared with what is here" in " ".join(row["Why"] for row in rows)
    failed(
        cellwall(cellwall_root / "c", "lock", "--check", str(notebook)),
        1,
        "try again where its registry can be reached",
    )
    # Other tools read it.
    listed = subprocess.run(
        ["skopeo", "inspect", f"oci-archive:{bundle}:{name}"], check=True, capture_output=True, text=True
    )
    assert json.loads(listed.stdout)["Digest"] == digest


def test_a_bundle_that_was_cut_or_changed(registry: Registry, tmp_path: Path, cellwall_root: Path) -> None:
    name, digest = push(registry, tmp_path, "lock/cut:1", 1)
    notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name}\nid")
    bundle = tmp_path / "bundle.tar"
    done(cellwall(cellwall_root / "a", "lock", "--bundle", str(bundle), str(notebook)))
    whole = bundle.read_bytes()
    store = cellwall_root / "b"

    def refused(content: bytes, *texts: str) -> None:
        bundle.write_bytes(content)
        failed(cellwall(store, "load", "-i", str(bundle)), 1, *texts)
        assert name not in done(cellwall(store, "images"))

    refused(whole[: len(whole) // 2], "cut short")
    layer = whole.index(b"\x1f\x8b")
    refused(whole[: layer + 100] + bytes([whole[layer + 100] ^ 1]) + whole[layer + 101 :], "sha256:")
    config = version(1).config
    refused(whole.replace(config, config.replace(b"VERSION=1", b"VERSION=9")), "sha256:")
    # An archive of another image under that name loads, and isn't the lock's.
    other = write_layout(tmp_path / "other", {name: version(3)})
    bundle.unlink()
    subprocess.run(["skopeo", "copy", "-q", f"oci:{other}:{name}", f"oci-archive:{bundle}:{name}"], check=True)
    done(cellwall(store, "load", "-i", str(bundle)))
    assert output_of(store, name, *SHOW) == "version 3 3\n"
    assert output_of(store, name, *SHOW, environment=locked(notebook)) == "version 1 1\n"
    missing = failed(
        cellwall(cellwall_root / "c", "run", "--pull", "never", name, **locked(notebook)), 125, digest, "isn't here"
    )
    assert len(missing.splitlines()) == 1


def test_an_image_that_is_gone(registry: Registry, tmp_path: Path, cellwall_root: Path) -> None:
    name, digest = push(registry, tmp_path, "lock/gone:1", 1)
    notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name}\nid")
    done(cellwall(cellwall_root / "a", "lock", str(notebook)))
    repository = name.removeprefix(f"{registry.host}/").rpartition(":")[0]
    request = urllib.request.Request(f"http://{registry.host}/v2/{repository}/manifests/{digest}", method="DELETE")
    urllib.request.urlopen(request, timeout=30).close()
    failed(cellwall(cellwall_root / "a", "lock", "--check", str(notebook)), 1, name)
    failed(cellwall(cellwall_root / "a", "run", name, **locked(notebook)), 125, "is gone from where it was", digest)
    failed(cellwall(cellwall_root / "a", "lock", "--update", str(notebook)), 1, "cell 1", name)
    failed(cellwall(cellwall_root / "a", "lock", "--bundle", str(tmp_path / "b.tar"), str(notebook)), 1, "gone")
    assert not (tmp_path / "b.tar").exists()
    assert lock_of(notebook)["images"][0]["digest"] == digest


def test_images_that_no_registry_has(tmp_path: Path, cellwall_root: Path) -> None:
    store = cellwall_root / "a"
    folder = write_layout(tmp_path / "base", {"it": version(1)})
    archive = tmp_path / "tagged.tar"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{folder}:it", f"oci-archive:{archive}:lab/own:1"], check=True)
    done(cellwall(store, "load", "-i", str(archive)))
    notebook = write_notebook(tmp_path / "n.ipynb", "%%container lab/own:1\nid", "%%container oci:base:it\nid")
    done(cellwall(store, "lock", str(notebook)))
    assert {image["name"]: image["from"] for image in lock_of(notebook)["images"]} == {
        "docker.io/lab/own:1": "store",
        "oci:base:it": "file",
    }
    bundle = tmp_path / "bundle.tar"
    done(cellwall(store, "lock", "--bundle", str(bundle), str(notebook)))
    done(cellwall(store, "lock", "--check", str(notebook)))
    # Both move: one by a tag on this machine, one because its folder is written anew.
    write_layout(folder, {"it": version(2)})
    assert output_of(store, f"oci:{folder}:it", *SHOW) == "version 2 2\n"
    done(cellwall(store, "tag", f"oci:{folder}:it", "lab/own:1"))
    said = failed(cellwall(store, "lock", "--check", str(notebook)), 1, "lab/own:1 has moved", "oci:base:it has moved")
    assert len(said.splitlines()) == 2
    for image in ("lab/own:1", "oci:base:it"):
        assert (
            done(spawned(store, "run", "--rm", image, *SHOW, cwd=tmp_path, environment=locked(notebook)))
            == "version 1 1\n"
        )
    empty = cellwall_root / "b"
    moved = spawned(empty, "run", "oci:base:it", cwd=tmp_path, environment=locked(notebook))
    failed(moved, 125, "isn't what oci:base:it is now")
    failed(cellwall(empty, "run", "lab/own:1", **locked(notebook)), 125, "isn't here")
    done(cellwall(empty, "load", "-i", str(bundle)))
    for image in ("lab/own:1", "oci:base:it"):
        assert (
            done(spawned(empty, "run", "--rm", image, *SHOW, cwd=tmp_path, environment=locked(notebook)))
            == "version 1 1\n"
        )


def test_what_a_lock_refuses(registry: Registry, tmp_path: Path, cellwall_root: Path) -> None:
    name, _ = push(registry, tmp_path, "lock/refuse:1", 1)
    store = cellwall_root / "a"
    notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name}\nid", "%%container host\nid")
    on = {"CELLWALL_LOCKED": "1"}
    failed(cellwall(store, "run", name, **on), 125, "CELLWALL_LOCK=FILE.ipynb", "%cellwall_lock")
    failed(cellwall(store, "run", "--locked", name, **on), 125, "CELLWALL_LOCK=FILE.ipynb")
    failed(cellwall(store, "run", name, **locked(tmp_path / "none.ipynb")), 125, "no such file")
    failed(cellwall(store, "run", name, **locked(notebook)), 125, "has no lock", f"cellwall lock {notebook}")
    failed(cellwall(store, "lock", "--check", str(notebook)), 1, "has no lock")
    said = cellwall(store, "lock", str(notebook))
    done(said)
    assert "image host isn't locked" in said.stderr
    failed(cellwall(store, "run", "host", **locked(notebook)), 125, "host can't be locked", "--locked=false")
    failed(cellwall(store, "run", "busybox:9", **locked(notebook)), 125, "busybox:9 isn't in the lock")
    failed(cellwall(store, "run", name, CELLWALL_LOCKED="maybe"), 125, "CELLWALL_LOCKED", "neither true nor false")
    failed(cellwall(store, "run", "--platform", "linux/arm64", name, **locked(notebook)), 125, "only for linux/amd64")
    # A cell more, and a cell less.
    lock = lock_of(notebook)
    write_notebook(notebook, "%%container other:1\nid", cellwall={"lock": lock})
    failed(cellwall(store, "lock", "--check", str(notebook)), 1, "cell 1 names it", "no cell names")
    write_notebook(notebook, "%%container lock:1\nid", cellwall={"lock": {**lock, "version": 2}})
    for option in ("--quiet", "--check", "--update"):
        failed(cellwall(store, "lock", option, str(notebook)), 1, "of version 2", "update cellwall")
    failed(cellwall(store, "run", name, **locked(notebook)), 125, "of version 2")
    write_notebook(
        notebook, "%%container x\nid", cellwall={"lock": {"version": 1, "images": [{"name": "\x1b[2J"}], "made": []}}
    )
    assert "\x1b" not in failed(cellwall(store, "run", name, **locked(notebook)), 125, "can't be read")
    failed(cellwall(store, "lock"), 125, "needs a notebook")
    failed(cellwall(store, "lock", "--check", "--update", "x"), 125, "--check")
    failed(cellwall(store, "lock", "--bundle", "b", "x", "y"), 125, "--bundle")
    failed(cellwall(store, "lock", str(tmp_path / "n.txt")), 1, "no such file")


def test_a_standing_container_is_held_to_the_lock(
    registry: Registry, tmp_path: Path, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellwall.runtime.engine import Engine
    from cellwall.runtime.errors import StatusError
    from cellwall.runtime.options import RunOptions

    name, _ = push(registry, tmp_path, "lock/stands:1", 1)
    notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name} --name lab\nid")
    done(cellwall(cellwall_root, "lock", str(notebook)))
    push(registry, tmp_path, "lock/stands:1", 2)
    monkeypatch.setenv("CELLWALL_LOCK", str(notebook))
    engine = Engine()
    try:
        engine.ensure(RunOptions(name, name="lab"))
        with pytest.raises(StatusError, match=r"made from another .*stands:1, .* the one of the lock: rm it first"):
            engine.ensure(RunOptions(name, name="lab", locked=True))
        engine.remove("lab", force=True)
        engine.ensure(RunOptions(name, name="lab", locked=True))
        assert str(engine.known.record(engine.container("lab").id)["image_id"]) == version(1).config_digest  # type: ignore[index]
        engine.remove("lab", force=True)
    finally:
        engine.close()


WRITER = """
import sys
from pathlib import Path
from cellwall.runtime.locking.lock import Lock
from cellwall.runtime.locking.notebook import NotebookFile
NotebookFile(Path(sys.argv[1])).write(Lock())
"""


@pytest.mark.parametrize("call", ["fchown", "fchmod", "fsync", "rename"])
def test_killed_while_it_writes(tmp_path: Path, call: str) -> None:
    """Whenever it is killed, the notebook is the old one, whole; and the next lock leaves nothing beside it."""
    if shutil.which("strace") is None:
        pytest.skip("strace isn't installed")
    notebook = write_notebook(tmp_path / "kill.ipynb", "%%container host\nid")
    before = notebook.read_bytes()
    writer = [sys.executable, "-c", WRITER, str(notebook)]
    environment = {**os.environ, "PYTHONPATH": str(TOP / "src")}
    inject = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", f"inject={call}:signal=KILL"]
    assert subprocess.run([*inject, *writer], env=environment, capture_output=True).returncode in (-9, 137)
    assert notebook.read_bytes() == before
    subprocess.run(writer, env=environment, check=True)
    assert lock_of(notebook) == {"version": 1, "images": [], "made": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kill.ipynb", "trace"]
