"""What ``cgroups`` makes of the kernel's words: places, disks, quotas, pressure, history; and how it is said.

The texts are those of the kernel's documentation (admin-guide/cgroup-v1, admin-guide/cgroup-v2, accounting/psi).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cellwall.runtime.cgroups.hierarchy import parse_mountinfo
from cellwall.runtime.cgroups.stats import parse_pressure
from cellwall.runtime.errors import SpecError
from cellwall.runtime.inspect import cgroups, cgroups_html, cgroups_text, cgroups_words
from cellwall.runtime.inspect.cgroups_disks import parse_blkio, parse_io_max, parse_io_stat
from cellwall.runtime.inspect.cgroups_figures import Figure, Meter, parse_cpu_max, tightest
from cellwall.runtime.inspect.cgroups_history import FIRST_INTERVAL_S, MOST, History
from cellwall.runtime.inspect.cgroups_places import Place, mode_of, parse_places
from cellwall.runtime.inspect.cgroups_subsystems import subsystems
from cellwall.runtime.inspect.cgroups_watch import WatchView
from cellwall.runtime.inspect.view import View, follow

ID = "0123456789ab" * 5
HYBRID = "".join(
    f"{number} 29 0:{number} / {point} rw - {kind} none {options}\n"
    for number, point, kind, options in (
        (31, "/cg/memory", "cgroup", "rw,memory"),
        (32, "/cg/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
        (33, "/cg/unified", "cgroup2", "rw"),
    )
)


def places(text: str, mounts: str = HYBRID, container_id: str = ID) -> dict[str, Place]:
    found = parse_places(text, parse_mountinfo(mounts), container_id)
    return {",".join(place.controllers) if place.version == 1 else "unified": place for place in found}


def test_a_container_is_in_its_own_group_also_from_a_group_below_it() -> None:
    found = places(f"5:memory:/user/cellwall/{ID}\n4:cpu,cpuacct:/\n3:name=systemd:/\n0::/cellwall/{ID}/exec-1\n")
    assert found["memory"].folder == f"/cg/memory/user/cellwall/{ID}"
    assert found["memory"].own
    assert list(found["memory"].upward()) == [
        (f"/user/cellwall/{ID}", f"/cg/memory/user/cellwall/{ID}"),
        ("/user/cellwall", "/cg/memory/user/cellwall"),
        ("/user", "/cg/memory/user"),
        ("/", "/cg/memory"),
    ]
    assert found["unified"].group == f"/cellwall/{ID}"
    assert not found["cpu,cpuacct"].own
    assert found["cpu,cpuacct"].folder == "/cg/cpu,cpuacct"
    assert found["name=systemd"].folder == ""
    assert mode_of(tuple(found.values())) == "hybrid"


def test_a_group_that_no_mount_shows_has_no_folder() -> None:
    # Seen from a cgroup namespace further down, and below a mount that begins at another group.
    assert places("0::/../other\n")["unified"].folder == ""
    inside = "31 29 0:31 /docker/1 /cg/memory rw - cgroup none rw,memory\n"
    assert places("5:memory:/docker/2\n", inside)["memory"].folder == ""
    assert places(f"5:memory:/docker/1/{ID}\n", inside)["memory"].folder == f"/cg/memory/{ID}"
    assert places("5:memory:/docker/1\n", inside)["memory"].folder == "/cg/memory"
    assert places("5:memory:/gone (deleted)\n", container_id="")["memory"].group == "/gone"


def test_without_any_mount_there_is_no_figure_and_each_says_why() -> None:
    found = tuple(places("5:memory:/x\n0::/x\n", "").values())
    assert mode_of(found) == "none"
    for one in subsystems(found):
        assert one.values == ()
        assert one.note
    assert [one.name for one in subsystems(found)] == [
        "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "net_cls", "ns",
    ]  # fmt: skip


def test_the_smallest_limit_on_the_way_up_counts_and_names_its_group() -> None:
    place = Place(1, ("pids",), "/a/b", "/cg/a/b", "/cg", True)
    limits = {"/cg/a/b": 99, "/cg/a": 55, "/cg": None}
    found, by = tightest(place, "limit", "count", lambda folder: (limits[folder], f"{folder}/pids.max"))
    assert found == Figure("limit", 55, "count", "/cg/a/pids.max")
    assert by == "/a"
    # Its own limit, and none at all.
    assert tightest(place, "limit", "count", lambda folder: (7, folder))[1] == ""
    assert tightest(place, "limit", "count", lambda folder: (None, folder)) == (None, "")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000\n", None), ("50000 100000\n", 0.5), ("300000 100000\n", 3.0), ("", None), ("x", None)],
)
def test_cpu_max(text: str, cpus: float | None) -> None:
    assert parse_cpu_max(text) == cpus


def test_io_stat_and_io_max() -> None:
    assert parse_io_stat(
        "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n"
        "8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021\n254:0\n"
    ) == {
        "8:16": {"read_bytes": 1459200, "written_bytes": 314773504, "reads": 192, "writes": 353},
        "8:0": {"read_bytes": 90430464, "written_bytes": 299008000, "reads": 8950, "writes": 1252},
    }
    assert parse_io_max(
        "8:16 rbps=2097152 wbps=max riops=max wiops=120\n8:0 rbps=max wbps=max riops=max wiops=max\n"
    ) == {
        "8:16": {"rbps": 2097152, "wiops": 120},
        "8:0": {},
    }


def test_blkio_of_version_1() -> None:
    used = parse_blkio("8:0 Read 4096\n8:0 Write 12\n8:0 Total 4108\nTotal 4108\n", "8:0 Read 1\n8:0 Sync 1\nTotal 1\n")
    assert used == {"8:0": {"read_bytes": 4096, "written_bytes": 12, "reads": 1, "writes": 0}}


def test_psi() -> None:
    text = "some avg10=0.00 avg60=1.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert parse_pressure(text)["some"]["avg60"] == 1.25


def test_a_history_never_grows_and_keeps_the_highest_use_of_memory() -> None:
    history = History()
    looks = 10 * MOST
    for at in range(looks):
        # Half a cpu all the time, and one peak of memory.
        history.add(at * 0.1, 999 if at == 777 else 5, at * 0.05)
    found = history.moments()
    assert MOST / 2 <= len(found) <= MOST
    assert history.interval_s > FIRST_INTERVAL_S
    assert found[0].at_s == 0
    assert found[-1].at_s == round((looks - 1) * 0.1, 3)
    assert max(one.memory_bytes or 0 for one in found) == 999
    assert [one.cpus for one in found] == [None] + [0.5] * (len(found) - 1)
    assert history.cpus_since(found[-2].at_s) == pytest.approx(0.5)


def test_a_history_of_nothing() -> None:
    history = History()
    assert history.moments() == ()
    assert history.cpus_since(0) is None
    history.add(0.0, None, None)
    assert history.moments()[0].cpus is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 B"),
        (1023, "bytes", "1023 B"),
        (1024, "bytes", "1 KiB"),
        (64 << 20, "bytes", "64 MiB"),
        ((1 << 30) - 1, "bytes", "1 GiB"),
        (3 << 50, "bytes", "3,072 TiB"),
        (0.1, "cpus", "0.1 cpus"),
        (1.0, "cpus", "1 cpu"),
        (128, "cpus", "128 cpus"),
        (0.0000321, "seconds", "32.1 µs"),
        (0.00532, "seconds", "5.32 ms"),
        (12.34, "seconds", "12.3 s"),
        (200, "seconds", "3 min 20 s"),
        (7500, "seconds", "2 h 5 min"),
        (300000, "seconds", "3 days 11 h"),
        (12345, "count", "12,345"),
        ("0-3", "text", "0-3"),
        (None, "bytes", "unknown"),
    ],
)
def test_figures_in_words(value: int | float | str | None, unit: str, text: str) -> None:
    assert cgroups_words.said(value, unit) == text


def test_what_files_say_in_words() -> None:
    assert cgroups_words.of_file("/g/memory.limit_in_bytes", "67108864") == "67108864 (64 MiB)"
    assert cgroups_words.of_file("/g/memory.limit_in_bytes", "9223372036854771712") == "9223372036854771712 (no limit)"
    assert cgroups_words.of_file("/g/cpu.cfs_quota_us", "-1") == "-1 (no limit)"
    assert cgroups_words.of_file("/g/devices.list", "\n".join("abcdefghij")) == "a, b, c, d, e, f, … and 4 more"
    assert cgroups_words.of_file("/g/devices.list", "\n".join("abcdefg")) == "a, b, c, d, e, f, g"
    assert cgroups_words.of_file("/g/blkio.throttle.read_bps_device", "") == "nothing set"


def test_a_meter_in_words() -> None:
    whole = Figure("limit", 64 << 20, "bytes")
    meter = Meter(
        "memory", "bytes", 1, Figure("use", 16 << 20, "bytes"), Figure("peak", 32 << 20, "bytes"), whole, None, "/a"
    )
    assert cgroups_words.of_meter(meter) == "16 MiB of 64 MiB, peak 32 MiB, limited by /a"
    assert meter.share == 0.25
    free = Meter("memory", "bytes", 1, Figure("use", 1 << 20, "bytes"), None, None, Figure("machine", 1 << 30, "bytes"))
    assert cgroups_words.of_meter(free) == "1 MiB, no limit, the machine has 1 GiB"
    none = Meter("swap", "bytes", 2, Figure("use", 0, "bytes"), None, Figure("limit", 0, "bytes"), None)
    assert cgroups_words.of_meter(none) == "none may be used"
    for shown in (cgroups_text.meter(none, 80), cgroups_html.meter(none)):
        assert "none may be used" in shown
        assert "no limit" not in shown
    cpu = Meter("cpu", "cpus", 2, Figure("mean use", 0.05, "cpus"), None, Figure("limit", 0.5, "cpus"), None)
    assert cgroups_words.of_meter(cpu) == "0.05 of 0.5 cpus on average"


def test_a_watched_group_in_text_and_html_says_the_same() -> None:
    history = History()
    for at in range(20):
        history.add(at * 0.1, (at + 1) << 20, at * 0.05)
    use = Figure("use", 20 << 20, "bytes")
    memory = Meter("memory", "bytes", 1, use, None, Figure("limit", 64 << 20, "bytes"), None)
    cpu = Meter("cpu", "cpus", 1, Figure("use", 0.5, "cpus"), None, None, None)
    killed = Figure("times at the limit", 3, "count", bad=True)
    pids = Meter("processes", "count", 1, Figure("use", 3, "count"), None, None, None, figures=(killed,))
    view = WatchView("<b>lab</b>\x1b[31m", "", 1.9, "runs", (memory, cpu, pids), (), history.moments())
    text, html = view.text(), view.html()
    for fact in (
        "most 20 MiB, at the end 20 MiB",
        "most 0.5, on average 0.5",
        "20 MiB of 64 MiB",
        "✕ times at the limit 3",
    ):
        assert fact in text
        assert fact in html
    assert "<b>" not in html
    assert "\x1b" not in html + text
    assert max(map(len, text.splitlines())) <= 80
    assert len(view.to_dict()["moments"]) == 1, "while it goes on, what is new alone"
    ended = WatchView("lab", "", 1.9, "ended", (memory, cpu, pids), (), history.moments())
    assert len(ended.to_dict()["moments"]) == 20


def test_seconds_of_for() -> None:
    assert cgroups._seconds("--for", "0.5") == 0.5
    for wrong in ("", "x", "-1", "0", "nan", "inf"):
        with pytest.raises(SpecError, match=r"--for: .*isn't a number of seconds, such as 10"):
            cgroups._seconds("--for", wrong)


@dataclass(frozen=True)
class Word(View):
    word: str

    def text(self, columns: int = 80) -> str:
        return self.word

    html = text


def test_an_interrupt_while_a_view_is_shown_is_the_end_with_a_last_word() -> None:
    told: list[str] = []

    def watching() -> Iterator[View]:
        try:
            yield from map(Word, ("first", "second", "never"))
        except KeyboardInterrupt:
            yield Word("last")
        finally:
            told.append("closed")

    def show(view: View) -> None:
        told.append(str(view))
        if told[-1] == "second":
            raise KeyboardInterrupt

    assert str(follow(watching(), show)) == "last"
    assert told == ["first", "second", "last", "closed"]
    # What only gives views has no last word, and what gives none is interrupted like anything else.
    assert str(follow(map(Word, ("first", "second", "never")), show)) == "second"
    with pytest.raises(KeyboardInterrupt):
        follow(map(show, [Word("second")]), show)  # type: ignore[arg-type]
