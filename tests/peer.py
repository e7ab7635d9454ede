"""A server on loopback with a scripted behaviour for its connections; the base of the stand-in for the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; a request that was dropped unread has no ``path``."""

    method: str = ""
    path: str = ""
    raw_query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    connection: int = 0

    @classmethod
    def of(cls, head: bytes, connection: int = 0) -> Self:
        """Parse the head of a request, up to its empty line."""
        first, *lines = head.decode("ascii").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return cls(method, path, query, headers, connection=connection)

    @property
    def query(self) -> dict[str, str]:
        return {name: unquote(value) for name, _, value in (p.partition("=") for p in self.raw_query.split("&"))}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def usersig(self) -> str:
        return self.query["usersig"]


class Talk:
    """One connection, from the server's side."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer
        self.reader = reader
        self.writer = writer
        self.number = peer.connections

    async def begun(self) -> bytes:
        """Wait for the first byte of a request."""
        return await self.reader.readexactly(1)

    async def head(self, first: bytes = b"") -> Seen:
        """Read the head of a request, after its first bytes ``first``."""
        seen = Seen.of(first + await self.reader.readuntil(b"\r\n\r\n"), self.number)
        self._peer.heads.append(seen)
        self._peer.arrived.set()
        return seen

    async def request(self, first: bytes = b"") -> Seen:
        """Read a request, after its first bytes ``first``."""
        seen = await self.head(first)
        return replace(seen, body=await self.some(int(seen.headers["content-length"])))

    async def some(self, size: int) -> bytes:
        """Read a part of the body."""
        return await self.reader.readexactly(size)

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, status: int = 200, headers: str = "Content-Type: application/json\r\n") -> None:
        """Send a whole HTTP response."""
        await self.send(f"HTTP/1.1 {status} Said\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def hold(self) -> None:
        """Send nothing more until the server closes."""
        self._peer.reached.set()
        await self._peer.closing.wait()

    async def finish(self) -> None:
        """Close the connection after flushing."""
        self.writer.close()
        await self.writer.wait_closed()

    def end_sending(self) -> None:
        """Close the sending half; unlike an abort, this lets sent data arrive."""
        self.writer.write_eof()

    async def linger(self) -> None:
        """Close the sending half, and wait until the client closes its half."""
        self.end_sending()
        await self.reader.read()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Talk], Awaitable[object]]


class Peer:
    """The server.  It handles all connections alike; the tasks that do so have its class's name.

    Args:
        behaviour: serves one connection, which is closed when it returns.
        tls: the TLS context, for HTTPS.
        receive_buffer: the kernel's receive buffer of a connection, bytes; 0 for the default.

    Attributes:
        heads: the requests whose heads were read.
        connections: the number of accepted connections.
        arrived: set when a head was read.
        reached: set when a connection is held.
        closing: set when the server closes.
    """

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None, *, receive_buffer: int = 0) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._tasks: set[asyncio.Task[None]] = set()
        self.heads: list[Seen] = []
        self.connections = 0
        self.arrived = asyncio.Event()
        self.reached = asyncio.Event()
        self.closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        listening = socket.socket()
        if self._receive_buffer:  # connections inherit it
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listening.bind(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._accepted, sock=listening, ssl=self._tls)
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.close()
        for _ in range(2):  # accepting a connection takes two iterations of the loop
            await asyncio.sleep(0)
        await self.disconnect()

    async def disconnect(self) -> None:
        """Close every connection, idle ones included."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def serving(self) -> int:
        """The number of open connections."""
        return len(self._tasks)

    # Not a coroutine: asyncio would run it in a task, which closes nothing if cancelled before its first step.
    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = Talk(self, reader, writer)
        task = asyncio.get_running_loop().create_task(self._talk(talk), name=type(self).__name__)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(task, writer))

    async def _talk(self, talk: Talk) -> None:
        # The client disconnected, or the server closes: either ends this connection.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._behaviour(talk)
        talk.writer.transport.abort()
        # Without wait_closed(), asyncio may log the error of a lost connection.
        with contextlib.suppress(ConnectionError):
            await talk.writer.wait_closed()

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._tasks.discard(task)
        writer.transport.abort()
