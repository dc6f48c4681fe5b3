"""argparse with docker's way of reading words, and without its way of ending the process.

What differs from plain argparse, each as Go's pflag has it in docker:

- ``-itd``, ``-m64m``, ``-m=64m``, ``-m 64m``, ``--memory=64m`` and ``--memory 64m`` all work; a value may begin with a dash;
- a boolean flag never takes the next word, but ``--rm=false`` works; names are never abbreviated;
- with ``interspersed=False`` the first word that is no option ends them: everything behind it belongs to the command.

Errors are SpecError and help is HelpRequested, so that a notebook's kernel outlives a typing mistake.
Imports the standard library and errors.py only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ..errors import SpecError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class HelpRequested(Exception):
    """``--help`` stood among the words; ``text`` is what a person wants to read now, ``parser`` that of the command."""

    def __init__(self, text: str, parser: Parser | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.parser = parser


class BooleanFlag(argparse.Action):
    """A flag that is true where it stands, or what ``=true`` or ``=false`` says."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        keywords.pop("type", None)
        super().__init__(option_strings, dest, nargs="?", const=True, **keywords)

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        from .values import boolean

        setattr(namespace, self.dest, values if isinstance(values, bool) else boolean(option or self.dest, str(values)))

    def format_usage(self) -> str:
        return self.option_strings[0]


class _Help(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print this and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise HelpRequested(parser.format_help(), parser if isinstance(parser, Parser) else None)


class _Refused(argparse.Action):
    """An option of docker's whose capability isn't there: it is known, hidden from help, and answered in one sentence."""

    def __call__(self, parser: object, namespace: object, values: object, option: str | None = None) -> NoReturn:
        raise UnsupportedError(str(option), str(self.const))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """``-m, --memory SIZE`` as docker prints it, not ``-m SIZE, --memory SIZE``."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings) or super()._format_action_invocation(action)
        takes_value = action.option_strings and action.nargs not in (0, "?")
        return f"{names} {self._format_args(action, action.dest.upper())}" if takes_value else names


class Parser(argparse.ArgumentParser):
    """One command's options. ``command`` stands in messages ("cellwall run"), ``usage`` behind ``usage:`` in help."""

    def __init__(self, command: str, usage: str = "", description: str = "", *, interspersed: bool = True) -> None:
        super().__init__(
            prog=command,
            usage=f"{command} {usage}".rstrip().replace("%", "%%"),
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self.command = command
        self.interspersed = interspersed
        # A group takes an option without making a help formatter to try its metavar on, which is most of what adding one costs.
        self._options = self.add_argument_group("options")
        self._options.add_argument("--help", action=_Help)

    def flag(self, *names: str, dest: str | None = None, help: str = "", default: bool | None = False) -> None:
        """Add a boolean flag; ``default`` None tells "not said" from ``=false``."""
        keywords: dict[str, Any] = {"dest": dest} if dest else {}
        self._options.add_argument(*names, action=BooleanFlag, default=default, help=help, **keywords)

    def value(
        self,
        *names: str,
        read: Callable[[str, str], object] | None = None,
        repeated: bool = False,
        metavar: str = "VALUE",
        help: str = "",
        dest: str | None = None,
        default: object = None,
    ) -> None:
        """Add an option that takes a value; ``read(flag, text)`` makes it, ``repeated`` gathers a list."""
        keywords: dict[str, Any] = {"metavar": metavar, "help": help, "default": default}
        if dest:
            keywords["dest"] = dest
        if repeated:
            keywords |= {"action": "append", "default": []}
        if read is not None:
            flag = max(names, key=len)
            keywords["type"] = lambda text: read(flag, text)
        self._options.add_argument(*names, **keywords)

    def refuse(self, *names: str, why: str, takes_value: bool = True) -> None:
        """Add an option that is known, and answered by UnsupportedError with ``why``."""
        self._options.add_argument(
            *names,
            action=_Refused,
            nargs=None if takes_value else "?",
            const=why,
            help=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
        )

    def parse(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """``(options, the other words)``. Raises SpecError, UnsupportedError, HelpRequested."""
        options, rest = self._split(list(words))
        return self.parse_args(options), rest

    def sort(self, words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
        """``(the texts of each option that is said, by its dest, the other words)``; no text is read. Raises SpecError.

        For whoever looks at a line that isn't run: a value may hold what only the run fills in.
        """
        options, rest = self._split(list(words))
        said: dict[str, list[str]] = {}
        for option in options:
            name, _, text = option.partition("=") if option.startswith("--") else (option[:2], "", option[2:])
            said.setdefault(self._action(name).dest, []).append(text)
        return said, rest

    def options_of(self, words: Sequence[str]) -> list[str]:
        """The options among ``words``, each as one word with its longest name: ``--memory=64m``. Raises SpecError."""
        return self._split(list(words))[0]

    def describe(self) -> list[dict[str, Any]]:
        """The options for completion, in the shape of run_options.describe(); refused ones left out."""
        return [
            {
                "names": list(action.option_strings),
                "takes_value": action.nargs not in (0, "?"),
                "repeats": isinstance(action.default, list),
                "metavar": action.metavar or "",
                "choices": list(action.choices or ()),
                "help": action.help or "",
            }
            for action in self._actions
            if action.option_strings and action.help != argparse.SUPPRESS
        ]

    def error(self, message: str) -> NoReturn:
        raise SpecError(self.command, message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise SpecError(self.command, message or f"ended with {status}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """``-e --`` is the value "--": Python 3.11 and 3.12 take it away, and leave an empty list."""
        if arg_strings == ["--"] and action.nargs is None:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def _split(self, words: list[str]) -> tuple[list[str], list[str]]:
        """Options as single ``--name=value`` words, which argparse can't misread, and the words that are no options."""
        options: list[str] = []
        rest: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                return options, rest + words
            if word.startswith("--"):
                name, sign, value = word.partition("=")
                action = self._action(name)
                options.append(self._one_word(action, name, value if sign else None, words))
            elif word.startswith("-") and word != "-":
                self._split_cluster(word, words, options)
            elif self.interspersed:
                rest.append(word)
            else:
                return options, [*rest, word, *words]
        return options, rest

    def _split_cluster(self, word: str, words: list[str], options: list[str]) -> None:
        """``-itd``, ``-m64m``, ``-m=64m``: letters up to the first that takes a value, whose value is the rest."""
        position = 1
        while position < len(word):
            name, following = f"-{word[position]}", word[position + 1 :]
            action = self._action(name, word)
            if action.nargs in (0, "?"):
                value = following[1:] if following.startswith("=") else None
                options.append(self._one_word(action, name, value, words))
                position = len(word) if value is not None else position + 1
                continue
            options.append(self._one_word(action, name, following.removeprefix("=") if following else None, words))
            return

    def _one_word(self, action: argparse.Action, name: str, value: str | None, words: list[str]) -> str:
        long = next((known for known in action.option_strings if known.startswith("--")), action.option_strings[0])
        if value is None:
            if action.nargs in (0, "?"):
                return long
            if not words:
                raise SpecError(name, "needs a value")
            value = words.pop(0)
        return f"{long}={value}" if long.startswith("--") else f"{long}{value}"

    def _action(self, name: str, word: str = "") -> argparse.Action:
        found = self._option_string_actions.get(name)
        if found is None:
            import difflib

            near = difflib.get_close_matches(name, self._option_string_actions, 1, 0.75) if len(name) > 2 else []
            mend = f"did you mean {near[0]}" if near else f"'{self.command} --help' lists those that are"
            raise SpecError(
                name, f"isn't an option of {self.command}{f' (in {word})' if len(word) > 2 else ''}; {mend}"
            )
        return found
