"""One thread for work that blocks, in the order it was given, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from .errors import JournalError

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that a run which is to end waits for a file system that does not respond."""


class SerialExecutor:
    """Runs blocking functions one after the other, in a thread of its own.

    The thread is a daemon: a file system that does not respond keeps nobody from ending the process.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._seconds: float | None = None
        self._given_up: JournalError | None = None
        self._thread = threading.Thread(
            target=_work_off, args=(self._jobs, self._loop), name="tim-async-migrate", daemon=True
        )
        self._thread.start()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call a function in the thread.  If the caller is cancelled, the function is still called.

        Raises:
            JournalError: the file system does not respond, and the run is to end.
        """
        if self._given_up is not None:
            raise self._given_up
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if self._seconds is not None:
            self._bound(future, self._seconds)
        self._jobs.put(_Job(future, function, args))
        return await future

    def hurry(self, seconds: float = PATIENCE) -> None:
        """From now on, wait for each call at most so many seconds: the run is to end."""
        if self._seconds is None or seconds < self._seconds:
            self._seconds = seconds
            for future in self._waiting:
                self._bound(future, seconds)

    def _bound(self, future: asyncio.Future[Any], seconds: float) -> None:
        timer = self._loop.call_later(seconds, self._give_up, future, seconds)
        future.add_done_callback(lambda _: timer.cancel())

    def _give_up(self, late: asyncio.Future[Any], seconds: float) -> None:
        if not late.done():
            self._given_up = JournalError(f"the file system has not responded for {seconds:g} s")
            for future in [*self._waiting]:
                _settle(future, None, self._given_up)

    async def close(self) -> None:
        """Wait for what is under way, and end the thread; leave it if it is given up."""
        try:
            if self._given_up is None:
                with contextlib.suppress(JournalError):
                    await self.run(lambda: None)
        finally:
            self._jobs.put(None)
        if self._given_up is None:
            self._thread.join()  # it has nothing left to do


class _Job(NamedTuple):
    """A call for the thread, and the future that gets its result."""

    future: asyncio.Future[Any]
    function: Callable[..., Any]
    args: tuple[object, ...]


def _work_off(jobs: SimpleQueue[_Job | None], loop: asyncio.AbstractEventLoop) -> None:
    """Do the jobs until there is a None; nothing that is raised ends the thread or is lost."""
    while (job := jobs.get()) is not None:
        value, error = None, None
        try:
            value = job.function(*job.args)
        except BaseException as raised:  # noqa: BLE001 - the waiting caller gets it
            error = raised
        if isinstance(error, StopIteration) or not isinstance(error, Exception | None):
            # A future refuses the first, and the others would end the event loop.
            error = RuntimeError(f"{error!r} in the thread of the migration")
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(_settle, job.future, value, error)
        del job, value, error


def _settle(future: asyncio.Future[Any], value: object, error: Exception | None) -> None:
    """Wake the caller, unless it was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # seen: a caller that is cancelled meanwhile will not look
