"""Where mounts can't translate ids: every container gets a copy of its image with its own ids, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.cli.run_options import from_keywords
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import UnsupportedError
from cellwall.runtime.pump import Pipes, pump

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def old_engine(cellwall_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine as on a kernel whose mounts can't translate ids."""
    monkeypatch.setenv("CELLWALL_IDMAP", "off")
    engine = Engine()
    yield engine
    engine.close()


def test_root_inside_is_still_nobody_outside(old_engine: Engine, busybox: str, cellwall_root: Path) -> None:
    script = "cat /proc/self/uid_map; id -u; echo mine > /file; stat -c %u /file /bin/busybox"
    result = cellwall.run(busybox, script=script, engine=old_engine)
    words = result.stdout.split()
    assert int(words[1]) >= 0x70000000
    assert words[3:] == ["0", "0", "0"]
    assert [str(change) for change in result.diff()] == ["A /file"]
    assert any("copy of its image" in text for text in old_engine.warnings)
    assert list((cellwall_root / "storage" / "vfs" / "containers").iterdir()) == []


def test_the_copy_belongs_to_the_range_of_the_container(old_engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=old_engine) as box:
        box.run("echo one > /root/file")
        entry = old_engine.known.kept("lab")["plan"][0]
        assert Path(entry["source"], "root/file").stat().st_uid == entry["id_map"][0] >= 0x70000000
    with cellwall.container(busybox, name="lab", engine=old_engine) as box:
        assert box.run("cat /root/file").stdout == "one\n"
        assert "A /root/file" in [str(change) for change in old_engine.diff("lab")]
        box.remove()


def test_the_hosts_folders_are_read_only(old_engine: Engine) -> None:
    result = cellwall.run("host", script="test -x /usr/bin/env && echo seen; touch /usr/x", engine=old_engine)
    assert result.stdout == "seen\n"
    assert "Read-only" in result.stderr


def test_overlay_is_refused(old_engine: Engine, busybox: str) -> None:
    with pytest.raises(UnsupportedError, match="use vfs"):
        cellwall.run(busybox, ["true"], storage_driver="overlay", engine=old_engine)


def test_vfs_by_choice(engine: Engine, busybox: str) -> None:
    result = cellwall.run(busybox, script="stat -c %u /bin/busybox; touch /x", storage_driver="vfs", engine=engine)
    assert result.stdout == "0\n"
    assert [str(change) for change in result.diff()] == ["A /x"]


def test_the_changes_of_a_copy_come_with_the_end(engine: Engine, busybox: str) -> None:
    options = replace(from_keywords(busybox, ("touch", "/x"), storage_driver="vfs"), rm=True, record_changes=True)
    with Pipes(stdin=False) as made:
        stdin_fd, stdout_fd, stderr_fd = made.child_fds
        with engine.run(options, stdin_fd=stdin_fd, stdout_fd=stdout_fd, stderr_fd=stderr_fd) as process:
            ended = pump(process, made)
    assert [str(change) for change in ended.changes or ()] == ["A /x"]


def test_a_launch_that_fails_leaves_no_copy(old_engine: Engine, busybox: str, cellwall_root: Path) -> None:
    options = replace(from_keywords(busybox, ("true",)), rm=True)
    # No such descriptor: the request can't be sent, after the copy was made.
    with pytest.raises(OSError, match="Bad file descriptor"):
        old_engine.run(options, stdin_fd=1 << 18, stdout_fd=1 << 18, stderr_fd=1 << 18)
    assert list((cellwall_root / "storage" / "vfs" / "containers").iterdir()) == []
    assert list(old_engine.paths.ids.iterdir()) == []
