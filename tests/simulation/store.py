"""The store: servers that run the real ``quota.lua``, and redis-py's connections to them.

A server keeps its data in Lua tables (``redis.lua``), has its own clock, which may jump and drift, and runs one script
at a time.  A name resolves to the primary; after a failover it resolves to another server, without the last writes.

A connection keeps its messages in order.  In a broken network they wait, as TCP's do, and come late, or are lost with
the connection.  A client whose reply times out drops the connection, but the server may still execute its request.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from redis import exceptions

from tim_async._redis_clients import Connected

from . import mutants
from .chance import EPOCH
from .network import Path
from .releases import Later
from .world import ProcessLoop, World

SOURCE = importlib.resources.files(__package__).joinpath("redis.lua")
MORE = importlib.resources.files(__package__).joinpath("streams.lua")


def _sha1(data: str) -> str:
    return hashlib.sha1(data.encode(), usedforsecurity=False).hexdigest()


class Engine:
    """The Lua interpreter for scripts, with Redis' commands; one for all servers, because it keeps no data."""

    def __init__(self) -> None:
        try:
            runtime = importlib.import_module("lupa.luajit21").LuaRuntime()
        except ImportError:  # the fallback runs scripts as Redis' own Lua does, at half the speed
            runtime = importlib.import_module("lupa.lua51").LuaRuntime()
        self.lua: Any = runtime.execute(SOURCE.read_text(encoding="utf-8"))
        self.lua.extend(runtime.execute(MORE.read_text(encoding="utf-8")), _sha1)
        self._scripts: dict[str, Any] = {}

    def script(self, source: str) -> Any:
        """Return a compiled script, from the cache after the first time."""
        if source not in self._scripts:
            self._scripts[source] = self.lua.load(mutants.as_run(source))
        return self._scripts[source]


class Server:
    """One server of the store.

    Args:
        engine: the interpreter of its scripts.
        world: its world.
        name: its run_id.
        data: its initial data; none by default.

    Attributes:
        name: its run_id.
        up: whether it runs.
        primary: whether it accepts writes.
        slow: the duration of each script, seconds.
        shift: the offset of its clock, seconds.
        speed: the seconds that its clock advances in one second of the world.
        ran: the number of scripts run.
        listeners: called after each script, with its keys, argument and reply.
        reads: tells whether a command, given its parts, only reads; a replica executes no others.
    """

    def __init__(self, engine: Engine, world: World, name: str, data: Any = None) -> None:
        self._engine = engine
        self._world = world
        self._busy_until = 0.0
        self._loaded: dict[str, str] = {}
        self.name = name
        self.data: Any = engine.lua.new() if data is None else data
        self.up = True
        self.primary = True
        self.slow = 50e-6
        self.shift = 0.0
        self.speed = 1.0
        self.ran = 0
        self.listeners: list[Callable[[Server, list[str], str, str], None]] = []
        self.reads: Callable[[tuple[Any, ...]], bool] = lambda _: False

    def clock(self) -> int:
        """Return its time, microseconds."""
        return int((EPOCH + self._world.now * self.speed + self.shift) * 1e6)

    def when_ready(self) -> float:
        """Return the time at which a script that arrives now has run."""
        self._busy_until = max(self._busy_until, self._world.now) + self.slow
        return self._busy_until

    def evaluate(self, command: str, text: str, count: int, *rest: str) -> bytes | Exception:
        """Execute EVAL, or EVALSHA if the script is loaded."""
        sha = text if command == "EVALSHA" else _sha1(text)
        if command == "EVAL":
            self._loaded[sha] = text
        if sha not in self._loaded:
            return exceptions.NoScriptError("No matching script. Please use EVAL.")
        return self.run(self._loaded[sha], [*rest[:count]], rest[count]).encode()

    def run(self, source: str, keys: list[str], argument: str) -> str:
        """Run a script."""
        lua = self._engine.lua
        self.ran += 1
        named = lua.split("\n".join(keys))
        reply = str(lua.run(self._engine.script(source), self.data, self.clock(), self.name, named, argument))
        for listen in self.listeners:
            listen(self, keys, argument, reply)
        return reply

    def copied(self) -> Any:
        """Return a copy of its data, for another server."""
        return self._engine.lua.copy(self.data)

    def keys(self) -> list[str]:
        """Return the names of its keys."""
        return str(self._engine.lua.names(self.data)).split()

    def evict(self, key: str) -> None:
        """Evict one key."""
        self._engine.lua.evict(self.data, key)

    def dump(self, key: str) -> str:
        """Return the whole value of a key, as JSON."""
        return str(self._engine.lua.dump(self.data, key))

    def size(self) -> int:
        """Return the number of elements of all keys."""
        return int(self._engine.lua.size(self.data))


@dataclass
class Weather:
    """The current faults of the network between one process and the store.

    Attributes:
        lost: the share of messages lost, together with their connections.
        late: the share of messages that are up to ``lateness`` seconds late.
        lateness: the maximum lateness, seconds.
        twice: the share of requests that arrive twice.
        cut: whether nothing passes; messages sent meanwhile wait.
        more: seconds added to each one-way delay.
    """

    lost: float = 0.0
    late: float = 0.0
    lateness: float = 1.0
    twice: float = 0.0
    cut: bool = False
    more: float = 0.0


class Host(Protocol):
    """A process, from the side of the store's client."""

    loop: ProcessLoop
    name: str


class Store:
    """The servers, and the name that resolves to the primary.

    Args:
        engine: the interpreter of the scripts.
        world: its world.
    """

    def __init__(self, engine: Engine, world: World) -> None:
        self._engine = engine
        self.world = world
        self.dice = world.dice("store")
        self._number = 0
        self.servers: list[Server] = []
        self.primary = self.server()
        self.clients: list[StoreClient] = []

    def server(self, data: Any = None) -> Server:
        """Start another server."""
        self._number += 1
        server = Server(self._engine, self.world, f"{self._number:040x}", data)
        if self.servers:
            server.listeners, server.reads = self.servers[0].listeners, self.servers[0].reads
        self.servers.append(server)
        return server

    @property
    def ran(self) -> int:
        """The number of scripts run on all servers."""
        return sum(server.ran for server in self.servers)

    def stop(self) -> None:
        """Stop the primary, and end its connections."""
        self.primary.up = False
        self.break_connections(self.primary)

    def restart(self, data: Any) -> None:
        """Restart the primary with some data, as a new process with a new run_id."""
        old = self.primary
        old.up = False
        self.break_connections(old)
        self.primary = self.server(data)
        self.primary.shift, self.primary.speed = old.shift, old.speed

    def fail_over(self, data: Any, *, shift: float, demoted: bool) -> None:
        """Fail over: the name resolves to a replica with some data and its own clock.

        Args:
            data: the data of the replica.
            shift: the offset of its clock, seconds.
            demoted: whether the old primary becomes a replica and keeps its connections, instead of dying.
        """
        old = self.primary
        if demoted:
            old.primary = False
        else:
            old.up = False
            self.break_connections(old)
        self.primary = self.server(data)
        self.primary.shift = shift

    def break_connections(self, server: Server) -> None:
        """End all connections to a server."""
        for client in self.clients:
            client.break_connections(server)


class Connection:
    """One connection, with the part of redis-py's interface that the quota uses.

    Args:
        client: its client.

    Attributes:
        server: its server; None before it is connected.
        alive: whether it is usable.
        held: messages that wait for the network to recover.
    """

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._there = self._back = 0.0  # earliest times of the next arrival at either end: messages keep their order
        self._reply: asyncio.Future[bytes] | None = None
        self.server: Server | None = None
        self.alive = False
        self.held: list[Callable[[], None]] = []

    # Called by the quota.

    async def connect(self) -> None:
        """Connect to the server to which the name resolves: one round trip, and one more for the handshake."""
        client = self._client
        world, loop = client.world, asyncio.get_running_loop()
        server = client.store.primary
        for _ in range(2):
            answered = loop.create_future()
            if not client.weather.cut and not client.loses():
                seconds = client.delay() + client.delay()
                world.after(seconds, client.host.loop.arrive, _settle, answered, server.up)
            if not await answered:
                raise exceptions.ConnectionError("Connection refused")
        self.server, self.alive = server, True
        self._there = self._back = 0.0
        client.connections.append(self)

    async def send_command(self, *command: Any, **_: Any) -> None:
        """Send one command; the next `read_response` returns its reply."""
        if not self.alive:
            raise exceptions.ConnectionError("Connection closed by server.")
        client, reply = self._client, asyncio.get_running_loop().create_future()
        self._reply = reply
        if client.later is not None:
            command = client.later.command(command)
        if client.loses():
            return

        def arrive() -> None:
            self._serve(reply, command)

        for _again in range(1 + (client.store.dice.random() < client.weather.twice)):
            if client.weather.cut:
                self.held.append(arrive)
            else:
                self._there = max(self._there, client.world.now + client.delay())
                client.world.at(self._there, arrive)

    async def read_response(self, **_: Any) -> bytes:
        """Wait for the reply."""
        assert self._reply is not None
        return await self._reply

    async def disconnect(self, **_: Any) -> None:
        """Close the connection from this end; requests in flight may still arrive."""
        self.alive = False
        self._reply = None
        if self in self._client.connections and not self.held:
            self._client.connections.remove(self)

    # Called by the world.

    def reset(self) -> None:
        """Close the connection from the other end; a waiting call fails."""
        self.alive = False
        if self in self._client.connections:
            self._client.connections.remove(self)
        if self._reply is not None:
            error = exceptions.ConnectionError("Connection closed by server.")
            self._client.world.after(self._client.delay(), self._client.host.loop.arrive, _settle, self._reply, error)

    def _serve(self, reply: asyncio.Future[bytes], command: tuple[Any, ...]) -> None:
        """Execute a command that has reached the server, even if nothing waits for its reply any more."""
        server = self.server
        assert server is not None
        if not server.up:
            self.reset()
        elif command[0] == "PING":
            self._answer(reply, b"PONG")
        elif not server.primary and not server.reads(command):
            self._answer(reply, exceptions.ReadOnlyError("You can't write against a read only replica."))
        else:
            self._client.world.at(server.when_ready(), self._execute, reply, command)

    def _execute(self, reply: asyncio.Future[bytes], command: tuple[Any, ...]) -> None:
        server = self.server
        assert server is not None
        if server.up:
            self._answer(reply, server.evaluate(*command))

    def _answer(self, reply: asyncio.Future[bytes], answer: bytes | Exception) -> None:
        client = self._client

        def arrive() -> None:
            client.host.loop.arrive(_settle, reply, answer)

        if not self.alive or client.loses():
            return
        if client.weather.cut:
            self.held.append(arrive)
            return
        self._back = max(self._back, client.world.now + client.delay())
        client.world.at(self._back, arrive)


class StoreClient:
    """One process's client of the store and its pool, with the part of `redis.asyncio.Redis` that the quota uses.

    Args:
        store: the store.
        host: the process.
        path: the one-way path.
        later: the later release, if the process is of it; None for this release.
    """

    max_connections = 1000

    def __init__(self, store: Store, host: Host, path: Path, later: Later | None = None) -> None:
        self.later = later
        self.store = store
        self.world = store.world
        self.host = host
        self._path = path
        self._idle: list[Connection] = []
        self.connections: list[Connection] = []
        self.weather = Weather()
        store.clients.append(self)

    # Called by the quota.

    @property
    def connection_pool(self) -> StoreClient:
        """Its pool, i.e. itself."""
        return self

    async def get_connection(self) -> Connection:
        """Return a connected connection, reconnected if it was closed."""
        connection = self._idle.pop() if self._idle else Connection(self)
        if not connection.alive:
            await connection.connect()
        return connection

    async def release(self, connection: Connection) -> None:
        """Return a connection to the pool."""
        self._idle.append(connection)

    async def disconnect(self, *, inuse_connections: bool = True) -> None:
        """Close the idle connections, or all."""
        for connection in [*(self.connections if inuse_connections else self._idle)]:
            await connection.disconnect()

    async def aclose(self) -> None:
        """End all connections."""
        await self.disconnect()
        self.vanish()

    # Called by the world.

    def break_connections(self, server: Server | None = None) -> None:
        """End the connections to one server; None for all."""
        for connection in [*self.connections]:
            if server is None or connection.server is server:
                connection.reset()

    def mend(self) -> None:
        """Repair the network: waiting messages pass now."""
        for connection in self.connections:
            held, connection.held = connection.held, []
            for pass_on in held:
                self.world.after(self.store.dice.uniform(0.0, 0.3), pass_on)
        self.connections = [connection for connection in self.connections if connection.alive]

    def vanish(self) -> None:
        """End the connections of a killed process; messages in flight arrive."""
        self.connections.clear()
        if self in self.store.clients:
            self.store.clients.remove(self)

    def delay(self) -> float:
        """Draw a one-way delay, seconds."""
        dice, weather = self.store.dice, self.weather
        seconds = self._path.delay(dice) + weather.more
        if weather.late and dice.random() < weather.late:
            seconds += dice.random() * weather.lateness
        return seconds

    def loses(self) -> bool:
        """Draw whether a message is lost."""
        return bool(self.weather.lost) and self.store.dice.random() < self.weather.lost


def _settle(waiting: asyncio.Future[Any], result: Any) -> None:
    if waiting.done():
        return
    if isinstance(result, Exception):
        waiting.set_exception(result)
    else:
        waiting.set_result(result)


class SimulatedLink(Connected):
    """The product's link to a simulated store."""

    async def explained(self, error: Exception) -> Exception:
        """Return the same error: each is an outage, and there is no address to examine."""
        return error
