"""What a shared limiter asks and tells the store: the argument of ``quota.lua``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

REMEMBERED = 2.0
"""Seconds after which neither a call's outcome nor a refusal concerns the other processes any more."""
HOLD = 0.5
"""Seconds beyond its time for which a permit's slot stays taken when no process reports its outcome."""
SETTLE = 0.45
"""Seconds for which the store grants nothing after an outage, or after it has lost its data."""

Told = Callable[[], None]
"""To be called once the store has what was put into a request; until then it stays to be told."""


class Request(TypedDict, total=False):
    """The JSON object that ``quota.lua`` takes; all spans of time are microseconds, permits are decimal strings.

    A field without a value is left out, never null.
    """

    # In every request.
    limit: int
    """Slots: calls that the server allows in a second."""
    ceiling: float
    """Calls/s that may be let go while nothing is refused."""
    floor: float
    """Calls/s below which the adaptive rate never falls."""
    burst: float
    """Calls that may go at once after a while without any."""
    left_by_bulk: int
    """Slots that bulk leaves free."""
    lead: int
    """The caller's half of the credit."""
    hold: int
    settle: int

    # What is asked.
    lane: str
    """"interactive" or "bulk"."""
    wanted: int
    """Permits, at least 1."""
    budget: int
    """A permit that is due later than this is not granted."""

    # What is told.
    alone: bool
    """The caller used its fallback share until now."""
    called_lately: bool
    """The caller has sent a call within `REMEMBERED`."""
    pause: int
    """All processes pause for this long."""
    taken: float
    """The share of calls that the server takes, 0 to 1, by an alert."""
    refusals: int
    """Calls refused since the last request."""
    refused_ago: int
    """Since the last refused call was sent; present with ``taken`` and with ``refusals``."""
    answered: list[tuple[str, int]]
    """Permits, and how long ago their slot's second began."""
    unused: list[str]
    """Permits whose call was not sent."""
    in_flight: list[str]
    """Permits whose call has been under way for a while."""


class News:
    """What the other processes should learn at once, until the store has it."""

    __slots__ = ("_pause_until", "_refusals", "_refused_at", "_taken")

    def __init__(self) -> None:
        self._refusals = 0
        self._refused_at = -math.inf
        self._taken: float | None = None
        self._pause_until: float | None = None

    def __bool__(self) -> bool:
        return bool(self._refusals) or self._taken is not None or self._pause_until is not None

    def refused(self, sent: float) -> None:
        """The server refused a call sent at a loop time."""
        self._refusals += 1
        self._refused_at = max(self._refused_at, sent)

    def slow_down(self, taken: float, now: float) -> None:
        """An alert says that the server takes only a share, 0 to 1, of the calls."""
        self._taken = taken if self._taken is None else min(taken, self._taken)
        self._refused_at = now

    def pause(self, until: float) -> None:
        """Nothing may go before a loop time."""
        self._pause_until = max(self._pause_until or -math.inf, until)

    def tell(self, request: Request, now: float) -> Told:
        """Put it into a request."""
        if self._refused_at < now - REMEMBERED:  # from before an outage
            self._refusals, self._taken = 0, None
        refusals, taken, pause_until = self._refusals, self._taken, self._pause_until
        if refusals:
            request["refusals"] = refusals
        if taken is not None:
            request["taken"] = taken
        if refusals or taken is not None:
            request["refused_ago"] = micro(now - self._refused_at)
        if pause_until is not None and pause_until > now:
            request["pause"] = micro(pause_until - now)

        def told() -> None:
            self._refusals -= refusals
            if self._taken == taken:
                self._taken = None
            if self._pause_until == pause_until:
                self._pause_until = None

        return told


def terms(limit: float, bulk_share: float, *, strict: bool) -> Request:
    """The part of every request that follows from an endpoint's limit.

    Args:
        limit: calls/s that the server allows all processes together, at least 1.
        bulk_share: the part of it up to which bulk calls may fill it, above 0 and up to 1.
        strict: nothing beyond the limit, not even to catch up.
    """
    ceiling = limit * (1.0 if strict else 1.1)
    burst = max(4.0, limit / (50 if strict else 20))
    return {
        "limit": int(limit),
        "ceiling": ceiling,
        "burst": burst,
        "floor": 1.01 * ceiling / burst,
        "left_by_bulk": math.ceil((1.0 - bulk_share) * limit - 1e-6),
        "hold": micro(HOLD),
        "settle": micro(SETTLE),
    }


def micro(seconds: float) -> int:
    """A span of time as the store takes it, microseconds."""
    return round(seconds * 1e6)
