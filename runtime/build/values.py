"""Values inside instructions: durations, ports, signals, file modes, checksums, and kinds of ADD sources.

Source: Dockerfile reference, "HEALTHCHECK", "EXPOSE", "STOPSIGNAL", "COPY --chown --chmod", "ADD"; Go's time.ParseDuration.
"""

from __future__ import annotations

import re
import signal

_DURATION = r"(?a)([0-9]{0,15})(?:\.([0-9]{0,15}))?(ns|us|µs|μs|ms|s|m|h)"
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
# The engine's API refuses shorter ones, and stores the rest in 64 bits.
_MINIMUM_NS = 1_000_000
_MAXIMUM_NS = 1 << 63

_PORTS = r"(?a)([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-zA-Z]+))?"
PROTOCOLS = ("tcp", "udp", "sctp")
_MODE = r"(?a)[0-7]{1,5}|[ugoa]*(?:[-+=][rwxXst]*)+(?:,[ugoa]*(?:[-+=][rwxXst]*)+)*"
_CHOWN = r"[^:\s]+(?::[^:\s]+)?"
_CHECKSUM = {"sha256": 64, "sha384": 96, "sha512": 128}
_GIT = r"(?a)git://.+|ssh://.+|git@[^:/]+:.+|https?://[^#?]+\.git/?(?:[?#].*)?|github\.com/.+"
_REALTIME = r"(?a)RTM(?:IN(?:\+([0-9]{1,2}))?|AX(?:-([0-9]{1,2}))?)"


class ValueFault(ValueError):
    """A value can't be read; ``allowed`` holds what could stand there."""

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


def duration_ns(text: str) -> int:
    """``1m30s`` in ns. 0 stands for docker's default; else at least 1 ms. Raises ValueFault."""
    if text == "0":
        return 0
    at, total = 0, 0
    while at < len(text):
        found = re.compile(_DURATION).match(text, at)
        if found is None or not (found[1] or found[2]):
            break
        unit = _UNITS_NS[found[3]]
        total += int(found[1] or 0) * unit + int(found[2] or 0) * unit // 10 ** len(found[2] or "")
        at = found.end()
    if not text or at < len(text) or total >= _MAXIMUM_NS:
        raise ValueFault(f"{text!r} isn't a duration, as in 30s or 1m30s")
    if 0 < total < _MINIMUM_NS:
        raise ValueFault(f"{text} is shorter than 1ms")
    return total


def exposed_ports(text: str) -> tuple[str, ...]:
    """``8000-8002/udp`` as one ``port/protocol`` each. Raises ValueFault."""
    found = re.fullmatch(_PORTS, text)
    if found is None:
        raise ValueFault(f"{text!r} isn't a port, as in 80, 53/udp or 8000-8010")
    first, protocol = int(found[1]), (found[3] or "tcp").lower()
    last = int(found[2] or first)
    if protocol not in PROTOCOLS:
        raise ValueFault(f"{found[3]!r} isn't a protocol of a port", PROTOCOLS)
    if not 0 < first <= last < 65536:
        raise ValueFault(f"{text!r} isn't a port or a range of ports from 1 to 65535")
    return tuple(f"{port}/{protocol}" for port in range(first, last + 1))


def check_signal(text: str) -> None:
    """Refuses what names no signal: a number, or a name with or without SIG, as RTMIN+3. Raises ValueFault."""
    if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII):
        if 0 < int(text) <= signal.SIGRTMAX:
            return
    else:
        name = text.upper().removeprefix("SIG")
        if f"SIG{name}" in signal.Signals.__members__:
            return
        realtime = re.fullmatch(_REALTIME, name)
        if realtime and int(realtime[1] or realtime[2] or 0) <= signal.SIGRTMAX - signal.SIGRTMIN:
            return
    raise ValueFault(f"{text!r} isn't a signal, as in SIGTERM, INT or 9")


def check_mode(text: str) -> None:
    """Refuses what isn't a file mode, octal or symbolic (``u=rwX,go=rX``). Raises ValueFault."""
    if not re.fullmatch(_MODE, text) or (text.isdigit() and int(text, 8) > 0o7777):
        raise ValueFault(f"{text!r} isn't a mode, as in 0644 or u=rwX,go=rX")


def check_owner(text: str) -> None:
    """Refuses what isn't ``user[:group]``, by name or by id. Raises ValueFault."""
    if not re.fullmatch(_CHOWN, text):
        raise ValueFault(f"{text!r} isn't an owner, as in user, user:group or 1000:1000")


def check_checksum(text: str) -> None:
    """Refuses what isn't a digest (or, for git, a commit). Raises ValueFault."""
    algorithm, colon, encoded = text.partition(":")
    if colon:
        digits, sizes = encoded, range(_CHECKSUM.get(algorithm, 0), _CHECKSUM.get(algorithm, 0) + 1)
    else:
        digits, sizes = text, range(7, 65)
    if not re.fullmatch(r"[0-9a-f]+", digits) or len(digits) not in sizes:
        raise ValueFault(f"{text!r} isn't a checksum, as in sha256: and 64 digits")


def source_kind(text: str) -> str:
    """What an ADD source is: ``git``, ``url``, or ``path`` in the context. Source: Dockerfile reference, "ADD"."""
    if re.fullmatch(_GIT, text):
        return "git"
    return "url" if re.match(r"https?://", text) else "path"
