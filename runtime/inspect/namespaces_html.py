"""``namespaces`` as HTML: a grid in which what is shared stands out, then each subject by itself, folded."""

from __future__ import annotations

from collections.abc import Sequence

from . import namespaces_words as words
from .look import FAINT, GAP, ISOLATED, PART, ROW, SHARED, SMALL, Tone
from .namespaces import NamespacesView
from .namespaces_facts import TYPES, IdRange, Member, Namespace, Subject
from .page import (
    Html,
    chip,
    code,
    element,
    faint,
    folded,
    heading,
    join,
    legend,
    more,
    name,
    page,
    pairs,
    scrolled,
    section,
    table,
    text,
)
from .tree import Node
from .tree import html as tree

_DEEPEST = 8
# With so many subjects each is unfolded to begin with.
_FEW = 2


def html(view: NamespacesView) -> Html:
    single = len(view.subjects) <= _FEW
    return page(
        heading(words.title(view)),
        _grid(view),
        legend([(ISOLATED, "its own"), (SHARED, "shared: two columns are in the same one")]),
        more(view.more, "running containers: name the ones to look at"),
        *(_subject(view, at, open=single and at == len(view.subjects) - 1) for at in range(len(view.subjects))),
        label=words.title(view),
    )


def _grid(view: NamespacesView) -> Html:
    heads = [
        "",
        *(
            join(
                name(subject.name),
                # It goes on below where several subjects need the page's width; a head's own words don't.
                element(
                    "div", text(words.summary(subject)), style=f"font-size:{SMALL};font-weight:400;white-space:normal"
                ),
            )
            for subject in view.subjects
        ),
    ]
    rows = []
    for kind, meaning in TYPES.items():
        said = element("div", meaning, style=f"color:{FAINT};font-size:{SMALL}")
        # Words stay whole: what is too wide scrolls.
        first = element("div", element("b", kind), said, style="min-width:8.5em;overflow-wrap:normal")
        rows.append([first, *(_cell(view, at, kind) for at in range(len(view.subjects)))])
    return table(heads, rows, label=f"{words.title(view)}, by type")


def _cell(view: NamespacesView, at: int, kind: str) -> Html:
    one = view.subjects[at].namespace(kind)
    if one.inode is None:
        return faint(words.inode(one))
    left = words.same_as(view, at, one)
    tone = SHARED if one.shared_with else ISOLATED
    said = f"= {left}" if left else words.inode(one)
    title = f"{kind} {one.inode}, {_with(one)}"
    parts: list[str] = [chip(text(said, 60), tone, title=title)]
    if left:
        parts += [" ", element("span", words.inode(one), style=f"color:{FAINT};font-size:{SMALL}")]
    for further in (words.gives(view.subjects[at], one), words.children(one)):
        if further:
            parts.append(element("div", text(further, 120), style=f"font-size:{SMALL};max-width:24em"))
    return element("div", *parts, style="min-width:9.5em")


def _with(one: Namespace) -> str:
    if one.shared_with:
        return f"shared with {', '.join(one.shared_with)}"
    return "the machine's first" if one.first else "its own"


def _subject(view: NamespacesView, at: int, *, open: bool) -> Html:
    subject = view.subjects[at]
    summary = join(name(subject.name), " ", faint(words.summary(subject)))
    facts: list[tuple[str, str]] = [("isolation", words.isolation(view, subject))] if at else []
    facts += [("capabilities", words.against_default(subject, view.subjects[0]))]
    facts += [(f"· {kinds}", words.short(names)) for kinds, names in words.capability_sets(subject)]
    facts += [("no_new_privs", words.no_new_privileges(subject)), ("seccomp", words.seccomp(subject))]
    return folded(
        summary,
        pairs(facts),
        *(_map(what, ranges) for what, ranges in words.ranges(subject)),
        faint(words.set_groups(subject)),
        _processes(subject),
        open=open,
    )


def _map(what: str, ranges: Sequence[IdRange]) -> Html:
    """Each range as two boxes: the ids inside, and below the arrow those that they are outside."""
    drawn = [_range(one) for one in ranges[: words.MOST_RANGES]]
    row = element("div", *drawn, style=f"display:flex;flex-wrap:wrap;gap:{ROW}px")
    return section(f"ids of {what}, inside → outside", row, more(len(ranges) - words.MOST_RANGES, "ranges"))


def _range(one: IdRange) -> Html:
    outside = words.span(one.outside, one.count) if one.outside != 0xFFFFFFFF else "nobody"
    count = f"{one.count:,} id{'' if one.count == 1 else 's'}"
    return element(
        "div",
        _ids(words.span(one.inside, one.count), "inside", ISOLATED),
        element("div", f"↓ {count}", style=f"text-align:center;color:{FAINT};font-size:{SMALL}"),
        _ids(outside, "outside", ISOLATED if one.inside != one.outside else SHARED),
        style="flex:0 1 auto;min-width:0",
    )


def _ids(said: str, side: str, tone: Tone) -> Html:
    style = f"border:1px {tone.border} {tone.colour};border-radius:3px;background:{tone.tint};padding:{GAP}px {PART}px;text-align:center"
    return element("div", code(said), " ", faint(side), style=style.replace("1px double", "3px double"))


def _processes(subject: Subject) -> Html:
    if not subject.processes:
        return Html("")
    return section(
        f"processes: {subject.count:,}",
        scrolled(tree(_nodes(subject), open_levels=_DEEPEST + 1, most=60, what="processes"), "processes"),
        more(subject.more, "processes"),
    )


def _nodes(subject: Subject) -> list[Node]:
    """The processes as a tree that is nowhere deeper than it can be drawn."""
    made: list[Node] = []
    open_: list[tuple[Member, list[Node]]] = []

    def close(down_to: int) -> None:
        while len(open_) > down_to:
            member, below = open_.pop()
            note = join(faint(words.numbers(member)), " · ", words.member_note(member))
            (open_[-1][1] if open_ else made).append(Node(text(member.command, 200), note, tuple(below)))

    for member in subject.processes:
        close(min(member.depth, _DEEPEST))
        open_.append((member, []))
    close(0)
    return made
