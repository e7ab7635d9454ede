"""The limiter of one endpoint, which grants its permits.

`LocalLimiter` is for a client that has the endpoint's rate for itself; for a rate that several processes share, see
`sharing`.  The theory is at the top of `queue`.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tim_async._lanes import Lane

from .learning import Burst, Credit, Rate

SECOND = 1.0005
"""The server's second, a little longer: clocks tick differently."""


class Use(enum.Enum):
    """The outcome of a permit."""

    ANSWERED = enum.auto()
    """The attempt was answered."""
    UNANSWERED = enum.auto()
    """The connection ended without an answer."""
    UNSENT = enum.auto()
    """Nothing was sent."""


class Permit:
    """The right to send one attempt: taken from a limiter, and returned to it.

    Attributes:
        sent: the loop time at which the attempt may be sent, or was.
        release_inner: returns it to the inner limiter that granted it, too; None without one.
    """

    __slots__ = ("release_inner", "sent")

    def __init__(self, sent: float) -> None:
        self.sent: float = sent
        self.release_inner: Callable[[Permit, float, Use], None] | None = None


class Limiter(Protocol):
    """The permits of one endpoint: `wait`, `take`, `release`.  All times are the event loop's, seconds."""

    @property
    def latency(self) -> float:
        """Seconds within which `wait` returns a finite time; a caller with ``max_wait=0`` waits that long."""

    @property
    def grace(self) -> float:
        """Seconds for which a permit is valid; after that it must be returned unused."""

    @property
    def shared(self) -> bool:
        """Whether the permits are shared with other processes now."""

    @property
    def limit(self) -> float:
        """Calls/s that the service allows."""

    @property
    def processes(self) -> int:
        """Clients that share the limit, this one included, as of the last reply."""

    def wait(self, now: float, lane: Lane) -> float:
        """Return the seconds until a permit for a lane is free: 0 for now; infinity while unknown."""

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""

    def release(self, permit: Permit, now: float, use: Use) -> None:
        """Return a permit; each one taken is returned once."""

    def refused(self, sent: float, now: float) -> None:
        """Lower the rate after the refusal of a call sent at ``sent``."""

    def slow_down(self, accepted: float, now: float) -> None:
        """Lower the rate after an alert that the service accepts only a share, 0 to 1, of the calls."""

    def paused(self, seconds: float) -> None:
        """Pause the other processes that share the endpoint for that many seconds."""

    def rate(self, now: float) -> float:
        """Return the adaptive rate, calls/s."""

    def pace(self, now: float) -> float:
        """Return the calls/s that the callers of this process can expect."""

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:
        """Change the limit, calls/s, and the part of it that bulk may fill; None for unchanged.

        Any second with a call permitted after the change holds at most the new limit.
        """

    def close(self) -> None:
        """Grant nothing more."""


class Slots:
    """The slots of an endpoint, each free again one second after its response, less the credit."""

    __slots__ = ("_answered", "_in_flight")

    def __init__(self) -> None:
        self._in_flight = 0
        self._answered: deque[float] = deque()

    def wait(self, now: float, credit: float, size: int) -> float:
        """Return the seconds until one of ``size`` slots is free: 0 for now, infinity until a response."""
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
        """Start a slot's second: at a response, or at the end of the connection."""
        self._in_flight -= 1
        self._answered.append(now)

    def unused(self) -> None:
        """Free a slot at once, for nothing was sent."""
        self._in_flight -= 1

    def answered(self, now: float, credit: float) -> float:
        """Return the calls answered in the last second, estimated from the slots that are not free yet."""
        horizon = now - SECOND + credit
        while self._answered and self._answered[0] <= horizon:
            self._answered.popleft()
        return len(self._answered) / max(0.1, SECOND - credit)


class LocalLimiter:
    """Slots, a bucket and an adaptive rate, for a client that has the endpoint for itself.

    Args:
        limit: calls/s that the server allows, at least 1.
        strict: whether to learn nothing, so that the client's own jitter causes no refusals.
        burst: the least number of calls that may be sent at once after idle time; more where the limit is high.

    Attributes:
        limit: calls/s.
    """

    HEADROOM = 1.1
    """The bucket's rate as a multiple of the limit, to catch up; the slots keep the limit."""

    latency = 0.0
    grace = math.inf  # a slot is granted to no other call before its permit is returned
    shared = False
    processes = 1

    def __init__(self, limit: float, *, strict: bool = False, burst: float = 4.0) -> None:
        self._strict = strict
        self._min_burst = burst
        self._slots = Slots()
        self._credit = Credit()
        self._refusals: deque[float] = deque()
        self._saturated = False
        self._permits = 0
        self._resize(limit)
        self._rate = Rate(limit, self._floor)
        self._burst = Burst(self._capacity / self._block)
        self._cost = float(self._block)

    def _resize(self, limit: float) -> None:
        """Set the number of slots and the size of the bucket for a limit."""
        self.limit = limit
        self._size = int(limit)
        self._ceiling = limit * (1.0 if self._strict else self.HEADROOM)
        self._capacity = max(self._min_burst, limit / (50 if self._strict else 20))
        # Permits are taken one by one at 200 a second, in small blocks where thousands are allowed.
        self._block = max(1, int(self._capacity / 20))
        # At the floor a block costs nearly the whole bucket.
        self._floor = 1.01 * self._ceiling * self._block / self._capacity
        # Imported with the first call: it reads its own version at import, which takes longer than all else here.
        from aiolimiter import AsyncLimiter

        self._bucket = AsyncLimiter(self._capacity, self._capacity / self._ceiling)

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:  # noqa: ARG002 - bulk may fill it all
        """Change the limit.

        Occupied slots stay occupied, so that the next call waits until they are fewer than the new limit.  The bucket
        starts empty, since the one before may just have allowed a burst.
        """
        if limit < self.limit:
            self._credit.start_over()
        self._resize(limit)
        self._rate.set_limit(limit, self._floor)
        self.drain()

    def wait(self, now: float, lane: Lane) -> float:  # noqa: ARG002 - the queue's head may use the whole rate
        """Return the seconds until a permit is free: 0 for now, infinity when that depends on an answer."""
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
        """Take the permit that `wait` found."""
        self._slots.take()
        if self._permits:
            self._permits -= 1
        else:
            self._acquire(self._cost)
            self._permits = self._block - 1
        return Permit(now)

    def drain(self) -> None:
        """Empty the bucket, so that no burst follows."""
        self._permits = 0
        # In ever smaller parts: above a million a second, the bucket would refill as fast as single ones are taken.
        part = max(1, int(self._capacity))
        while True:
            if self._bucket.has_capacity(part):
                self._acquire(part)
            if part == 1:
                return
            part = (part + 1) // 2

    def _acquire(self, amount: float) -> None:
        acquiring = self._bucket.acquire(amount)
        try:
            acquiring.send(None)  # runs to its end: there is capacity, and no other code takes any
        except StopIteration:
            return
        acquiring.close()
        raise RuntimeError("aiolimiter waited although it had capacity")

    def release(self, permit: Permit, now: float, use: Use) -> None:
        """Return a permit, and learn from the round trip."""
        if use is Use.UNSENT:
            self._slots.unused()
            return
        self._slots.give_back(now)
        if use is Use.ANSWERED and not self._strict:
            self._credit.answered(now - permit.sent, self.limit, self._saturated and self._rate.full)

    def refused(self, sent: float, now: float) -> None:
        """Lower the rate, the credit or the burst after a refusal."""
        at_limit, probing = self._rate.full, self._rate.probing(now)
        answered = self._slots.answered(now, self._credit.value)
        self._refusals.append(now)
        while self._refusals[0] <= now - 1.0:
            self._refusals.popleft()
        if self._rate.refused(now, sent, answered, len(self._refusals)):
            if at_limit:
                self._credit.refused()
            if not probing:
                self._burst.refused(now)

    def slow_down(self, accepted: float, now: float) -> None:
        """Fall to a share of the rate."""
        self._rate.lower(now, accepted)

    def paused(self, seconds: float) -> None:
        """Do nothing: the quota is not shared."""

    def rate(self, now: float) -> float:
        """Return the adaptive rate, calls/s."""
        return self._rate.value(now)

    def pace(self, now: float) -> float:
        """Return the whole rate, which is not shared."""
        return self.rate(now)

    def close(self) -> None:
        """Do nothing: there is no task to end."""
