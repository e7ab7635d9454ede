"""The channels of a client, one for each endpoint: its queue, its retry budget and its counters."""

from __future__ import annotations

import functools
from typing import Any

from ._lanes import Lane
from ._limiter.queue import RequestQueue
from ._limiter.sharing import Sharing
from ._options import ClientSettings
from ._session import connections_of
from ._stats import EndpointStats, Queue, Waits
from .endpoints import DEFAULT_RATE, Endpoint, endpoint_of
from .retrying import RetryBudget

RETRY_REFILL = 0.1
"""Retries that the budget gains a second, as a share of the rate."""


class Channel:
    """One endpoint of one client.

    Attributes:
        queue: the callers that wait for a permit.
        budget: the retry budget.
        attempts: attempts that got a permit.
        ended: those of them that have ended.
        exhausted: `QuotaExhausted` raised.
        refusals: attempts that the service refused for exceeding the rate.
        retries: attempts after the first of a call.
        waited: the sum of the waits for permits, seconds.
        longest: the longest of these waits, seconds.
    """

    def __init__(self, queue: RequestQueue, budget: RetryBudget) -> None:
        self.queue: RequestQueue = queue
        self.budget: RetryBudget = budget
        self.attempts: int = 0
        self.ended: int = 0
        self.exhausted: int = 0
        self.refusals: int = 0
        self.retries: int = 0
        self.waited: float = 0.0
        self.longest: float = 0.0

    def permitted(self, waited: float, again: bool) -> None:
        """Count an attempt that has its permit."""
        self.attempts += 1
        self.retries += again
        self.waited += waited
        if waited > self.longest:
            self.longest = waited

    def stats(self) -> EndpointStats:
        """Return the endpoint's statistics."""
        queue = self.queue
        return EndpointStats(
            queue.rate,
            Queue(queue.queued(Lane.INTERACTIVE), queue.queued(Lane.BULK)),
            Waits(self.attempts, self.waited, self.longest),
            self.refusals,
            self.retries,
            self.exhausted,
            shared=queue.shared,
            limit=queue.limit,
            processes=queue.processes,
            in_flight=self.attempts - self.ended,
        )


class Channels:
    """The channels of one client, in one event loop; each is made at its endpoint's first call."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._by_command: dict[str, Channel] = {}
        self._sharing: Sharing | None = None

    @property
    def shared(self) -> bool:
        """Whether the quota is shared; False before `open`."""
        return self._sharing is not None

    def open(self) -> None:
        """Join the quota, in the running event loop."""
        self._connections = connections_of(self._settings.session)
        if self._settings.quota is not None:
            self._sharing = self._settings.quota.share(self._settings.sdk_app_id)

    def close(self) -> None:
        """Refuse all calls that wait for a permit."""
        for channel in self._by_command.values():
            channel.queue.close()

    async def aclose(self) -> None:
        """Leave the quota, after `close`."""
        if self._sharing is not None:
            await self._sharing.aclose()

    def of(self, endpoint: Endpoint[..., Any]) -> Channel:
        """Return an endpoint's channel; after `open`."""
        return self._by_command.get(endpoint.command) or self._make(endpoint)

    def commands(self) -> set[str]:
        """Return the commands used so far; safe to call from any thread."""
        return set(self._by_command)

    def stats(self, *also: Endpoint[..., Any]) -> dict[str, EndpointStats]:
        """Return the statistics of some endpoints and of all used so far, by name; safe to call from any thread."""
        used = (endpoint_of(command, repeatable=False) for command in tuple(self._by_command))
        return {endpoint.name: self._stats(endpoint) for endpoint in (*also, *used)}

    def set_rate(self, endpoint: Endpoint[..., Any], rate: float, bulk_share: float | None) -> None:
        """Change an endpoint's rate, calls/s, and the part of it that bulk may fill; after `open`.

        Raises:
            ValueError: a part for bulk is given, and the quota is not shared.
        """
        if bulk_share is not None and not self.shared:
            raise ValueError("bulk_share is for a client with a quota; without one, set a lower rate")
        channel = self.of(endpoint)
        channel.queue.set_limit(rate, bulk_share)
        channel.budget.per_second = RETRY_REFILL * rate

    def _stats(self, endpoint: Endpoint[..., Any]) -> EndpointStats:
        channel = self._by_command.get(endpoint.command)
        if channel is not None:
            return channel.stats()
        rate = self._rate(endpoint)
        return EndpointStats(rate, Queue(0, 0), Waits(0, 0.0, 0.0), 0, 0, 0, shared=False, limit=rate, processes=1)

    def _rate(self, endpoint: Endpoint[..., Any]) -> float:
        return self._settings.rates.get(endpoint.command, DEFAULT_RATE)

    def _make(self, endpoint: Endpoint[..., Any]) -> Channel:
        rate, settings = self._rate(endpoint), self._settings
        limiter = None
        if self._sharing is not None:
            limiter = functools.partial(self._sharing.limiter, endpoint.command, rate, settings.strict)
        queue = RequestQueue(rate, strict=settings.strict, connections=self._connections, limiter=limiter)
        channel = Channel(queue, RetryBudget(settings.options.retry.budget, RETRY_REFILL * rate))
        self._by_command[endpoint.command] = channel
        return channel
