"""`%namespaces` and `%mounts` in a real kernel: views as values, both twins, data, errors of one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .driver import Notebook
from .test_magics_commands import Page

pytestmark = pytest.mark.needs("root", "user-namespaces")


@pytest.fixture
def notebook(cellwall_root: Path) -> Iterator[Notebook]:
    with Notebook() as notebook:
        assert notebook.run("%load_ext cellwall").error is None
        yield notebook
        notebook.run("%container rm -f lab")


def test_views_are_values(notebook: Notebook) -> None:
    assert notebook.run("%container run -d --name lab --tmpfs /scratch host sleep 100000").error is None
    (shown,) = notebook.run("%namespaces lab").kinds("execute_result")
    page = Page(shown["data"]["text/html"])
    assert "table" in page.tags
    assert [row[0][:3] for row in page.cells[1:]] == ["mnt", "pid", "net", "ipc", "uts", "use", "cgr", "tim"]
    assert notebook.run("view = %namespaces lab").error is None
    pid = notebook.value("view.subjects[1].pid")
    for kind in ("mnt", "user"):
        inode = notebook.value(f"view.subjects[1].namespace('{kind}').inode")
        assert inode == Path(f"/proc/{pid}/ns/{kind}").stat().st_ino
        for twin in (page.text, shown["data"]["text/plain"]):
            assert str(inode) in twin
    # Kept as a value nothing is shown; its data is the command's.
    assert notebook.run("mounts = %mounts lab").kinds("execute_result") == []
    assert notebook.value("[point.kind for point in mounts.mounts if point.target == '/scratch']") == ["tmpfs"]
    data = json.loads(notebook.run("%mounts lab --format json").text())
    assert data == notebook.value("mounts.to_dict()")
    (shown,) = notebook.run("mounts").kinds("execute_result")
    assert "/scratch" in Page(shown["data"]["text/html"]).text
    # Without a name: the kernel itself, and what runs beside it.
    assert notebook.run("own = %mounts").error is None
    assert notebook.value("own.pid == __import__('os').getpid() and own.shared")
    assert notebook.run("every = %namespaces").error is None
    assert notebook.value("[subject.name for subject in every.subjects][1:]") == ["lab"]
    missing = notebook.run("%namespaces nosuch")
    assert missing.shown_error == ["NotFound: no container nosuch: cellwall ps -a lists them"]
    notebook.run("%container kill lab")
    ended = notebook.run("%mounts lab")
    assert ended.shown_error == [
        "StatusError: container lab is exited, and this needs it running: start it (cellwall start lab)"
    ]
