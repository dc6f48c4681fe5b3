"""The control group of a container that has ended: looked at again for as long as something in it takes to end, and then told of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cellwall.runtime.errors import CgroupError
from cellwall.runtime.launcher.sandbox import Sandbox


class Group:
    """One whose processes don't end: they wait in the kernel, or are still being taken apart."""

    def __init__(self, *, raises: bool) -> None:
        self.raises = raises

    def kill(self) -> None:
        if self.raises:
            raise CgroupError("processes wait in the kernel and don't end")

    def remove(self) -> bool:
        return False


@pytest.mark.parametrize("raises", [False, True])
def test_a_group_that_is_not_empty_yet(*, raises: bool, capfd: pytest.CaptureFixture[str]) -> None:
    sandbox: Any = object.__new__(Sandbox)
    later: list[tuple[float, object]] = []
    sandbox.server = SimpleNamespace(after=lambda delay_s, callback: later.append((delay_s, callback)))
    sandbox.group, sandbox.retries, sandbox.sandbox_id = Group(raises=raises), [0.5], "a" * 64
    sandbox._remove_group()
    assert later == [(0.5, sandbox._remove_group)]
    forgotten: list[bool] = []
    sandbox.release_network = lambda then: forgotten.append(True)
    sandbox._remove_group()
    assert (len(later), forgotten) == (1, [True])
    assert "the control group of aaaaaaaaaaaa can't be removed" in capfd.readouterr().err
