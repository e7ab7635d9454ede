"""The parameters that a limiter learns from answers and refusals: `Credit`, `Rate` and `Burst`.

The slots and the bucket are described at the top of `tim_async._limiter.queue`.

**A refusal is a measurement.**  The server refuses when its second is full, so the calls of ours that it answered in
the second before a refusal are all that it has room for: the rate to remember.  The measurement holds whether or not
the server counts refused calls, and whichever client takes the rest of its limit.

**The rate holds there, then probes.**  After a refusal `Rate` falls a little below the measured rate, rises to that
plateau within `Rate.HOLD` seconds and slows down near it, as CUBIC does in TCP; above it, it rises slowly at first and
then steadily, since without refusals the other consumer has gone.  The plateau is forgotten when the rate has reached
the limit.

**Every further refusal removes its slot.**  Where refused calls are counted too, one call too many makes the server
refuse all until the second has room again; where they are not, it refuses that one.  So the first refusal of an event
cuts the rate once, and each one after it within a second lowers it by one more call a second.  The cut is as deep as
the event turns out to be, whichever way the server counts.  The rate is kept by the number of slots in use: none is
granted until the calls of the last second are fewer than the new rate, which is what empties the server's second.

**Below the limit some refusals are tolerated.**  Up to `Rate.TOLERATED` of the calls may be refused before the rate
falls.

**At the limit a refusal means our own jitter**, so `Credit` steps back; below the limit it neither grows nor shrinks.

**A refusal before the rate is back at its plateau does not concern the rate**, which was accepted before.  Calls came
too close together (a token bucket), or another client takes more.  `Burst` then allows fewer calls at once; it recovers
with time.
"""

from __future__ import annotations

import math


class Credit:
    """The time by which a slot may be used again earlier than one second after its response.

    ``_ease`` is the one learned number.  At 0 the credit is the part that the smallest recent round trip guarantees;
    above 0 it reaches into the spread between the smallest and the typical one; towards -1 it shrinks to nothing.

    Attributes:
        value: seconds.
    """

    __slots__ = (
        "_current_min",
        "_ease",
        "_guaranteed",
        "_never_refused",
        "_previous_min",
        "_seen",
        "_smallest",
        "_typical",
        "value",
    )

    WINDOW = 500
    """Round trips after which an older one no longer counts as the smallest."""
    MIN_SAMPLES = 20
    """Round trips before the smallest of them counts: the first ones also set connections up."""
    SLACK = 0.002
    """Seconds of the smallest round trip that do not count: the resolution of timers and event loops."""
    CLIMB_FIRST = 0.01
    """Ease gained a second before the first refusal."""
    LONG_ROUND_TRIP = 0.04
    """Seconds of a round trip above which ease climbs faster, with its square: there the guaranteed credit costs most
    of the rate."""
    SAFE = 0.6
    """Ease up to which it climbs faster."""
    CLIMB = 0.002
    """Ease gained a second after the first refusal."""
    STEP_BACK = 0.15
    """Ease lost by one event of refusals."""

    def __init__(self) -> None:
        self.value = 0.0
        self._ease = 0.0
        self._never_refused = True
        self._seen = 0
        self._guaranteed = 0.0
        self._typical = math.inf
        self._smallest = self._current_min = self._previous_min = math.inf

    def answered(self, rtt: float, per_second: float, saturated: bool) -> None:
        """Learn from one round trip; ease grows only while calls wait for slots, which puts it to the test."""
        self._seen += 1
        if rtt < self._current_min or self._seen % self.WINDOW == 0 or self._seen == self.MIN_SAMPLES:
            self._update_smallest(rtt)
        # A median in small steps: a stall of a second moves it less than it would move a mean.
        self._typical *= 1.003 if rtt > self._typical else 0.997
        if saturated and self._ease < 1.0:
            climb = self.CLIMB_FIRST if self._never_refused else self.CLIMB
            if self._never_refused and self._ease < self.SAFE and self._typical > self.LONG_ROUND_TRIP:
                climb *= (self._typical / self.LONG_ROUND_TRIP) ** 2
            self._ease += climb / per_second
        if self._ease > 0.0:
            self._update()

    @property
    def spread(self) -> float:
        """Seconds by which a slot is occupied beyond one second: the typical round trip less the credit."""
        return max(0.0, min(1.0, self._typical) - self.value) if self._seen >= self.MIN_SAMPLES else 0.0

    def start_over(self) -> None:
        """Return to the guaranteed credit: with fewer slots, the spread averages out less."""
        self._ease = min(0.0, self._ease)
        self._update()

    def refused(self) -> None:
        """Step back; to be called once for each event of refusals."""
        self._never_refused = False
        self._ease = max(-1.0, self._ease - self.STEP_BACK)
        self._update()

    def _update_smallest(self, rtt: float) -> None:
        if self._seen == 1:
            # A coarse clock may measure 0, which no factor changes.
            self._typical = max(rtt, 1e-4)
        if self._seen % self.WINDOW == 0:
            self._previous_min, self._current_min = self._current_min, math.inf
        if self._seen > 1 and rtt < 0.5 * self._smallest:
            # The route has become shorter: the typical round trip is as outdated as the smallest.
            self._typical = min(self._typical, max(2 * rtt, 1e-4))
        self._current_min = min(self._current_min, rtt)
        self._smallest = min(self._current_min, self._previous_min)
        self._guaranteed = max(0.0, 0.9 * self._smallest - self.SLACK)
        self._update()

    def _update(self) -> None:
        if self._seen < self.MIN_SAMPLES:
            self.value = 0.0
        elif self._ease > 0.0:
            self.value = self._guaranteed + self._ease * max(0.0, self._typical - self._smallest)
        else:
            self.value = self._guaranteed * (1.0 + self._ease)


class Rate:
    """The adaptive rate: the calls/s that the server accepts from us, estimated from its refusals.

    Args:
        limit: the largest rate, which the server allows when no other client calls, calls/s.
        floor: the smallest rate, calls/s.

    Attributes:
        full: whether the rate is the limit; `value` sets it when the rate has risen to the limit again.
    """

    HOLD = 2.0
    """Seconds after the last refusal in which the rate returns to the plateau."""
    GENTLE = 2.5
    """Seconds after that in which the rate rises slowly: by limit/150 * t^3."""
    STEADY = 0.125
    """Share of the limit by which it rises each second after that: the final slope of the cubic."""
    CUT = 0.99
    """Share of the measured rate that remains after the first refusal of an event."""
    TOLERATED = 0.03
    """Share of the last second's calls that may be refused below the limit without a cut."""
    DEEP = 0.85
    """Share of the plateau; a rate cut below it lowers the plateau, too: our share has become smaller."""
    IDLE = 0.9
    """The smallest share of the rate that a refusal can measure: with few calls there is nothing to measure."""

    def __init__(self, limit: float, floor: float) -> None:
        self._limit = limit
        self._floor = floor
        self.full = True
        self._low = self._plateau = self._measured = limit
        self._changed_at = self._event_at = -math.inf

    def set_limit(self, limit: float, floor: float) -> None:
        """Change the limit and the floor; a rate measured below the limit still holds."""
        self._limit, self._floor = limit, floor
        self._low, self._plateau, self._measured = (
            min(limit, max(floor, each)) for each in (self._low, self._plateau, self._measured)
        )

    def value(self, now: float) -> float:
        """Return the current rate, calls/s, between ``floor`` and the limit."""
        if self.full:
            return self._limit
        since_fall = now - self._changed_at
        value = self.recovered(since_fall, self._limit, self._low, self._plateau)
        if value >= self._limit and since_fall >= self.HOLD:
            self.full = True
            return self._limit
        return value

    @staticmethod
    def recovered(seconds: float, limit: float, low: float, plateau: float) -> float:
        """Return the rate some seconds after a fall to ``low``, calls/s; it may exceed the limit."""
        beyond = seconds - Rate.HOLD
        if beyond < 0.0:
            return plateau - (plateau - low) * (-beyond / Rate.HOLD) ** 3
        gentle = min(beyond, Rate.GENTLE)
        return plateau + limit * (gentle**3 / 150.0 + (beyond - gentle) * Rate.STEADY)

    def probing(self, now: float) -> bool:
        """Whether the rate is above its plateau."""
        return not self.full and now - self._changed_at > self.HOLD

    def refused(self, now: float, sent: float, answered: float, refusals: float) -> bool:
        """Lower the rate to the one that the server accepts.

        Args:
            now: the time of the refusal.
            sent: the time at which its call was sent.
            answered: calls of the last second that were answered, refused or not.
            refusals: calls of the last second that were refused.

        Returns:
            Whether it is the first refusal of an event.  There is at most one event a second, and none from calls that
            were under way when the last one began.
        """
        value = self.value(now)
        if not self.full and refusals < self.TOLERATED * answered:
            return False
        begins = now - self._event_at >= 1.0
        if begins:
            if sent <= self._event_at:
                return False
            self._event_at = now
            self._measured = min(value, max(answered, self.IDLE * value))
            self._fall(now, self.CUT * self._measured)
        else:
            self._fall(now, value - 1.0)
        return begins

    def lower(self, now: float, accepted: float) -> None:
        """Lower the rate to a share, 0 to 1: by 5 % to 60 %, and at most once a second."""
        if now - self._event_at >= 1.0:
            self._event_at = now
            self._measured = self.value(now)
            self._fall(now, min(0.95, max(0.4, 0.97 * accepted)) * self._measured)

    def _fall(self, now: float, low: float) -> None:
        self._low = max(self._floor, low)
        self._plateau = max(self._low, min(self._measured, self._low / self.DEEP))
        self._changed_at = now
        self.full = False


class Burst:
    """The number of calls that may be sent at once.

    Args:
        most: the number without refusals.
    """

    LEAST = 1.15
    """A little more than one call: the rest makes up for timers that fire late."""
    DOUBLES = 30.0
    """Seconds in which the burst doubles while it recovers."""

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._changed_at = -math.inf
        self.full = True

    def value(self, now: float) -> float:
        """Return the number of calls, at least `LEAST` unless ``most`` is less."""
        if self.full:
            return self._most
        value = self._left * math.exp2((now - self._changed_at) / self.DOUBLES)
        if value >= self._most:
            self.full = True
            return self._most
        return value

    def refused(self, now: float) -> None:
        """Halve the burst; to be called once for each event of refusals."""
        self._left = min(self._most, max(self.LEAST, self.value(now) / 2.0))
        self._changed_at = now
        self.full = False
