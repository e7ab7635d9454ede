"""One quota for a whole fleet, on Redis or Valkey: ``TIMClient(quota=RedisQuota("redis://…"))``.

Needs the extra ``redis``: ``pip install 'tim-async[redis]'``.  The theory is at the top of
`tim_async._limiter.sharing`; the store runs ``quota.lua`` beside it.

**Keys.**  For each SDKAppID and endpoint the store keeps six small keys:
``tim_async:{1400000000:v4/openim/…}:3:state``, and five with another ending in place of ``state``; they expire after a
day without calls.  The number is the version of their layout.

**Rolling deployments.**  Processes whose releases use the same layout share one quota, even when ``quota.lua`` or its
arguments differ: each sends its own script and names its arguments.  A script ignores unknown fields; it keeps those
of the state, and drops those of a member's record when it rewrites the record.  Nearly all releases are of this kind.
A release that changes the layout says so in its changelog.  Its processes use other keys than the old ones: neither
side can corrupt the other's state, but neither knows of the other, and each uses the whole limit.  While both run, the
server may refuse up to half of the calls, also with ``strict=True``; refused calls are retried, and both sides slow
down until the server accepts their calls.  For a deployment without refusals, stop the old processes before the new
ones start; or set ``rates`` to one half first on the old processes, then on the new ones, and restore them when the old
ones have stopped.
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
from ._stores import CLUSTER, read_url
from .errors import TIMError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

    from ._redis_clients import Connected
    from ._store_link import StoreLink


LAYOUT = 3
"""Version of the data that ``quota.lua`` keeps; to be raised when its keys or fields change their meaning."""
KEYS = ("state", "cooling", "members", "about", "waiting", "limits")
"""The endings of its keys' names, in the script's order."""


class QuotaMisconfigured(TIMError):
    """The store of the quota is misconfigured, such as by a wrong password; nothing was sent."""

    meaning = "The store of the quota is misconfigured, so nothing was sent."
    remedy = "Correct the store or its URL as the error says; `await quota.check()` verifies the result."


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """The report on a store that works.

    Attributes:
        store: its name, without password and options.
        server: the server's own name, "valkey" or "redis".
        version: the server's version.
        mode: "standalone" or "cluster"; "standalone" also for a primary found by Sentinels.
        role: "master" for a primary, the only role that accepts writes.
        run_id: whether the script can read the server's run id; without it a failover shows only by lost data.
        latency: seconds of one exchange on an open connection.
        persistence: "append-only file", or "snapshots or none".
        eviction: the ``maxmemory-policy``.
        risks: the settings that should be changed, in words; () without any.
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

    It is only a description: it holds no connection and belongs to no event loop, and many clients may use the same
    one.  Give all processes the same ``rates``: the limits of the service.  Where they differ, the smallest rate of an
    active process applies to all, and each process with a larger one logs one warning.

    Args:
        url: of a Redis 6.2 or later, or a Valkey: ``redis://[[user]:password@]host[:port][/db]``,
            ``unix://path``, ``redis+sentinel://host:port,host:port/name[/db]`` or
            ``redis+cluster://host:port,host:port``, and ``rediss`` for TLS.  Or a client of ``redis.asyncio`` that you
            make, such as from ``Sentinel.master_for``: it is used unchanged, and you close it, after the `TIMClient`.
        bulk_share: the part of each endpoint's rate, above 0 and up to 1, that this process's bulk calls may fill: they
            take no permit while all processes together use more than that.  0.8 stays below the vendor's alarm at 80 %
            of the limit.
        fallback_share: the part of each endpoint's rate, above 0 and up to 1, that each process uses while the store
            is unreachable; None for 1 / processes, by the number that the store last reported.
        fail_closed: send nothing while the store is unreachable: calls wait for it, for their ``max_wait`` at most.
        fail_fast: raise `QuotaMisconfigured` from calls when the store turns out to be misconfigured before it has ever
            worked, such as by a wrong password, a missing right or a replica's URL; it is tried again every second.
            False treats that as an outage.
        own_rates: the client's ``rates`` are maxima for this process, not the limits of the service: they do not bind
            other processes.  For a migration beside a web app.
        timeout: seconds without an answer after which the store counts as unreachable; None to learn it from the round
            trips, from 0.25 to 2 s.  Connecting may take several times as long.
        namespace: the prefix of the keys, without braces, which select a cluster's slot.
        cluster: whether the URL of a single server is that of a node of a cluster.  Each endpoint's keys are in one
            slot.
        connection: further options of redis-py's connections to a URL, such as ``ssl_ca_certs`` or ``password``.

    Raises:
        ValueError, TypeError: an argument is invalid.
        ImportError: redis-py is not installed.
    """

    _shown = "not made"  # for a crash reporter that shows an instance whose arguments were refused

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
        for name, flag in {
            "fail_closed": fail_closed,
            "fail_fast": fail_fast,
            "own_rates": own_rates,
            "cluster": cluster,
        }.items():
            _arguments.kind(name, flag, bool)
        bulk = _arguments.share("bulk_share", bulk_share)
        fallback = None if fallback_share is None else _arguments.share("fallback_share", fallback_share)
        if {"{", "}"} & {*_arguments.text("namespace", namespace)}:
            raise ValueError(f"namespace must not contain braces, which select a cluster's slot: {namespace!r}")
        self._timeout = None if timeout is None else _arguments.positive("timeout", timeout)
        self._store = url if not isinstance(url, str) else read_url(_arguments.text("url", url)).text
        self._shares = Shares(bulk, fallback, fail_closed=fail_closed, own_rates=own_rates)
        self._fail_fast = fail_fast
        self._namespace = namespace
        self._options = {**connection, "cluster": cluster} if cluster else connection
        if importlib.util.find_spec("redis") is None:
            raise ImportError("a quota on Redis needs redis-py: pip install 'tim-async[redis]'")
        self._shown = self._connect().shown

    def __repr__(self) -> str:
        return f"RedisQuota({self._shown!r})"

    def share(self, sdk_app_id: int) -> RedisSharing:
        """Join the quota; `TIMClient` calls this."""
        overdue = max(OVERDUE, 40 * (self._timeout or 0.0))
        keys = functools.partial(self._keys, sdk_app_id)
        return RedisSharing(self._link(), repr(self), keys, self._shares, overdue, fail_fast=self._fail_fast)

    async def check(self) -> QuotaReport:
        """Run the script of the quota in the store, on keys of its own, and inspect the store's settings.

        Returns:
            The report; ``risks`` names the settings that should be changed.

        Raises:
            QuotaMisconfigured: the store is misconfigured or unreachable; the message has the reason.
        """
        from ._quota_report import examine

        link = self._link()
        try:
            return await examine(link, repr(self), self._keys("check", secrets.token_hex(8)))
        finally:
            await leave_link(link, repr(self))

    def _keys(self, app: int | str, command: str) -> list[str]:
        """Return the names of an endpoint's keys, in the script's order; in a cluster, all are in one slot."""
        return [f"{self._namespace}:{{{app}:{command}}}:{LAYOUT}:{name}" for name in KEYS]

    def _link(self) -> StoreLink:
        """Return the process's connections to the store, in the running event loop."""
        from ._store_link import StoreLink

        return StoreLink.join(self._key(), self._connect, self._timeout)

    def _key(self) -> Hashable:
        """Return a key; quotas with the same key share their connections."""
        values = [self._store, self._timeout, *(each for option in sorted(self._options.items()) for each in option)]
        return tuple(value if isinstance(value, str | int | float | None) else id(value) for value in values)

    def _connect(self) -> Connected:
        from ._redis_clients import connect
        from ._store_link import STEP

        if not isinstance(self._store, str):
            return connect(self._store, **self._options)
        # An exchange has time-outs of its own.  Only a cluster's client needs these, to change from node to node.
        cluster = self._options.get("cluster") or read_url(self._store).kind == CLUSTER
        step = (self._timeout or STEP) if cluster else None
        return connect(self._store, **{"socket_timeout": step, "socket_connect_timeout": step, **self._options})
