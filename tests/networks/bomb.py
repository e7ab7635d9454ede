"""One call that gets a bomb as its answer: ``python -m tests.networks.bomb KIND SESSION`` prints its outcome."""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp

from tests.observers.clients import client_of
from tests.peer import Peer, Talk

MIB = 1024 * 1024
SIZE = 300 * MIB
BLANKS = b" " * MIB


def packed(wbits: int) -> Iterator[bytes]:
    """Compress 300 MB to a few hundred KB; the checksum at the end, which no client should reach, is wrong."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    yield packer.compress(b'{"ErrorCode": 0, "Text": "') + packer.flush(zlib.Z_FULL_FLUSH)
    one = packer.compress(BLANKS) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated after a full flush
    for _ in range(SIZE // MIB):
        yield one
    yield packer.compress(b'"}') + packer.flush()


def unknown() -> Iterator[bytes]:
    """Yield a compression that the client did not accept and need not know."""
    yield b"\x5b\xff\xff\x0f\x00\x22\x00\x80\x01\x03"


def plain() -> Iterator[bytes]:
    """Yield 300 MB without compression."""
    yield b'{"ErrorCode": 0, "Text": "'
    for _ in range(SIZE // MIB):
        yield BLANKS
    yield b'"}'


def endless() -> Iterator[bytes]:
    """Yield chunks without an end."""
    while True:
        yield b"%x\r\n" % MIB + BLANKS + b"\r\n"


KINDS: dict[str, tuple[str, Callable[[], Iterator[bytes]]]] = {
    "gzip": ("Content-Encoding: gzip\r\nConnection: close\r\n", lambda: packed(31)),
    "deflate": ("Content-Encoding: deflate\r\nConnection: close\r\n", lambda: packed(15)),
    "br": ("Content-Encoding: br\r\nConnection: close\r\n", unknown),
    "plain": (f"Content-Length: {SIZE + 28}\r\n", plain),
    "plain until the end": ("Connection: close\r\n", plain),
    "chunked without end": ("Transfer-Encoding: chunked\r\n", endless),
    "error page": ("Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n", endless),
}


async def main(kind: str, own_session: bool) -> dict[str, object]:
    headers, content = KINDS[kind]
    status = "502 Bad Gateway" if kind == "error page" else "200 OK"

    async def explode(talk: Talk) -> None:
        await talk.head()
        await talk.send(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())
        for part in content():
            await talk.send(part)
        await talk.finish()

    async with Peer(explode) as server, aiohttp.ClientSession() as session:
        before = peak()
        async with client_of(server.url, session=None if own_session else session, timeout=60) as tim:
            try:
                outcome: object = await tim.call("v4/openim/sendmsg", {"A": 1})
            except Exception as failure:  # noqa: BLE001 - its class is the result
                outcome = failure
    return {"outcome": type(outcome).__name__, "text": str(outcome)[:500], "before": before, "most": peak()}


def peak() -> int:
    """Return this program's peak memory, kB; `resource` would include its parent's before the start."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2] == "own"))))
