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
        limit: calls/s.
    """

    __slots__ = ("_bulk_block", "_granted", "_most", "_queue", "_store", "_wanted")

    def __init__(self, queue: QueueView, granted: GrantedPermits, store: StoreView, limit: float) -> None:
        self._queue = queue
        self._granted = granted
        self._store = store
        self._wanted: Lane | None = None
        self.set_limit(limit)

    def set_limit(self, limit: float) -> None:
        """Change the limit, calls/s."""
        self._most = max(1, int(limit / 10))
        self._bulk_block = max(1, round(limit / 50))

    def add(self, lane: Lane) -> None:
        """Want permits for a lane."""
        self._wanted = lane if self._wanted is None else min(lane, self._wanted)

    def clear(self) -> None:
        """Want none: a reply has come, after which the queue asks again."""
        self._wanted = None

    def ask(self, request: Request, now: float) -> None:
        """Put into a request what is still wanted."""
        lane, self._wanted = self._wanted, None
        if lane is None or not self._queue.queued(lane) or not self._granted.lack(lane, now):
            return
        # Enough for the time until the next ones are there; bulk takes blocks at least.
        block = 1 + int(2 * self._store.round_trip * self._store.pace(now))
        if lane is Lane.BULK:
            block = max(block, self._bulk_block)
        request["lane"] = "bulk" if lane is Lane.BULK else "interactive"
        request["wanted"] = min(self._queue.queued(lane), block, self._most)
        patience = self._queue.patience() - now
        if patience < math.inf:
            request["budget"] = micro(max(0.0, patience))
