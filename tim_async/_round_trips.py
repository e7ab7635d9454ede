"""How long to wait for a store: learned from its round trips, as TCP learns its retransmission time-out (RFC 6298)."""

from __future__ import annotations

SHORTEST, FIRST, LONGEST = 0.25, 1.0, 2.0
"""Seconds for one round trip: at least, before the first was measured, at most."""
_TRIPS = 8
"""Round trips to connect, with some to spare: name, TCP, TLS, AUTH, SELECT."""
_WORK = 0.4
"""Seconds for what both sides do while they connect, such as TLS."""
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
