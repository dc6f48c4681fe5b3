"""What a person sees of a union: which branch gives each path and which hide it, and what writes have done.

Plain values in, text and data out; the HTML twin with the same facts is in html.py.
"""

from __future__ import annotations

import os
from typing import Any

from ..cli.table import printable, table
from ..frozen import frozen
from ..results import Result
from .syntax import UnionSpec

_ORDINARY = ("file", "directory")


@frozen
class Entry:
    """One path of the union, relative to its mount point. Branches are indices, top first.

    ``shown`` gives it (several where directories merge), ``hidden`` have it too and aren't seen. Without ``shown`` it is deleted:
    ``gone`` is the branch whose whiteout, or ``opaque`` directory, hides it. ``written``: the union's writes put it there.
    """

    path: str
    kind: str
    size_bytes: int
    shown: tuple[int, ...]
    hidden: tuple[int, ...] = ()
    gone: int | None = None
    opaque: bool = False
    written: bool = False

    @classmethod
    def of(cls, row: dict[str, Any]) -> Entry:
        path = os.fsdecode(bytes.fromhex(row["path"]))
        return cls(
            path,
            row["kind"],
            row["size"],
            tuple(row["shown"]),
            tuple(row["hidden"]),
            row["gone"],
            row["opaque"],
            row["written"],
        )

    @property
    def label(self) -> str:
        """The path as it is told: a directory ends in a slash, nothing in it moves a terminal's cursor."""
        return printable(self.path) + ("/" if self.kind == "directory" else "")


@frozen
class Effect:
    """One thing that writes did. ``action`` is created, changed, copied up, replaced, moved or deleted.

    ``source`` is the branch that gave the path before (None: none did); ``whiteout``: a whiteout of that
    name is left; ``opaque``: a directory that hides all that branches below have in it.
    """

    action: str
    path: str
    source: int | None
    kind: str = ""
    size_bytes: int = 0
    whiteout: bool = False
    opaque: bool = False

    @classmethod
    def of(cls, told: dict[str, Any], offset: int) -> Effect:
        path = os.fsdecode(bytes.fromhex(told["path"]))
        # With an offset the branches are counted from the one below the written one, which is the first then.
        source = 0 if told["had"] else None if told["source"] is None else told["source"] + offset
        return cls(told["action"], path, source, told["kind"], told["size"], told["whiteout"], told["opaque"])

    @property
    def label(self) -> str:
        return printable(self.path) + ("/" if self.kind == "directory" else "")

    @property
    def left(self) -> str:
        """What it leaves in the writable branch, in overlayfs's terms and in aufs's."""
        above, _, name = printable(self.path).rpartition("/")
        folder = f"{above}/" if above else ""
        if self.action == "deleted":
            if self.whiteout:
                return f"whiteout {folder}{name} (character device 0:0; aufs: {folder}.wh.{name})"
            return "nothing: no branch below has it"
        if self.opaque:
            return f"opaque directory {self.label} (overlay.opaque=y; aufs: {self.label}.wh..wh..opq)"
        return {
            "created": f"new {self.kind}",
            "changed": "the same file, changed" if self.kind != "directory" else "the same directory, changed",
            "copied up": f"a copy with the change ({_size(self.size_bytes)})"
            if self.kind == "file"
            else f"a copy of the {self.kind}",
            "moved": f"a {self.kind} copied up under another name ({_size(self.size_bytes)})",
            "replaced": f"a new {self.kind} of that name",
        }[self.action]


@frozen
class UnionView:
    """A union and what is in it. ``effects`` is None where nothing ran; ``result`` is the command's, where one did.

    ``given`` counts the paths by the branch that gives them, ``more`` those that aren't among ``entries``; with ``cut`` there were so
    many that not all were looked at.
    """

    spec: UnionSpec
    image: str
    write: bool
    entries: tuple[Entry, ...]
    more: int = 0
    cut: bool = False
    given: tuple[int, ...] = ()
    effects: tuple[Effect, ...] | None = None
    more_effects: int = 0
    warnings: tuple[str, ...] = ()
    result: Result | None = None

    @property
    def mount_point(self) -> str:
        return self.spec.mount_point

    @property
    def overlay_command(self) -> str:
        """What a person would type for the same union on overlayfs."""
        paths = [branch.path for branch in self.spec.branches]
        if self.write:
            upper, paths = paths[0], paths[1:]
        else:
            upper = "UPPER"
        above = os.path.dirname(upper).rstrip("/")
        options = [
            f"lowerdir={':'.join(paths) or 'EMPTY'}",
            f"upperdir={upper}",
            f"workdir={f'{above}/WORK' if self.write else 'WORK'}",
        ]
        return f"mount -t overlay -o {','.join([*options, *self.spec.options])} overlay {self.mount_point}"

    @property
    def writes(self) -> str:
        """One sentence: where writes go."""
        index = self.spec.writable
        if index is None:
            return f"the union is read-only: {'it is mounted ro' if 'ro' in self.spec.options else 'no branch is rw'}"
        path = self.spec.branches[index].path
        if self.write:
            return f"writes go into {path} itself"
        kept = f"writes are kept for {path} in a layer of the union's own, which goes with it"
        return f"{kept}; --write puts them into {path} itself" if self.image == "host" else kept

    def branch(self, index: int) -> str:
        return self.spec.branches[index].path

    def from_text(self, entry: Entry) -> str:
        """The branch or branches that give an entry."""
        if not entry.shown:
            what = "opaque directory" if entry.opaque else "whiteout"
            return f"- ({what} in {self.branch(entry.gone)})" if entry.gone is not None else "-"
        text = " + ".join(self.branch(index) for index in entry.shown)
        return f"{text} *" if entry.written else text

    def hidden_text(self, entry: Entry) -> str:
        return ", ".join(self.branch(index) for index in entry.hidden)

    def rest_text(self) -> str:
        if not self.more and not self.cut:
            return ""
        many = f"… and {self.more} more{', at the least' if self.cut else ''}"
        return f"{many}: --path looks into one folder, --depth and --limit show more"

    def text(self) -> str:
        """The whole as plain text, ending in a newline."""
        spec = self.spec
        where = "this machine" if self.image == "host" else f"the image {self.image}"
        lines = [f"union of {len(spec.branches)} folders of {where} at {self.mount_point}"]
        width = max(len(printable(branch.path)) for branch in spec.branches)
        for index, branch in enumerate(spec.branches):
            role = "writes go here" if index == spec.writable else ""
            permission = "+".join((branch.permission, *branch.attributes))
            count = f"gives {self.given[index]}" if self.given else ""
            lines.append(f"  {index}  {printable(branch.path):<{width}}  {permission:<4}  {count:<10}  {role}".rstrip())
        lines += [printable(self.writes), f"the same by hand: {printable(self.overlay_command)}", ""]
        parts = ["\n".join(lines) + "\n"]
        rows = [[entry.label, self.from_text(entry), self.hidden_text(entry)] for entry in self.entries]
        parts.append(
            table(["PATH", "FROM", "HIDDEN IN"], [[printable(cell) for cell in row] for row in rows])
            if rows
            else "the union is empty\n"
        )
        if any(entry.written for entry in self.entries):
            parts.append("* written here\n")
        if rest := self.rest_text():
            parts.append(f"{rest}\n")
        if self.effects is not None:
            parts.append("\n" + self._effects_text())
        return "".join(parts)

    def effects_heading(self) -> str:
        index = self.spec.writable
        return f"LEFT IN {self.branch(index)}" if index is not None else "LEFT"

    def source_text(self, effect: Effect) -> str:
        return "" if effect.source is None else self.branch(effect.source)

    def _effects_text(self) -> str:
        if not self.effects:
            return "nothing was written\n"
        rows = [
            [effect.action, effect.label, printable(self.source_text(effect)), effect.left] for effect in self.effects
        ]
        text = table(["WRITE", "PATH", "FROM", printable(self.effects_heading())], rows)
        return text + (f"… and {self.more_effects} more\n" if self.more_effects else "")

    def __str__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        branches = [
            {
                "path": branch.path,
                "permission": branch.permission,
                "attributes": list(branch.attributes),
                "gives": self.given[index] if self.given else None,
                "writable": index == self.spec.writable,
            }
            for index, branch in enumerate(self.spec.branches)
        ]
        names = [branch.path for branch in self.spec.branches]
        return {
            "mount_point": self.mount_point,
            "image": self.image,
            "aufs": str(self.spec),
            "overlay": self.overlay_command,
            "write": self.write,
            "options": list(self.spec.options),
            "branches": branches,
            "entries": [
                {
                    "path": entry.path,
                    "kind": entry.kind,
                    "size_bytes": entry.size_bytes,
                    "from": [names[index] for index in entry.shown],
                    "hidden_in": [names[index] for index in entry.hidden],
                    "whiteout_in": None if entry.gone is None or entry.opaque else names[entry.gone],
                    "opaque_in": names[entry.gone] if entry.gone is not None and entry.opaque else None,
                    "written": entry.written,
                }
                for entry in self.entries
            ],
            "more": self.more,
            "complete": not self.cut,
            "effects": None
            if self.effects is None
            else [
                {
                    "action": effect.action,
                    "path": effect.path,
                    "kind": effect.kind,
                    "size_bytes": effect.size_bytes,
                    "from": None if effect.source is None else names[effect.source],
                    "whiteout": effect.whiteout,
                    "opaque": effect.opaque,
                    "left": effect.left,
                }
                for effect in self.effects
            ],
            "more_effects": self.more_effects,
            "warnings": list(self.warnings),
            "result": None if self.result is None else self.result.to_dict(),
        }

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from .html import html

        return {"text/plain": self.text(), "text/html": html(self)}


def _size(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    value = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000:
            break
    return f"{value:.3g} {unit}"
