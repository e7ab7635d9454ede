"""One client's membership in a quota on Redis: it runs ``quota.lua``, and separates misconfiguration from outages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import json
import logging
import os
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._background import Background
from ._limiter.queue import RequestQueue
from ._limiter.reply import Reply, read_reply
from ._limiter.request import Request
from ._limiter.shared import SharedLimiter
from ._limiter.sharing import Shares, StoreUnavailable

if TYPE_CHECKING:
    from ._redis_clients import Script
    from ._store_link import StoreLink

CLOSING = 1.0
"""Seconds for the last reports to the store, and for its client to close its connections."""
OVERDUE = 10.0
"""Seconds after which an exchange has failed, even if redis-py is still waiting; 40 time-outs where that is longer."""
RETRY_AFTER = 1.0
"""Seconds after which a misconfigured store is tried again."""

_log = logging.getLogger("tim_async")


class RedisSharing:
    """One client's membership in a quota.

    Args:
        link: the connections to the store; left with `aclose`.
        where: the store's name, for the log.
        keys: returns the names of an endpoint's keys, in the script's order, for its command.
        shares: as for `SharedLimiter`.
        overdue: as for `SharedLimiter`, seconds.
        fail_fast: whether calls fail where the store is misconfigured.
    """

    def __init__(
        self,
        link: StoreLink,
        where: str,
        keys: Callable[[str], list[str]],
        shares: Shares,
        overdue: float,
        *,
        fail_fast: bool,
    ) -> None:
        self._link = link
        self._where = where
        self._keys = keys
        self._shares = shares
        self._overdue = overdue
        self._fail_fast = fail_fast
        self._limiters: list[SharedLimiter] = []
        self._member = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._unreachable: set[str] = set()
        self._worked: set[str] = set()
        self._retry_at: dict[str, float] = {}

    def limiter(self, command: str, limit: float, strict: bool, queue: RequestQueue) -> SharedLimiter:
        """Return the limiter of one endpoint; ``limit`` is the calls/s of all processes together."""
        limiter = SharedLimiter(
            functools.partial(self._exchange, self._keys(command), queue),
            queue,
            limit,
            name=command,
            member=self._member,
            strict=strict,
            shares=self._shares,
            overdue=self._overdue,
            settle=self._link.settle,
        )
        self._limiters.append(limiter)
        return limiter

    async def aclose(self) -> None:
        """Return unused permits, and close the connections; in bounded time, even if the store does not answer."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await asyncio.gather(*(limiter.finish() for limiter in self._limiters))
        finally:
            await leave_link(self._link, self._where)

    async def _exchange(self, keys: list[str], queue: RequestQueue, request: Request) -> Reply:
        """Run ``quota.lua`` on an endpoint's keys.

        Raises:
            StoreUnavailable: the store is unreachable, or its reply is not that of the script.
        """
        from ._store_faults import FAILURES

        key, now = keys[0], asyncio.get_running_loop().time()
        if now < self._retry_at.get(key, now):
            raise StoreUnavailable
        document = json.dumps(request, separators=(",", ":"), allow_nan=False)
        try:
            reply = read_reply(await self._link.run(script(), keys, document))
        except FAILURES as error:
            self._handle_failure(key, queue, error)
            raise StoreUnavailable from error
        self._worked.add(key)
        if self._retry_at.pop(key, None) is not None:
            queue.refuse(None)
        if key in self._unreachable:
            self._unreachable.remove(key)
            if not self._unreachable:
                _log.warning("the shared quota at %s is reachable again", self._where)
        return reply

    def _handle_failure(self, key: str, queue: RequestQueue, error: Exception) -> None:
        """Raise a misconfiguration from calls, or log an outage."""
        from ._store_faults import in_words, is_of_the_keys, remedy
        from .quota import QuotaMisconfigured

        advice, words = remedy(error, by_name=self._link.by_name), in_words(error)
        worked = key in self._worked if is_of_the_keys(error) else self._link.worked
        if advice and self._fail_fast and not worked:
            message = f"the shared quota at {self._where} cannot be used ({words}); {advice}"
            self._retry_at[key] = asyncio.get_running_loop().time() + RETRY_AFTER
            queue.refuse(functools.partial(QuotaMisconfigured, message))
            return
        if self._retry_at.pop(key, None) is not None:
            queue.refuse(None)
        if not self._unreachable:
            share = self._shares.fallback
            effect = "using this client's part of each rate" if share is None else f"using {share:.0%} of each rate"
            if self._shares.fail_closed:
                effect = "calls wait for it"
            if advice:
                effect = f"{effect}; {advice}"
            _log.warning("the shared quota at %s is unreachable (%s); %s", self._where, words, effect)
        self._unreachable.add(key)


async def leave_link(link: StoreLink, where: str) -> None:
    """Leave a link within `CLOSING` seconds; log a failure."""

    def failed(error: BaseException) -> None:
        if isinstance(error, Exception):
            _log.warning("closing the connections to the shared quota at %s failed", where, exc_info=error)

    closing = Background(link.leave, failed)
    closing.start()
    if not await closing.finish(CLOSING):
        _log.warning("the connections to the shared quota at %s take too long to close", where)


@functools.cache
def script() -> Script:
    """Return the script ``quota.lua``."""
    from ._redis_clients import Script

    source = importlib.resources.files("tim_async._limiter").joinpath("quota.lua")
    return Script(source.read_text(encoding="utf-8"))
