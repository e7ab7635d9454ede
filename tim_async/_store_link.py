"""A process's connections to the store of a quota: few, shared, and given up when they lead nowhere.

All clients in one event loop that name the same store share one `Link`.  It runs the script on one of at most
`CONNECTIONS` connections, which are made when they are needed.

**An exchange has two parts**, each with its own time-out.  To connect takes several round trips (TCP, TLS, AUTH,
SELECT, and the Sentinels' answer), and happens rarely; the script takes one.  Both are learned by `RoundTrips`.

**A connection may be of no use any more**: closed by the server, dropped silently on the way, or leading to a server
that is not the primary now (READONLY).  Then idle connections are closed, and the script runs once more, on a new
connection, for which the name is resolved anew.  Where nothing comes back at all, a new connection is tried beside the
other: soon where that was idle, and otherwise in time to end with it.  A request may be carried out twice without harm.

Importing this imports redis-py.
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
from redis.client import NEVER_DECODE
from redis.utils import str_if_bytes

from ._limiter.request import SETTLE
from ._redis_clients import Connected, Script, execute
from ._round_trips import LONGEST, RoundTrips, Within
from ._store_faults import FAILURES, is_stale, is_time_out

CONNECTIONS = 8
"""Exchanges at the same time: a client has four endpoints with limits, and one exchange of each at a time."""
IDLE = 0.2
"""Seconds after which connections that were not used are not trusted."""
STEP = 0.7
"""Seconds for each step of a cluster's client, such as to connect to a node, or to ask it for the map."""
SETTLE_OF_CLUSTER = 0.8
"""Seconds to find a cluster's new primary: its client pauses for 0.25 s, and a node that hangs costs a step."""
_UNSURE = 1.0
"""Seconds without an answer after which Sentinels are asked whether a connection still leads to the primary."""
_OLD = 15.0
"""Seconds after which a connection that was not used, while others were, is made anew."""
_PATIENT = 2 * LONGEST
"""Seconds to connect, where only the time it takes is of interest."""
_EXHAUSTED = 0.01
"""Seconds between two looks at a pool of the user's that has no free connection."""
_GIVING_UP = 0.1
"""Seconds for idle connections to close."""

_links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Link]] = weakref.WeakKeyDictionary()


class Link:
    """Connections to a store, in one event loop.

    Args:
        connected: the client.
        timeout: seconds for one round trip; None to learn it.

    Attributes:
        shown: the store's name.
        by_name: whether the primary is found by asking.
        times: the time-outs.
        worked: whether the store has ever carried out the script.
        settle: seconds within which every process reaches it again, where the way to it takes no time.
    """

    def __init__(self, connected: Connected, timeout: float | None) -> None:
        self.shown: str = connected.shown
        self.by_name: bool = connected.by_name
        self.times = RoundTrips(timeout)
        self.worked = False
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
        self._heard_at: float | None = None  # since connections were last given up
        self._tasks: set[asyncio.Task[Any]] = set()
        self._measuring: asyncio.Task[None] | None = None

    @classmethod
    def join(cls, key: Hashable, connect: Callable[[], Connected], timeout: float | None) -> Link:
        """The link of the running event loop for a key, made if there is none; each must `leave` it."""
        links = _links.setdefault(asyncio.get_running_loop(), {})
        link = links.get(key)
        if link is None:
            link = links[key] = cls(connect(), timeout)
            link._key = key
        link._users += 1
        return link

    async def leave(self) -> None:
        """Close the connections, if nobody else uses them.

        Raises:
            RedisError, OSError: they did not close well.
        """
        self._users -= 1
        if self._users:
            return
        _links.get(asyncio.get_running_loop(), {}).pop(self._key, None)
        for task in self._tasks:
            task.cancel()
        await self._connected.aclose()

    async def run(self, script: Script, keys: list[str], document: str) -> Any:
        """Run a script on a store that may have to be found first.

        Raises:
            FAILURES: it could not be run; a time-out is a `TimeoutError`.
        """
        async with self._free:
            connected = self._heard_at is not None
            try:
                async with asyncio.timeout(self.times.most):
                    reply = await self._watched(script, keys, document)
            except FAILURES as error:
                if not self.worked and (mistake := await self._connected.explained(error)) is not error:
                    raise mistake from None
                if not is_stale(error):
                    raise
                await self._give_up()
                if is_time_out(error):
                    self._measure()
                    raise
                # A replica may have been the primary when this one connected to it, a moment ago.
                if not connected and not isinstance(error, exceptions.ReadOnlyError):
                    raise
                async with asyncio.timeout(self.times.most):
                    reply = await self._once(script, keys, document)
            self._heard_at = self.now()
            self.worked = True
            return reply

    async def ask(self, key: str, *command: str) -> Any:
        """Run a command on the server that has a key; text in the reply is bytes, but INFO is a dict.

        Raises:
            FAILURES: it could not be run.
        """
        client = self._connected.client
        async with asyncio.timeout(self.times.most):
            if isinstance(client, RedisCluster):
                node = client.get_node_from_key(key)
                assert node is not None  # it has just answered
                return await node.execute_command(*command, **{NEVER_DECODE: True})
            return await execute(client, *command)

    async def _watched(self, script: Script, keys: list[str], document: str) -> Any:
        """Run a script; when the answer is late, try a new connection beside the one that may be of no use.

        With the time-out of a busy connection it is over; beside an idle one, the new one is given all it needs.
        """
        loop = asyncio.get_running_loop()
        idle = self._heard_at is not None and self.now() > self._heard_at + IDLE
        second: asyncio.Task[Any] | None = None
        timer: asyncio.TimerHandle | None = None
        over = False

        def arm() -> None:
            nonlocal timer
            timer = loop.call_later(self.times.soon if idle else self.times.late, begin)

        def begin() -> None:
            nonlocal second
            second = self._begin(self._anew(script, keys, document))
            second.add_done_callback(ended)

        def ended(task: asyncio.Task[Any]) -> None:
            if not over and not task.cancelled() and task.exception() is None:
                first.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as first:
                return await self._once(script, keys, document, arm)
        except FAILURES as error:
            over = True  # so is the time-out
            if second is None or (is_time_out(error) and not idle and not second.done()):
                raise
            return await second
        finally:
            over = True
            if timer is not None:
                timer.cancel()
            if second is not None:
                second.cancel()

    async def _anew(self, script: Script, keys: list[str], document: str) -> Any:
        """Run a script on a new connection."""
        await self._give_up()
        return await self._once(script, keys, document)

    async def _once(
        self, script: Script, keys: list[str], document: str, connected: Callable[[], object] = lambda: None
    ) -> Any:
        """Run a script on one connection; call a function as soon as it is connected."""
        client = self._connected.client
        try:
            if isinstance(client, RedisCluster):
                connected()
                return await self._in_cluster(client, script, keys, document)
            async with self._connection(client.connection_pool, self.times.connecting) as connection:
                connected()
                return await script.by(functools.partial(self._talk, connection), keys, document)
        except (AttributeError, IndexError, TypeError) as error:  # redis-py trusts whatever answers
            raise exceptions.InvalidResponse(f"{type(error).__name__}: {error}") from error

    async def _in_cluster(self, client: RedisCluster, script: Script, keys: list[str], document: str) -> Any:
        """Run a script in a cluster, whose client chooses the connection and connects by itself."""
        connected, began = self._heard_at is not None, self.now()
        # Its own time-outs must come first: by them it learns which node is away, and asks another for the map.
        async with asyncio.timeout(max(self.times.connecting, 3 * STEP)):
            reply = await script.run(client, keys, document)
        if connected:
            self.times.heard(self.now() - began)
        return reply

    async def _talk(self, connection: AbstractConnection, *command: Any) -> Any:
        """Run a command on a connection."""
        began = self.now()
        async with Within(self.times.limit):
            await connection.send_command(*command)
            reply = await connection.read_response(disable_decoding=True)
        self.times.heard(self.now() - began)
        return reply

    @contextlib.asynccontextmanager
    async def _connection(self, pool: ConnectionPool, within: float) -> AsyncIterator[AbstractConnection]:
        """A connection that is connected."""
        patience = self.now() + LONGEST
        while True:
            try:
                async with Within(within):
                    connection = await self._acquire(pool)
                break
            except exceptions.ConnectionError as error:
                # The others may be in the user's hands.
                if "Too many connections" not in str(error) or self.now() > patience:
                    raise
                await asyncio.sleep(_EXHAUSTED)
        try:
            used = self._used.get(connection)
            if used is not None and self.now() > used + _OLD:
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
        unsure = self._heard_at is not None and self.now() > self._heard_at + _UNSURE
        if unsure and isinstance(pool, SentinelConnectionPool) and not await self._leads_to_primary(pool, connection):
            try:
                await self._connected.give_up()
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]
            except BaseException:
                await pool.release(connection)
                raise
        return connection

    async def _leads_to_primary(self, pool: SentinelConnectionPool, connection: Any) -> bool:
        """Ask a Sentinel: an old primary that was partitioned or frozen is not told at once that it is none.

        Returns:
            False where another is the primary; True also where none of the Sentinels replies soon.
        """
        for sentinel in tuple(pool.sentinel_manager.sentinels):
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(self.times.soon):
                    address = await sentinel.sentinel_get_master_addr_by_name(pool.service_name)
                return address is None or (str_if_bytes(address[0]), address[1]) == (connection.host, connection.port)
        return True

    async def _give_up(self) -> None:
        """Close idle connections; in time, whatever they do."""
        self._heard_at = None
        await asyncio.wait([self._begin(self._connected.give_up())], timeout=_GIVING_UP)

    def _measure(self) -> None:
        """Find out, beside all else, whether the way has become longer than the time-outs."""
        if self._measuring is None or self._measuring.done():
            self._measuring = self._begin(self._measured())

    async def _measured(self) -> None:
        client = self._connected.client
        if isinstance(client, RedisCluster):
            return
        async with self._connection(client.connection_pool, _PATIENT) as connection, asyncio.timeout(LONGEST):
            began = self.now()
            await connection.send_command("PING")
            with contextlib.suppress(exceptions.ResponseError):
                await connection.read_response()
            self.times.start_over(self.now() - began)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # Not by the loop's task factory: an eager task would begin in the middle of what its starter does.
        task = asyncio.Task(work, loop=asyncio.get_running_loop())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody asks for that of an attempt that was left alone

    @staticmethod
    def now() -> float:
        """The event loop's time, seconds."""
        return asyncio.get_running_loop().time()
