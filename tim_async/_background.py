"""Timers and background tasks that behave alike on any event loop.

Event loops differ, and any code may touch any task:

* the handle of a timer may not tell its time (uvloop returns a plain handle for a timer that is due at once);
* a task may run to its end before ``create_task`` returns (`asyncio.eager_task_factory`);
* any code may cancel any task (`asyncio.all_tasks`), even before its first step, when none of its ``finally`` runs;
* a task that is cancelled may continue for as long as a library swallows the cancellation.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any


class Timer:
    """Calls a function once, at a time that can be read and moved; made inside a running event loop.

    Args:
        call: the function.

    Attributes:
        due: loop time of the call, seconds; infinity when none is set.
    """

    __slots__ = ("_call", "_handle", "_loop", "due")

    def __init__(self, call: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._handle: asyncio.Handle | None = None
        self.due = math.inf

    def set(self, due: float) -> None:
        """Set the loop time of the call, in place of an earlier one."""
        if self._handle is not None:
            self._handle.cancel()
        self.due = due
        self._handle = self._loop.call_at(due, self._fire)

    def cancel(self) -> None:
        """Cancel the call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self.due = math.inf

    def _fire(self) -> None:
        self._handle = None
        self.due = math.inf
        self._call()


class Background:
    """At most one background task at a time, whose end is noticed without waiting for it.

    Made inside a running event loop.

    Args:
        work: makes the coroutine to run.
        failed: called with the exception of a run that ended with one, `asyncio.CancelledError` included; not for a
            run that was abandoned.
    """

    __slots__ = ("_abandoned", "_failed", "_loop", "_task", "_work")

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, None]], failed: Callable[[BaseException], object]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether a run has started and not ended."""
        return self._task is not None and not self._task.done()

    def is_current(self) -> bool:
        """Whether the calling task is the current run, and not one that was abandoned."""
        return asyncio.current_task(self._loop) is self._task

    def start(self) -> None:
        """Start a run, unless one is under way.  It begins with the next iteration of the event loop."""
        if self.running:
            return
        # Not by the loop's task factory: an eager task would begin in the middle of what its starter does.
        self._task = asyncio.Task(self._work(), loop=self._loop)
        # Also called for a task that was cancelled before its first step.
        self._task.add_done_callback(self._ended)

    def abandon(self) -> None:
        """Cancel the run, and leave it to end at some time: the next one can start at once."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            self._abandoned.add(task)
            task.cancel()

    async def finish(self, within: float) -> bool:
        """Wait for the end of the run, and abandon it when it takes longer, or when this wait is cancelled.

        Args:
            within: seconds, at least 0.

        Returns:
            Whether it ended in time.
        """
        task = self._task
        if task is None:
            return True
        try:
            # It returns in time even when the task swallows a cancellation, as `asyncio.wait_for` would not.
            await asyncio.wait([task], timeout=within)
        finally:
            ended = task.done()
            if not ended:
                self.abandon()
        return ended

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if task in self._abandoned:
            self._abandoned.remove(task)
        elif error is not None:
            self._failed(error)
