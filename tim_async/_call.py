"""The one path every call takes.

::

    call: attempt → worth a retry? → read the answer
    attempt: turnstile (slot, connection, permit) → sign → send → leave → decode
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import random
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from . import _arguments, _transport
from ._attempts import Attempt, Hook, tell
from ._deadlines import Deadlines
from ._lanes import LANE, Lane
from ._limiter.local import Permit
from ._limiter.queue import Connections, RequestQueue
from ._limiter.sharing import Quota, Sharing
from ._secret import Secret
from ._session import checked_proxy, connect_timeout, connections_of, own_session, proxy_for
from ._signing import Pool, Signer
from ._stats import Counters, EndpointStats, Queue
from .endpoints import DEFAULT_RATE, ENDPOINTS, GET_GROUP_INFO, Body, Endpoint, rates_by_command
from .errors import (
    UNKNOWN_COMMAND,
    WRONG_REGION,
    APIError,
    ClientClosed,
    ConnectFailed,
    QuotaExhausted,
    Reaction,
    TIMError,
)
from .regions import Hosts
from .retrying import Retrier, RetryBudget, RetryPolicy
from .usersig import UserSigCache, check_key

T = TypeVar("T")
_log = logging.getLogger("tim_async")


class Channel(NamedTuple):
    """What belongs to one endpoint of one client: its pace, its store of retries, and what is counted."""

    queue: RequestQueue
    budget: RetryBudget
    counters: Counters


@dataclass(frozen=True, slots=True)
class Options:
    """How calls are carried out; what `TIMClient.with_options` changes.

    Attributes:
        timeout: seconds for one attempt, the backup host included.
        retry: the retry policy for transient failures.
        max_wait: seconds to wait for permits at most, over all attempts of one call.
        lane: who goes first; None for what the context says.
    """

    timeout: float
    retry: RetryPolicy
    max_wait: float = math.inf
    lane: Lane | None = None

    def __post_init__(self) -> None:
        _arguments.positive("timeout", self.timeout)
        _arguments.kind("retry", self.retry, RetryPolicy)
        if isinstance(self.max_wait, bool) or not isinstance(self.max_wait, int | float):
            raise TypeError(f"max_wait must be a number of seconds, not {type(self.max_wait).__name__}")
        if not self.max_wait >= 0:
            raise ValueError(f"max_wait must not be negative: {self.max_wait}")
        if self.lane is not None:
            _arguments.kind("lane", self.lane, Lane)


class Outcome(NamedTuple, Generic[T]):
    """What a call that was answered has brought.

    Attributes:
        value: the result.
        attempts: requests that were made for it.
    """

    value: T
    attempts: int


class Call:
    """One call on its way: what it sends, and what has become of it so far."""

    __slots__ = (
        "attempts",
        "body",
        "channel",
        "endpoint",
        "late",
        "options",
        "payload",
        "pinned",
        "started",
        "usersig",
        "waited",
    )

    def __init__(
        self, endpoint: Endpoint[..., Any], channel: Channel, body: Body | Callable[[], Body], options: Options
    ) -> None:
        self.endpoint = endpoint
        self.channel = channel
        self.options = options
        self.pinned: Body | None = None
        self.late: Callable[[], Body] | None = None
        if callable(body):
            self.late = body
            self.body: Body = {}
            self.payload = b""
        else:
            self.body = body
            self.payload = _transport.encode(body)
            if endpoint.pinned_time is not None and endpoint.pinned_time not in body:
                self.pinned = body
        self.attempts = 0
        self.started = 0.0
        self.waited = 0.0
        self.usersig = Secret("")

    def begin(self, sent: float) -> None:
        """Count one attempt.  The first one's time is what later ones pin, where that makes them repeatable."""
        self.attempts += 1
        if self.attempts == 1:
            self.started = sent
            if self.late is not None:
                self.body = self.late()
                self.payload = _transport.encode(self.body)
            if self.pinned is not None:
                self.pinned = {**self.pinned, str(self.endpoint.pinned_time): str(int(time.time()))}
        elif self.pinned is not None:
            self.payload = _transport.encode(self.pinned)
            self.pinned = None


class Dispatcher:
    """Carries calls out, for one app, as one identifier, in one event loop.

    Its arguments are those of `TIMClient`, the key as a `Secret`.
    """

    # So that a client whose constructor raised can be shown, and deleted.
    who = "not configured"
    _session: aiohttp.ClientSession | None = None

    def __init__(
        self,
        *,
        sdk_app_id: int,
        key: Secret,
        identifier: str,
        hosts: Hosts,
        rates: Mapping[str, float],
        options: Options,
        session: aiohttp.ClientSession | None,
        proxy: Secret | None,
        trust_env: bool,
        quota: Quota | None,
        strict: bool,
        usersig_expire: int,
        on_attempt: Hook | None,
    ) -> None:
        _arguments.positive("sdk_app_id", _arguments.number("sdk_app_id", sdk_app_id))
        _arguments.text("identifier", identifier)
        _arguments.positive("usersig_expire", _arguments.number("usersig_expire", usersig_expire))
        _arguments.kind("rates", rates, Mapping)
        if session is not None:
            _arguments.kind("session", session, aiohttp.ClientSession)
        if on_attempt is not None and (not callable(on_attempt) or inspect.iscoroutinefunction(on_attempt)):
            raise TypeError("on_attempt must be a plain function; it is called, and not awaited")
        if session is not None and (proxy is not None or trust_env):
            raise ValueError("proxy and trust_env are for the client's own session; set them on the session given")
        self._proxies = checked_proxy(proxy), trust_env
        self._rates = rates_by_command(rates)
        # Last of all arguments, so that no other mistake is found with the key at hand.
        check_key(key)
        self._usersigs = UserSigCache(sdk_app_id, key, identifier, usersig_expire)
        self.sdk_app_id = sdk_app_id
        self._hosts = hosts
        self.base_url = hosts.current
        self.who = f"{sdk_app_id} as {identifier!r} at {hosts.current}"
        self._query = f"?sdkappid={sdk_app_id}&identifier={quote(identifier, safe='')}&contenttype=json&random="
        self._options = options
        self._strict = strict
        self._on_attempt = on_attempt
        self._channels: dict[str, Channel] = {}
        self._given_session = session
        self._quota = quota
        self._sharing: Sharing | None = None
        # Made with the first call or `async with`: nothing belongs to an event loop before there is one.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: Connections | None = None
        self._pool = Pool()
        self._proxy_of: dict[str, Secret | None] = {}
        self._closed = asyncio.Event()

    def __del__(self) -> None:
        holds = self._session is not None and (self._given_session is None or self._sharing is not None)
        if holds and not self._closed.is_set():
            text = f"unclosed client {self.who}: use `async with`, or await its aclose()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed.is_set()

    def open(self) -> aiohttp.ClientSession:
        """The session to send with, made when there is none yet.

        Raises:
            ClientClosed: the client is closed.
            RuntimeError: it belongs to another event loop.
        """
        if self._closed.is_set():
            raise ClientClosed("the client is closed")
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._loop = loop
            # First, since the environment's proxy may be refused.
            self._proxy_of = {host: proxy_for(host, *self._proxies) for host in self._hosts}
            self._session = self._given_session or own_session()
            self._deadlines = Deadlines(loop)
            self._connections = connections_of(self._given_session)
            if self._quota is not None:
                self._sharing = self._quota.share(self.sdk_app_id)
        elif loop is not self._loop:
            raise RuntimeError("the client belongs to another event loop; make one for each")
        return self._session

    async def aclose(self) -> None:
        """Turn away whoever waits, and close the session unless it was given."""
        self._closed.set()
        for channel in self._channels.values():
            channel.queue.close()
        if self._session is not None and self._given_session is None:
            await self._session.close()
        if self._sharing is not None:
            await self._sharing.aclose()

    async def call(self, endpoint: Endpoint[..., T], body: Body | Callable[[], Body], options: Options) -> Outcome[T]:
        """Carry one call out.

        Args:
            endpoint: which.
            body: the request's fields, as the endpoint builds them; or a function that returns them, which is called
                when the first attempt has its permit.
            options: how.

        Raises:
            TIMError: the last attempt's error.
        """
        attempts, answer = 0, None
        try:
            channel = self.channel(endpoint)
            call = Call(endpoint, channel, body, options)
            try:
                answer = await self._attempt(call)
            except QuotaExhausted:
                channel.counters.exhausted += 1
                raise
            except TIMError as failure:
                answer = await self._retrier(call).run(failure, functools.partial(self._attempt, call))
            finally:
                attempts = call.attempts
            outcome = Outcome(endpoint.read(answer, call.body), attempts)
        except TIMError as error:
            error.endpoint, error.attempts = endpoint.name, attempts
            if isinstance(error, APIError):
                error.hint = self._hint(error.code, endpoint)
            # The frames that read an answer hold it, and a peer may have echoed the signature anywhere in it.
            answer = error.__traceback__ = None
            raise
        channel.budget.succeeded()
        return outcome

    def _hint(self, code: int, endpoint: Endpoint[..., Any]) -> str:
        """The likely cause of an error, where one is known that the service does not name."""
        if code in WRONG_REGION:
            return f"{self._hosts.current} was asked; is the app {self.sdk_app_id} in another region?"
        if code == UNKNOWN_COMMAND and all(endpoint.command != known.command for known in (*ENDPOINTS, GET_GROUP_INFO)):
            return f"the service answers so, too, when there is no command {endpoint.command}; is it mistyped?"
        return ""

    async def _attempt(self, call: Call) -> dict[str, Any]:
        """Make one request, wait for its turn included."""
        queue, options = call.channel.queue, call.options
        lane = LANE.get() if options.lane is None else options.lane
        queued = queue.now()
        permit = await queue.enter(lane, call.attempts > 0, options.max_wait - call.waited)
        sent = permit.sent
        waited = sent - queued
        call.waited += waited
        call.channel.counters.permitted(waited, call.attempts > 0)
        try:
            call.begin(sent)
            reply = await self._send(call)
        except BaseException as failure:  # a cancelled request leaves, too
            took = queue.leave(permit, answered=False)
            self._tell(call, lane, waited, took, failure)
            raise
        took = queue.leave(permit, answered=True)
        answer, error = self._read(call, reply, permit)
        # Raised from here and without its own frames: what a peer echoes must stand in no traceback's variables.
        del reply
        if error is not None or self._on_attempt is not None:
            self._tell(call, lane, waited, took, error)
        if error is not None:
            raise error
        return answer

    async def _send(self, call: Call) -> _transport.Reply:
        """Send the request, to the backup host if this one cannot be reached."""
        session = self._session
        if session is None or self._closed.is_set():
            raise ClientClosed("the client was closed")
        call.usersig = self._usersigs.current()
        signer = Signer(call.usersig, self._usersigs.scrub, self._pool)
        seconds = call.options.timeout
        timeout = connect_timeout(seconds, self._given_session is None)
        deadline = self._deadlines.start(seconds)
        try:
            host = self._hosts.current
            for _ in range(len(self._hosts) - 1):
                try:
                    return await _transport.post(session, self._request(host, call), signer, timeout, deadline)
                except ClientClosed:
                    raise
                except ConnectFailed as failure:
                    if call.channel.queue.now() >= deadline.when:
                        raise
                    _log.info("%s; trying the backup host", failure)
                    host = self._hosts.after(host)
            return await _transport.post(session, self._request(host, call), signer, timeout, deadline)
        finally:
            self._deadlines.finish(seconds, deadline)

    def _request(self, host: str, call: Call) -> _transport.Request:
        number = random.getrandbits(32)  # a new one for every request, the vendor says
        url = URL(f"{host}/{call.endpoint.command}{self._query}{number}", encoded=True)
        return _transport.Request(url, call.payload, self._proxy_of[host])

    def _read(self, call: Call, reply: _transport.Reply, permit: Permit) -> tuple[dict[str, Any], TIMError | None]:
        """Read an answer, and slow down where it says so."""
        try:
            return _transport.decode(reply), None
        except TIMError as failure:
            error = failure
        error.__traceback__ = None
        if reply.retry_after is not None:
            call.channel.queue.pause(reply.retry_after)
        if error.reaction is Reaction.SLOW_DOWN:
            call.channel.counters.refusals += 1
            call.channel.queue.refused(permit)
        return {}, error

    def _tell(self, call: Call, lane: Lane, waited: float, took: float, error: BaseException | None) -> None:
        if error is not None:
            _log.debug("%s: attempt %d: %s", call.endpoint.name, call.attempts, str(error) or type(error).__name__)
        if self._on_attempt is not None:
            tell(self._on_attempt, Attempt.of(call.endpoint.name, call.attempts, lane, waited, took, error))

    def _retrier(self, call: Call) -> Retrier:
        return Retrier(
            call.options.retry,
            call.channel.budget,
            repeatable=call.endpoint.repeatable,
            clock=call.channel.queue.now,
            started=call.started,
            sign_again=lambda: self._usersigs.refused(call.usersig),
            opens_at=call.channel.queue.opens_at,
            closed=self._closed,
        )

    def channel(self, endpoint: Endpoint[..., Any]) -> Channel:
        """What belongs to an endpoint, made when it is asked for the first time.

        Raises:
            RuntimeError: the client is closed, or belongs to another event loop.
        """
        self.open()
        return self._channels.get(endpoint.command) or self._add_channel(endpoint)

    def stats(self, endpoint: Endpoint[..., Any]) -> EndpointStats:
        """How an endpoint fares; one that was never used fares well."""
        channel = self._channels.get(endpoint.command)
        if channel is None:
            rate = self._rates.get(endpoint.command, DEFAULT_RATE)
            return EndpointStats(rate, Queue(0, 0), Counters().waits(), 0, 0, 0, shared=False)
        queue, counters = channel.queue, channel.counters
        return EndpointStats(
            queue.rate,
            Queue(queue.queued(Lane.INTERACTIVE), queue.queued(Lane.BULK)),
            counters.waits(),
            counters.refusals,
            counters.retries,
            counters.exhausted,
            shared=queue.shared,
        )

    def endpoints(self) -> Iterable[str]:
        """The commands used so far."""
        return self._channels.keys()

    def slow_down(self, endpoint: Endpoint[..., Any], taken: float) -> None:
        """Slow an endpoint to a share, 0 to 1, of its rate; one that was never used only if others may use it."""
        if self._sharing is not None or endpoint.command in self._channels:
            self.channel(endpoint).queue.slow_down(taken)

    def _add_channel(self, endpoint: Endpoint[..., Any]) -> Channel:
        rate = self._rates.get(endpoint.command, DEFAULT_RATE)
        limiter = None
        if self._sharing is not None:
            limiter = functools.partial(self._sharing.limiter, endpoint.command, rate, self._strict)
        queue = RequestQueue(rate, strict=self._strict, connections=self._connections, limiter=limiter)
        channel = Channel(queue, RetryBudget(self._options.retry.budget, rate / 10), Counters())
        self._channels[endpoint.command] = channel
        return channel
