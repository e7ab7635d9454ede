"""How the stand-in server counts: windows that accept or refuse an arrival.  Pure; time is an argument.

The service does not document the shape of its window, so the two that differ most are here.  A sliding
second is the stricter one: it also refuses the burst that straddles two calendar seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Window(Protocol):
    """A rule of at most so many arrivals a second."""

    def arrive(self, now: float) -> bool:
        """Count one arrival; False when it is refused."""

    def take(self, now: float) -> None:
        """Count one arrival whatever the window holds: somebody else's, who shares the quota."""


class Unlimited:
    """Refuses nothing; for measurements in which nothing should wait."""

    def arrive(self, now: float) -> bool:  # noqa: ARG002
        return True

    def take(self, now: float) -> None:
        pass


class SlidingSecond:
    """Refuses an arrival when the second before it already holds `limit`."""

    def __init__(self, limit: int, *, count_refused: bool = False) -> None:
        self._limit = limit
        self._count_refused = count_refused
        self._times: deque[float] = deque()

    def arrive(self, now: float) -> bool:
        # An arrival exactly one second old has left the window, so 1.000 s apart is just far enough.
        while self._times and self._times[0] <= now - 1.0:
            self._times.popleft()
        accepted = len(self._times) < self._limit
        if accepted or self._count_refused:
            self._times.append(now)
        return accepted

    def take(self, now: float) -> None:
        self._times.append(now)


class CalendarSecond:
    """Refuses an arrival when its own second of the wall clock already holds `limit`."""

    def __init__(self, limit: int, *, wall_offset: float = 0.0) -> None:
        self._limit = limit
        self._offset = wall_offset
        self._second = -1
        self._count = 0

    def arrive(self, now: float) -> bool:
        self._turn(now)
        if self._count >= self._limit:
            return False
        self._count += 1
        return True

    def take(self, now: float) -> None:
        self._turn(now)
        self._count += 1

    def _turn(self, now: float) -> None:
        second = int(now + self._offset)
        if second != self._second:
            self._second, self._count = second, 0


class TokenBucket:
    """Refuses an arrival that finds no whole token; `limit` of them come in a second, `size` are kept."""

    def __init__(self, limit: int, size: int) -> None:
        self._limit = limit
        self._size = size
        self._tokens = float(size)
        self._at = -math.inf

    def arrive(self, now: float) -> bool:
        self._fill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def take(self, now: float) -> None:
        self._fill(now)
        self._tokens = max(0.0, self._tokens - 1.0)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(float(self._size), self._tokens + (now - self._at) * self._limit)
            self._at = now


@dataclass
class Foreign:
    """Somebody else who takes `rate` calls a second of the quota, between two times after the first arrival."""

    rate: float = 0.0
    start: float = 0.0
    end: float = 0.0
    taken: int = field(default=0, compare=False)

    def due(self, since_first: float) -> list[float]:
        """The times, since the first arrival, of the calls made up to now and not yet handed out."""
        if not self.rate:
            return []
        until = min(since_first, self.end)
        count = max(0, int((until - self.start) * self.rate))
        times = [self.start + (n + 1) / self.rate for n in range(self.taken, count)]
        self.taken = max(self.taken, count)
        return times


def fullest_second(arrivals: Sequence[float]) -> int:
    """The most arrivals that any sliding second holds; `arrivals` must be in order."""
    fullest = first = 0
    for last, time in enumerate(arrivals):
        while arrivals[first] <= time - 1.0:
            first += 1
        fullest = max(fullest, last - first + 1)
    return fullest
