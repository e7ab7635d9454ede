"""One quota for a whole fleet, on Redis or Valkey: ``TIMClient(quota=RedisQuota("redis://…"))``.

Needs the extra ``redis``: ``pip install 'tim-async[redis]'``.  How the quota is shared is told at the top of
`tim_async._limiter.sharing`; the store's part is ``quota.lua`` beside it.

**Keys.**  For each SDKAppID and endpoint the store keeps six small keys,
``tim_async:{1400000000:v4/openim/…}:3:state`` and five more in place of ``state``; it forgets them after a day without
calls.  The number is the version of their layout.

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
import contextlib
import functools
import importlib.resources
import importlib.util
import json
import logging
import os
import secrets
import socket
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._background import Background
from ._limiter.reply import Reply, read_reply
from ._limiter.request import Request
from ._limiter.shared import SharedLimiter
from ._limiter.sharing import QueueView, Shares, StoreAway
from ._stores import CLUSTER, read_url, redis_url
from .errors import TIMError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

    from ._quota_report import QuotaReport
    from ._redis_clients import Connected, Script
    from ._store_link import Link

CLOSING = 1.0
"""Seconds for the last reports to the store, and for its client to close its connections."""
OVERDUE = 10.0
"""Seconds after which an exchange has failed, whatever its driver does, or 40 time-outs, where these are given."""
AGAIN = 1.0
"""Seconds after which a store that is wrongly configured is tried again."""
LAYOUT = 3
"""Version of the data that ``quota.lua`` keeps; to be raised when its keys or fields change their meaning."""
KEYS = ("state", "cooling", "members", "about", "waiting", "limits")
"""The ends of its keys' names, in the script's order."""

_log = logging.getLogger("tim_async")


class QuotaMisconfigured(TIMError):
    """The store of the quota cannot work as it is configured, such as with a wrong password; nothing was sent."""


class RedisQuota:
    """The quota of an app, shared by all processes that name the same store.

    A description only: it holds no connection and belongs to no event loop, and many clients may use the same one.
    Give all processes the same ``rates``, what the service allows.  Where they differ, all of them keep to the smallest
    that an active one names, and who named more is told once in its log.

    Args:
        store: the URL of a Redis 6.2 or later, or a Valkey: ``redis://[[user]:password@]host[:port][/db]``,
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
        self._shares = Shares(bulk, alone, closed=fail_closed, own_rates=own_rates)
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
        prefix = f"{self._namespace}:{{{sdk_app_id}:"
        overdue = max(OVERDUE, 40 * (self._timeout or 0.0))
        return RedisSharing(self._link(), repr(self), prefix, self._shares, overdue, fail_fast=self._fail_fast)

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
            return await examine(link, repr(self), self._namespace)
        finally:
            await _leave(link, repr(self))

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


class RedisSharing:
    """One client's part in a quota.

    Args:
        link: the connections to the store; left with `aclose`.
        where: the store's name for the log.
        prefix: what the keys begin with, the hash tag left open.
        shares: as `SharedLimiter` takes them.
        overdue: as `SharedLimiter` takes it, seconds.
        fail_fast: whether calls fail where the store is wrongly configured.
    """

    def __init__(self, link: Link, where: str, prefix: str, shares: Shares, overdue: float, *, fail_fast: bool) -> None:
        self._link = link
        self._where = where
        self._prefix = prefix
        self._shares = shares
        self._overdue = overdue
        self._fail_fast = fail_fast
        self._limiters: list[SharedLimiter] = []
        self._member = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._away: set[str] = set()
        self._worked: set[str] = set()
        self._again_at: dict[str, float] = {}

    def limiter(self, command: str, limit: float, strict: bool, queue: QueueView) -> SharedLimiter:
        """The limiter of one endpoint, which may send ``limit`` calls/s from all processes together."""
        limiter = SharedLimiter(
            functools.partial(self._exchange, f"{self._prefix}{command}}}:{LAYOUT}", queue),
            queue,
            limit,
            name=command,
            member=self._member,
            strict=strict,
            shares=self._shares,
            overdue=self._overdue,
        )
        self._limiters.append(limiter)
        return limiter

    async def aclose(self) -> None:
        """Give unused permits back, and close the connections; bounded, whatever the store and its client do."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await asyncio.gather(*(limiter.finish() for limiter in self._limiters))
        finally:
            await _leave(self._link, self._where)

    async def _exchange(self, key: str, queue: QueueView, request: Request) -> Reply:
        """Run ``quota.lua`` on an endpoint's keys.

        Raises:
            StoreAway: the store is unreachable, or replied something else.
        """
        from ._store_faults import FAILURES

        now = asyncio.get_running_loop().time()
        if now < self._again_at.get(key, now):
            raise StoreAway
        document = json.dumps(request, separators=(",", ":"), allow_nan=False)
        try:
            reply = read_reply(await self._link.run(script(), [f"{key}:{name}" for name in KEYS], document))
        except FAILURES as error:
            self._failed(key, queue, error)
            raise StoreAway from error
        self._worked.add(key)
        if self._again_at.pop(key, None) is not None:
            queue.refuse(None)
        if key in self._away:
            self._away.remove(key)
            if not self._away:
                _log.warning("the shared quota at %s is reachable again", self._where)
        return reply

    def _failed(self, key: str, queue: QueueView, error: Exception) -> None:
        """Tell a fault of the configuration from an outage: calls raise the one, and are warned of the other."""
        from ._store_faults import in_words, is_of_the_keys, remedy

        what, words = remedy(error, by_name=self._link.by_name), in_words(error)
        worked = key in self._worked if is_of_the_keys(error) else self._link.worked
        if what and self._fail_fast and not worked:
            message = f"the shared quota at {self._where} cannot be used ({words}); {what}"
            self._again_at[key] = asyncio.get_running_loop().time() + AGAIN
            queue.refuse(functools.partial(QuotaMisconfigured, message))
            return
        if self._again_at.pop(key, None) is not None:
            queue.refuse(None)
        if not self._away:
            share = self._shares.alone
            effect = "using this client's part of each rate" if share is None else f"using {share:.0%} of each rate"
            if self._shares.closed:
                effect = "calls wait for it"
            if what:
                effect = f"{effect}; {what}"
            _log.warning("the shared quota at %s is unreachable (%s); %s", self._where, words, effect)
        self._away.add(key)


async def _leave(link: Link, where: str) -> None:
    """Leave a link, in time."""

    def failed(error: BaseException) -> None:
        if isinstance(error, Exception):
            _log.warning("closing the connections to the shared quota at %s failed", where, exc_info=error)

    closing = Background(link.leave, failed)
    closing.start()
    if not await closing.finish(CLOSING):
        _log.warning("the connections to the shared quota at %s take too long to close", where)


@functools.cache
def script() -> Script:
    """``quota.lua``."""
    from ._redis_clients import Script

    source = importlib.resources.files("tim_async._limiter").joinpath("quota.lua")
    return Script(source.read_text(encoding="utf-8"))
