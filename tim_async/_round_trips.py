"""The time-outs of a store, learned from its round trips as TCP learns its retransmission time-out (RFC 6298)."""

from __future__ import annotations

import asyncio
from types import TracebackType

SHORTEST, FIRST, LONGEST = 0.25, 1.0, 2.0
"""The time-out of a round trip, seconds: the smallest, the one before the first measurement, the largest."""
_TRIPS = 8
"""Round trips to connect, with some to spare: name, TCP, TLS, AUTH, SELECT."""
_WORK = 0.25
"""Seconds of computation while connecting, such as for TLS.  With a tick of the limiter they are less than the time for
which a store grants nothing after an outage, so that a process that tried an old primary reconnects in time."""
_BLOCKED = 0.05
"""Seconds of delay of a timer that show a blocked event loop."""
_SOON = 0.03
"""The smallest value of `RoundTrips.soon`, seconds."""


class RoundTrips:
    """The time-outs of a store.

    Args:
        fixed: seconds for one round trip; None to learn it.
    """

    def __init__(self, fixed: float | None = None) -> None:
        self._fixed = fixed
        self._smoothed: float | None = None
        self._deviation = 0.0

    @property
    def limit(self) -> float:
        """The time-out of an answer, seconds."""
        if self._fixed is not None:
            return self._fixed
        if self._smoothed is None:
            return FIRST
        return min(LONGEST, max(SHORTEST, self._usual, 2 * self._smoothed))

    @property
    def connecting(self) -> float:
        """The time-out of connecting, seconds."""
        if self._fixed is not None:
            return _TRIPS * self._fixed
        return LONGEST if self._smoothed is None else _WORK + _TRIPS * self._smoothed

    @property
    def soon(self) -> float:
        """Seconds within which answers usually come; after that, another connection may be tried."""
        return FIRST / 10 if self._smoothed is None else min(self.limit, max(_SOON, self._usual))

    @property
    def late(self) -> float:
        """Seconds after which an answer is late, although within `limit`."""
        return max(self.soon, self.limit / 2)

    @property
    def most(self) -> float:
        """The time-out of a whole exchange with its second attempt, seconds."""
        return 2 * (self.connecting + self.limit)

    def heard(self, seconds: float) -> None:
        """Learn from a round trip."""
        if self._smoothed is None:
            self.start_over(seconds)
            return
        self._deviation += (abs(seconds - self._smoothed) - self._deviation) / 4
        self._smoothed += (seconds - self._smoothed) / 8

    def start_over(self, seconds: float) -> None:
        """Learn from a round trip on a new route, and forget the earlier ones."""
        self._smoothed, self._deviation = seconds, seconds / 2

    @property
    def _usual(self) -> float:
        """Seconds within which nearly all answers come."""
        assert self._smoothed is not None
        return self._smoothed + 4 * self._deviation


class Within:
    """A variant of `asyncio.timeout` that accepts data which arrived while the event loop itself was blocked.

    Args:
        seconds: the time-out of the block.
    """

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
        if now > self._due + _BLOCKED:  # the loop reads data that has arrived before it calls this again
            self._due = now + _BLOCKED
            self._timer = self._loop.call_at(self._due, self._expire)
        else:
            self._scope.reschedule(now)
