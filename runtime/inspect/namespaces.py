"""``namespaces [X…]``: containers beside this process, by what they share and what each has for itself.

Everything is read from ``/proc`` at this moment: namespaces_reading.py, namespaces_gives.py. How it looks is in
namespaces_text.py and namespaces_html.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import CellwallError, StatusError
from ..usage import processes as processes_of
from . import namespaces_gives as gives
from . import namespaces_reading as reading
from .namespaces_facts import FIRST, TYPES, IdRange, Namespace, Subject
from .process import ProcessFolder, process_of, running_container, state_of
from .view import COLUMNS, View

if TYPE_CHECKING:
    from ..cli.parser import Parser
    from ..containers import Container, Containers
    from ..engine import Engine

USAGE = "[OPTIONS] [CONTAINER…]"
# So many columns are drawn where none were asked for by name.
MOST_SUBJECTS = 8
# Beside several others, a container's processes are told in less number.
_FEW_PROCESSES = 30


@dataclass(frozen=True, slots=True)
class NamespacesView(View):
    """This process first, then the containers. ``more`` is how many running containers aren't shown."""

    subjects: tuple[Subject, ...]
    more: int = 0

    def text(self, columns: int = COLUMNS) -> str:
        from .namespaces_text import text

        return text(self, columns)

    def html(self) -> str:
        from .namespaces_html import html

        return html(self)


def add_options(parser: Parser) -> None:
    """It has none of its own."""


def read(engine: Engine, said: object, words: Sequence[str]) -> NamespacesView:
    return namespaces_of(engine.known, words)


def namespaces_of(known: Containers, names: Sequence[str] = ()) -> NamespacesView:
    """The running containers ``names`` (none: all that run) beside this process.

    Raises NotFound, StatusError where one that was named doesn't run or ends meanwhile, CellwallError where it is another user's.
    """
    chosen: list[tuple[Container, dict[str, Any]]] = []
    more = 0
    if names:
        for name in names:
            one = running_container(known, name)
            if one[0].id not in [container.id for container, _ in chosen]:
                chosen.append(one)
    else:
        for container in known.list():
            with suppress(StatusError):  # one that is being made, or has ended since
                chosen.append((container, state_of(known, container)))
        # The newest are kept, and the oldest of them stands first: others are in its namespaces more often than it in theirs.
        chosen, more = chosen[:MOST_SUBJECTS][::-1], max(0, len(chosen) - MOST_SUBJECTS)
    with ExitStack() as stack:
        opened: list[tuple[ProcessFolder, Container | None]] = [
            (stack.enter_context(ProcessFolder(os.getpid(), "this process")), None)
        ]
        for container, found in chosen:
            with _unless_named(names):
                opened.append((stack.enter_context(process_of(container, found)), container))
        most = reading.MOST_PROCESSES if len(opened) <= 2 else _FEW_PROCESSES
        subjects = []
        kept = []
        for process, container_ in opened:
            with _unless_named(names if container_ is not None else ("",)):
                subjects.append(_subject(known, process, container_, most))
                kept.append(process)
        subjects = _with_host_names(subjects, kept)
    return NamespacesView(subjects=_compared(subjects), more=more)


def _unless_named(names: Sequence[str]) -> suppress:
    """A container that nobody asked for by name, and that ends meanwhile, isn't there."""
    return suppress(*(() if names else (StatusError,)))


def _subject(known: Containers, process: ProcessFolder, container: Container | None, most: int) -> Subject:
    try:
        inodes = reading.inodes(process)
        status = process.status()
        rights = reading.rights(status)
        uid_map = reading.id_map(process, "uid")
        listed = _listing(known, process, container, inodes)
        # Of this process's own namespace the map tells what its ids are in the one above.
        own_users = inodes.get("user") == os.stat("/proc/self/ns/user").st_ino
        entered = container is not None
        members, count = reading.members(listed, process, inodes, None if own_users else uid_map, most, entered=entered)
        subject = Subject(
            name=container.name if container is not None else _own_name(inodes),
            id=container.id if container is not None else "",
            status=container.status if container is not None else "running",
            pid=process.pid,
            container_pid=reading.numbers(status)[-1] if container is not None else None,
            namespaces=_namespaces(process, inodes, uid_map, count if container is not None else 0),
            uid_map=uid_map,
            gid_map=reading.id_map(process, "gid"),
            setgroups=reading.may_set_groups(process),
            capabilities=rights.capabilities,
            no_new_privileges=rights.no_new_privileges,
            seccomp=rights.seccomp,
            seccomp_filters=rights.seccomp_filters,
            processes=members,
            count=count,
            more=count - len(members),
        )
        if process.is_ending():  # what was read of it last may be what was left of it
            raise process.ended()
        return subject
    except OSError as error:
        if isinstance(error, CellwallError):
            raise
        raise process.error(error) from None


def _own_name(inodes: dict[str, int]) -> str:
    """``host`` where this process has the machine's own users; ``here`` in a container."""
    return "host" if inodes.get("user") == FIRST["user"] else "here"


def _listing(
    known: Containers, process: ProcessFolder, container: Container | None, inodes: dict[str, int]
) -> Callable[[], Sequence[int]]:
    """Who its processes are, asked when it is called."""
    if container is not None:
        return lambda: processes_of(known, container.id)
    if inodes.get("pid") == FIRST["pid"]:
        # The whole machine's: this process alone is told.
        return lambda: [process.pid]
    return lambda: [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _namespaces(
    process: ProcessFolder, inodes: dict[str, int], uid_map: Sequence[IdRange], count: int
) -> tuple[Namespace, ...]:
    readers: dict[str, Callable[[], str]] = {
        "mnt": lambda: gives.mounts(process),
        "pid": lambda: f"{count:,} process{'' if count == 1 else 'es'}" if count else "",
        "net": lambda: gives.network(process),
        "ipc": lambda: gives.queues(process),
        "user": lambda: gives.users(uid_map),
        "cgroup": lambda: gives.cgroup(process),
        "time": lambda: gives.clocks(process),
    }
    found = []
    for kind in TYPES:
        inode = inodes.get(kind)
        later = inodes.get(f"{kind}_for_children")
        said = ""
        if inode is not None and kind in readers:
            try:
                said = readers[kind]()
            except (
                OSError
            ):  # not on this kernel, not in this container, or not for this user; an end is seen behind this
                pass
        found.append(
            Namespace(
                type=kind,
                inode=inode,
                first=inode == FIRST[kind],
                for_children=later if later is not None and later != inode else None,
                gives=said,
            )
        )
    return tuple(found)


def _with_host_names(subjects: list[Subject], processes: Sequence[ProcessFolder]) -> list[Subject]:
    try:
        names = gives.host_names(processes)
    except OSError:  # one has ended, or nothing can be started here: a name is no reason to fail
        return subjects
    return [
        replace(
            subject,
            namespaces=tuple(replace(one, gives=name) if one.type == "uts" else one for one in subject.namespaces),
        )
        for subject, name in zip(subjects, names, strict=True)
    ]


def _compared(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """The subjects, each namespace with the names of those that are in it as well."""
    in_it: dict[tuple[str, int], list[int]] = {}
    for at, subject in enumerate(subjects):
        for one in subject.namespaces:
            if one.inode is not None:
                in_it.setdefault((one.type, one.inode), []).append(at)
    return tuple(
        replace(
            subject,
            namespaces=tuple(
                one
                if one.inode is None
                else replace(
                    one,
                    shared_with=tuple(subjects[other].name for other in in_it[one.type, one.inode] if other != at),
                )
                for one in subject.namespaces
            ),
        )
        for at, subject in enumerate(subjects)
    )
