"""A running container held still for a moment, and let go in any case: also when this process is killed meanwhile.

A helper process freezes the container's group and thaws it when its standard input ends, which the kernel sees to.
Source: cgroups(7); admin-guide/cgroup-v1/freezer-subsystem.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .cgroups.group import Group
from .errors import CellwallError, CgroupError, UnsupportedError

_PACKAGES = str(Path(__file__).absolute().parents[2])
_PACKAGE = __name__.partition(".")[0]
_CODE = f"""
import json, os, sys
sys.path.append(sys.argv[1])
from {_PACKAGE}.runtime.errors import CellwallError, UnsupportedError
from {_PACKAGE}.runtime.cgroups.group import Group
group = Group.open(json.loads(sys.argv[2]))
try:
    try:
        group.freeze()
    except CellwallError as error:
        os.write(1, (b"u" if isinstance(error, UnsupportedError) else b"c") + str(error).encode())
        raise SystemExit(1)
    os.write(1, b"\\0")
    os.read(0, 1)
finally:
    try:
        group.thaw()
    except CellwallError:
        pass  # it has ended, or it can't be frozen anyway
"""


@contextmanager
def paused(paths: dict[str, str]) -> Iterator[None]:
    """The processes of the group ``paths`` (by controller) stand still while the block runs. Raises CgroupError, UnsupportedError."""
    group = Group.open(paths)
    helper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CODE, _PACKAGES, json.dumps(paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ},
        cwd="/",
        # A Ctrl-C in a terminal is the caller's to handle.
        process_group=0,
    )
    try:
        assert helper.stdout is not None
        answer = os.read(helper.stdout.fileno(), 4096)
        if answer[:1] == b"u":
            raise UnsupportedError(answer[1:].decode(errors="replace"))
        if answer != b"\0":
            raise CgroupError(answer[1:].decode(errors="replace") or "the helper that pauses the container ended early")
        yield
    finally:
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.close()
        helper.wait()
        helper.stdout.close()
        with suppress(CellwallError):  # the container has ended meanwhile, and its group with it
            group.thaw()
