"""``namespaces`` as text: the grid first, then each subject by itself."""

from __future__ import annotations

from . import namespaces_words as words
from . import plain
from .look import ISOLATED, SHARED
from .namespaces import NamespacesView
from .namespaces_facts import TYPES, Subject

_TYPE_COLUMNS = 8
_CELL_COLUMNS = 16


def text(view: NamespacesView, columns: int) -> str:
    made = plain.heading(words.title(view), columns=columns)
    made += plain.legend([(ISOLATED.sign, "its own"), (SHARED.sign, "shared")], columns) + "\n"
    made += _grids(view, columns)
    made += plain.more(view.more, "running containers: name the ones to look at")
    for at, subject in enumerate(view.subjects):
        made += plain.section(
            plain.shown(subject.name), _subject(view, at, columns - 2), words.summary(subject), columns
        )
    return made


def _grids(view: NamespacesView, columns: int) -> str:
    """The grid, or several below each other where there are more subjects than columns; this process is the first in each."""
    fit = max(1, (columns - _TYPE_COLUMNS) // _CELL_COLUMNS - 1)
    others = list(range(1, len(view.subjects)))
    parts = [others[at : at + fit] for at in range(0, len(others), fit)] or [[]]
    return "\n".join(_grid(view, [0, *part], columns) for part in parts)


def _grid(view: NamespacesView, chosen: list[int], columns: int) -> str:
    heads = ["", *(view.subjects[at].name for at in chosen)]
    rows = [[kind, *(_cell(view, at, kind) for at in chosen)] for kind in TYPES]
    lines = []
    for row in [heads, *rows]:
        cells = [plain.pad(row[0], _TYPE_COLUMNS - 2)]
        cells += [plain.pad(_fit(cell), _CELL_COLUMNS - 2) for cell in row[1:]]
        lines.append("  ".join(cells).rstrip())
    return "".join(f"{line}\n" for line in lines)


def _fit(cell: str) -> str:
    """A cell that is too long loses its end: the name stands whole in its own part below."""
    cell = plain.shown(cell)
    room = _CELL_COLUMNS - 2
    if plain.width(cell) <= room:
        return cell
    while plain.width(cell) > room - 1:
        cell = cell[:-1]
    return f"{cell}…"


def _cell(view: NamespacesView, at: int, kind: str) -> str:
    one = view.subjects[at].namespace(kind)
    if one.inode is None:
        return "-"
    if left := words.same_as(view, at, one):
        return f"{SHARED.sign} = {left}"
    return f"{SHARED.sign if one.shared_with else ISOLATED.sign} {one.inode}"


def _subject(view: NamespacesView, at: int, columns: int) -> str:
    subject = view.subjects[at]
    facts = [("isolation", words.isolation(view, subject))] if at else []
    for one in subject.namespaces:
        parts = [words.gives(subject, one)]
        if one.shared_with:
            parts.append(f"shared with {', '.join(one.shared_with)}")
        elif one.first:
            parts.append("the machine's first")
        parts.append(words.children(one))
        facts.append((one.type, "; ".join(part for part in parts if part) or words.inode(one)))
    for what, ranges in words.ranges(subject):
        kept = [words.range_text(one) for one in ranges[: words.MOST_RANGES]]
        if len(ranges) > words.MOST_RANGES:
            kept.append(f"and {len(ranges) - words.MOST_RANGES} more")
        facts.append((what, "; ".join(kept) or "none yet"))
    if said := words.set_groups(subject):
        facts.append(("", said))
    facts.append(("capabilities", words.against_default(subject, view.subjects[0])))
    facts += [(f"  {kinds}", words.short(names)) for kinds, names in words.capability_sets(subject)]
    facts += [("no_new_privs", words.no_new_privileges(subject)), ("seccomp", words.seccomp(subject))]
    return plain.pairs(facts, columns) + _processes(subject, columns)


def _processes(subject: Subject, columns: int) -> str:
    if not subject.processes:
        return ""
    made = f"processes: {subject.count:,}\n"
    for member in subject.processes:
        place = "  " * (min(member.depth, 8) + 1)
        line = f"{words.numbers(member)}  {plain.shown(member.command, 200)}  ({words.member_note(member)})"
        lines = plain.wrapped(line, columns - len(place) - 2)
        made += f"{place}{lines[0]}\n" + "".join(f"{place}  {further}\n" for further in lines[1:])
    return made + plain.more(subject.more, "processes", 2)
