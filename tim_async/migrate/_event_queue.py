"""The queue between a run and the caller that iterates over its events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from tim_async.errors import brief

from ._store import shortened
from ._supervision import outlast, result_of
from .events import Counts, Progress, Resumed, RowFailed, RowLowered, Waiting

T = TypeVar("T")

_UNREAD_EVENTS = 1000
"""Unread events of rows at most; `EventQueue.row` waits when there are more."""
_ENDED = Progress(Counts())
"""Wakes the reader when the run has ended."""


class EventQueue:
    """The unread events, with a `Progress` at regular intervals.

    Args:
        counts: returns the rows by state; None while unknown.
    """

    def __init__(self, counts: Callable[[], Counts | None] = lambda: None) -> None:
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNREAD_EVENTS)

    async def all(self, task: asyncio.Task[Any], interval: float = 1.0) -> AsyncGenerator[Any, None]:
        """Yield each event until ``task`` ends, and then its result.

        Raises:
            MigrateError: the task was cancelled, but not by the reader.
        """
        task.add_done_callback(lambda _: self._events.put_nowait(_ENDED))
        due = self._loop.time() + interval
        while not (task.done() and self._events.empty()):
            # Before the next event: thousands of failures must not delay the progress.
            if self._loop.time() >= due:
                due = self._loop.time() + interval
                counts = self._counts()
                if counts is not None:
                    yield Progress(counts)
            try:
                async with asyncio.timeout_at(due):
                    event = await self._events.get()
            except TimeoutError:
                continue
            if isinstance(event, RowFailed | RowLowered):
                self._room.release()
            if event is not _ENDED:
                yield event
        yield result_of(task)

    def emit(self, event: object) -> None:
        """Add an event."""
        self._events.put_nowait(event)

    def outage(self, error: Exception | None, seconds: float) -> None:
        """Add an outage of the service, or its end."""
        self.emit(Resumed(seconds) if error is None else Waiting(shortened(brief(error)), seconds))

    def store_outage(self, reason: str | None, seconds: float, until: str = "the store is back") -> None:
        """Add a wait for the store, or its end."""
        self.emit(Resumed(seconds) if reason is None else Waiting(reason, seconds, until))

    async def row(self, event: RowFailed | RowLowered) -> None:
        """Add an event of a row; wait while too many are unread."""
        await self._room.acquire()
        self.emit(event)


@contextlib.asynccontextmanager
async def running(run: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run a coroutine as a task that ends with the block."""
    task = asyncio.create_task(run)
    try:
        yield task
    finally:
        task.cancel()
        await outlast(task)
        if not task.cancelled():
            task.exception()  # marked as retrieved: a caller that has left the block will not do it
