"""How fast rows are settled, and so how long the rest will take."""

from __future__ import annotations

from collections import deque

_WINDOW = 120.0
"""Seconds that are looked back, so that a changed pace shows."""
_SPACING = 1.0
"""Seconds between two observations that are kept."""
_MIN_SECONDS = 1e-3
"""Seconds below which nothing can be said."""


class Throughput:
    """Rows a second over the last two minutes in which the service accepted rows: an outage says nothing of the speed.

    Args:
        now: when the run began, seconds on a clock of any origin.
        settled: rows that were settled by then.
    """

    def __init__(self, now: float, settled: int) -> None:
        self._observations = deque([(now, settled)])
        self._latest = (now, settled)
        self._waiting = False

    def advance(self, now: float, settled: int) -> None:
        """Note how many rows are settled by ``now``."""
        if self._waiting:
            return
        self._latest = (max(now, self._latest[0]), settled)
        if now >= self._observations[-1][0] + _SPACING:
            self._observations.append(self._latest)
        while len(self._observations) > 2 and self._observations[1][0] <= now - _WINDOW:
            self._observations.popleft()

    def pause(self) -> None:
        """Note that nothing is accepted, until `resume`; the time since rows were settled last is part of that."""
        self._waiting = True
        while len(self._observations) > 1 and self._observations[-1][1] == self._latest[1] == self._observations[-2][1]:
            self._observations.pop()
        if self._observations[-1][1] == self._latest[1]:
            self._latest = self._observations[-1]

    def resume(self, now: float) -> None:
        """Note that rows are accepted again."""
        if self._waiting:
            self._waiting = False
            away = max(0.0, now - self._latest[0])
            self._observations = deque((then + away, settled) for then, settled in self._observations)
            self._latest = (self._latest[0] + away, self._latest[1])

    @property
    def rate(self) -> float | None:
        """Rows a second; None as long as nothing is known."""
        (began, before), (now, settled) = self._observations[0], self._latest
        return (settled - before) / (now - began) if settled > before and now - began > _MIN_SECONDS else None

    def seconds_left(self, rows: int, now: float) -> float | None:
        """Seconds from ``now`` until the end.

        Args:
            rows: those that were left at the last `advance`.
            now: seconds, on the same clock.

        Returns:
            At least 0, and 0 when no rows are left; None while it cannot be known.
        """
        if rows <= 0:
            return 0.0
        rate = self.rate
        return None if rate is None or self._waiting else max(0.0, rows / rate - max(0.0, now - self._latest[0]))
