"""Namespaces side by side: what is shared, maps, capabilities, processes as a tree, and both twins of the view."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cellwall.runtime.errors import CellwallError, StatusError
from cellwall.runtime.inspect import namespaces_gives as gives
from cellwall.runtime.inspect import namespaces_reading as reading
from cellwall.runtime.inspect import plain
from cellwall.runtime.inspect.namespaces import NamespacesView
from cellwall.runtime.inspect.namespaces_facts import FIRST, TYPES, Capabilities, IdRange, Member, Namespace, Subject
from cellwall.runtime.inspect.namespaces_words import against_default, capability_sets, same_as, short
from cellwall.runtime.inspect.process import ProcessFolder
from cellwall.runtime.linux.capabilities import NAMES
from cellwall.runtime.linux.process import start_time
from cellwall.runtime.security.capabilities import DEFAULT

from .test_inspect_blocks import HOSTILE, Page


def capabilities(bounding: tuple[str, ...] = DEFAULT, **sets: tuple[str, ...]) -> Capabilities:
    return Capabilities(
        effective=sets.get("effective", bounding),
        permitted=bounding,
        inheritable=(),
        bounding=bounding,
        ambient=(),
        beyond_default=tuple(name for name in bounding if name not in DEFAULT),
        below_default=tuple(name for name in DEFAULT if name not in bounding),
    )


def a_subject(name: str, first: int, **changed: object) -> Subject:
    subject = Subject(
        name=name,
        id="" if name == "host" else "cd" * 32,
        status="running",
        pid=first,
        container_pid=None if name == "host" else 1,
        namespaces=tuple(Namespace(kind, first + at) for at, kind in enumerate(TYPES)),
        uid_map=(IdRange(0, 100000, 65536),),
        gid_map=(IdRange(0, 100000, 65536),),
        setgroups=True,
        capabilities=capabilities(),
        no_new_privileges=True,
        seccomp="filter",
        seccomp_filters=1,
        processes=(Member(first, 1, 1, 0, 100000, 0, "sleep 9", "S"),),
        count=1,
    )
    return replace(subject, **changed)  # type: ignore[arg-type]


def sharing(subject: Subject, kind: str, other: Subject) -> Subject:
    """``subject`` in the ``kind`` namespace of ``other``, both told so."""
    inode = other.namespace(kind).inode
    return replace(
        subject,
        namespaces=tuple(
            replace(one, inode=inode, shared_with=(other.name,)) if one.type == kind else one
            for one in subject.namespaces
        ),
    )


def letters(string: str) -> str:
    return re.sub(r"\s+", "", string)


def test_who_is_in_whose() -> None:
    host, web = a_subject("host", 1000), a_subject("web", 2000)
    beside = sharing(sharing(a_subject("beside", 3000), "net", web), "time", host)
    view = NamespacesView((host, web, beside))
    assert [same_as(view, 2, beside.namespace(kind)) for kind in TYPES] == ["", "", "web", "", "", "", "", "host"]
    assert [same_as(view, 0, host.namespace(kind)) for kind in TYPES] == [""] * 8
    lines = {line.split()[0]: line for line in view.text().splitlines() if line[:1].isalpha()}
    assert re.fullmatch(r"net +● 1002 +● 2002 +◇ = web", lines["net"])
    assert re.fullmatch(r"mnt +● 1000 +● 2000 +● 3000", lines["mnt"])
    assert re.fullmatch(r"time +● 1007 +● 2007 +◇ = host", lines["time"])
    assert "isolation         7 of 8 apart from host; shared: time" in view.text()


def test_more_columns_than_fit_go_below_beside_the_first() -> None:
    view = NamespacesView((a_subject("host", 1000), *(a_subject(f"c{at}", 2000 + 10 * at) for at in range(7))), more=3)
    text = view.text()
    assert max(map(len, text.splitlines())) <= 80
    heads = [line.split() for line in text.splitlines() if line.startswith(" ") and "host" in line.split()[:1]]
    assert heads == [["host", "c0", "c1", "c2"], ["host", "c3", "c4", "c5"], ["host", "c6"]]
    assert "3 more running containers" in text
    for at in range(7):
        assert f"c{at}" in Page(view.html()).text


def test_a_kernel_without_a_type() -> None:
    host = a_subject("host", 1000)
    host = replace(
        host, namespaces=tuple(replace(one, inode=None) if one.type == "time" else one for one in host.namespaces)
    )
    other = replace(a_subject("web", 2000), namespaces=host.namespaces)
    view = NamespacesView((host, other))
    assert re.search(r"^time +- +-$", view.text(), re.M)
    assert same_as(view, 1, other.namespace("time")) == ""
    assert "not in this kernel" in Page(view.html()).text


def test_both_twins_say_every_fact() -> None:
    web = a_subject(
        "web",
        2000,
        status="paused",
        uid_map=(IdRange(0, 1001, 1), IdRange(1, 100000, 65536)),
        gid_map=(IdRange(0, 4294967295, 1),),
        setgroups=False,
        capabilities=capabilities((*DEFAULT[1:], "CAP_NET_ADMIN"), effective=()),
        no_new_privileges=False,
        seccomp="off",
        seccomp_filters=0,
        processes=(
            Member(8001, 1, 7, 0, 1001, 0, "init -g", "S"),
            Member(8002, 5, 8001, 1, 100000, 1, "work", "Z", own=("net", "mnt")),
            Member(8003, None, 7, 0, 7, None, "strange", "T", joined=True),
        ),
        count=5000,
        more=4997,
    )
    web = replace(
        web,
        namespaces=tuple(
            replace(one, gives=f"what {one.type} gives", for_children=4242 if one.type == "pid" else None)
            for one in web.namespaces
        ),
    )
    view = NamespacesView((a_subject("host", 1000), web))
    facts = (
        *("namespaces of web beside host", "cdcdcdcdcdcd, paused, process 2000, 1 inside", "8 of 8 apart from host"),
        *(f"what {kind} gives" for kind in TYPES),
        *(
            "its children: 4242",
            "its groups can't be changed",
            "beyond docker's default: NET_ADMIN",
            "without of it: CHOWN; in force over",
        ),
        *("off: setuid programs", "off: every system call is allowed", "5,000", "4,997 more processes"),
        *(
            "8001 here, 1 inside",
            "8003 here, none inside",
            "init -g",
            "ended, not collected yet",
            "has its own net, mnt",
        ),
        *(
            "came in from outside (exec)",
            "user 7 here, nobody's inside",
            "stopped",
            "1,001",
            "1–65,536",
            "100,000–165,535",
        ),
    )
    for twin in (view.text(), Page(view.html()).text):
        for fact in facts:
            assert letters(fact) in letters(twin), fact
    found = json.loads(json.dumps(view.to_dict()))["subjects"][1]
    assert found["capabilities"]["beyond_default"] == ["CAP_NET_ADMIN"]
    assert found["processes"][1]["own"] == ["net", "mnt"]


@pytest.mark.parametrize("string", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("columns", [40, 80])
def test_strings_from_outside_do_nothing(string: str, columns: int) -> None:
    web = a_subject(string, 2000, processes=(Member(9, 1, 1, 30, 0, 0, string, "S"),))
    web = replace(web, namespaces=tuple(replace(one, gives=string, shared_with=(string,)) for one in web.namespaces))
    view = NamespacesView((a_subject("host", 1000), web, replace(web, id="e")))
    shown = Page(view.html())
    allowed = {"div", "span", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "b"}
    assert {tag for tag, _ in shown.tags} <= allowed
    assert all(
        not name.startswith("on") and name not in ("src", "href", "id") for _, have in shown.tags for name in have
    )
    for twin in (view.text(columns), shown.text):
        assert all(letter == "\n" or letter.isprintable() for letter in twin)
    assert max(map(plain.width, view.text(columns).splitlines())) <= columns


def test_capabilities_against_dockers() -> None:
    host = a_subject("host", 1, capabilities=capabilities(NAMES))
    web = sharing(a_subject("web", 9), "user", host)
    assert against_default(web, host) == "docker's default, 14"
    assert against_default(a_subject("web", 9), host).endswith("; in force over what its own user namespace has")
    some = replace(web, capabilities=capabilities(("CAP_CHOWN", "CAP_SYS_ADMIN")))
    assert against_default(some, host).startswith(
        "beyond docker's default: SYS_ADMIN; without of it: DAC_OVERRIDE, FOWNER"
    )
    assert against_default(host, host) == "27 beyond docker's default"
    assert short(NAMES) == "all"
    assert short(NAMES[1:]) == "all but CHOWN"
    assert short(()) == "none"
    assert capability_sets(some) == [
        ("Eff Prm Bnd", ("CAP_CHOWN", "CAP_SYS_ADMIN")),
        ("Inh Amb", ()),
    ]


def test_ids_to_the_inside() -> None:
    ranges = (IdRange(0, 1001, 1), IdRange(1, 100000, 65536), IdRange(70000, 4294967295, 1))
    assert reading.to_inside(ranges, 1001) == 0
    assert reading.to_inside(ranges, 100000) == 1
    assert reading.to_inside(ranges, 165535) == 65536
    assert reading.to_inside(ranges, 165536) is None
    assert reading.to_inside(ranges, 0) is None
    # What isn't mapped here is nobody, whatever it is inside.
    assert reading.to_inside(ranges, 4294967295) is None


def test_what_status_says_of_rights() -> None:
    status = {"CapEff": "0", "CapPrm": "1", "CapInh": "2", "CapBnd": "1ffffffffff", "CapAmb": "0000000000001000"}
    found = reading.rights({**status, "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "3"})
    assert (found.no_new_privileges, found.seccomp, found.seccomp_filters) == (True, "filter", 3)
    assert found.capabilities.bounding == NAMES
    assert found.capabilities.permitted == ("CAP_CHOWN",)
    assert found.capabilities.inheritable == ("CAP_DAC_OVERRIDE",)
    assert found.capabilities.ambient == ("CAP_NET_ADMIN",)
    assert found.capabilities.below_default == ()
    old = reading.rights(status)
    assert (old.no_new_privileges, old.seccomp, old.seccomp_filters) == (False, None, None)


def test_this_process() -> None:
    with ProcessFolder(os.getpid(), "this process") as process:
        found = reading.inodes(process)
        for kind, inode in found.items():
            assert os.readlink(f"/proc/self/ns/{kind}").endswith(f":[{inode}]")
        assert set(found) >= {"mnt", "pid", "net", "ipc", "uts", "user"}
        assert reading.numbers(process.status())[-1] == os.getpid()
        assert process.started == start_time(os.getpid())
        assert not process.is_ending()


def test_the_machines_own_numbers_are_the_kernels() -> None:
    """Source: linux/proc_ns.h; a type whose number this kernel gives as it comes is no proof of either."""
    assert FIRST["user"] == 4026531837
    assert FIRST["ipc"] == 4026531839
    assert len(set(FIRST.values())) == len(FIRST) == len(TYPES)


def test_another_process_never_answers() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    try:
        started = start_time(child.pid)
        with pytest.raises(StatusError, match="thing is exited, and this needs it running: it ended while"):
            ProcessFolder(child.pid, "thing", started + 1)
        process = ProcessFolder(child.pid, "thing", started)
        assert process.stat().name == "sleep"
    finally:
        child.kill()
        child.wait()
    with process, pytest.raises(OSError) as failed:
        process.read("status")
    assert isinstance(process.error(failed.value), StatusError)
    with pytest.raises(StatusError):
        ProcessFolder(child.pid, "thing", started)


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with ProcessFolder(child.pid, "thing") as process:
            assert process.is_ending()
            # The kernel says no such process of the one, and invalid argument of the other.
            for look in (reading.inodes, gives.mounts):
                with pytest.raises(OSError) as failed:
                    look(process)
                assert isinstance(process.error(failed.value), StatusError)
    finally:
        child.wait()


@pytest.mark.needs("not-root")
def test_another_users_process_is_refused() -> None:
    with ProcessFolder(1, "process 1") as process:
        with pytest.raises(PermissionError) as failed:
            reading.inodes(process)
        refused = process.error(failed.value)
    assert isinstance(refused, CellwallError)
    assert "another user's: look as that user, or as root" in str(refused)


def test_a_name_cannot_forge_facts(tmp_path: Path) -> None:
    """Of status, stat and cmdline: a name with line ends, parentheses and what looks like fields."""
    script = tmp_path / "named.py"
    script.write_text(
        "import sys\nopen('/proc/self/comm', 'wb').write(b') R 1 1\\nUid:\\t0')\nprint(flush=True)\nsys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", script, "a\nb"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        with ProcessFolder(child.pid, "thing") as process:
            assert process.stat().name == ") R 1 1\nUid:\t0"
            assert process.stat().parent == os.getpid()
            assert process.status()["PPid"] == str(os.getpid())
            assert process.status()["Uid"].split()[0] == str(os.getuid())
            assert process.command().endswith("named.py a\nb")
    finally:
        child.communicate(b"")


def test_processes_as_a_tree_of_those_that_are_named() -> None:
    """Children under their parents; who isn't named, or has ended, isn't there, and what is left out is counted."""
    parent = subprocess.Popen(
        ["sh", "-c", "sleep 1000 & sleep 1001 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        with ProcessFolder(parent.pid, "thing") as first:
            inodes, users = reading.inodes(first), reading.id_map(first, "uid")
            found, count = reading.members(lambda: [*children, 2**22 - 1], first, inodes, users)
            assert [(one.pid, one.depth, one.joined) for one in found] == [
                (parent.pid, 0, False),
                *((pid, 1, False) for pid in sorted(children)),
            ]
            assert all(one.own == () and one.container_pid == reading.numbers(first.status())[-1] for one in found[:1])
            assert count == 4
            few, count = reading.members(lambda: children, first, inodes, users, most=2)
            assert ([one.pid for one in few], count) == ([parent.pid, min(children)], 3)
            # Named first and not the second time: it left between the two looks.
            looks = iter([children, children[:1]])
            rest, count = reading.members(lambda: next(looks), first, inodes, users)
            assert ({one.pid for one in rest}, count) == ({parent.pid, children[0]}, 2)
    finally:
        os.killpg(parent.pid, 9)
        parent.communicate()
