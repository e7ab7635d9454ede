"""One call: permit → attempt → classify → retry → read.  `Caller.make` is all of it."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import _wire
from ._attempts import Attempt, tell
from ._channels import Channel, Channels
from ._lanes import Lane
from ._limiter.local import Permit
from ._options import ClientSettings, Options
from ._retries import Retries
from ._secret import Secret
from ._transport import Transport
from .endpoints import ENDPOINTS, GET_GROUP_INFO, Answer, Body, Endpoint
from .errors import UNKNOWN_COMMAND, WRONG_REGION, APIError, ClientClosed, QuotaExhausted, Reaction, TIMError

T = TypeVar("T")
_log = logging.getLogger("tim_async")


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
        waited: seconds spent waiting for permits, over all attempts.
    """

    __slots__ = (
        "attempts",
        "body",
        "channel",
        "endpoint",
        "failure",
        "lane",
        "late",
        "options",
        "payload",
        "retries",
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
        self.wait: float = 0.0
        self.waited: float = 0.0
        self.failure: TIMError | None = None
        self.retries: Retries | None = None

    def begin(self, sent: float) -> None:
        """Count one attempt; the first one's time is what later ones pin, where that makes them repeatable."""
        self.attempts += 1
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
    _opened = False

    def __init__(self, settings: ClientSettings) -> None:
        self.settings: ClientSettings = settings
        self.base_url: str = settings.hosts.current
        self.who = f"{settings.sdk_app_id} as {settings.identifier!r} at {self.base_url}"
        self.channels: Channels = Channels(settings)
        self._transport = Transport(settings)
        # Set with the first call or `async with`: nothing belongs to an event loop before there is one.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()

    def __del__(self) -> None:
        if self._opened and not self._closed.is_set() and (self.settings.session is None or self.channels.shared):
            text = f"unclosed client {self.who}: use `async with`, or await its aclose()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed.is_set()

    def open(self) -> None:
        """Make what belongs to the running event loop, unless there is one.

        Raises:
            ClientClosed: the client is closed.
            RuntimeError: it belongs to another event loop.
        """
        if self._closed.is_set():
            raise ClientClosed("the client is closed")
        loop = asyncio.get_running_loop()
        if not self._opened:
            # Only a client that has all its parts counts as open: it must not call without the quota that it was given.
            self.channels.open()
            self._transport.open()
            self._opened = True
            self._loop = loop
        elif loop is not self._loop:
            raise RuntimeError("the client belongs to another event loop; make one for each")

    async def aclose(self) -> None:
        """Refuse all calls that wait, and close the session unless it was given."""
        self._closed.set()
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
                error.hint = self._hint(error.code, call.endpoint)
            # The frames that read an answer hold it, and a peer may have echoed the signature anywhere in it.
            answer = error.__traceback__ = None
            # A caller's scope that has ended in this turn of the loop may still be about to cancel (anyio's cannot
            # cancel a task that is about to wake), and comes before the error.
            await asyncio.sleep(0)
            raise
        call.channel.budget.succeeded()
        return value

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
                counters.exhausted += 1
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
            reply = await self._transport.send(call.endpoint.command, call.payload, call.usersig, call.options.timeout)
        except BaseException as failure:  # a cancelled request leaves, too
            took = queue.leave(permit, answered=False)
            self._tell(call, took, failure)
            if isinstance(failure, TIMError):
                return failure
            raise
        took = queue.leave(permit, answered=True)
        answer = _wire.decode(reply)
        failed = answer if isinstance(answer, TIMError) else None
        if failed is not None:
            self._slow_down(call.channel, permit, failed, reply.retry_after)
        self._tell(call, took, failed)
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
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise failure

    def _hint(self, code: int, endpoint: Endpoint[..., Any]) -> str:
        """The likely cause of an error, where one is known that the service does not name."""
        if code in WRONG_REGION:
            return f"{self._transport.host} was asked; is the app {self.settings.sdk_app_id} in another region?"
        if code == UNKNOWN_COMMAND and all(endpoint.command != known.command for known in (*ENDPOINTS, GET_GROUP_INFO)):
            return f"the service answers so, too, when there is no command {endpoint.command}; is it mistyped?"
        return ""

    def _tell(self, call: Call[Any], took: float, error: BaseException | None) -> None:
        hook = self.settings.on_attempt
        if error is not None:
            _log.debug("%s: attempt %d: %s", call.endpoint.name, call.attempts, str(error) or type(error).__name__)
        if hook is not None:
            tell(hook, Attempt.of(call.endpoint.name, call.attempts, call.lane, call.wait, took, error))
