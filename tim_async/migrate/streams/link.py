"""The way to the store: one script at a time, however long the store is away, and plain errors.

Importing this imports redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Sequence
from hashlib import sha1
from types import TracebackType
from typing import Any, Self, cast

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tim_async.stores import redis_url, shown_url

from .errors import StoreAway, StoreError

TIMEOUT = 5.0
"""Seconds for one answer of the store."""
_LONGEST_PAUSE = 2.0
"""Seconds between two attempts at a store that is away, at most."""
_GRACE = 2.0
"""Seconds for which a store that is away is still waited for once a run is to end."""
_REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
    exceptions.MaxConnectionsError,
)
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,  # also of a replica without its master
    exceptions.TryAgainError,
    OSError,
)

Tell = Callable[[str | None, float], None]


class Link:
    """A connection to the store; to be entered with ``async with``.

    Args:
        url: the store's.
        keys: what every script is given.
        stop: set when the run is to end; then a store that is away is not waited for much longer.
        tell: called while the store is away, with why and the seconds so far, and with None once it is back.
        patient: whether a store that cannot be reached is waited for at all.

    Attributes:
        patient: as given; it may be changed.
        shown: the URL as it may be shown.

    Raises:
        ValueError: a URL that cannot be.
    """

    def __init__(
        self, url: str, keys: Sequence[str], *, stop: asyncio.Event | None, tell: Tell | None, patient: bool
    ) -> None:
        self.shown = shown_url(url)
        self.patient = patient
        self._keys = keys
        self._stop = asyncio.Event() if stop is None else stop
        self._tell: Tell = tell or _silent
        self._since: float | None = None
        # Our own waiting instead of redis-py's: it tells, and ends when the run does.
        self._redis = redis.Redis.from_url(
            redis_url(url),
            decode_responses=True,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A store that is away cannot be told; its connections are closed all the same.
        with contextlib.suppress(*_AWAY, exceptions.RedisError):
            await self._redis.aclose()

    async def run(self, script: str, *args: str | int) -> list[Any]:
        """Have the store carry a script out; its answer.

        It may be carried out twice, when its first answer was lost: each script bears that.

        Raises:
            StoreError: the store refuses.
            StoreAway: it is away, and not waited for.
        """
        digest = _digest(script)

        async def evaluate() -> list[Any]:
            try:
                return cast("list[Any]", await self._redis.evalsha(digest, len(self._keys), *self._keys, *args))
            except exceptions.NoScriptError:
                return cast("list[Any]", await self._redis.eval(script, len(self._keys), *self._keys, *args))

        return cast("list[Any]", await self._patiently(evaluate))

    async def scan(self, key: str, cursor: int) -> tuple[int, dict[str, str]]:
        """Some fields of a hash, and where to go on; 0 at the end."""
        found = await self._patiently(lambda: self._redis.hscan(key, cursor, count=1000))
        return cast("tuple[int, dict[str, str]]", found)

    async def info(self, section: str) -> dict[str, Any]:
        """What the store says of itself; nothing where it does not."""
        try:
            return cast("dict[str, Any]", await self._patiently(lambda: self._redis.info(section)))
        except StoreError:  # who may use a stream need not be allowed to look around
            return {}

    async def wait_for_disk(self, seconds: float) -> None:
        """Wait until what was written is in the append-only file on the store's disk, or so long."""
        # Unknown to older servers; and where the disk is slow, there is nothing to be done about it here.
        with contextlib.suppress(exceptions.RedisError):
            await self._redis.execute_command("WAITAOF", 1, 0, int(1000 * seconds))  # type: ignore[no-untyped-call]

    async def _patiently(self, command: Callable[[], Any]) -> Any:
        """Carry a command out, however long the store is away."""
        rounds = 0
        while True:
            try:
                value = await command()
            except _REFUSED as error:
                raise StoreError(f"the store at {self.shown} refuses: {error}") from None
            except _AWAY as error:
                # Connections to a store that went away, or is no longer the one to write to, are of no more use.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._missed(error, rounds)
                rounds += 1
            except exceptions.RedisError as error:
                raise StoreError(self._explained(error)) from None
            else:
                self._answered()
                return value

    def _answered(self) -> None:
        if self._since is not None:
            seconds, self._since = asyncio.get_running_loop().time() - self._since, None
            self._tell(None, seconds)

    async def _missed(self, error: Exception, rounds: int) -> None:
        if rounds == 0 and self._since is None and not isinstance(error, exceptions.TimeoutError):
            return  # a connection may end without the store; the next attempt makes another one
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
        reason = f"cannot reach the store at {self.shown}: {str(error) or type(error).__name__}"
        if not self.patient:
            raise StoreAway(reason)
        stopped = self._stop.is_set()
        if stopped and now - self._since >= _GRACE:
            raise StoreAway(reason)
        self._tell(reason, now - self._since)
        pause = min(_LONGEST_PAUSE, 0.1 * 2 ** min(rounds, 10)) * random.uniform(0.5, 1.0)
        if stopped:
            await asyncio.sleep(min(pause, 0.5))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stop.wait()

    def _explained(self, error: exceptions.RedisError) -> str:
        text = str(error)
        if isinstance(error, exceptions.OutOfMemoryError):
            return f"the store at {self.shown} has no memory left: {text}"
        if "WRONGTYPE" in text:
            return f"{self._keys[0]} or a key beside it at {self.shown} is of something else ({text}); see --name"
        if "NOGROUP" in text:
            return f"the stream {self._keys[1]} at {self.shown} has lost its consumer group; load the file again"
        if isinstance(error, exceptions.MovedError):
            return f"{self.shown} is a node of a cluster, and not the one that holds {self._keys[0]}: {text}"
        return f"the store at {self.shown}: {text}"


@functools.cache
def _digest(script: str) -> str:
    """What the store knows a script by."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def _silent(_reason: str | None, _seconds: float) -> None:
    """Tell nobody."""
