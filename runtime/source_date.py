"""SOURCE_DATE_EPOCH: the time that images made here have, so that the same input gives the same digests.

Source: reproducible-builds.org, SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime

from .errors import SpecError


def source_date_epoch(environment: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, or None. Raises SpecError where it isn't a number."""
    text = environment.get("SOURCE_DATE_EPOCH") or os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise SpecError("SOURCE_DATE_EPOCH", f"{text!r} isn't a number of seconds since 1970")
    return int(text)


def rfc3339(epoch: int | None) -> str:
    """The time of ``epoch``, or of now, as image configs have it."""
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(epoch, UTC)
    return moment.isoformat(timespec="microseconds" if epoch is None else "seconds").replace("+00:00", "Z")
