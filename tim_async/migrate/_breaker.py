"""A circuit breaker that waits out outages of the service, however long they last.

A client's own retries end after some 25 seconds; a migration can wait all night.  When every call fails with a
transient error, the circuit opens: only one call is sent every few seconds, and once one is answered, all continue.  A
call that fails while others succeed is itself at fault, and fails after some forty attempts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tim_async.errors import (
    AuthError,
    BadResponse,
    ClientClosed,
    RateLimited,
    Reaction,
    ServerBusy,
    TIMError,
    TransportError,
    brief,
)

from ._event_queue import Wait
from ._store import shortened
from ._supervision import set_within
from .events import Resumed, Waiting

T = TypeVar("T")

_ATTEMPTS = 40
"""Attempts of a call after which it is itself at fault: five times those of the client's retry policy."""
_LONGEST_PAUSE = 5.0
"""Seconds between two calls during an outage, and between two rounds of one call, at most."""
_OK = 200
"""The HTTP status of every answer of the service; any other is a gateway's."""
_GIVE_UP_AFTER = 600.0
"""Seconds after which a failing call is given up when no other call is left to compare it with."""


class Stopped(Exception):
    """The run is to end; the call was not made, or its outcome is unknown."""


class OutageTooLong(Exception):
    """The service accepted nothing for longer than allowed."""


class CircuitBreaker:
    """Makes calls, and waits out outages.

    Args:
        stop: set when the run is to end.
        longest: the maximum length of an outage, seconds; infinity for no limit.
        tell: called with a `Waiting` after each failure during an outage, and with a `Resumed` at its end.

    Attributes:
        last_calls: whether no other call will begin; set by the caller.
    """

    def __init__(self, stop: asyncio.Event, longest: float, tell: Callable[[Waiting | Resumed], None]) -> None:
        self._stop = stop
        self._longest = longest
        self._outage = Wait(tell)
        self._loop = asyncio.get_running_loop()
        self._answers = 0
        self._probe = asyncio.Lock()
        self.last_calls: bool = False

    async def call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, in as many attempts as needed.

        Args:
            call: makes it once.

        Raises:
            AuthError: the credentials were refused.
            TIMError: the service's answer to this call, or the last of very many failures while other calls succeeded.
            Stopped: the run is to end.
            OutageTooLong: the outage is longer than allowed.
        """
        attempts = rounds = 0
        began = self._loop.time()
        while True:
            probing = await self._enter()
            answers = self._answers
            try:
                value = await call()
            except (AuthError, ClientClosed):
                raise
            except TIMError as error:
                if not is_transient(error):
                    self._answered()
                    raise
                rounds += 1
                attempts += max(1, error.attempts)
                alone = self.last_calls and self._loop.time() - began >= _GIVE_UP_AFTER
                if attempts >= _ATTEMPTS and (self._answers != answers or alone):
                    raise
                if self._answers != answers:
                    await self._sleep(min(2.0 ** (rounds - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0))
                else:
                    self._failed(error)
            else:
                self._answered()
                return value
            finally:
                if probing:
                    self._probe.release()

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: there is an outage."""
        return self._outage.since is not None

    async def _enter(self) -> bool:
        """Wait while the circuit is open; return whether this call is the probe, which holds the lock."""
        if self._stop.is_set():
            raise Stopped
        if not self.is_open:
            return False
        # First come, first served: each waiting call is the probe in turn, so that no single call decides for all.
        await self._probe.acquire()
        try:
            if self._outage.since is not None:
                await self._sleep(min(_LONGEST_PAUSE, 0.25 + (self._loop.time() - self._outage.since) / 4))
                return True
        except BaseException:
            self._probe.release()
            raise
        self._probe.release()
        return False

    def _answered(self) -> None:
        self._answers += 1
        self._outage.end()

    def _failed(self, error: TIMError) -> None:
        seconds = self._outage.report(shortened(brief(error)), "the service is back")
        if seconds >= self._longest:
            raise OutageTooLong(f"the service has accepted nothing for {seconds:.0f} s: {shortened(str(error))}")

    async def _sleep(self, seconds: float) -> None:
        """Wait, unless the run is to end."""
        if await set_within(self._stop, seconds):
            raise Stopped


def is_transient(error: TIMError) -> bool:
    """Whether an error is due to the condition of the service, and not to the call."""
    # An answer of the service itself that will stay unreadable is not an outage: the wait would never end.
    if isinstance(error, BadResponse) and error.status == _OK and error.reaction is Reaction.GIVE_UP:
        return False
    return isinstance(error, TransportError | ServerBusy | RateLimited)
