"""One quota for a whole fleet, on Redis or Valkey: ``TIMClient(quota=RedisQuota("redis://…"))``.

Needs the extra ``redis``: ``pip install 'tim-async[redis]'``.  How the quota is shared is told at the top of
`tim_async._limiter.sharing`; the store's part is ``quota.lua`` beside it.

**Keys.**  For each SDKAppID and endpoint the store keeps six small keys,
``tim_async:{1400000000:v4/openim/…}:3:state`` and five more in place of ``state``; it forgets them after a day without
calls.  The number is the version of their layout.

**Rolling deployments.**  Processes whose releases use the same layout share one quota, even when ``quota.lua`` or its
arguments differ: each sends its own script and names its arguments.  A script ignores the fields that it does not
know; it keeps those of the state, and drops those of a member's record when it rewrites that.  Nearly all releases
are of this kind.  A release that changes the layout says so in its changelog.  Its processes use other keys than the
old ones: neither side can corrupt the other's state, but neither knows of the other, and each takes the whole limit.
While both run, the server may refuse up to half of the calls, also with ``strict=True``; refused calls are retried,
and both sides slow down until the server takes what they send.  For a deployment without refusals, stop the old
processes before the new ones start; or set ``rates`` to one half first on the old processes, then on the new ones,
and restore them when the old ones are gone.
"""

from __future__ import annotations

import functools
import importlib.util
import secrets
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._limiter.sharing import Shares
from ._redis_sharing import OVERDUE, RedisSharing, leave_link
from ._stores import CLUSTER, read_url, redis_url
from .errors import TIMError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

    from ._redis_clients import Connected
    from ._store_link import Link


LAYOUT = 3
"""Version of the data that ``quota.lua`` keeps; to be raised when its keys or fields change their meaning."""
KEYS = ("state", "cooling", "members", "about", "waiting", "limits")
"""The ends of its keys' names, in the script's order."""


class QuotaMisconfigured(TIMError):
    """The store of the quota cannot work as it is configured, such as with a wrong password; nothing was sent."""

    meaning = "The store of the quota cannot work as it is configured, so nothing was sent."
    remedy = "Correct the store or its URL as the error says; `await quota.check()` tells whether it works."


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """A store that works.

    Attributes:
        store: its name, without password and options.
        server: "valkey" or "redis"; the name as the store tells it.
        version: of the server.
        mode: "standalone" or "cluster"; of a primary found by Sentinels, "standalone", too.
        role: "master" for a primary; it could not be written to otherwise.
        run_id: whether the script can see which server it runs on; without it a failover is noticed by what is missing.
        latency: seconds of one exchange, with its connection made.
        persistence: "none", "snapshots", "append-only file".
        eviction: the ``maxmemory-policy``.
        risks: what should be other than it is; () when all is well.
    """

    store: str
    server: str
    version: str
    mode: str
    role: str
    run_id: bool
    latency: float
    persistence: str
    eviction: str
    risks: tuple[str, ...]


class RedisQuota:
    """The quota of an app, shared by all processes that name the same store.

    A description only: it holds no connection and belongs to no event loop, and many clients may use the same one.
    Give all processes the same ``rates``, what the service allows.  Where they differ, all of them keep to the smallest
    that an active one names, and who named more is told once in its log.

    Args:
        url: of a Redis 6.2 or later, or a Valkey: ``redis://[[user]:password@]host[:port][/db]``,
            ``unix://path``, ``redis+sentinel://host:port,host:port/name[/db]`` or
            ``redis+cluster://host:port,host:port``, and ``rediss`` for TLS.  Or a client of ``redis.asyncio`` that you
            make, such as from ``Sentinel.master_for``: it is used as it is, and you close it, after the `TIMClient`.
        bulk_share: the part of each endpoint's rate, above 0 and up to 1, up to which this process's bulk calls may
            fill it: they take no permit while more than that is in use by all processes together.  0.8 stays below
            the vendor's alarm, which goes off at 80 % of the limit.
        fallback_share: the part of each endpoint's rate, above 0 and up to 1, that each process uses while the store
            is unreachable; None for 1 / processes, as many as the store last knew of.
        fail_closed: let no call go while the store is unreachable: calls wait for it, for their ``max_wait`` at most.
        fail_fast: raise `QuotaMisconfigured` from calls when the store is found wrongly configured before it has ever
            worked, such as a wrong password, a missing right or a replica's URL; it is tried again every second.
            False counts that as an outage.
        own_rates: the client's ``rates`` are what this process takes at most, and not what the service allows: other
            processes need not keep to them.  For a migration beside a web app.
        timeout: seconds without an answer after which the store counts as unreachable; None to learn it from the round
            trips, from 0.25 to 2 s.  To connect may take several times as long.
        namespace: what the keys begin with; no braces, which mean something in a cluster.
        cluster: whether the URL of a single server is that of a node of a cluster.  Each endpoint's keys lie in one
            slot.
        connection: anything more for redis-py's connections to a URL, such as ``ssl_ca_certs`` or ``password``.

    Raises:
        ValueError, TypeError: an argument is invalid.
        ImportError: redis-py is not installed.
    """

    _shown = "not made"  # for a crash reporter that shows one whose arguments were refused

    def __init__(
        self,
        url: str | Redis | RedisCluster,
        *,
        bulk_share: float = 1.0,
        fallback_share: float | None = None,
        fail_closed: bool = False,
        fail_fast: bool = True,
        own_rates: bool = False,
        timeout: float | None = None,
        namespace: str = "tim_async",
        cluster: bool = False,
        **connection: Any,
    ) -> None:
        bulk = _arguments.share("bulk_share", bulk_share)
        alone = None if fallback_share is None else _arguments.share("fallback_share", fallback_share)
        if {"{", "}"} & {*_arguments.text("namespace", namespace)}:
            raise ValueError(f"namespace must not contain braces, which select a cluster's slot: {namespace!r}")
        self._timeout = None if timeout is None else _arguments.positive("timeout", timeout)
        self._store = url if not isinstance(url, str) else redis_url(_arguments.text("url", url))
        self._shares = Shares(bulk, alone, fail_closed=fail_closed, own_rates=own_rates)
        self._fail_fast = fail_fast
        self._namespace = namespace
        self._options = {**connection, "cluster": cluster} if cluster else connection
        if importlib.util.find_spec("redis") is None:
            raise ImportError("a quota on Redis needs redis-py: pip install 'tim-async[redis]'")
        self._shown = self._connect().shown

    def __repr__(self) -> str:
        return f"RedisQuota({self._shown!r})"

    def share(self, sdk_app_id: int) -> RedisSharing:
        """Take part in the quota; `TIMClient` does."""
        overdue = max(OVERDUE, 40 * (self._timeout or 0.0))
        keys = functools.partial(self._keys, sdk_app_id)
        return RedisSharing(self._link(), repr(self), keys, self._shares, overdue, fail_fast=self._fail_fast)

    async def check(self) -> QuotaReport:
        """Do in the store what calls will do there, on keys of its own, and tell what it is like.

        Returns:
            What was found; ``risks`` says what should be other than it is.

        Raises:
            QuotaMisconfigured: the store cannot work as it is configured, or is unreachable; the message says why.
        """
        from ._quota_report import examine

        link = self._link()
        try:
            return await examine(link, repr(self), self._keys("check", secrets.token_hex(8)))
        finally:
            await leave_link(link, repr(self))

    def _keys(self, app: int | str, command: str) -> list[str]:
        """The names of an endpoint's keys, in the script's order; in a cluster, all are in one slot."""
        return [f"{self._namespace}:{{{app}:{command}}}:{LAYOUT}:{name}" for name in KEYS]

    def _link(self) -> Link:
        """The process's connections to the store, in the running event loop."""
        from ._store_link import Link

        return Link.join(self._key(), self._connect, self._timeout)

    def _key(self) -> Hashable:
        """Quotas with the same key share their connections."""
        values = [self._store, self._timeout, *(each for option in sorted(self._options.items()) for each in option)]
        return tuple(value if isinstance(value, str | int | float | None) else id(value) for value in values)

    def _connect(self) -> Connected:
        from ._redis_clients import connect
        from ._store_link import STEP

        if not isinstance(self._store, str):
            return connect(self._store, **self._options)
        # An exchange has time-outs of its own.  Only a cluster's client goes from node to node by these.
        cluster = self._options.get("cluster") or read_url(self._store).kind == CLUSTER
        step = (self._timeout or STEP) if cluster else None
        return connect(self._store, **{"socket_timeout": step, "socket_connect_timeout": step, **self._options})
