"""The emulator's HTTP server: it listens on loopback, delays requests and answers, and cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import ssl
from email.utils import formatdate
from typing import Any

from aiohttp import hdrs, web

from tim_async.emulator._answers import Answer, json_answer
from tim_async.emulator._clocks import monotonic
from tim_async.emulator._service import Service

_HOST = "127.0.0.1"


class Latency:
    """Random one-way delays.

    Args:
        round_trip: the mean round trip, seconds; 0 adds nothing to the loopback's own.
        jitter: its coefficient of variation, lognormal; 0 for a constant.
        seed: seed of the draws.

    Raises:
        ValueError: a round trip or a jitter that is negative or not finite.
    """

    def __init__(self, round_trip: float, jitter: float, seed: int) -> None:
        if not (0.0 <= round_trip < math.inf and 0.0 <= jitter < math.inf):
            raise ValueError(f"latency and jitter must be at least 0 and finite, not {round_trip} and {jitter}")
        self._mean = round_trip / 2
        # A round trip is two independent delays; for it to vary by `jitter`, each must vary by √2 times as much.
        variance = math.log1p(2 * jitter**2)
        self._sigma = math.sqrt(variance)
        self._mu = math.log(self._mean) - variance / 2 if self._mean else 0.0
        self._random = random.Random(seed)

    async def travel(self) -> None:
        """Sleep for one one-way delay."""
        if self._mean:
            await asyncio.sleep(self._random.lognormvariate(self._mu, self._sigma))


class Stall:
    """A period without answers.  Any thread may start and end it.

    Waiters poll the clock, so that threads share only one number and ending a stall needs no event loop.
    """

    _POLL_EVERY = 0.02

    def __init__(self) -> None:
        self._until = 0.0

    def start(self, seconds: float) -> None:
        """Stall for this many seconds from now, in place of any earlier stall."""
        self._until = monotonic() + seconds

    def end(self) -> None:
        """End the stall now."""
        self._until = 0.0

    async def wait(self) -> None:
        """Wait for the end of the stall."""
        while (left := self._until - monotonic()) > 0.0:  # noqa: ASYNC110 - see the class
            await asyncio.sleep(min(left, self._POLL_EVERY))


class Server:
    """One run of the HTTP server: an async context manager, which listens while it is entered.

    Args:
        service: answers the requests.
        port: the port to listen on; 0 for any free port.
        latency: delays each request and each answer.
        stall: holds back the answers while it lasts.
        ssl_context: serves HTTPS; None for HTTP.

    Attributes:
        url: its URL, once it is entered.
    """

    def __init__(
        self, service: Service, port: int, latency: Latency, stall: Stall, ssl_context: ssl.SSLContext | None
    ) -> None:
        self.url = ""
        self._service = service
        self._port = port
        self._latency = latency
        self._stall = stall
        self._ssl = ssl_context
        self._in_flight: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> None:
        # No access log: the request line holds the UserSig.  A compressed body is not JSON: no document allows one.
        self._http = web.Server(self._handle, access_log=None, auto_decompress=False)
        self._listener = socket.create_server((_HOST, self._port))
        scheme = "http" if self._ssl is None else "https"
        self.url = f"{scheme}://{_HOST}:{self._listener.getsockname()[1]}"
        loop = asyncio.get_running_loop()
        self._acceptor = await loop.create_server(self._http, sock=self._listener, ssl=self._ssl, start_serving=False)
        try:
            await self._acceptor.start_serving()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        # asyncio leaks a connection that is accepted but has no transport yet when its listener is closed.  So stop
        # accepting first, let accepted connections reach the server, and only then close the listener.  Windows' loop
        # accepts in another way, which has neither that gap nor readers.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().remove_reader(self._listener)
        await _drain_callbacks()
        self._acceptor.close()
        self.release_port()
        # The server's own shutdown would wait for calls that a stall or a delay holds back.
        tasks = tuple(self._in_flight)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._http.pre_shutdown()
        await self._http.shutdown(0.1)
        await _drain_callbacks()

    def release_port(self) -> None:
        """Close the listener, even if its loop is gone."""
        self._listener.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        try:
            return await _respond(request, await self._answer(request), self._service.clock())
        finally:
            self._in_flight.discard(task)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        try:
            await _continue(request)
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return json_answer(93000, "the body is too large")
        except (web.RequestPayloadError, ConnectionResetError):
            return json_answer(60003, "the body is incomplete")
        await self._latency.travel()
        answer = self._service.answer(request.method, request.path, request.query, raw)
        if answer.fault is not None:
            await asyncio.sleep(answer.fault.delay)
        await self._stall.wait()
        await self._latency.travel()
        return answer


async def _drain_callbacks() -> None:
    """Let asyncio run its pending callbacks for sockets.

    A connection that was just accepted reaches the server after two iterations of the loop, and a closed one releases
    its socket in the next iteration.  Otherwise their sockets would stay open.
    """
    for _ in range(3):
        await asyncio.sleep(0)


async def _continue(request: web.BaseRequest) -> None:
    """Send ``100 Continue`` to a caller that waits for it, as curl does before a long body."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # nothing of the answer itself is written yet


async def _respond(request: web.BaseRequest, answer: Answer, now: float) -> web.StreamResponse:
    """Send the answer, or the part that is not cut off, with the emulator's time as its ``Date``."""
    response = web.Response(body=answer.body, status=answer.status, content_type=answer.content_type)
    response.headers[hdrs.DATE] = formatdate(now, usegmt=True)
    fault = answer.fault
    if fault is not None and fault.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(fault.retry_after)
    if fault is None or not fault.cuts_answer:
        return response
    transport = request.transport
    partial = web.StreamResponse(status=answer.status, headers=response.headers)
    if fault.truncate:
        await partial.prepare(request)
        await partial.write(answer.body[: len(answer.body) // 2])
    if transport is not None:
        transport.close()
    return partial
