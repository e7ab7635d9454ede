"""How fast rows are settled, and so how long the rest will take."""

from __future__ import annotations

import math

_MEMORY = 120.0
_LEAST = 1e-3
"""Seconds below which nothing can be said; what subtracting leaves of no time at all is less."""


class Throughput:
    """Rows a second over the run so far, where a row counts the less the longer ago it was settled.

    At first that is the plain average, so that the first estimate is a fair one; later the last few minutes decide, so
    that a changed pace shows.  Time in which the service accepted nothing is left out: an outage says nothing of the
    speed after it.

    Args:
        now: when the run began, seconds on a clock of any origin.
        settled: rows that were settled by then.
        memory: seconds after which an observation counts 1/e.
    """

    def __init__(self, now: float, settled: int, *, memory: float = _MEMORY) -> None:
        self._memory = memory
        self._since = self._now = self._grew = now
        self._settled = settled
        self._waiting = False
        # Both fade alike; their quotient is the rate.
        self._rows = 0.0
        self._seconds = 0.0

    def advance(self, now: float, settled: int) -> None:
        """Note how many rows are settled by ``now``."""
        rows, self._settled = settled - self._settled, settled
        passed = now - self._now
        if self._waiting:
            return
        if passed <= 0.0:
            self._rows += rows
            return
        self._now = now
        if rows:
            self._grew = now
        seconds = self._faded(passed)
        fading = math.exp(-passed / self._memory)
        # As if they had come evenly in that time, so that it does not matter how often one looks.
        self._rows = self._rows * fading + rows * seconds / passed
        self._seconds = self._seconds * fading + seconds

    def wait(self, now: float, seconds: float) -> None:
        """Note that nothing has been accepted for ``seconds``, and that this will last until `resume`."""
        if self._waiting:
            return
        self._waiting = True
        # It was taken for work until retries had shown it to be an outage.
        began = max(min(now - seconds, self._grew), self._since)
        mistaken = max(0.0, self._now - began)
        self._seconds = max(0.0, self._seconds - self._faded(mistaken))

    def resume(self, now: float) -> None:
        """Note that rows are accepted again."""
        self._waiting = False
        self._since = self._now = self._grew = max(now, self._now)

    @property
    def rate(self) -> float | None:
        """Rows a second; None as long as nothing is known."""
        return self._rows / self._seconds if self._rows > 0.0 and self._seconds > _LEAST else None

    def left(self, rows: int, now: float) -> float | None:
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
        return None if rate is None or self._waiting else max(0.0, rows / rate - max(0.0, now - self._now))

    def _faded(self, seconds: float) -> float:
        """The weight of the last ``seconds``."""
        return -self._memory * math.expm1(-seconds / self._memory)
