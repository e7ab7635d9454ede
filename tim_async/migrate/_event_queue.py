"""The queue between a run and the caller that iterates over its events; the events of a wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from ._supervision import outlast, result_of
from .events import Counts, Progress, Resumed, RowFailed, RowLowered, Waiting

T = TypeVar("T")

_UNREAD_EVENTS = 1000
"""Unread events of rows at most; `EventQueue.row` waits when there are more."""
_ENDED = Progress(Counts())
"""Wakes the reader when the run has ended."""


class EventQueue:
    """The unread events, with a `Progress` at regular intervals.

    Attributes:
        counts: the rows by state; None while unknown.
    """

    def __init__(self) -> None:
        self.counts: Counts | None = None
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
                if self.counts is not None:
                    yield Progress(self.counts)
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

    async def row(self, event: RowFailed | RowLowered) -> None:
        """Add an event of a row; wait while too many are unread."""
        await self._room.acquire()
        self.emit(event)


class Wait:
    """A wait of a run, for which it emits events.

    Args:
        emit: called with a `Waiting` at each report, and with a `Resumed` at the end.

    Attributes:
        since: when the wait began, by the event loop's clock; None when there is none.
    """

    def __init__(self, emit: Callable[[Waiting | Resumed], None]) -> None:
        self._emit = emit
        self.since: float | None = None

    def report(self, reason: str, until: str, since: float | None = None) -> float:
        """Report that the run waits; the first report begins the wait.

        Args:
            reason: the latest error, or the rows that are waited for.
            until: the event that ends the wait.
            since: when the wait began, if that was before its first report.

        Returns:
            The seconds so far.
        """
        now = asyncio.get_running_loop().time()
        if self.since is None:
            self.since = now if since is None else since
        self._emit(Waiting(reason, now - self.since, until))
        return now - self.since

    def end(self) -> None:
        """Report the end of the wait, if there is one."""
        if self.since is not None:
            seconds, self.since = asyncio.get_running_loop().time() - self.since, None
            self._emit(Resumed(seconds))


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
