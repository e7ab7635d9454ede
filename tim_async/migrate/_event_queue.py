"""The events of a run, from where they happen to the caller who iterates over them."""

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
"""Unread events of rows that are kept; `EventQueue.row` waits when there are more."""
_ENDED = Progress(Counts())
"""Wakes the reader when no events are to come."""


class EventQueue:
    """Events that wait to be read, and the progress every so often.

    Args:
        counts: the rows by state; None while that is not known.
    """

    def __init__(self, counts: Callable[[], Counts | None] = lambda: None) -> None:
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNREAD_EVENTS)

    async def all(self, task: asyncio.Task[Any], interval: float = 1.0) -> AsyncGenerator[Any, None]:
        """Yield each event until ``task`` ends, and then its result.

        Raises:
            MigrateError: the task was cancelled, and not by the reader.
        """
        task.add_done_callback(lambda _: self._events.put_nowait(_ENDED))
        due = self._loop.time() + interval
        while not (task.done() and self._events.empty()):
            # Whatever else happens: thousands of failures must not hide the progress.
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
        """Add an event of a row; wait when very many are unread."""
        await self._room.acquire()
        self.emit(event)


@contextlib.asynccontextmanager
async def running(course: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """A run as a task that ends with the block."""
    task = asyncio.create_task(course)
    try:
        yield task
    finally:
        task.cancel()
        await outlast(task)
        if not task.cancelled():
            task.exception()  # raised already, unless the caller left before it came
