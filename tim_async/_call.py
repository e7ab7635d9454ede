"""One call: permit → attempt → classify → retry → read, all in `Caller.make`."""

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
from ._channels import Channel, Channels
from ._home import Home
from ._hooks import Attempt
from ._lanes import Lane
from ._limiter.local import Permit
from ._options import ClientSettings, Options
from ._secret import Secret
from ._transport import Transport
from .endpoints import ENDPOINTS, GET_GROUP_INFO, Answer, Body, Endpoint
from .errors import APIError, ClientClosed, QuotaExhausted, Reaction, TIMError, brief
from .retrying import wait_before_retry

T = TypeVar("T")
_log = logging.getLogger("tim_async")

_COMMANDS = frozenset(endpoint.command for endpoint in (*ENDPOINTS, GET_GROUP_INFO))
"""Commands known to exist."""
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Call(Generic[T]):
    """The state of one call.

    Args:
        endpoint: the endpoint to call.
        body: the request's fields, as built by the endpoint; or a function that returns them, called when the first
            attempt has its permit.
        options: the options of the call.

    Attributes:
        attempts: requests made so far.
        build_body: the function given as ``body``; None if the fields were given.
        channel: the endpoint's channel; set once the client is known to be open.
        body: the request's fields; empty until the first attempt if ``build_body`` returns them.
        failure: the last attempt's error; None before the first retry.
        headers: the headers of the last answer; empty before the first.
        host: the base URL that the last attempt was sent to; "" before the first.
        sent_at: the time of the last attempt, unix seconds; an event loop's clock may be a millisecond behind.
        signed_again: whether a retry was signed again.
        wait: seconds that the last attempt waited for its permit.
        waited: seconds spent waiting for permits, over all attempts.
    """

    __slots__ = (
        "attempts",
        "body",
        "build_body",
        "channel",
        "endpoint",
        "failure",
        "headers",
        "host",
        "lane",
        "options",
        "payload",
        "sent_at",
        "signed_again",
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
            self.build_body: Callable[[], Body] | None = body
            self.body: Body = {}
            self.payload: bytes = b""
        else:
            self.build_body = None
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
        self.signed_again: bool = False

    def start_attempt(self, sent: float) -> None:
        """Start an attempt; retries send the first one's time if that makes the call repeatable."""
        self.attempts += 1
        self.sent_at = time.time()
        if self.attempts == 1:
            self.started = sent
            if self.build_body is not None:
                self.body = self.build_body()
                self.payload = _wire.encode(self.body)
            pinned = self.endpoint.pinned_time
            if pinned is not None and pinned not in self.body:
                self.body = {**self.body, pinned: str(int(self.sent_at))}
        elif self.attempts == 2 and self.endpoint.pinned_time is not None:  # encoded again, with that time
            self.payload = _wire.encode(self.body)


class Caller:
    """The call engine of a client: for one app and one identifier, in one event loop."""

    # Class attributes, for a client whose constructor raised: it can still be shown and deleted.
    description: str = "not configured"
    # Set by the first call or `async with`: nothing belongs to an event loop before there is one.
    _home: Home | None = None

    def __init__(self, settings: ClientSettings) -> None:
        self.settings: ClientSettings = settings
        self.base_url: str = settings.hosts.current
        self.description = f"{settings.sdk_app_id} as {settings.identifier!r} at {self.base_url}"
        self.channels: Channels = Channels(settings)
        self._transport = Transport(settings)
        self._closed = asyncio.Event()
        settings.hooks.watch(self)

    def __del__(self) -> None:
        if (
            self._home is not None
            and not self._closed.is_set()
            and (self.settings.session is None or self.channels.shared)
        ):
            text = f"unclosed client {self.description}: use `async with`, or await its aclose()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed.is_set()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session that holds the connections; available after `open`."""
        session = self._transport.session
        assert session is not None
        return session

    def open(self) -> None:
        """Bind the client to the running event loop on the first use; later, check that it is the same loop.

        Raises:
            ClientClosed: the client is closed.
            RuntimeError: the client belongs to another event loop.
        """
        if self._closed.is_set():
            raise ClientClosed("the client is closed")
        if self._home is None:
            home = Home()
            # The client counts as open only with all its parts: it must not call without the quota that it was given.
            self.channels.open()
            self._transport.open()
            self._home = home
        else:
            self._home.check()

    async def aclose(self) -> None:
        """Fail all calls that wait, and close the session unless it was given.

        Raises:
            RuntimeError: the client belongs to another event loop; it stays open.
        """
        loop_closed = self._home is not None and self._home.is_closed
        if self._home is not None and not loop_closed:
            self._home.check()
        self._closed.set()
        if loop_closed:  # and with it all calls that waited, and the connections to the store
            await self._transport.aclose()
            return
        self.channels.close()
        try:
            await self._transport.aclose()
        finally:  # also when closing is cancelled: the permits belong to a whole fleet
            await self.channels.aclose()

    def channel(self, endpoint: Endpoint[..., Any]) -> Channel:
        """Return the channel of an endpoint.

        Raises:
            ClientClosed: the client is closed.
            RuntimeError: the client belongs to another event loop.
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
            # The traceback's frames hold the answer, in which a peer may have echoed the signature.
            answer = error.__traceback__ = None
            # A cancel scope of the caller that ended in this iteration of the loop may not have cancelled yet (anyio's
            # cannot cancel a task that is about to wake); its cancellation takes precedence over the error.
            await asyncio.sleep(0)
            if call.build_body is None:  # otherwise the error is raised, and counted, in each look-up of the batch
                self.failed(call.endpoint, call.options.lane_now(), error)
            raise
        call.channel.budget.succeeded()
        return value

    def failed(self, endpoint: Endpoint[..., Any], lane: Lane, error: TIMError) -> None:
        """Count an error that a caller is about to see, and report it to the hooks."""
        if isinstance(error, QuotaExhausted):
            self.channels.of(endpoint).exhausted += 1
        self.settings.hooks.failed(self.settings.sdk_app_id, endpoint.name, lane, error)

    async def attempt(self, command: str, payload: bytes, seconds: float) -> _wire.Response:
        """Send one request without a permit, bypassing the limiter; only for the probe of `tim_async.doctor`.

        Raises:
            TransportError: no answer came.
        """
        return await self._transport.send(command, payload, self._transport.usersigs.current(time.time()), seconds)

    async def _permit(self, call: Call[Any]) -> Permit:
        """Wait for the permit of one attempt."""
        queue = call.channel.queue
        call.lane = call.options.lane_now()
        queued = queue.now()
        try:
            # Many calls may wait, and the difference would be one more float for each.
            left = call.options.max_wait - call.waited if call.waited else call.options.max_wait
            permit = await queue.enter(call.lane, call.attempts > 0, left)
        except QuotaExhausted as exhausted:
            if call.failure is None:
                raise
            raise call.failure from exhausted  # the service's own error tells the caller more
        call.wait = permit.sent - queued
        call.waited += call.wait
        call.channel.permitted(call.wait, call.attempts > 0)
        return permit

    async def _attempt(self, call: Call[Any], permit: Permit) -> Answer | TIMError:
        """Send one request; return the answer, or the error that it means."""
        queue = call.channel.queue
        try:
            call.start_attempt(permit.sent)
            if self._closed.is_set():
                raise ClientClosed("the client was closed")
            call.usersig = self._transport.usersigs.current(call.sent_at)
            hooks = self.settings.hooks
            sending = self._transport.send(
                call.endpoint.command, call.payload, call.usersig, call.options.timeout, call
            )
            reply = await (hooks.inside(sending) if hooks.surround else sending)
        except BaseException as failure:  # a cancelled request returns its permit, too
            took = queue.leave(permit, answered=False)
            call.channel.ended += 1
            self._report(call, took, None, failure)
            if isinstance(failure, TIMError):
                return failure
            raise
        took = queue.leave(permit, answered=True)
        call.channel.ended += 1
        call.headers = reply.headers
        answer = _wire.decode(reply)
        error = answer if isinstance(answer, TIMError) else None
        if error is not None:
            if reply.retry_after is not None:
                queue.pause(reply.retry_after)
            if error.reaction is Reaction.SLOW_DOWN:
                call.channel.refusals += 1
                queue.refused(permit)
        self._report(call, took, reply.status, error)
        return answer

    async def _wait_to_retry(self, call: Call[Any], failure: TIMError) -> None:
        """Wait until the next attempt may start.

        Raises:
            TIMError: ``failure``, if another attempt cannot help or the client is closed meanwhile.
        """
        queue, started = call.channel.queue, call.started
        call.failure = failure
        now = queue.now()
        seconds = wait_before_retry(
            call.options.retry,
            failure,
            attempts=call.attempts,
            elapsed=now - started,
            paused=queue.opens_at() - started,
            repeatable=call.endpoint.repeatable,
            signed_again=call.signed_again,
        )
        if seconds is None or self._closed.is_set() or not call.channel.budget.spend(now):
            raise failure
        if failure.reaction is Reaction.SIGN_AGAIN:
            call.signed_again = True
            self._transport.usersigs.refused(call.usersig)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        if self._closed.is_set():  # perhaps in the same iteration of the loop in which the wait ended
            raise failure

    def _remedy(self, error: APIError, endpoint: Endpoint[..., Any]) -> str:
        """Return the remedy for an error, naming the host or the command at fault if this client knows it."""
        if error.code in _codes.WRONG_REGION:
            return _codes.wrong_region(self._transport.host, self.settings.sdk_app_id)
        if error.code == _codes.UNKNOWN_COMMAND and endpoint.command not in _COMMANDS:
            return _codes.unknown_command(endpoint.command)
        return error.remedy

    def _report(self, call: Call[Any], took: float, status: int | None, error: BaseException | None) -> None:
        """Log an attempt that has ended, and report it to the hooks."""
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
