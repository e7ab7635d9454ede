"""What a run tells while it goes on: events that wait to be read, and how far it is every so often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from tim_async.errors import TIMError

from .events import Counts, Progress, Resumed, RowFailed, RowLowered, Waiting
from .journal import shortened
from .supervision import result_of

T = TypeVar("T")

_UNREAD_EVENTS = 1000
"""Failures that wait to be read before those after them wait too."""
_ENDED = Progress(Counts())
"""Wakes whoever waits for an event when there are none to come."""


class Telling:
    """The events of a run, from where they happen to whoever reads them.

    Args:
        counts: the rows by state; None while that is not known.
    """

    def __init__(self, counts: Callable[[], Counts | None] = lambda: None) -> None:
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNREAD_EVENTS)

    async def all(self, task: asyncio.Task[Any], interval: float = 1.0) -> AsyncGenerator[Any, None]:
        """Everything that happens until ``task`` ends, and how it ends.

        Raises:
            MigrateError: the task was cancelled, and not by whoever reads this.
        """
        task.add_done_callback(lambda _: self._events.put_nowait(_ENDED))
        due = self._loop.time() + interval
        while not (task.done() and self._events.empty()):
            # Whatever else happens: thousands of failures must not hide how far it is.
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
        """Tell something."""
        self._events.put_nowait(event)

    def outage(self, error: TIMError | None, seconds: float) -> None:
        """Tell of an outage of the service, or of its end."""
        self.emit(Resumed(seconds) if error is None else Waiting(shortened(str(error)), seconds))

    async def row(self, event: RowFailed | RowLowered) -> None:
        """Tell of a row; this waits when very many are unread."""
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
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # raised already, unless the caller left before it came
