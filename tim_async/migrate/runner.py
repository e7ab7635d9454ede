"""A run: rows from the source, through the client, into the journal.

First all rows are read into the journal, in which those that a later row supersedes are found: only the last row of
each member is sent at all, so that neither order nor retries can leave another's value behind.  Then `sending` sends
what is unsettled.  Whatever reads or writes a file does so in one thread beside the event loop, see `Disk`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tim_async import _arguments
from tim_async._lanes import LANE, Lane

from ._recorder import Recorder
from ._rows import Rejected, Row
from ._sources import Source
from .errors import MigrateError, SourceError
from .events import Counts, Ended, Event, Finished, Reading, Started
from .groups import Groups
from .journal import Journal
from .ledger import Disk, Ledger
from .outage import OutageTooLong, Patience, Stopped
from ._rows import Rejected, Row
from ._recorder import Recorder
from .schema import About
from .sending import Outgoing, Sender, Tally
from .supervision import beside
from .telling import Telling, running

if TYPE_CHECKING:
    from tim_async.client import TIMClient

DEFAULT_CONCURRENCY = 100
"""Rows under way at once: enough for 200 a second at a round trip of a third of a second."""

_WINDOW = 256
"""Rows that are read, and whose groups are looked up, together."""
_SAVE_EVERY = 10.0
"""Seconds between two saves of how the run goes."""


async def run(
    client: TIMClient,
    source: Source,
    journal: str | Path,
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    group_check: bool = True,
    max_errors: int | None = None,
    max_outage: float | None = None,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    interval: float = 1.0,
) -> AsyncGenerator[Event, None]:
    """Carry all rows of a source over, or go on with it.

    ::

        async with contextlib.aclosing(migrate.run(tim, source, "export.csv.journal")) as events:
            async for event in events:
                ...

    The calls are bulk: interactive ones of the same client go first.  Whatever ends a run, the same call goes on where
    it was.  Leaving the loop stops it at once; setting ``stop`` lets what is under way finish first.

    Args:
        client: carries the calls out, at the rate it was made with.
        source: the rows, such as a `FileSource`.
        journal: the file that remembers what has become of each row; made if there is none.
        concurrency: rows under way at once, at least 1.
        group_check: look each group up before its first row is sent, and fail the rows of groups that would ignore
            them; of use where the rows are unread counts in groups.
        max_errors: stop when more rows than this have failed or been rejected; None for no such limit.
        max_outage: stop when the service has taken nothing for so many seconds; None to wait as long as it takes.
        stop: set it to end the run early.
        recorder: what watches the attempts of ``client``; its series is kept in the journal, for the report.
        interval: seconds between two `Progress` events.

    Yields:
        `Reading` while the rows are read for the first time; `Started`; then `RowFailed`, `RowLowered`, `Waiting`,
        `Resumed` and `Progress` as they come; `Finished` as the last.  What is not read holds the run up.

    Raises:
        ValueError, TypeError: an argument that cannot be right.
        SourceError: the rows cannot be read, or change while they are sent.
        JournalError: the journal is of something else, in use, or cannot be written.
        MigrateError: a part of the run failed, or was cancelled, otherwise.
        AuthError, PermissionDenied: the service refuses the account as a whole; no row was marked failed for it.
        InvalidRequest: groups cannot be looked up at all, so that ``group_check`` has to be turned off.
    """
    _arguments.positive("concurrency", _arguments.number("concurrency", concurrency))
    _arguments.positive("interval", interval)
    if max_errors is not None:
        _arguments.number("max_errors", max_errors)
    if max_outage is not None:
        _arguments.positive("max_outage", max_outage)
    checks_groups = group_check and source.kind.groups
    this = _Run(client, source, Path(journal), concurrency, checks_groups, max_errors, max_outage, stop, recorder)
    async with running(this.carry_out()) as task:
        try:
            async for event in this.telling.all(task, interval):
                yield event
        finally:
            this.hurry()


class _Run:
    def __init__(
        self,
        client: TIMClient,
        source: Source,
        path: Path,
        concurrency: int,
        checks_groups: bool,
        max_errors: int | None,
        max_outage: float | None,
        stop: asyncio.Event | None,
        recorder: Recorder | None,
    ) -> None:
        self._client = client
        self._source = source
        self._path = path
        self._concurrency = concurrency
        self._checks_groups = checks_groups
        self._max_errors = math.inf if max_errors is None else max_errors
        self._users_stop = asyncio.Event() if stop is None else stop
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self.telling = Telling(lambda: None if self._tally is None else self._tally.counts)
        self._disk = Disk()
        self._journal: Journal | None = None
        self._rows: Iterator[Row | Rejected] = iter(())
        self._after = 0
        # This run's own, so that a limit can end it too.
        self._stop = asyncio.Event()
        self._limit = ""
        self._patience = Patience(self._stop, math.inf if max_outage is None else max_outage, self.telling.outage)
        self._tally: Tally | None = None

    # The course of a run

    async def carry_out(self) -> Finished:
        """All of it, from the first look at the file to the closed journal."""
        LANE.set(Lane.BULK)
        try:
            return await beside(self._with_journal(), self._heed())
        finally:
            try:
                await self._disk.do(self._close)
            finally:
                await self._disk.close()

    def hurry(self) -> None:
        """Have it end soon, also if files cannot be read or written any more."""
        self._disk.hurry()

    async def _heed(self) -> None:
        await self._users_stop.wait()
        self._stop.set()

    async def _with_journal(self) -> Finished:
        resumed = await self._disk.do(self._open)
        journal = self._the_journal()
        if not resumed:
            try:
                await self._plan(journal)
            except Stopped:
                return Finished(Counts(), Ended.INTERRUPTED)
        tally = self._tally = Tally(await self._disk.do(journal.counts), self._max_errors)
        self.telling.emit(Started(tally.counts, resumed))
        if tally.too_many_errors:
            return await self._finished(tally, Ended.LIMIT)
        if not tally.counts.left:
            return await self._finished(tally, Ended.NOTHING_TO_DO if resumed else Ended.DONE)
        await self._disk.do(journal.begin_session, time.time())
        how = "failed"
        try:
            await self._send(tally)
            self._check_recorder()
            limited = self._limit or tally.too_many_errors
            ended = Ended.LIMIT if limited else Ended.INTERRUPTED if tally.counts.left else Ended.DONE
            how = ended.name.lower()
            return await self._finished(tally, ended)
        finally:
            await self._disk.do(journal.save_session, self._series(), time.time(), how)

    async def _plan(self, journal: Journal) -> None:
        """Read all rows into the journal; of a journal that does not get so far nothing is left."""
        try:
            planning = await self._disk.do(lambda: journal.plan(self._source.read()))
            while (taken := await self._disk.do(next, planning, None)) is not None:
                self.telling.emit(Reading(taken))
                if self._stop.is_set():
                    raise Stopped
        except BaseException:
            self._journal = None
            await self._disk.do(journal.discard)
            raise

    async def _finished(self, tally: Tally, ended: Ended) -> Finished:
        failures: Counter[int | None] = Counter()
        for failure in await self._disk.do(self._the_journal().failures):
            failures[failure.code] += failure.rows
        return Finished(tally.counts, ended, dict(failures), self._limit or tally.too_many_errors)

    async def _send(self, tally: Tally) -> None:
        self._rows = await self._disk.do(self._source.read)
        ledger = Ledger(self._the_journal(), self._disk, max(1, self._concurrency // 2))
        sender = Sender(
            self._client,
            self._source.kind,
            self._concurrency,
            take=lambda: self._disk.do(self._take),
            groups=Groups(self._client, self._patience) if self._checks_groups else None,
            ledger=ledger,
            tally=tally,
            patience=self._patience,
            stop=self._stop,
            tell=self.telling.row,
        )
        try:
            await beside(sender.send_all(), self._keep_series())
        except OutageTooLong as error:
            self._limit = str(error)
        finally:
            await ledger.close()

    # In the disk's thread

    def _the_journal(self) -> Journal:
        assert self._journal is not None
        return self._journal

    def _open(self) -> bool:
        """Open the journal; whether it knows the rows already."""
        about = About(
            self._source.kind.name,
            self._source.name,
            self._source.fingerprint(),
            dict(self._source.arguments),
            self._client.sdk_app_id,
            self._client.base_url,
        )
        self._journal = Journal(self._path, about)
        return self._journal.planned

    def _take(self) -> list[Outgoing]:
        """The next rows that are to be sent."""
        taken = []
        for unsettled in self._the_journal().unsettled(self._after, _WINDOW):
            row = next((row for row in self._rows if row.line >= unsettled.line), None)
            if not isinstance(row, Row) or row.line != unsettled.line or row.identity != unsettled.identity:
                raise SourceError(f"{self._source.name} has changed while its rows were sent")
            taken.append(Outgoing(row, unsettled.since))
            self._after = unsettled.line
        return taken

    def _close(self) -> None:
        if isinstance(self._rows, Generator):
            self._rows.close()
        if self._journal is not None:
            self._journal.close()

    # How it goes

    def _series(self) -> str:
        return "" if self._recorder is None else self._recorder.series.to_json()

    def _check_recorder(self) -> None:
        error = None if self._recorder is None else self._recorder.failure
        if error is not None:
            raise MigrateError(f"the calls can no longer be counted: {type(error).__name__}: {error}") from error

    async def _keep_series(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            self._check_recorder()
            await self._disk.do(self._the_journal().save_session, self._series())
