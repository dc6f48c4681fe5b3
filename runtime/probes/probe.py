"""One answer of a probe, and what makes one. Imports nothing of the runtime."""

from __future__ import annotations

from typing import Literal

from ..frozen import asdict, frozen

Status = Literal["ok", "limited", "missing"]


@frozen
class Probe:
    """What this machine has of ``name``. ``detail`` says what was found, ``mend`` what brings what is missing ("": nothing)."""

    name: str
    status: Status
    detail: str
    mend: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


# What a probe's function returns: the name is the one it is listed under.
Answer = tuple[Status, str, str]


def ok(detail: str) -> Answer:
    return "ok", detail, ""


def limited(detail: str, mend: str = "") -> Answer:
    return "limited", detail, mend


def missing(detail: str, mend: str = "") -> Answer:
    return "missing", detail, mend
