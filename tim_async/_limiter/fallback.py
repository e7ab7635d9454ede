"""The pace of a process while the store of the quota is unreachable: its own share of the limit, or a wait."""

from __future__ import annotations

import math
from collections.abc import Callable

from tim_async._lanes import Lane

from .local import LocalLimiter, Permit, Use
from .reply import StoreView
from .sharing import Shares

LOSS_SILENCE = 0.3
"""Seconds without a call after the loss of the store: otherwise the calls that it permitted would meet a burst of
calls made alone."""
RETURN_SILENCE = 0.15
"""Seconds without a call before the store grants again; longer than a tick, so that all calls are reported first."""
ASSUMED_MEMBERS = 50
"""Members assumed before the store's first reply."""


def timetable_silence(limit: float) -> float:
    """Return the seconds without a call before a timetable begins.

    By the pace and the tolerance in ``quota.lua``, the store may have permitted the calls of a second that much sooner.
    The rest is for timetables, which are not quite even.

    Args:
        limit: calls/s.
    """
    burst = max(4.0 / limit, 0.05)
    return max(0.0, 1.0 - (1.0 - burst) / 1.1) + 4.0 / limit + 0.01


def unevenness(processes: float) -> float:
    """Return the calls, beyond the mean, in any period of as many timetables, spread by `StoreView.phase`."""
    return 1.0 + 0.41 * math.log(processes)


class Timetable:
    """The limiter of a small share: single calls at fixed times.

    Where many processes share the limit, each may make few calls a second, or less than one, and they must not all call
    at the same time.  So each has its own times, spread by a phase.

    Args:
        rate: calls/s, above 0.
        phase: the phase of its times, 0 to 1.
        clock: converts a loop time to the fleet's clock.
    """

    TOLERANCE = 0.02
    """Seconds after its time within which a call may still be sent."""
    MAX_STRETCH = 8
    """The largest multiple of the period between calls, after refusals."""

    def __init__(self, rate: float, phase: float, clock: Callable[[float], float]) -> None:
        self._period = 1.0 / rate
        self._phase = phase
        self._clock = clock
        self._used = -math.inf
        self._stretch = 1

    def wait(self, now: float, lane: Lane) -> float:  # noqa: ARG002 - there is one time for both lanes
        """Return the seconds until a permit is free: 0 for now."""
        at = self._clock(now)
        turn = math.floor(at / self._period - self._phase)
        if turn >= self._used + self._stretch and at - self._time(turn) <= self.TOLERANCE:
            return 0.0
        return max(1e-4, self._time(max(turn + 1, self._used + self._stretch)) - at)

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        self._used = math.floor(self._clock(now) / self._period - self._phase)
        return Permit(now)

    def release(self, permit: Permit, now: float, use: Use) -> None:  # noqa: ARG002 - as a `LocalLimiter`
        """Return a permit; an answer shortens the period by one step."""
        if use is Use.ANSWERED and self._stretch > 1:
            self._stretch -= 1

    def refused(self, sent: float, now: float) -> None:  # noqa: ARG002 - as a `LocalLimiter`
        """Skip some times after a refusal."""
        self._stretch = min(self.MAX_STRETCH, 2 * self._stretch + 1)

    def slow_down(self, accepted: float, now: float) -> None:
        """Skip some times after an alert that the server accepts only a share, 0 to 1, of the calls."""
        if accepted < 1.0:
            self.refused(now, now)

    def drain(self) -> None:
        """Do nothing: a timetable has no burst."""

    def set_limit(self, limit: float) -> None:
        """Change the rate, calls/s, above 0."""
        self._period = 1.0 / limit
        self._used = -math.inf

    def rate(self, now: float) -> float:  # noqa: ARG002 - as a `LocalLimiter`
        """Return the current rate, calls/s."""
        return 1.0 / (self._period * self._stretch)

    def _time(self, turn: float) -> float:
        return (turn + self._phase) * self._period


class Fallback:
    """The fallback share of a process, on one endpoint.

    Args:
        limit: the limit of all processes together, calls/s.
        shares: the shares of this process.
        store: the view of the quota.
        strict: as for `LocalLimiter`.
    """

    TIMETABLE_BELOW = 10.0
    """Calls/s below which a timetable replaces slots, which are whole numbers."""
    MARGIN = 0.94
    """The largest share of the limit that all timetables together fill: no process knows the others' calls."""

    def __init__(self, limit: float, shares: Shares, store: StoreView, *, strict: bool) -> None:
        self._limit = limit
        self._shares = shares
        self._store = store
        self._strict = strict
        self._share = 1.0
        self._limiter: LocalLimiter | Timetable | None = None
        self._silent_until = self._settles_at = -math.inf

    def begin(self, now: float, last: float) -> None:
        """Begin when the store is lost; ``last`` is the loop time of the last call that it permitted."""
        if self._shares.fail_closed:
            return
        store, share = self._store, self._shares.fallback
        self._share = 1.0 / (store.members or ASSUMED_MEMBERS) if share is None else share
        rate = self._share * min(self._limit, store.limit)
        if rate < self.TIMETABLE_BELOW:
            self._limiter = Timetable(self._timetable_rate(rate), store.phase, lambda loop: loop + store.clock_offset)
            # The others' last calls may be later than its own.
            self._silent_until = max(now, last) + timetable_silence(min(self._limit, store.limit))
        else:
            self._limiter = LocalLimiter(rate, strict=self._strict, burst=2.0)
            self._silent_until = last + LOSS_SILENCE

    def settles(self, at: float) -> None:
        """Set the loop time from which the store grants again."""
        self._settles_at = at

    def set_limit(self, limit: float) -> None:
        """Change the limit, calls/s."""
        self._limit = limit
        match self._limiter:
            case Timetable():
                self._limiter.set_limit(self._timetable_rate(self._share * limit))
            case LocalLimiter():
                self._limiter.set_limit(max(1.0, self._share * limit))

    def wait(self, now: float, lane: Lane) -> float:
        """Return the seconds until a permit is free: 0 for now; infinity when only the store grants any."""
        if self._limiter is None:
            return math.inf
        if now < self._silent_until:
            return self._silent_until - now
        if self._silent_until > -math.inf:
            self._silent_until = -math.inf
            self._limiter.drain()
        silence = self._settles_at + RETURN_SILENCE - now
        return silence if 0.0 < silence <= 2 * RETURN_SILENCE else self._limiter.wait(now, lane)

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        if self._limiter is None:
            raise RuntimeError("there is no permit to take: no call is sent without the store")
        permit = self._limiter.take(now)
        permit.release_inner = self._limiter.release  # the next outage has another one
        return permit

    def _timetable_rate(self, rate: float) -> float:
        """Return the timetable's rate for a share of ``rate`` calls/s: all timetables keep the limit in any second."""
        room = rate - self._share * unevenness(1.0 / self._share)
        return min(self.MARGIN * rate, max(room, rate / 3))

    def refused(self, sent: float, now: float) -> None:
        """Slow down after a refusal."""
        if self._limiter is not None:
            self._limiter.refused(sent, now)

    def slow_down(self, accepted: float, now: float) -> None:
        """Slow down after an alert that the server accepts only a share, 0 to 1, of the calls."""
        if self._limiter is not None:
            self._limiter.slow_down(accepted, now)

    def rate(self, now: float, otherwise: float) -> float:
        """Return the rate of this process alone, calls/s; ``otherwise`` where it waits for the store."""
        return otherwise if self._limiter is None else self._limiter.rate(now)
