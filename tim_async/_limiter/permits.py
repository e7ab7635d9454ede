"""The permits that a shared quota grants: those in hand, and what the store must know of the others."""

from __future__ import annotations

import heapq
import math
from collections import deque

from tim_async._lanes import Lane

from .request import Request, micro

GRACE = 0.1
"""Seconds after which a permit that was not used is void: its slot may have been granted to another process."""
FAR_OFF = 0.01
"""Seconds from which an interactive call does not wait for a permit that was asked for bulk."""


class GrantedPermits:
    """Permits granted and not used yet, the next one first.  Times are the event loop's."""

    __slots__ = ("_heap", "_latest")

    def __init__(self) -> None:
        self._heap: list[tuple[float, Lane]] = []
        self._latest = -math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, lane: Lane) -> None:
        """Keep one that was asked for a lane and may be used from ``due`` on."""
        self._latest = max(due, self.latest())
        heapq.heappush(self._heap, (due, lane))

    def soonest(self) -> float:
        """When the next one is due; infinity without any."""
        return self._heap[0][0] if self._heap else math.inf

    def latest(self) -> float:
        """When the last one is due; minus infinity without any."""
        return self._latest if self._heap else -math.inf

    def suits(self, lane: Lane, now: float) -> bool:
        """Whether there is one for a lane: an interactive call does not wait long for one that was asked for bulk."""
        if not self._heap:
            return False
        return (
            lane is not Lane.INTERACTIVE
            or self._heap[0][0] <= now + FAR_OFF
            or any(asked_for is lane for _, asked_for in self._heap)
        )

    def pop(self, due_by: float = math.inf) -> float | None:
        """Take the next one out and return when it was due; None when none is due by a time."""
        return heapq.heappop(self._heap)[0] if self._heap and self._heap[0][0] <= due_by else None


class Ledger:
    """This process's calls as the store should count them: how many are out, and when those that ended are free again.

    What has been told is kept until it is over, for a store that has forgotten.  Times are the event loop's; the store
    is told how far they lie ahead.

    Attributes:
        in_flight: calls under way, whoever permitted them.
    """

    __slots__ = ("_freed", "in_flight")

    SAME = 0.001
    """Seconds within which calls are told together."""

    def __init__(self) -> None:
        self.in_flight = 0
        # When they are free, how many, and the number of the request that told first, 0 for none yet.
        self._freed: deque[list[float | int]] = deque()

    def freed(self, at: float) -> None:
        """A call that has ended no longer counts from a loop time on."""
        last = self._freed[-1] if self._freed else None
        if last is not None and last[2] == 0 and abs(at - last[0]) < self.SAME:
            last[0] = max(at, last[0])
            last[1] += 1
        else:
            self._freed.append([at, 1, 0])

    def untold(self) -> bool:
        """Whether the store has not heard of a call that has ended."""
        return bool(self._freed) and self._freed[-1][2] == 0

    def counts(self, now: float) -> bool:
        """Whether any call of this process still counts."""
        self._forget(now)
        return bool(self.in_flight or self._freed)

    def tell_again(self, heard: int) -> None:
        """The store has forgotten what it was told up to a request."""
        for entry in self._freed:
            if entry[2] <= heard:
                entry[2] = 0

    def tell(self, request: Request, now: float, in_hand: int, heard: int) -> None:
        """Put it into a request.

        Args:
            request: which.
            now: loop time.
            in_hand: permits that are not used yet.
            heard: number of the last request that the store is known to have.
        """
        self._forget(now)
        request["out"] = self.in_flight + in_hand
        number = request["number"]
        told = []
        for entry in self._freed:
            if entry[2] == 0:
                entry[2] = number
            if entry[2] > heard:
                told.append((int(entry[2]), micro(entry[0] - now), int(entry[1])))
        if told:
            request["freed"] = told

    def _forget(self, now: float) -> None:
        freed = self._freed
        while freed and freed[0][0] <= now:
            freed.popleft()
