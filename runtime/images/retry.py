"""When a registry is asked again, and after how long.

Source: RFC 9110 section 10.2.3 (Retry-After), distribution-spec error codes (429 TOOMANYREQUESTS).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from ..errors import RegistryError
from .settings import Patience
from .transport import certificate_failed

if TYPE_CHECKING:
    import httpx

_BUSY = (408, 425, 429, 500, 502, 503, 504)


class Busy(Exception):
    """An answer that another try may better; ``wait_s`` is what Retry-After asks for, None where it doesn't."""

    def __init__(self, status: int, wait_s: float | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s


class Truncated(Exception):
    """The body ended before all of it had come."""


def busy(response: httpx.Response) -> Busy | None:
    """The Busy that ``response`` stands for, or None where it is worth reading."""
    status = response.status_code
    if status not in _BUSY:
        return None
    wait_s = retry_after(response.headers.get("retry-after", ""))
    return Busy(status, wait_s, "too many requests" if status == 429 else f"the server answered {status}")


def retry_after(text: str) -> float | None:
    """Seconds to wait, from a number or a date; None where it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


class Attempts:
    """The tries of one request. ``failed`` waits before the next, or raises the RegistryError that ends it."""

    def __init__(self, patience: Patience, what: str, url: str, retrying: Callable[[str], object]) -> None:
        self._patience = patience
        self._what = what
        self._url = url
        self._retrying = retrying
        self._count = 0

    def moved_on(self) -> None:
        """The last try brought something: the counting begins again."""
        self._count = 0

    async def failed(self, err: Exception) -> None:
        """Waits as ``err`` and the number of tries ask for. Raises RegistryError where it was the last one."""
        self._count += 1
        import httpx

        connecting = isinstance(err, httpx.ConnectError | httpx.ConnectTimeout)
        limit = self._patience.connect_attempts if connecting else self._patience.attempts
        status = err.status if isinstance(err, Busy) else 0
        asked = err.wait_s if isinstance(err, Busy) else None
        too_long = asked is not None and asked > self._patience.retry_after_limit_s
        if self._count >= limit or too_long or certificate_failed(err):
            raise RegistryError(self._url, status, f"{self._what}: {_sentence(err, self._count, asked)}") from err
        doubled = self._patience.backoff_s * 2 ** (self._count - 1)
        # A little chance, so that many clients that failed together don't come back together.
        wait_s = min(doubled, self._patience.backoff_limit_s) * random.uniform(0.75, 1.25)
        wait_s = max(wait_s, asked or 0.0)
        self._retrying(f"{_cause(err)}; try {self._count + 1} of {limit} in {wait_s:.1f} s")
        await asyncio.sleep(wait_s)


def _cause(err: Exception) -> str:
    import httpx

    if isinstance(err, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(err, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(err, httpx.ConnectError):
        return f"no connection ({_without_number(str(err)).lower() or 'refused'})"
    if isinstance(err, httpx.TransportError):
        return f"the connection broke ({str(err).lower().rstrip('.') or type(err).__name__})"
    return str(err)


def _without_number(text: str) -> str:
    """``[Errno -2] Name or service not known`` without its number, which tells a reader nothing."""
    return re.sub(r"^\[Errno -?\d+\] ", "", text)


def _sentence(err: Exception, count: int, asked: float | None) -> str:
    import httpx

    tries = f" after {count} tries" if count > 1 else ""
    if isinstance(err, Busy) and err.status == 429:
        when = f"; it asks to come back in {asked:.0f} s" if asked else "; come back later or log in"
        return f"too many requests{tries}{when}"
    if isinstance(err, httpx.ConnectError | httpx.ConnectTimeout):
        return f"{_cause(err)}{tries}; check the name, the network and that the registry runs"
    return f"{_cause(err)}{tries}; try again later"
