"""The store in one file: the journal, an SQLite database.

A run locks it by a file beside it, and writes it in a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from . import _journal
from ._executor import SerialExecutor
from ._journal_writer import Writer
from ._rows import Rejected, Row
from ._store import About, Calls, Exchange, Mended, Outcome, Pace, Problem, Status
from .errors import JournalInUse
from .events import Counts

_WINDOW = 1000
"""Failed and rejected rows read at once."""


class SqliteStore:
    """Keeps a migration in a file; see `Store` for its methods.

    Args:
        path: the journal; created if it does not exist, readable by its owner only.

    Attributes:
        name: the path.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.name: str = str(path)
        self._executor = SerialExecutor()
        self._writer = Writer(self._path)

    def hurry(self) -> None:
        """See `Store.hurry`."""
        self._executor.hurry()

    async def open(self, about: About, *, restart: bool = False) -> About | None:
        """See `Store.open`."""
        if self._writer.is_open:
            raise JournalInUse(f"another run uses this store of {self.name}")
        try:
            return await self._executor.run(self._writer.open, about, restart)
        except Exception:
            await self.close()
            raise

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """See `Store.plan`."""
        await self._executor.run(self._writer.plan, rows)

    async def planned(self, fingerprint: str) -> None:
        """See `Store.planned`."""
        await self._executor.run(self._writer.finish_plan, fingerprint)

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """See `Store.mend`."""
        return await self._executor.run(self._writer.mend, rows)

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """See `Store.exchange`."""
        return await self._executor.run(self._writer.exchange, outcomes, room, calls)

    async def counts(self) -> Counts:
        """See `Store.counts`."""
        return self._writer.counts

    async def release(self, lines: Sequence[int]) -> None:
        """See `Store.release`."""
        await self._executor.run(self._writer.release, lines)

    async def save_series(self, series: str) -> None:
        """See `Store.save_series`."""
        await self._executor.run(self._writer.save_session, "series = ?", series)

    async def keep(self) -> None:
        """See `Store.keep`: the lock needs no renewal."""
        await asyncio.Event().wait()

    async def status(self) -> Status:
        """See `Store.status`."""
        return await self._executor.run(_journal.read_status, self._path)

    async def problems(self) -> AsyncIterator[Problem]:
        """See `Store.problems`."""
        after = 0
        while found := await self._executor.run(_journal.read_problems, self._path, after, _WINDOW):
            for problem in found:
                yield problem
            after = found[-1].line

    async def accepted(self, after: int, most: int) -> AsyncIterator[Row]:
        """See `Store.accepted`."""
        for row in await self._executor.run(_journal.read_accepted, self._path, after, most):
            yield row

    async def set_pace(self, pace: Pace) -> None:
        """See `Store.set_pace`."""
        await self._executor.run(_journal.keep_pace, self._path, pace)

    async def note(self, name: str, value: str | None = None) -> str:
        """See `Store.note`."""
        return await self._executor.run(_journal.keep_note, self._path, name, value)

    async def close(self, how: str = "") -> None:
        """See `Store.close`.  A journal whose rows were never planned is removed."""
        try:
            await self._executor.run(self._writer.close, how)
        finally:
            await self._executor.close()
