"""Restart policies: when a container is started again, and the delays between."""

from __future__ import annotations

import pytest

from cellwall.runtime.launcher.restarting import Restarts


def delays(policy: str, ends: list[tuple[int, float]], retries: int = 0) -> list[float | None]:
    restarts = Restarts({"name": policy, "retries": retries})
    return [restarts.next_delay(status, ran_s) for status, ran_s in ends]


@pytest.mark.parametrize(
    ("policy", "retries", "statuses", "started"),
    [
        ("no", 0, [1], [False]),
        ("always", 0, [0, 1, 137], [True] * 3),
        ("unless-stopped", 0, [0, 1], [True] * 2),
        ("on-failure", 0, [1, 1, 0], [True, True, False]),
        ("on-failure", 2, [1, 1, 1], [True, True, False]),
        ("on-failure", 1, [0], [False]),
    ],
)
def test_policies(policy: str, retries: int, statuses: list[int], started: list[bool]) -> None:
    assert [delay is not None for delay in delays(policy, [(s, 0.0) for s in statuses], retries)] == started


def test_delays_double_up_to_a_minute_and_begin_anew_after_ten_seconds() -> None:
    found = delays("always", [(0, 0.1)] * 12 + [(0, 10.0), (0, 9.9)])
    assert found == [pytest.approx(min(0.1 * 2**n, 60.0)) for n in range(12)] + [0.1, 0.2]


def test_who_was_asked_to_end_stays_ended() -> None:
    restarts = Restarts({"name": "always", "retries": 0})
    assert restarts.next_delay(1, 0.0) == 0.1
    restarts.held = True
    assert restarts.next_delay(1, 0.0) is None
    assert restarts.count == 1
