"""What the store replies to a shared limiter, and what the limiter learns from it."""

from __future__ import annotations

import json
import math
from typing import NamedTuple


class Reply(NamedTuple):
    """The JSON object that ``quota.lua`` returns.  It has microseconds and leaves out what is 0 or absent.

    Attributes:
        rate: calls/s that all processes let go together at most.
        cuts: how often the adaptive rate was cut so far.
        opens: seconds until the end of the pause.
        settling: seconds until the store begins to grant.
        slot_bound: a permit is due later than the rate alone would have it, because no slot was free.
        over: seconds until a permit that was not granted because that exceeds the budget.
        permits: number, and seconds until it is due, of each permit granted.
    """

    rate: float
    cuts: int
    opens: float = 0.0
    settling: float = 0.0
    slot_bound: bool = False
    over: float = 0.0
    permits: tuple[tuple[int, float], ...] = ()


def read_reply(data: object) -> Reply:
    """Read what the store answered to ``quota.lua``.

    Raises:
        ValueError: the script did not write this.
    """
    try:
        fields = json.loads(data)  # type: ignore[arg-type]  # it raises TypeError for what is no text
        reply = Reply(
            rate=float(fields["rate"]),
            cuts=int(fields["cuts"]),
            opens=fields["opens"] / 1e6,
            settling=fields.get("settling", 0) / 1e6,
            slot_bound=bool(fields.get("slot_bound")),
            over=fields.get("over", 0) / 1e6,
            permits=tuple((int(number), wait / 1e6) for number, wait in fields.get("permits", ())),
        )
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError("the store's reply is not that of quota.lua") from error
    spans = (reply.opens, reply.settling, reply.over, *(wait for _, wait in reply.permits))
    if not 0 < reply.rate < math.inf or not all(map(math.isfinite, spans)):
        raise ValueError("the store's reply has a rate or a time that cannot be")
    return reply


class StoreView:
    """What a process knows of the quota from the store's replies.

    Args:
        limit: calls/s.
        ceiling: calls/s at first.

    Attributes:
        rate: calls/s that all processes let go together at most.
        round_trip: smoothed time to the store and back, seconds.
        saturated: the last permits had to wait for a slot.
        not_before: loop time before which no permit is due, as far as the store said so.
    """

    __slots__ = ("_cuts", "_heard_at", "_interval", "_limit", "not_before", "rate", "round_trip", "saturated")

    def __init__(self, limit: float, ceiling: float) -> None:
        self._limit = limit
        self.rate = ceiling
        self.round_trip = 0.0
        self.saturated = False
        self.not_before = -math.inf
        self._heard_at = -math.inf
        self._cuts: int | None = None
        self._interval = 1.0 / limit

    def set_limit(self, limit: float, ceiling: float) -> None:
        """Change the limit and the ceiling, calls/s, until the next reply tells more."""
        self._limit = limit
        self.rate = min(ceiling, self.rate)
        self.not_before = -math.inf

    def hear(self, reply: Reply, asked: float, now: float) -> bool:
        """Take a reply in; returns whether the fleet's rate has been cut since the last one."""
        self._heard_at = now
        self.round_trip += 0.2 * (now - asked - self.round_trip)
        self.rate = reply.rate
        self.not_before = now + reply.over
        if reply.permits:
            self.saturated = reply.slot_bound
            interval = max(1.0 / self.rate, reply.permits[-1][1] / len(reply.permits))
            self._interval += 0.3 * (interval - self._interval)
        cut = self._cuts is not None and reply.cuts > self._cuts
        self._cuts = reply.cuts
        return cut

    def pace(self, now: float) -> float:
        """Calls/s that this process can expect: what it had of late, or all there are when no other process asks."""
        rate = min(self._limit, self.rate)
        return rate if now > self._heard_at + 1.0 else min(rate, 1.0 / self._interval)
