"""Rate windows: three meanings of "200 calls a second".

The service documents its limit, but not how it counts calls.  Three ways are common, and a client must comply with
each:

* *sliding*: no second, wherever it starts, has more calls than the limit;
* *calendar*: no second of the clock has more; across a boundary, twice the limit can pass within a second;
* *bucket*: each call fills a bucket of ``capacity`` by one, and it drains at the limit's rate.

A second is half open, ``[t, t + 1)``: two calls exactly one second apart are never in the same one.  Times are seconds
of one clock and never run backwards.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, get_args

WindowKind = Literal["sliding", "calendar", "bucket"]


class SlidingSecond:
    """The calls within the last second."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._now = 0.0

    def count(self, now: float) -> float:
        """Return the number of calls at ``now``, before this one."""
        while self._times and self._times[0] <= now - 1.0:
            self._times.popleft()
        self._now = now
        return len(self._times)

    def add(self) -> None:
        """Add the call of the last `count`."""
        self._times.append(self._now)


class CalendarSecond:
    """The calls of the current second of the clock."""

    def __init__(self) -> None:
        self._second = 0
        self._calls = 0

    def count(self, now: float) -> float:
        """Return the number of calls at ``now``, before this one."""
        if int(now // 1) != self._second:
            self._second, self._calls = int(now // 1), 0
        return self._calls

    def add(self) -> None:
        """Add the call of the last `count`."""
        self._calls += 1


class Bucket:
    """The level of a bucket that each call fills by one and that drains at ``rate`` a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._level = 0.0
        self._now = 0.0

    def count(self, now: float) -> float:
        """Return the level at ``now``, before this call."""
        self._level = max(0.0, self._level - (now - self._now) * self._rate)
        self._now = now
        return self._level

    def add(self) -> None:
        """Add the call of the last `count`."""
        self._level += 1.0


class Window:
    """A rate window, which admits or refuses calls.

    Args:
        kind: ``"sliding"``, ``"calendar"`` or ``"bucket"``.
        limit: calls a second, at least 1.
        capacity: the capacity of the bucket, at least 1; ``limit`` by default; ignored by the other kinds.
        count_refused: whether refused calls count in a sliding second too, so that hammering keeps it closed.

    Raises:
        ValueError: an unknown kind, or a limit or capacity below 1.
    """

    def __init__(
        self, kind: WindowKind, limit: int, *, capacity: int | None = None, count_refused: bool = False
    ) -> None:
        if not (limit >= 1 and (capacity is None or capacity >= 1)):  # refuses NaN, too
            raise ValueError(f"a limit and a capacity must be at least 1, not {limit} and {capacity}")
        if kind not in get_args(WindowKind):
            raise ValueError(f"no such window: {kind!r}; choose from {', '.join(get_args(WindowKind))}")
        self._counter: SlidingSecond | CalendarSecond | Bucket = Bucket(limit)
        self._capacity = capacity or limit
        if kind != "bucket":
            self._counter = SlidingSecond() if kind == "sliding" else CalendarSecond()
            self._capacity = limit
        self._count_refused = count_refused and kind == "sliding"

    def admit(self, now: float) -> bool:
        """Count a call that arrives at ``now``; return False if it is over the limit."""
        admitted = self._counter.count(now) + 1 <= self._capacity
        if admitted or self._count_refused:
            self._counter.add()
        return admitted

    def fill(self, now: float) -> None:
        """Count a call of another consumer of the rate, which is never refused."""
        self._counter.count(now)
        self._counter.add()
