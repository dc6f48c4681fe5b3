"""The command line's door and its listings, without a container: words, errors, statuses, tables, what is imported."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cellwall
from cellwall.runtime.cli import images, main, table
from cellwall.runtime.cli.command import COMMANDS, GROUPS, one_line
from cellwall.runtime.cli.progress import Progress
from cellwall.runtime.cli.told import worth_telling
from cellwall.runtime.errors import SpecError
from cellwall.runtime.images.image import PullEvent


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cellwall", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"CELLWALL_DEBUG": ""} | environment,
    )


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"cellwall {cellwall.__version__}\n")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"cellwall {cellwall.__version__}\n")
    assert main(["version", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["Version"] == cellwall.__version__
    assert main(["version", "--format", "{{.Version}}"]) == 0
    assert capsys.readouterr().out == f"{cellwall.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["version"], ["run", "--nope"], ["--help"], ["run", "-m", "1k", "x"], ["nope"], ["run", "--gpus", "all", "x"]],
)
def test_what_needs_no_engine_loads_none(words: list[str]) -> None:
    code = (
        f"import sys; from cellwall.runtime.cli import main; main({words!r}); "
        "bad = [n for n in sys.modules if n.split('.')[0] in ('httpx', 'zstandard', 'isal', 'IPython', 'asyncio', 'ssl', 'dataclasses', 'inspect', 'subprocess', 'socket', 'typing')"
        " or n.startswith(('cellwall.runtime.images', 'cellwall.runtime.engine', 'cellwall.runtime.launcher', 'cellwall.runtime.linux.libc', 'cellwall.runtime.linux.process'))];"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_that_is_done_ends_as_any_process_does() -> None:
    code = (
        "import atexit, sys, threading; from cellwall.runtime.cli import main; atexit.register(print, 'the end'); {}"
        "sys.argv[1:] = ['version', '--format', '{{{{.Version}}}}', *sys.argv[1:]]; main(); print('back')"
    )
    shown = f"{cellwall.__version__}\n"
    late = "threading.Thread(target=lambda: (threading.main_thread().join(), print('late')))"
    for before, words, said, status in (
        ("", [], f"{shown}the end\n", 0),
        ("", ["more"], "the end\n", 125),
        # Whoever has threads still is left to the interpreter, which waits for them.
        (f"{late}.start();", [], f"{shown}back\nlate\nthe end\n", 0),
    ):
        done = subprocess.run([sys.executable, "-c", code.format(before), *words], capture_output=True, text=True)
        assert (done.stdout, done.returncode) == (said, status), done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_can_take_is_one_line(unbuffered: str) -> None:
    command = [sys.executable, "-m", "cellwall", "version"]
    environment = os.environ | {"CELLWALL_DEBUG": "", "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "cellwall: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_nobody_can_take_is_still_the_status(unbuffered: str) -> None:
    command = [sys.executable, "-m", "cellwall", "version", "more"]
    environment = os.environ | {"CELLWALL_DEBUG": "", "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stdout=full, stderr=full, env=environment).returncode == 125
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(write_fd, "w") as broken:
        assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=broken, env=environment).returncode == 125


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nope"], 125, "nope: isn't a command of cellwall"),
        (["imags"], 125, "did you mean images"),
        (["lock"], 125, "lock: needs a notebook"),
        (["image", "nope"], 125, "isn't a command of cellwall"),
        (["run"], 125, "needs an image"),
        (["run", "--memory", "1k", "x"], 125, "--memory: 1k is out of range: at least 6m"),
        (["run", "-P", "--network", "none", "x"], 125, "--publish-all: can't be under --network none"),
        (["run", "--nope", "x"], 125, "--nope: isn't an option of cellwall run"),
        (["exec", "box"], 125, "needs a container and a command"),
        (["rm"], 125, "needs at least one container"),
        (["rmi"], 125, "needs at least one image"),
        (["pull"], 125, "needs one image"),
        (["tag", "x"], 125, "needs an image and a name"),
        (["kill", "-s", "NOPE", "x"], 125, "--signal: 'NOPE' isn't a signal"),
        (["stop", "-t", "-2", "x"], 125, "--timeout: -2 is out of range"),
        (["logs"], 125, "needs one container"),
        (["ps", "-f", "color=red"], 125, "'color' isn't known; it is one of name, id, status"),
        (["ps", "extra"], 125, "takes no 'extra'"),
        (["version", "--format", "{{.Nope}}"], 125, "there is no 'Nope'; known are Version"),
        (["version", "--format", "{{range .}}"], 125, "isn't understood"),
        (["doctor", "--format", "yaml"], 125, "--format: 'yaml' isn't known"),
        (["--config", "/nope.toml", "info"], 125, "/nope.toml: there is no such file"),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(words: list[str], status: int, said: str) -> None:
    done = run(*words)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("cellwall: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_a_traceback_where_it_is_asked_for() -> None:
    for done in (run("nope", CELLWALL_DEBUG="1"), run("--debug", "nope")):
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "isn't a command" in done.stderr


def test_a_mistake_in_the_configuration_names_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[defaults]\nmemroy = '1g'\n")
    done = run("--config", str(tmp_path / "c.toml"), "run", "host", "true")
    assert done.returncode == 125
    assert done.stderr == f"cellwall: {tmp_path}/c.toml: defaults.memroy: unknown key; did you mean memory\n"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: cellwall {command}")


def test_the_long_forms_are_the_short_ones() -> None:
    for group, commands in GROUPS.items():
        for word, command in commands.items():
            assert command in COMMANDS, (group, word)


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cellwall", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_accident(closed: str) -> None:
    """Words go nowhere then, and the status still says how it went."""
    for words, status in (("version", 0), ("nope", 125)):
        done = subprocess.run(
            ["sh", "-c", f"exec {sys.executable} -m cellwall {words} {closed}"], capture_output=True, text=True
        )
        assert done.returncode == status
        assert "Traceback" not in done.stderr


def test_signal_handlers_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    main(["version"])
    main(["nope"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


@given(st.text())
def test_an_error_never_breaks_the_line_nor_moves_the_cursor(text: str) -> None:
    assert one_line(text).isprintable()
    assert table.printable(text).isprintable()


ROWS: list[dict[str, Any]] = [
    {"ID": "a1", "Names": "one", "Labels": {"k": "v"}},
    {"ID": "b2", "Names": "t\x1b[2Jwo\n", "Labels": {}},
]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))


def test_tables_are_aligned_and_harmless() -> None:
    assert (
        table.listing(ROWS, COLUMNS, None)
        == "CONTAINER ID   NAMES\na1             one\nb2             t\\x1b[2Jwo\\n\n"
    )
    assert table.listing([], COLUMNS, "table") == "CONTAINER ID   NAMES\n"


def test_json_is_one_array_with_everything() -> None:
    assert json.loads(table.listing(ROWS, COLUMNS, "json")) == ROWS
    assert json.loads(table.listing([], COLUMNS, "json")) == []


def test_templates() -> None:
    assert table.listing(ROWS[:1], COLUMNS, "{{.ID}}\\t{{ .Names }}!") == "a1\tone!\n"
    assert table.listing(ROWS[:1], COLUMNS, "{{json .}}") == json.dumps(ROWS[0], separators=(",", ":")) + "\n"
    assert table.listing(ROWS[:1], COLUMNS, "{{.Labels.k}} {{json .Labels}}") == 'v {"k":"v"}\n'
    assert table.listing(ROWS[:1], COLUMNS, "table {{.Names}}\\t{{.ID}}") == "NAMES   CONTAINER ID\none     a1\n"
    for template in ("plain", "{{ID}}", "{{.ID | nope}}", "{{.Labels.x}}", "{{.ID.x}}"):
        with pytest.raises(SpecError, match=r"^--format: "):
            table.listing(ROWS, COLUMNS, template)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (117_400_000, "117MB"),
        (2_130_211, "2.13MB"),
        (999_600, "1MB"),
        (5_000_000_000, "5GB"),
        (7 * 10**12, "7TB"),
        (None, "0B"),
    ],
)
def test_sizes_as_dockers(number: int | None, text: str) -> None:
    assert table.human_size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 21, "3 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_ages_as_dockers(seconds: float, text: str) -> None:
    assert table.human_duration(seconds) == text


def test_moments() -> None:
    assert table.epoch("1970-01-01T00:01:00.123456789Z") == pytest.approx(60.123456)
    assert table.epoch("1970-01-01T01:00:00+01:00") == 0
    assert table.epoch(5) == 5
    assert table.epoch("yesterday") is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("debian:12", ("debian", "12")),
        ("h:5000/x", ("h:5000/x", "<none>")),
        ("h:5000/x:1", ("h:5000/x", "1")),
        ("<none>:<none>", ("<none>", "<none>")),
        ("x@sha256:abc", ("x", "<none>")),
        ("host", ("host", "<none>")),
    ],
)
def test_names_are_split_into_repository_and_tag(name: str, split: tuple[str, str]) -> None:
    assert images.split_name(name) == split


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def test_progress_elsewhere_than_on_a_terminal_is_plain_lines() -> None:
    out = io.StringIO()
    with Progress(out) as progress:
        for phase in ("waiting", "downloading", "downloading", "unpacking", "done", "done"):
            progress(PullEvent("abc", phase, 5, 10))
        progress(PullEvent("def", "exists"))
        progress(PullEvent("", "retrying", message="a registry's \x1b words"))
    assert out.getvalue() == "abc: Pull complete\ndef: Already exists\nRetrying: a registry's \\x1b words\n"


def test_progress_on_a_terminal_draws_each_layer_on_its_line() -> None:
    out = Screen()
    with Progress(out) as progress:
        progress(PullEvent("abc", "downloading", 5_000_000, 10_000_000))
        progress(PullEvent("def", "exists"))
        progress(PullEvent("abc", "done"))
    drawn = out.getvalue()
    assert "abc: Downloading [===============>" in drawn
    assert "5MB/10MB" in drawn
    assert drawn.endswith("\x1b[2A\rabc: Pull complete\x1b[K\n\rdef: Already exists\x1b[K\n")


def test_a_quiet_pull_says_nothing() -> None:
    out = Screen()
    with Progress(out, quiet=True) as progress:
        progress(PullEvent("abc", "done"))
    assert out.getvalue() == ""


def test_what_isnt_in_force_is_told_once_unless_it_was_asked_for(tmp_path: Path) -> None:
    warnings = ["--memory is not in force: no cgroups", "--pids-limit is not in force: no cgroups"]
    assert worth_telling(warnings, [], tmp_path) == warnings
    assert worth_telling(warnings, [], tmp_path) == []
    assert worth_telling([*warnings, "new"], ["--memory"], tmp_path) == [warnings[0], "new"]
    assert worth_telling(warnings, [], tmp_path / "nowhere") == warnings


def test_what_cannot_be_noted_is_told_again(tmp_path: Path) -> None:
    """A name that leads nowhere is there and can't be entered, as a folder that goes between two looks."""
    (tmp_path / "told").symlink_to(tmp_path / "gone")
    assert worth_telling(["--memory is not in force"], [], tmp_path) == ["--memory is not in force"]
