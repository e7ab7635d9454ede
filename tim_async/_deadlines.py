"""Time-outs of attempts that share one timer.

`asyncio.timeout` creates and cancels a timer for each use, which costs 3 to 7 % of a whole call's CPU.  Attempts with
equal time-outs expire in the order of their starts, so one timer, for the first of them, is enough.

Otherwise a time-out works as asyncio's: it cancels the task, and compares `asyncio.Task.cancelling`, so that any other
cancellation before the task resumes takes precedence.  It is stricter in one respect: a cancellation that a library
swallows, or turns into an error, is not lost (`cancel_again`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NoReturn


class Deadline:
    """The time-out of one attempt: created by `Deadlines.start`, ended by `Deadlines.finish`.

    Attributes:
        when: the loop time at which the time-out expires.
        expired: whether it has cancelled the task.
    """

    __slots__ = ("_cancelling", "_task", "expired", "when")

    def __init__(self, when: float, task: asyncio.Task[object]) -> None:
        self.when = when
        self.expired = False
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()

    def overruled(self) -> bool:
        """Whether anything other than this time-out has cancelled the task since the start."""
        return self._task is not None and self._task.cancelling() - self.expired > self._cancelling

    def swallowed(self) -> bool:
        """Whether the task was cancelled since the start: if the attempt still runs, the cancellation was swallowed."""
        return self._task is not None and self._task.cancelling() > self._cancelling

    def _expire(self) -> None:
        if self._task is not None:
            self.expired = True
            self._task.cancel()

    def _finish(self) -> None:
        if self.expired and self._task is not None:
            self._task.uncancel()
        self._task = None


async def cancel_again() -> NoReturn:
    """Raise a cancellation again that a library swallowed or turned into an error.

    Raises:
        asyncio.CancelledError: always.
    """
    # A scope that cancels repeatedly, as anyio's, raises its own CancelledError here, which it recognises.
    await asyncio.sleep(0)
    raise asyncio.CancelledError


class Deadlines:
    """The time-outs of one client, in one event loop.

    Args:
        loop: the running event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Those of equal length, in the order of their starts; each queue has one timer.
        self._queues: dict[float, deque[Deadline]] = {}

    def start(self, seconds: float) -> Deadline:
        """Start a time-out of the current task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call needs a task: await it in one, or pass it to asyncio.create_task()")
        deadline = Deadline(self._loop.time() + seconds, task)
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = deque()
            self._loop.call_at(deadline.when, self._tick, seconds)
        queue.append(deadline)
        return deadline

    def finish(self, seconds: float, deadline: Deadline) -> None:
        """End a time-out."""
        deadline._finish()  # noqa: SLF001 - two halves of one
        queue = self._queues.get(seconds)
        while queue and queue[0]._task is None:  # noqa: SLF001
            queue.popleft()

    def _tick(self, seconds: float) -> None:
        queue = self._queues[seconds]
        now = self._loop.time()
        while queue and queue[0].when <= now:
            queue.popleft()._expire()  # noqa: SLF001
        if queue:
            self._loop.call_at(queue[0].when, self._tick, seconds)
        else:
            del self._queues[seconds]
