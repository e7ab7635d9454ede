"""The store's reply to a shared limiter, and the limiter's view of the quota."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

from tim_async._lanes import Lane


class Reply(NamedTuple):
    """The JSON object that ``quota.lua`` returns; there, times are microseconds, and what is 0 or absent is left out.

    Attributes:
        number: the request's number; that of a later request where this one came too late, without other fields.
        epoch: the store's epoch; a new one shows that it has lost its data.
        now: the fleet's clock, seconds.
        limit: calls/s that the service allows, as agreed by all processes.
        rate: the adaptive rate of all processes together, calls/s.
        cuts: number of times that refusals at the limit have cut the rate.
        members: number of members.
        place: number of members that joined before this one.
        opens: seconds until the end of the pause.
        settling: seconds until the store begins to grant.
        slot_bound: whether a permit is due later than by the rate alone, because no slot was free.
        again: seconds after which to ask again, where nothing is granted.
        over: whether that exceeds the budget, so that the member has no place in the queue.
        permits: the permits granted, the soonest first: seconds until due, and number.
    """

    number: int
    epoch: str = "0"
    now: float = 0.0
    limit: float = 1.0
    rate: float = 1.0
    cuts: int = 0
    members: int = 1
    place: int = 0
    opens: float = 0.0
    settling: float = 0.0
    slot_bound: bool = False
    again: float = 0.0
    over: bool = False
    permits: tuple[tuple[float, int], ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the request came too late, so that the reply has no other fields."""
        return self.epoch == "0"


def read_reply(data: object) -> Reply:
    """Read a reply of ``quota.lua``.

    Raises:
        ValueError: it is not one.
    """
    try:
        fields = json.loads(data)  # type: ignore[arg-type]  # raises TypeError unless it is text
        if "epoch" not in fields:
            return Reply(int(fields["number"]))
        reply = Reply(
            number=int(fields["number"]),
            epoch=str(fields["epoch"]),
            now=float(fields["now"]) / 1e6,
            limit=float(fields["limit"]),
            rate=float(fields["rate"]),
            cuts=int(fields["cuts"]),
            members=int(fields["members"]),
            place=int(fields["place"]),
            opens=fields.get("opens", 0) / 1e6,
            settling=fields.get("settling", 0) / 1e6,
            slot_bound=bool(fields.get("slot_bound")),
            again=fields.get("again", 0) / 1e6,
            over=bool(fields.get("over")),
            permits=tuple((wait / 1e6, int(count)) for wait, count in fields.get("permits", ())),
        )
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError("the store's reply is not that of quota.lua") from error
    spans = (reply.now, reply.opens, reply.settling, reply.again, *(wait for wait, _ in reply.permits))
    if not (0 < reply.rate < math.inf and 0 < reply.limit < math.inf) or not all(map(math.isfinite, spans)):
        raise ValueError("the store's reply has an impossible rate or time")
    return reply


class StoreView:
    """A process's view of the quota, updated from the store's replies.

    Args:
        limit: the limit before the first reply, calls/s.

    Attributes:
        limit: calls/s that the service allows, as agreed by all processes.
        rate: the adaptive rate of all processes together, calls/s.
        members: the largest number of members in the last minute, since after a loss of data the store learns of them
            one by one.
        phase: the phase of this process in a common timetable, 0 to 1; those of all members are spread evenly.
        clock_offset: seconds by which the fleet's clock is ahead of the event loop's, from the quickest recent
            exchange, as if its request and its reply had the same latency.
        clock_known: whether that exchange was a usual one, not one that had to connect first.
        round_trip: the smoothed round trip to the store, seconds.
        saturated: whether the last permits had to wait for a slot.
    """

    MAX_CLOCK_ERROR = 0.002
    """The largest `clock_error`, seconds."""
    WINDOW = 60.0
    """Seconds for which the largest number of members, and the quickest exchange, count."""

    def __init__(self, limit: float) -> None:
        self.limit = self.rate = limit
        self.members = 0
        self.phase = 0.0
        self.clock_offset = 0.0
        self.clock_known = False
        self.round_trip = 0.0
        self.saturated = False
        self._asked_lane: Lane | None = None
        self._asking_since = math.inf
        self._waiting = self._over_budget = False
        self._not_before = -math.inf
        self._updated_at = self._members_at = self._compared_at = -math.inf
        self._min_round_trip = math.inf
        self._exchanges = 0
        self._cuts: int | None = None
        self._interval = 1.0 / limit

    def not_before(self, lane: Lane, deadline: float) -> float:
        """Return the loop time from which to ask for a permit, for a call of a lane with a deadline."""
        if self._asked_lane is None or lane < self._asked_lane:
            return -math.inf
        # The call before had an earlier deadline, and so got no place in the store's queue; this one may get it.
        return -math.inf if self._over_budget and deadline > self._not_before else self._not_before

    @property
    def waiting_lane(self) -> Lane | None:
        """The lane for which this process has a place in the store's queue; a request without ``wanted`` loses it."""
        return self._asked_lane if self._waiting and not self._over_budget else None

    def update(self, reply: Reply, lane: Lane | None, asked: float, now: float) -> bool:
        """Apply the reply to a request for a lane, or None.

        Args:
            reply: the reply.
            lane: the lane that permits were requested for, if any.
            asked: loop time of the request.
            now: loop time of the reply.

        Returns:
            Whether calls were refused at the limit since the last reply.
        """
        self._updated_at = now
        took = now - asked
        if self._exchanges < 2:  # the first one had to connect
            self.round_trip = took
        else:
            self.round_trip += 0.2 * (min(took, 3 * self.round_trip + 0.01) - self.round_trip)
        self._exchanges += 1
        self.limit, self.rate = reply.limit, reply.rate
        if reply.members >= self.members or now > self._members_at + self.WINDOW:
            self.members, self._members_at = reply.members, now
        self.phase = reply.place * 0.618033988749895 % 1.0
        self._compare_clocks(reply.now, asked, now)
        self._asked_lane, self._not_before = lane, now + reply.again
        self._waiting, self._over_budget = reply.again > 0, reply.over
        self._measure_interval(reply, asked, now)
        cut = self._cuts is not None and reply.cuts > self._cuts
        self._cuts = reply.cuts
        return cut

    def _compare_clocks(self, fleet: float, asked: float, now: float) -> None:
        """Compare the clocks: the fleet's was ``fleet`` at some time between two loop times."""
        took = now - asked
        fits = fleet - now <= self.clock_offset <= fleet - asked
        # Clocks drift.  An exchange that had to connect first does not count: its request took longer than its reply.
        due = now > self._compared_at + self.WINDOW and took <= 2 * self.round_trip
        if not fits or took <= self._min_round_trip or due:
            self.clock_offset = fleet - (asked + now) / 2
            self._min_round_trip, self._compared_at = took, now
            self.clock_known = self._exchanges > 1 and took <= 2 * self.round_trip

    def _measure_interval(self, reply: Reply, asked: float, now: float) -> None:
        """Update the mean time of one permit, from the first request for it until it is due."""
        if reply.permits:
            self.saturated = reply.slot_bound
            granted = sum(count for _, count in reply.permits)
            took = now + reply.permits[-1][0] - min(asked, self._asking_since)
            self._asking_since = math.inf
            self._interval += 0.3 * (max(1.0 / self.rate, took / granted) - self._interval)
        elif reply.again:
            self._asking_since = min(asked, self._asking_since)
            self._interval = max(self._interval, now + reply.again - self._asking_since)
        else:
            self._asking_since = math.inf

    @property
    def min_latency(self) -> float:
        """The lowest latency of a reply, seconds, from the quickest exchange."""
        return self._min_round_trip / 2

    @property
    def clock_error(self) -> float:
        """The assumed error of `clock_offset`, seconds, to be added on the safe side.

        It is the largest possible error where the store is near; far away that would cost too much.
        """
        return min(self._min_round_trip / 2, self.MAX_CLOCK_ERROR)

    def pace(self, now: float) -> float:
        """Return the calls/s that this process can expect: those granted recently, or the rate after an idle second."""
        rate = min(self.limit, self.rate)
        return rate if now > self._updated_at + 1.0 else min(rate, 1.0 / self._interval)
