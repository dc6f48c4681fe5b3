"""The reference, made from the parsers, the configuration and the docstrings: pages of MyST Markdown.

The site's build writes them into docs/reference/ (conf.py). ``python docs/reference.py FOLDER`` writes them anywhere.
"""

from __future__ import annotations

import inspect
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Iterable
from pathlib import Path

import cellwall
from cellwall.magics.building import dockerfile_parser, layer_parser
from cellwall.magics.cell_options import cell_parser
from cellwall.magics.union import union_parser
from cellwall.runtime import aio, config
from cellwall.runtime.cli.command import COMMANDS, GROUPS, main_parser
from cellwall.runtime.cli.command_parsers import parser_of
from cellwall.runtime.cli.parser import Parser
from cellwall.runtime.cli.run_options import OPTIONS
from cellwall.runtime.cli.views import VIEWS
from cellwall.runtime.cli.views import parser_of as view_parser

# Magics whose options have a parser of their own; %NAME CMD of the others has the commands' options.
CELL_PARSERS = {
    "container": cell_parser,
    "dockerfile": dockerfile_parser,
    "layer": layer_parser,
    "union": union_parser,
}
RUN_NAMES = {name for option in OPTIONS if not option.refused for name in option.names}
GENERATED = "Made from the program itself when this site is built.\n"


def pages() -> dict[str, str]:
    """Each page by its file's name."""
    return {
        "commands.md": _commands(),
        "run-options.md": _run_options(),
        "magics.md": _magics(),
        "configuration.md": _configuration(),
        "python.md": _python(),
    }


def magics() -> dict[str, str]:
    """Every magic as it is typed, with its docstring."""
    taken: dict[str, str] = {}

    class Shell:
        class magics_manager:
            magics: dict[str, dict[str, object]] = {"cell": {}, "line": {}}

        def register_magic_function(self, function: object, kind: str, name: str) -> None:
            taken[f"{'%%' if kind == 'cell' else '%'}{name}"] = inspect.getdoc(function) or ""

    cellwall.load_ipython_extension(Shell())
    return taken


def options_of(parser: Parser) -> list[Action]:
    """The options of a parser that are to be seen."""
    return [action for action in parser._actions if action.option_strings and action.help != SUPPRESS]


def takes_run_options(parser: Parser) -> bool:
    """Whether a parser has the run options as a whole."""
    names = {name for action in options_of(parser) for name in action.option_strings}
    return len(names & RUN_NAMES) > len(RUN_NAMES) // 2


def _table(actions: Iterable[Action]) -> str:
    rows = ["| option | value | means |", "| --- | --- | --- |"]
    for action in actions:
        value = _cell(str(action.metavar or "VALUE")) if action.nargs not in (0, "?") else ""
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        rows.append(f"| {names} | {f'`{value}`' if value else ''} | {_cell(_plain(action.help or ''))} |")
    return "\n".join(rows) + "\n"


def _plain(text: str) -> str:
    """A help text as Markdown: nothing in it is markup."""
    text = text.replace("%%", "%")
    return re.sub(r"([\\`*_<>\[\]{}$])", r"\\\1", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _options(parser: Parser, page: str = "run-options.md") -> str:
    """The table of a parser's options; the run options stand on a page of their own."""
    actions = options_of(parser)
    if not takes_run_options(parser):
        return _table(actions)
    own = [action for action in actions if not set(action.option_strings) & RUN_NAMES]
    theirs = {name for action in actions for name in action.option_strings}
    left_out = sorted(RUN_NAMES - theirs)
    but = f", but for {', '.join(f'`{name}`' for name in left_out)}" if left_out else ""
    return f"All [run options]({page}){but}, and:\n\n{_table(own)}"


def _doc(text: str) -> str:
    """A docstring as Markdown. Its double backquotes become single ones."""
    return re.sub(r"``(.+?)``", r"`\1`", inspect.cleandoc(text), flags=re.DOTALL).strip() + "\n"


def _commands() -> str:
    text = [
        "# Commands\n",
        GENERATED,
        "In a notebook each is a line magic as well: `cellwall ps` is `%container ps`. Exit statuses are docker's.\n",
        "## cellwall\n",
        "```text\ncellwall [OPTIONS] COMMAND …\n```\n",
        _table(options_of(main_parser())),
    ]
    longer: dict[str, list[str]] = {}
    for group, commands in GROUPS.items():
        for name, target in commands.items():
            if f"{group} {name}" != target:
                longer.setdefault(target, []).append(f"`cellwall {group} {name}`")
    for command, (_, _, summary) in sorted(COMMANDS.items()):
        parser = parser_of(command)
        usage = parser.format_usage().removeprefix("usage: ").strip()
        text += [f"## cellwall {command}\n", f"{_plain(summary)}.\n", f"```text\n{usage}\n```\n"]
        if command in longer:
            text.append(f"Also {', '.join(longer[command])}.\n")
        text.append(_options(parser))
    return "\n".join(text)


def _run_options() -> str:
    parser = parser_of("run")
    run = [action for action in options_of(parser) if set(action.option_strings) & RUN_NAMES]
    return "\n".join(
        [
            "# Run options\n",
            GENERATED,
            "Those of `docker run`, with its meanings, for `cellwall run` and `create`, `%%container`, `%%union`, and as keywords of "
            '`cellwall.run` (`--cap-drop ALL` is `cap_drop=["ALL"]`).\n',
            _table(run),
        ]
    )


def _magics() -> str:
    text = [
        "# Magics\n",
        GENERATED,
        "`%load_ext cellwall` brings them. A name that another extension holds stays with it.\n",
    ]
    for name, doc in sorted(magics().items(), key=lambda item: item[0].lstrip("%")):
        text += [f"## {name}\n", _doc(doc)]
        bare = name.lstrip("%")
        if name.startswith("%%") and bare in CELL_PARSERS:
            parser = CELL_PARSERS[bare]()
            usage = parser.format_usage().removeprefix("usage: ").strip()
            text += [f"```text\n{usage}\n```\n", _options(parser)]
        elif bare in VIEWS:
            parser = view_parser(bare, name)
            usage = parser.format_usage().removeprefix("usage: ").strip()
            text += [f"```text\n{usage}\n```\n", _options(parser)]
        elif bare in GROUPS:
            listed = ", ".join(f"`{command}`" for command in GROUPS[bare])
            text.append(f"{listed}: see [commands](commands.md).\n")
    return "\n".join(text)


def _configuration() -> str:
    rows = ["| key below `[defaults]` | variable |", "| --- | --- |"]
    rows += [f"| `{key}` | `CELLWALL_{key.upper()}` |" for key in config._DEFAULTS]
    doc = inspect.getdoc(config) or ""
    example = re.search(r"\n\n((?:    .*\n|\n)+)", doc)
    assert example is not None
    return "\n".join(
        [
            "# Configuration\n",
            GENERATED,
            "The file is `$XDG_CONFIG_HOME/cellwall/config.toml`; `CELLWALL_CONFIG` names another. A variable goes over the file, a flag over "
            "both. `cellwall info` prints what is in force, and from where.\n",
            f"```toml\n{inspect.cleandoc(example[1])}\n```\n",
            *rows,
            "",
            "`CELLWALL_ROOT` moves all state (images, containers, volumes) to one folder. `CELLWALL_DEBUG=1` shows tracebacks. "
            "`CELLWALL_LOCK` names the notebook whose [lock](../locks.md) counts.\n",
        ]
    )


def _python() -> str:
    text = ["# Python\n", GENERATED]
    for name in cellwall.__all__:
        found = getattr(cellwall, name)
        text += [f"## cellwall.{name}\n"]
        if not inspect.isclass(found):
            text.append(f"```python\n{name}{inspect.signature(found)}\n```\n")
        text.append(_doc(found.__doc__ or ""))
    text += ["## cellwall.aio\n", _doc(aio.__doc__ or "")]
    return "\n".join(text)


def write(folder: Path) -> None:
    """Write every page into ``folder``; a page that is there already as it is to be isn't touched."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
