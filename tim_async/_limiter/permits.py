"""The permits of a shared quota: those not used yet, and the calls of this process that the store must count."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from tim_async._lanes import Lane

from .request import Request, micro

GRACE = 0.1
"""Seconds after which an unused permit is void: its slot may have been granted to another process."""
FAR_OFF = 0.01
"""Seconds from which an interactive call does not wait for a permit that was requested for bulk."""


class GrantedPermits:
    """The permits that were granted and not used yet, the next one first.  Times are the event loop's."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Lane]] = []
        self._latest = -math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, lane: Lane) -> None:
        """Add a permit that was requested for a lane and may be used from ``due`` on."""
        self._latest = max(due, self.latest())
        heapq.heappush(self._heap, (due, lane))

    def soonest(self) -> float:
        """Return the time at which the next permit is due; infinity without any."""
        return self._heap[0][0] if self._heap else math.inf

    def latest(self) -> float:
        """Return the time at which the last permit is due; minus infinity without any."""
        return self._latest if self._heap else -math.inf

    def suits(self, lane: Lane, now: float) -> bool:
        """Whether a permit suits a lane: an interactive call does not wait long for one that was requested for bulk."""
        if not self._heap:
            return False
        return (
            lane is not Lane.INTERACTIVE
            or self._heap[0][0] <= now + FAR_OFF
            or any(requested_for is lane for _, requested_for in self._heap)
        )

    def pop(self, due_by: float = math.inf) -> float | None:
        """Remove the next permit and return the time at which it was due; None when none is due by ``due_by``."""
        return heapq.heappop(self._heap)[0] if self._heap and self._heap[0][0] <= due_by else None


@dataclass(slots=True)
class _Cooling:
    """Calls that have ended, and still count.

    Attributes:
        until: the loop time from which they no longer count.
        calls: their number.
        request: number of the request that first reported them; 0 for none yet.
    """

    until: float
    calls: int = 1
    request: int = 0


class Ledger:
    """The calls of this process that the store counts: those that are out, and those that cool.

    A report is kept until its calls no longer count, for a store that has lost its data.  Times are the event loop's;
    reports hold the seconds from now.

    Attributes:
        in_flight: calls under way, permitted by the store or by the fallback share.
    """

    MERGED_WITHIN = 0.001
    """Seconds within which the ends of calls are reported as one."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._cooling: deque[_Cooling] = deque()

    def cool(self, until: float) -> None:
        """Count a call that has ended until a loop time."""
        last = self._cooling[-1] if self._cooling else None
        if last is not None and last.request == 0 and abs(until - last.until) < self.MERGED_WITHIN:
            last.until = max(until, last.until)
            last.calls += 1
        else:
            self._cooling.append(_Cooling(until))

    def unreported(self) -> bool:
        """Whether the end of a call is still to be reported."""
        return bool(self._cooling) and self._cooling[-1].request == 0

    def counted(self, now: float) -> bool:
        """Whether any call of this process still counts."""
        self._expire(now)
        return bool(self.in_flight or self._cooling)

    def report_again(self, last_reply: int) -> None:
        """Mark all that was reported up to the request of the last reply as unreported: the store has lost its data."""
        for entry in self._cooling:
            if entry.request <= last_reply:
                entry.request = 0

    def report(self, request: Request, now: float, unused: int, last_reply: int) -> None:
        """Put the calls into a request.

        Args:
            request: the request, with its number.
            now: loop time.
            unused: number of unused permits.
            last_reply: number of the last request that the store has replied to.
        """
        self._expire(now)
        request["out"] = self.in_flight + unused
        number = request["number"]
        reported = []
        for entry in self._cooling:
            if entry.request == 0:
                entry.request = number
            if entry.request > last_reply:
                reported.append((entry.request, micro(entry.until - now), entry.calls))
        if reported:
            request["freed"] = reported

    def _expire(self, now: float) -> None:
        cooling = self._cooling
        while cooling and cooling[0].until <= now:
            cooling.popleft()
