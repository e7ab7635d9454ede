"""The permits that a shared limiter requests next: for one lane, and no more than the queue can use soon."""

from __future__ import annotations

import math

from tim_async._lanes import Lane

from .permits import GrantedPermits
from .queue import RequestQueue
from .reply import StoreView
from .request import Request, micro


class Demand:
    """The lane that needs permits, and their number.

    Args:
        queue: the calls that wait.
        granted: the unused permits.
        store: the view of the quota.
    """

    MARGIN = 0.008
    """Seconds beyond the round trips to the store for which permits may be granted in advance."""
    NEAR = 0.004
    """Seconds of a round trip up to which no permit is requested before the granted ones are due."""

    def __init__(self, queue: RequestQueue, granted: GrantedPermits, store: StoreView) -> None:
        self._queue = queue
        self._granted = granted
        self._store = store
        self._wanted: Lane | None = None

    @property
    def horizon(self) -> float:
        """Seconds for which permits may be granted in advance: long enough to request the next ones meanwhile."""
        return 2.5 * self._store.round_trip + self.MARGIN

    def wait(self, lane: Lane, now: float) -> float:
        """Return the seconds until the store should be asked; infinity where no permit is missing."""
        if not self._missing(lane, now):
            return math.inf
        return max(0.0, self._store.not_before(lane, self._queue.head_deadline()) - now)

    def add(self, lane: Lane) -> None:
        """Request permits for a lane with the next request."""
        self._wanted = lane if self._wanted is None else min(lane, self._wanted)

    def clear(self) -> None:
        """Request none: a reply has come, after which the queue asks again."""
        self._wanted = None

    def ask(self, request: Request, now: float) -> Lane | None:
        """Put the missing permits into a request; return their lane, None for none."""
        lane, self._wanted = self._wanted, None
        if lane is None:  # a mere report must not lose the place in the store's queue
            lane = self._store.waiting_lane
        missing = 0 if lane is None else self._missing(lane, now)
        if lane is None or missing == 0:
            return None
        limit, pace = self._store.limit, self._store.pace(now)
        block = 1 + int(pace * (self.horizon - self.MARGIN / 2))
        if lane is Lane.BULK:
            block = max(block, round(limit / 50))
        request["lane"] = "bulk" if lane is Lane.BULK else "interactive"
        request["wanted"] = min(missing, block, max(1, int(limit / 2)))
        budget = self._queue.head_deadline() - now
        if budget < math.inf:
            request["budget"] = micro(max(0.0, budget))
        return lane

    def _missing(self, lane: Lane, now: float) -> int:
        """Return the number of permits that the queue can use soon, beyond the unused ones."""
        queued = self._queue.queued(lane)
        if not queued:
            return 0
        if not self._granted.suits(lane, now):
            return max(1, queued - len(self._granted))
        round_trip = self._store.round_trip
        if self._granted.latest() >= now + (1.3 * round_trip if round_trip > self.NEAR else 0.0):
            return 0
        return max(0, queued - len(self._granted))
