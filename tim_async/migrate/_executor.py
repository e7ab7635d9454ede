"""A thread for blocking calls, made in order, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from .errors import JournalError

T = TypeVar("T")

GRACE = 3.0
"""Seconds for which a run that is to end waits for an unresponsive file system."""


class SerialExecutor:
    """Runs blocking functions one after the other, in its own thread, from the first call to `close`.

    The thread is a daemon, so that an unresponsive file system does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._jobs: SimpleQueue[_QueuedCall | None]
        self._waiting: set[asyncio.Future[Any]] = set()
        self._timeout: float | None = None
        self._given_up: JournalError | None = None

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call a function in the thread.  If the caller is cancelled, the function is still called.

        Raises:
            JournalError: the file system is unresponsive, and the run is to end.
        """
        if self._given_up is not None:
            raise self._given_up
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._jobs = SimpleQueue()
            thread = threading.Thread(target=_run_jobs, args=(self._jobs, loop), name="tim-async-migrate", daemon=True)
            thread.start()
            self._thread = thread
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if self._timeout is not None:
            self._time_out(future, self._timeout)
        self._jobs.put(_QueuedCall(future, function, args))
        return await future

    def hurry(self, seconds: float = GRACE) -> None:
        """From now on, wait for each call this many seconds at most: the run is to end."""
        if self._timeout is None or seconds < self._timeout:
            self._timeout = seconds
            for future in self._waiting:
                self._time_out(future, seconds)

    def _time_out(self, future: asyncio.Future[Any], seconds: float) -> None:
        timer = future.get_loop().call_later(seconds, self._give_up, future, seconds)
        future.add_done_callback(lambda _: timer.cancel())

    def _give_up(self, late: asyncio.Future[Any], seconds: float) -> None:
        if not late.done():
            self._given_up = JournalError(f"the file system has not responded for {seconds:g} s")
            for future in [*self._waiting]:
                _settle(future, None, self._given_up)

    async def close(self) -> None:
        """Wait for all calls, and end the thread; leave it behind if it was given up.  A later call starts another."""
        try:
            if self._thread is not None and self._given_up is None:
                with contextlib.suppress(JournalError):
                    await self.run(lambda: None)
        finally:
            thread, left_behind = self._thread, self._given_up is not None
            self._thread = self._timeout = self._given_up = None
            if thread is not None:
                self._jobs.put(None)
        if thread is not None and not left_behind:
            thread.join()  # it ends at once: its queue is empty


class _QueuedCall(NamedTuple):
    """A call for the thread, and the future for its result."""

    future: asyncio.Future[Any]
    function: Callable[..., Any]
    args: tuple[object, ...]


def _run_jobs(jobs: SimpleQueue[_QueuedCall | None], loop: asyncio.AbstractEventLoop) -> None:
    """Run the jobs until there is a None; every exception goes to its caller, and none ends the thread."""
    while (job := jobs.get()) is not None:
        value, error = None, None
        try:
            value = job.function(*job.args)
        except BaseException as raised:  # noqa: BLE001 - the waiting caller gets it
            error = raised
        if isinstance(error, StopIteration) or not isinstance(error, Exception | None):
            # A future refuses StopIteration, and other BaseExceptions would end the event loop.
            error = RuntimeError(f"{error!r} in the thread of the migration")
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller waits
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
        future.exception()  # marked as retrieved: a caller that is cancelled meanwhile will not do it
