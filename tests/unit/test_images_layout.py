from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cellwall.runtime.errors import Cancelled, ImageError
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.images.job import Stop
from cellwall.runtime.images.layout import Layout

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "images")
    layout.prepare()
    return layout


def sweep(layout: Layout, kept: set[Digest] | None = None, driver: str = "vfs") -> list[Digest]:
    return layout.sweep(lambda: kept or set(), lambda name: name == driver, lambda name, chain_id: name == driver)


def files(layout: Layout) -> set[str]:
    return {str(path.relative_to(layout.root)) for path in layout.root.rglob("*") if not path.name.startswith(".lock-")}


EMPTY = {"oci-layout", "index.json", "blobs", "blobs/sha256"}


def test_a_new_layout_is_what_the_specification_says(layout: Layout) -> None:
    assert json.loads((layout.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((layout.root / "index.json").read_text())["manifests"] == []
    assert files(layout) == EMPTY
    before = (layout.root / "index.json").stat().st_mtime_ns
    Layout(layout.root).prepare()
    assert (layout.root / "index.json").stat().st_mtime_ns == before


def test_blobs_appear_with_the_commit(layout: Layout) -> None:
    with layout.transaction(Stop()) as transaction:
        transaction.add(A, b"a")
        assert not layout.has_blob(A, 1)
        assert transaction.find(A).read_bytes() == b"a"
        transaction.commit()
        assert layout.read_blob(A) == b"a"
    assert files(layout) == EMPTY | {f"blobs/sha256/{A.encoded}"}


def test_a_failed_transaction_leaves_only_its_journal(layout: Layout) -> None:
    with pytest.raises(RuntimeError), layout.transaction(Stop()) as transaction:
        transaction.add(A, b"a")
        raise RuntimeError
    assert files(layout) == EMPTY
    with pytest.raises(RuntimeError), layout.transaction(Stop()) as transaction:
        transaction.journal("vfs", [A, B])
        transaction.add(A, b"a")
        raise RuntimeError
    assert [path.name for path in layout.root.glob(".tmp-*/*")] == ["layers.json"]
    # B, the upper one, goes first; A is another image's as well.
    assert sweep(layout, {A}) == [B]
    assert files(layout) == EMPTY


def test_another_driver_s_journal_is_left_to_it(layout: Layout) -> None:
    with layout.held():
        layout.note_removed({"overlay": [A], "vfs": [B]})
    assert sweep(layout, driver="vfs") == [B]
    assert sweep(layout, driver="vfs") == []
    assert sweep(layout, driver="overlay") == [A]
    assert files(layout) == EMPTY


def test_nothing_is_swept_while_the_store_is_held(layout: Layout) -> None:
    (layout.blob_path(A)).write_bytes(b"a")
    with layout.held(), layout.held():
        assert sweep(layout) == []
        assert layout.has_blob(A, 1)
    sweep(layout)
    assert not layout.has_blob(A, 1)


def test_nothing_is_deleted_where_it_isn_t_known_what_is_needed(layout: Layout) -> None:
    layout.blob_path(A).write_bytes(b"not what A is of")
    layout.blob_path(B).write_bytes(b"b")
    with layout.editing() as entries:
        entries.append({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": A, "size": 16})
        layout.note_removed({"vfs": [C]})
    assert sweep(layout) == []
    assert layout.has_blob(B, 1) and list(layout.root.glob(".tmp-*"))


def test_a_damaged_index_is_named(layout: Layout) -> None:
    (layout.root / "index.json").write_text("{")
    with pytest.raises(ImageError, match="index.json: isn't JSON"):
        layout.entries()


def test_a_failed_edit_changes_nothing(layout: Layout) -> None:
    with pytest.raises(RuntimeError), layout.editing() as entries:
        entries.append({})
        raise RuntimeError
    assert layout.entries() == []


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as err:
            outcome.append(err)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, outcome


def test_two_threads_edit_one_after_the_other(layout: Layout) -> None:
    def add(name: str) -> None:
        for number in range(20):
            with Layout(layout.root).editing() as entries:
                entries.append({"name": f"{name}{number}"})

    threads = [in_thread(lambda name=name: add(name))[0] for name in "xyz"]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert sorted(entry["name"] for entry in layout.entries()) == sorted(f"{n}{i}" for n in "xyz" for i in range(20))


def test_one_at_a_time_for_a_name(layout: Layout) -> None:
    waiting, stop = threading.Event(), Stop()

    def second() -> str:
        with layout.alone("x", stop, waiting.set):
            return "had it"

    with layout.alone("x", Stop(), lambda: None):
        # Another name doesn't wait.
        with layout.alone("y", Stop(), lambda: pytest.fail("waited for another name")):
            pass
        thread, outcome = in_thread(second)
        assert waiting.wait(30)
        assert outcome == []
    thread.join()
    assert outcome == ["had it"]


def test_waiting_for_a_name_can_be_cancelled(layout: Layout) -> None:
    waiting, stop = threading.Event(), Stop()

    def second() -> None:
        with layout.alone("x", stop, waiting.set):
            pass

    with layout.alone("x", Stop(), lambda: None):
        thread, outcome = in_thread(second)
        assert waiting.wait(30)
        stop.set()
        thread.join()
    assert isinstance(outcome[0], Cancelled)
