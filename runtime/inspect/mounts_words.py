"""What the text and the HTML of ``mounts`` say alike."""

from __future__ import annotations

from collections.abc import Sequence

from .mounts import MountPoint, MountsView, Shift
from .mounts_beneath import MOST_ENTRIES
from .mounts_kinds import KINDS
from .namespaces_facts import IdRange

# Beyond this depth the tree goes on without going further in: mounts can stand on each other without end.
DEEPEST = 8
# So many mounts are shown. A container has some thirty.
MOST_SHOWN = 200


def shown(view: MountsView) -> tuple[tuple[MountPoint, ...], int]:
    """The mounts to show, and how many more there are."""
    points = view.mounts[:MOST_SHOWN]
    return points, view.count - len(points)


def title(view: MountsView) -> str:
    return f"mounts of {view.name}" if view.id else "mounts of this process"


def summary(view: MountsView) -> str:
    own = f"mount namespace {view.namespace}"
    if view.id:
        own += ", the same as this process's" if view.shared else " of its own"
    return f"{view.count:,} mount{'' if view.count == 1 else 's'}, process {view.pid}, {own}"


def propagation(view: MountsView) -> str:
    """One sentence for all where it is the same for all; empty where it stands at each mount."""
    kinds = {point.propagation for point in view.mounts}
    if kinds == {"private"}:
        return "all private: what is mounted on one side later isn't seen on the other"
    return f"all {kinds.pop()}" if len(kinds) == 1 else ""


def counts(view: MountsView) -> list[tuple[str, int, str]]:
    """Kind, how many of it are shown, and what it means."""
    found: dict[str, int] = {}
    for point in view.mounts:
        found[point.kind] = found.get(point.kind, 0) + 1
    return [(kind, found[kind], meaning) for kind, meaning in KINDS.items() if kind in found]


def origin(point: MountPoint, view: MountsView) -> tuple[str, str]:
    """How what is mounted comes there, and from where (``from``, ``/srv/data``); both empty where its type says all."""
    if point.kind == "volume":
        inside = point.path.partition("/_data")[2]
        return "volume", f"{point.volume}{f', {inside}' if inside else ''}"
    if point.kind == "masked":
        return "behind", "/dev/null" if point.root != "/" else "an empty folder"
    if point.kind in ("read-only", "file", "devices", "tmpfs"):
        return "", ""
    if point.kind == "kernel":
        if not point.filesystem.startswith("cgroup"):
            return "", ""
        # The container's own id is as short here as it is elsewhere.
        return "group", point.root.replace(view.id, f"{view.id[:12]}…") if view.id else point.root
    if point.path:
        return "from", point.path
    if point.root != "/":
        return "from", f"{point.root} of {point.source or point.device}"
    return ("from", point.source) if point.source not in (point.filesystem, "none") else ("", "")


def superblock(point: MountPoint) -> str:
    """The filesystem's own options, less what says nothing: of overlayfs how many folders lie over each other."""
    options = [word for word in point.superblock_options if word not in ("rw", "ro")]
    if point.filesystem == "overlay":
        lowers = sum(1 for word in options if word.startswith("lowerdir+="))
        for word in options:
            if word.startswith("lowerdir="):
                lowers += word.removeprefix("lowerdir=").count(":") + 1
        upper = any(word.startswith("upperdir=") for word in options)
        rest = [word for word in options if not word.startswith(("lowerdir", "upperdir=", "workdir="))]
        below = [f"{lowers} read-only layer{'' if lowers == 1 else 's'}"] if lowers else []
        return ", ".join([*below, *(["a writable one on top"] if upper else []), *rest])
    if point.kind in ("read-only", "masked", "file", "bind", "volume", "device") or point.filesystem == "cgroup":
        # Those of the filesystem that it is a part of, or no more than its name.
        return ""
    return ", ".join(options)


def options(point: MountPoint, view: MountsView) -> str:
    # That ids are translated is told with how.
    said = ",".join(word for word in point.options if word != "idmapped")
    return said if propagation(view) else f"{said}; {point.propagation}"


def remarks(point: MountPoint, view: MountsView) -> list[str]:
    """What else there is to say of a mount, a sentence each."""
    found = []
    if point.hidden_by is not None:
        found.append(f"can't be seen: {point.hidden_by} is mounted over it")
    if point.hides:
        rest = f" and {len(point.hides) - 3} more" if len(point.hides) > 3 else ""
        found.append(f"covers the mount{'' if len(point.hides) == 1 else 's'} at {', '.join(point.hides[:3])}{rest}")
    if point.beneath_entries:
        least = "at least " if point.beneath_entries >= MOST_ENTRIES else ""
        one = "entry" if point.beneath_entries == 1 else "entries"
        found.append(f"hides {least}{point.beneath_entries:,} {one} of the folder beneath it")
    if point.beneath_bytes:
        found.append(f"hides a file of {point.beneath_bytes:,} bytes")
    if point.idmapped:
        found.append(_id_map(point, view))
    return found


def _id_map(point: MountPoint, view: MountsView) -> str:
    uids, gids = inside(point.uid_map, view.uid_map), inside(point.gid_map, view.gid_map)
    if not uids and not gids:
        return "ids translated"
    if uids == gids and all(first == shown for first, shown, _ in uids):
        return f"ids on disk are the same here: {', '.join(span(first, count) for first, _, count in uids[:4])}"
    if uids == gids:
        return f"ids on disk → here: {_ranges(uids)}"
    return f"users on disk → here: {_ranges(uids)}; groups: {_ranges(gids)}"


def inside(shifts: Sequence[Shift], ranges: Sequence[IdRange]) -> list[tuple[int, int, int]]:
    """Ids on disk, the ids that the container sees them as, and how many; less those that are nobody's in it."""
    found = []
    for shift in shifts:
        for one in ranges:
            start = max(shift.shown, one.outside)
            end = min(shift.shown + shift.count, one.outside + one.count)
            if start < end:
                found.append((shift.on_disk + start - shift.shown, one.inside + start - one.outside, end - start))
    return found


def _ranges(ranges: Sequence[tuple[int, int, int]]) -> str:
    said = ", ".join(f"{span(first, count)} → {span(shown, count)}" for first, shown, count in ranges[:4])
    return said + (f" and {len(ranges) - 4} more" if len(ranges) > 4 else "")


def span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}–{first + count - 1}"


def devices(view: MountsView) -> list[tuple[str, str]]:
    """Name and number of each device in /dev."""
    return [(one.path, f"{one.type} {one.major}:{one.minor}, {one.mode}") for one in view.devices]
