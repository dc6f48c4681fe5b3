"""Pulling in a real kernel: one block of progress, interrupts, and images that aren't there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .. import registries
from ..leaks import leftovers
from ..registries import Registry, busybox_image, write_layout
from ..waiting import until
from .driver import Notebook

pytestmark = pytest.mark.needs("root")
registry = registries.registry


@pytest.fixture
def notebook(cellwall_root: Path) -> Iterator[Notebook]:
    with Notebook() as started:
        started.run("%load_ext cellwall")
        yield started


@contextmanager
def silent_registry() -> Iterator[str]:
    """``host:port`` of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:  # the listener was closed
                    return

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def test_progress_is_one_block(notebook: Notebook, registry: Registry, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"latest": busybox_image()})
    name = registry.push(f"oci:{layout}:latest", "magics/busybox:1")
    cell = notebook.run(f"%%container {name}\necho from the image")
    assert cell.error is None, cell.shown_error
    assert cell.text() == "from the image\n"
    first = cell.kinds("display_data")
    updates = cell.kinds("update_display_data")
    # Behind the pull's block, the line that says how the cell ended.
    assert [content["data"]["text/plain"].partition(" ")[0] for content in first] == ["pulling", "✓"]
    del first[1]
    assert updates
    assert {content["transient"]["display_id"] for content in [*first, *updates]} == {
        first[0]["transient"]["display_id"]
    }
    last = updates[-1]["data"]
    assert last["text/plain"].startswith(f"pulled {name}: ")
    assert f"pulled {name}: " in last["text/html"]
    assert "<script" not in last["text/html"]
    again = notebook.run(f"%%container {name}\necho again")
    assert again.text() == "again\n"
    assert [content["data"]["text/plain"][:8] for content in again.kinds("display_data")] == ["✓ exit 0"]
    assert notebook.complete("%%container 127") == ([name], "127")


def test_an_interrupted_pull_leaves_nothing(notebook: Notebook, cellwall_root: Path) -> None:
    with silent_registry() as host:
        cell = notebook.start(f"%%container {host}/no/answer:1\ntrue")
        cell.until(lambda: cell.kinds("display_data"), "the block that says what is waited for")
        began = time.monotonic()
        notebook.interrupt()
        assert cell.wait().shown_error[0].startswith("KeyboardInterrupt")
        print(f"interrupted after {time.monotonic() - began:.3f} s")
        assert "interrupted" in cell.kinds("update_display_data")[-1]["data"]["text/plain"]
    assert notebook.run("%%container host\necho usable").text() == "usable\n"
    until(lambda: leftovers(cellwall_root) == [], lambda: leftovers(cellwall_root))


def test_a_background_pull_is_killed(notebook: Notebook) -> None:
    with silent_registry() as host:
        cell = notebook.run(f"%%container {host}/no/answer:1 --bg --proc proc\ntrue")
        assert cell.error is None
        other = notebook.run(
            "proc.kill()\ntry:\n    proc.wait(60)\nexcept Exception as error:\n    print(type(error).__name__)"
        )
        assert other.text() == "Cancelled\n"


def test_images_that_are_not_there(notebook: Notebook, registry: Registry) -> None:
    for name in (f"{registry.host}/nobody/made:this", "oci:/nowhere/at/all:x", "host --pull sometimes"):
        shown = notebook.run(f"%%container {name}\ntrue").shown_error
        assert len(shown) == 1, shown
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
        shown = notebook.run(f"%%container {closed}/a/b:1\ntrue").shown_error
        assert len(shown) == 1, shown
        assert closed in shown[0]
