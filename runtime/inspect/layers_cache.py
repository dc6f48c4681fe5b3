"""What an image's layer holds, kept beside it: a layer never changes, so its tree is walked once.

    layers/sha256-<chain id>/contents.json     {"version", "contents": see layers_contents.py}

The file appears whole or not at all, also when its writer is killed (it has no name until then), and goes with its layer. Where it
can't be kept the tree is walked again next time. Source: open(2) O_TMPFILE, linkat(2).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ..linux.files import write_all

if TYPE_CHECKING:
    from ..storage.driver import Lower

_NAME = "contents.json"
# Another form of contents, or other bounds of what is looked at.
_VERSION = 2
# Ours are below 100 kB.
_MOST_BYTES = 4 << 20


def _folder(lower: Lower) -> str:
    return os.path.dirname(lower if isinstance(lower, str) else lower["erofs"])


def load(lower: Lower) -> dict[str, Any] | None:
    """The contents of the layer of a plan's lower, or None where they aren't known yet."""
    try:
        with open(f"{_folder(lower)}/{_NAME}", "rb") as file:
            kept = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError):  # not there, or damaged: it is made again
        return None
    if not isinstance(kept, dict) or kept.get("version") != _VERSION:
        return None
    contents: dict[str, Any] = kept["contents"]
    return contents


def keep(lower: Lower, contents: dict[str, Any]) -> None:
    """Remember the contents of a layer, where that can be done."""
    try:
        folder_fd = os.open(_folder(lower), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it has gone
        return
    try:
        # Only a folder of the store's, which has its record; a plan may name one of the machine.
        if not os.access("layer.json", os.F_OK, dir_fd=folder_fd):
            return
        fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
        try:
            write_all(fd, json.dumps({"version": _VERSION, "contents": contents}).encode())
            # With a descriptor among its arguments Python asks for AT_SYMLINK_FOLLOW, else it doesn't.
            place = f"/proc/self/fd/{fd}"
            try:
                os.link(place, _NAME, dst_dir_fd=folder_fd, follow_symlinks=True)
            except FileExistsError:  # damaged, or of another version: ``load`` didn't take it
                os.unlink(_NAME, dir_fd=folder_fd)
                os.link(place, _NAME, dst_dir_fd=folder_fd, follow_symlinks=True)
        finally:
            os.close(fd)
    except OSError:  # a full or read-only disk, one without such files, another was quicker, the layer is being removed
        return
    finally:
        os.close(folder_fd)
