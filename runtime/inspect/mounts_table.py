"""``/proc/PID/mountinfo`` as values, and the tree that it tells of: which mount stands on which, and which can't be seen.

Source: proc_pid_mountinfo(5), Documentation/filesystems/sharedsubtree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of mountinfo, its paths decoded. ``root`` is the part of the filesystem that is mounted, ``device`` its ``major:minor``.

    ``peers`` are the optional fields as they stand: ``shared:7``, ``master:3``, ``propagate_from:2``, ``unbindable``.
    """

    id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    peers: tuple[str, ...]
    filesystem: str
    source: str
    superblock_options: tuple[str, ...]

    @property
    def propagation(self) -> str:
        """As mount(8) names it, with the peer group: ``private``, ``shared 7``, ``slave of 3``, ``shared 7, slave of 3``, ``unbindable``."""
        words = []
        for field in self.peers:
            key, _, group = field.partition(":")
            if key == "master":
                words.append(f"slave of {group}")
            elif key == "shared":
                words.append(f"shared {group}")
            elif key == "unbindable":
                words.append("unbindable")
        return ", ".join(words) or "private"

    @property
    def is_readonly(self) -> bool:
        return "ro" in self.options

    @property
    def is_idmapped(self) -> bool:
        return "idmapped" in self.options


def unescape(raw: bytes) -> str:
    """A path or source of mountinfo, its octal escapes decoded: the kernel writes blanks, tabs, line ends, ``\\`` and ``#`` so."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), raw))


def rows_of(mountinfo: bytes, most: int | None = None) -> tuple[list[Row], int]:
    """The first ``most`` lines of mountinfo (None: all) as rows, and how many there are."""
    lines = [line for line in mountinfo.split(b"\n") if line]
    return [_row(line) for line in lines[:most]], len(lines)


def _row(line: bytes) -> Row:
    words = line.split(b" ")
    # Behind the sixth word stand any number of optional fields, ended by a single hyphen.
    end = words.index(b"-", 6)
    filesystem, source, superblock = words[end + 1], words[end + 2], words[end + 3] if len(words) > end + 3 else b""
    return Row(
        id=int(words[0]),
        parent_id=int(words[1]),
        device=words[2].decode(),
        root=unescape(words[3]),
        target=unescape(words[4]),
        options=tuple(unescape(word) for word in words[5].split(b",")),
        peers=tuple(word.decode() for word in words[6:end]),
        filesystem=unescape(filesystem),
        source=unescape(source),
        superblock_options=tuple(unescape(word) for word in superblock.split(b",") if word),
    )


def in_tree_order(rows: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    """Each row with its depth in the tree, a mount before what stands on it, siblings by path."""
    children: dict[int, list[Row]] = {}
    known = {row.id for row in rows}
    for row in rows:
        # The root's parent is a mount that the process can't see, and one is its own parent (the first of all).
        parent = row.parent_id if row.parent_id in known and row.parent_id != row.id else -1
        children.setdefault(parent, []).append(row)
    for siblings in children.values():
        siblings.sort(key=lambda row: row.target.split("/"))
    # No recursion: mounts stack higher than Python's own stack.
    waiting = [(0, row) for row in reversed(children.get(-1, []))]
    while waiting:
        depth, row = waiting.pop()
        yield depth, row
        waiting += [(depth + 1, child) for child in reversed(children.get(row.id, []))]


def hidden_by(rows: Sequence[Row]) -> dict[int, int]:
    """The ids of mounts that no path leads to any more, with the id of the mount that is over each.

    A mount is covered by one on its own root, by a sibling on a folder above its own, and with what it stands on.
    """
    by_id = {row.id: row for row in rows}
    at = {(row.parent_id, row.target): row.id for row in rows if row.parent_id != row.id}
    # Out of reach is where the mount stands; one that is covered at its own root is in reach for what covers it.
    out_of_reach: dict[int, int] = {}
    found: dict[int, int] = {}
    for _, row in in_tree_order(rows):
        over = out_of_reach.get(row.parent_id)
        parent = by_id.get(row.parent_id)
        if over is None and parent is not None and parent is not row:
            over = _covering_sibling(row, parent, at)
        if over is not None:
            found[row.id] = out_of_reach[row.id] = over
        elif (row.id, row.target) in at:
            found[row.id] = at[row.id, row.target]
    return found


def _covering_sibling(row: Row, parent: Row, at: dict[tuple[int, str], int]) -> int | None:
    above = row.target
    while len(above) > len(parent.target):
        above = above.rpartition("/")[0] or "/"
        if (over := at.get((parent.id, above))) is not None:
            return over
    return None
