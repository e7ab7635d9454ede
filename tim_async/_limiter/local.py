"""What decides that one more call may go: permits, taken one by one.

A `Limiter` belongs to one endpoint.  `LocalLimiter` is for a client that has the endpoint's rate for itself; for a
rate that several processes share, see `sharing`.  The theory is at the top of `queue`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from tim_async._lanes import Lane

from .learning import Burst, Credit, Rate

SECOND = 1.0005
"""The server's second, as we time it: a little longer, for clocks that tick differently."""


class Permit:
    """The right to send one call: taken from a limiter, and given back to it.

    Attributes:
        sent: the loop time at which the call may be sent, or was.
        number: by which the limiter knows it, where it needs one.
    """

    __slots__ = ("number", "sent")

    def __init__(self, sent: float, number: int = 0) -> None:
        self.sent: float = sent
        self.number: int = number


class Limiter(Protocol):
    """What a turnstile asks before it lets a call go.  All times are the event loop's, seconds."""

    @property
    def latency(self) -> float:
        """Seconds that `wait` may need to find out; a caller that would not wait at all waits so long."""

    @property
    def grace(self) -> float:
        """Seconds for which a turn that was taken holds; one that could not be used in time must be given back."""

    @property
    def shared(self) -> bool:
        """Whether the permits are shared with other processes, at this moment."""

    def wait(self, now: float, lane: Lane) -> float:
        """Seconds until one call of a lane may go: 0 for now; infinity when something yet to come will tell."""

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""

    def unused(self, permit: Permit) -> None:
        """The call was never sent."""

    def leave(self, permit: Permit, now: float, *, answered: bool) -> None:
        """The answer has come, or its connection has ended without one."""

    def refused(self, sent: float, now: float) -> None:
        """The server said "too fast" to a call sent at ``sent``."""

    def slow_down(self, taken: float, now: float) -> None:
        """Somebody else says that the server takes only a share, 0 to 1, of what it is asked."""

    def paused(self, seconds: float) -> None:
        """The endpoint was paused for so long; whoever shares it should know."""

    def rate(self, now: float) -> float:
        """Calls a second that are let go at most, as learned so far."""

    def pace(self, now: float) -> float:
        """Calls a second that those who wait here can expect."""

    def close(self) -> None:
        """Ask and expect nothing more."""


class Slots:
    """Places for calls, each free again one second after its response, less the credit."""

    __slots__ = ("_answered", "_in_flight")

    def __init__(self) -> None:
        self._in_flight = 0
        self._answered: deque[float] = deque()

    def wait(self, now: float, credit: float, size: int) -> float:
        """Seconds until one of ``size`` slots is free: 0 when one is, infinity when only a response can free one."""
        horizon = now - SECOND + credit
        answered = self._answered
        while answered and answered[0] <= horizon:
            answered.popleft()
        excess = self._in_flight + len(answered) - size
        if excess < 0:
            return 0.0
        return answered[excess] - horizon if excess < len(answered) else math.inf

    def take(self) -> None:
        """Occupy a slot that `wait` found free."""
        self._in_flight += 1

    def give_back(self, now: float) -> None:
        """A response, or the end of its connection, has come: the slot's second starts."""
        self._in_flight -= 1
        self._answered.append(now)

    def unused(self) -> None:
        """The call was never sent: the slot is free at once."""
        self._in_flight -= 1

    def answered(self, now: float, credit: float) -> float:
        """Calls answered in the last second, as those whose slots are not free again tell."""
        horizon = now - SECOND + credit
        while self._answered and self._answered[0] <= horizon:
            self._answered.popleft()
        return len(self._answered) / max(0.1, SECOND - credit)


class Refusals:
    """The refusals of the last second."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self, now: float) -> int:
        """Count one more; gives how many there are."""
        self._times.append(now)
        while self._times[0] <= now - 1.0:
            self._times.popleft()
        return len(self._times)


class LocalLimiter:
    """Slots, a bucket and an adaptive rate, for a client that has the endpoint for itself.

    Args:
        limit: what the server allows, calls/s, at least 1.
        strict: give up all that is learned, and with it the chance of being refused by our own jitter.
        burst: calls that may go at once after a while without any; by default what suits the limit.
    """

    HEADROOM = 1.1
    """How far above the limit the bucket lets calls go, to catch up; the slots keep the promise."""

    latency = 0.0
    grace = math.inf  # its slot is nobody else's before it has been given back
    shared = False

    def __init__(self, limit: float, *, strict: bool = False, burst: float | None = None) -> None:
        self._limit = limit
        self._strict = strict
        self._size = int(limit)
        self._slots = Slots()
        self._credit = Credit()
        if burst is None:
            burst = max(4.0, limit / (50 if strict else 20))
        self._ceiling = limit * (1.0 if strict else self.HEADROOM)
        # Permits are taken one by one at 200 a second, in small blocks where thousands are allowed.
        self._block = max(1, int(burst / 20))
        self._permits = 0
        # At the floor a block costs nearly the whole bucket.
        self._rate = Rate(limit, floor=1.01 * self._ceiling * self._block / burst)
        self._capacity = burst
        self._burst = Burst(burst / self._block)
        # Imported with the first call: it reads its own version at import, which takes longer than all else here.
        from aiolimiter import AsyncLimiter

        self._bucket = AsyncLimiter(burst, burst / self._ceiling)
        self._refusals = Refusals()
        self._saturated = False
        self._cost = float(self._block)

    def wait(self, now: float, lane: Lane) -> float:  # noqa: ARG002 - the first in line has all there is
        """Seconds until one call may go: 0 for now, infinity when that depends on an answer."""
        size, cost = self._size, 1.0
        if not self._rate.full:
            rate = self._rate.value(now)
            # A rate of N takes more than N slots, each of which is occupied for more than a second.
            size = min(size, max(1, round(rate * (1.0 + self._credit.spread))))
            # A slower rate makes each call cost more of the bucket, which then keeps it without headroom: evenly.
            cost = self._ceiling / rate
        delay = self._slots.wait(now, self._credit.value, size)
        if delay > 0.0:
            self._saturated = True
            return delay
        self._saturated = False
        if not self._permits:
            self._cost = needed = cost * self._block
            if not self._burst.full:
                # A smaller burst leaves a part of the bucket unused.
                needed = max(needed, self._capacity - (self._burst.value(now) - 1.0) * needed)
            if not self._bucket.has_capacity(needed):
                # Longer than needed by at most this; the bucket credits what is late, up to its burst.
                return cost / self._ceiling * min(1.0, 0.5 * (self._burst.value(now) - 1.0))
        return 0.0

    def take(self, now: float) -> Permit:
        """Take what `wait` found free."""
        self._slots.take()
        if self._permits:
            self._permits -= 1
        else:
            self._acquire(self._cost)
            self._permits = self._block - 1
        return Permit(now)

    def drain(self) -> None:
        """Start with an empty bucket: no burst."""
        self._permits = 0
        while self._bucket.has_capacity(1.0):
            self._acquire(1.0)

    def _acquire(self, amount: float) -> None:
        acquiring = self._bucket.acquire(amount)
        try:
            acquiring.send(None)  # runs to its end: there is capacity, and nobody else takes any
        except StopIteration:
            return
        acquiring.close()
        raise RuntimeError("aiolimiter waited although it had capacity")

    def unused(self, permit: Permit) -> None:  # noqa: ARG002 - one slot is like another
        """The call was never sent: its slot is free at once."""
        self._slots.unused()

    def leave(self, permit: Permit, now: float, *, answered: bool) -> None:
        """The answer has come, or its connection has ended without one."""
        self._slots.give_back(now)
        if answered and not self._strict:
            self._credit.answered(now - permit.sent, self._limit, self._saturated and self._rate.full)

    def refused(self, sent: float, now: float) -> None:
        """The server said "too fast" to a call sent at ``sent``."""
        at_limit, probing = self._rate.full, self._rate.probing(now)
        answered = self._slots.answered(now, self._credit.value)
        if self._rate.refused(now, sent, answered, self._refusals.add(now)):
            if at_limit:
                self._credit.refused()
            if not probing:
                self._burst.refused(now)

    def slow_down(self, taken: float, now: float) -> None:
        """Fall to a share of the rate."""
        self._rate.lower(now, taken)

    def paused(self, seconds: float) -> None:
        """Nobody else need know."""

    def rate(self, now: float) -> float:
        """Calls a second that are let go at most, as learned so far."""
        return self._rate.value(now)

    def pace(self, now: float) -> float:
        """The same: all of them are ours."""
        return self.rate(now)

    def close(self) -> None:
        """There is nothing to end."""
