"""What "200 calls a second" can mean, and how full a second was.

The service says how many calls a second it allows and not how it counts them.  Three ways are common, and a client
that wants to be sure has to be right under each:

* *sliding*: no second, wherever it starts, may hold more than the limit;
* *calendar*: no second of the clock may; around a full second twice the limit can pass;
* *bucket*: a bucket of ``capacity`` permits is filled at the limit's rate; a call takes one.

Everywhere a second is half open, ``[t, t + 1)``: two calls exactly one second apart never share one.  Times are
seconds of one clock and never run backwards.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, Protocol, get_args

WindowKind = Literal["sliding", "calendar", "bucket"]


class Window(Protocol):
    """Decides whether a call that arrives now is within the limit."""

    def admit(self, now: float) -> bool:
        """Count a call that arrives at ``now``; False when it is over the limit."""
        ...  # pragma: no cover


def make_window(kind: WindowKind, limit: int, *, capacity: int | None = None, count_refused: bool = False) -> Window:
    """A window of the kind asked for.

    Args:
        kind: ``"sliding"``, ``"calendar"`` or ``"bucket"``.
        limit: calls a second, at least 1.
        capacity: what the bucket holds, at least 1; ``limit`` by default; of no meaning elsewhere.
        count_refused: whether refused calls fill the window too, so that hammering keeps it shut; a bucket
            that is empty has nothing to take and counts the same either way.

    Raises:
        ValueError: an unknown kind, or a limit or capacity below 1.
    """
    if limit < 1 or (capacity is not None and capacity < 1):
        raise ValueError(f"a limit and a capacity are at least 1, not {limit} and {capacity}")
    match kind:
        case "sliding":
            return SlidingWindow(limit, count_refused)
        case "calendar":
            return CalendarWindow(limit)
        case "bucket":
            return Bucket(limit, limit if capacity is None else capacity)
    raise ValueError(f"no such window: {kind!r}; there are {', '.join(get_args(WindowKind))}")


class SlidingWindow:
    """At most ``limit`` counted calls in any second."""

    def __init__(self, limit: int, count_refused: bool = False) -> None:
        self._limit = limit
        self._count_refused = count_refused
        self._counted: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Count a call that arrives at ``now``; False when it is over the limit."""
        counted = self._counted
        while counted and counted[0] <= now - 1.0:
            counted.popleft()
        admitted = len(counted) < self._limit
        if admitted or self._count_refused:
            counted.append(now)
            # With the limit reached, only the newest `limit` calls can decide when it opens again.
            if len(counted) > self._limit:
                counted.popleft()
        return admitted


class CalendarWindow:
    """At most ``limit`` calls in each second of the clock; its turn opens it again, however many were refused."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = 0
        self._counted = 0

    def admit(self, now: float) -> bool:
        """Count a call that arrives at ``now``; False when it is over the limit."""
        second = int(now // 1)
        if second != self._second:
            self._second, self._counted = second, 0
        if self._counted >= self._limit:
            return False
        self._counted += 1
        return True


class Bucket:
    """``capacity`` permits at first, ``rate`` a second from then on, never more than ``capacity`` at once."""

    def __init__(self, rate: int, capacity: int) -> None:
        self._rate = rate
        self._capacity = capacity
        self._level = float(capacity)
        self._filled_at: float | None = None

    def admit(self, now: float) -> bool:
        """Count a call that arrives at ``now``; False when it is over the limit."""
        if self._filled_at is not None:
            self._level = min(self._capacity, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True


class FullestSeconds:
    """The most calls that any second held, over all that was counted; remembers one second's worth of them.

    Attributes:
        sliding: the most in a second that may start anywhere.
        calendar: the most in a second of the clock.
    """

    def __init__(self) -> None:
        self.sliding = 0
        self.calendar = 0
        self._recent: deque[float] = deque()
        self._second = 0
        self._in_second = 0

    def count(self, now: float) -> None:
        """Count a call that arrived at ``now``."""
        recent = self._recent
        recent.append(now)
        while recent[0] <= now - 1.0:
            recent.popleft()
        self.sliding = max(self.sliding, len(recent))
        second = int(now // 1)
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        self.calendar = max(self.calendar, self._in_second)
