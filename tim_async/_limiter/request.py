"""What a shared limiter asks and tells the store: the argument of ``quota.lua``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

REMEMBERED = 2.0
"""Seconds after which a refusal does not concern the other processes any more."""
SETTLE = 0.45
"""Seconds for which the store grants nothing after an outage, so that all processes can find it again; more where it is
far away."""

Told = Callable[[], None]
"""To be called once the store has what was put into a request; until then it stays to be told."""


class Request(TypedDict, total=False):
    """The JSON object that ``quota.lua`` takes; all spans of time are microseconds.

    A field without a value is left out, never null.  A request may be lost, repeated or overtaken by a later one
    without harm: its number tells, and ``out`` is no difference.
    """

    # In every request: who asks.
    id: str
    number: int
    """Of this request, from 1 on."""
    heard: int
    """Number of the last request whose reply came; 0 for none."""
    heard_ago: int
    """Since that reply came."""
    round_trip: int
    """Typical time to the store and back."""
    at: str
    """The fleet's clock when this was sent, as far as the caller can tell; left out to let spans of time begin when
    this arrives, which is never too early."""
    epoch: str
    """As in the last reply; "0" before the first."""

    # In every request: by what is granted.
    limit: float
    """Calls/s that the service allows all processes together."""
    binding: bool
    """Whether that holds for the other processes, too; else it is what this one takes at most."""
    strict: bool
    bulk_share: float
    """The part of the limit beyond which bulk is granted nothing."""
    lead: int
    """The caller's half of the credit."""
    settle: int
    horizon: int
    """Nothing is granted that is due later than this."""

    # What is asked.
    lane: str
    """"interactive" or "bulk"."""
    wanted: int
    """Permits, at least 1."""
    budget: int
    """A permit that is due later than this is not waited for."""

    # What is told.
    out: int
    """Permits in hand and calls under way, in every request."""
    freed: list[tuple[int, int, int]]
    """Calls that have ended: the number of the request that told first, the time from which they no longer count, and
    how many."""
    alone: bool
    """The caller used its fallback share until now."""
    called_lately: bool
    """The caller has made calls that still count."""
    leaving: bool
    """The caller will not come back."""
    pause: int
    """All processes pause for this long."""
    accepted: float
    """The share of calls that the server accepts, 0 to 1, by an alert."""
    refusals: int
    """Calls refused since the last request."""
    refused_ago: int
    """Since the last refused call was sent; present with ``accepted`` and with ``refusals``."""


class News:
    """What the other processes should learn at once, until the store has it."""

    __slots__ = ("_accepted", "_pause_until", "_refusals", "_refused_at")

    def __init__(self) -> None:
        self._refusals = 0
        self._refused_at = -math.inf
        self._accepted: float | None = None
        self._pause_until: float | None = None

    def __bool__(self) -> bool:
        return bool(self._refusals) or self._accepted is not None or self._pause_until is not None

    def refused(self, sent: float) -> None:
        """The server refused a call sent at a loop time."""
        self._refusals += 1
        self._refused_at = max(self._refused_at, sent)

    def slow_down(self, accepted: float, now: float) -> None:
        """An alert says that the server accepts only a share, 0 to 1, of the calls."""
        self._accepted = accepted if self._accepted is None else min(accepted, self._accepted)
        self._refused_at = now

    def pause(self, until: float) -> None:
        """Nothing may go before a loop time."""
        self._pause_until = max(self._pause_until or -math.inf, until)

    def tell(self, request: Request, now: float) -> Told:
        """Put it into a request."""
        if self._refused_at < now - REMEMBERED:  # from before an outage
            self._refusals, self._accepted = 0, None
        refusals, accepted, pause_until = self._refusals, self._accepted, self._pause_until
        if refusals:
            request["refusals"] = refusals
        if accepted is not None:
            request["accepted"] = accepted
        if refusals or accepted is not None:
            request["refused_ago"] = micro(now - self._refused_at)
        if pause_until is not None and pause_until > now:
            request["pause"] = micro(pause_until - now)

        def told() -> None:
            self._refusals -= refusals
            if self._accepted == accepted:
                self._accepted = None
            if self._pause_until == pause_until:
                self._pause_until = None

        return told


def micro(seconds: float) -> int:
    """A span of time as the store takes it, microseconds."""
    return round(seconds * 1e6)
