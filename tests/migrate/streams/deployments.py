"""Stores as they are deployed: a primary with a replica behind one address, and a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot

from tests.store import Store

from .fleet import key, looking

_QUICK = {"repl-diskless-sync-delay": "0"}


class Pair:
    """A primary and its replica, behind an address that leads to whichever is to be written to.

    Attributes:
        url: of that address.
    """

    def __init__(self, folder: Path) -> None:
        self.primary = Store(folder / "primary", **_QUICK)
        self.replica = Store(folder / "replica", **_QUICK)
        self.url = ""
        self._leads_to = self.primary
        self._talks: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Pair]:
        """Both, once the replica has what the primary has."""
        with self.primary, self.replica:
            await self._tell(self.replica, "REPLICAOF", "127.0.0.1", self.primary.port)
            async with looking(self.primary.url) as redis:
                while "online" not in str((await redis.info("replication")).get("slave0")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            async with await asyncio.start_server(self._pass_on, "127.0.0.1", 0) as server:
                self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
                yield self
                self._cut()
            await asyncio.gather(*self._passing, return_exceptions=True)

    async def detach(self) -> None:
        """Have the replica get no more: what is written from now on is lost by `fail_over`."""
        await self._tell(self.replica, "REPLICAOF", "NO", "ONE")

    def fail_over(self) -> None:
        """Kill the primary, and write to the replica from now on."""
        self.primary.kill()
        self._leads_to = self.replica
        self._cut()

    async def _tell(self, store: Store, *command: Any) -> None:
        async with looking(store.url) as redis:
            await redis.execute_command(*command)

    def _cut(self) -> None:
        for writer in self._talks:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks.add(writer)
        self._passing.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._leads_to.port)
            self._talks.add(ours)
            ways = [asyncio.create_task(_copy(*way)) for way in ((reader, ours), (theirs, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            ours.close()
            writer.close()
            await asyncio.wait(ways)
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class Cluster:
    """Two primaries and a replica of the one that has the usual migration's slot.

    Attributes:
        owner: the primary with the slot.
        other: the other one.
        replica: of the first.
        slot: the number of the slot.
    """

    def __init__(self, folder: Path) -> None:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": "500", **_QUICK}
        self.owner, self.other, self.replica = (Store(folder / str(number), **settings) for number in range(3))
        self.slot = key_slot(key("about").encode())

    @property
    def url(self) -> str:
        """A URL that names two of its nodes."""
        return f"redis+cluster://127.0.0.1:{self.other.port},127.0.0.1:{self.replica.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Cluster]:
        """The nodes, once all of them know each other."""
        with self.owner, self.other, self.replica:
            # Each keeps some: a primary without any would become a replica.
            await self.tell(self.owner, "CLUSTER", "ADDSLOTSRANGE", 0, self.slot + 1)
            await self.tell(self.other, "CLUSTER", "ADDSLOTSRANGE", self.slot + 2, 16383)
            for node in (self.other, self.replica):
                await self.tell(self.owner, "CLUSTER", "MEET", "127.0.0.1", node.port)
            while not await self._replicates():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            yield self

    async def _replicates(self) -> bool:
        name = await self.tell(self.owner, "CLUSTER", "MYID")
        with contextlib.suppress(Exception):  # until it has met the owner
            await self.tell(self.replica, "CLUSTER", "REPLICATE", name)
        views = [str(await self.tell(node, "CLUSTER", "INFO")) for node in (self.owner, self.other, self.replica)]
        replication = str(await self.tell(self.owner, "INFO", "replication"))
        return all("cluster_state:ok" in view for view in views) and "state=online" in replication

    async def tell(self, node: Store, *command: Any) -> Any:
        """Have one node carry out a command."""
        redis: Any = Redis(port=node.port, decode_responses=True)
        redis.set_response_callback("INFO", lambda text, **_: text)
        redis.set_response_callback("CLUSTER INFO", lambda text, **_: text)
        try:
            return await redis.execute_command(*command)
        finally:
            await redis.aclose()

    async def begin_move(self) -> list[str]:
        """Begin to move the slot to the other primary; the keys that are in it."""
        ours, theirs = [await self.tell(node, "CLUSTER", "MYID") for node in (self.owner, self.other)]
        await self.tell(self.other, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", ours)
        await self.tell(self.owner, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", theirs)
        found: list[str] = await self.tell(self.owner, "CLUSTER", "GETKEYSINSLOT", self.slot, 1000)
        return found

    async def move(self, name: str) -> None:
        """Move one key."""
        await self.tell(self.owner, "MIGRATE", "127.0.0.1", self.other.port, name, 0, 5000)

    async def end_move(self) -> None:
        """The slot is the other's."""
        theirs = await self.tell(self.other, "CLUSTER", "MYID")
        for node in (self.other, self.owner):
            await self.tell(node, "CLUSTER", "SETSLOT", self.slot, "NODE", theirs)

    async def take_over(self) -> None:
        """Have the replica be the primary, as when the others have agreed on it."""
        await self.tell(self.replica, "CLUSTER", "FAILOVER", "TAKEOVER")
