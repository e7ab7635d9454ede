"""One quota for a whole fleet, on Redis or Valkey: ``TIMClient(quota=RedisQuota("redis://…"))``.

Needs the extra ``redis``: ``pip install 'tim-async[redis]'``.  How the quota is shared stands at the top of
`tim_async._limiter.sharing`; what the store does, in ``quota.lua`` beside it.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._background import Background
from ._limiter.shared import SharedLimiter
from ._limiter.sharing import Shares, StoreAway, Turnstile
from ._stores import redis_url, shown_url

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

CLOSING = 1.0
"""Seconds for the store's client to close its connections."""
OVERDUE = 10
"""Time-outs of the store after which an exchange has failed, whatever its driver does: it may have to connect first."""
REPLY = 6
"""Numbers in each answer of ``quota.lua``; two more for each permit follow."""

_log = logging.getLogger("tim_async")


class RedisQuota:
    """The quota of an app, shared by all processes that name the same store.

    It only describes: it holds no connection and belongs to no event loop, and one may be given to many clients.
    For each SDKAppID and endpoint the store keeps two small keys, which it forgets after a day without calls.
    Processes with different ``rates`` for one endpoint would disagree; give all of them the same.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://…`` for TLS, or ``unix://path``.  Redis 6.2 or
            later, or Valkey; a primary, since each question also writes.
        bulk_share: the part of each endpoint's rate, above 0 and up to 1, up to which this process's bulk calls may
            fill it: they take no permit while more than that is in use by all processes together.  0.8 stays below
            the vendor's alarm, which goes off at 80 % of the limit.
        fallback_share: the part of each endpoint's rate, above 0 and up to 1, with which each process goes on while
            the store cannot be reached.  Safe are 1 / processes or less.
        fail_closed: let no call go without the store: they wait for it, for their ``max_wait`` at most.
        timeout: seconds without an answer after which the store counts as away.  Better not above 0.3: after an
            outage all processes should be back within half a second.
        namespace: what the keys begin with; no braces, which mean something in a cluster.
        cluster: whether the store is a cluster.  Each endpoint's keys lie in one slot.
        connection: anything more for redis-py's ``from_url``, such as ``ssl_ca_certs`` or ``password``.

    Raises:
        ValueError, TypeError: an argument that cannot be right.
        ImportError: redis-py is not installed.
    """

    _shown = "not made"  # for a crash reporter that shows one whose arguments were refused

    def __init__(
        self,
        url: str,
        *,
        bulk_share: float = 1.0,
        fallback_share: float = 0.1,
        fail_closed: bool = False,
        timeout: float = 0.25,
        namespace: str = "tim_async",
        cluster: bool = False,
        **connection: Any,
    ) -> None:
        _arguments.text("url", url)
        for name, share in (("bulk_share", bulk_share), ("fallback_share", fallback_share)):
            if _arguments.positive(name, share) > 1:
                raise ValueError(f"{name} must be 1 at most, not {share}")
        if {"{", "}"} & {*_arguments.text("namespace", namespace)}:
            raise ValueError(f"namespace must hold no braces: {namespace!r}")
        self._url = redis_url(url)
        self._shown = shown_url(self._url)
        self._shares = Shares(float(bulk_share), None if fail_closed else float(fallback_share))
        self._timeout = _arguments.positive("timeout", timeout)
        self._namespace = namespace
        self._cluster = cluster
        self._connection = connection
        if importlib.util.find_spec("redis") is None:
            raise ImportError("a quota on Redis needs redis-py: pip install 'tim-async[redis]'")

    def __repr__(self) -> str:
        return f"RedisQuota({self._shown!r})"

    def share(self, sdk_app_id: int) -> RedisSharing:
        """Take part in the quota; `TIMClient` does."""
        prefix = f"{self._namespace}:{{{sdk_app_id}:"
        return RedisSharing(self._client(), repr(self), prefix, self._shares, OVERDUE * self._timeout)

    def _client(self) -> Redis | RedisCluster:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        options: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            # We go on alone and look again ourselves.
            "retry": Retry(NoBackoff(), 0),
            **self._connection,
        }
        if self._cluster:
            from redis.asyncio.cluster import RedisCluster

            return RedisCluster.from_url(self._url, **options)
        return Redis.from_url(self._url, **options)


class RedisSharing:
    """One client's part in a quota.

    Args:
        client: redis-py's, of this client alone.
        where: the store's name for the log.
        prefix: what the keys begin with, the hash tag left open.
        shares: as `SharedLimiter` takes them.
        overdue: as `SharedLimiter` takes it, seconds.
    """

    def __init__(self, client: Redis | RedisCluster, where: str, prefix: str, shares: Shares, overdue: float) -> None:
        self._client = client
        self._where = where
        self._prefix = prefix
        self._shares = shares
        self._overdue = overdue
        self._limiters: list[SharedLimiter] = []
        self._away: set[str] = set()

    def limiter(self, command: str, limit: float, strict: bool, queue: Turnstile) -> SharedLimiter:
        """The gate of one endpoint, which may send ``limit`` calls/s from all processes together."""
        key = f"{self._prefix}{command}}}"
        exchange = functools.partial(self._exchange, f"{key}:slots", f"{key}:state")
        limiter = SharedLimiter(exchange, queue, limit, strict=strict, shares=self._shares, overdue=self._overdue)
        self._limiters.append(limiter)
        return limiter

    async def aclose(self) -> None:
        """Give back what is not used, and close the connection; bounded, whatever the store and its client do."""
        try:
            await asyncio.gather(*(limiter.finish() for limiter in self._limiters))
        finally:
            closing = Background(self._client.aclose, self._not_closed)
            closing.start()
            if not await closing.finish(CLOSING):
                _log.warning("the connections to the shared quota at %s take too long to close", self._where)

    def _not_closed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            _log.warning("closing the connections to the shared quota at %s failed", self._where, exc_info=error)

    async def _exchange(self, slots: str, state: str, request: list[str]) -> list[int]:
        """Run ``quota.lua``.

        Raises:
            StoreAway: the store or the way there failed, or it answered something else.
        """
        from redis.exceptions import NoScriptError, RedisError

        source, digest = _script()
        try:
            try:
                reply = await self._client.evalsha(digest, 2, slots, state, *request)
            except NoScriptError:
                reply = await self._client.eval(source, 2, slots, state, *request)
            numbers = _numbers(reply)
        # A parser that reads garbage raises EOFError and ValueError, a closed transport of uvloop RuntimeError.
        except (RedisError, OSError, EOFError, ValueError, RuntimeError) as error:
            if not self._away:
                share = self._shares.alone
                how = "calls wait for it" if share is None else f"each process goes on with {share:.0%} of each rate"
                _log.warning(
                    "the shared quota at %s is away (%s: %s); %s", self._where, type(error).__name__, error, how
                )
            self._away.add(slots)
            raise StoreAway from error
        if slots in self._away:
            self._away.remove(slots)
            if not self._away:
                _log.warning("the shared quota at %s is back", self._where)
        return numbers


def _numbers(reply: object) -> list[int]:
    """Read an answer of ``quota.lua``.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(reply, list) or not all(isinstance(number, int | str | bytes) for number in reply):
        raise ValueError("the reply is no list of numbers")
    numbers = [int(number) for number in reply]
    if len(numbers) < REPLY or (len(numbers) - REPLY) % 2 or numbers[1] <= 0:
        raise ValueError("the reply is not that of quota.lua")
    return numbers


@functools.cache
def _script() -> tuple[str, str]:
    """The script, and the digest by which a store that has it knows it."""
    import hashlib

    source = importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8")
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
