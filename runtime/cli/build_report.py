"""A build on the screen: one line for each step, what it writes below it, and of each miss why it is one.

Imports the standard library only; the events come from runtime/build.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

from .table import human_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from ..build.results import Event, Output, Step, StepStarted
    from ..images.image import PullEvent

_WIDTH = 100


class Report:
    """Called with each event of a build. ``quiet``: only what failed is shown, by the caller."""

    def __init__(
        self, out: IO[str], *, quiet: bool = False, pulling: Callable[[PullEvent], object] | None = None
    ) -> None:
        self._out = out
        self._quiet = quiet
        self._pulling = pulling
        self._decoders: dict[tuple[str, int, str], codecs.IncrementalDecoder] = {}
        self._open: dict[tuple[str, int, str], str] = {}
        self._started: dict[tuple[str, int], StepStarted] = {}
        self._begun: set[tuple[str, int]] = set()

    def __call__(self, event: Event) -> None:
        from ..build.results import Output, Pulling, Remarked, Step, StepStarted

        if self._quiet:
            return
        match event:
            case StepStarted():
                self._started[event.stage, event.number] = event
            case Step():
                self._step(event)
            case Output():
                self._output(event)
            case Pulling():
                if self._pulling is not None:
                    self._pulling(event.event)
            case Remarked():
                self._write(f"note: {printable(event.text)}\n")
        self._out.flush()

    def _write(self, text: str) -> None:
        self._out.write(text)

    def _title(self, event: Step | StepStarted | Output) -> str:
        return f"[{event.stage} {event.number}" if event.stage else f"[{event.number}"

    def _step(self, step: Step) -> None:
        self._end_output(step)
        title = f"{self._title(step)}/{step.count}]"
        text = one_line_of(step.instruction)
        facts = []
        if step.reason:
            facts.append(f"because {printable(step.reason)}")
        if step.size_bytes and not step.hit:
            facts.append(human_size(step.size_bytes))
        if not step.hit and step.seconds >= 0.05:
            facts.append(f"{step.seconds:.1f} s")
        if (step.stage, step.number) in self._begun:
            # Its title stands above what it wrote.
            self._write(f"{title} {step.status} {', '.join(facts)}\n")
            return
        self._write(f"{title} {step.status:4} {text}\n")
        if facts:
            self._write(f"{'':{len(title)}}      {', '.join(facts)}\n")

    def _output(self, event: Output) -> None:
        key = (event.stage, event.number, event.stream)
        decoder = self._decoders.setdefault(key, codecs.getincrementaldecoder("utf-8")("backslashreplace"))
        text = self._open.get(key, "") + decoder.decode(event.data)
        lines = text.split("\n")
        self._open[key] = lines.pop()
        for line in lines:
            self._line(event.stage, event.number, line)

    def _line(self, stage: str, number: int, line: str) -> None:
        if (stage, number) not in self._begun:
            self._begun.add((stage, number))
            started = self._started.get((stage, number))
            if started is not None:
                self._write(f"{self._title(started)}/{started.count}] run  {one_line_of(started.instruction)}\n")
        before = f"{stage} {number}" if stage else str(number)
        # A carriage return draws a line anew: what stands last is what would be seen.
        self._write(f"{before} | {printable(line.rstrip(chr(13)).rpartition(chr(13))[2])}\n")

    def _end_output(self, step: Step) -> None:
        for key in [key for key in self._open if key[:2] == (step.stage, step.number)]:
            rest = self._open.pop(key)
            if rest:
                self._line(step.stage, step.number, rest)


def one_line_of(instruction: str) -> str:
    """An instruction on one line: its continuation lines joined; of a heredoc, the first line that says something."""
    lines = [line.strip().removesuffix("\\").strip() for line in instruction.split("\n")]
    if "<<" in lines[0]:
        body = [line for line in lines[1:-1] if line and not line.startswith("#!")]
        text = f"{lines[0]} {body[0]}{' …' if len(body) > 1 else ''}" if body else lines[0]
    else:
        text = " ".join(line for line in lines if line and not line.startswith("#"))
    text = printable(text)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
