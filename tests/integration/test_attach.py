"""What kernels before 6.15 need: layers attached for a moment, in a mount namespace that is the launcher's alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "overlay")

SOURCE = Path(__file__).resolve().parents[2] / "src"
CODE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cellwall.runtime.launcher import rootfs
from cellwall.runtime.linux.mounts import AT_FDCWD, MNT_DETACH, open_tree, umount2
base = sys.argv[2]
rootfs.attach_directory = f"{base}/attach"
fds = [open_tree(AT_FDCWD, f"{base}/{name}") for name in ("top", "bottom", "above")]
paths = rootfs.attach(fds)
overlay_fd = rootfs._overlay_of({"source": "overlay"}, paths, ("upper", "work"))
for path in paths:
    umount2(path, MNT_DETACH)
merged_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=overlay_fd)
print(sorted(os.listdir(merged_fd)), open(f"/proc/self/fd/{merged_fd}/both").read())
os.close(os.open("new", os.O_CREAT, 0o644, dir_fd=merged_fd))
"""


def test_layers_are_attached_where_nobody_sees_them(tmp_path: Path) -> None:
    for name in ("top", "bottom", "above/upper", "above/work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "top/both").write_text("of the top")
    (tmp_path / "bottom/both").write_text("of the bottom")
    (tmp_path / "bottom/below").write_text("")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CODE, str(SOURCE), str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "['below', 'both'] of the top", done.stderr
    assert (tmp_path / "above/upper/new").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
