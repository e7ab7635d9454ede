"""What the pace learns: how early a slot may be used again, and how many calls the server takes.

The theory stands at the top of `tim_async._limiter.queue`.
"""

from __future__ import annotations

import math


class Credit:
    """How long before "one second after its response" a slot may be used again.

    ``_ease`` is the one learned number.  At 0 the credit is what the smallest round trip of late makes sure; above
    0 it reaches into the spread between the smallest and the typical one; towards -1 it shrinks to nothing.
    """

    __slots__ = ("_ease", "_of_before", "_of_now", "_quiet", "_seen", "_smallest", "_sure", "_typical", "value")

    LEARNT = 500
    """Round trips after which older ones no longer count for the smallest."""
    ENOUGH = 20
    """Round trips before the smallest of them is relied on: the first ones also set connections up."""
    SLACK = 0.002
    """Seconds of the smallest round trip that are not relied on: timers and event loops are no finer."""
    CLIMB_FIRST = 0.01
    """Ease a second until something is refused for the first time; more where round trips are long…"""
    LONG = 0.05
    """…that is, longer than this, seconds: the proof alone then costs the more."""
    CLIMB = 0.002
    """Ease a second after the first refusal."""
    STEP_BACK = 0.15
    """Ease lost by one event of refusals."""

    def __init__(self) -> None:
        self.value = 0.0
        self._ease = 0.0
        self._quiet = True
        self._seen = 0
        self._sure = 0.0
        self._typical = math.inf
        self._smallest = self._of_now = self._of_before = math.inf

    def answered(self, rtt: float, per_second: float, saturated: bool) -> None:
        """Learn from one round trip; ease grows only while it is put to the test."""
        self._seen += 1
        if rtt < self._of_now or self._seen % self.LEARNT == 0 or self._seen == self.ENOUGH:
            self._find_smallest(rtt)
        # A median in small steps: a stall of a second, which a mean would take to heart, moves it little.
        self._typical *= 1.003 if rtt > self._typical else 0.997
        if saturated and self._ease < 1.0:
            climb = self.CLIMB_FIRST * max(1.0, self._typical / self.LONG) if self._quiet else self.CLIMB
            self._ease += climb / per_second
        if self._ease > 0.0:
            self._weigh()

    def refused(self) -> None:
        """Step back, once for an event."""
        self._quiet = False
        self._ease = max(-1.0, self._ease - self.STEP_BACK)
        self._weigh()

    def _find_smallest(self, rtt: float) -> None:
        if self._seen == 1:
            # A coarse clock may say 0, from where no factor leads away.
            self._typical = max(rtt, 1e-4)
        if self._seen % self.LEARNT == 0:
            self._of_before, self._of_now = self._of_now, math.inf
        self._of_now = min(self._of_now, rtt)
        self._smallest = min(self._of_now, self._of_before)
        self._sure = max(0.0, 0.9 * self._smallest - self.SLACK)
        self._weigh()

    def _weigh(self) -> None:
        if self._seen < self.ENOUGH:
            self.value = 0.0
        elif self._ease > 0.0:
            self.value = self._sure + self._ease * max(0.0, self._typical - self._smallest)
        else:
            self.value = self._sure * (1.0 + self._ease)


class Rate:
    """The calls a second that the server takes from us, as far as its refusals tell.

    Args:
        limit: what the server allows when nobody else calls, calls/s.
        headroom: how far above the limit calls may be let go while nothing is refused, as a factor.
        floor: what it never falls below, calls/s.
    """

    __slots__ = ("_after_cut", "_cut_at", "_limit", "ceiling", "floor")

    def __init__(self, limit: float, headroom: float, floor: float) -> None:
        self._limit = limit
        self.ceiling = limit * headroom
        self.floor = floor
        self._after_cut = self.ceiling
        self._cut_at = -math.inf

    def value(self, now: float) -> float:
        """Calls a second to let go now."""
        if self._after_cut >= self.ceiling:
            return self.ceiling
        t = now - self._cut_at
        # +2(1 + t)/s each second, on 200 calls a second: slow at first, for the other consumer may still be there.
        grown = self._after_cut + (2 * t + t * t) * self._limit / 200.0
        if grown >= self.ceiling:
            self._after_cut = self.ceiling
            return self.ceiling
        return grown

    def cost(self, now: float) -> float:
        """What one call takes of a bucket that leaks at the ceiling: 1 at full rate, more below it."""
        return 1.0 if self._after_cut >= self.ceiling else self.ceiling / self.value(now)

    def refused(self, now: float, sent: float, taken: float) -> bool:
        """Fall to what the server takes.

        Args:
            now: when the refusal came.
            sent: when its call was sent.
            taken: the share of the last second's calls that was not refused, 0 to 1.

        Returns:
            True when this was the first refusal of an event: one cut a second at most, and none for calls
            that were on their way when the last cut was made.
        """
        if sent <= self._cut_at or now - self._cut_at < 1.0:
            return False
        # A little below what was taken, so that the probing that follows starts from quiet.  By 5 % at least, for the
        # last second holds calls from before the other consumer came; by 60 % at most, for it may hold few calls.
        kept = min(0.95, max(0.4, 0.97 * taken))
        self._after_cut = max(self.floor, kept * min(self._limit, self.value(now)))
        self._cut_at = now
        return True
