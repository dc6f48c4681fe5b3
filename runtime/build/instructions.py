"""The instructions of a Dockerfile as values.

Each has ``source`` (its text and lines), which takes no part in comparing. Words hold their quotes and variables until
``expansion.expand``; the fields of RUN, CMD and ENTRYPOINT are final, for there the shell in the container substitutes.

Source: Dockerfile reference, the section of each instruction.
"""

from __future__ import annotations

from ..frozen import field, fields, frozen, has_fields
from .lines import Heredoc
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


@frozen(kw_only=True)
class Instruction:
    """What every instruction has. ``name`` is its word in capitals."""

    name: ClassVar[str] = ""
    source: Source = field(compare=False, repr=False)

    def arguments(self) -> dict[str, Any]:
        """Everything but the place, as JSON values: with the parent's digest, what a cache key is made of."""
        found = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("source", "mount_texts")
        }
        return {"instruction": self.name} | {key: _plain(value) for key, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Instruction):
        return value.arguments()
    if has_fields(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@frozen
class CommandLine:
    """What runs: in exec form the argv, in shell form (``shell``) one string for the SHELL that is in force."""

    argv: tuple[str, ...]
    shell: bool


@frozen
class Mount:
    """``RUN --mount``. ``source``, ``target``, ``id`` and ``stage`` (``from=``) are empty where not given; ``mode``, ``uid``, ``gid`` None.

    ``environment`` is the variable that a secret goes to; ``size_bytes`` bounds a tmpfs (0: no bound).
    Source: Dockerfile reference, "RUN --mount".
    """

    type: str = "bind"
    source: str = ""
    target: str = ""
    stage: str = ""
    id: str = ""
    read_only: bool = True
    required: bool = False
    sharing: str = "shared"
    environment: str = ""
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@frozen(kw_only=True)
class From(Instruction):
    """``image`` may be an earlier stage's name, ``scratch``, or a reference; ``stage`` is the name after AS, lower case."""

    name: ClassVar[str] = "FROM"
    image: str
    stage: str = ""
    platform: str = ""


@frozen(kw_only=True)
class Arg(Instruction):
    """Names with their default, None where there is none."""

    name: ClassVar[str] = "ARG"
    defaults: tuple[tuple[str, str | None], ...]


@frozen(kw_only=True)
class Env(Instruction):
    """Names and values, in order; a name may be set twice."""

    name: ClassVar[str] = "ENV"
    pairs: tuple[tuple[str, str], ...]


@frozen(kw_only=True)
class Label(Instruction):
    """Keys and values, in order."""

    name: ClassVar[str] = "LABEL"
    pairs: tuple[tuple[str, str], ...]


@frozen(kw_only=True)
class Run(Instruction):
    """``mounts`` is whole after expansion; before it, it lacks those whose text holds a variable.

    ``heredocs`` are the bodies that the command line names, in order; ``script`` says how they are run.
    """

    name: ClassVar[str] = "RUN"
    command: CommandLine
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    mount_texts: tuple[str, ...] = ()

    def script(self) -> tuple[str, bool]:
        """The text to run, and whether it is a file to be executed by its ``#!`` line (else: the argument of the SHELL).

        A command line that is one heredoc and nothing else is that heredoc's body. Otherwise the shell reads the heredocs itself.
        Exec form has no script: raises ValueError. Source: Dockerfile reference, "Here-documents".
        """
        if not self.command.shell:
            raise ValueError("an exec form has no script")
        line = self.command.argv[0]
        if not self.heredocs:
            return line, False
        only = self.heredocs[0]
        if len(self.heredocs) == 1 and len(line.split()) == 1 and line.lstrip("0123456789").startswith("<<"):
            return only.body(), only.body().startswith("#!")
        return f"{line}\n" + "".join(f"{heredoc.content}{heredoc.name}\n" for heredoc in self.heredocs), False


@frozen(kw_only=True)
class Cmd(Instruction):
    """The image's default command, or the arguments of its entrypoint."""

    name: ClassVar[str] = "CMD"
    command: CommandLine


@frozen(kw_only=True)
class Entrypoint(Instruction):
    """What a container of the image runs."""

    name: ClassVar[str] = "ENTRYPOINT"
    command: CommandLine


@frozen(kw_only=True)
class Copy(Instruction):
    """``sources`` are paths in the context or in ``stage`` (``--from``: a stage's name or index, or an image); ``files`` heredocs.

    ``chown`` and ``chmod`` are empty where not given.
    """

    name: ClassVar[str] = "COPY"
    sources: tuple[str, ...]
    destination: str
    files: tuple[Heredoc, ...] = ()
    stage: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()


@frozen(kw_only=True)
class Add(Instruction):
    """As COPY, and sources may be URLs and git repositories. ``unpack`` is None where the kind of source decides."""

    name: ClassVar[str] = "ADD"
    sources: tuple[str, ...]
    destination: str
    files: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@frozen(kw_only=True)
class Workdir(Instruction):
    """``path`` may be relative to the one before."""

    name: ClassVar[str] = "WORKDIR"
    path: str


@frozen(kw_only=True)
class User(Instruction):
    """``user[:group]``, by name or by id."""

    name: ClassVar[str] = "USER"
    user: str


@frozen(kw_only=True)
class Volume(Instruction):
    """Paths that a container gets a volume on."""

    name: ClassVar[str] = "VOLUME"
    paths: tuple[str, ...]


@frozen(kw_only=True)
class Expose(Instruction):
    """After expansion, one ``port/protocol`` for each port of each range, as the image config has them."""

    name: ClassVar[str] = "EXPOSE"
    ports: tuple[str, ...]


@frozen(kw_only=True)
class Stopsignal(Instruction):
    """A signal's name or number."""

    name: ClassVar[str] = "STOPSIGNAL"
    signal: str


@frozen(kw_only=True)
class Healthcheck(Instruction):
    """``command`` None is NONE. Times are in ns, as the image config has them; 0 is docker's default."""

    name: ClassVar[str] = "HEALTHCHECK"
    command: CommandLine | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@frozen(kw_only=True)
class Shell(Instruction):
    """What runs the shell forms that follow."""

    name: ClassVar[str] = "SHELL"
    argv: tuple[str, ...]


@frozen(kw_only=True)
class Onbuild(Instruction):
    """``text`` goes to the image config as it is; ``trigger`` is the same, read."""

    name: ClassVar[str] = "ONBUILD"
    text: str
    trigger: Instruction


@frozen(kw_only=True)
class Maintainer(Instruction):
    """Deprecated; the image config's ``author``."""

    name: ClassVar[str] = "MAINTAINER"
    author: str
