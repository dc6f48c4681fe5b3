"""The run options as a whole: docker's reading of a line, what goes together, and what is answered instead of ignored."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellwall.runtime.cli.parser import HelpRequested, Parser
from cellwall.runtime.cli.run_options import (
    OPTIONS,
    describe,
    from_keywords,
    parse_run,
    run_options_of,
    run_parser,
)
from cellwall.runtime.errors import SpecError, UnsupportedError
from cellwall.runtime.options import Mount, Rate, RunOptions, Ulimit
from cellwall.runtime.signal_names import signal_name, signal_number


def run(line: str, **environment: str) -> RunOptions:
    return parse_run(line.split(), environment=environment)


@pytest.mark.parametrize(
    "line", ["-m 64m x", "-m64m x", "-m=64m x", "--memory 64m x", "--memory=64m x", "-itm 64m x", "-m 1g -m 64m x"]
)
def test_the_ways_to_write_a_value(line: str) -> None:
    assert run(line).memory_bytes == 64 << 20


@pytest.mark.parametrize(
    "line", ["-it --rm x", "-i -t --rm=true x", "-ti --rm x", "--interactive --tty --rm x", "--rm=false -it --rm=1 x"]
)
def test_the_ways_to_write_flags(line: str) -> None:
    options = run(line)
    assert (options.interactive, options.tty, options.rm) == (True, True, True)


def test_a_flag_never_takes_the_next_word() -> None:
    assert run("--rm true").image == "true"
    assert not run("--rm --rm=false x").rm
    assert run("-i=false x").interactive is False


def test_options_end_at_the_image() -> None:
    options = run("-d ubuntu sh -c -x --rm -- -m 64m")
    assert options.image == "ubuntu"
    assert options.command == ("sh", "-c", "-x", "--rm", "--", "-m", "64m")
    assert not options.rm
    assert options.memory_bytes is None


def test_two_dashes_end_the_options() -> None:
    options = run("--rm -- ubuntu -- x")
    assert options.image == "ubuntu"
    assert options.command == ("--", "x")


def test_values_may_begin_with_a_dash() -> None:
    options = run("--entrypoint -x -e -a=b --oom-score-adj -500 --pids-limit -1 x")
    assert options.entrypoint == ("-x",)
    assert options.env == {"-a": "b"}
    assert options.oom_score_adj == -500
    assert options.pids_limit == -1


@given(st.lists(st.text(min_size=1).filter(lambda word: "\0" not in word), max_size=6))
def test_the_command_comes_through_unchanged(words: list[str]) -> None:
    assert parse_run(["--rm", "x", *words]).command == tuple(words)


@given(st.text().filter(lambda text: "\0" not in text))
def test_values_come_through_unchanged(text: str) -> None:
    for line in (["-e", f"A={text}"], [f"-eA={text}"], [f"--env=A={text}"]):
        assert parse_run([*line, "x"]).env == {"A": text}
    assert parse_run(["--entrypoint", text, "x"]).entrypoint == ((text,) if text else ())


@example(["-e", "--", "x"])
@given(
    st.lists(
        st.sampled_from(
            ["-i", "-t", "--rm", "-m", "64m", "-e", "A", "--", "x", "-z", "--memory=", "--name", "-mm", "=", "-", ""]
        )
    )
)
def test_any_line_is_options_or_a_cellwall_error(words: list[str]) -> None:
    try:
        options = parse_run(words)
    except SpecError:
        return
    assert options.image


def test_everything_lands_in_its_field() -> None:
    options = run(
        "-itd --rm --name box1 -h lab --domainname dom -e A=1 -e B -e C -w /w -u 1:2 --group-add g --entrypoint /e -l a=b -l c --init "
        "--stop-signal SIGINT --stop-timeout 3 --read-only --tmpfs /x:size=64m --shm-size 1m -v /s:/d:ro --mount type=bind,src=/s,dst=/e "
        "-v /v --network host --dns 10.0.0.1 --add-host db:10.0.0.2 --cap-add cap_sys_ptrace --cap-drop ALL --privileged "
        "--security-opt no-new-privileges --userns host --pid host --ipc none --uts private --cgroupns host --device /dev/fuse --ulimit nofile=1024:2048 "
        "--sysctl kernel.shmmax=1 --oom-score-adj 5 -m 64m --memory-swap 128m --memory-reservation 32m --cpus 0.5 -c 512 --cpuset-cpus 0 "
        "--cpuset-mems 0 --pids-limit 64 --blkio-weight 500 --device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2mb "
        "--device-read-iops /dev/sda:3 --device-write-iops /dev/sda:4 --net-cls-classid 0x100001 --platform linux/amd64 --pull never "
        "--log-driver json-file --log-opt max-size=1m --log-opt max-file=2 --health-cmd c --health-interval 1s --health-timeout 2s "
        "--health-retries 4 --health-start-period 0s --health-start-interval 3s -s vfs --storage-opt size=1g --timeout 5 img cmd",
        B="b",
    )
    assert options == RunOptions(
        "img",
        ("cmd",),
        entrypoint=("/e",),
        name="box1",
        hostname="lab",
        domainname="dom",
        env={"A": "1", "B": "b"},
        labels={"a": "b", "c": ""},
        workdir="/w",
        user="1:2",
        group_add=("g",),
        interactive=True,
        tty=True,
        detach=True,
        rm=True,
        init=True,
        stop_signal="INT",
        stop_timeout_s=3,
        read_only=True,
        mounts=(
            Mount("bind", "/d", "/s", True),
            Mount("volume", "/v"),
            Mount("bind", "/e", "/s"),
            Mount("tmpfs", "/x", options=("size=67108864",)),
        ),
        shm_size_bytes=1 << 20,
        storage_driver="vfs",
        storage_size_bytes=1 << 30,
        network="host",
        dns=("10.0.0.1",),
        add_hosts=("db:10.0.0.2",),
        cap_add=("SYS_PTRACE",),
        cap_drop=("ALL",),
        privileged=True,
        security_opt=("no-new-privileges",),
        userns="host",
        pid="host",
        ipc="none",
        uts="private",
        cgroupns="host",
        devices=("/dev/fuse",),
        ulimits=(Ulimit("nofile", 1024, 2048),),
        sysctls={"kernel.shmmax": "1"},
        oom_score_adj=5,
        memory_bytes=64 << 20,
        memory_swap_bytes=128 << 20,
        memory_reservation_bytes=32 << 20,
        cpus=0.5,
        cpu_shares=512,
        cpuset_cpus="0",
        cpuset_mems="0",
        pids_limit=64,
        blkio_weight=500,
        device_read_bps=(Rate("/dev/sda", 1 << 20),),
        device_write_bps=(Rate("/dev/sda", 2 << 20),),
        device_read_iops=(Rate("/dev/sda", 3),),
        device_write_iops=(Rate("/dev/sda", 4),),
        net_cls_classid=0x100001,
        platform="linux/amd64",
        pull="never",
        log_driver="json-file",
        log_opts={"max-size": "1048576", "max-file": "2"},
        health_cmd="c",
        health_interval_s=1,
        health_timeout_s=2,
        health_retries=4,
        health_start_period_s=0,
        health_start_interval_s=3,
        timeout_s=5,
    )


def test_every_field_of_run_options_has_an_option() -> None:
    """A field that no option fills would be out of the command line's reach."""
    filled = {option.field for option in OPTIONS if option.field}
    joined = {"env", "labels", "annotations", "sysctls", "mounts", "entrypoint", "storage_size_bytes", "stop_signal"}
    joined |= {"log_opts", "network", "networks", "publish", "expose"}
    outside = {"image", "command", "record_changes", "signal_group"}
    assert filled | joined | outside == {field.name for field in dataclasses.fields(RunOptions)}
    assert not filled & joined


def test_an_empty_entrypoint_resets_the_images() -> None:
    assert run("--entrypoint= x").entrypoint == ()
    assert run("x").entrypoint is None


def test_a_later_env_wins_over_a_file(tmp_path: object) -> None:
    path = f"{tmp_path}/env"
    with open(path, "w") as file:
        file.write("A=file\nB=file\n")
    assert run(f"-e A=said --env-file {path} x").env == {"A": "said", "B": "file"}


@pytest.mark.parametrize(
    ("line", "flag", "part"),
    [
        ("-m 1k x", "--memory", "at least 6m"),
        ("--pids-limit 5000000 x", "--pids-limit", "1 to 4194304"),
        ("--blkio-weight 5 x", "--blkio-weight", "10 to 1000"),
        ("--oom-score-adj 1001 x", "--oom-score-adj", "-1000 to 1000"),
        ("--cpu-shares 1 x", "--cpu-shares", "2 to 262144"),
        ("--stop-timeout -1 x", "--stop-timeout", "0 to"),
        ("--net-cls-classid 0x100000000 x", "--net-cls-classid", "0 to 4294967295"),
        ("-m 64m --memory-swap 32m x", "--memory-swap", "at least --memory's 64m"),
        ("--memory-swap 64m x", "--memory-swap", "needs --memory"),
        ("-m 64m --memory-reservation 65m x", "--memory-reservation", "65m is out of range: at most --memory's 64m"),
        ("--stop-signal NOPE x", "--stop-signal", "isn't a signal"),
        ("--pull sometimes x", "--pull", "missing, always, never"),
        ("-v /a:/b --tmpfs /b/ x", "--tmpfs", "mounted twice"),
        ("--network host --sysctl net.ipv4.ip_forward=1 x", "--sysctl", "own network"),
        ("--storage-opt color=1 x", "--storage-opt", "size is the only one"),
        ("--uts host -h a x", "--hostname", "--uts host"),
        ("--memroy 1g x", "--memroy", "did you mean --memory"),
        ("-tz x", "-z", "isn't an option of cellwall run (in -tz)"),
        ("--rm=maybe x", "--rm", "neither true nor false"),
        ("-m", "-m", "needs a value"),
        ("--rm", "cellwall run", "needs an image"),
    ],
)
def test_bad_lines_name_the_flag_and_the_way_out(line: str, flag: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        run(line)
    assert caught.value.field == flag
    assert str(caught.value).startswith(flag + ": ")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "--gpus all x",
        "--log-driver syslog x",
        "--runtime crun x",
        "-a stdout x",
        "--sig-proxy=false x",
        "--cgroup-parent y x",
    ],
)
def test_what_isnt_there_yet_is_said_not_ignored(line: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        run(line)
    assert caught.value.mend


def test_help_is_no_exit() -> None:
    with pytest.raises(HelpRequested) as caught:
        run("--help")
    for option in OPTIONS:
        assert bool(re.search(rf"{option.flag}[ ,]", caught.value.text)) == (not option.refused), option.flag


def test_the_magic_reads_options_behind_the_image() -> None:
    parser = run_parser("%%container", "IMAGE [OPTIONS]", interspersed=True, omit={"-i"})
    parser.value("-i", "--import", repeated=True, metavar="NAME")
    parsed, rest = parser.parse(["debian", "-m", "64m", "-i", "frame", "--rm", "-i", "other"])
    assert rest == ["debian"]
    assert getattr(parsed, "import") == ["frame", "other"]
    options = run_options_of(parsed, rest[0])
    assert (options.memory_bytes, options.rm, options.interactive) == (64 << 20, True, False)


def test_omitted_options_count_as_not_said() -> None:
    omit = {name for option in OPTIONS for name in option.names}
    parsed, rest = run_parser("%%container", interspersed=True, omit=omit).parse(["x"])
    assert run_options_of(parsed, rest[0]) == RunOptions("x")


def test_keywords_read_as_the_flags() -> None:
    said = from_keywords(
        "x",
        ["a", "-b"],
        memory="64m",
        cpus=0.5,
        env={"A": "b=c"},
        cap_drop=["ALL"],
        rm=True,
        read_only=False,
        volume=["/a:/b"],
        label={"k": "v"},
        entrypoint=["/e", "f"],
        name=None,
        timeout=3,
    )
    assert said == dataclasses.replace(
        run("-m 64m --cpus 0.5 -e A=b=c --cap-drop ALL --rm -v /a:/b -l k=v --timeout 3 x a -b"), entrypoint=("/e", "f")
    )
    with pytest.raises(TypeError, match="no run option"):
        from_keywords("x", memroy="64m")
    with pytest.raises(SpecError, match=r"^--memory: "):
        from_keywords("x", memory="1k")


def test_described_options_are_the_ones_that_parse() -> None:
    described = {name: entry for entry in describe() for name in entry["names"]}
    assert described["-m"]["takes_value"] is True
    assert described["--rm"]["takes_value"] is False
    assert described["--pull"]["choices"] == ["missing", "always", "never"]
    assert "--gpus" not in described
    assert {name for option in OPTIONS for name in option.names if not option.refused} == set(described)


def test_signals_are_named_as_docker_takes_them() -> None:
    assert [signal_name("-s", text) for text in ("SIGTERM", "term", "15", "RTMIN+3", "sigusr1")] == [
        "TERM",
        "TERM",
        "TERM",
        "RTMIN+3",
        "USR1",
    ]
    for text in ("", "0", "65", "TERMINATE", "-9", "RTMIN+x", "RTMIN+31"):
        with pytest.raises(SpecError, match="isn't a signal"):
            signal_name("--stop-signal", text)


def test_what_names_a_signal_has_a_number() -> None:
    found = [signal_number("-s", text) for text in ("TERM", "sigterm", 15, "RTMIN", "RTMIN+3", "37", "RTMAX")]
    assert found == [15, 15, 15, signal.SIGRTMIN, signal.SIGRTMIN + 3, 37, signal.SIGRTMAX]
    assert signal_number("-s", signal_name("-s", str(int(signal.SIGRTMIN) + 3))) == signal.SIGRTMIN + 3


def test_a_parser_raises_where_argparse_would_exit() -> None:
    parser = Parser("cellwall x")
    with pytest.raises(SpecError):
        parser.error("no")
    with pytest.raises(SpecError):
        parser.exit(2)


def test_reading_options_loads_neither_network_nor_storage() -> None:
    """A parse error and completion must not pay for httpx, zstandard, or IPython."""
    code = (
        "import sys; from cellwall.runtime.cli.run_options import parse_run; parse_run(['-m', '64m', 'x']); "
        "print([name for name in sys.modules if name.split('.')[0] in ('httpx', 'zstandard', 'isal', 'IPython', 'asyncio', 'ssl')"
        " or name.startswith('cellwall.runtime.images')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
