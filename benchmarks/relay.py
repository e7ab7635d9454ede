"""A relay before a server, in a process of its own, which delays every byte to imitate a distant store.

`benchmarks.fleet_run` starts it; it prints its port and runs until its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.server import until_stdin_closes


class _Half(asyncio.Protocol):
    """One side of a relayed connection; it forwards received data to the other side after a delay."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self.other: asyncio.Future[asyncio.WriteTransport] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay, self._forward, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        asyncio.get_running_loop().call_later(self._delay, self._forward, None)

    def _forward(self, data: bytes | None) -> None:
        if not self.other.done():  # still connecting
            self.other.add_done_callback(lambda _: self._forward(data))
        elif data is None:
            self.other.result().close()
        else:
            self.other.result().write(data)


async def relay(port: int, delay: float) -> None:
    """Relay connections to a port on loopback, with a one-way delay of ``delay`` seconds."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    async def connect(near: _Half) -> None:
        far = _Half(delay)
        await loop.create_connection(lambda: far, "127.0.0.1", port)
        far.other.set_result(near.transport)
        near.other.set_result(far.transport)

    def accept() -> _Half:
        near = _Half(delay)
        task = loop.create_task(connect(near))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    listening = await loop.create_server(accept, "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await until_stdin_closes()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), float(sys.argv[2])))
