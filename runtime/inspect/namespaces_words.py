"""What the text and the HTML of ``namespaces`` say alike."""

from __future__ import annotations

from collections.abc import Sequence

from ..linux.capabilities import NAMES
from ..security.capabilities import DEFAULT
from .namespaces import NamespacesView
from .namespaces_facts import IdRange, Member, Namespace, Subject

MOST_RANGES = 12


def title(view: NamespacesView) -> str:
    names = [subject.name for subject in view.subjects]
    return f"namespaces of {', '.join(names[1:])} beside {names[0]}" if len(names) > 1 else f"namespaces of {names[0]}"


def summary(subject: Subject) -> str:
    """What it is: ``d709056a44a7, running, process 8919, 1 inside``."""
    parts = [subject.id[:12], subject.status] if subject.id else ["this process"]
    number = f"process {subject.pid}"
    if subject.container_pid is not None and subject.container_pid != subject.pid:
        number += f", {subject.container_pid} inside"
    return ", ".join([*parts, number])


def same_as(view: NamespacesView, at: int, one: Namespace) -> str:
    """The name of the first subject left of column ``at`` that is in the same namespace; empty where none is."""
    for left in view.subjects[:at]:
        if left.namespace(one.type).inode == one.inode and one.inode is not None:
            return left.name
    return ""


def inode(one: Namespace) -> str:
    return "not in this kernel" if one.inode is None else str(one.inode)


def gives(subject: Subject, one: Namespace) -> str:
    """What it gives; the container's own id in it as short as it is elsewhere."""
    return one.gives.replace(subject.id, f"{subject.id[:12]}…") if subject.id else one.gives


def children(one: Namespace) -> str:
    """Where the subject's children will be, if not with it."""
    return f"its children: {one.for_children}" if one.for_children is not None else ""


def isolation(view: NamespacesView, subject: Subject) -> str:
    """How much of the eight it has for itself, and what it shares with this process."""
    host = view.subjects[0]
    known = [one for one in subject.namespaces if one.inode is not None]
    shared = [one.type for one in known if host.namespace(one.type).inode == one.inode]
    said = f"{len(known) - len(shared)} of {len(known)} apart from {host.name}"
    return f"{said}; shared: {', '.join(shared)}" if shared else said


def span(first: int, count: int) -> str:
    return f"{first:,}" if count == 1 else f"{first:,}–{first + count - 1:,}"


def ranges(subject: Subject) -> list[tuple[str, tuple[IdRange, ...]]]:
    """The maps, with what each is of: one entry where users and groups have the same."""
    if subject.uid_map == subject.gid_map:
        return [("users and groups", subject.uid_map)]
    return [("users", subject.uid_map), ("groups", subject.gid_map)]


def range_text(one: IdRange) -> str:
    if one.outside == 0xFFFFFFFF:
        return f"{span(one.inside, one.count)} inside → nobody outside"
    if one.inside == one.outside:
        return f"{span(one.inside, one.count)} inside → the same outside"
    return f"{span(one.inside, one.count)} inside → {span(one.outside, one.count)} outside"


def set_groups(subject: Subject) -> str:
    return "" if subject.setgroups else "its groups can't be changed (setgroups is denied)"


def short(names: Sequence[str]) -> str:
    """Capabilities without their prefix; where it has most, those that it hasn't."""
    if len(names) > len(NAMES) // 2:
        missing = [name for name in NAMES if name not in names]
        return f"all but {short(missing)}" if missing else "all"
    return ", ".join(name.removeprefix("CAP_") for name in names) or "none"


def against_default(subject: Subject, host: Subject) -> str:
    """How the bounding set differs from docker's default, and how far it reaches."""
    capabilities = subject.capabilities
    parts = []
    if len(capabilities.beyond_default) > len(DEFAULT):
        parts.append(f"{len(capabilities.beyond_default)} beyond docker's default")
    elif capabilities.beyond_default:
        parts.append(f"beyond docker's default: {short(capabilities.beyond_default)}")
    if capabilities.below_default:
        parts.append(f"without of it: {short(capabilities.below_default)}")
    if not parts:
        parts.append(f"docker's default, {len(DEFAULT)}")
    if subject.namespace("user").inode != host.namespace("user").inode:
        parts.append("in force over what its own user namespace has")
    return "; ".join(parts)


def capability_sets(subject: Subject) -> list[tuple[str, tuple[str, ...]]]:
    """The sets, those with the same names in one entry."""
    found: dict[tuple[str, ...], list[str]] = {}
    capabilities = subject.capabilities
    for kind, short in _SETS.items():
        found.setdefault(getattr(capabilities, kind), []).append(short)
    return [(" ".join(kinds), names) for names, kinds in found.items()]


# As /proc/PID/status calls them.
_SETS = {"effective": "Eff", "permitted": "Prm", "inheritable": "Inh", "bounding": "Bnd", "ambient": "Amb"}


def no_new_privileges(subject: Subject) -> str:
    if subject.no_new_privileges:
        return "on: setuid programs and file capabilities give nothing"
    return "off: setuid programs and file capabilities give what they say"


def seccomp(subject: Subject) -> str:
    if subject.seccomp is None:
        return "this kernel doesn't tell"
    if subject.seccomp == "filter" and subject.seccomp_filters:
        return f"filter ({subject.seccomp_filters} in force)"
    return {"off": "off: every system call is allowed", "strict": "strict: read, write and exit only"}.get(
        subject.seccomp, subject.seccomp
    )


def numbers(member: Member) -> str:
    """``8919 here, 1 inside``; one number where they are the same."""
    if member.container_pid is None:
        return f"{member.pid} here, none inside"
    return (
        str(member.pid) if member.pid == member.container_pid else f"{member.pid} here, {member.container_pid} inside"
    )


def member_note(member: Member) -> str:
    """Whose it is, and what is odd about it."""
    parts = [f"user {member.uid}"]
    if member.container_uid is None:
        parts = [f"user {member.uid} here, nobody's inside"]
    elif member.container_uid != member.uid:
        parts = [f"user {member.container_uid}"]
    if member.state in _STATES:
        parts.append(_STATES[member.state])
    if member.joined:
        parts.append("came in from outside (exec)")
    if member.own:
        parts.append(f"has its own {', '.join(member.own)}")
    return ", ".join(parts)


# Letters of /proc/PID/stat that are worth a word. Source: proc_pid_stat(5)
_STATES = {"Z": "ended, not collected yet", "T": "stopped", "t": "being traced", "D": "waits for a device"}
