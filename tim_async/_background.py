"""Timers and background tasks that behave alike on any event loop.

Event loops differ, and any code may touch any task:

* a timer's handle may not know its time (uvloop returns a plain handle for a timer that is due at once);
* a task may end before ``create_task`` returns (`asyncio.eager_task_factory`);
* any code may cancel any task (`asyncio.all_tasks`), even before its first step, so that none of its ``finally`` runs;
* a cancelled task continues as long as a library swallows the cancellation.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any


class Timer:
    """A timer that calls a function once, at a time that can be read and moved; created in a running event loop.

    Args:
        call: the function to call.

    Attributes:
        due: loop time of the call, seconds; infinity if none is set.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._handle: asyncio.Handle | None = None
        self.due = math.inf

    def set(self, due: float) -> None:
        """Set the loop time of the call, replacing an earlier one."""
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
    """A background task, at most one run at a time, whose failure is reported by a callback.

    Created in a running event loop.

    Args:
        work: creates the coroutine to run.
        failed: called with the exception of a run that ended with one, `asyncio.CancelledError` included; not for a
            run that was abandoned.
    """

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
        """Start a run, unless one is under way.  It begins in the next iteration of the event loop."""
        if self.running:
            return
        # Not with the loop's task factory: an eager task would run before this method returns.
        self._task = asyncio.Task(self._work(), loop=self._loop)
        # Called even for a task that is cancelled before its first step.
        self._task.add_done_callback(self._ended)

    def abandon(self) -> None:
        """Cancel the run without waiting for its end: the next one can start at once."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            self._abandoned.add(task)
            task.cancel()

    async def finish(self, within: float) -> bool:
        """Wait for the end of the run; abandon it if it takes longer, or if this wait is cancelled.

        Args:
            within: seconds, at least 0.

        Returns:
            Whether it ended in time.
        """
        task = self._task
        if task is None:
            return True
        try:
            # Unlike `asyncio.wait_for`, this returns in time even if the task swallows a cancellation.
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
