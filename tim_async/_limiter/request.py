"""The request of a shared limiter to the store: the argument of ``quota.lua``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

REFUSAL_LIFETIME = 2.0
"""Seconds after which a refusal no longer concerns the other processes."""
SETTLE = 0.45
"""Seconds for which the store grants nothing after an outage, so that all processes can reconnect; more where it is far
away."""

Acknowledge = Callable[[], None]
"""Removes the events of a request from `PendingEvents`; to be called once the store has replied to the request."""


class Request(TypedDict, total=False):
    """The JSON object that ``quota.lua`` takes; all durations are microseconds.

    A field without a value is left out, never null.  A request may be lost, repeated or overtaken by a later one
    without harm: it is numbered, and ``out`` is a total.
    """

    # In every request: the member, and the state of its exchanges.
    id: str
    number: int
    """Number of this request, from 1 on."""
    heard: int
    """Number of the last request whose reply came; 0 for none."""
    heard_ago: int
    """Time since that reply came."""
    round_trip: int
    """Typical round trip to the store."""
    at: str
    """The fleet's clock when this was sent, as estimated by the member; left out to let durations begin when this
    arrives, which is never too early."""
    epoch: str
    """The epoch of the last reply; "0" before the first."""

    # In every request: the terms of the grant.
    limit: float
    """Calls/s that the service allows all processes together."""
    binding: bool
    """Whether that limit binds the other processes, too; otherwise it is a maximum for this one."""
    strict: bool
    bulk_share: float
    """The part of the limit beyond which bulk is granted nothing."""
    lead: int
    """The member's half of the credit."""
    settle: int
    """Time for which nothing is granted after an outage."""
    horizon: int
    """Time from now until which a granted permit must be due."""

    # The permits requested.
    lane: str
    """"interactive" or "bulk"."""
    wanted: int
    """Number of permits, at least 1."""
    budget: int
    """Time until the deadline of the first call that waits; left out without one."""

    # The report.
    out: int
    """Number of unused permits and calls under way, in every request."""
    freed: list[tuple[int, int, int]]
    """Calls that have ended: the number of the request that reported them first, the time until which they count, and
    their number."""
    alone: bool
    """The member used its fallback share until now."""
    called_lately: bool
    """The member has made calls that still count."""
    leaving: bool
    """The member will send no further calls."""
    pause: int
    """Time for which all processes pause."""
    accepted: float
    """The share of calls that the server accepts, 0 to 1, by an alert."""
    refusals: int
    """Calls refused since the last request."""
    refused_ago: int
    """Time since the last refused call was sent; present with ``accepted`` and with ``refusals``."""


class PendingEvents:
    """The refusals, alerts and pauses that the other processes must learn of, until the store has them."""

    def __init__(self) -> None:
        self._refusals = 0
        self._refused_at = -math.inf
        self._accepted: float | None = None
        self._pause_until = -math.inf

    def __bool__(self) -> bool:
        return bool(self._refusals) or self._accepted is not None or self._pause_until > -math.inf

    def refused(self, sent: float) -> None:
        """Add the refusal of a call sent at a loop time."""
        self._refusals += 1
        self._refused_at = max(self._refused_at, sent)

    def slow_down(self, accepted: float, now: float) -> None:
        """Add an alert: the server accepts only a share, 0 to 1, of the calls."""
        self._accepted = accepted if self._accepted is None else min(accepted, self._accepted)
        self._refused_at = now

    def pause(self, until: float) -> None:
        """Add a pause until a loop time."""
        self._pause_until = max(self._pause_until, until)

    def report(self, request: Request, now: float) -> Acknowledge:
        """Put the events into a request."""
        if self._refused_at < now - REFUSAL_LIFETIME:  # from before an outage
            self._refusals, self._accepted = 0, None
        refusals, accepted, pause_until = self._refusals, self._accepted, self._pause_until
        if refusals:
            request["refusals"] = refusals
        if accepted is not None:
            request["accepted"] = accepted
        if refusals or accepted is not None:
            request["refused_ago"] = micro(now - self._refused_at)
        if pause_until > now:
            request["pause"] = micro(pause_until - now)

        def acknowledge() -> None:
            self._refusals -= refusals
            if self._accepted == accepted:
                self._accepted = None
            if self._pause_until == pause_until:
                self._pause_until = -math.inf

        return acknowledge


def micro(seconds: float) -> int:
    """Convert seconds to whole microseconds, the store's unit."""
    return round(seconds * 1e6)
