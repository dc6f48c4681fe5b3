"""SOURCE_DATE_EPOCH: the time that images made here have, so that the same input gives the same digests.

Source: reproducible-builds.org, SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from .errors import SpecError

# Of the year 9999, the last that RFC 3339 can write.
_LAST_SECOND = 253_402_300_799


def source_date_epoch(environment: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, or None. Raises SpecError where it isn't a number, or is after the year 9999."""
    text = environment.get("SOURCE_DATE_EPOCH") or os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise SpecError("SOURCE_DATE_EPOCH", f"{text!r} isn't a number of seconds since 1970")
    if len(text) > 20 or int(text) > _LAST_SECOND:
        raise SpecError("SOURCE_DATE_EPOCH", f"{text[:40]!r} is after the year 9999, which no image config can say")
    return int(text)


def rfc3339(seconds: float | None) -> str:
    """The time ``seconds`` after 1970 (None: now) as image configs have it: in whole seconds where it is an integer, as an epoch is."""
    if seconds is None:
        seconds = time.time()
    # As datetime rounds and writes it, whose import an unchanged build would pay for this alone.
    whole = int(seconds)
    more, micro = divmod(round((seconds - whole) * 1e6), 1_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole + more))
    return f"{moment}Z" if isinstance(seconds, int) else f"{moment}.{micro:06}Z"
