"""What a process does without the shared quota's store: it uses a share of the limit by itself, or waits."""

from __future__ import annotations

import math
import random

from tim_async._lanes import Lane

from .local import LocalLimiter, Permit, Use

QUIET = 0.3
"""Seconds without a call when the store is lost: otherwise the calls it let go would meet those made alone."""
HUSH = 0.15
"""Seconds without a call before the store grants again; longer than a tick, so that all calls are reported by then."""


class Fallback:
    """A process's own share of an endpoint's limit.

    Its permits have negative numbers, drawn at random, so that the store can be told of them, too.

    Args:
        limit: calls/s.
        share: the part of it that this process may use alone, above 0 and up to 1; None to let no call go.
        strict: as `LocalLimiter` takes it.
    """

    __slots__ = ("_limiter", "_quiet_until", "_settles_at", "_share")

    def __init__(self, limit: float, share: float | None, *, strict: bool) -> None:
        self._limiter: LocalLimiter | None = None
        self._share = share
        if share is not None:
            self._limiter = LocalLimiter(max(1.0, share * limit), strict=strict, burst=2.0)
        self._quiet_until = self._settles_at = -math.inf

    def set_limit(self, limit: float) -> None:
        """Change the limit, calls/s."""
        if self._limiter is not None and self._share is not None:
            self._limiter.set_limit(max(1.0, self._share * limit))

    def begin(self, last: float) -> None:
        """The store is lost; the last call that it let go is sent at a loop time."""
        self._quiet_until = last + QUIET

    def settles(self, at: float) -> None:
        """The store grants again from a loop time on."""
        self._settles_at = at

    def wait(self, now: float, lane: Lane) -> float:
        """Seconds until one call may go: 0 for now; infinity when only the store can tell."""
        if self._limiter is None:
            return math.inf
        if now < self._quiet_until:
            return self._quiet_until - now
        if self._quiet_until > -math.inf:
            self._quiet_until = -math.inf
            self._limiter.drain()
        hushed = self._settles_at + HUSH - now
        return hushed if 0.0 < hushed <= 2 * HUSH else self._limiter.wait(now, lane)

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        if self._limiter is None:
            raise RuntimeError("there is no permit to take: fail_closed lets no call go without the store")
        permit = self._limiter.take(now)
        permit.number = -1 - random.getrandbits(52)
        return permit

    def leave(self, permit: Permit, now: float, use: Use) -> None:
        """Return a permit that it granted."""
        if self._limiter is not None:
            self._limiter.leave(permit, now, use)

    def refused(self, sent: float, now: float) -> None:
        """The server refused a call."""
        if self._limiter is not None:
            self._limiter.refused(sent, now)

    def slow_down(self, taken: float, now: float) -> None:
        """An alert says that the server takes only a share, 0 to 1, of the calls."""
        if self._limiter is not None:
            self._limiter.slow_down(taken, now)

    def rate(self, now: float, otherwise: float) -> float:
        """Calls/s that this process lets go by itself at most; ``otherwise`` where it waits for the store."""
        return otherwise if self._limiter is None else self._limiter.rate(now)
