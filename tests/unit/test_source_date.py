"""Times in image configs are written as datetime writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from cellwall.runtime.describing import rfc3339 as shown
from cellwall.runtime.source_date import rfc3339

LAST = 253_402_300_799


@given(st.one_of(st.integers(0, LAST), st.floats(0, 1e11)))
@example(1.9999996)
@example(0.9999994)
@example(5e-7)
@example(0.123456)
def test_a_time_is_written_as_datetime_writes_it(seconds: float) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    digits = "seconds" if isinstance(seconds, int) else "microseconds"
    assert rfc3339(seconds) == moment.isoformat(timespec=digits).replace("+00:00", "Z")
    assert shown(seconds) == moment.isoformat().replace("+00:00", "Z")


def test_without_a_time_it_is_now() -> None:
    before = datetime.now(UTC)
    written = datetime.fromisoformat(rfc3339(None))
    assert before.replace(microsecond=0) <= written <= datetime.now(UTC)
