"""What was tried on this machine once, remembered in a small file until the next boot or the next kernel.

A stamp holds the kernel's release, the boot's id, and the answer. Source: random(4), boot_id; uname(2).
"""

from __future__ import annotations

import os
from pathlib import Path


def recall(stamp: Path) -> str | None:
    """The answer in the file ``stamp``; None where there is none, or one of another boot or kernel. Raises OSError."""
    try:
        boot, _, answer = stamp.read_text(errors="replace").partition("\n")
    except FileNotFoundError:
        return None
    return answer if boot == _boot() else None


def remember(stamp: Path, answer: str, making: Path) -> None:
    """Write ``answer`` to ``stamp``, synced and in one step; ``making`` is a new file on the same filesystem."""
    with making.open("w") as file:
        file.write(f"{_boot()}\n{answer}")
        file.flush()
        os.fsync(file.fileno())
    making.rename(stamp)


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{os.uname().release} {file.read().strip()}"
