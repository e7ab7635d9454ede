"""What a process does without the shared quota's store: it uses a share of the limit by itself, or waits."""

from __future__ import annotations

import math
from collections.abc import Callable

from tim_async._lanes import Lane

from .local import LocalLimiter, Permit, Use
from .reply import StoreView
from .sharing import Shares

LOSS_SILENCE = 0.3
"""Seconds without a call when the store is lost: otherwise the calls it let go would meet a burst of those made
alone."""
RETURN_SILENCE = 0.15
"""Seconds without a call before the store grants again; longer than a tick, so that all calls are reported by then."""
ASSUMED_MEMBERS = 50
"""Processes that are assumed to take part until the store has said how many do."""


def timetable_silence(limit: float) -> float:
    """Seconds without a call where there is no burst: by so much sooner than in a second the store lets its calls go.

    It does so by the pace and the tolerance in ``quota.lua``.  Timetables are not quite even, hence the rest.

    Args:
        limit: calls/s.
    """
    burst = max(4.0 / limit, 0.05)
    return max(0.0, 1.0 - (1.0 - burst) / 1.1) + 4.0 / limit + 0.01


def unevenness(processes: float) -> float:
    """Calls that a span of time may hold beyond the mean where so many timetables are spread by `StoreView.phase`."""
    return 1.0 + 0.41 * math.log(processes)


class Timetable:
    """Calls one by one, each at its time: as many processes call evenly, none of them often.

    Where the limit is shared by many, the calls that each may make in a second are few or less than one, and what
    matters is that they do not all come at the same time.  So each has its own times, spread by a phase.

    Args:
        rate: calls/s, above 0.
        phase: which of the evenly spread times, 0 to 1.
        clock: turns a loop time into one that all processes share, more or less.
    """

    __slots__ = ("_clock", "_period", "_phase", "_stretch", "_used")

    TOLERANCE = 0.02
    """Seconds after its time at which a call may still go."""
    MAX_STRETCH = 8
    """At most so many times are left out after refusals."""

    def __init__(self, rate: float, phase: float, clock: Callable[[float], float]) -> None:
        self._period = 1.0 / rate
        self._phase = phase
        self._clock = clock
        self._used = -math.inf
        self._stretch = 1

    def wait(self, now: float, lane: Lane) -> float:  # noqa: ARG002 - there is one time for both lanes
        """Seconds until one call may go: 0 for now."""
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
        """Return a permit; an answer that is no refusal makes up for one that was."""
        if use is Use.ANSWERED and self._stretch > 1:
            self._stretch -= 1

    def refused(self, sent: float, now: float) -> None:  # noqa: ARG002 - as a `LocalLimiter`
        """The server refused a call: leave out some times."""
        self._stretch = min(self.MAX_STRETCH, 2 * self._stretch + 1)

    def slow_down(self, accepted: float, now: float) -> None:
        """An alert says that the server accepts only a share, 0 to 1, of the calls."""
        if accepted < 1.0:
            self.refused(now, now)

    def drain(self) -> None:
        """Nothing to do: there is no burst."""

    def set_limit(self, limit: float) -> None:
        """Change the rate, calls/s, above 0."""
        self._period = 1.0 / limit
        self._used = -math.inf

    def rate(self, now: float) -> float:  # noqa: ARG002 - as a `LocalLimiter`
        """Calls/s."""
        return 1.0 / (self._period * self._stretch)

    def _time(self, turn: float) -> float:
        return (turn + self._phase) * self._period


class Fallback:
    """A process's own share of an endpoint's limit.

    Args:
        limit: calls/s.
        shares: the parts of it that matter to this process.
        store: what is known from the store's replies.
        strict: as `LocalLimiter` takes it.
    """

    __slots__ = ("_limit", "_limiter", "_settles_at", "_share", "_shares", "_silent_until", "_store", "_strict")

    TIMETABLE_BELOW = 10.0
    """Calls/s below which a timetable is better than slots, which come in whole numbers."""
    MARGIN = 0.94
    """Share of the limit that all timetables together fill at most: they do not see each other's calls."""

    def __init__(self, limit: float, shares: Shares, store: StoreView, *, strict: bool) -> None:
        self._limit = limit
        self._shares = shares
        self._store = store
        self._strict = strict
        self._share = 1.0
        self._limiter: LocalLimiter | Timetable | None = None
        self._silent_until = self._settles_at = -math.inf

    def begin(self, now: float, last: float) -> None:
        """The store is lost; the last call that it let go is sent at a loop time."""
        if self._shares.fail_closed:
            return
        store, alone = self._store, self._shares.fallback
        self._share = 1.0 / (store.members or ASSUMED_MEMBERS) if alone is None else alone
        rate = self._share * min(self._limit, store.limit)
        if rate < self.TIMETABLE_BELOW:
            self._limiter = Timetable(self._timetable_rate(rate), store.phase, lambda loop: loop + store.clock_offset)
            # The others' last calls may be later than its own.
            self._silent_until = max(now, last) + timetable_silence(min(self._limit, store.limit))
        else:
            self._limiter = LocalLimiter(rate, strict=self._strict, burst=2.0)
            self._silent_until = last + LOSS_SILENCE

    def settles(self, at: float) -> None:
        """The store grants again from a loop time on."""
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
        """Seconds until one call may go: 0 for now; infinity when only the store can tell."""
        if self._limiter is None:
            return math.inf
        if now < self._silent_until:
            return self._silent_until - now
        if self._silent_until > -math.inf:
            self._silent_until = -math.inf
            self._limiter.drain()
        hushed = self._settles_at + RETURN_SILENCE - now
        return hushed if 0.0 < hushed <= 2 * RETURN_SILENCE else self._limiter.wait(now, lane)

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        if self._limiter is None:
            raise RuntimeError("there is no permit to take: no call goes without the store")
        permit = self._limiter.take(now)
        permit.source = self._limiter  # which may be another one in the next outage
        return permit

    def _timetable_rate(self, rate: float) -> float:
        """Calls/s of a share of so many: all timetables together keep the limit in any second, also a small one."""
        room = rate - self._share * unevenness(1.0 / self._share)
        return min(self.MARGIN * rate, max(room, rate / 3))

    def refused(self, sent: float, now: float) -> None:
        """The server refused a call."""
        if self._limiter is not None:
            self._limiter.refused(sent, now)

    def slow_down(self, accepted: float, now: float) -> None:
        """An alert says that the server accepts only a share, 0 to 1, of the calls."""
        if self._limiter is not None:
            self._limiter.slow_down(accepted, now)

    def rate(self, now: float, otherwise: float) -> float:
        """Calls/s that this process lets go by itself at most; ``otherwise`` where it waits for the store."""
        return otherwise if self._limiter is None else self._limiter.rate(now)
