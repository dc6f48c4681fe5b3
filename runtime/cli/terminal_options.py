"""Options that say how this process joins a container: they are about this terminal, not about the container."""

from __future__ import annotations

from ..errors import SpecError
from . import detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .parser import Parser

OF_THE_TERMINAL = frozenset({"--attach", "--detach-keys", "--sig-proxy"})


def add_terminal_options(parser: Parser, *, attach: bool = True) -> None:
    """The options that say how this process joins a container."""
    if attach:
        parser.value(
            "-a", "--attach", repeated=True, read=stream, metavar="STREAM", help="join stdin, stdout or stderr"
        )
    parser.value(
        "--detach-keys",
        read=detach_keys.keys,
        metavar="KEYS",
        help="keys that leave the container running (ctrl-p,ctrl-q)",
    )
    parser.flag("--sig-proxy", help="pass signals on to the command (without -t)", default=True)


def stream(flag: str, text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise SpecError(flag, f"{text!r} isn't known; it is one of stdin, stdout, stderr")
    return text.lower()
