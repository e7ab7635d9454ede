"""Parts of a counting server besides the emulator's `Window`: another consumer, and the fullest second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Foreign:
    """Another consumer, which makes `rate` calls a second between two times after the first arrival."""

    rate: float = 0.0
    start: float = 0.0
    end: float = 0.0
    taken: int = field(default=0, compare=False)

    def due(self, since_first: float) -> list[float]:
        """Return the times, since the first arrival, of its calls up to now that were not returned yet."""
        if not self.rate:
            return []
        until = min(since_first, self.end)
        count = max(0, int((until - self.start) * self.rate))
        times = [self.start + (n + 1) / self.rate for n in range(self.taken, count)]
        self.taken = max(self.taken, count)
        return times


def fullest_second(arrivals: Sequence[float]) -> int:
    """Return the maximum number of arrivals in a sliding second; `arrivals` must be in order."""
    fullest = first = 0
    for last, time in enumerate(arrivals):
        while arrivals[first] <= time - 1.0:
            first += 1
        fullest = max(fullest, last - first + 1)
    return fullest
