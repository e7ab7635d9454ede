"""What a shared limiter asks the store for next: permits for one lane, no more than the queue can use soon."""

from __future__ import annotations

import math

from tim_async._lanes import Lane

from .permits import GrantedPermits
from .reply import StoreView
from .request import Request, micro
from .sharing import QueueView


class Demand:
    """The lane for which permits are wanted.

    Args:
        queue: the calls that wait.
        granted: the permits in hand.
        store: what is known from the store's replies.
    """

    __slots__ = ("_granted", "_queue", "_store", "_wanted")

    MARGIN = 0.008
    """Seconds beyond the way to the store and back for which permits may be granted in advance."""
    NEAR = 0.004
    """Seconds to the store and back up to which nothing is asked for before all permits in hand are used."""

    def __init__(self, queue: QueueView, granted: GrantedPermits, store: StoreView) -> None:
        self._queue = queue
        self._granted = granted
        self._store = store
        self._wanted: Lane | None = None

    @property
    def horizon(self) -> float:
        """Seconds for which permits may be granted in advance: long enough to ask for the next ones meanwhile."""
        return 2.5 * self._store.round_trip + self.MARGIN

    def wait(self, lane: Lane, now: float) -> float:
        """Seconds until the store should be asked; infinity where nothing is lacking."""
        if not self._missing(lane, now):
            return math.inf
        return max(0.0, self._store.not_before(lane, self._queue.patience()) - now)

    def add(self, lane: Lane) -> None:
        """Want permits for a lane."""
        self._wanted = lane if self._wanted is None else min(lane, self._wanted)

    def clear(self) -> None:
        """Want none: a reply has come, after which the queue asks again."""
        self._wanted = None

    def ask(self, request: Request, now: float) -> Lane | None:
        """Put into a request what is still wanted; returns for which lane."""
        lane, self._wanted = self._wanted, None
        if lane is None:  # what only reports must not give up the place in the store's queue
            lane = self._store.place_for
        missing = 0 if lane is None else self._missing(lane, now)
        if lane is None or missing == 0:
            return None
        limit, pace = self._store.limit, self._store.pace(now)
        block = 1 + int(pace * (self.horizon - self.MARGIN / 2))
        if lane is Lane.BULK:
            block = max(block, round(limit / 50))
        request["lane"] = "bulk" if lane is Lane.BULK else "interactive"
        request["wanted"] = min(missing, block, max(1, int(limit / 2)))
        patience = self._queue.patience() - now
        if patience < math.inf:
            request["budget"] = micro(max(0.0, patience))
        return lane

    def _missing(self, lane: Lane, now: float) -> int:
        """Permits that the queue can use soon, beyond those in hand."""
        queued = self._queue.queued(lane)
        if not queued:
            return 0
        if not self._granted.suits(lane, now):
            return max(1, queued - len(self._granted))
        trip = self._store.round_trip
        if self._granted.latest() >= now + (1.3 * trip if trip > self.NEAR else 0.0):
            return 0
        return max(0, queued - len(self._granted))
