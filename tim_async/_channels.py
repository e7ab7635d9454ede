"""The channels of a client, one for each endpoint: its queue, its retry budget and its counters."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from ._lanes import Lane
from ._limiter.queue import RequestQueue
from ._limiter.sharing import Sharing
from ._options import ClientSettings
from ._session import connections_of
from ._stats import Counters, EndpointStats, Queue
from .endpoints import DEFAULT_RATE, Endpoint
from .retrying import RetryBudget

RETRY_REFILL = 0.1
"""Retries that the budget gains a second, as a share of the rate."""


class Channel(NamedTuple):
    """One endpoint of one client."""

    queue: RequestQueue
    budget: RetryBudget
    counters: Counters

    def stats(self) -> EndpointStats:
        """Return the endpoint's statistics."""
        queue, counters = self.queue, self.counters
        return EndpointStats(
            queue.rate,
            Queue(queue.queued(Lane.INTERACTIVE), queue.queued(Lane.BULK)),
            counters.waits(),
            counters.refusals,
            counters.retries,
            counters.exhausted,
            shared=queue.shared,
            limit=queue.limit,
            processes=queue.processes,
            in_flight=counters.attempts - counters.ended,
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

    def stats(self, endpoint: Endpoint[..., Any]) -> EndpointStats:
        """Return an endpoint's statistics, also before its first call."""
        channel = self._by_command.get(endpoint.command)
        if channel is not None:
            return channel.stats()
        rate = self._rate(endpoint)
        return EndpointStats(rate, Queue(0, 0), Counters().waits(), 0, 0, 0, shared=False, limit=rate, processes=1)

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

    def __contains__(self, command: str) -> bool:
        return command in self._by_command

    def __iter__(self) -> Iterator[str]:
        """Iterate over a copy of the commands used so far, since another thread may call this."""
        return iter(tuple(self._by_command))

    def _rate(self, endpoint: Endpoint[..., Any]) -> float:
        return self._settings.rates.get(endpoint.command, DEFAULT_RATE)

    def _make(self, endpoint: Endpoint[..., Any]) -> Channel:
        rate, settings = self._rate(endpoint), self._settings
        limiter = None
        if self._sharing is not None:
            limiter = functools.partial(self._sharing.limiter, endpoint.command, rate, settings.strict)
        queue = RequestQueue(rate, strict=settings.strict, connections=self._connections, limiter=limiter)
        channel = Channel(queue, RetryBudget(settings.options.retry.budget, RETRY_REFILL * rate), Counters())
        self._by_command[endpoint.command] = channel
        return channel
