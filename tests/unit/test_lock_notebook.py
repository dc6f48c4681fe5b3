"""A notebook's file under the lock: every other byte stays, whatever its form; what is no notebook, or no lock, is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.errors import LockError
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.locking.lock import VERSION, Lock, LockedImage, full_name
from cellwall.runtime.locking.notebook import NotebookFile, with_lock

ONE = LockedImage(
    "docker.io/library/debian:latest",
    "linux/amd64",
    "registry",
    Digest("sha256:" + "a" * 64),
    Digest("sha256:" + "b" * 64),
    Digest("sha256:" + "c" * 64),
    "docker.io/library/debian",
)
LOCK = Lock((ONE,), ("docker.io/library/lab:1",))
CELL: dict[str, Any] = {
    "cell_type": "code",
    "id": "a",
    "metadata": {},
    "outputs": [],
    "execution_count": None,
    "source": "%%container debian\nid\n",
}


def document(**metadata: Any) -> dict[str, Any]:
    return {"cells": [CELL], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def without_lock(text: str) -> Any:
    found = json.loads(text)
    found["metadata"].get("cellwall", {}).pop("lock", None)
    if not found["metadata"].get("cellwall", True):
        del found["metadata"]["cellwall"]
    return found


def lines_kept(before: str, after: str) -> None:
    """Every line of the old text is there in the new one, in order, but for a comma at its end."""
    new = iter(line.rstrip(",") for line in after.splitlines())
    for line in before.splitlines():
        if line.strip() not in ('"metadata": {},', '"metadata": {}'):
            assert any(line.rstrip(",") == other for other in new), line


METADATA: list[dict[str, Any]] = [
    {},
    {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}},
    {"zebra": 1, "kernelspec": {}},
    {"authors": [], "cellwall": {}},
    {"cellwall": {"other": [1, 2]}, "kernelspec": {}},
    {"cellwall": {"lock": {"version": 1, "images": [], "made": []}, "zz": None}},
]


@pytest.mark.parametrize("metadata", METADATA)
@pytest.mark.parametrize("indent", [1, 2, "\t", None])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("ends", [False, True])
def test_the_form_stays(metadata: dict[str, Any], indent: Any, line_end: str, ends: bool) -> None:
    tail = line_end if ends else ""
    before = json.dumps(document(**metadata), indent=indent, ensure_ascii=False).replace("\n", line_end) + tail
    after = with_lock(before, LOCK.to_dict())
    assert json.loads(after)["metadata"]["cellwall"]["lock"] == LOCK.to_dict()
    assert without_lock(after) == without_lock(before)
    assert list(without_lock(after)["metadata"]) == list(without_lock(before)["metadata"])
    assert after.endswith("}" + tail)
    assert after.count("\n") == after.count(line_end) or not indent
    # What json.dumps would write of the same document is what stands there now: the indentation is the notebook's own.
    sorted_in = json.loads(after)
    assert after == json.dumps(sorted_in, indent=indent, ensure_ascii=False).replace("\n", line_end) + tail
    # Locked once more, the text stays as it is.
    assert with_lock(after, LOCK.to_dict()) == after


def test_odd_writing_elsewhere_stays() -> None:
    text = (
        '{ "nbformat":4, "nbformat_minor" : 5,\n\n "cells": [ {"cell_type":"markdown","metadata":{"n":1.50,"e":1E2,"u":"\\u00e9\\/"},'
        '"source":[]}\n ],\n  "metadata": { "a" : "\\u2028", "big": 12345678901234567890.0 }}\n\n'
    )
    after = with_lock(text, LOCK.to_dict())
    for piece in (
        '"n":1.50,"e":1E2,"u":"\\u00e9\\/"',
        '{ "nbformat":4, "nbformat_minor" : 5,\n\n',
        '"a" : "\\u2028"',
        "}}\n\n",
    ):
        assert piece in after
    assert json.loads(after)["metadata"]["cellwall"]["lock"] == LOCK.to_dict()


KEYS = st.sampled_from(["a", "cellwall", "kernelspec", "z", 'quo"te', "ünï"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "é", "\\", "\n\u2028", "}]"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([None, 0, 1, 4, "\t"]), st.booleans(), st.booleans())
def test_any_metadata(metadata: dict[str, Any], indent: Any, ascii: bool, sort: bool) -> None:
    if not isinstance(metadata.get("cellwall", {}), dict):
        metadata["cellwall"] = {"kept": metadata["cellwall"]}
    before = json.dumps(document(**metadata), indent=indent, ensure_ascii=ascii, sort_keys=sort)
    after = with_lock(before, LOCK.to_dict())
    found = json.loads(after)
    assert found["metadata"]["cellwall"].pop("lock") == LOCK.to_dict()
    if not metadata.get("cellwall") or set(metadata["cellwall"]) == {"lock"}:
        metadata.setdefault("cellwall", {})
    metadata["cellwall"].pop("lock", None)
    assert found == document(**metadata)


def test_written_and_read(tmp_path: Path) -> None:
    target = tmp_path / "real.ipynb"
    made = document(kernelspec={"name": "python3", "display_name": "Python 3"})
    nbformat.write(nbformat.from_dict(made), target)  # type: ignore[no-untyped-call]
    target.chmod(0o640)
    link = tmp_path / "link.ipynb"
    link.symlink_to(target)
    before = target.read_text()
    assert NotebookFile(link).write(LOCK) is True
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    lines_kept(before, target.read_text())
    read = nbformat.read(target, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(read)
    # Written once more by Jupyter itself, nothing moves.
    again = tmp_path / "again.ipynb"
    nbformat.write(read, again)  # type: ignore[no-untyped-call]
    assert again.read_text() == target.read_text()
    assert NotebookFile(target).lock == LOCK
    stamp = target.stat()
    assert NotebookFile(target).write(LOCK) is False
    assert target.stat() == stamp
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.ipynb", "link.ipynb", "real.ipynb"]


def test_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    target = tmp_path / "a.ipynb"
    target.write_text(json.dumps(document()))
    (tmp_path / f".tmp-a.ipynb-{2**22 + 1}").write_text("half")
    (tmp_path / f".tmp-a.ipynb-{os.getppid()}").write_text("another's")
    NotebookFile(target).write(LOCK)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".tmp-a.ipynb-{os.getppid()}", "a.ipynb"]


NO_NOTEBOOKS = {
    "it isn't JSON": ["", "not json", "\ufeff{}", "[" * 100_000, '{"cells": [}'],
    "it has no list of cells": ["[]", "3", "{}", '{"cells": {}, "nbformat": 4}'],
    "its nbformat isn't 4": ['{"cells": [], "nbformat": 3, "metadata": {}}', '{"cells": [], "metadata": {}}'],
    "it has no metadata": ['{"cells": [], "nbformat": 4}', '{"cells": [], "nbformat": 4, "metadata": []}'],
}


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in NO_NOTEBOOKS.items() for text in texts])
def test_no_notebook(tmp_path: Path, why: str, text: str) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(text)
    with pytest.raises(LockError, match=why):
        NotebookFile(path)


def test_what_cant_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="no such file"):
        NotebookFile(tmp_path / "none.ipynb")
    with pytest.raises(LockError, match="is a directory"):
        NotebookFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LockError, match="regular file"):
        NotebookFile(tmp_path / "pipe")
    path = tmp_path / "n.ipynb"
    path.write_bytes(b'{"cells": [], "nbformat": 4, "metadata": {"a": "\xff"}}')
    with pytest.raises(LockError, match="isn't JSON"):
        NotebookFile(path)
    path.write_text(json.dumps(document()))
    path.chmod(0o444)
    before = path.read_text()
    with pytest.raises(LockError, match=r"read-only: make it writable \(chmod u\+w\)"):
        NotebookFile(path).write(LOCK)
    assert path.read_text() == before
    path.chmod(0o644)
    path.write_text(json.dumps(document(cellwall=[1])))
    assert NotebookFile(path).lock is None
    with pytest.raises(LockError, match=r"metadata\.cellwall of .* is no object"):
        NotebookFile(path).write(LOCK)


def changed(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = LOCK.to_dict()
    found["images"][0] |= changes
    return found


HOSTILE: list[tuple[str, Any]] = [
    ("isn't an object", None),
    ("isn't an object", [1]),
    ("version isn't a number", {}),
    ("version isn't a number", {"version": True, "images": [], "made": []}),
    ("version isn't a number", {"version": "1", "images": [], "made": []}),
    ("version isn't a number", {"version": 0, "images": [], "made": []}),
    ("images isn't a list", {"version": 1, "made": []}),
    ("images isn't a list", {"version": 1, "images": [LOCK.to_dict()["images"][0]] * 1001, "made": []}),
    ("made isn't a list", {"version": 1, "images": []}),
    ("a name in made", {"version": 1, "images": [], "made": [3]}),
    ("must be lower case", {"version": 1, "images": [], "made": ["UPPER"]}),
    ("isn't an object", {"version": 1, "images": ["debian"], "made": []}),
    ("names an image twice", {"version": 1, "images": LOCK.to_dict()["images"] * 2, "made": []}),
    ("the name of an image", changed(name="")),
    ("the name of an image", changed(name="debian\x1b[2J")),
    ("the name of an image", changed(name="a" * 1001)),
    ("isn't a repository name", changed(name="-x-/..")),
    ("from is none of", changed(**{"from": "elsewhere"})),
    ("goes with from registry", changed(**{"from": "store"})),
    ("in full", changed(repository="debian")),
    ("repository", changed(repository=None)),
    ("platform", changed(platform=["linux"])),
    ("isn't a platform", changed(platform="a/b/c/d")),
    ("isn't a digest", changed(digest="latest")),
    ("hexadecimal digits", changed(manifest="sha256:00")),
    ("isn't a digest", changed(id=7)),
]


@pytest.mark.parametrize(("why", "data"), HOSTILE)
def test_hostile_metadata(why: str, data: Any) -> None:
    with pytest.raises(LockError, match="the lock in here.ipynb can't be read") as raised:
        Lock.read(data, "here.ipynb")
    assert why in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_newer_lock_is_left_alone() -> None:
    with pytest.raises(
        LockError, match=rf"is of version 2, and this cellwall reads version {VERSION}: update cellwall"
    ):
        Lock.read({"version": 2, "anything": "else"}, "here.ipynb")


def test_platforms() -> None:
    arm = LockedImage(ONE.name, "linux/arm64", "registry", ONE.digest, ONE.manifest, ONE.id, ONE.repository)
    both = Lock((ONE, arm))
    assert both.find(ONE.name, "linux/arm64/v8") == arm
    assert both.find(ONE.name, "linux/amd64") == ONE
    assert both.find(ONE.name, "linux/s390x") is None
    assert both.find("docker.io/library/other:latest") is None
    # The one image that there is runs where nothing else is asked for, as the store's own does.
    assert Lock((arm,)).find(ONE.name) == arm
    assert Lock.read(both.to_dict(), "x").to_dict() == both.to_dict()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("docker://debian:12", "docker.io/library/debian:12"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
        ("oci:./base:1", "oci:./base:1"),
        ("host", "host"),
    ],
)
def test_full_names(text: str, name: str) -> None:
    assert full_name(text) == name
