"""What a container changed, read from its writable layer: ``docker diff`` without mounting anything.

Runs in the worker and in the launcher: light modules only.
Source: overlayfs.rst (whiteouts and opaque directories).
"""

from __future__ import annotations

import os
from errno import E2BIG

from .fuse_upper import opaque_test, without_marks
from .lowers import is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def scan_upper(
    upper_dirfd: int,
    exists_in_lower: Callable[[bytes], bool],
    names_in_lower: Callable[[bytes], Collection[bytes]] | None = None,
    *,
    most: int | None = None,
    marks: str | None = None,
) -> list[tuple[str, bytes]]:
    """Every path that the overlay upper directory ``upper_dirfd`` adds ("A"), changes ("C") or deletes ("D"), sorted.

    Paths are absolute. ``exists_in_lower`` and ``names_in_lower`` (of a directory) answer for a relative path of the layers
    below, see Lowers; without the second, what an opaque directory hides isn't listed. A directory that only holds changes
    is itself changed, as in docker: its time is. The caller keeps ``upper_dirfd``. ``marks`` is the name of the program whose
    marks of deletion the directory has beside overlayfs's own: ``fuse-overlayfs`` or None.
    """
    is_opaque = opaque_test(marks)
    found: list[tuple[str, bytes]] = []
    # Directories still to read: path, and whether the layers below show something at it. A descriptor is open for one only.
    pending: list[tuple[bytes, bool]] = [(b"", True)]
    while pending:
        path, below = pending.pop()
        fd = os.open(path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper_dirfd)
        try:
            opaque = below and path != b"" and is_opaque(fd)
            with os.scandir(fd) as entries:
                names = {os.fsencode(entry.name): entry.is_dir(follow_symlinks=False) for entry in entries}
            if marks is not None:
                shown, hidden = without_marks(names)
                names = {name: names[name] for name in shown}
                for name in hidden:
                    here = path + b"/" + name if path else name
                    if below and name not in names and exists_in_lower(here):
                        found.append(("D", b"/" + here))
            for name, is_directory in names.items():
                here = path + b"/" + name if path else name
                lower = below and exists_in_lower(here)
                if not is_directory and is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False)):
                    if lower:
                        found.append(("D", b"/" + here))
                    continue
                found.append(("C" if lower else "A", b"/" + here))
                if most is not None and len(found) > most:
                    raise OSError(E2BIG, f"more than {most} changes")
                if is_directory:
                    pending.append((here, lower))
            if opaque and names_in_lower is not None:
                prefix = b"/" + path + b"/"
                found += [("D", prefix + name) for name in names_in_lower(path) if name not in names]
        finally:
            os.close(fd)
    found.sort(key=lambda change: change[1])
    return found
