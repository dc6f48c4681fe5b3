"""Docker's ways of writing values: sizes, limits, rates, mounts, each read exactly or refused by name."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cli import mount_values, values
from cellwall.runtime.errors import SpecError
from cellwall.runtime.options import Mount, Rate, Ulimit

UNITS = {
    "": 0,
    "b": 0,
    "B": 0,
    "k": 10,
    "K": 10,
    "kb": 10,
    "KiB": 10,
    "m": 20,
    "MB": 20,
    "g": 30,
    "Gi": 30,
    "t": 40,
    "p": 50,
}
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,20}", fullmatch=True)
PARTS = st.from_regex(r"[a-zA-Z0-9_.+@ -]{1,12}", fullmatch=True).filter(lambda part: part not in (".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.integers(1, 8191), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_sizes_are_powers_of_1024(number: int, unit: str, space: str) -> None:
    assert values.size("--memory", f"{number}{space}{unit}") == number << UNITS[unit]


@given(st.integers(0, 9999), st.integers(0, 999999), st.sampled_from(["k", "m", "g"]))
def test_fractions_of_a_size_are_cut_not_rounded(whole: int, fraction: int, unit: str) -> None:
    scale = 1 << UNITS[unit]
    expected = whole * scale + fraction * scale // 10**6
    text = f"{whole}.{fraction:06d}{unit}"
    if expected == 0:
        with pytest.raises(SpecError, match="out of range"):
            values.size("--memory", text)
    else:
        assert values.size("--memory", text) == expected


@given(st.integers(0, values.LARGEST))
def test_a_size_written_short_reads_back(number: int) -> None:
    assert values.size("--shm-size", values.size_text(number), low=0) == number


@pytest.mark.parametrize(
    ("number", "text"), [(64 << 20, "64m"), (1 << 30, "1g"), (1536 << 20, "1536m"), (1000, "1000"), (0, "0")]
)
def test_sizes_are_written_as_a_person_would(number: int, text: str) -> None:
    assert values.size_text(number) == text


@given(st.text(max_size=12))
def test_any_text_is_a_size_in_range_or_a_spec_error(text: str) -> None:
    named: list[str] = []
    try:
        number = values.size("--memory", text)
    except SpecError as error:
        named.append(error.field)
    else:
        assert 1 <= number <= values.LARGEST
    assert named in ([], ["--memory"])


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1.m", ".5m", "1,5m", "0x10", "1 2m", "1mm", "¹m", "٣m"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is no size"):
        values.size("--memory", text)


@pytest.mark.parametrize("text", ["0", "1k", "6143k", "99999999t", "9" * 40, "0.0000001b"])
def test_memory_out_of_range_says_the_range(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--memory: .* is out of range: .*6m"):
        values.memory("--memory", text)


def test_memory_swap_takes_minus_one_for_unlimited() -> None:
    assert values.memory_swap("--memory-swap", "-1") == -1
    with pytest.raises(SpecError, match="is no size"):
        values.memory("--memory", "-1")


@given(st.sampled_from(values.ULIMITS), st.integers(0, values.LARGEST), st.integers(0, values.LARGEST))
def test_ulimits_keep_soft_below_hard(name: str, one: int, other: int) -> None:
    text = f"{name}={one}:{other}"
    if one <= other:
        assert values.ulimit("--ulimit", text) == Ulimit(name, one, other)
    else:
        with pytest.raises(SpecError, match="soft limit must be at most the hard one"):
            values.ulimit("--ulimit", text)


@given(st.sampled_from(values.ULIMITS), st.integers(-1, values.LARGEST))
def test_one_ulimit_figure_is_both(name: str, limit: int) -> None:
    assert values.ulimit("--ulimit", f"{name}={limit}") == Ulimit(name, limit, limit)


def test_unlimited_is_above_every_figure() -> None:
    assert values.ulimit("--ulimit", "core=0:-1") == Ulimit("core", 0, -1)
    assert values.ulimit("--ulimit", "memlock=unlimited") == Ulimit("memlock", -1, -1)
    with pytest.raises(SpecError, match="soft limit"):
        values.ulimit("--ulimit", "core=-1:5")


@pytest.mark.parametrize(
    "text",
    ["nofile", "nofile=", "nofile=1:2:3", "nofile=-2", "nofile=x", "nofiles=1", "NOFILE=1", "=1", f"nofile={1 << 63}"],
)
def test_what_is_no_ulimit_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--ulimit: "):
        values.ulimit("--ulimit", text)


def test_rates_name_a_device_and_an_amount() -> None:
    assert values.rate_bps("--device-read-bps", "/dev/sda:1mb") == Rate("/dev/sda", 1 << 20)
    assert values.rate_iops("--device-read-iops", "/dev/disk/by-id/a:b:100") == Rate("/dev/disk/by-id/a:b", 100)
    for text in ("/dev/sda", "sda:1mb", ":1mb", "/dev/sda:"):
        with pytest.raises(SpecError, match=r"^--device-read-bps: "):
            values.rate_bps("--device-read-bps", text)
    with pytest.raises(SpecError, match="out of range: 1 to"):
        values.rate_iops("--device-read-iops", "/dev/sda:0")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5", 1.5), ("500ms", 0.5), ("5m", 300), ("1h", 3600), ("2s", 2)]
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration("--timeout", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["0", "-1", "", "x", "1w", "1e5", "nan", "inf", "9999999999"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--timeout: "):
        values.duration("--timeout", text)


def test_cpus_end_at_this_machines_count() -> None:
    assert values.cpus("--cpus", "0.5") == 0.5
    assert values.cpus("--cpus", "0") == 0
    for text in ("0.001", "-1", "nan", "inf", str((os.cpu_count() or 1) + 1)):
        with pytest.raises(SpecError, match=rf"out of range; the range is 0.01 to {os.cpu_count()}"):
            values.cpus("--cpus", text)


@pytest.mark.parametrize("text", ["/dev/fuse", "/dev/sda:/dev/xvda", "/dev/sda:/dev/xvda:r", "/dev/sda:rw"])
def test_devices(text: str) -> None:
    assert values.device("--device", text) == text


@pytest.mark.parametrize("text", ["fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:/dev/c", "/dev/a:/dev/b:", ""])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--device: "):
        values.device("--device", text)


def test_sysctls_are_the_containers_own() -> None:
    assert values.sysctl("--sysctl", "net/ipv4/ip_forward=1") == ("net.ipv4.ip_forward", "1")
    assert values.sysctl("--sysctl", "kernel.shmmax=65536") == ("kernel.shmmax", "65536")
    for text in ("kernel.hostname=x", "vm.swappiness=1", "net.ipv4", "net..x=1", "kernel.core_pattern=|/x"):
        with pytest.raises(SpecError, match=r"^--sysctl: "):
            values.sysctl("--sysctl", text)


def test_hosts_names_users_and_cpusets() -> None:
    assert values.add_host("--add-host", "db:10.0.0.1") == "db:10.0.0.1"
    assert values.add_host("--add-host", "db=[::1]") == "db:::1"
    assert values.user("--user", "1000:users") == "1000:users"
    assert values.cpuset("--cpuset-cpus", "0-3,6") == "0-3,6"
    assert values.capability("--cap-add", "cap_net_admin") == "NET_ADMIN"
    assert values.host_name("--hostname", "a-1.lab") == "a-1.lab"
    bad = [
        (values.add_host, "db"),
        (values.add_host, "db:1.2.3"),
        (values.user, "a:b:c"),
        (values.user, ":1"),
        (values.user, "4294967295"),
        (values.cpuset, "3-1"),
        (values.cpuset, "a"),
        (values.cpuset, ""),
        (values.capability, "NET ADMIN"),
        (values.host_name, "-a"),
        (values.host_name, "a" * 65),
        (values.host_name, "a_b"),
        (values.container_name, "a"),
        (values.container_name, "-ab"),
        (values.platform, "linux/"),
        (values.absolute, "tmp"),
    ]
    with pytest.raises(SpecError, match=r"^--x: 'db' needs the form NAME:ADDRESS"):
        values.add_host("--x", "db")
    for read, text in bad:
        with pytest.raises(SpecError, match=r"^--x: "):
            read("--x", text)


def test_env_files_skip_comments_and_take_the_callers_values(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "env")
    with open(path, "w", encoding="utf-8-sig") as file:
        file.write("# no\n\n  A=1\nB\nC\nD=x=y # kept\nA=2\n")
    assert values.environment_file("--env-file", path, {"B": "b"}) == {"A": "2", "B": "b", "D": "x=y # kept"}
    with open(path, "w") as file:
        file.write("A B=1\n")
    with pytest.raises(SpecError, match="without space in the name"):
        values.environment_file("--env-file", path, {})
    with open(path, "wb") as raw:
        raw.write(b"A=\xff\n")
    with pytest.raises(SpecError, match="isn't UTF-8"):
        values.environment_file("--env-file", path, {})
    with pytest.raises(SpecError, match="no such file"):
        values.environment_file("--env-file", path + "x", {})


@given(PATHS, PATHS, st.sampled_from([(), ("ro",), ("rw",), ("ro", "rslave"), ("z",)]))
def test_binds_keep_their_paths(source: str, target: str, options: tuple[str, ...]) -> None:
    text = ":".join([source, target, *([",".join(options)] if options else [])])
    rest = tuple(option for option in options if option not in ("ro", "rw"))
    assert mount_values.volume("-v", text) == Mount("bind", target, source, "ro" in options, rest)


@given(NAMES, PATHS)
def test_named_and_anonymous_volumes(name: str, target: str) -> None:
    assert mount_values.volume("-v", f"{name}:{target}") == Mount("volume", target, name)
    assert mount_values.volume("-v", target) == Mount("volume", target)


@given(st.text(max_size=20))
def test_any_text_is_a_mount_on_an_absolute_path_or_a_spec_error(text: str) -> None:
    named: set[str] = set()
    for read in (mount_values.volume, mount_values.tmpfs, mount_values.mount):
        try:
            mount = read("--volume", text)
        except SpecError as error:
            named.add(error.field)
        else:
            assert mount.target.startswith("/")
            assert mount.target != "/"
            assert ".." not in mount.target.split("/")
    assert named <= {"--volume"}


def test_relative_sources_are_the_callers(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert mount_values.volume("-v", "./a:/b").source == os.path.join(os.getcwd(), "a")
    assert mount_values.volume("-v", ".:/b").source == os.getcwd()
    assert mount_values.volume("-v", "~/a:/b").source == "/home/someone/a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "/a:b",
        "/a:/b:bad",
        "/a:/b:ro:x",
        "/a::ro",
        ":/b",
        "/a:/b:ro,rw",
        "/a:/",
        "a/b:/c",
        "x:/c",
        "/a:/b:shared,slave",
        "/",
        "/a:/b/..",
    ],
)
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--volume: "):
        mount_values.volume("--volume", text)


def test_volumes_from() -> None:
    for text in ("box", "box:ro", "box:ro,z", "a1b2:rw"):
        assert mount_values.volumes_from("--volumes-from", text) == text
    for text in ("", ":ro", "box:", "box:readonly", "box:ro:rw"):
        with pytest.raises(SpecError, match=r"^--volumes-from: "):
            mount_values.volumes_from("--volumes-from", text)


def test_mount_in_key_value_form() -> None:
    read = mount_values.mount
    assert read("--mount", "type=bind,src=/a,dst=/b,readonly") == Mount("bind", "/b", "/a", True)
    assert read("--mount", "type=bind,source=/a,target=/b,ro=false,bind-propagation=rslave") == Mount(
        "bind", "/b", "/a", False, ("rslave",)
    )
    assert read("--mount", 'type=bind,"src=/a,b:c",dst=/b') == Mount("bind", "/b", "/a,b:c")
    assert read("--mount", "dst=/data") == Mount("volume", "/data")
    assert read("--mount", "src=name,dst=/data,volume-nocopy") == Mount("volume", "/data", "name", False, ("nocopy",))
    assert read("--mount", "type=bind,src=./a,dst=/b,bind-recursive=disabled").options == ("bind",)
    assert read("--mount", "type=bind,src=./a,dst=/b").source == os.path.abspath("a")
    assert read("--mount", "type=image,src=debian,dst=/i,image-subpath=usr/lib") == Mount(
        "image", "/i", "debian", True, subpath="usr/lib"
    )
    made = "src=v1,dst=/d,volume-label=a=b,volume-label=c,volume-opt=type=tmpfs,volume-opt=o=size=1m,volume-subpath=x/y"
    assert read("--mount", made) == Mount(
        "volume", "/d", "v1", subpath="x/y", labels=("a=b", "c"), driver_options=("type=tmpfs", "o=size=1m")
    )
    assert read("--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770") == Mount(
        "tmpfs", "/t", "", False, ("size=1048576", "mode=1770")
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=bind,dst=/b",
        "type=bind,src=/a",
        "type=nfs,dst=/b",
        "dst=/b,dst=/c",
        "dst=/b,color=red",
        "dst",
        "type=tmpfs,src=/a,dst=/b",
        "type=bind,src=/a,dst=/b,tmpfs-size=1m",
        "src=/a,dst=/b",
        "dst=/b,ro=maybe",
        "type=tmpfs,dst=/t,tmpfs-mode=9",
        'dst=/b,"x',
        "type=bind,src=/a,dst=/b,bind-propagation=x",
        "type=bind,src=a,dst=/b",
        "type=bind,src=/a,dst=/b,bind-recursive=maybe",
        "type=bind,src=/a,dst=/b,ro,bind-recursive=writable",
        "type=bind,src=/a,dst=/b,volume-label=x",
        "type=image,dst=/b",
        "type=image,src=i,dst=/b,ro=false",
        "src=v1,dst=/b,volume-subpath=../x",
        "src=v1,dst=/b,volume-subpath=/x",
        "src=v1,dst=/b,volume-opt=type",
        "src=v1,dst=/b,volume-driver=nfs",
    ],
)
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--mount: "):
        mount_values.mount("--mount", text)


def test_tmpfs_sizes_become_bytes_that_the_kernel_reads() -> None:
    assert mount_values.tmpfs("--tmpfs", "/x:size=64mb,mode=1777,noexec,ro") == Mount(
        "tmpfs", "/x", "", True, ("size=67108864", "mode=1777", "noexec")
    )
    assert mount_values.tmpfs("--tmpfs", "/x:size=50%").options == ("size=50%",)
    for text in ("x", "/x:size=big", "/x:mode=8", "/x:uid=-1", "/x:color=red", "/x:exec,noexec", "/"):
        with pytest.raises(SpecError, match=r"^--tmpfs: "):
            mount_values.tmpfs("--tmpfs", text)
