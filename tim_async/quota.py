"""One quota for a whole fleet, on Redis or Valkey: ``TIMClient(quota=RedisQuota("redis://…"))``.

Needs the extra ``redis``: ``pip install 'tim-async[redis]'``.  How the quota is shared is told at the top of
`tim_async._limiter.sharing`; the store's part is ``quota.lua`` beside it.

**Keys.**  For each SDKAppID and endpoint the store keeps two small keys,
``tim_async:{1400000000:v4/openim/…}:2:slots`` and ``…:2:state``; it forgets them after a day without calls.  The number
is the version of their layout.

**Rolling deployments.**  Processes whose releases use the same layout share one quota, even when ``quota.lua`` or its
arguments differ: each sends its own script and names its arguments, and fields of the state that one script does not
know are left as they are.  Nearly all releases are of this kind.  A release that changes the layout says so in its
changelog.  Its processes use other keys than the old ones: neither side can corrupt the other's state, but neither
knows of the other, and each takes the whole limit.  While both run, the server may refuse up to half of the calls, also
with ``strict=True``; refused calls are retried, and both sides slow down until the server takes what they send.  For a
deployment without refusals, stop the old processes before the new ones start; or set ``rates`` to one half first on the
old processes, then on the new ones, and restore them when the old ones are gone.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
import importlib.util
import json
import logging
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._background import Background
from ._limiter.reply import Reply, read_reply
from ._limiter.request import Request
from ._limiter.shared import SharedLimiter
from ._limiter.sharing import QueueView, Shares, StoreAway
from ._stores import redis_url, shown_url

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

CLOSING = 1.0
"""Seconds for the store's client to close its connections."""
OVERDUE = 10
"""Time-outs of the store after which an exchange has failed, whatever its driver does: it may have to connect first."""
LAYOUT = 2
"""Version of the data that ``quota.lua`` keeps; to be raised when its keys or fields change their meaning."""

_log = logging.getLogger("tim_async")


class RedisQuota:
    """The quota of an app, shared by all processes that name the same store.

    A description only: it holds no connection and belongs to no event loop, and many clients may use the same one.
    Give all processes the same ``rates``.  Where they differ, as while `TIMClient.set_rate` changes them one by one,
    the highest is what all of them keep to together, and processes with a lower one get less.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://…`` for TLS, or ``unix://path``.  Redis 6.2 or
            later, or Valkey; a primary, since each request also writes.
        bulk_share: the part of each endpoint's rate, above 0 and up to 1, up to which this process's bulk calls may
            fill it: they take no permit while more than that is in use by all processes together.  0.8 stays below
            the vendor's alarm, which goes off at 80 % of the limit.
        fallback_share: the part of each endpoint's rate, above 0 and up to 1, that each process uses while the store
            is unreachable.  1 / processes or less is safe.
        fail_closed: let no call go while the store is unreachable: calls wait for it, for their ``max_wait`` at most.
        timeout: seconds without an answer after which the store counts as unreachable.  Better not above 0.3: after an
            outage all processes should be back within half a second.
        namespace: what the keys begin with; no braces, which mean something in a cluster.
        cluster: whether the store is a cluster.  Each endpoint's keys lie in one slot.
        connection: anything more for redis-py's ``from_url``, such as ``ssl_ca_certs`` or ``password``.

    Raises:
        ValueError, TypeError: an argument is invalid.
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
        bulk, alone = _arguments.share("bulk_share", bulk_share), _arguments.share("fallback_share", fallback_share)
        if {"{", "}"} & {*_arguments.text("namespace", namespace)}:
            raise ValueError(f"namespace must not contain braces, which select a cluster's slot: {namespace!r}")
        self._url = redis_url(url)
        self._shown = shown_url(self._url)
        self._shares = Shares(bulk, None if fail_closed else alone)
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
            # The limiter uses its fallback share and tries again by itself.
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
        self._script = client.register_script(_source())
        self._where = where
        self._prefix = prefix
        self._shares = shares
        self._overdue = overdue
        self._limiters: list[SharedLimiter] = []
        self._away: set[str] = set()

    def limiter(self, command: str, limit: float, strict: bool, queue: QueueView) -> SharedLimiter:
        """The limiter of one endpoint, which may send ``limit`` calls/s from all processes together."""
        exchange = functools.partial(self._exchange, f"{self._prefix}{command}}}:{LAYOUT}")
        limiter = SharedLimiter(exchange, queue, limit, strict=strict, shares=self._shares, overdue=self._overdue)
        self._limiters.append(limiter)
        return limiter

    async def aclose(self) -> None:
        """Give unused permits back, and close the connection; bounded, whatever the store and its client do."""
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

    async def _exchange(self, key: str, request: Request) -> Reply:
        """Run ``quota.lua`` on an endpoint's keys.

        Raises:
            StoreAway: the store is unreachable, or replied something else.
        """
        from redis.exceptions import RedisError

        document = json.dumps(request, separators=(",", ":"), allow_nan=False)
        try:
            reply = read_reply(await self._script(keys=[f"{key}:slots", f"{key}:state"], args=[document]))
        # A parser that reads garbage raises EOFError and ValueError, a closed transport of uvloop RuntimeError.
        except (RedisError, OSError, EOFError, ValueError, RuntimeError) as error:
            if not self._away:
                share = self._shares.alone
                effect = "calls wait for it" if share is None else f"using {share:.0%} of each rate"
                _log.warning(
                    "the shared quota at %s is unreachable (%s: %s); %s",
                    self._where,
                    type(error).__name__,
                    error,
                    effect,
                )
            self._away.add(key)
            raise StoreAway from error
        if key in self._away:
            self._away.remove(key)
            if not self._away:
                _log.warning("the shared quota at %s is reachable again", self._where)
        return reply


@functools.cache
def _source() -> str:
    return importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8")
