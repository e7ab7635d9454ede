"""What becomes of the permits that a shared quota gives out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

TICK = 0.1
"""Seconds between reports, and between attempts to reach a store that is away."""
REMEMBERED = 2.0
"""Seconds after which what became of a call no longer matters to anybody."""


class PermitOutcomes:
    """What became of the permits of one gate, as far as the store does not know it yet.

    Calls made without one, while the store was away, have numbers of their own, below 0; it is told of them, too.
    Times are the event loop's; the store is told how long ago something was.
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
        """Its call goes now."""
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
        """Nobody took it in time."""
        self._unused.append(permit)

    def forget(self, now: float) -> None:
        """Drop what matters to nobody any more."""
        while self._answered and self._answered[0][0] < now - REMEMBERED:
            self._answered.popleft()

    def due(self, now: float) -> bool:
        """Whether there is something to tell."""
        return bool(self._answered or self._unused or self._held(now))

    def report(self, now: float) -> tuple[list[str], Callable[[], None]]:
        """What to tell, as arguments; and what to call when it has been told."""
        answered, unused = len(self._answered), len(self._unused)
        held = self._held(now)
        arguments = [str(answered), str(unused), str(len(held))]
        for when, permit in self._answered:
            arguments += (str(permit), micro(now - when))
        arguments += map(str, self._unused)
        arguments += map(str, held)

        def told() -> None:
            if held:
                self._held_at = now
            for queue, count in ((self._answered, answered), (self._unused, unused)):
                for _ in range(count):
                    queue.popleft()

        return arguments, told

    def _held(self, now: float) -> list[int]:
        """Permits of calls that have been in flight for a while, unless that was told just now."""
        if now < self._held_at + 0.9 * TICK:
            return []
        return [permit for permit, sent in self._in_flight.items() if permit < 0 or sent <= now - TICK]


def micro(seconds: float) -> str:
    """A span of time as the store takes it."""
    return str(round(seconds * 1e6))
