"""The permits that a shared quota grants: those in hand, and the outcomes to be reported."""

from __future__ import annotations

import heapq
import math
from collections import deque

from tim_async._lanes import Lane

from .request import REMEMBERED, Request, Told, micro

TICK = 0.1
"""Seconds between reports, and between attempts to reach a store that is away."""
GRACE = 0.1
"""Seconds after which a permit that was not used is void: its slot may have been granted to another process."""
FAR_OFF = 0.01
"""Seconds from which an interactive call does not wait for a permit that was asked for bulk."""


class GrantedPermits:
    """Permits granted and not used yet, the next one first.  Times are the event loop's."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lane]] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, due: float, number: int, lane: Lane) -> None:
        """Keep one that was asked for a lane and may be used from ``due`` on."""
        heapq.heappush(self._heap, (due, number, lane))

    def soonest(self) -> float:
        """When the next one is due; infinity without any."""
        return self._heap[0][0] if self._heap else math.inf

    def latest(self) -> float:
        """When the last one is due; minus infinity without any."""
        return max((due for due, _, _ in self._heap), default=-math.inf)

    def lack(self, lane: Lane, now: float) -> bool:
        """Whether to ask for more: an interactive call does not wait long for a permit that was asked for bulk."""
        if not self._heap:
            return True
        return (
            lane is Lane.INTERACTIVE
            and self._heap[0][0] > now + FAR_OFF
            and all(asked_for is not lane for _, _, asked_for in self._heap)
        )

    def pop(self, due_by: float = math.inf) -> int | None:
        """Take the next one out and return its number; None when none is due by a time."""
        return heapq.heappop(self._heap)[1] if self._heap and self._heap[0][0] <= due_by else None


class PermitOutcomes:
    """Outcomes of permits that the store has not been told yet.

    Calls made by the fallback share, with permits of numbers below 0, are reported, too.  Times are the event loop's;
    the store is told how long ago something was.
    """

    __slots__ = ("_answered", "_held_at", "_in_flight", "_unused")

    def __init__(self) -> None:
        self._in_flight: dict[int, float] = {}
        self._held_at = -math.inf
        self._answered: deque[tuple[float, int]] = deque()
        self._unused: deque[int] = deque()

    def __bool__(self) -> bool:
        return bool(self._in_flight or self._answered or self._unused)

    def sent(self, permit: int, now: float) -> None:
        """Its call is sent now."""
        self._in_flight[permit] = now

    def answered(self, permit: int, when: float) -> None:
        """Its slot's second starts ``when``."""
        del self._in_flight[permit]
        self._answered.append((when, permit))

    def unsent(self, permit: int) -> None:
        """Its call was not sent after all."""
        del self._in_flight[permit]
        self._unused.append(permit)

    def unused(self, permit: int) -> None:
        """No call took it in time."""
        self._unused.append(permit)

    def forget(self, now: float) -> None:
        """Drop the outcomes that no longer concern other processes."""
        while self._answered and self._answered[0][0] < now - REMEMBERED:
            self._answered.popleft()

    def due(self, now: float) -> bool:
        """Whether there is something to tell."""
        return bool(self._answered or self._unused or self._held(now))

    def tell(self, request: Request, now: float) -> Told:
        """Put them into a request."""
        answered, unused = len(self._answered), len(self._unused)
        held = self._held(now)
        if answered:
            request["answered"] = [(str(permit), micro(now - when)) for when, permit in self._answered]
        if unused:
            request["unused"] = [str(permit) for permit in self._unused]
        if held:
            request["in_flight"] = [str(permit) for permit in held]

        def told() -> None:
            if held:
                self._held_at = now
            for _ in range(answered):
                self._answered.popleft()
            for _ in range(unused):
                self._unused.popleft()

        return told

    def _held(self, now: float) -> list[int]:
        """Permits of calls that have been in flight for a while, unless that was told just now."""
        if now < self._held_at + 0.9 * TICK:
            return []
        return [permit for permit, sent in self._in_flight.items() if permit < 0 or sent <= now - TICK]
