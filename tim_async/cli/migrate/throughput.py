"""The rate at which rows are settled, and the estimated time left."""

from __future__ import annotations

from collections import deque

_WINDOW = 120.0
"""Length of the measured window, seconds; short enough to show a changed pace."""
_SPACING = 1.0
"""Minimum interval between two kept observations, seconds."""
_MIN_SECONDS = 1e-3
"""Minimum time, in seconds, for a rate."""


class Throughput:
    """The rate over the last two minutes in which the service accepted rows; outages do not count.

    Args:
        now: the start of the run, seconds on a monotonic clock.
        settled: rows that were settled before it.
    """

    def __init__(self, now: float, settled: int) -> None:
        self._observations = deque([(now, settled)])
        self._latest = (now, settled)
        self._paused = False

    def advance(self, now: float, settled: int) -> None:
        """Record the number of rows settled at ``now``."""
        if self._paused:
            return
        self._latest = (max(now, self._latest[0]), settled)
        if now >= self._observations[-1][0] + _SPACING:
            self._observations.append(self._latest)
        while len(self._observations) > 2 and self._observations[1][0] <= now - _WINDOW:
            self._observations.popleft()

    def pause(self) -> None:
        """Record an outage, which lasts until `resume` and began when a row was last settled."""
        self._paused = True
        while len(self._observations) > 1 and self._observations[-1][1] == self._latest[1] == self._observations[-2][1]:
            self._observations.pop()
        if self._observations[-1][1] == self._latest[1]:
            self._latest = self._observations[-1]

    def resume(self, now: float) -> None:
        """Record the end of an outage."""
        if self._paused:
            self._paused = False
            away = max(0.0, now - self._latest[0])
            self._observations = deque((then + away, settled) for then, settled in self._observations)
            self._latest = (self._latest[0] + away, self._latest[1])

    @property
    def rate(self) -> float | None:
        """Rows/s; None while unknown."""
        (began, before), (now, settled) = self._observations[0], self._latest
        return (settled - before) / (now - began) if settled > before and now - began > _MIN_SECONDS else None

    def seconds_left(self, rows: int, now: float) -> float | None:
        """Estimate the seconds from ``now`` until the end.

        Args:
            rows: the rows left at the last `advance`.
            now: seconds on the same clock.

        Returns:
            The seconds, 0 if no rows are left; None while unknown.
        """
        if rows <= 0:
            return 0.0
        rate = self.rate
        return None if rate is None or self._paused else max(0.0, rows / rate - max(0.0, now - self._latest[0]))
