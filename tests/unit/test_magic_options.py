"""The line of ``%%container``: docker's options and the cell's own, and mistakes in them."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from cellwall.magics.cell_options import cell_parser, describe_cell, parse_cell, split
from cellwall.magics.standing import not_in_force
from cellwall.runtime.cli.parser import HelpRequested
from cellwall.runtime.config import Config
from cellwall.runtime.containers import options_from_dict, options_to_dict
from cellwall.runtime.errors import CellwallError, SpecError


def test_options_stand_on_either_side_of_the_image() -> None:
    for line in ("host -m 64m --out text", "-m 64m host --out text", "--out=text -m64m host"):
        options, cell = parse_cell(line)
        assert (options.image, options.memory_bytes, cell.stdout_variable) == ("host", 64 << 20, "text")


def test_nothing_said() -> None:
    options, cell = parse_cell("debian")
    assert (cell.language, cell.stdout_variable, cell.background, cell.raise_error, cell.diff) == (
        None,
        None,
        False,
        True,
        False,
    )
    assert (options.name, options.record_changes, options.timeout_s) == (None, False, None)


def test_all_cell_options() -> None:
    options, cell = parse_cell(
        "host --lang python3 --in a --out b --err c --result d --bg --proc e --no-raise-error --timeout 90 --diff --watch --name lab"
    )
    assert (cell.language, cell.stdin_variable, cell.stdout_variable, cell.stderr_variable) == (
        "python3",
        "a",
        "b",
        "c",
    )
    assert (cell.result_variable, cell.process_variable, cell.background, cell.raise_error) == ("d", "e", True, False)
    assert (options.timeout_s, options.record_changes, options.name, cell.watch) == (90, True, "lab", True)


def test_quotes_are_a_shells() -> None:
    options, _ = parse_cell("""host -e 'A=1 2' -e "B=x'y" -e C=#not-a-comment""")
    assert options.env == {"A": "1 2", "B": "x'y", "C": "#not-a-comment"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "needs an image"),
        ("--bg", "needs an image"),
        ("host ls", "'ls' isn't expected behind the image 'host'"),
        ("host 'x", "no closing quotation"),
        ("host --out 1x", "isn't a variable's name"),
        ("host --out", "needs a value"),
        ("host --lang 'a b'", "isn't an interpreter's name"),
        ("host --proc p", "goes with --bg"),
        ("host --out a --result a", "a can't take two things"),
        ("host -d", "use --bg"),
        ("host -t", "a cell has no terminal"),
        ("host --no-raise", "--no-raise-error"),
        ("host --gpus all", "passing on GPUs"),
    ],
)
def test_mistakes_name_what_is_wrong(line: str, says: str) -> None:
    with pytest.raises(CellwallError) as caught:
        parse_cell(line)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_lists_both_kinds() -> None:
    with pytest.raises(HelpRequested) as caught:
        parse_cell("host --help")
    for name in ("--memory", "--no-raise-error", "--result", "%%container"):
        assert name in caught.value.text


def test_completion_knows_every_cell_option() -> None:
    """Whatever the parser takes beyond the run options is described."""
    from cellwall.runtime.cli.run_options import run_parser

    own = set(cell_parser()._option_string_actions) - set(run_parser()._option_string_actions)
    assert own == {name for option in describe_cell() for name in option["names"]}


def test_interactive_is_left_to_objects() -> None:
    with pytest.raises(SpecError):
        parse_cell("host -i")


def test_flags_that_were_said() -> None:
    assert parse_cell("host -m 64m --cpus=1 -e A=1 --out x")[1].flags == ("--env", "--memory", "--cpus")


def test_a_standing_container_keeps_its_options() -> None:
    """Options that differ from those it was made with are named; the cell's own (-e, -w, --timeout) never are."""
    kept = options_to_dict(parse_cell("host --name lab -m 64m -v /tmp:/data")[0])
    made = options_from_dict(json.loads(json.dumps(kept)))
    for line, flags in (
        ("host --name lab", []),
        ("host --name lab -m 64m -v /tmp:/data -e A=1 -w / --timeout 3 -u 1", []),
        ("host --name lab -m 65m", ["--memory"]),
        ("host --name lab -v /tmp:/other --cap-drop ALL", ["--volume", "--cap-drop"]),
    ):
        assert not_in_force(parse_cell(line)[0], lambda: made) == flags
    # One that was removed in between has nothing that could be told.
    assert not_in_force(parse_cell("host --name lab -m 65m")[0], lambda: None) == []


def test_a_line_is_read_anew_where_it_may_say_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.load()
    line = "host -m 64m -v ./data:/data -v ~/home:/home"
    first, _ = parse_cell(line, config=config)
    assert parse_cell(line, config=config)[0] is first
    # Paths are those of the working folder and of the home of now, defaults those of the configuration.
    assert parse_cell(line, config=Config.load())[0] is not first
    monkeypatch.chdir(tmp_path)
    data, home = parse_cell(line, config=config)[0].mounts
    assert data.source == f"{tmp_path}/data"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_cell(line, config=config)[0].mounts == (data, replace(home, source=f"{tmp_path}/home"))
    for said in ("one", "two"):
        monkeypatch.setenv("WORD", said)
        (tmp_path / "variables").write_text(f"FILED={said}\n")
        (tmp_path / "labels").write_text(f"word={said}\n")
        options, _ = parse_cell("host -e WORD --env-file variables --label-file labels", config=config)
        assert (options.env, options.labels) == ({"WORD": said, "FILED": said}, {"word": said})
        assert parse_cell("host -e WORD", config=config)[0].env == {"WORD": said}
        assert parse_cell("host --env-file variables", config=config)[0].env == {"FILED": said}
        assert parse_cell("host --label-file labels", config=config)[0].labels == {"word": said}


def test_blanks_are_those_of_a_shell() -> None:
    for line in ("host  -m\t64m \n --out x ", "host -e A=1\u00a02 -l b=\x0c", "host -e A='1 2' -e B=\\ c"):
        assert split(line) == shlex.split(line, comments=False, posix=True)
