"""The connection to a shared store: one script, repeated for as long as the store is unreachable, and plain errors.

The script is called through any client of redis-py, also the user's own; the only other command waits for the store's
disk.

Each command runs in its own task, which is cancelled and abandoned when its time is over: on Python 3.11 redis-py's
time-outs may swallow a cancellation, so nothing here may wait for a cancelled command.

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
from typing import Any

from redis import exceptions
from redis.asyncio import RedisCluster

from tim_async._redis_clients import Client, Script, connect, execute
from tim_async._store_faults import in_words, is_of_the_keys, remedy, said

from ._event_queue import Wait
from .errors import JournalError, StoreAway, StoreMisconfigured
from .events import Resumed, Waiting

TIMEOUT = 5.0
"""Seconds within which the store must reply."""
_LONGEST_PAUSE = 1.0
"""Seconds between two attempts to reach the store, at most."""
_GRACE = 2.0
"""Seconds to wait for an unresponsive store once the run is to end."""
_CLOSING = 1.0
"""Seconds for cancelled commands to end, and for connections to close."""
_PARTS = ("keys", "rows", "members", "workers", "whole")
"""The files of the script, in ``_lua``."""
_READS = frozenset({"look", "status", "counts", "problems", "accepted", "scan", "info"})
"""Operations that a replica executes, too; so it does those that only return the identity of the migration."""
_UNREACHABLE = (
    exceptions.ConnectionError,  # also LOADING, a pool without a free connection, and Sentinels without a primary
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterError,  # CLUSTERDOWN, MASTERDOWN, and a cluster whose nodes disagree
    exceptions.RedisClusterException,
    exceptions.AskError,  # also MOVED
    exceptions.TryAgainError,
    OSError,
)
"""Errors of an unreachable store, unless there is a remedy for them."""
_TRANSIENT = ("BUSY", "MISCONF", "NOREPLICAS")
"""Prefixes of transient errors without a class in redis-py: a running script, a full disk, too few replicas."""

Tell = Callable[[Waiting | Resumed], None]
"""Called with a `Waiting` during a wait, and with a `Resumed` at its end."""
Command = Callable[[], Awaitable[Any]]


class RedisLink:
    """A connection to a store that keeps one migration.

    Args:
        store: its URL, or a client, which is never closed.
        keys: the keys of ``_lua``.
        stop: set when the run is to end; bounds the wait for an unreachable store.
        tell: called while the store is unreachable.

    Attributes:
        waits: whether to wait for an unreachable store.
        shown: the store's URL without its password.

    Raises:
        TypeError, ValueError: an unsupported client, or an invalid URL.
    """

    def __init__(self, store: str | Client, keys: list[str], stop: asyncio.Event, tell: Tell) -> None:
        # In our own client our waits replace those of redis-py: they are reported, and end with the run.
        ours = isinstance(store, str)
        options: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT} if ours else {}
        self._connected = connect(store, **options)
        self._client = self._connected.client
        self.shown: str = self._connected.shown
        self.waits = False
        self._about_key = keys[0]
        self._keys = keys
        self._stop = stop
        self._outage = Wait(tell)
        self._ending: asyncio.Future[Any] | None = None
        self._written = False
        self._given_up = ""
        self._commands: set[asyncio.Task[Any]] = set()
        self._timeout = _timeout_of(self._client)

    def hurry(self) -> None:
        """From now on, wait for an unreachable store only briefly."""
        self._end.cancel()

    async def close(self) -> None:
        """Close the connections, even if the store is unresponsive."""
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
        # Connections to an unreachable store are closed all the same.
        with contextlib.suppress(*_UNREACHABLE, exceptions.RedisError):
            await self._connected.aclose()

    async def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Execute an operation of ``_lua`` in the store, and return its reply.

        An operation whose first reply was lost is executed twice: each operation allows for that.

        Raises:
            JournalError: the store refuses, or its reply is unreadable.
            StoreAway: it is unreachable, and not waited for.
        """
        text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
        # Bytes that are not UTF-8 become lone surrogates, as in a file, and affect only their own row.
        document = text.encode(errors="surrogateescape")
        reply = await self._retried(
            lambda: _script().run(functools.partial(execute, self._client), self._keys, document)
        )
        try:
            found = json.loads(reply.decode(errors="surrogateescape"))
            if not isinstance(found, dict):
                raise TypeError(f"{type(found).__name__}")
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise self._unreadable(error) from error
        self._written = self._written or (request["op"] not in _READS and "about" not in found)
        return found

    async def wait_for_disk(self, seconds: float) -> None:
        """Wait until all writes are in the append-only file on the store's disk, or for this many seconds."""
        # Older servers have no WAITAOF, and a slow disk is not an error here.
        with contextlib.suppress(*_UNREACHABLE, exceptions.RedisError):
            await self._attempt(
                lambda: self._connected.execute_at(self._about_key, "WAITAOF", 1, 0, int(1000 * seconds))
            )

    async def _retried(self, command: Command) -> Any:
        """Execute a command, however long the store is unreachable."""
        rounds = 0
        while True:
            if self._given_up:
                raise StoreAway(self._given_up)
            began = asyncio.get_running_loop().time()
            try:
                value = await self._attempt(command)
            except Exception as error:  # also those of a driver that is given nonsense
                error = await self._explained(error)
                if cure := self._remedy(error, rounds):
                    raise StoreMisconfigured(
                        f"the store at {self.shown} refuses: {in_words(error).rstrip('.')}; {cure}"
                    ) from None
                if isinstance(error, _UNREACHABLE) or (
                    isinstance(error, exceptions.ResponseError) and str(error).startswith(_TRANSIENT)
                ):
                    await self._back_off(error, rounds, began)
                    rounds += 1
                elif isinstance(error, exceptions.RedisError):
                    raise JournalError(self._refusal(error)) from None
                else:
                    raise self._unreadable(error) from error
            else:
                self._outage.end()
                return value

    async def _explained(self, failure: Exception) -> Exception:
        """Return an error as the Sentinels explain it; after a write it is unchanged: a known primary comes back."""
        if not self._written:
            with contextlib.suppress(*_UNREACHABLE):
                found: Exception = await self._attempt(lambda: self._connected.explained(failure))
                return found
        return failure

    def _remedy(self, error: Exception, rounds: int) -> str:
        """Return the remedy for an error that no wait resolves, after some rounds of waiting; "" for other errors."""
        if is_of_the_keys(error):
            return ""
        if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
            return "its client has an option that redis-py does not have; remove it"
        if "Unknown Redis command" in str(error):
            return "it is older than Redis 6.2; use another store"
        # A store that was written to is not a replica by mistake: it is failing over.  So it may be if the connection
        # was made just before.
        failover = (self._written or not rounds) and isinstance(error, exceptions.ReadOnlyError)
        # A migration needs more rights than a quota does.
        return remedy(error, by_name=failover or self._connected.by_name).replace("FLEET.md", "migrate/README.md")

    def _unreadable(self, error: Exception) -> JournalError:
        return JournalError(
            f"the reply of the store at {self.shown} is unreadable ({in_words(error)}); is it a Redis or Valkey?"
        )

    # One attempt

    @property
    def _end(self) -> asyncio.Future[Any]:
        """Done once the run is to end."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._stop.wait())
        return self._ending

    def _begin(self, command: Command) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(command())
        self._commands.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # marked as retrieved: an abandoned command has no caller

    async def _attempt(self, command: Command) -> Any:
        """Execute a command once.

        Raises:
            exceptions.RedisError, OSError: it failed; a time-out is an `exceptions.TimeoutError`.
        """
        task = self._begin(command)
        try:
            if not self._end.done():
                await asyncio.wait([task, self._end], timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done() and not task.done():
                await asyncio.wait([task], timeout=_GRACE)
        finally:
            task.cancel()
        if not task.done():
            raise exceptions.TimeoutError("no reply in time")
        if task.cancelled():  # not by this method
            raise exceptions.ConnectionError("the command was cancelled")
        return task.result()

    async def _back_off(self, error: Exception, rounds: int, began: float) -> None:
        """Report a failed attempt, and wait before the next.

        Raises:
            JournalError: the store is given up.
        """
        # Connections to a store that is gone, or no longer the primary, are useless.
        with contextlib.suppress(*_UNREACHABLE, exceptions.RedisError):
            await self._attempt(self._connected.give_up)
        if rounds == 0 and self._outage.since is None and not isinstance(error, exceptions.TimeoutError):
            return  # perhaps only the connection has ended; the next attempt makes another one
        since = began if self._outage.since is None else self._outage.since
        reason = f"cannot reach the store at {self.shown}: {said(error) or type(error).__name__}"
        ending = self._end.done()
        # A little less than the grace that an attempt has: clocks of event loops round.
        if not self.waits or (ending and asyncio.get_running_loop().time() - since >= 0.9 * _GRACE):
            self._given_up = reason
            raise StoreAway(reason) from None
        self._outage.report(reason, "the store is back", since)
        pause = min(_LONGEST_PAUSE, 0.1 * 2 ** min(rounds, 10)) * random.uniform(0.5, 1.0)
        if ending:
            await asyncio.sleep(min(pause, 0.5))
        else:
            await asyncio.wait([self._end], timeout=pause)

    def _refusal(self, error: exceptions.RedisError) -> str:
        """Return the message for an error that the store has replied."""
        text = said(error)
        about = self._about_key
        if isinstance(error, exceptions.OutOfMemoryError):
            return f"the store at {self.shown} has no memory left: {text}"
        if "WRONGTYPE" in text:
            return f"{about} or a key beside it at {self.shown} belongs to something else ({text}); see --name"
        if "NOGROUP" in text:
            return f"the stream beside {about} at {self.shown} has lost its consumer group; load the file again"
        if "target stream top item" in text:
            return (
                f"another program has added entries to the stream beside {about} at {self.shown}, and no row can be"
                " added after them; load the file under another --name"
            )
        if "user_script" in text:
            return f"{about} or a key beside it at {self.shown} is damaged ({text}); --restart starts over"
        return f"the store at {self.shown}: {text}"


@functools.cache
def _script() -> Script:
    """Return the script as one chunk, so that each of its files sees the local names of those before it."""
    folder = importlib.resources.files("tim_async.migrate") / "_lua"
    return Script("\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS))


def _timeout_of(client: Client) -> float:
    """Return the seconds after which a command has failed; it may have to connect first."""
    options: Mapping[str, Any]
    if isinstance(client, RedisCluster):
        options = client.get_connection_kwargs()
        if not options.get("socket_timeout"):
            raise ValueError(
                "a RedisCluster looks for a new primary only after a time-out: set its socket_timeout, such as 5"
            )
    else:
        options = client.connection_pool.connection_kwargs
    return sum(float(options.get(name) or TIMEOUT) for name in ("socket_connect_timeout", "socket_timeout"))
