"""The connection to the store: scripts, retried for as long as the store is unreachable, and plain errors.

Each command runs in a task of its own, which is cancelled and left to itself when its time is over: on Python 3.11
redis-py's time-outs may swallow a cancellation, so that nothing here may wait for a cancelled command.

Importing this imports redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from types import TracebackType
from typing import Any, Self, cast

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tim_async._stores import redis_url, shown_url

from .errors import StoreAway, StoreError

TIMEOUT = 5.0
"""Seconds for one answer of the store."""
_LONGEST_PAUSE = 2.0
"""Seconds between two attempts at a store that is away, at most."""
_GRACE = 2.0
"""Seconds for which a store that does not answer is still waited for once a run is to end."""
_CLOSING = 1.0
"""Seconds for what was cancelled to end, and for connections to close."""
_READ_ONLY = 10.0
"""Seconds for which a store may refuse to be written to: a failover passes, the URL of a replica does not."""
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
Command = Callable[[], Awaitable[Any]]


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
        url = redis_url(url)
        self.shown: str = shown_url(url)
        self.patient = patient
        self._keys = keys
        self._stop = asyncio.Event() if stop is None else stop
        self._tell: Tell = tell or _silent
        self._since: float | None = None
        self._read_only_since: float | None = None
        self._given_up = ""
        self._commands: set[asyncio.Task[Any]] = set()
        # Our own waiting instead of redis-py's: it tells, and ends when the run does.
        self._redis = redis.Redis.from_url(
            url,
            decode_responses=True,
            # Bytes that are not UTF-8 become lone surrogates, as in a file, and spoil no more than their own row.
            encoding_errors="surrogateescape",
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        options = self._redis.connection_pool.connection_kwargs
        self._limit = float(options["socket_connect_timeout"]) + float(options["socket_timeout"])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for command in self._commands:
            command.cancel()
        if self._commands:
            await asyncio.wait(self._commands, timeout=_CLOSING)
        closing = self._begin(self._close)
        await asyncio.wait([closing], timeout=_CLOSING)
        if not closing.cancel():
            closing.result()

    async def _close(self) -> None:
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

        async def wait() -> None:
            await self._redis.execute_command("WAITAOF", 1, 0, int(1000 * seconds))  # type: ignore[no-untyped-call]

        # Unknown to older servers; and where the disk is slow, there is nothing to be done about it here.
        with contextlib.suppress(*_AWAY, exceptions.RedisError):
            await self._attempt(wait)

    async def _patiently(self, command: Command) -> Any:
        """Carry a command out, however long the store is away."""
        rounds = 0
        while True:
            if self._given_up:
                raise StoreAway(self._given_up)
            began = asyncio.get_running_loop().time()
            try:
                value = await self._attempt(command)
            except _REFUSED as error:
                raise StoreError(f"the store at {self.shown} refuses: {error}") from None
            except _AWAY as error:
                await self._missed(error, rounds, began)
                rounds += 1
            except exceptions.RedisError as error:
                raise StoreError(self._explained(error)) from None
            except Exception as error:  # of the driver, which trusts whatever answers
                raise self.nonsense(error) from error
            else:
                self._answered()
                return value

    def nonsense(self, error: Exception) -> StoreError:
        """Describe an answer that cannot be read."""
        return StoreError(
            f"the store at {self.shown} gives an answer that cannot be read ({type(error).__name__}: {error});"
            " is it a Redis or Valkey?"
        )

    # One attempt

    def _begin(self, command: Command) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(command())
        self._commands.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # seen: of a command that was left to itself nobody asks

    async def _attempt(self, command: Command) -> Any:
        """Carry a command out once.

        Raises:
            exceptions.RedisError, OSError: it failed; a time-out is an `exceptions.TimeoutError`.
        """
        task = self._begin(command)
        try:
            await self._wait_for(task)
        finally:
            task.cancel()
        if not task.done():
            raise exceptions.TimeoutError("no answer in time")
        if task.cancelled():  # by somebody else
            raise exceptions.ConnectionError("the command was cancelled")
        return task.result()

    async def _wait_for(self, task: asyncio.Task[Any]) -> None:
        """Wait for a command to end; for `_GRACE` at most once the run is to end."""
        if not self._stop.is_set():
            stopping = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait({task, stopping}, timeout=self._limit, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
        if self._stop.is_set() and not task.done():
            await asyncio.wait({task}, timeout=_GRACE)

    def _answered(self) -> None:
        self._read_only_since = None
        if self._since is not None:
            seconds, self._since = asyncio.get_running_loop().time() - self._since, None
            self._tell(None, seconds)

    async def _missed(self, error: Exception, rounds: int, began: float) -> None:
        """Take note of an attempt that failed, and wait for the next.

        Raises:
            StoreError: there is to be no other.
        """
        # Connections to a store that went away, or is no longer the one to write to, are of no more use.
        with contextlib.suppress(*_AWAY, exceptions.RedisError):
            await self._attempt(lambda: self._redis.connection_pool.disconnect(inuse_connections=False))
        self._check_read_only(error, began)
        if rounds == 0 and self._since is None and not isinstance(error, exceptions.TimeoutError):
            return  # a connection may end without the store; the next attempt makes another one
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = began
        reason = f"cannot reach the store at {self.shown}: {str(error) or type(error).__name__}"
        stopped = self._stop.is_set()
        if not self.patient or (stopped and now - self._since >= _GRACE):
            self._given_up = reason
            raise StoreAway(reason)
        self._tell(reason, now - self._since)
        pause = min(_LONGEST_PAUSE, 0.1 * 2 ** min(rounds, 10)) * random.uniform(0.5, 1.0)
        if stopped:
            await asyncio.sleep(min(pause, 0.5))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stop.wait()

    def _check_read_only(self, error: Exception, began: float) -> None:
        if not isinstance(error, exceptions.ReadOnlyError):
            self._read_only_since = None
            return
        if self._read_only_since is None:
            self._read_only_since = began
        if asyncio.get_running_loop().time() - self._read_only_since >= _READ_ONLY:
            raise StoreError(f"the store at {self.shown} is read-only, such as a replica; give the primary's URL")

    def _explained(self, error: exceptions.RedisError) -> str:
        text = str(error)
        if isinstance(error, exceptions.OutOfMemoryError):
            return f"the store at {self.shown} has no memory left: {text}"
        if "WRONGTYPE" in text:
            return f"{self._keys[0]} or a key beside it at {self.shown} is of something else ({text}); see --name"
        if "NOGROUP" in text:
            return f"the stream {self._keys[1]} at {self.shown} has lost its consumer group; load the file again"
        if "target stream top item" in text:
            return (
                f"something other than load has added entries to {self._keys[1]} at {self.shown}, and the rows that"
                " are left cannot be put behind them; load the file under another --name"
            )
        if isinstance(error, exceptions.MovedError):
            return f"{self.shown} is a node of a cluster, and not the one that holds {self._keys[0]}: {text}"
        return f"the store at {self.shown}: {text}"


@functools.cache
def _digest(script: str) -> str:
    """What the store knows a script by."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def _silent(_reason: str | None, _seconds: float) -> None:
    """Tell nobody."""
