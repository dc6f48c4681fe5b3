"""Resource limits by a bundle's names, on the real kernel."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import Any

import pytest

import cellwall
from cellwall.runtime.errors import SpecError
from cellwall.runtime.linux import rlimits

SOURCE = os.path.dirname(os.path.dirname(cellwall.__file__))


def applied(limits: list[dict[str, Any]], before: str = "") -> dict[str, Any]:
    """What a process of its own has after ``limits``."""
    code = (
        f"import json, sys; sys.path.insert(0, {SOURCE!r})\n"
        "from cellwall.runtime.linux import rlimits as r\n"
        f"{before}\n"
        f"said = r.apply_bundle({limits!r})\n"
        "print(json.dumps({'said': said, 'nofile': r.getrlimit('RLIMIT_NOFILE'), 'core': r.getrlimit('RLIMIT_CORE')}))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=30, capture_output=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", sorted(rlimits.RLIMITS))
def test_numbers_are_the_kernels(name: str) -> None:
    if not hasattr(resource, name):  # RLIMIT_LOCKS is not in the module, and LOCKS's number has had no use since 2.4
        assert name == "RLIMIT_LOCKS"
        return
    assert rlimits.RLIMITS[name] == getattr(resource, name)


def test_lowering() -> None:
    answer = applied(
        [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    )
    assert answer == {"said": [], "nofile": [100, 200], "core": [0, 0]}


def test_a_limit_that_cannot_rise_goes_as_high_as_it_can_and_says_so() -> None:
    # Without CAP_SYS_RESOURCE nobody raises a hard limit.
    before = "from cellwall.runtime.linux import capabilities as c; c.hold(())\nr.setrlimit('RLIMIT_NOFILE', 300, 300)"
    answer = applied([{"type": "RLIMIT_NOFILE", "soft": 250, "hard": 100_000}], before)
    assert answer["nofile"] == [250, 300]
    assert answer["said"] == [
        "ulimit nofile is 250:300, not 250:100000: this process can't raise its hard limit of 300"
    ]


def test_bad_values() -> None:
    with pytest.raises(SpecError, match="soft limit 5 is above hard limit 4"):
        rlimits.apply_bundle([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 4}])
    with pytest.raises(SpecError, match="RLIMIT_WINGS"):
        rlimits.apply_bundle([{"type": "RLIMIT_WINGS", "soft": 5, "hard": 5}])
    assert rlimits.rlimit_name("nofile") == "RLIMIT_NOFILE"
    with pytest.raises(SpecError, match=r"--ulimit: 'wings' is not a limit; the limits are as, core"):
        rlimits.rlimit_name("wings")
