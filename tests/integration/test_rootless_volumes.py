"""Volumes, bind mounts and cp of an ordinary user, with subordinate ids and with none."""

from __future__ import annotations

import pytest

from .test_rootless import User, user  # noqa: F401  the fixture

pytestmark = pytest.mark.needs("root", "user-namespaces", "overlay-userns")


def test_the_same_as_far_as_the_kernel_allows(user: User) -> None:  # noqa: F811
    found = user(
        """
import subprocess, sys
home = os.environ["HOME"]
os.makedirs(home + "/work")
os.chdir(home + "/work")
open("mine", "w").write("m")
def cli(*words, data=b""):
    done = subprocess.run([sys.executable, "-c", "import sys; from cellwall.runtime.cli.command import main; sys.exit(main())", *words], input=data, capture_output=True)
    return [done.returncode, done.stdout.decode(), done.stderr.decode()]
said = [
    cli("run", "-q", "--rm", "-v", ".:/w", "-w", "/w", image, "sh", "-c", "stat -c %u mine; touch made; chmod 640 made"),
    cli("run", "-q", "--rm", "-v", "vol:/etc", image, "sh", "-c", "cat /etc/motd; stat -c %u /etc; echo two > /etc/new"),
    cli("run", "-q", "--name", "box", "-v", "vol:/v", "-v", "/anonymous", image, "cat", "/v/new"),
    cli("cp", "mine", "box:/v/copied"),
    cli("cp", "box:/v", "out"),
    cli("volume", "rm", "vol"),
    cli("rm", "-v", "box"),
    cli("volume", "ls", "-q"),
    cli("run", "-q", "-d", "--name", "live", "-v", "vol:/v", image, "sleep", "60"),
    cli("cp", "mine", "live:/v/live"),
    cli("exec", "live", "stat", "-c", "%u", "/v/copied", "/v/live"),
    cli("cp", "live:/v/live", "back"),
    cli("rm", "-f", "live"),
    cli("volume", "rm", "vol"),
    cli("run", "-q", "--rm", "--mount", f"type=image,src={image},dst=/i,image-subpath=etc", image, "sh", "-c", "cat /i/motd; touch /i/x 2>&1 | grep -c Read-only"),
    cli("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "memory"),
]
owners = {name: os.path.exists(name) and os.stat(name).st_uid == os.getuid() for name in ("mine", "made", "out/new", "out/copied", "back")}
print(json.dumps([said, owners, os.listdir(home + "/.local/share/cellwall/volumes")]))
"""
    )
    said, owners, left = found
    outs = [(status, out) for status, out, _ in said]
    assert outs[:4] == [(0, "0\n"), (0, "hello from a layer\n0\n"), (0, "two\n"), (0, "")], said
    assert outs[4] == (0, ""), said[4]
    assert (outs[5][0], "in use by container" in said[5][2]) == (1, True)
    assert outs[6:8] == [(0, "box\n"), (0, "vol\n")], said
    assert outs[9:14] == [(0, ""), (0, "0\n0\n"), (0, ""), (0, "live\n"), (0, "vol\n")], said
    assert outs[14] == (0, "hello from a layer\n1\n"), said[14]
    assert (outs[15][0], "an ordinary user can't mount it" in said[15][2]) == (1, True)
    assert all(owners.values()), owners
    assert left == [".lock"]
