"""A whole Dockerfile: its directives, the ARGs before the first FROM, and its stages.

Source: Dockerfile reference, "Format", "Understand how ARG and FROM interact".
"""

from __future__ import annotations

from ..frozen import frozen
from .instructions import Arg, From, Instruction
from .lines import Directives, cut
from .parser import parse_statement
from .source import Remark, Source


@frozen
class Stage:
    """A FROM and what follows it. ``index`` counts from 0, as ``COPY --from=0`` does."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name after AS, or the index as text."""
        return self.base.stage or str(self.index)


@frozen
class Dockerfile:
    """``global_args`` stand before the first FROM and reach the FROM lines, and a stage only by an ARG of its own."""

    directives: Directives
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    remarks: tuple[Remark, ...] = ()


def parse(text: str | bytes) -> Dockerfile:
    """The Dockerfile that ``text`` is. Bytes that aren't UTF-8 are kept, as surrogates (PEP 383).

    Raises DockerfileError, which is a BuildError, for everything that can be told without building.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    lines = cut(text)
    remarks = list(lines.remarks)
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    names: set[str] = set()
    for statement in lines.statements:
        instruction = parse_statement(statement, lines.directives.escape, remarks)
        if isinstance(instruction, From):
            if instruction.stage and instruction.stage in names:
                message = f"a second stage is named {instruction.stage!r}: later uses mean this one"
                remarks.append(Remark(instruction.source.first_line, message))
            names.add(instruction.stage)
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            message = f"{instruction.name} stands before the first FROM"
            raise statement.fault(0, message, allowed=("ARG", "FROM"))
    if not stages:
        raise global_args[-1].source.fault("the Dockerfile has no FROM: after ARG, one must follow, as in FROM debian")
    return Dockerfile(
        lines.directives,
        tuple(global_args),
        tuple(Stage(index, base, tuple(inside)) for index, (base, inside) in enumerate(stages)),
        tuple(sorted(remarks, key=lambda remark: remark.line)),
    )


def parse_trigger(text: str) -> Instruction:
    """The instruction of one entry of an image config's ``OnBuild``. Raises DockerfileError.

    A trigger carries its heredocs; its lines count from 1 within itself. The escape is a backslash, whatever it was where ONBUILD
    stands: a config doesn't tell.
    """
    lines = cut(text)
    first = lines.statements[0]
    if len(lines.statements) > 1:
        raise lines.statements[1].fault(0, "an ONBUILD trigger is one instruction")
    instruction = parse_statement(first, lines.directives.escape, [])
    if instruction.name in ("FROM", "MAINTAINER", "ONBUILD"):
        raise first.fault(0, f"{instruction.name} can't be a trigger of ONBUILD")
    return instruction


def instruction_source(text: str, line: int = 1) -> Source:
    """A source for an instruction that no file holds (a cell's, a trigger's)."""
    return Source(text, line, line + text.count("\n"))
