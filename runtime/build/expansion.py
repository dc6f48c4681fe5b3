"""Fills the variables of one instruction in, and checks what can only be judged then.

ADD, ARG, COPY, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR and the values of RUN --mount substitute; FROM does, by
``stages``; the rest is left to the shell in the container. Source: Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

from collections.abc import Callable

from ..frozen import frozen, replace
from .instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Instruction,
    Label,
    Mount,
    Run,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from .lines import Heredoc
from .mount_flag import MountFault, parse_mount
from .scope import Scope
from .source import Source
from .substitution import Substituted, SubstitutionError, substitute
from .values import ValueFault, check_checksum, check_mode, check_owner, check_signal, exposed_ports


@frozen
class Expanded:
    """An instruction ready to be carried out. ``used`` and ``unset`` name the variables that its text asked for."""

    instruction: Instruction
    used: frozenset[str]
    unset: frozenset[str]


def expand(instruction: Instruction, scope: Scope) -> Expanded:
    """``instruction`` with the variables of ``scope`` filled in. ARG and ENV take effect in ``scope``.

    Raises DockerfileError, at the word that can't be substituted or means nothing afterwards.
    """
    expander = _Expander(scope, instruction.source)
    done = expander.expanded(instruction)
    return Expanded(done, frozenset(expander.used), frozenset(expander.unset))


class _Expander:
    def __init__(self, scope: Scope, source: Source) -> None:
        self._scope = scope
        self._source = source
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def expanded(self, instruction: Instruction) -> Instruction:
        match instruction:
            case Arg():
                return replace(instruction, defaults=tuple(self._declare(*pair) for pair in instruction.defaults))
            case Env():
                # Every value sees what held before the instruction, also the second one on its line.
                pairs = self._pairs(instruction.pairs)
                for name, value in pairs:
                    self._scope.set_env(name, value)
                return replace(instruction, pairs=pairs)
            case Label():
                return replace(instruction, pairs=self._pairs(instruction.pairs))
            case Copy() | Add():
                return self._copied(instruction)
            case Run():
                return replace(instruction, mounts=tuple(self._mount(text) for text in instruction.mount_texts))
            case Workdir():
                return replace(instruction, path=self._filled(instruction.path, "WORKDIR"))
            case User():
                return replace(instruction, user=self._filled(instruction.user, "USER"))
            case Volume():
                return replace(instruction, paths=tuple(self._filled(path, "VOLUME") for path in instruction.paths))
            case Expose():
                return replace(instruction, ports=self._ports(instruction.ports))
            case Stopsignal():
                return replace(instruction, signal=self._checked(instruction.signal, check_signal))
        return instruction

    def _substituted(self, word: str, *, quotes: bool = True) -> Substituted:
        # A heredoc's body always has a backslash as its escape, as a shell's has.
        escape = self._scope.escape if quotes else "\\"
        try:
            found = substitute(word, self._scope.lookup, escape=escape, quotes=quotes)
        except SubstitutionError as err:
            raise self._source.fault(str(err), word, err.offset) from None
        self.used |= found.used
        self.unset |= found.unset
        return found

    def _text(self, word: str) -> str:
        return self._substituted(word).text

    def _filled(self, word: str, name: str) -> str:
        text = self._text(word)
        if not text.strip():
            raise self._source.fault(f"{name} is empty after substitution: {self._why(word)}", word)
        return text

    def _why(self, word: str) -> str:
        return f"{', '.join(sorted(self.unset))} isn't set" if self.unset else f"{word} holds nothing"

    def _checked(self, word: str, check: Callable[[str], None]) -> str:
        text = self._text(word)
        try:
            check(text)
        except ValueFault as err:
            raise self._source.fault(str(err), word, allowed=err.allowed) from None
        return text

    def _declare(self, name: str, default: str | None) -> tuple[str, str | None]:
        name = self._filled(name, "the name of an ARG")
        self._scope.declare(name, None if default is None else self._text(default))
        return name, self._scope.args[name]

    def _pairs(self, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return tuple((self._filled(name, "a name"), self._text(value)) for name, value in pairs)

    def _copied(self, instruction: Copy | Add) -> Copy | Add:
        done = replace(
            instruction,
            sources=tuple(self._filled(path, "a source") for path in instruction.sources),
            destination=self._filled(instruction.destination, "the destination"),
            files=tuple(self._file(heredoc) for heredoc in instruction.files),
            excludes=tuple(self._text(pattern) for pattern in instruction.excludes),
            chown=self._checked(instruction.chown, check_owner) if instruction.chown else "",
            chmod=self._checked(instruction.chmod, check_mode) if instruction.chmod else "",
        )
        if isinstance(done, Add) and done.checksum:
            done = replace(done, checksum=self._checked(done.checksum, check_checksum))
        several = len(done.sources) + len(done.files) > 1
        if several and done.destination.rpartition("/")[2] not in ("", ".", ".."):
            message = f"{done.name} of several sources needs a directory: its destination must end with /"
            raise self._source.fault(message, instruction.destination)
        return done

    def _file(self, heredoc: Heredoc) -> Heredoc:
        body = heredoc.body()
        if heredoc.expands:
            body = self._substituted(body, quotes=False).text
        return Heredoc(heredoc.name, body, expands=False)

    def _mount(self, text: str) -> Mount:
        try:
            mount = parse_mount(text, self._text)
        except MountFault as err:
            raise self._source.fault(f"--mount: {err}", text, allowed=err.allowed) from None
        assert mount is not None, "with an expander, parse_mount judges every text"
        return mount

    def _ports(self, words: tuple[str, ...]) -> tuple[str, ...]:
        ports: dict[str, None] = {}
        for word in words:
            for part in self._substituted(word).words:
                try:
                    ports.update(dict.fromkeys(exposed_ports(part)))
                except ValueFault as err:
                    raise self._source.fault(f"EXPOSE: {err}", word, allowed=err.allowed) from None
        return tuple(ports)
