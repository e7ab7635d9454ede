"""Addresses without a server, or with one that dies; and encodings of a text."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import threading
from typing import Self

from tests.peer import Peer, Seen
from tests.store import free_port


class Refusing:
    """A port on which no server listens."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.reached = asyncio.Event()
        self.heads: list[Seen] = []

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
    """A port that accepts no connection: the listen queue is full, and the kernel drops all packets."""

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
    """A server that answers one request, and resets the connection in `die`.

    `die` needs no step of the event loop: the client's next write fails.
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
        self.heads.append(Seen.of(received.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"))
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


NonEmptyPath = Peer | Refusing


def escaped(text: str) -> str:
    """Return the text with every character as JSON's \\u escape."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def percent_encoded(text: str) -> str:
    """Return the text with every character percent-encoded."""
    return "".join(f"%{ord(character):02X}" for character in text)


def percent_encoded_where_needed(text: str) -> str:
    """Return the text percent-encoded as by a strict encoder of queries."""
    return re.sub(r"[^A-Za-z0-9]", lambda match: f"%{ord(match[0]):02x}", text)
