"""A launcher that hangs: nobody is told that what it cleans up is gone, and nothing of it is removed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import cellwall
from cellwall.runtime import engine as engines
from cellwall.runtime import stopping
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.interrupts import readable
from cellwall.runtime.launcher import client

from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root")


@contextmanager
def hanging(pid: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While the block runs the process is stopped, and a moment is as long as is waited for it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            for module in (client, engines, stopping):
                patch.setattr(module, "HANG_S", 0.1)
            yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_is_still_cleaned_up_is_not_removed(engine: Engine, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cellwall.container(busybox, name="held", engine=engine)
    launcher = engine.launcher.pid
    told = f"container held has ended, and .* its launcher .process {launcher}. still cleans up"
    with hanging(launcher, monkeypatch):
        for end in (
            lambda: engine.kill("held"),
            lambda: engine.stop("held"),
            lambda: engine.remove("held", force=True),
        ):
            with pytest.raises(CellwallError, match=told):
                end()
        assert [one.name for one in engine.containers(all=True)] == ["held"]
    until(lambda: engine.known.state(engine.container("held").id) is None, "the launcher's clean-up")
    engine.remove("held")


def test_an_engine_that_is_closed_says_what_it_has_not_waited_for(
    engine: Engine, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cellwall.container(busybox, name="held", engine=engine)
    launcher = engine.launcher.pid
    process = engine.keepers[engine.container("held").id]
    called: list[str] = []
    process.at_end(lambda: called.append("its storage is removed"))
    pidfd = os.pidfd_open(launcher)
    with hanging(launcher, monkeypatch):
        engine.close()
        assert called == []
        assert [text.partition(" after ")[0] for text in engine.warnings] == [
            f"container {process.container_id[:12]} is still being cleaned up",
            f"the launcher (process {launcher}) still cleans up",
        ]
    assert readable(pidfd, PATIENCE_S)
    os.close(pidfd)
    os.waitpid(launcher, 0)
    engine.remove("held")
