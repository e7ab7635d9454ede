"""The UserSig is added to a request between aiohttp and the socket, below everything that observes requests.

A UserSig in a URL is read by every trace config, instrumentation, recorder and crash reporter that looks at the URL,
at the exceptions that hold it, or at the variables of the frames it passes through.  So no URL here holds one.
aiohttp is given the URL without it, and the text of the request line is completed when its bytes are handed to the
connection's transport.

In the other direction the whole answer is read here, within bounds, and a signature that a peer echoes is removed
before a recorder of answers sees it.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from aiohttp import ClientRequest, ClientResponse, StreamReader
from aiohttp.connector import Connection
from yarl import URL

from ._deadlines import Deadline, cancel_again
from ._foreign import FOREIGN, TooLarge, translate
from ._secret import Secret

Send = Callable[[Connection], Awaitable[ClientResponse]]


class StaleConnection(Exception):
    """The pool gave a connection that is suspected dead; nothing was written, and another one is taken."""


MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read, unpacked: the service's own cap is 1 MB (it answers 10018 above it)."""
SERVICE_TIMEOUT = 3.0
"""Seconds after which the service itself abandons a request."""
IDLE = 1.0
"""Seconds without an answer after which a lost connection makes others of its age suspect."""


class Pool:
    """Tells which of the connections in a session's pool are suspect.

    After a suspend, or a change of network, pooled connections are dead without a sign, and each costs the call that
    takes it a whole time-out.  So when a request in a used connection gets no answer, the pooled connections that were
    last heard before it was sent are closed instead of used.  One that is reset tells at once, and is no reason to
    distrust those that were in use just now.
    """

    __slots__ = ("_heard", "_suspect_before")

    def __init__(self) -> None:
        # Lists, so that an answer changes a number in place: making a weak reference is slower than all else here.
        self._heard: weakref.WeakKeyDictionary[object, list[float]] = weakref.WeakKeyDictionary()
        self._suspect_before = 0.0

    def heard(self, connection: object, now: float) -> None:
        """Note an answer on a connection."""
        record = self._heard.get(connection)
        if record is None:
            self._heard[connection] = [now]
        else:
            record[0] = now

    def silent(self, connection: object, sent: float, *, timed_out: bool) -> None:
        """Note a request, sent at ``sent``, without an answer; on a new connection it says nothing about the others."""
        if connection in self._heard:
            self._suspect_before = max(self._suspect_before, sent if timed_out else sent - IDLE)

    def suspects(self, connection: object) -> bool:
        """Whether a connection was last heard before another one fell silent."""
        record = self._heard.get(connection) if self._suspect_before else None
        return record is not None and record[0] <= self._suspect_before


class Signing:
    """A client middleware of aiohttp, the innermost, that signs one request and reads its answer.

    Args:
        signature: the UserSig.
        scrub: removes signatures from an answer.
        pool: the connections of the session that sends.
        deadline: the attempt's.

    Attributes:
        began: whether any byte of the request was handed to a connection; if not, the service cannot have it.
        peer: the proxy if there is one, else the service.
        proxied: whether there is a proxy.
    """

    __slots__ = ("_connection", "_deadline", "_pool", "_scrub", "_sent", "_signature", "began", "peer", "proxied")

    def __init__(self, signature: Secret, scrub: Callable[[bytes], bytes], pool: Pool, deadline: Deadline) -> None:
        self._signature = signature
        self._scrub = scrub
        self._pool = pool
        self._deadline = deadline
        self._connection: object = None
        self._sent = 0.0
        self.began = False
        self.peer: URL | None = None
        self.proxied = False

    async def __call__(
        self, request: ClientRequest, handler: Callable[[ClientRequest], Awaitable[ClientResponse]]
    ) -> ClientResponse:
        """Send the request, with the signature in its request line."""
        self.peer, self.proxied = request.proxy or request.url, request.proxy is not None
        # Set on this request alone, so that a request class of the caller stays in use.
        request.send = functools.partial(self._send, request.send)  # type: ignore[method-assign]
        response: ClientResponse | None = None
        try:
            while response is None:
                try:
                    response = await handler(request)
                except StaleConnection:
                    continue  # aiohttp has closed it
            # What response.read() returns, to recorders and to us.
            response._body = self._scrub(await _read(response.content))  # noqa: SLF001
            return response
        except FOREIGN as foreign:
            # Here, so that observers of requests see an error without URLs or text of the peer.
            error = translate(foreign, began=self.began)
        except BaseException as other:
            _forget_frames(other)
            raise
        finally:
            del request.send  # a middleware of the caller's may send the request once more
            if response is not None and response._body is None:  # noqa: SLF001
                response.close()
        raise error

    def answered(self) -> None:
        """Note that the whole answer was read."""
        if self._connection is not None:  # a recorder of requests may have answered in the service's place
            self._pool.heard(self._connection, asyncio.get_running_loop().time())

    def given_up(self) -> None:
        """Note that the caller no longer waits; an answer that is overdue counts as missing."""
        if self.began and asyncio.get_running_loop().time() - self._sent > SERVICE_TIMEOUT:
            self.unanswered(timed_out=True)

    def unanswered(self, *, timed_out: bool = False) -> None:
        """Note that there will be no answer."""
        if self.began:
            self._pool.silent(self._connection, self._sent, timed_out=timed_out)

    async def _send(self, send: Send, connection: Connection) -> ClientResponse:
        if self._deadline.swallowed():  # by a race of addresses, while it discards those that lost
            await cancel_again()
        protocol = connection.protocol
        if protocol is not None and protocol.transport is not None:
            if self._pool.suspects(protocol):
                raise StaleConnection
            self._connection = protocol
            protocol.transport = cast(asyncio.Transport, _SigningTransport(self, protocol, protocol.transport))
        return await send(connection)

    def _sign(self, request: bytes) -> bytes:
        self.began = True
        self._sent = asyncio.get_running_loop().time()
        # The request line is the only place where this stands first: a URL has no blanks.
        return request.replace(b" HTTP/", f"&usersig={self._signature.reveal()} HTTP/".encode(), 1)


class _SigningTransport:
    """Wraps a connection's transport until the first bytes of a request, which it completes."""

    __slots__ = ("_protocol", "_signing", "_transport")

    def __init__(self, signing: Signing, protocol: Any, transport: asyncio.Transport) -> None:
        self._signing = signing
        self._protocol = protocol
        self._transport = transport

    def write(self, data: bytes) -> None:
        if self._protocol.transport is self:
            self._protocol.transport = self._transport
        # A view shows nothing where asyncio's debug log of a failed write is formatted with its frames' variables.
        self._transport.write(memoryview(self._signing._sign(bytes(data))))  # noqa: SLF001 - two halves of one

    def writelines(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def is_closing(self) -> bool:  # asked each time, and faster than by __getattr__
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def _read(content: StreamReader) -> bytes:
    """Read an answer, unpacked.

    Raises:
        TooLarge: it exceeds `MAX_ANSWER`.
    """
    chunks: list[bytes] = []
    size = 0
    while not content.at_eof():
        chunks.append(await content.readany())
        size += len(chunks[-1])
        if size > MAX_ANSWER:
            raise TooLarge(f"the answer exceeds {MAX_ANSWER // 1024 // 1024} MB")
    return b"".join(chunks)


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of its causes: a frame that wrote to a socket holds the bytes."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        link = todo.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            todo += [link.__cause__, link.__context__]
