"""Reads one statement as an instruction, and says where and what is wrong with it.

Source: Dockerfile reference, the section of each instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .flags import Flags
from .instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from .lines import Heredoc, Statement
from .mount_flag import MountFault, parse_mount
from .request import Request
from .source import Remark, did_you_mean
from .values import ValueFault, duration_ns
from .words import (
    WHITESPACE,
    heredoc_mark,
    skip_spaces,
    split_command,
    split_flags,
    split_spaces,
    split_words,
)

_STAGE_NAME = r"(?a)[a-z][a-z0-9_.-]*"


def parse_statement(statement: Statement, escape: str, remarks: list[Remark]) -> Instruction:
    """The instruction that ``statement`` is; oddities that docker accepts go to ``remarks``. Raises DockerfileError."""
    return _instruction(statement, 0, escape, remarks)


def _instruction(statement: Statement, start: int, escape: str, remarks: list[Remark]) -> Instruction:
    word, at = split_command(statement.text[start:])
    name = word.text.upper()
    reader = _READERS.get(name)
    if reader is None:
        message = f"{word.text!r} isn't an instruction{did_you_mean(name, _READERS)}"
        raise statement.fault(start + word.offset, message, allowed=tuple(_READERS))
    flags, at = split_flags(statement.text, start + at)
    return reader(Request(statement, name, at, Flags(statement, name, flags), escape, remarks))


def _from(request: Request) -> From:
    request.need("FROM debian AS base")
    words = split_spaces(request.statement.text, request.at)
    stage = ""
    if len(words) > 1:
        if words[1].text.upper() != "AS":
            raise request.statement.fault(words[1].offset, f"{words[1].text!r} can't follow the image", allowed=("AS",))
        if len(words) != 3:
            raise request.statement.fault(words[-1].offset, "FROM takes one image and one name after AS")
        stage = words[2].text.lower()
        if not re.fullmatch(_STAGE_NAME, stage):
            message = f"{words[2].text!r} can't name a stage: a letter, then letters, digits, _ . -"
            raise request.statement.fault(words[2].offset, message)
        if stage in ("scratch", "context"):
            line = request.statement.source.first_line
            request.remarks.append(
                Remark(line, f"a stage named {stage!r} can be meant for what that word means elsewhere")
            )
    return From(
        source=request.statement.source, image=words[0].text, stage=stage, platform=request.flags.text("platform")
    )


def _arg(request: Request) -> Arg:
    request.need("ARG VERSION=1.0")
    defaults: list[tuple[str, str | None]] = []
    for word in split_words(request.statement.text, request.escape, request.at):
        key, equals, value = word.text.partition("=")
        if not key:
            raise request.statement.fault(word.offset, "an ARG needs a name before =")
        defaults.append((key, value if equals else None))
    return Arg(source=request.statement.source, defaults=tuple(defaults))


def _pairs(request: Request) -> tuple[tuple[str, str], ...]:
    """``k=v k2=v2``, or docker's old ``k the rest of the line``, told by the first word."""
    request.need(f"{request.name} NAME=value")
    statement = request.statement
    words = split_words(statement.text, request.escape, request.at)
    if not words or "=" not in words[0].text:
        parts = split_spaces(statement.text, request.at)
        if len(parts) < 2:
            raise statement.fault(request.at, f"{request.name} needs a value for {parts[0].text!r}, as in NAME=value")
        message = f"{request.name} {parts[0].text}=value is the way to write this today"
        request.remarks.append(Remark(statement.source.first_line, message))
        return ((parts[0].text, statement.text[parts[1].offset :].strip(WHITESPACE)),)
    pairs = []
    for word in words:
        key, equals, value = word.text.partition("=")
        if not equals:
            raise statement.fault(
                word.offset, f"{word.text!r} has no =: {request.name} takes NAME=value, with quotes around spaces"
            )
        if not key:
            raise statement.fault(word.offset, f"{request.name} needs a name before =")
        pairs.append((key, value))
    return tuple(pairs)


def _env(request: Request) -> Env:
    return Env(source=request.statement.source, pairs=_pairs(request))


def _label(request: Request) -> Label:
    return Label(source=request.statement.source, pairs=_pairs(request))


def _run(request: Request) -> Run:
    request.need("RUN apt-get update")
    command = request.command(request.at)
    if not command.argv:
        raise request.statement.fault(request.at, "RUN needs a command: the array is empty")
    mounts, texts = [], []
    for word in request.flags.words("mount"):
        try:
            mount = parse_mount(word.text)
        except MountFault as err:
            raise request.statement.fault(word.offset, f"--mount: {err}", allowed=err.allowed) from None
        texts.append(word.text)
        if mount is not None:
            mounts.append(mount)
    return Run(
        source=request.statement.source,
        command=command,
        heredocs=request.statement.heredocs,
        mounts=tuple(mounts),
        network=request.flags.one_of("network", ("default", "none", "host")),
        security=request.flags.one_of("security", ("sandbox", "insecure")),
        mount_texts=tuple(texts),
    )


def _cmd(request: Request) -> Cmd:
    request.need('CMD ["python3"]')
    return Cmd(source=request.statement.source, command=request.command(request.at))


def _entrypoint(request: Request) -> Entrypoint:
    request.need('ENTRYPOINT ["python3"]')
    return Entrypoint(source=request.statement.source, command=request.command(request.at))


def _sources(request: Request) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Paths, heredocs, and the destination, of COPY and ADD."""
    request.need(f"{request.name} file /there/")
    words = request.items()
    statement = request.statement
    if len(words) < 2:
        raise statement.fault(
            request.at, f"{request.name} needs a source and a destination, as in {request.name} file /there/"
        )
    *sources, destination = words
    if heredoc_mark(destination.text, request.escape):
        raise statement.fault(destination.offset, f"a heredoc can't be the destination of {request.name}")
    if not destination.text:
        raise statement.fault(destination.offset, f"the destination of {request.name} is empty")
    # The reader of lines took the heredocs in this same order, and none where the arguments are JSON.
    bodies = statement.heredocs
    marked = [bool(bodies) and heredoc_mark(word.text, request.escape) is not None for word in sources]
    if sum(marked) != len(bodies):
        raise statement.fault(
            request.at, f"a heredoc of {request.name} must be a word by itself, as in <<EOF or <<'EOF'"
        )
    return (
        tuple(word.text for word, is_mark in zip(sources, marked, strict=True) if not is_mark),
        bodies,
        destination.text,
    )


def _copy(request: Request) -> Copy:
    sources, files, destination = _sources(request)
    flags = request.flags
    stage = flags.text("from")
    if "$" in stage:
        raise request.statement.fault(
            flags.offset("from"), "--from takes no variable: name a stage for it (FROM $image AS name)"
        )
    if stage and files:
        raise request.statement.fault(flags.offset("from"), "a heredoc isn't copied from a stage: leave --from out")
    return Copy(
        source=request.statement.source,
        sources=sources,
        destination=destination,
        files=files,
        stage=stage,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.switch("link"),
        parents=flags.switch("parents"),
        excludes=tuple(word.text for word in flags.words("exclude")),
    )


def _add(request: Request) -> Add:
    sources, files, destination = _sources(request)
    flags = request.flags
    return Add(
        source=request.statement.source,
        sources=sources,
        destination=destination,
        files=files,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.switch("link"),
        excludes=tuple(word.text for word in flags.words("exclude")),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"),
        unpack=flags.switch("unpack") if flags.words("unpack") else None,
    )


def _workdir(request: Request) -> Workdir:
    request.need("WORKDIR /app")
    return Workdir(source=request.statement.source, path=request.rest)


def _user(request: Request) -> User:
    request.need("USER nobody")
    return User(source=request.statement.source, user=request.rest)


def _stopsignal(request: Request) -> Stopsignal:
    request.need("STOPSIGNAL SIGINT")
    return Stopsignal(source=request.statement.source, signal=request.rest)


def _maintainer(request: Request) -> Maintainer:
    request.need("MAINTAINER name")
    line = request.statement.source.first_line
    request.remarks.append(
        Remark(line, "MAINTAINER is deprecated: LABEL org.opencontainers.image.authors=… says it today")
    )
    return Maintainer(source=request.statement.source, author=request.rest)


def _volume(request: Request) -> Volume:
    request.need("VOLUME /data")
    words = request.items()
    if not words:
        raise request.statement.fault(request.at, "VOLUME needs a path: the array is empty")
    for word in words:
        if not word.text.strip(WHITESPACE):
            raise request.statement.fault(word.offset, "a VOLUME's path is empty")
    return Volume(source=request.statement.source, paths=tuple(word.text for word in words))


def _expose(request: Request) -> Expose:
    request.need("EXPOSE 80/tcp")
    words = split_spaces(request.statement.text, request.at)
    return Expose(source=request.statement.source, ports=tuple(word.text for word in words))


def _healthcheck(request: Request) -> Healthcheck:
    request.need("HEALTHCHECK CMD curl -f http://localhost/")
    statement = request.statement
    word = split_spaces(statement.text, request.at)[0]
    at = skip_spaces(statement.text, word.offset + len(word.text))
    kind = word.text.upper()
    if kind == "NONE":
        if statement.text[at:]:
            raise statement.fault(at, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck(source=statement.source, command=None)
    if kind != "CMD":
        raise statement.fault(word.offset, f"HEALTHCHECK knows no {word.text!r}", allowed=("CMD", "NONE"))
    command = request.command(at)
    if not any(command.argv):
        raise statement.fault(at, "HEALTHCHECK CMD needs a command")
    times = {}
    for flag in ("interval", "timeout", "start-period", "start-interval"):
        for value in request.flags.words(flag):
            try:
                times[flag.replace("-", "_") + "_ns"] = duration_ns(value.text)
            except ValueFault as err:
                raise statement.fault(value.offset, f"--{flag}: {err}") from None
    retries = request.flags.text("retries", "0")
    if not re.fullmatch(r"[0-9]{1,9}", retries):
        raise statement.fault(
            request.flags.offset("retries"), f"--retries={retries} isn't a number from 0 to 999999999"
        )
    return Healthcheck(source=statement.source, command=command, retries=int(retries), **times)


def _shell(request: Request) -> Shell:
    found = request.strings(request.at)
    if not found:
        raise request.statement.fault(request.at, 'SHELL needs a JSON array, as in SHELL ["/bin/bash", "-c"]')
    return Shell(source=request.statement.source, argv=found)


def _onbuild(request: Request) -> Onbuild:
    request.need("ONBUILD COPY . /app")
    word, _ = split_command(request.statement.text[request.at :])
    if word.text.upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        message = f"{word.text.upper()} can't be a trigger of ONBUILD"
        allowed = [name for name in _READERS if name not in ("ONBUILD", "FROM", "MAINTAINER")]
        raise request.statement.fault(request.at, message, allowed=allowed)
    trigger = _instruction(request.statement, request.at, request.escape, request.remarks)
    text = request.rest + "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in request.statement.heredocs)
    return Onbuild(source=request.statement.source, text=text, trigger=trigger)


_READERS: dict[str, Callable[[Request], Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
INSTRUCTIONS = tuple(_READERS)
