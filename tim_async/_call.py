"""One call: permit → attempt → classify → retry → read.  `Caller.make` is all of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import aiohttp

from . import _codes, _wire
from ._attempts import Attempt
from ._channels import Channel, Channels
from ._home import Home, running_loop
from ._lanes import Lane
from ._limiter.local import Permit
from ._options import ClientSettings, Options
from ._retries import Retries
from ._secret import Secret
from ._stats import EndpointStats
from ._transport import Transport
from .endpoints import ENDPOINTS, GET_GROUP_INFO, Answer, Body, Endpoint, endpoint_of
from .errors import APIError, ClientClosed, QuotaExhausted, Reaction, TIMError, brief

T = TypeVar("T")
_log = logging.getLogger("tim_async")

_COMMANDS = frozenset(endpoint.command for endpoint in (*ENDPOINTS, GET_GROUP_INFO))
"""Those that certainly exist."""
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Call(Generic[T]):
    """One call, before, during and after it is made.

    Args:
        endpoint: which.
        body: the request's fields, as the endpoint builds them; or a function that returns them, which is called when
            the first attempt has its permit.
        options: how.

    Attributes:
        attempts: requests made so far.
        channel: the endpoint's; set when the client is found open.
        body: the request's fields; empty until the first attempt where ``late`` builds them.
        failure: how the last attempt ended; None before the first retry.
        headers: those of the last answer; empty before it.
        host: the base URL that the last attempt was sent to; "" before the first.
        sent_at: when that was, unix seconds; an event loop's clock may be a millisecond behind.
        waited: seconds spent waiting for permits, over all attempts.
    """

    __slots__ = (
        "attempts",
        "body",
        "channel",
        "endpoint",
        "failure",
        "headers",
        "host",
        "lane",
        "late",
        "options",
        "payload",
        "retries",
        "sent_at",
        "started",
        "usersig",
        "wait",
        "waited",
    )
    channel: Channel
    lane: Lane
    usersig: Secret

    def __init__(self, endpoint: Endpoint[..., T], body: Body | Callable[[], Body], options: Options) -> None:
        self.endpoint: Endpoint[..., T] = endpoint
        self.options: Options = options
        if callable(body):
            self.late: Callable[[], Body] | None = body
            self.body: Body = {}
            self.payload: bytes = b""
        else:
            self.late = None
            self.body = body
            self.payload = _wire.encode(body)
        self.attempts: int = 0
        self.started: float = 0.0
        self.sent_at: float = 0.0
        self.wait: float = 0.0
        self.waited: float = 0.0
        self.failure: TIMError | None = None
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.host: str = ""
        self.retries: Retries | None = None

    def begin(self, sent: float) -> None:
        """Count one attempt; the first one's time is what later ones pin, where that makes them repeatable."""
        self.attempts += 1
        self.sent_at = time.time()
        if self.attempts == 1:
            self.started = sent
            if self.late is not None:
                self.body = self.late()
                self.payload = _wire.encode(self.body)
            pinned = self.endpoint.pinned_time
            if pinned is not None and pinned not in self.body:
                self.body = {**self.body, pinned: str(int(time.time()))}
        elif self.attempts == 2:
            self.payload = _wire.encode(self.body)


class Caller:
    """Makes calls, for one app, as one identifier, in one event loop."""

    # For a client whose constructor raised, which can still be shown and deleted.
    who: str = "not configured"
    _home: Home | None = None

    def __init__(self, settings: ClientSettings) -> None:
        self.settings: ClientSettings = settings
        self.base_url: str = settings.hosts.current
        self.who = f"{settings.sdk_app_id} as {settings.identifier!r} at {self.base_url}"
        self.channels: Channels = Channels(settings)
        self._transport = Transport(settings)
        # Set with the first call or `async with`: nothing belongs to an event loop before there is one.
        self._home: Home | None = None
        self._closed = asyncio.Event()
        settings.hooks.watch(self)

    def __del__(self) -> None:
        if (
            self._home is not None
            and not self._closed.is_set()
            and (self.settings.session is None or self.channels.shared)
        ):
            text = f"unclosed client {self.who}: use `async with`, or await its aclose()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed.is_set()

    @property
    def sdk_app_id(self) -> int:
        """The app's SDKAppID."""
        return self.settings.sdk_app_id

    def stats(self) -> dict[str, EndpointStats]:
        """The figures of the endpoints used so far, by name; any thread may ask."""
        used = [endpoint_of(command, repeatable=False) for command in self.channels]
        return {endpoint.name: self.channels.stats(endpoint) for endpoint in used}

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session of its connections; after `open`."""
        session = self._transport.session
        assert session is not None
        return session

    def open(self) -> None:
        """Make what belongs to the running event loop, unless there is one.

        Raises:
            ClientClosed: the client is closed.
            RuntimeError: it belongs to another event loop.
        """
        if self._closed.is_set():
            raise ClientClosed("the client is closed")
        if self._home is None:
            running_loop()
            # Only a client that has all its parts counts as open: it must not call without the quota that it was given.
            self.channels.open()
            self._transport.open()
            self._home = Home()
        else:
            self._home.check()

    async def aclose(self) -> None:
        """Refuse all calls that wait, and close the session unless it was given.

        Raises:
            RuntimeError: the client belongs to another event loop; it stays open.
        """
        gone = self._home is not None and self._home.is_gone
        if self._home is not None and not gone:
            self._home.check()
        self._closed.set()
        if gone:  # and with it all calls that waited, and the connections to the store
            await self._transport.aclose()
            return
        self.channels.close()
        try:
            await self._transport.aclose()
        finally:  # also when closing is cancelled: the permits belong to a whole fleet
            await self.channels.aclose()

    def channel(self, endpoint: Endpoint[..., Any]) -> Channel:
        """The channel of an endpoint.

        Raises:
            ClientClosed: the client is closed.
            RuntimeError: it belongs to another event loop.
        """
        self.open()
        return self.channels.of(endpoint)

    async def make(self, call: Call[T]) -> T:
        """Make one call.

        Raises:
            TIMError: the last attempt's error.
            RuntimeError: the client belongs to another event loop.
        """
        answer: Answer | TIMError | None = None
        try:
            call.channel = self.channel(call.endpoint)
            while True:
                permit = await self._permit(call)
                answer = await self._attempt(call, permit)
                if not isinstance(answer, TIMError):
                    break
                await self._wait_to_retry(call, answer)
            value = call.endpoint.read(answer, call.body)
        except TIMError as error:
            error.endpoint, error.attempts = call.endpoint.name, call.attempts
            if isinstance(error, APIError):
                error.remedy = self._remedy(error, call.endpoint)
            # The frames that read an answer hold it, and a peer may have echoed the signature anywhere in it.
            answer = error.__traceback__ = None
            # A caller's scope that has ended in this turn of the loop may still be about to cancel (anyio's cannot
            # cancel a task that is about to wake), and comes before the error.
            await asyncio.sleep(0)
            if call.late is None:  # the call of a look-up batch raises in each of its look-ups, which count
                self.failed(call.endpoint, call.options.lane_now(), error)
            raise
        call.channel.budget.succeeded()
        return value

    def failed(self, endpoint: Endpoint[..., Any], lane: Lane, error: TIMError) -> None:
        """Count an error as it is raised: those that callers see, and no others."""
        if isinstance(error, QuotaExhausted):
            self.channels.of(endpoint).counters.exhausted += 1
        self.settings.hooks.failed(self.settings.sdk_app_id, endpoint.name, lane, error)

    async def attempt(self, command: str, payload: bytes, seconds: float) -> _wire.Reply:
        """Send one request without a permit, past the pace; only for the probe of `tim_async.doctor`.

        Raises:
            TransportError: there is no answer.
        """
        return await self._transport.send(command, payload, self._transport.usersigs.current(), seconds)

    async def _permit(self, call: Call[Any]) -> Permit:
        """Wait for the permit of one attempt."""
        queue, counters = call.channel.queue, call.channel.counters
        call.lane = call.options.lane_now()
        queued = queue.now()
        try:
            left = call.options.max_wait - call.waited if call.waited else call.options.max_wait
            permit = await queue.enter(call.lane, call.attempts > 0, left)
        except QuotaExhausted as exhausted:
            if call.failure is None:
                raise
            raise call.failure from exhausted  # the service's own error tells the caller more
        call.wait = permit.sent - queued
        call.waited += call.wait
        counters.permitted(call.wait, call.attempts > 0)
        return permit

    async def _attempt(self, call: Call[Any], permit: Permit) -> Answer | TIMError:
        """Send one request; return the answer, or why there is none."""
        queue = call.channel.queue
        try:
            call.begin(permit.sent)
            if self._closed.is_set():
                raise ClientClosed("the client was closed")
            call.usersig = self._transport.usersigs.current()
            hooks = self.settings.hooks
            sending = self._transport.send(
                call.endpoint.command, call.payload, call.usersig, call.options.timeout, call
            )
            reply = await (hooks.inside(sending) if hooks.surround else sending)
        except BaseException as failure:  # a cancelled request leaves, too
            took = queue.leave(permit, answered=False)
            call.channel.counters.ended += 1
            self._tell(call, took, None, failure)
            if isinstance(failure, TIMError):
                return failure
            raise
        took = queue.leave(permit, answered=True)
        call.channel.counters.ended += 1
        call.headers = reply.headers
        answer = _wire.decode(reply)
        failed = answer if isinstance(answer, TIMError) else None
        if failed is not None:
            self._slow_down(call.channel, permit, failed, reply.retry_after)
        self._tell(call, took, reply.status, failed)
        return answer

    @staticmethod
    def _slow_down(channel: Channel, permit: Permit, failure: TIMError, retry_after: float | None) -> None:
        """Slow the endpoint down where the answer says so."""
        if retry_after is not None:
            channel.queue.pause(retry_after)
        if failure.reaction is Reaction.SLOW_DOWN:
            channel.counters.refusals += 1
            channel.queue.refused(permit)

    async def _wait_to_retry(self, call: Call[Any], failure: TIMError) -> None:
        """Wait until the next attempt may start.

        Raises:
            TIMError: ``failure``, when another attempt cannot help, or the client is closed meanwhile.
        """
        channel = call.channel
        if call.retries is None:
            call.retries = Retries(
                call.options.retry, channel.budget, repeatable=call.endpoint.repeatable, started=call.started
            )
        call.failure = failure
        seconds = None
        if not self._closed.is_set():
            seconds = call.retries.wait_after(failure, call.attempts, channel.queue.now(), channel.queue.opens_at())
        if seconds is None:
            raise failure
        if failure.reaction is Reaction.SIGN_AGAIN:
            self._transport.usersigs.refused(call.usersig)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        if self._closed.is_set():  # perhaps in the turn of the loop in which the wait was over
            raise failure

    def _remedy(self, error: APIError, endpoint: Endpoint[..., Any]) -> str:
        """What to do about an error, as far as this client knows more than the table of codes."""
        if error.code in _codes.WRONG_REGION:
            return _codes.wrong_region(self._transport.host, self.settings.sdk_app_id)
        if error.code == _codes.UNKNOWN_COMMAND and endpoint.command not in _COMMANDS:
            return _codes.unknown_command(endpoint.command)
        return error.remedy

    def _tell(self, call: Call[Any], took: float, status: int | None, error: BaseException | None) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            ended = "done" if error is None else brief(error) or type(error).__name__
            waited, milliseconds = 1000 * call.wait, 1000 * took
            name, number = call.endpoint.name, call.attempts
            _log.debug("%s: attempt %d: %s (waited %.1f ms, took %.1f ms)", name, number, ended, waited, milliseconds)
        hooks = self.settings.hooks
        if hooks:
            attempt = Attempt(
                call.endpoint.name,
                call.attempts,
                call.lane,
                call.wait,
                took,
                0 if error is None else error.code if isinstance(error, APIError) else None,
                None if error is None else type(error).__name__,
                status,
                f"{call.host or self._transport.host}/{call.endpoint.command}",
                call.sent_at,
                self.settings.sdk_app_id,
            )
            hooks.attempted(attempt)
