"""Calls that outlast the service: what passes is waited out, however long it takes.

A client's own retries end after some 25 seconds.  A migration has the night: when nothing gets through any more, it
stops sending, tries one call every few seconds, and goes on once one is answered.  What fails while others get
through is that call's own trouble, and ends as its failure after some forty attempts.
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
)

from ._store import shortened

T = TypeVar("T")

_ATTEMPTS = 40
"""Requests for one call before its trouble counts as its own: five times the client's usual patience."""
_LONGEST_PAUSE = 5.0
"""Seconds between two calls during an outage, and between two rounds of one call, at most."""
_OK = 200
"""The HTTP status of every answer of the service; another is a gateway's."""
_LAST_WORD = 600.0
"""Seconds after which calls that fail alone, with no other left to compare them with, are given up."""


class Stopped(Exception):
    """The run is being stopped; the call was not carried out, or its fate is unknown."""


class OutageTooLong(Exception):
    """The service took nothing for longer than allowed."""


class Patience:
    """Carries calls out for as long as it takes.

    Args:
        stop: set when the run is to end.
        most: seconds that an outage may last; infinity for as long as it does.
        tell: called with the latest error and the seconds so far during an outage, and with None at its end.
    """

    def __init__(self, stop: asyncio.Event, most: float, tell: Callable[[TIMError | None, float], None]) -> None:
        self._stop = stop
        self._most = most
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._answers = 0
        self._since: float | None = None
        self._probe = asyncio.Lock()
        self.last_calls = False
        """Set when no other call is left to begin."""

    async def carry_out(self, call: Callable[[int], Awaitable[T]]) -> T:
        """Carry a call out.

        Args:
            call: makes it; given the number of the round, from 0.

        Raises:
            AuthError: the credentials were refused.
            TIMError: the service's last word on this call, or the last of very many failures that were its alone.
            Stopped: the run is being stopped.
            OutageTooLong: so it is.
        """
        attempts = rounds = 0
        began = self._loop.time()
        while True:
            probing = await self._turn()
            answers = self._answers
            try:
                value = await call(rounds)
            except (AuthError, ClientClosed):
                raise
            except TIMError as error:
                if not passes(error):
                    self._answered()
                    raise
                rounds += 1
                attempts += max(1, error.attempts)
                alone = self.last_calls and self._loop.time() - began >= _LAST_WORD
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
    def down(self) -> bool:
        """Whether there is an outage."""
        return self._since is not None

    async def _turn(self) -> bool:
        """Wait while there is an outage, or become the one that tries; whether it is, and holds the probe."""
        if self._stop.is_set():
            raise Stopped
        if self._since is None:
            return False
        # First come, first served: each call that waits is tried in its turn, so that none stands for all others.
        await self._probe.acquire()
        try:
            if self._since is not None:
                await self._sleep(min(_LONGEST_PAUSE, 0.25 + (self._loop.time() - self._since) / 4))
                return True
        except BaseException:
            self._probe.release()
            raise
        self._probe.release()
        return False

    def _answered(self) -> None:
        self._answers += 1
        if self._since is not None:
            seconds, self._since = self._loop.time() - self._since, None
            self._tell(None, seconds)

    def _failed(self, error: TIMError) -> None:
        now = self._loop.time()
        if self._since is None:
            self._since = now
        self._tell(error, now - self._since)
        if now - self._since >= self._most:
            reason = shortened(str(error))
            raise OutageTooLong(f"the service took nothing for {now - self._since:.0f} s: {reason}")

    async def _sleep(self, seconds: float) -> None:
        """Wait; less when the run is to end."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
        raise Stopped


def passes(error: TIMError) -> bool:
    """Whether an error is of the service's condition, and says nothing of the call itself."""
    # The service's own answer, with which something is wrong that stays wrong, is no outage: waiting would be for ever.
    if isinstance(error, BadResponse) and error.status == _OK and error.reaction is Reaction.GIVE_UP:
        return False
    return isinstance(error, TransportError | ServerBusy | RateLimited)
