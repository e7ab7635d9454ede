"""The journal as the event loop sees it: changes are gathered and saved together, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .errors import JournalError
from .journal import Changes, Journal

T = TypeVar("T")

_GATHER = 0.02
"""Seconds for which outcomes are gathered: a save costs a disk's round trip, whatever it holds."""


class Disk:
    """The one thread in which a run reads its rows and writes its journal, in the order it was told to."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "tim-async-migrate")

    async def do(self, work: Callable[..., T], *args: object) -> T:
        """Carry out what blocks.  If the caller is cancelled, the work is still done."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self.do(lambda: None)
        self._thread.shutdown()


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
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._closing = False
        self._broken: JournalError | None = None
        self._writer = asyncio.get_running_loop().create_task(self._write())

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
        await self._writer

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
            waiters, self._waiters = self._waiters, []
            self._some.clear()
            self._many.clear()
            try:
                if waiters:
                    await self._disk.do(self._journal.save, changes)
            except JournalError as error:
                self._broken = error
                for waiter in (*waiters, *self._waiters):
                    if not waiter.done():
                        waiter.set_exception(error)
                        waiter.exception()  # seen: a caller that was cancelled meanwhile will not look
                raise
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER):
                await self._many.wait()
