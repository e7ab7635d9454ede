"""Signing of requests between aiohttp and the socket, below everything that observes requests.

A UserSig in a URL is visible to every trace config, instrumentation, recorder and crash reporter that reads the URL,
the exceptions that hold it, or the variables of the frames that it passes through.  So no URL here holds one: aiohttp
gets the URL without it, and the request line is completed when its bytes are written to the connection's transport.

In the other direction, the whole answer is read here, up to a maximum size, and a signature that a peer echoes is
removed before a recorder of answers sees it.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from aiohttp import ClientRequest, ClientResponse, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from ._deadlines import Deadline, cancel_again
from ._foreign import FOREIGN, TooLarge, translate
from ._secret import Secret

Send = Callable[[Connection], Awaitable[ClientResponse]]


class StaleConnection(Exception):
    """The pool returned a connection that must not be used; nothing was written, and another one is used."""


MAX_ANSWER = 4 * 1024 * 1024
"""Maximum bytes of an answer, unpacked; the service's own cap is 1 MB (it answers 10018 above it)."""
SERVICE_TIMEOUT = 3.0
"""Seconds after which the service itself abandons a request."""
IDLE = 1.0
"""Idle seconds after which a pooled connection is suspected dead when another one is lost."""


class PoolHealth:
    """A record of the answers on a session's connections, which shows those that are suspected dead.

    After a suspend, or a change of network, pooled connections are silently dead, and each costs the call that uses it
    a whole time-out.  So when a request on a used connection gets no answer, the pooled connections whose last answer
    came before it was sent are closed instead of used.  A connection that is reset fails at once, and is no reason to
    distrust those that answered just before.

    A connection that has received something since its last answer is closed, too: aiohttp would take it for the answer
    to the next request.
    """

    def __init__(self) -> None:
        # Lists of one number, so that an answer changes it in place: making a weak reference is the slowest part here.
        self._answered_at: weakref.WeakKeyDictionary[object, list[float]] = weakref.WeakKeyDictionary()
        self._suspect_before = 0.0

    def answered(self, connection: object, now: float) -> None:
        """Record an answer on a connection."""
        record = self._answered_at.get(connection)
        if record is None:
            self._answered_at[connection] = [now]
        else:
            record[0] = now

    def unanswered(self, connection: object, sent: float, *, timed_out: bool) -> None:
        """Record a request, sent at ``sent``, without an answer; on a new connection it does not concern the others."""
        if connection in self._answered_at:
            self._suspect_before = max(self._suspect_before, sent if timed_out else sent - IDLE)

    def is_suspect(self, connection: ResponseHandler) -> bool:
        """Whether the last answer on a connection came before another one failed to answer, or was not its last."""
        received = connection.should_close
        record = self._answered_at.get(connection) if received or self._suspect_before else None
        return record is not None and (received or record[0] <= self._suspect_before)


class Signing:
    """The innermost client middleware of aiohttp, which signs one request and reads its answer.

    Args:
        signature: the UserSig.
        scrub: removes signatures from an answer.
        health: the record of the session's connections.
        deadline: the attempt's deadline.

    Attributes:
        began: whether any byte of the request was written to a connection; if not, the service cannot have it.
        peer: the URL of the proxy if there is one, else of the request.
        proxied: whether there is a proxy.
    """

    __slots__ = ("_connection", "_deadline", "_health", "_scrub", "_sent", "_signature", "began", "peer", "proxied")

    def __init__(
        self, signature: Secret, scrub: Callable[[bytes], bytes], health: PoolHealth, deadline: Deadline
    ) -> None:
        self._signature = signature
        self._scrub = scrub
        self._health = health
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
        # Set on this request only, so that a request class of the caller stays in use.
        request.send = functools.partial(self._send, request.send)  # type: ignore[method-assign]
        response: ClientResponse | None = None
        try:
            while response is None:
                try:
                    response = await handler(request)
                except StaleConnection:
                    continue  # aiohttp has closed it
            # The value that response.read() returns, to recorders and to us.
            response._body = self._scrub(await _read(response.content))  # noqa: SLF001
            return response
        except FOREIGN as foreign:
            # Mapped here, so that observers of requests see an error without a URL or the peer's text.
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
        """Record that the whole answer was read."""
        if self._connection is not None:  # otherwise a recorder of requests answered in the service's place
            self._health.answered(self._connection, asyncio.get_running_loop().time())

    def abandoned(self) -> None:
        """Record that the caller was cancelled; an answer that was overdue counts as missing."""
        if self.began and asyncio.get_running_loop().time() - self._sent > SERVICE_TIMEOUT:
            self.unanswered(timed_out=True)

    def unanswered(self, *, timed_out: bool = False) -> None:
        """Record that no answer came."""
        if self.began:
            self._health.unanswered(self._connection, self._sent, timed_out=timed_out)

    async def _send(self, send: Send, connection: Connection) -> ClientResponse:
        if self._deadline.swallowed():  # by aiohttp's race of addresses, while it closes the losers
            await cancel_again()
        protocol = connection.protocol
        if protocol is not None and protocol.transport is not None:
            if self._health.is_suspect(protocol):
                raise StaleConnection
            self._connection = protocol
            protocol.transport = cast(asyncio.Transport, _SigningTransport(self, protocol, protocol.transport))
        return await send(connection)

    def _sign(self, request: bytes) -> bytes:
        self.began = True
        self._sent = asyncio.get_running_loop().time()
        # The first occurrence is in the request line: a URL has no blanks.
        return request.replace(b" HTTP/", f"&usersig={self._signature.reveal()} HTTP/".encode(), 1)


class _SigningTransport:
    """A wrapper of a connection's transport until the first write, whose request line it completes."""

    __slots__ = ("_protocol", "_signing", "_transport")

    def __init__(self, signing: Signing, protocol: Any, transport: asyncio.Transport) -> None:
        self._signing = signing
        self._protocol = protocol
        self._transport = transport

    def write(self, data: bytes) -> None:
        if self._protocol.transport is self:
            self._protocol.transport = self._transport
        # A memoryview shows no bytes where asyncio's debug log of a failed write includes its frames' variables.
        self._transport.write(memoryview(self._signing._sign(bytes(data))))  # noqa: SLF001 - two halves of one

    def writelines(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def is_closing(self) -> bool:  # called for each request, and faster than through __getattr__
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def _read(content: StreamReader) -> bytes:
    """Read a whole answer, unpacked.

    Raises:
        TooLarge: the answer exceeds `MAX_ANSWER`.
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
    """Remove the tracebacks of an error and its causes: a frame that wrote to a socket holds the bytes."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        link = todo.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            todo += [link.__cause__, link.__context__]
