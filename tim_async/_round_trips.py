"""How long to wait for a store: learned from its round trips, as TCP learns its retransmission time-out (RFC 6298)."""

from __future__ import annotations

import asyncio
from types import TracebackType

SHORTEST, FIRST, LONGEST = 0.25, 1.0, 2.0
"""Seconds for one round trip: at least, before the first was measured, at most."""
_TRIPS = 8
"""Round trips to connect, with some to spare: name, TCP, TLS, AUTH, SELECT."""
_WORK = 0.25
"""Seconds for what both sides do while they connect, such as TLS.  With a tick of the limiter it is less than the time
for which a store grants nothing after an outage, so that whoever tried an old primary in vain is back in time."""
_BLOCKED = 0.05
"""Seconds by which an event loop that calls late was blocked."""
_SOON = 0.03
"""Seconds after which another connection may be tried, at least."""


class RoundTrips:
    """The time-outs of a store.

    Args:
        fixed: seconds for one round trip; None to learn it.
    """

    __slots__ = ("_deviation", "_fixed", "_smoothed")

    def __init__(self, fixed: float | None = None) -> None:
        self._fixed = fixed
        self._smoothed: float | None = None
        self._deviation = 0.0

    @property
    def smoothed(self) -> float | None:
        """Seconds of a round trip, smoothed; None before the first."""
        return self._smoothed

    @property
    def limit(self) -> float:
        """Seconds without an answer after which a store does not answer."""
        if self._fixed is not None:
            return self._fixed
        if self._smoothed is None:
            return FIRST
        return min(LONGEST, max(SHORTEST, self._usual, 2 * self._smoothed))

    @property
    def connecting(self) -> float:
        """Seconds to connect."""
        if self._fixed is not None:
            return _TRIPS * self._fixed
        return LONGEST if self._smoothed is None else _WORK + _TRIPS * self._smoothed

    @property
    def soon(self) -> float:
        """Seconds after which an answer does not come that usually does."""
        return FIRST / 10 if self._smoothed is None else min(self.limit, max(_SOON, self._usual))

    @property
    def late(self) -> float:
        """Seconds after which an answer is late, with some of `limit` left."""
        return max(self.soon, self.limit / 2)

    @property
    def most(self) -> float:
        """Seconds for a whole exchange, a second attempt included."""
        return 2 * (self.connecting + self.limit)

    def heard(self, seconds: float) -> None:
        """Learn from a round trip."""
        if self._smoothed is None:
            self.start_over(seconds)
            return
        self._deviation += (abs(seconds - self._smoothed) - self._deviation) / 4
        self._smoothed += (seconds - self._smoothed) / 8

    def start_over(self, seconds: float) -> None:
        """Learn from a round trip, and forget the earlier ones: the way is another."""
        self._smoothed, self._deviation = seconds, seconds / 2

    @property
    def _usual(self) -> float:
        """Seconds within which answers come."""
        assert self._smoothed is not None
        return self._smoothed + 4 * self._deviation


class Within:
    """As `asyncio.timeout`; but what arrived while the event loop itself was blocked is in time.

    Args:
        seconds: how long the block may take.
    """

    __slots__ = ("_due", "_loop", "_scope", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._scope.__aenter__()
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _expire(self) -> None:
        now = self._loop.time()
        if now > self._due + _BLOCKED:  # what has arrived is read before this is called again
            self._due = now + _BLOCKED
            self._timer = self._loop.call_at(self._due, self._expire)
        else:
            self._scope.reschedule(now)
