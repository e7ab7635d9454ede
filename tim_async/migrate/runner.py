"""A run: rows from the source, through the client, into the journal.

::

    feeder:  unsettled rows of the journal → their groups looked up → `sending` saved → queue
    workers: queue → one call, however long the service is away → outcome saved

A row keeps its place among ``concurrency`` until its outcome is durable, so that a process that is killed leaves no
more rows of unknown fate than that.  And only the last row of each member is sent at all, so that neither order nor
retries can leave another's value behind.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tim_async import arguments
from tim_async.errors import APIError, AuthError, ClientClosed, TIMError
from tim_async.pacing import LANE, Lane

from .errors import SourceError
from .events import Counts, Ended, Event, Finished, Progress, Reading, Resumed, RowFailed, RowLowered, Started, Waiting
from .groups import Groups
from .journal import Journal
from .ledger import Disk, Ledger
from .outage import OutageTooLong, Patience, Stopped, passes
from .recorder import Recorder
from .rows import Rejected, Row
from .schema import About
from .sources import Source

if TYPE_CHECKING:
    from tim_async.client import TIMClient

DEFAULT_CONCURRENCY = 100
"""Rows under way at once: enough for 200 a second at a round trip of a third of a second."""

_WINDOW = 256
"""Rows that are read, and whose groups are looked up, together."""
_UNREAD_EVENTS = 1000
"""Failures that wait to be read before those after them wait too."""
_SAVE_EVERY = 5.0
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
        SourceError: the rows cannot be read; nothing was sent.
        JournalError: the journal is of something else, in use, or cannot be written.
        AuthError, PermissionDenied: the service refuses the account as a whole; no row was marked failed for it.
    """
    arguments.positive("concurrency", arguments.number("concurrency", concurrency))
    arguments.positive("interval", interval)
    if max_errors is not None:
        arguments.number("max_errors", max_errors)
    if max_outage is not None:
        arguments.positive("max_outage", max_outage)
    this = _Run(client, source, Path(journal), concurrency, max_errors, max_outage, stop, recorder)
    this.checks_groups = group_check and source.kind.groups
    task = asyncio.create_task(this.carry_out())
    try:
        async for event in this.events(task, interval):
            yield event
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # raised already, unless the caller left before it came


@dataclass(slots=True)
class _Sending:
    """A row on its way."""

    row: Row
    since: int | None
    """When an earlier run handed it over, unix seconds; None if none did."""
    messages: int | None = None
    """How many its group holds; None when that is not known."""
    begun: bool = False
    """Whether this run has handed it to the client."""


class _Run:
    def __init__(
        self,
        client: TIMClient,
        source: Source,
        path: Path,
        concurrency: int,
        max_errors: int | None,
        max_outage: float | None,
        stop: asyncio.Event | None,
        recorder: Recorder | None,
    ) -> None:
        self.checks_groups = False
        self._client = client
        self._source = source
        self._path = path
        self._concurrency = concurrency
        self._max_errors = math.inf if max_errors is None else max_errors
        self._users_stop = asyncio.Event() if stop is None else stop
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNREAD_EVENTS)
        self._disk = Disk()
        self._journal: Journal | None = None
        self._abandoned = threading.Event()
        self._rows: Iterator[Row | Rejected] = iter(())
        self._after = 0
        # This run's own, so that a limit can end it too.
        self._stop = asyncio.Event()
        self._limit = ""
        self._patience = Patience(self._stop, math.inf if max_outage is None else max_outage, self._tell)
        self._groups = Groups(client, self._patience)
        self._queue: asyncio.Queue[_Sending | None] = asyncio.Queue(concurrency)
        self._slots = asyncio.Semaphore(concurrency)
        self._tally: Counter[str] = Counter()
        self._unsent: list[int] = []

    # What the caller sees

    async def events(self, task: asyncio.Task[Finished], interval: float) -> AsyncGenerator[Event, None]:
        """Everything that happens until ``task`` ends, and how it ends."""
        task.add_done_callback(lambda _: self._events.put_nowait(Progress(self._counts())))
        due = self._loop.time() + interval
        while not (task.done() and self._events.empty()):
            # Whatever else happens: thousands of failures must not hide how far it is.
            if self._loop.time() >= due:
                due = self._loop.time() + interval
                if self._tally:
                    yield Progress(self._counts())
            try:
                async with asyncio.timeout_at(due):
                    event = await self._events.get()
            except TimeoutError:
                continue
            if isinstance(event, RowFailed | RowLowered):
                self._room.release()
            if not (isinstance(event, Progress) and not self._tally):
                yield event
        yield task.result()

    def _counts(self) -> Counts:
        return Counts(**self._tally)

    def _emit(self, event: Event) -> None:
        self._events.put_nowait(event)

    def _tell(self, error: TIMError | None, seconds: float) -> None:
        self._emit(Resumed(seconds) if error is None else Waiting(str(error), seconds))

    # The course of a run

    async def carry_out(self) -> Finished:
        """All of it, from the first look at the file to the closed journal."""
        LANE.set(Lane.BULK)
        stopping = self._loop.create_task(self._heed())
        try:
            return await self._with_journal()
        finally:
            stopping.cancel()
            self._abandoned.set()
            try:
                await self._disk.do(self._close)
            finally:
                await self._disk.close()

    async def _heed(self) -> None:
        await self._users_stop.wait()
        self._stop.set()

    async def _with_journal(self) -> Finished:
        resumed = await self._disk.do(self._open)
        journal = self._the_journal()
        if not resumed:
            try:
                await self._disk.do(self._plan)
            except Stopped:
                return Finished(Counts(), Ended.INTERRUPTED)
        self._tally = _tally(await self._disk.do(journal.counts))
        self._emit(Started(self._counts(), resumed))
        if self._too_many():
            return await self._finished(Ended.LIMIT)
        if not self._counts().left:
            return await self._finished(Ended.NOTHING_TO_DO if resumed else Ended.DONE)
        await self._disk.do(journal.begin_session, time.time())
        how = "failed"
        try:
            await self._send_all()
            ended = Ended.LIMIT if self._limit else Ended.INTERRUPTED if self._counts().left else Ended.DONE
            how = ended.name.lower()
            return await self._finished(ended)
        finally:
            await self._disk.do(journal.save_session, self._series(), time.time(), how)

    async def _finished(self, ended: Ended) -> Finished:
        failures: Counter[int | None] = Counter()
        for failure in await self._disk.do(self._the_journal().failures):
            failures[failure.code] += failure.rows
        return Finished(self._counts(), ended, dict(failures), self._limit)

    def _too_many(self) -> bool:
        counts = self._counts()
        if counts.errors > self._max_errors:
            self._limit = f"{counts.errors:,} rows failed or were rejected, and {self._max_errors} may"
        return bool(self._limit)

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

    def _plan(self) -> None:
        """Read all rows into the journal; of a journal that does not get so far nothing is left."""
        journal = self._the_journal()
        try:
            for taken in journal.plan(self._source.read()):
                if self._abandoned.is_set() or self._stop.is_set():
                    raise Stopped
                self._loop.call_soon_threadsafe(self._emit, Reading(taken))
        except BaseException:
            self._journal = None
            journal.discard()
            raise

    def _take(self) -> list[_Sending]:
        """The next rows that are to be sent."""
        taken = []
        for unsettled in self._the_journal().unsettled(self._after, _WINDOW):
            row = next((row for row in self._rows if row.line >= unsettled.line), None)
            if not isinstance(row, Row) or row.line != unsettled.line or row.identity != unsettled.identity:
                raise SourceError(f"{self._source.name} has changed while its rows were sent")
            taken.append(_Sending(row, unsettled.since))
            self._after = unsettled.line
        return taken

    def _close(self) -> None:
        if isinstance(self._rows, Generator):
            self._rows.close()
        if self._journal is not None:
            self._journal.close()

    # Sending

    async def _send_all(self) -> None:
        self._rows = await self._disk.do(self._source.read)
        ledger = Ledger(self._the_journal(), self._disk, max(1, self._concurrency // 2))
        # One more than places: at concurrency 1, too, an outage can be told from one row's own trouble.
        work = [self._feed(ledger)] + [self._work(ledger) for _ in range(self._concurrency + 1)]
        tasks = [self._loop.create_task(coroutine) for coroutine in work]
        keeping = self._loop.create_task(self._keep_series())
        try:
            await self._until_done(tasks)
            if self._unsent:
                self._tally["pending"] += len(self._unsent)
                self._tally["sending"] -= len(self._unsent)
                await ledger.unsent(self._unsent)
        except OutageTooLong as error:
            self._limit = str(error)
        finally:
            for task in (*tasks, keeping):
                task.cancel()
            await asyncio.gather(*tasks, keeping, return_exceptions=True)
            await ledger.close()

    async def _until_done(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for all, or for the first that fails; in an outage a stop ends them at once."""
        stopping = self._loop.create_task(_set(self._stop))
        pending = set(tasks)
        try:
            while pending:
                waiting = pending if stopping.done() else {*pending, stopping}
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                pending -= done
                if stopping in done and self._patience.down:
                    return
        finally:
            stopping.cancel()

    async def _feed(self, ledger: Ledger) -> None:
        while not self._stop.is_set() and (window := await self._disk.do(self._take)):
            try:
                window = await self._checked(window, ledger)
            except Stopped:
                break
            for start in range(0, len(window), self._concurrency):
                if self._stop.is_set():
                    break
                piece = window[start : start + self._concurrency]
                await ledger.sending([sending.row.line for sending in piece], int(time.time()))
                self._hand_over(piece)
                for sending in piece:
                    await self._queue.put(sending)
        self._patience.last_calls = True
        for _ in range(self._concurrency + 1):
            await self._queue.put(None)

    async def _checked(self, window: list[_Sending], ledger: Ledger) -> list[_Sending]:
        """Those rows whose groups take them, with what is known of the groups; the others fail."""
        if not self.checks_groups:
            return window
        groups = await self._groups.look_up(str(sending.row.values[0]) for sending in window)
        refused = []
        for sending in window:
            group = groups[str(sending.row.values[0])]
            sending.messages = group.messages
            if group.reason:
                refused.append((sending, group))
        if not refused:
            return window
        self._hand_over([sending for sending, _ in refused])
        await asyncio.gather(*(self._fail(sending, group.code, group.reason, ledger) for sending, group in refused))
        lines = {sending.row.line for sending, _ in refused}
        return [sending for sending in window if sending.row.line not in lines]

    def _hand_over(self, window: list[_Sending]) -> None:
        """Count rows as under way; those of an earlier run are so already."""
        new = sum(sending.since is None for sending in window)
        self._tally["pending"] -= new
        self._tally["sending"] += new

    async def _work(self, ledger: Ledger) -> None:
        while (sending := await self._queue.get()) is not None:
            try:
                await self._patience.carry_out(self._call(sending, ledger))
            except Stopped:
                if not sending.begun and sending.since is None:
                    self._unsent.append(sending.row.line)
            except (AuthError, ClientClosed):
                raise
            except TIMError as error:
                await self._fail(sending, _code(error), str(error), ledger)

    def _call(self, sending: _Sending, ledger: Ledger) -> Callable[[int], Awaitable[None]]:
        """What sends a row and saves its outcome, unless that passes."""
        handed_over = int(time.time())

        async def call(rounds: int) -> None:
            # A row without a time of its own, once it may have been sent, sends the time of then.
            pinned = handed_over if sending.since is None and rounds else sending.since
            async with self._slots:
                if self._stop.is_set():
                    raise Stopped
                sending.begun = True
                try:
                    await self._source.kind.send(self._client, sending.row, pinned)
                except TIMError as error:
                    if passes(error) or isinstance(error, AuthError | ClientClosed):
                        raise
                    await self._fail(sending, _code(error), str(error), ledger)
                else:
                    await self._settle(sending, ledger)

        return call

    async def _settle(self, sending: _Sending, ledger: Ledger) -> None:
        """A row was taken."""
        row, messages = sending.row, sending.messages
        number = row.values[2]
        if messages is None or not isinstance(number, int) or number <= messages:
            await ledger.done(row.line)
            self._count("done")
            return
        await ledger.lowered(row.line, messages)
        self._count("lowered")
        await self._room.acquire()
        self._emit(RowLowered(row.line, row.values, messages))

    async def _fail(self, sending: _Sending, code: int | None, reason: str, ledger: Ledger) -> None:
        """A row was refused."""
        row = sending.row
        await ledger.failed(row.line, code, reason)
        self._count("failed")
        if self._too_many():
            self._stop.set()
        await self._room.acquire()
        self._emit(RowFailed(row.line, row.values, code, reason))

    def _count(self, state: str) -> None:
        self._tally["sending"] -= 1
        self._tally[state] += 1

    # How it goes

    def _series(self) -> str:
        return "" if self._recorder is None else self._recorder.series.to_json()

    async def _keep_series(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            await self._disk.do(self._the_journal().save_session, self._series())


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _tally(counts: Counts) -> Counter[str]:
    return Counter({name: getattr(counts, name) for name in Counts.__slots__})


def _code(error: TIMError) -> int | None:
    return error.code if isinstance(error, APIError) else None
