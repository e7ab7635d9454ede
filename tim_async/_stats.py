"""The statistics of an endpoint, as `TIMClient.stats` returns them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """Attempts that wait for a permit now, by lane.

    Attributes:
        interactive: attempts of interactive calls.
        bulk: attempts of batches and migrations.
    """

    interactive: int
    bulk: int


@dataclass(frozen=True, slots=True)
class Waits:
    """The time that attempts have waited for their permits.

    Attributes:
        count: the number of attempts.
        total: the sum of their waits, seconds.
        longest: the longest wait, seconds.
    """

    count: int
    total: float
    longest: float


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """One endpoint of one client, since the client was made.

    Attributes:
        rate: the current limit in calls/s, as learned so far; with a shared quota, that of all processes together.
        queue: the attempts that wait now.
        waits: the waits so far.
        refusals: attempts that the service refused for exceeding the rate.
        retries: attempts after the first of a call.
        exhausted: calls that had no permit within their ``max_wait``.
        shared: whether the quota is shared now: False without one, and while its store is unreachable.
        limit: calls/s that the service allows; with a shared quota as all processes together say, which is less than
            this client's rate where another one names less.
        processes: clients that share the quota on this endpoint, this one included, as far as the store has said.
    """

    rate: float
    queue: Queue
    waits: Waits
    refusals: int
    retries: int
    exhausted: int
    shared: bool
    limit: float
    processes: int


class Counters:
    """The counters of one endpoint."""

    __slots__ = ("attempts", "exhausted", "longest", "refusals", "retries", "waited")

    def __init__(self) -> None:
        self.attempts: int = 0
        self.exhausted: int = 0
        self.longest: float = 0.0
        self.refusals: int = 0
        self.retries: int = 0
        self.waited: float = 0.0

    def permitted(self, waited: float, again: bool) -> None:
        """Count an attempt that has its permit."""
        self.attempts += 1
        self.retries += again
        self.waited += waited
        if waited > self.longest:
            self.longest = waited

    def waits(self) -> Waits:
        """Return the waits so far."""
        return Waits(self.attempts, self.waited, self.longest)
