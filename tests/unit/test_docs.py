"""The docs and the program: every command, option, magic and message in one is in the other; every block of the README has its test."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from cellwall.runtime.cli.command import COMMANDS, GROUPS, help_of
from cellwall.runtime.cli.parser import Parser

from ..tree import TOP

# Options in prose that are other programs'.
OTHERS = {"--from", "--kernel"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@cache
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cellwall_docs_reference", TOP / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def pages() -> dict[str, str]:
    found: dict[str, str] = reference().pages()
    return found


def section(page: str, heading: str) -> str:
    """The text below one heading of a page of the reference."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", pages()[page], re.MULTILINE | re.DOTALL)
    assert found is not None, f"{heading} isn't in {page}"
    return found[1]


def named_in(text: str) -> set[str]:
    """The options that a page's tables name."""
    return set(re.findall(r"`(-{1,2}[A-Za-z][\w-]*)`", text))


def shown_by(help_text: str) -> set[str]:
    """The options that a person reads in ``--help``: an independent look, for the page is made of the parser itself."""
    found: set[str] = set()
    for line in help_text.splitlines():
        if match := re.match(r"  (-{1,2}[A-Za-z][\w-]*(?:, -{1,2}[A-Za-z][\w-]*)*)", line):
            found.update(match[1].split(", "))
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_with_its_options(command: str) -> None:
    text = section("commands.md", f"cellwall {command}")
    here = named_in(text)
    if "All [run options](run-options.md)" in text:
        left_out = named_in(re.search(r"All \[run options\](.*?)and:", text, re.DOTALL)[1])  # type: ignore[index]
        here = (here - left_out) | (named_in(pages()["run-options.md"]) - left_out)
    assert here == shown_by(help_of(command.split()))


def test_no_command_more_and_none_less() -> None:
    headings = re.findall(r"^## cellwall (.+)$", pages()["commands.md"], re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)
    for group, commands in GROUPS.items():
        for name, target in commands.items():
            if f"{group} {name}" != target:
                assert f"`cellwall {group} {name}`" in section("commands.md", f"cellwall {target}")


def test_every_magic_with_its_options() -> None:
    from cellwall.magics import _OWN

    headings = re.findall(r"^## (%+\w+)$", pages()["magics.md"], re.MULTILINE)
    assert {heading.lstrip("%") for heading in headings} == set(_OWN)
    assert len(headings) == len(set(headings))
    for name, make in reference().CELL_PARSERS.items():
        parser: Parser = make()
        own = {
            option
            for action in reference().options_of(parser)
            for option in action.option_strings
            if not set(action.option_strings) & reference().RUN_NAMES or not reference().takes_run_options(parser)
        }
        assert own <= named_in(section("magics.md", f"%%{name}"))


def test_the_reference_stands_on_its_own() -> None:
    for name, text in pages().items():
        assert text.startswith("# "), name
        assert "None" not in re.findall(r"`(None)`", text.replace("`None` where", "")), name
        assert "SUPPRESS" not in text


def prose() -> list[tuple[str, str]]:
    """What people have written, by file: the README and the docs, without decisions, measurements and the list of files."""
    files = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
    return [
        (path.name, path.read_text()) for path in files if path.name not in ("map.md", "benchmarks.md", "decisions.md")
    ]


@pytest.mark.parametrize(("name", "text"), prose(), ids=[name for name, _ in prose()])
def test_what_the_prose_names_exists(name: str, text: str) -> None:
    every = set().union(*(named_in(page) for page in pages().values()))
    # docker's words in the founding text and in comparisons are written in `docker …`.
    ours = re.sub(r"`(?:docker|podman|jupyter|skopeo|sudo|papermill|loginctl)[^`]*`|sudo [^`\n]*", "", text)
    assert {option for option in OPTION.findall(ours) if option not in every} <= OTHERS
    commands = r"(?:^\s*|; ?|[A-Z_]+=\S+ |!|'|\()cellwall ([a-z]+)(?: ([a-z]+))?"
    for found in re.finditer(commands, _code_of(ours), re.MULTILINE):
        first, second = found[1], found[2] or ""
        assert first in COMMANDS or first in GROUPS, f"cellwall {first} in {name}"
        if first in GROUPS and first not in COMMANDS:
            assert second in GROUPS[first], f"cellwall {first} {second} in {name}"
    from cellwall.magics import _OWN

    for magic in re.findall(r"(?<![\w%])%%?([a-z_]{2,})", _code_of(ours)):
        assert magic in (*_OWN, "load_ext", "bash", "script", "env", "xmode", "docker"), f"%{magic} in {name}"


def _code_of(text: str) -> str:
    """What stands in code: fenced and indented blocks, and between backquotes, each on a line of its own."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*fenced, *indented, *inline])


def test_each_message_in_the_troubleshooting_is_one_of_ours() -> None:
    text = (TOP / "docs/troubleshooting.md").read_text()
    sources = " ".join(
        path.read_text() for folder in ("runtime", "magics", "kernel") for path in (TOP / folder).rglob("*.py")
    )
    # A message is often written in pieces, one a line.
    joined = re.sub(r'"\s*\n?\s*f?"', "", sources)
    messages = re.findall(r"\*\*`([^`]+)`\*\*", text)
    assert len(messages) > 20
    for message in messages:
        for piece in re.split(r"…|\d+$", message):
            piece = piece.strip(" ;,.")
            assert len(piece) < 3 or piece in joined, f"{piece!r} of {message!r} isn't in the sources"


def headings_of(notebook: Path) -> set[str]:
    cells = json.loads(notebook.read_text())["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return set(re.findall(r"^#+ (.+)$", prose, re.MULTILINE))


def test_each_cell_in_the_table_of_claims_exists() -> None:
    """The table names a notebook by its number, and cells by the headings that they stand under."""
    tutorials = {path.name[1]: path for path in sorted((TOP / "notebooks").glob("0?-*.ipynb"))}
    text = (TOP / "docs/tutorials.md").read_text()
    rows = re.findall(
        r"^\| (?!claim|---|notebook)(.+) \| (?:\[(\d)\]\(\.\./(\S+)\)|(\d)) \| (.+) \|$", text, re.MULTILINE
    )
    assert len(rows) > 30
    for claim, linked, link, bare, named in rows:
        notebook = tutorials[linked or bare]
        assert not link or TOP / link == notebook, claim
        for heading in named.split("; "):
            assert heading == "all of it" or heading in headings_of(notebook), f"{heading!r} isn't in {notebook.name}"
    assert {linked or bare for _, linked, _, bare, _ in rows} == set(tutorials), "a tutorial without a claim"


def test_each_figure_of_the_comparison_was_measured() -> None:
    figures = re.findall(r"\b\d+\.\d\d\b", (TOP / "docs/comparison.md").read_text())
    measured = (TOP / "docs/benchmarks.md").read_text()
    assert len(figures) > 15
    assert [figure for figure in figures if not re.search(rf"\| +{re.escape(figure)} +\|", measured)] == []


# Each block of the README by its first line: the test that runs it, or why none does.
README_BLOCKS = {
    "make quickstart      #": "tests/notebooks/test_quickstart.py runs what it runs; `make test` is how this test was started",
    "%load_ext cellwall": "tests/notebooks/test_readme.py::test_the_cells",
    "%%container debian -m 256m": "tests/notebooks/test_readme.py::test_the_cells",
    "%%dockerfile -t lab:1": "tests/notebooks/test_readme.py::test_the_cells",
    "%%layer lab:1 -t lab:2": "tests/notebooks/test_readme.py::test_the_cells",
    "%container run -d --name web": "tests/notebooks/test_readme.py::test_the_cells",
    "%%container python:3 --network": "not as it stands: it reaches hosts of others; tests/integration/test_egress.py runs egress lists",
    "%%union": "tests/notebooks/test_readme.py::test_the_cells",
    "cellwall lock lab.ipynb": "tests/notebooks/test_readme.py::test_the_locks",
    "cellwall run -it --rm debian bash": "tests/notebooks/test_readme.py::test_the_command_lines",
    "import cellwall": "tests/notebooks/test_readme.py::test_the_python",
}


def readme_blocks() -> list[str]:
    text = (TOP / "README.md").read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return fenced + [
        re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", rest, re.MULTILINE)
    ]


def test_every_block_of_the_readme_has_a_test_or_a_reason() -> None:
    found = [next((start for start in README_BLOCKS if block.startswith(start)), block) for block in readme_blocks()]
    assert sorted(found) == sorted(README_BLOCKS)
    for where in README_BLOCKS.values():
        for path, _, function in re.findall(r"(tests/[\w/]+\.py)(::(\w+))?", where):
            text = (TOP / path).read_text()
            assert not function or f"def {function}(" in text, where
