"""The journal as the event loop sees it: changes are gathered and saved together, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from .errors import JournalError
from .journal import Changes, Journal

T = TypeVar("T")

_GATHER = 0.02
"""Seconds for which outcomes are gathered: a save costs a disk's round trip, whatever it holds."""

PATIENCE = 3.0
"""Seconds that a run which is to end waits for a file system that does not respond."""


class Disk:
    """The one thread in which a run reads its rows and writes its journal, in the order it was told to.

    The thread is a daemon: a file system that does not respond keeps nobody from ending the process.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._hurry: asyncio.TimerHandle | None = None
        self._given_up: JournalError | None = None
        self._thread = threading.Thread(
            target=_work_off, args=(self._work, self._loop), name="tim-async-migrate", daemon=True
        )
        self._thread.start()

    async def do(self, work: Callable[..., T], *args: object) -> T:
        """Carry out what blocks.  If the caller is cancelled, the work is still done.

        Raises:
            JournalError: the file system does not respond, and the run is to end.
        """
        if self._given_up is not None:
            raise self._given_up
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._work.put(_Work(future, work, args))
        return await future

    def hurry(self) -> None:
        """Have nobody wait for the thread longer than `PATIENCE` from now on: the run is to end."""
        if self._hurry is None:
            self._hurry = self._loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        if self._waiting:
            self._given_up = JournalError(f"the file system has not responded for {PATIENCE:g} s")
            for future in [*self._waiting]:
                _settle(future, None, self._given_up)

    async def close(self) -> None:
        """Wait for what is under way."""
        try:
            if self._given_up is None:
                await self.do(lambda: None)
        finally:
            self._work.put(None)
            if self._hurry is not None:
                self._hurry.cancel()
        if self._given_up is None:
            self._thread.join()  # it has nothing left to do


class _Work(NamedTuple):
    """What the thread is to do, and who waits for it."""

    future: asyncio.Future[Any]
    do: Callable[..., Any]
    args: tuple[object, ...]


def _work_off(queue: SimpleQueue[_Work | None], loop: asyncio.AbstractEventLoop) -> None:
    """Do what is in the queue until there is a None; nothing that is raised ends the thread or is lost."""
    while (work := queue.get()) is not None:
        value, error = None, None
        try:
            value = work.do(*work.args)
        except BaseException as raised:  # noqa: BLE001 - whoever waits for it gets it
            error = raised
        if isinstance(error, StopIteration) or not isinstance(error, Exception | None):
            # A future refuses the first, and the others would end the event loop.
            error = RuntimeError(f"{error!r} in the thread of the migration")
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(_settle, work.future, value, error)
        del work, value, error


def _settle(future: asyncio.Future[Any], value: object, error: Exception | None) -> None:
    """Wake whoever waits, unless that one was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # seen: a caller that is cancelled meanwhile will not look


class Ledger:
    """Saves changes of rows; whoever brings one waits until it is durable.

    Args:
        journal: where to.
        disk: the thread that the journal belongs to.
        enough: changes that are saved without waiting for more.
    """

    def __init__(self, journal: Journal, disk: Disk, enough: int) -> None:
        self._journal = journal
        self._disk = disk
        self._enough = enough
        self._changes = Changes()
        self._waiters: list[asyncio.Future[None]] = []
        self._saving: list[asyncio.Future[None]] = []
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._closing = False
        self._broken: JournalError | None = None
        self._writer = asyncio.get_running_loop().create_task(self._write())
        self._writer.add_done_callback(self._ended)

    async def sending(self, lines: list[int], at: int) -> None:
        """Rows are about to be handed to the client, at a unix time in seconds."""
        self._changes.sending += lines
        self._changes.at = at
        self._many.set()
        await self._saved()

    async def unsent(self, lines: list[int]) -> None:
        """Rows were not handed over after all."""
        self._changes.pending += lines
        await self._saved()

    async def done(self, line: int) -> None:
        """A row was taken."""
        self._changes.done.append(line)
        await self._saved()

    async def lowered(self, line: int, messages: int) -> None:
        """A row was taken, with a number above the group's messages."""
        self._changes.lowered.append((messages, line))
        await self._saved()

    async def failed(self, line: int, code: int | None, reason: str) -> None:
        """A row was refused."""
        self._changes.failed.append((line, code, reason))
        await self._saved()

    async def close(self) -> None:
        """Save what is left.

        Raises:
            JournalError: it could not be.
        """
        self._closing = True
        self._some.set()
        self._many.set()
        try:
            await asyncio.wait([self._writer])
        except asyncio.CancelledError:
            self._writer.cancel()
            raise
        if self._broken is not None and (self._writer.cancelled() or self._writer.exception() is not None):
            raise self._broken

    async def _saved(self) -> None:
        if self._broken is not None:
            raise self._broken
        # One for each: what the cancelled caller of a shared one would cancel is everybody's.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._some.set()
        if len(self._waiters) >= self._enough:
            self._many.set()
        await waiter

    async def _write(self) -> None:
        closing = False
        while not closing:
            await self._some.wait()
            await self._gather()
            closing = self._closing
            changes, self._changes = self._changes, Changes()
            self._saving, self._waiters = self._waiters, []
            self._some.clear()
            self._many.clear()
            if self._saving:
                await self._disk.do(self._journal.save, changes)
            for waiter in self._saving:
                _settle(waiter, None, None)

    def _ended(self, writer: asyncio.Task[None]) -> None:
        """Wake all who wait: nothing is saved any more, whatever has ended the writer."""
        error = None if writer.cancelled() else writer.exception()
        if isinstance(error, JournalError):
            broken = error
        elif error is not None:
            broken = JournalError(f"the journal can no longer be written: {type(error).__name__}: {error}")
            broken.__cause__ = error
        elif writer.cancelled():
            broken = JournalError("the journal can no longer be written: its writer was cancelled")
        else:
            broken = JournalError("the journal is closed")
        self._broken = broken
        for waiter in (*self._saving, *self._waiters):
            _settle(waiter, None, broken)

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER):
                await self._many.wait()
