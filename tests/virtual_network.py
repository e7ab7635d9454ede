"""Connections in virtual time: real aiohttp on an event loop whose sockets follow a test's script.

Timers that are due within the same hundredth of a second fire in the same iteration of the loop, in the order of their
times, so a test chooses which events coincide, and in which order.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .virtual_time import VirtualTimeLoop

TURN = 0.01
"""Seconds of one iteration of the loop."""


@dataclass(frozen=True)
class Moment:
    """The time of an event.

    Attributes:
        at: seconds from the beginning.
        rank: its place among the events of the same iteration.
        hops: further iterations before it happens.
    """

    at: float
    rank: int = 0
    hops: int = 0

    @property
    def exactly(self) -> float:
        return self.at + self.rank * TURN / 1000


NOW = Moment(0.0)
NEVER = Moment(1e9)


@dataclass
class Script:
    """The behaviour of the network.

    Attributes:
        resolved: the time at which the name is resolved.
        connected: for each address, the time at which it accepts a connection.
        answered: the time at which a request is answered.
        answer: the answer; None for the end of the connection.
    """

    resolved: Moment = NOW
    connected: tuple[Moment, ...] = (NOW,)
    answered: Moment = NOW
    answer: dict[str, Any] | None = field(default_factory=lambda: {"ErrorCode": 0, "ActionStatus": "OK"})


class Network(VirtualTimeLoop):
    """The event loop.

    Attributes:
        script: the behaviour of the network; it can be changed.
        transports: all connections.
        sockets: all sockets.
        complaints: the contexts that the loop's exception handler received.
        requested: set when a request has arrived.
        began: the time of the beginning, to which moments are relative.
    """

    def __init__(self) -> None:
        super().__init__(TURN)
        self.script = Script()
        self.transports: list[Transport] = []
        self.sockets: list[socket.socket] = []
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.requested = asyncio.Event()
        self.began = self.time()

    def at(self, moment: Moment, callback: Callable[..., object], *args: Any) -> None:
        """Call back at a moment."""

        def hop(left: int) -> None:
            if left:
                self.call_soon(hop, left - 1)
            else:
                callback(*args)

        if moment.at >= NEVER.at:
            return
        if moment.at <= self.time() - self.began:
            self.call_soon(hop, moment.hops)
        else:
            self.call_at(self.began + moment.exactly, hop, moment.hops)

    async def moment(self, moment: Moment) -> None:
        """Wait for a moment."""
        waiting = self.create_future()
        self.at(moment, _wake, waiting)
        await waiting

    # The methods that aiohttp calls.

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        await self.moment(self.script.resolved)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{number}", port))
            for number in range(1, len(self.script.connected) + 1)
        ]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.sockets.append(sock)
        await self.moment(self.script.connected[int(address[0].rpartition(".")[2]) % len(self.script.connected)])

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *, sock: socket.socket, **_: Any
    ) -> tuple[Transport, asyncio.Protocol]:
        protocol = protocol_factory()
        transport = Transport(self, protocol, sock)
        self.transports.append(transport)
        waiting = self.create_future()
        self.call_soon(protocol.connection_made, transport)
        self.call_soon(_wake, waiting)
        try:
            await waiting
        except BaseException:  # as asyncio does
            transport.close()
            raise
        return transport, protocol


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Transport(asyncio.Transport):
    """One connection.

    Attributes:
        closed: whether it has ended.
    """

    def __init__(self, network: Network, protocol: asyncio.Protocol, sock: socket.socket) -> None:
        super().__init__()
        self._network = network
        self._protocol = protocol
        self._sock = sock
        self._received = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self._received += bytes(data)
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if length is not None and len(body) == int(length[1]):
            self._received = b""
            self._network.requested.set()
            script = self._network.script
            self._network.at(script.answered, self._answer, script.answer)

    def _answer(self, answer: dict[str, Any] | None) -> None:
        if self.closed:
            return
        if answer is None:
            self._lose(ConnectionResetError(104, "reset"))
            return
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._protocol.data_received(head.encode() + body)

    def _lose(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._network.call_soon(self._protocol.connection_lost, error)
            self._sock.close()

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
