"""A server on loopback that ends a connection in any way a server, a gateway or a network can."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote


class Talk:
    """One connection: what arrived, and what can be done to it."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self.usersig = ""

    async def head(self) -> int:
        """Read the head of a request, and return the length of its body."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        _, target, _ = lines[0].split(" ")
        for part in target.partition("?")[2].split("&"):
            name, _, value = part.partition("=")
            if name == "usersig":
                self.usersig = unquote(value)
        self._peer.arrived.append(self.usersig)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        return int(headers["content-length"])

    async def request(self) -> Any:
        """Read a request, and return its body."""
        return json.loads(await self._reader.readexactly(await self.head()))

    async def some(self) -> None:
        """Read a part of the body."""
        await self._reader.readexactly(1000)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, status: int = 200, headers: str = "Content-Type: application/json\r\n") -> None:
        """Send a whole HTTP response."""
        await self.send(f"HTTP/1.1 {status} Said\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def hold(self) -> None:
        """Say nothing more until the peer closes."""
        self._peer.reached.set()
        await self._peer.closing.wait()

    async def finish(self) -> None:
        """Close after what was sent has arrived."""
        self._writer.close()
        await self._writer.wait_closed()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Behaviour = Callable[[Talk], Awaitable[None]]


class Peer:
    """The server.  It treats every connection in the same way.

    Attributes:
        reached: set when a connection is held, or is never going to be accepted.
        arrived: the UserSig of each request whose head was read.
    """

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.reached = asyncio.Event()
        self.closing = asyncio.Event()
        self.arrived: list[str] = []

    async def __aenter__(self) -> Self:
        listening = socket.socket()
        # Connections inherit it: a large body does not fit into what the kernel takes for a server that does not read.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listening, ssl=self._tls)
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            await self._behaviour(Talk(self, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the peer closes: either is the end of this connection
        finally:
            if task is not None:
                self._tasks.discard(task)
            writer.transport.abort()


class Refusing:
    """A port on which nobody listens."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        self.reached = asyncio.Event()
        self.arrived: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing was opened."""


class Unknown(Refusing):
    """A host whose name does not resolve."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.url = "https://no-such-host.invalid"


class Full(Refusing):
    """A port that accepts nobody: the queue of its listening socket is full, and the kernel drops what comes."""

    async def __aenter__(self) -> Self:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        address = self._listening.getsockname()
        self._waiting = [socket.socket() for _ in range(3)]
        for waiting in self._waiting:
            waiting.setblocking(False)
            waiting.connect_ex(address)
        self.url = f"http://127.0.0.1:{address[1]}"
        self.reached.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        for sock in (self._listening, *self._waiting):
            sock.close()


class Dying(Refusing):
    """A server that answers one request, and then, when it is told to, resets the connection at once.

    It needs no turn of the event loop for that: what is written next fails when it is written.
    """

    async def __aenter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()
        return self

    def _answer(self) -> None:
        self._connection, _ = self._listening.accept()
        received = b""
        while not received.endswith(b"}"):
            received += self._connection.recv(65536)
        self.arrived += re.findall(r"usersig=([^& ]+)", received.decode())
        self._connection.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{"ErrorCode":0, "AllC2CUnreadMsgNum": 7}'
        )

    def die(self) -> None:
        """Reset the connection, and accept no other."""
        self._thread.join()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()
        self._listening.close()

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()


Place = Peer | Refusing


def escaped(text: str) -> str:
    """Every character as JSON's \\u escape, which is the same text to a parser and another to a search."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def percent_encoded(text: str) -> str:
    """Every character percent-encoded."""
    return "".join(f"%{ord(character):02X}" for character in text)


def percent_encoded_where_needed(text: str) -> str:
    """Percent-encoded as a strict encoder of queries does it."""
    return re.sub(r"[^A-Za-z0-9]", lambda match: f"%{ord(match[0]):02x}", text)
