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
        rate: the adaptive rate, calls/s; with a shared quota, that of all processes together.
        queue: the attempts that wait now.
        waits: the waits so far.
        refusals: attempts that the service refused for exceeding the rate.
        retries: attempts after the first of a call.
        exhausted: `QuotaExhausted` raised by calls and look-ups; a merged batch counts each of its calls.
        shared: whether the quota is shared now: False without one, and while its store is unreachable.
        limit: calls/s that the service allows; with a shared quota, the smallest rate of an active process.
        processes: clients that share the quota on this endpoint, this one included, as of the store's last reply.
        in_flight: attempts that have been sent, or are about to be, and have not ended.
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
    in_flight: int = 0

    def plus(self, other: EndpointStats) -> EndpointStats:
        """Add the figures of another client of the same app in the same process."""
        shared = self.shared or other.shared
        return EndpointStats(
            # Without a shared quota, each client has the whole rate.
            max(self.rate, other.rate) if shared else self.rate + other.rate,
            Queue(self.queue.interactive + other.queue.interactive, self.queue.bulk + other.queue.bulk),
            Waits(
                self.waits.count + other.waits.count,
                self.waits.total + other.waits.total,
                max(self.waits.longest, other.waits.longest),
            ),
            self.refusals + other.refusals,
            self.retries + other.retries,
            self.exhausted + other.exhausted,
            shared=shared,
            limit=max(self.limit, other.limit),
            processes=max(self.processes, other.processes),
            in_flight=self.in_flight + other.in_flight,
        )
