"""Whether a container that has ended is started again, and after how long: docker's restart policies.

Source: docs.docker.com/engine/containers/start-containers-automatically; moby daemon/restartmanager.go for the delays.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIRST_S = 0.1
LONGEST_S = 60.0
# A container that ran for so long has started well: the next delay is the first again.
SETTLED_S = 10.0


class Restarts:
    """The policy ``{"name": no|on-failure|always|unless-stopped, "retries": n}`` of one container, and what it has done so far."""

    def __init__(self, policy: dict[str, Any]) -> None:
        self.policy = policy
        self.count = 0
        self._delay_s = 0.0
        # Somebody asked it to end.
        self.held = False

    def next_delay(self, status: int, ran_s: float) -> float | None:
        """Seconds to wait before the next start, or None where there is none. ``count`` counts it."""
        if ran_s >= SETTLED_S:
            self._delay_s = 0.0
        name, retries = self.policy.get("name", "no"), self.policy.get("retries", 0)
        if self.held:
            return None
        if name == "on-failure":
            if status == 0 or (retries and self.count >= retries):
                return None
        elif name not in ("always", "unless-stopped"):
            return None
        self.count += 1
        self._delay_s = min(self._delay_s * 2, LONGEST_S) if self._delay_s else FIRST_S
        return self._delay_s
