"""The store that several workers share: the product's scripts on a simulated server, and the client's network to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from redis import exceptions
from redis.asyncio import Redis

from tests.simulation.network import Path
from tests.simulation.store import Engine, Host, SimulatedLink, Store, StoreClient
from tim_async import TIMClient
from tim_async._redis_clients import Connected
from tim_async.migrate import UNREAD, FileSource, MigrateOptions, Status, _redis_link
from tim_async.migrate._redis import RedisStore, key_of
from tim_async.migrate._redis_link import TIMEOUT
from tim_async.migrate._store import Problem, RowState
from tim_async.migrate.streams import _fleet, load, read_fleet, work

from .process import Process, Watched

if TYPE_CHECKING:
    from .simulation import Simulation

URL = "redis://simulated:6379/0"
NAME = "migration"
_RETURNED = "returned"
"""The consumer that holds the rows that workers released."""

_engine: Engine | None = None


class Client(StoreClient):
    """One process's client of the store: the part of `redis.asyncio.Redis` that the migration uses."""

    def __init__(self, store: Store, host: Host, path: Path) -> None:
        super().__init__(store, host, path)
        self.connection_kwargs: dict[str, Any] = {}

    async def execute_command(self, *command: Any, **_: Any) -> Any:
        """Run one command."""
        if command[0] == "WAITAOF":
            return [1, 0]
        connection = None
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = await self.get_connection()
                texts = [part.decode() if isinstance(part, bytes) else part for part in command]
                await connection.send_command(*texts)
                reply = await connection.read_response()
        except BaseException as error:
            if connection is not None:
                await connection.disconnect()
            if isinstance(error, TimeoutError):
                raise exceptions.TimeoutError("Timeout reading from socket") from None
            raise
        await self.release(connection)
        return reply


def _only_reads(command: tuple[Any, ...]) -> bool:
    return json.loads(command[-1])["op"] in _redis_link._READS


class WatchedRedis(Watched, RedisStore):
    """The product's store on Redis, observed."""


class StreamStore:
    """A shared store, which workers use concurrently.

    Args:
        sim: the simulation.
    """

    def __init__(self, sim: Simulation) -> None:
        global _engine  # noqa: PLW0603 - it compiles scripts, and keeps no data
        _engine = _engine or Engine()
        self._sim = sim
        self.store = Store(_engine, sim.world)
        self.store.primary.reads = _only_reads
        self._lines = len(sim.plan.lines) + 1
        self._clients: dict[object, Client] = {}

    @property
    def scripts(self) -> int:
        """The number of script runs."""
        return self.store.ran

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        """Connect the product's link to the simulated server."""

        def connect(*_: object, **__: object) -> Connected:
            client = self.client_of(asyncio.get_running_loop())
            return SimulatedLink(cast("Redis", client), True, URL)

        def make(*args: Any, **kwargs: Any) -> RedisStore:
            process = self._sim.threads.of(asyncio.get_running_loop())
            if not isinstance(process, Process) or process.role != "work":
                return RedisStore(*args, **kwargs)
            store = WatchedRedis(*args, **kwargs)
            store.process = process
            return store

        with (
            mock.patch.object(_redis_link, "connect", connect),
            mock.patch.object(_fleet, "RedisStore", make),
        ):
            yield

    def client_of(self, loop: object) -> Client:
        """Return the client of a process, by its loop."""
        if loop not in self._clients:
            host = self._sim.threads.of(loop)
            self._clients[loop] = Client(self.store, host, self._sim.plan.to_store)
        return self._clients[loop]

    def make(self, process: Process) -> None:
        """Do nothing: `work` makes its own store."""

    def run(
        self, process: Process, client: TIMClient, options: MigrateOptions, stop: asyncio.Event | None
    ) -> AsyncGenerator[Any, None]:
        """Run the work of a process: the first one loads the file, the others send rows."""
        if process.role == "load":
            return load(FileSource(self._sim.source, UNREAD), URL, name=NAME, stop=stop)
        return work(client, URL, name=NAME, lease=self._sim.plan.lease, stop=stop, options=options)

    async def write_rejects(self, process: Process) -> None:
        """Do nothing: that file is written in the same way as with a journal."""

    async def look(self) -> Status:
        """Read the status, as any process can at any time."""
        return await read_fleet(URL, name=NAME)

    async def problems(self) -> list[Problem]:
        """Read the failed and rejected rows."""
        store = RedisStore(URL, NAME)
        try:
            return [problem async for problem in store.problems()]
        finally:
            await store.close()

    def holds(self, process: Process) -> bool:
        """Return False: it holds nothing that the system would release."""
        return False

    def released(self, process: Process | None) -> None:
        """End the connections of a process that has ended."""
        if process is not None and process.loop in self._clients:
            self._clients[process.loop].vanish()

    def states(self) -> Mapping[int, str] | None:
        """Return the state of each line; None before all are planned."""
        data, lua = self.store.primary.data, _engine.lua if _engine is not None else None
        assert lua is not None
        names = [key_of(NAME, part) for part in ("states", "rows", "claims")]
        found = [line.split() for line in str(lua.rows(data, *names, self._lines)).split("\n")]
        states = {}
        for line, (state, consumer, claimed) in enumerate(found, 1):
            number = int(state)
            if not number:
                continue
            name = RowState(number - 1).name.lower()
            if name == "pending" and consumer != "-" and (consumer != _RETURNED or claimed == "1"):
                name = "sending"
            states[line] = name
        return states if self._sim.begun else None
