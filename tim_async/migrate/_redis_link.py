"""The connection to a shared store: one script, repeated for as long as the store is unreachable, and plain errors.

Each command runs in a task of its own, which is cancelled and left alone when its time is over: on Python 3.11
redis-py's time-outs may swallow a cancellation, so that nothing here may wait for a cancelled command.

Importing this imports redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tim_async._stores import redis_url, shown_url

from .errors import JournalError, StoreAway

TIMEOUT = 5.0
"""Seconds for one reply of the store."""
_LONGEST_PAUSE = 2.0
"""Seconds between two attempts at an unreachable store, at most."""
_GRACE = 2.0
"""Seconds for which a store that does not respond is still waited for once the run is to end."""
_CLOSING = 1.0
"""Seconds for cancelled commands to end, and for connections to close."""
_READ_ONLY = 10.0
"""Seconds for which a store may refuse writes: a failover passes, the URL of a replica does not."""
_PARTS = ("keys", "rows", "members", "workers", "whole")
"""The files of the script, in ``_lua``."""
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

Tell = Callable[..., None]
"""Given why something is waited for and the seconds so far, and perhaps until what; and None when it is there."""
Command = Callable[[], Awaitable[Any]]


class Link:
    """A connection to a store that keeps one migration.

    Args:
        url: the store's.
        keys: the keys of ``_lua``.
        stop: set when the run is to end; then an unreachable store is not waited for much longer.
        tell: called while the store is unreachable, with the reason and the seconds so far, and with None afterwards.

    Attributes:
        patient: whether an unreachable store is waited for at all.
        shown: the URL as it may be shown.

    Raises:
        ValueError: the URL is invalid.
    """

    def __init__(self, url: str, keys: list[str], stop: asyncio.Event, tell: Tell) -> None:
        url = redis_url(url)
        self.shown: str = shown_url(url)
        self.patient = False
        self._keys = keys
        self._stop = stop
        self._tell = tell
        self._ending: asyncio.Future[Any] | None = None
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
        self._script = self._redis.register_script(_source())
        options = self._redis.connection_pool.connection_kwargs
        self._limit = float(options["socket_connect_timeout"]) + float(options["socket_timeout"])

    def hurry(self) -> None:
        """From now on, wait for an unreachable store only briefly."""
        self._end.cancel()

    async def close(self) -> None:
        """Close the connections, whatever the store does."""
        self._end.cancel()
        for command in self._commands:
            command.cancel()
        if self._commands:
            await asyncio.wait(self._commands, timeout=_CLOSING)
        closing = self._begin(self._disconnect)
        await asyncio.wait([closing], timeout=_CLOSING)
        if not closing.cancel():
            closing.result()

    async def _disconnect(self) -> None:
        # An unreachable store cannot be told; its connections are closed all the same.
        with contextlib.suppress(*_AWAY, exceptions.RedisError):
            await self._redis.aclose()

    async def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Have the store carry out an operation of ``_lua``; its reply.

        It may be carried out twice, when its first reply was lost: each operation bears that.

        Raises:
            JournalError: the store refuses, or replies something else.
            StoreAway: it is unreachable, and not waited for.
        """
        document = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
        text = await self._patiently(lambda: self._script(keys=self._keys, args=[document]))
        try:
            reply = json.loads(text)
            if not isinstance(reply, dict):
                raise TypeError(f"{type(reply).__name__}")
        except (TypeError, ValueError, RecursionError) as error:
            raise self._nonsense(error) from error
        return reply

    async def scan(self, key: str, cursor: int) -> tuple[int, dict[str, str]]:
        """Read some fields of a hash; the cursor of the others, 0 at the end."""
        found = await self._patiently(lambda: self._redis.hscan(key, cursor, count=1000))
        return cast("tuple[int, dict[str, str]]", found)

    async def info(self, section: str) -> dict[str, Any]:
        """Read what the store says of itself; nothing where it does not."""
        try:
            return cast("dict[str, Any]", await self._patiently(lambda: self._redis.info(section)))
        except JournalError:  # who may use a migration need not be allowed to look around
            return {}

    async def wait_for_disk(self, seconds: float) -> None:
        """Wait until what was written is in the append-only file on the store's disk, or so long."""

        async def wait() -> None:
            await self._redis.execute_command("WAITAOF", 1, 0, int(1000 * seconds))  # type: ignore[no-untyped-call]

        # Unknown to older servers; and where the disk is slow, there is nothing to be done about it here.
        with contextlib.suppress(*_AWAY, exceptions.RedisError):
            await self._attempt(wait)

    async def _patiently(self, command: Command) -> Any:
        """Carry a command out, however long the store is unreachable."""
        rounds = 0
        while True:
            if self._given_up:
                raise StoreAway(self._given_up)
            began = asyncio.get_running_loop().time()
            try:
                value = await self._attempt(command)
            except _REFUSED as error:
                raise JournalError(f"the store at {self.shown} refuses: {error}") from None
            except _AWAY as error:
                await self._missed(error, rounds, began)
                rounds += 1
            except exceptions.RedisError as error:
                raise JournalError(self._explained(error)) from None
            except Exception as error:  # of the driver, which trusts whatever answers
                raise self._nonsense(error) from error
            else:
                self._answered()
                return value

    def _nonsense(self, error: Exception) -> JournalError:
        return JournalError(
            f"the store at {self.shown} gives a reply that cannot be read ({type(error).__name__}: {error});"
            " is it a Redis or Valkey?"
        )

    # One attempt

    @property
    def _end(self) -> asyncio.Future[Any]:
        """Done once the run is to end."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(_set(self._stop))
        return self._ending

    def _begin(self, command: Command) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(command())
        self._commands.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # seen: of a command that was left alone nobody asks

    async def _attempt(self, command: Command) -> Any:
        """Carry a command out once.

        Raises:
            exceptions.RedisError, OSError: it failed; a time-out is an `exceptions.TimeoutError`.
        """
        task = self._begin(command)
        try:
            if not self._end.done():
                await asyncio.wait([task, self._end], timeout=self._limit, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done() and not task.done():
                await asyncio.wait([task], timeout=_GRACE)
        finally:
            task.cancel()
        if not task.done():
            raise exceptions.TimeoutError("no reply in time")
        if task.cancelled():  # by somebody else
            raise exceptions.ConnectionError("the command was cancelled")
        return task.result()

    def _answered(self) -> None:
        self._read_only_since = None
        if self._since is not None:
            seconds, self._since = asyncio.get_running_loop().time() - self._since, None
            self._tell(None, seconds)

    async def _missed(self, error: Exception, rounds: int, began: float) -> None:
        """Take note of an attempt that failed, and wait for the next.

        Raises:
            JournalError: there is to be no other.
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
        ending = self._end.done()
        if not self.patient or (ending and now - self._since >= _GRACE):
            self._given_up = reason
            raise StoreAway(reason)
        self._tell(reason, now - self._since)
        pause = min(_LONGEST_PAUSE, 0.1 * 2 ** min(rounds, 10)) * random.uniform(0.5, 1.0)
        if ending:
            await asyncio.sleep(min(pause, 0.5))
        else:
            await asyncio.wait([self._end], timeout=pause)

    def _check_read_only(self, error: Exception, began: float) -> None:
        if not isinstance(error, exceptions.ReadOnlyError):
            self._read_only_since = None
            return
        if self._read_only_since is None:
            self._read_only_since = began
        if asyncio.get_running_loop().time() - self._read_only_since >= _READ_ONLY:
            raise JournalError(f"the store at {self.shown} is read-only, such as a replica; give the primary's URL")

    def _explained(self, error: exceptions.RedisError) -> str:
        text = str(error)
        about = self._keys[0]
        if isinstance(error, exceptions.OutOfMemoryError):
            return f"the store at {self.shown} has no memory left: {text}"
        if "WRONGTYPE" in text:
            return f"{about} or a key beside it at {self.shown} is of something else ({text}); see --name"
        if "NOGROUP" in text:
            return f"the stream beside {about} at {self.shown} has lost its consumer group; load the file again"
        if "target stream top item" in text:
            return (
                f"something else has added entries to the stream beside {about} at {self.shown}, and no row can be put"
                " behind them; load the file under another --name"
            )
        if isinstance(error, exceptions.MovedError):
            return f"{self.shown} is a node of a cluster, and not the one that holds {about}: {text}"
        if "user_script" in text:
            return f"{about} or a key beside it at {self.shown} is damaged ({text}); --restart starts over"
        return f"the store at {self.shown}: {text}"


@functools.cache
def _source() -> str:
    """The script: one chunk, so that each of its files sees the local names of those before it."""
    folder = importlib.resources.files("tim_async.migrate") / "_lua"
    return "\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS)


async def _set(event: asyncio.Event) -> None:
    await event.wait()
