"""The command line's door: which command, its module at its first use, and every error as one line.

Exit statuses are docker's: 125 for a line that can't be read and wherever ``run`` and ``exec`` fail before the command, 126
and 127 from the container's init, the command's own otherwise; 1 where another command fails; 128 + n for signal n.
Imports the standard library and errors.py; everything else is loaded by the command that needs it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from ..errors import CellwallError, InitError, SpecError
from .parser import HelpRequested, Parser
from .views import RUNS, VIEWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn, TextIO

    from ..config import Config
    from ..engine import Engine

# command: (module of this package, function, what it does). The order is that of the help text. Kernels are above the runtime: their
# commands are named here and nowhere imported, so that the command line stays one (docs/adr/0013-isolated-kernels.md).
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run", "Run a command in a new container"),
    "exec": ("run", "exec_", "Run a command in a running container"),
    "ps": ("containers", "ps", "List containers"),
    "pull": ("images", "pull", "Download an image"),
    "images": ("images", "images", "List images"),
    "rmi": ("images", "rmi", "Remove images"),
    "tag": ("images", "tag", "Give an image another name"),
    "create": ("lifecycle", "create", "Make a container, without starting it"),
    "start": ("lifecycle", "start", "Start stopped containers"),
    "restart": ("lifecycle", "restart", "Stop containers and start them again"),
    "attach": ("lifecycle", "attach", "Join a running container's input and output"),
    "wait": ("lifecycle", "wait", "Wait until containers have ended, and print their exit statuses"),
    "stop": ("containers", "stop", "Ask containers to end, then kill them"),
    "kill": ("containers", "kill", "Send a signal to containers"),
    "rm": ("containers", "rm", "Remove containers"),
    "logs": ("logs", "logs", "Print what a container has written"),
    "inspect": ("inspect", "inspect", "Show all that is known of containers and images"),
    "pause": ("control", "pause", "Stop all processes of containers where they are"),
    "unpause": ("control", "unpause", "Let paused containers go on"),
    "rename": ("control", "rename", "Give a container another name"),
    "update": ("control", "update", "Change limits of containers"),
    "top": ("watching", "top", "List the processes of a container"),
    "stats": ("stats", "stats", "Show what containers use, live"),
    "events": ("watching", "events", "Print what happens to containers, images, volumes and networks"),
    "port": ("watching", "port", "List where a container's ports are published"),
    "diff": ("containers", "diff", "List what a container has changed"),
    "commit": ("sharing", "commit", "Make an image of a container's changes"),
    "history": ("sharing", "history", "Show how an image was made"),
    "push": ("transfer", "push", "Upload an image"),
    "save": ("transfer", "save", "Write images to an archive"),
    "load": ("transfer", "load", "Bring in images from an archive"),
    "export": ("transfer", "export", "Write a container's files to an archive"),
    "import": ("transfer", "import_", "Make an image of an archive of files"),
    "build": ("build", "build", "Build an image from a Dockerfile"),
    "builder prune": ("build", "builder_prune", "Remove the build cache"),
    "system df": ("pruning", "df", "Show what takes how much disk"),
    "system prune": ("pruning", "system_prune", "Remove what nothing uses"),
    "container prune": ("pruning", "container_prune", "Remove stopped containers"),
    "image prune": ("pruning", "image_prune", "Remove images that nothing uses"),
    "network create": ("network", "create", "Make a network"),
    "network ls": ("network", "ls", "List networks"),
    "network inspect": ("network", "inspect", "Show all that is known of networks"),
    "network show": ("network", "show", "Draw a network and who is on it"),
    "network rm": ("network", "rm", "Remove networks"),
    "network prune": ("network", "prune", "Remove networks that nothing uses"),
    "network connect": ("network", "connect", "Put a container on a network"),
    "network disconnect": ("network", "disconnect", "Take a container off a network"),
    "cp": ("cp", "cp", "Copy files out of a container, or into one"),
    "volume create": ("volume", "create", "Make a volume"),
    "volume ls": ("volume", "ls", "List volumes"),
    "volume inspect": ("volume", "inspect", "Show all that is known of volumes"),
    "volume rm": ("volume", "rm", "Remove volumes"),
    "volume prune": ("volume", "prune", "Remove volumes that nothing uses"),
    "union": ("union", "union", "Mount folders over each other, in aufs's words, and show which gives each file"),
    "lock": ("lock", "lock", "Record in a notebook which images its cells name, by digest"),
    "kernel install": ("..kernel.command", "install", "Make an image's kernel one of Jupyter's kernels"),
    "kernel list": ("..kernel.command", "list_", "List kernels"),
    "kernel remove": ("..kernel.command", "remove", "Remove kernels"),
    "kernel launch": ("..kernel.launch", "launch", "Run a kernel: what a kernelspec calls"),
    **{name: ("views", "command", summary) for name, summary in VIEWS.items()},
    "bootstrap": ("images", "bootstrap", "Build a base image from a distribution's own archive"),
    "doctor": ("system", "doctor", "What this machine can and cannot do, and what mends it"),
    "info": ("system", "info", "What is in force, and from where"),
    "version": ("system", "version", "Print the version"),
    **{name: ("views", "command", summary) for name, summary in RUNS.items()},
}
# docker's long forms of the same.
GROUPS: dict[str, dict[str, str]] = {
    "container": {
        "run": "run",
        "exec": "exec",
        "ls": "ps",
        "list": "ps",
        "ps": "ps",
        "create": "create",
        "start": "start",
        "restart": "restart",
        "attach": "attach",
        "wait": "wait",
        "stop": "stop",
        "kill": "kill",
        "rm": "rm",
        "logs": "logs",
        "inspect": "inspect",
        "prune": "container prune",
        "pause": "pause",
        "unpause": "unpause",
        "rename": "rename",
        "update": "update",
        "top": "top",
        "stats": "stats",
        "port": "port",
        "diff": "diff",
        "commit": "commit",
        "cp": "cp",
        "export": "export",
    },
    "builder": {"build": "build", "prune": "builder prune"},
    "image": {
        "build": "build",
        "pull": "pull",
        "push": "push",
        "ls": "images",
        "list": "images",
        "rm": "rmi",
        "tag": "tag",
        "inspect": "inspect",
        "history": "history",
        "save": "save",
        "load": "load",
        "import": "import",
        "prune": "image prune",
    },
    "network": {
        "create": "network create",
        "ls": "network ls",
        "list": "network ls",
        "inspect": "network inspect",
        "show": "network show",
        "rm": "network rm",
        "remove": "network rm",
        "prune": "network prune",
        "connect": "network connect",
        "disconnect": "network disconnect",
    },
    "volume": {
        "create": "volume create",
        "ls": "volume ls",
        "list": "volume ls",
        "inspect": "volume inspect",
        "rm": "volume rm",
        "remove": "volume rm",
        "prune": "volume prune",
    },
    "kernel": {
        "install": "kernel install",
        "list": "kernel list",
        "ls": "kernel list",
        "remove": "kernel remove",
        "rm": "kernel remove",
        "launch": "kernel launch",
    },
    "system": {"events": "events", "info": "info", "df": "system df", "prune": "system prune"},
}
_FOREGROUND = {"run", "exec", "union"}


class Terminated(BaseException):
    """SIGTERM or SIGHUP came: unwind, so that terminals, pulls and containers are put in order, then end by it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Context:
    """What a command gets: its words' parser, the configuration and the engine, each made when it is asked for."""

    def __init__(self, command: str, flags: dict[str, str], config_file: str | None) -> None:
        self.command = command
        self._flags = flags
        self._config_file = config_file
        self._config: Config | None = None
        self._engine: Engine | None = None

    def parser(self, usage: str, *, interspersed: bool = True) -> Parser:
        known = COMMANDS.get(self.command) or COMMANDS.get(self.command.split()[-1])
        summary = known[2] if known else ""
        return Parser(f"cellwall {self.command}", usage, f"{summary}." if summary else "", interspersed=interspersed)

    @property
    def config(self) -> Config:
        if self._config is None:
            from ..config import Config

            self._config = Config.load(file=self._config_file, flags=self._flags)
        return self._config

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            from ..engine import Engine

            self._engine = Engine(self.config)
            self._engine.pool = 0
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            told = len(self._engine.warnings)
            self._engine.close()
            for warning in self._engine.warnings[told:]:
                note(warning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name) and return its exit status. Never raises for a user's mistake."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a file name in a container is any bytes
    before = _catch_ends()
    debug = os.environ.get("CELLWALL_DEBUG", "") not in ("", "0")
    failed = 1
    try:
        try:
            parser = main_parser()
            said, rest = parser.parse(words)
            debug = debug or said.debug
            if said.version:
                rest = ["version"]
            if not rest:
                raise HelpRequested(parser.format_help())
            name, function, rest = find(rest)
            failed = 125 if name.split()[-1] in _FOREGROUND else 1
            return _call(name, function, rest, said.root, said.config)
        except HelpRequested as help:
            sys.stdout.write(help.text)
            return 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (``cellwall ps | head -1``); the interpreter's own flush must not complain again.
        _lose(sys.stdout)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Terminated as end:
        return 128 + end.number
    except Exception as error:
        if debug:
            raise
        return _report(error, failed)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _call(
    name: str, function: Callable[[Context, list[str]], int], words: list[str], root: str | None, config: str | None
) -> int:
    context = Context(name, {"root": root} if root else {}, config)
    try:
        return function(context, words)
    finally:
        context.close()


def main_parser() -> Parser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {summary}" for name, (_, _, summary) in COMMANDS.items())
    parser = Parser("cellwall", "[OPTIONS] COMMAND …", interspersed=False)
    parser.description = f"Containers in notebook cells and on the command line.\n\ncommands:\n{listed}"
    parser.value("--config", metavar="FILE", help="configuration file")
    parser.value("--root", metavar="DIR", help="where images and containers are kept")
    parser.flag("-D", "--debug", help="show tracebacks")
    parser.flag("-v", "--version", help="print the version and exit")
    return parser


def find(words: list[str]) -> tuple[str, Callable[[Context, list[str]], int], list[str]]:
    """``(the command as it was typed, its function, the words behind it)``."""
    name, rest = words[0], words[1:]
    target = name
    if group := GROUPS.get(name):
        if not rest or rest[0] in ("--help", "-h"):
            raise HelpRequested(f"usage: cellwall {name} {'|'.join(group)} …\n")
        name, target, rest = f"{name} {rest[0]}", group.get(rest[0], ""), rest[1:]
    if target not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        mend = f"did you mean {near[0]}" if near else "'cellwall --help' lists those that are"
        raise SpecError(name, f"isn't a command of cellwall; {mend}")
    from importlib import import_module

    module, function, _ = COMMANDS[target]
    found: Callable[[Context, list[str]], int] = getattr(import_module(f".{module}", __package__), function)
    return name, found, rest


def help_of(words: Sequence[str]) -> str:
    """The help text of the command that ``words`` begin with; empty where there is none. Nothing is run for it."""
    try:
        name, function, _ = find(list(words))
        function(Context(name, {}, None), ["--help"])
    except HelpRequested as help:
        return help.text
    except CellwallError:
        pass
    return ""


def _report(error: Exception, failed: int) -> int:
    known = isinstance(error, (CellwallError, OSError))
    text = str(error) if known else f"internal error: {type(error).__name__} {error}; CELLWALL_DEBUG=1 shows where"
    note(text)
    if isinstance(error, InitError):
        return error.status
    return 125 if isinstance(error, SpecError) else failed


def note(text: str) -> None:
    """One line on standard error, as errors are told. Where nobody takes it any more it is lost, and the command goes on."""
    try:
        sys.stderr.write(f"cellwall: {one_line(text)}\n")
        sys.stderr.flush()
    except OSError:  # EIO, EPIPE: the terminal hung up, or the reader has gone
        # What stays in the stream would fail again at the process's end, and be that end's status.
        _lose(sys.stderr)


def _lose(stream: TextIO) -> None:
    """Have what is still to be written to ``stream`` go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def one_line(text: str) -> str:
    """``text`` without line ends and control characters, which a registry or an image may have put there."""
    return "".join(
        letter if letter.isprintable() else " " if letter in "\n\t" else repr(letter)[1:-1] for letter in text.strip()
    )


def _open_standard_streams() -> None:
    """Put /dev/null where a caller has closed 0, 1 or 2 (``>&-``): else the next pipe would take that number's place."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number, which is fd
    if sys.stdin is None:
        sys.stdin = open(os.devnull)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def _catch_ends() -> dict[int, Any]:
    """Make SIGTERM and SIGHUP unwind like Ctrl-C does, in the main thread; returns the handlers that were there."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored: so it stays
            before[int(number)] = signal.signal(number, _raise_terminated)
    return before


def _raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
