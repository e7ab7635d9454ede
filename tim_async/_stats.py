"""How an endpoint fares: what `TIMClient.stats` shows of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """Calls that wait for their turn now, by lane.

    Attributes:
        interactive: calls that somebody waits for.
        bulk: calls of batches and migrations.
    """

    interactive: int
    bulk: int


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the attempts made so far have waited for their turns.

    Attributes:
        count: attempts that had a turn.
        total: seconds, all together.
        longest: seconds, the longest.
    """

    count: int
    total: float
    longest: float


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """One endpoint of one client, since the client was made.

    Attributes:
        rate: calls/s that are let go at most, as learned so far; with a shared quota, those of all processes together.
        queue: who waits now.
        waits: how long attempts waited.
        refusals: attempts that the service refused for the rate.
        retries: attempts that were not their call's first.
        exhausted: calls that had no turn within their ``max_wait``.
        shared: whether the quota is shared at this moment; False without one, and while its store is away.
    """

    rate: float
    queue: Queue
    waits: Waits
    refusals: int
    retries: int
    exhausted: int
    shared: bool


class Counters:
    """What is counted of one endpoint."""

    __slots__ = ("attempts", "exhausted", "longest", "refusals", "retries", "waited")

    def __init__(self) -> None:
        self.attempts: int = 0
        self.exhausted: int = 0
        self.longest: float = 0.0
        self.refusals: int = 0
        self.retries: int = 0
        self.waited: float = 0.0

    def permitted(self, waited: float, again: bool) -> None:
        """An attempt has had its turn."""
        self.attempts += 1
        self.retries += again
        self.waited += waited
        if waited > self.longest:
            self.longest = waited

    def waits(self) -> Waits:
        """How long the attempts waited."""
        return Waits(self.attempts, self.waited, self.longest)
