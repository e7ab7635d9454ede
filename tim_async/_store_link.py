"""A process's connections to the store of a quota: few, shared, and replaced when they fail.

All clients in one event loop that name the same store share one `StoreLink`.  It runs the script on one of at most
`CONNECTIONS` connections, which are made on demand.

**An exchange has two parts**, each with its own time-out, which `RoundTrips` learns.  Connecting takes several round
trips (TCP, TLS, AUTH, SELECT, and the Sentinels' answer), and is rare; the script takes one.

**A connection may be stale**: closed by the server, dropped silently by the network, or to a server that is no longer
the primary (READONLY).  Then idle connections are closed, and the script is run once more on a new connection, for
which the name is resolved again.  If there is no reply at all, the request is hedged: it is sent again on a new
connection in parallel, early if the first connection was idle, otherwise in time to end with it.  The store may execute
a request twice without harm.

Importing this module imports redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from typing import Any

from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.utils import str_if_bytes

from ._limiter.request import SETTLE
from ._redis_clients import Connected, Script, execute
from ._round_trips import LONGEST, RoundTrips, Within
from ._store_faults import FAILURES, is_stale, is_time_out

CONNECTIONS = 8
"""The maximum number of concurrent exchanges: a client has four endpoints with limits, each with one at a time."""
IDLE = 0.2
"""Seconds without a reply after which connections count as idle, and may be stale."""
STEP = 0.7
"""The time-out in seconds of each step of a cluster's client, such as connecting to a node or fetching its map."""
SETTLE_OF_CLUSTER = 0.8
"""Seconds to find a cluster's new primary: its client pauses for 0.25 s, and an unresponsive node costs a step."""
_RECHECK = 1.0
"""Seconds without a reply after which Sentinels are asked whether a connection still leads to the primary."""
_RECONNECT = 15.0
"""Seconds after which a connection that was not used, while others were, is replaced."""
_MEASURING = 2 * LONGEST
"""The time-out in seconds of a connection that is made only to measure the round trip."""
_POLL = 0.01
"""Seconds between two attempts to get a connection from a user's pool that has none free."""
_CLOSING = 0.1
"""The time-out in seconds for closing idle connections."""

_links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, StoreLink]] = weakref.WeakKeyDictionary()


class StoreLink:
    """Connections to a store, in one event loop.

    Args:
        connected: the client.
        timeout: seconds for one round trip; None to learn it.

    Attributes:
        shown: the store's name for logs and messages.
        by_name: whether Sentinels or a cluster are asked for the primary.
        times: the time-outs.
        worked: whether the store has ever executed the script.
        settle: seconds after a failover within which every process reconnects, without network latency.
    """

    def __init__(self, connected: Connected, timeout: float | None) -> None:
        self.shown: str = connected.shown
        self.by_name: bool = connected.by_name
        self.times: RoundTrips = RoundTrips(timeout)
        self.worked: bool = False
        cluster = isinstance(connected.client, RedisCluster)
        self.settle: float = SETTLE_OF_CLUSTER if cluster else SETTLE
        self._connected = connected
        self._users = 0
        self._key: Hashable = None
        most = CONNECTIONS
        if not isinstance(connected.client, RedisCluster):
            most = min(most, connected.client.connection_pool.max_connections)
        self._free = asyncio.Semaphore(most)
        self._used: weakref.WeakKeyDictionary[AbstractConnection, float] = weakref.WeakKeyDictionary()
        self._last_reply: float | None = None  # None also after idle connections were closed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._measuring: asyncio.Task[None] | None = None

    @classmethod
    def join(cls, key: Hashable, connect: Callable[[], Connected], timeout: float | None) -> StoreLink:
        """Return the running event loop's link for a key, made if necessary; each caller must `leave` it."""
        links = _links.setdefault(asyncio.get_running_loop(), {})
        link = links.get(key)
        if link is None:
            link = links[key] = cls(connect(), timeout)
            link._key = key
        link._users += 1
        return link

    async def leave(self) -> None:
        """Close the connections, unless another client uses the link.

        Raises:
            RedisError, OSError: a connection could not be closed cleanly.
        """
        self._users -= 1
        if self._users:
            return
        _links.get(asyncio.get_running_loop(), {}).pop(self._key, None)
        for task in self._tasks:
            task.cancel()
        await self._connected.aclose()

    async def run(self, script: Script, keys: list[str], document: str) -> Any:
        """Run a script, once more on a new connection if the first was stale.

        Raises:
            FAILURES: the script could not be run; a time-out is a `TimeoutError`.
        """
        async with self._free:
            connected = self._last_reply is not None
            try:
                async with asyncio.timeout(self.times.most):
                    reply = await self._run_hedged(script, keys, document)
            except FAILURES as error:
                if not self.worked and (mistake := await self._connected.explained(error)) is not error:
                    raise mistake from None
                if not is_stale(error):
                    raise
                await self._close_idle()
                if is_time_out(error):
                    self._measure()
                    raise
                # Also for a new connection, if its server was the primary until a moment ago.
                if not connected and not isinstance(error, exceptions.ReadOnlyError):
                    raise
                async with asyncio.timeout(self.times.most):
                    reply = await self._run_once(script, keys, document)
            self._last_reply = self.now()
            self.worked = True
            return reply

    async def ask(self, key: str, *command: str) -> Any:
        """Run a command as `Connected.execute_at` does, with a time-out.

        Raises:
            FAILURES: the command could not be run.
        """
        async with asyncio.timeout(self.times.most):
            return await self._connected.execute_at(key, *command)

    async def _run_hedged(self, script: Script, keys: list[str], document: str) -> Any:
        """Run a script; if the reply is late, run it on a new connection in parallel, and return the first reply.

        If the first connection was busy, its time-out ends both; if it was idle, the new one has its full time-out.
        """
        loop = asyncio.get_running_loop()
        idle = self._last_reply is not None and self.now() > self._last_reply + IDLE
        hedge: asyncio.Task[Any] | None = None
        timer: asyncio.TimerHandle | None = None
        ended = False

        def start_timer() -> None:
            nonlocal timer
            timer = loop.call_later(self.times.soon if idle else self.times.late, start_hedge)

        def start_hedge() -> None:
            nonlocal hedge
            hedge = self._start_task(self._run_on_new(script, keys, document))
            hedge.add_done_callback(stop_first)

        def stop_first(task: asyncio.Task[Any]) -> None:
            if not ended and not task.cancelled() and task.exception() is None:
                first.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as first:
                return await self._run_once(script, keys, document, start_timer)
        except FAILURES as error:
            ended = True  # its time-out must not be rescheduled
            if hedge is None or (is_time_out(error) and not idle and not hedge.done()):
                raise
            return await hedge
        finally:
            ended = True
            if timer is not None:
                timer.cancel()
            if hedge is not None:
                hedge.cancel()

    async def _run_on_new(self, script: Script, keys: list[str], document: str) -> Any:
        """Run a script on a new connection."""
        await self._close_idle()
        return await self._run_once(script, keys, document)

    async def _run_once(
        self, script: Script, keys: list[str], document: str, connected: Callable[[], object] = lambda: None
    ) -> Any:
        """Run a script on one connection; ``connected`` is called as soon as there is one."""
        client = self._connected.client
        try:
            if isinstance(client, RedisCluster):
                connected()
                return await self._in_cluster(client, script, keys, document)
            async with self._connection(client.connection_pool, self.times.connecting) as connection:
                connected()
                return await script.run(functools.partial(self._execute, connection), keys, document)
        except (AttributeError, IndexError, TypeError) as error:  # redis-py does not validate replies
            raise exceptions.InvalidResponse(f"{type(error).__name__}: {error}") from error

    async def _in_cluster(self, client: RedisCluster, script: Script, keys: list[str], document: str) -> Any:
        """Run a script in a cluster, whose client selects the connection and connects itself."""
        connected, began = self._last_reply is not None, self.now()
        # The client's own time-outs must come first: they make it skip an unreachable node and ask another for the map.
        async with asyncio.timeout(max(self.times.connecting, 3 * STEP)):
            reply = await script.run(functools.partial(execute, client), keys, document)
        if connected:
            self.times.heard(self.now() - began)
        return reply

    async def _execute(self, connection: AbstractConnection, *command: Any) -> Any:
        """Run a command on a connection."""
        began = self.now()
        async with Within(self.times.limit):
            await connection.send_command(*command)
            reply = await connection.read_response(disable_decoding=True)
        self.times.heard(self.now() - began)
        return reply

    @contextlib.asynccontextmanager
    async def _connection(self, pool: ConnectionPool, within: float) -> AsyncIterator[AbstractConnection]:
        """Take a connection from the pool, connect it if necessary, and release it at the end."""
        deadline = self.now() + LONGEST
        while True:
            try:
                async with Within(within):
                    connection = await self._acquire(pool)
                break
            except exceptions.ConnectionError as error:
                # The user may hold the other connections.
                if "Too many connections" not in str(error) or self.now() > deadline:
                    raise
                await asyncio.sleep(_POLL)
        try:
            used = self._used.get(connection)
            if used is not None and self.now() > used + _RECONNECT:
                async with asyncio.timeout(within):
                    await connection.disconnect(nowait=True)
                    await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
        except BaseException as error:
            if not isinstance(error, exceptions.ResponseError) or is_stale(error):
                await connection.disconnect(nowait=True)
            raise
        finally:
            self._used[connection] = self.now()
            await pool.release(connection)

    async def _acquire(self, pool: ConnectionPool) -> AbstractConnection:
        connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
        recheck = self._last_reply is not None and self.now() > self._last_reply + _RECHECK
        if recheck and isinstance(pool, SentinelConnectionPool) and not await self._leads_to_primary(pool, connection):
            try:
                await self._connected.give_up()
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]
            except BaseException:
                await pool.release(connection)
                raise
        return connection

    async def _leads_to_primary(self, pool: SentinelConnectionPool, connection: Any) -> bool:
        """Ask a Sentinel for the primary: an old one that was partitioned or frozen learns late of its replacement.

        Returns:
            False if the primary is another server; True also if no Sentinel replies soon.
        """
        for sentinel in tuple(pool.sentinel_manager.sentinels):
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(self.times.soon):
                    address = await sentinel.sentinel_get_master_addr_by_name(pool.service_name)
                return address is None or (str_if_bytes(address[0]), address[1]) == (connection.host, connection.port)
        return True

    async def _close_idle(self) -> None:
        """Close idle connections, for at most `_CLOSING` seconds."""
        self._last_reply = None
        await asyncio.wait([self._start_task(self._connected.give_up())], timeout=_CLOSING)

    def _measure(self) -> None:
        """Measure the round trip in the background: it may have become longer than the time-outs."""
        if self._measuring is None or self._measuring.done():
            self._measuring = self._start_task(self._measure_once())

    async def _measure_once(self) -> None:
        client = self._connected.client
        if isinstance(client, RedisCluster):
            return
        async with self._connection(client.connection_pool, _MEASURING) as connection, asyncio.timeout(LONGEST):
            began = self.now()
            await connection.send_command("PING")
            with contextlib.suppress(exceptions.ResponseError):
                await connection.read_response()
            self.times.start_over(self.now() - began)

    def _start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # Not with the loop's task factory: an eager task would run before this returns.
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop())
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return task

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log that of an abandoned attempt

    @staticmethod
    def now() -> float:
        """The event loop's time, seconds."""
        return asyncio.get_running_loop().time()
