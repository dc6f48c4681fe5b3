"""One statement on its way to an instruction: its name, flags, and ways to read its arguments.

Source: Dockerfile reference, "Shell and exec form".
"""

from __future__ import annotations

from ..frozen import slotted
from .flags import Flags
from .instructions import CommandLine
from .lines import Statement
from .source import Remark
from .words import WHITESPACE, NotStrings, Word, json_strings, split_spaces


@slotted
class Request:
    """``at`` is where the arguments begin in the statement's text; oddities that docker accepts go to ``remarks``."""

    statement: Statement
    name: str
    at: int
    flags: Flags
    escape: str
    remarks: list[Remark]

    @property
    def rest(self) -> str:
        """The arguments as one string."""
        return self.statement.text[self.at :].strip(WHITESPACE)

    def need(self, what: str) -> None:
        """Refuses an instruction without arguments; ``what`` is an example of one with."""
        if not self.rest:
            raise self.statement.fault(self.at, f"{self.name} needs an argument, as in {what}")

    def strings(self, at: int) -> tuple[str, ...] | None:
        """The JSON array at ``at``, or None where there is none."""
        text = self.statement.text[at:]
        try:
            found = json_strings(text)
        except NotStrings:
            raise self.statement.fault(
                at, f"{self.name}: a JSON array here holds strings only, in double quotes"
            ) from None
        if found is None and text.startswith("[") and text.rstrip(WHITESPACE).endswith("]"):
            line = self.statement.source.first_line
            message = f"{self.name}: this looks like a JSON array and isn't one (double quotes?); taken as it stands"
            self.remarks.append(Remark(line, message))
        return found

    def command(self, at: int) -> CommandLine:
        """The exec or shell form at ``at``."""
        found = self.strings(at)
        if found is not None:
            return CommandLine(found, shell=False)
        return CommandLine((self.statement.text[at:].strip(WHITESPACE),), shell=True)

    def items(self) -> list[Word]:
        """A JSON array's strings, else what whitespace parts. A string's place is the array's."""
        found = self.strings(self.at)
        if found is not None:
            return [Word(item, self.at) for item in found]
        return split_spaces(self.statement.text, self.at)
