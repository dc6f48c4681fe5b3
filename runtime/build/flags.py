"""The flags that stand between an instruction's name and its arguments.

Source: Dockerfile reference, "RUN", "COPY", "ADD", "FROM", "HEALTHCHECK".
"""

from __future__ import annotations

from .lines import Statement
from .source import did_you_mean
from .words import Word

# What each takes: a value, many values (the flag may be repeated), or a switch that may be given true or false.
VALUE, VALUES, SWITCH = "value", "values", "switch"
FLAGS: dict[str, dict[str, str]] = {
    "FROM": {"platform": VALUE},
    "RUN": {"mount": VALUES, "network": VALUE, "security": VALUE},
    "COPY": {
        "from": VALUE,
        "chown": VALUE,
        "chmod": VALUE,
        "link": SWITCH,
        "parents": SWITCH,
        "exclude": VALUES,
    },
    "ADD": {
        "chown": VALUE,
        "chmod": VALUE,
        "link": SWITCH,
        "exclude": VALUES,
        "checksum": VALUE,
        "keep-git-dir": SWITCH,
        "unpack": SWITCH,
    },
    "HEALTHCHECK": {
        "interval": VALUE,
        "timeout": VALUE,
        "start-period": VALUE,
        "start-interval": VALUE,
        "retries": VALUE,
    },
}


class Flags:
    """An instruction's flags, checked against what it knows. Raises DockerfileError for any other, repeated or empty one."""

    def __init__(self, statement: Statement, instruction: str, words: list[Word]) -> None:
        known = FLAGS.get(instruction, {})
        self._statement = statement
        self._given: dict[str, list[Word]] = {}
        for word in words:
            name, equals, value = word.text[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                hint = (
                    did_you_mean(name, known)
                    if known
                    else f": {instruction} has none, and arguments after -- may begin with --"
                )
                raise statement.fault(
                    word.offset, f"{instruction} has no flag --{name}{hint}", allowed=[f"--{flag}" for flag in known]
                )
            if kind != VALUES and name in self._given:
                raise statement.fault(word.offset, f"--{name} is given twice")
            if kind == SWITCH:
                value = value.lower() if equals else "true"
                if value not in ("true", "false"):
                    raise statement.fault(
                        word.offset, f"--{name}={value} isn't a switch's value", allowed=("true", "false")
                    )
            elif not value:
                raise statement.fault(word.offset, f"--{name} needs a value, as in --{name}=…")
            self._given.setdefault(name, []).append(Word(value, word.offset))

    def text(self, name: str, default: str = "") -> str:
        """The value of ``--name``."""
        return self._given[name][0].text if name in self._given else default

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """The value of ``--name``, which must be one of ``allowed``; the first of them is the default."""
        value = self.text(name, allowed[0])
        if value not in allowed:
            raise self._statement.fault(self.offset(name), f"--{name}={value} isn't known", allowed=allowed)
        return value

    def switch(self, name: str) -> bool:
        """Whether ``--name`` is on."""
        return self.text(name) == "true"

    def words(self, name: str) -> list[Word]:
        """Every value of ``--name``, in order."""
        return self._given.get(name, [])

    def offset(self, name: str) -> int:
        """Where ``--name`` stands."""
        return self._given[name][0].offset
