"""Signals as a person names them, read in one way: ``TERM``, ``SIGTERM``, ``15``, ``RTMIN+3``. Source: signal(7)."""

from __future__ import annotations

from .errors import SpecError


def signal_name(flag: str, text: str) -> str:
    """``TERM`` of ``SIGTERM``, ``term`` and ``15``; ``RTMIN+3`` as signal(7) has it. Raises SpecError for others."""
    import signal

    name = text.upper().removeprefix("SIG")
    if name.isdecimal() and 1 <= int(name[:4]) <= signal.SIGRTMAX:
        number = int(name)
        return signal.Signals(number).name.removeprefix("SIG") if number in set(signal.Signals) else name
    base, sign, extra = name.partition("+")
    if f"SIG{name}" in signal.Signals.__members__ or (
        base == "RTMIN" and sign and extra.isdecimal() and int(extra) <= signal.SIGRTMAX - signal.SIGRTMIN
    ):
        return name
    raise SpecError(flag, f"{text!r} isn't a signal; write its name or a number from 1 to {int(signal.SIGRTMAX)}")


def signal_number(flag: str, text: int | str) -> int:
    """The number of what ``signal_name`` reads. Raises SpecError."""
    import signal

    name = signal_name(flag, str(text))
    if name.isdecimal():
        return int(name)
    base, _, extra = name.partition("+")
    return int(signal.Signals[f"SIG{base}"]) + int(extra or 0)
