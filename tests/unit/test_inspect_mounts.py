"""mountinfo read and told: escapes, the tree, what is covered, what each mount is to a person, and both twins of the view."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.errors import SyscallError, UnsupportedError
from cellwall.runtime.inspect import plain
from cellwall.runtime.inspect.mounts import DeviceNode, MountPoint, MountsView, Shift
from cellwall.runtime.inspect.mounts_kinds import KINDS, Places, kind_of, volume_of
from cellwall.runtime.inspect.mounts_table import Row, hidden_by, in_tree_order, rows_of, unescape
from cellwall.runtime.inspect.mounts_words import inside, superblock
from cellwall.runtime.inspect.namespaces_facts import IdRange
from cellwall.runtime.linux.mount_stat import listmount, mount_namespace_id, statmount_ids

from .test_inspect_blocks import HOSTILE, Page

# A container that docker made, as proc_pid_mountinfo(5) writes it.
CONTAINER = rb"""
100 99 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b:/c,upperdir=/u,workdir=/w
101 100 0:51 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
102 100 0:52 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
103 102 0:53 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
104 102 0:54 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
105 100 0:55 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
106 105 0:56 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
107 100 8:1 /srv/my\040data /data rw,relatime shared:7 master:3 propagate_from:2 - ext4 /dev/sda1 rw,errors=remount-ro
108 100 8:1 /state/volumes/web/_data /v rw,nosuid,nodev,relatime,idmapped - ext4 /dev/sda1 rw
109 100 8:1 /etc/hosts\134\012 /etc/hosts rw,relatime unbindable - ext4 /dev/sda1 rw
110 101 0:51 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
111 101 0:57 / /proc/acpi ro,relatime - tmpfs tmpfs ro
112 101 0:52 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
113 100 0:60 / /t rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=1024k
""".strip()
HERE = rb"""
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw
22 20 8:2 /@home /home rw,relatime - btrfs /dev/sda2 rw,subvol=/@home
23 20 8:1 /srv /mnt/srv rw,relatime - ext4 /dev/sda1 rw
""".strip()


def rows(text: bytes) -> list[Row]:
    found, count = rows_of(text)
    assert len(found) == count
    return found


def kinds(text: bytes = CONTAINER, here: bytes = HERE, volumes: str = "/state/volumes") -> dict[str, tuple[str, str]]:
    """Kind and path of each target; the device that lies at /null is one, and nothing else is."""
    listed = rows(text)
    by_id = {row.id: row for row in listed}
    places = Places(rows(here))
    found = {}
    for row in listed:
        path = places.path_of(row)
        device = "null" if row.root == "/null" else ""
        kind = kind_of(row, by_id.get(row.parent_id), path, volume_of(path, volumes), partial(str, device))
        found[row.target] = kind, path
    return found


def test_a_line_with_every_field() -> None:
    row = next(row for row in rows(CONTAINER) if row.id == 107)
    assert row == Row(
        id=107,
        parent_id=100,
        device="8:1",
        root="/srv/my data",
        target="/data",
        options=("rw", "relatime"),
        peers=("shared:7", "master:3", "propagate_from:2"),
        filesystem="ext4",
        source="/dev/sda1",
        superblock_options=("rw", "errors=remount-ro"),
    )
    assert row.propagation == "shared 7, slave of 3"
    assert {row.target: row.propagation for row in rows(CONTAINER)}["/etc/hosts"] == "unbindable"
    assert {row.target: row.propagation for row in rows(CONTAINER)}["/t"] == "private"
    assert next(row.root for row in rows(CONTAINER) if row.id == 109) == "/etc/hosts\\\n"


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_what_the_kernel_escapes_is_read_back(path: bytes) -> None:
    """Source: fs/proc_namespace.c, mangle: blank, tab, line end, backslash and the hash sign."""
    escaped = b"".join(b"\\%03o" % letter if letter in b" \t\n\\#" else bytes([letter]) for letter in path)
    line = b"7 1 0:3 / /" + escaped + b" rw - tmpfs none rw"
    (row,) = rows(line)
    assert row.target.encode("utf-8", "surrogateescape") == b"/" + path
    assert unescape(escaped).encode("utf-8", "surrogateescape") == path


def test_the_first_lines_and_how_many_there_are() -> None:
    found, count = rows_of(CONTAINER, 3)
    assert ([row.id for row in found], count) == ([100, 101, 102], 14)
    assert rows_of(b"") == ([], 0)


def test_what_each_mount_is() -> None:
    assert kinds() == {
        "/": ("root", ""),
        "/proc": ("kernel", ""),
        "/dev": ("devices", ""),
        "/dev/pts": ("kernel", ""),
        "/dev/shm": ("tmpfs", ""),
        "/sys": ("kernel", ""),
        "/sys/fs/cgroup": ("kernel", ""),
        "/data": ("bind", "/mnt/srv/my data"),
        "/v": ("volume", "/state/volumes/web/_data"),
        "/etc/hosts": ("bind", "/etc/hosts\\\n"),
        "/proc/sys": ("read-only", ""),
        "/proc/acpi": ("masked", ""),
        "/proc/kcore": ("masked", ""),
        "/t": ("tmpfs", ""),
    }
    assert set(KINDS) >= {kind for kind, _ in kinds().values()}


def test_where_this_process_sees_it() -> None:
    places = Places(rows(HERE))
    base = next(row for row in rows(CONTAINER) if row.id == 107)
    # The longest part that is mounted here wins; a name that only begins alike is another folder.
    assert places.path_of(replace(base, root="/srv/x")) == "/mnt/srv/x"
    assert places.path_of(replace(base, root="/srv")) == "/mnt/srv"
    assert places.path_of(replace(base, root="/srvx")) == "/srvx"
    assert places.path_of(replace(base, root="/")) == "/"
    assert places.path_of(replace(base, device="8:2", root="/@home/me")) == "/home/me"
    assert places.path_of(replace(base, device="8:2", root="/@other")) == ""
    assert places.path_of(replace(base, device="9:9", root="/")) == ""


def test_a_mount_of_this_namespace_is_no_bind_of_a_later_one() -> None:
    assert kinds(HERE, HERE) == {
        "/": ("root", ""),
        "/dev": ("devices", ""),
        "/home": ("bind", ""),
        "/mnt/srv": ("bind", "/srv"),
    }


def test_volumes_by_their_folder() -> None:
    assert volume_of("/s/volumes/web/_data", "/s/volumes") == "web"
    assert volume_of("/s/volumes/web/_data/a/b", "/s/volumes") == "web"
    for other in ("/s/volumes/web", "/s/volumes", "/s/volumesx/web/_data", "/s/volumes/web/other", "", "/x"):
        assert volume_of(other, "/s/volumes") == ""


def tree(text: bytes) -> list[tuple[int, str]]:
    return [(depth, row.target) for depth, row in in_tree_order(rows(text))]


def test_the_tree_has_every_mount_once_below_what_it_stands_on() -> None:
    assert tree(CONTAINER)[:4] == [(0, "/"), (1, "/data"), (1, "/dev"), (2, "/dev/pts")]
    assert sorted(target for _, target in tree(CONTAINER)) == sorted(row.target for row in rows(CONTAINER))
    # Folders stand before what only begins like them, and a mount that is its own parent is the root.
    text = b"1 1 0:1 / / rw - rootfs none rw\n2 1 0:2 / /a-b rw - tmpfs none rw\n3 1 0:3 / /a/c rw - tmpfs none rw"
    assert tree(text) == [(0, "/"), (1, "/a/c"), (1, "/a-b")]
    # Two roots: the process's own was moved away from.
    assert tree(b"5 4 0:1 / /x rw - tmpfs none rw\n6 9 0:2 / /y rw - tmpfs none rw") == [(0, "/x"), (0, "/y")]


def test_the_tree_is_deeper_than_pythons_stack() -> None:
    lines = [b"%d %d 0:%d / /x rw - tmpfs none rw" % (number, number - 1, number) for number in range(1, 4001)]
    found = list(in_tree_order(rows(b"\n".join(lines))))
    assert [depth for depth, _ in found] == list(range(4000))
    assert hidden_by([row for _, row in found]) == {number: number + 1 for number in range(1, 4000)}


def hidden(text: str) -> dict[int, int]:
    return hidden_by(rows(text.encode()))


def test_what_is_covered() -> None:
    base = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /a rw - tmpfs none rw\n3 2 0:3 / /a/b rw - tmpfs none rw\n"
    assert hidden(base) == {}
    # On its own root: it and what stood on it, but not what stands on the new one.
    on_top = base + "4 2 0:4 / /a rw - tmpfs none rw\n5 4 0:5 / /a/b rw - tmpfs none rw\n"
    assert hidden(on_top) == {2: 4, 3: 4}
    # A folder above is mounted over, on the same filesystem: /a/b first, /a then.
    above = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /a/b rw - tmpfs none rw\n6 2 0:6 / /a/b/c rw - tmpfs none rw\n3 1 0:3 / /a rw - tmpfs none rw\n"
    assert hidden(above) == {2: 3, 6: 3}
    # /ab is not below /a.
    assert (
        hidden("1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /ab/c rw - tmpfs none rw\n3 1 0:3 / /a rw - tmpfs none rw\n")
        == {}
    )
    # Stacked three high on the root itself.
    stacked = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / / rw - tmpfs none rw\n3 2 0:3 / / rw - tmpfs none rw\n4 1 0:4 / /m rw - tmpfs none rw\n"
    assert hidden(stacked) == {1: 2, 2: 3, 4: 2}


def test_ids_on_disk_as_the_container_sees_them() -> None:
    container = (IdRange(0, 5000, 1000), IdRange(2000, 9000, 10))
    # Root and user 7 exchanged; beyond the container's ids there is nobody.
    shifts = (Shift(0, 5007, 1), Shift(1, 5001, 6), Shift(7, 5000, 1), Shift(8, 5008, 2000))
    assert inside(shifts, container) == [(0, 7, 1), (1, 1, 6), (7, 0, 1), (8, 8, 992)]
    assert inside((Shift(0, 100, 5),), container) == []


def test_layers_are_counted_not_listed() -> None:
    point = a_point("/")
    many = replace(
        point,
        superblock_options=("rw", *(f"lowerdir+=/proc/self/fd/{n}" for n in range(300)), "upperdir=/u", "workdir=/w"),
    )
    assert superblock(many) == "300 read-only layers, a writable one on top"
    assert (
        superblock(replace(point, superblock_options=("ro", "lowerdir=/a:/b", "userxattr")))
        == "2 read-only layers, userxattr"
    )


def a_point(target: str, **changed: object) -> MountPoint:
    point = MountPoint(
        id=1,
        parent_id=0,
        depth=0,
        target=target,
        kind="root",
        filesystem="overlay",
        source="overlay",
        root="/",
        device="0:1",
        path="",
        volume="",
        options=("rw", "relatime"),
        superblock_options=(),
        propagation="private",
    )
    return replace(point, **changed)  # type: ignore[arg-type]


def a_view(*points: MountPoint, **changed: object) -> MountsView:
    view = MountsView("web", "ab" * 32, 77, 4026532000, False, len(points), points)
    return replace(view, **changed)  # type: ignore[arg-type]


# What a person reads of either twin; long words of the text are broken, so blanks don't count.
def letters(string: str) -> str:
    return re.sub(r"\s+", "", string)


def test_both_twins_say_every_fact() -> None:
    view = a_view(
        a_point("/", superblock_options=("lowerdir=/a:/b:/c", "upperdir=/u")),
        a_point("/data", depth=1, kind="bind", filesystem="ext4", path="/srv/my data", options=("ro", "nosuid")),
        a_point("/v", depth=1, kind="volume", filesystem="xfs", path="/s/web/_data/sub", volume="web"),
        a_point(
            "/i",
            depth=1,
            kind="bind",
            path="/home",
            idmapped=True,
            uid_map=(Shift(3, 5004, 2),),
            gid_map=(Shift(6, 5000, 1),),
        ),
        a_point("/old", depth=1, kind="tmpfs", filesystem="tmpfs", hidden_by="/new"),
        a_point("/new", depth=1, kind="disk", source="/dev/sdb", hides=("/old", "/older", "/x", "/y")),
        a_point("/proc/kcore", depth=2, kind="masked", root="/null"),
        a_point("/proc/acpi", depth=2, kind="masked"),
        a_point("/g", depth=1, kind="kernel", filesystem="cgroup2", root="/../x"),
        a_point("/f", depth=1, kind="bind", root="/part", source="/dev/sdc", beneath_bytes=1_234_567),
        a_point("/few", depth=1, kind="tmpfs", beneath_entries=1),
        a_point("/many", depth=1, kind="tmpfs", beneath_entries=10_000),
        uid_map=(IdRange(0, 5000, 100),),
        gid_map=(IdRange(0, 5000, 100),),
        devices=(DeviceNode("/dev/null", "c", 1, 3, "0666"),),
        more=1234,
        more_devices=7,
        count=1246,
    )
    facts = (
        *("mounts of web", "1,246 mounts", "process 77", "mount namespace 4026532000", "of its own", "all private"),
        *("3 read-only layers, a writable one on top", "from /srv/my data", "ro,nosuid", "volume web, /sub"),
        *("users on disk → here: 3–4 → 4–5; groups: 6 → 0", "can't be seen: /new is mounted over it", "from /dev/sdb"),
        *(
            "covers the mounts at /old, /older, /x and 1 more",
            "behind /dev/null",
            "behind an empty folder",
            "group /../x",
        ),
        *("hides a file of 1,234,567 bytes", "hides 1 entry of the folder", "hides at least 10,000 entries"),
        *("from /part of /dev/sdc", "1,234 more mounts", "7 more", "c 1:3, 0666", KINDS["masked"], "ext4", "xfs"),
    )
    for twin in (view.text(), Page(view.html()).text):
        for fact in facts:
            assert letters(fact) in letters(twin), fact
        for point in view.mounts:
            assert point.target in twin
    assert json.loads(json.dumps(view.to_dict()))["mounts"][1]["path"] == "/srv/my data"


def test_propagation_stands_at_each_mount_where_they_differ() -> None:
    view = a_view(a_point("/"), a_point("/s", depth=1, propagation="shared 4"))
    for twin in (view.text(), Page(view.html()).text):
        assert "all private" not in twin
        assert letters("rw,relatime; shared 4") in letters(twin)


@pytest.mark.parametrize("string", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("columns", [40, 80, 100])
def test_strings_from_outside_do_nothing(string: str, columns: int) -> None:
    view = a_view(
        a_point("/"),
        a_point(
            f"/{string}",
            depth=1,
            kind="bind",
            filesystem=string,
            path=f"/{string}",
            options=(string, "ro"),
            hidden_by=string,
        ),
        a_point(
            f"/v{string}",
            depth=30,
            kind="volume",
            source=string,
            volume=string,
            hides=(string,),
            superblock_options=(string,),
        ),
        name=string,
        devices=(DeviceNode(f"/dev/{string}", "c", 1, 3, "0666"),),
    )
    shown = Page(view.html())
    assert {tag for tag, _ in shown.tags} <= {"div", "span", "details", "summary", "s"}
    assert all(
        not name.startswith("on") and name not in ("src", "href", "id") for _, have in shown.tags for name in have
    )
    for twin in (view.text(columns), shown.text):
        assert all(letter == "\n" or letter.isprintable() for letter in twin)
    assert max(map(plain.width, view.text(columns).splitlines())) <= columns


def test_five_thousand_mounts_have_a_bound() -> None:
    points = tuple(a_point(f"/m/{number}", depth=1, kind="tmpfs") for number in range(1000))
    view = a_view(a_point("/"), *points, count=5001, more=4000)
    assert len(view.html()) < 60_000
    for twin in (view.text(), Page(view.html()).text):
        assert f"{5001 - 200:,} more" in twin
        assert "/m/50" in twin
        assert "/m/900" not in twin
    assert len(view.to_dict()["mounts"]) == 1001


class Deepest(HTMLParser):
    """How deep the folds of a piece of HTML are in each other."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.depth = self.deepest = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.depth += tag == "details"
        self.deepest = max(self.deepest, self.depth)

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "details"


def test_mounts_that_stand_on_each_other_stay_on_the_page() -> None:
    view = a_view(*(a_point("/x", depth=depth) for depth in range(200)))
    assert max(map(len, view.text().splitlines())) <= 80
    assert 6 < Deepest(view.html()).deepest <= 9


def test_the_kernels_own_list_is_mountinfos() -> None:
    """Where this kernel has listmount and statmount; and what isn't a namespace has no id on any."""
    with open("/dev/null") as file, pytest.raises(UnsupportedError, match="ids of mount namespaces"):
        mount_namespace_id(file.fileno())
    with open("/proc/self/ns/mnt") as file:
        try:
            namespace_id = mount_namespace_id(file.fileno())
            listed = listmount(namespace_id)
        except UnsupportedError as error:
            pytest.skip(str(error))
    found = {statmount_ids(mount_id, namespace_id)[0] for mount_id in listed}
    known = rows(Path("/proc/self/mountinfo").read_bytes())
    assert found == {row.id for row in known}
    assert len(listmount(namespace_id, most=1)) == 1
    # Only idmapped mounts have maps.
    plain_ids = {row.id for row in known if not row.is_idmapped}
    for mount_id in listed:
        number, uids, gids = statmount_ids(mount_id, namespace_id)
        assert number not in plain_ids or (uids, gids) == ((), ())
    with pytest.raises(SyscallError, match="ENOENT"):
        statmount_ids(1 << 62, namespace_id)
