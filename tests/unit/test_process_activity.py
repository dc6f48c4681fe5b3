"""Whether a process is at work: what tells one that hangs from one that only takes long."""

from __future__ import annotations

import os
import subprocess
import sys

from cellwall.runtime.launcher.fuse_server import FuseServer
from cellwall.runtime.linux.process import activity

from ..waiting import until


def test_one_that_works_and_one_that_waits() -> None:
    code = "import sys, threading\nsys.stdin.buffer.read(1)\nprint('working', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            server = FuseServer(child.pid, os.pidfd_open(child.pid), -1)
            assert server.is_at_work(), "nothing is known of it yet"
            until(lambda: not server.is_at_work(), "a process that waits")
            assert activity(child.pid)[0] == {"S"}
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"x")
            child.stdin.flush()
            assert child.stdout.readline() == b"working\n"
            for _ in range(3):
                assert server.is_at_work()
        finally:
            child.kill()
        os.close(server.pidfd)
    assert activity(child.pid) == (set(), 0)
