"""Capability names and docker's rules for adding and dropping them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import cellwall
from cellwall.runtime.errors import SpecError
from cellwall.runtime.linux import capabilities as linux
from cellwall.runtime.security.capabilities import DEFAULT, capability, resolve

SOURCE = os.path.dirname(os.path.dirname(cellwall.__file__))


def test_default_is_dockers_fourteen() -> None:
    # 0xa80425fb is what a default docker container shows in /proc/self/status.
    assert linux.mask(resolve()) == 0xA80425FB
    assert len(DEFAULT) == 14


def test_numbers_are_the_kernels() -> None:
    assert linux.NAMES[0] == "CAP_CHOWN"
    assert linux.NAMES[21] == "CAP_SYS_ADMIN"
    assert linux.NAMES[31] == "CAP_SETFCAP"
    assert linux.NAMES[40] == "CAP_CHECKPOINT_RESTORE"


def test_mask_and_names_are_inverse() -> None:
    assert linux.names(linux.mask(DEFAULT)) == DEFAULT
    assert linux.names(1 << 50) == ("CAP_50",)
    with pytest.raises(SpecError, match="CAP_FLY"):
        linux.mask(["CAP_FLY"])


@pytest.mark.parametrize("name", ["net_admin", "NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", " Net_Admin "])
def test_spellings(name: str) -> None:
    assert capability(name) == "CAP_NET_ADMIN"


def test_unknown_name_says_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"--cap-drop: 'SYS_ADMEN' is not a capability; did you mean SYS_ADMIN\?"):
        resolve(drop=["SYS_ADMEN"])
    # CAP_ is in every name, so it makes no two of them alike.
    with pytest.raises(SpecError, match=r"'FOO' is not a capability; see capabilities\(7\)"):
        resolve(add=["FOO"])


def test_rules() -> None:
    assert set(resolve(["NET_ADMIN"])) == {*DEFAULT, "CAP_NET_ADMIN"}
    assert set(resolve(drop=["MKNOD"])) == set(DEFAULT) - {"CAP_MKNOD"}
    assert resolve(["CHOWN"], ["ALL"]) == ("CAP_CHOWN",)
    assert resolve(drop=["all"]) == ()
    assert set(resolve(["ALL"], ["SYS_ADMIN"])) == set(linux.NAMES) - {"CAP_SYS_ADMIN"}
    # A name that is both added and dropped is added, as in docker.
    assert "CAP_MKNOD" in resolve(["MKNOD"], ["MKNOD"])
    assert resolve(drop=["CHOWN"], privileged=True) == linux.NAMES
    with pytest.raises(SpecError):
        resolve(["nonsense"], privileged=True)


def test_own_sets_are_those_of_proc() -> None:
    with open("/proc/self/status") as file:
        shown = {line.split(":")[0]: line.split()[1] for line in file if line.startswith("Cap")}
    effective, permitted, inheritable = linux.capget()
    assert (f"{effective:016x}", f"{permitted:016x}") == (shown["CapEff"], shown["CapPrm"])
    assert (f"{inheritable:016x}", f"{linux.bounding():016x}") == (shown["CapInh"], shown["CapBnd"])


def test_hold_never_gives_more_than_there_is() -> None:
    """Also an ordinary user may hold less: asking for all leaves what there was, asking for none leaves nothing."""
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r})\n"
        "from cellwall.runtime.linux import capabilities as c\n"
        "before = c.capget()[1]\n"
        "c.hold(c.NAMES)\n"
        "assert c.capget()[:2] == (before, before), c.capget()\n"
        "c.hold(())\n"
        "assert c.capget() == (0, 0, 0), c.capget()\n"
        "c.hold(c.NAMES)\n"
        "assert c.capget() == (0, 0, 0), c.capget()\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=30)
