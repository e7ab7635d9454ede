"""The engine of a migration: open, plan, mend, send, close; the same for a file, a pipe and a shared store.

::

    open ──> plan: rows of the source → store ──> mend: corrected rows → store ──> send ──> close
       └──── the rows are planned already ───────────^

All rows are planned before the first is sent.  So only the last row of each member is sent at all, and neither order
nor retries can leave the value of another.  After any end the same call resumes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tim_async import _arguments
from tim_async._lanes import LANE, Lane
from tim_async._stores import is_url

from ._breaker import CircuitBreaker, OutageTooLong, Stopped
from ._event_queue import EventQueue, Wait, running
from ._options import MigrateOptions
from ._planning import Reader, plan
from ._recorder import Recorder
from ._rows import KINDS
from ._sending import Sender
from ._sources import Source
from ._store import About, Store
from ._supervision import beside
from .errors import JournalInUse, MigrateError, StoreAway
from .events import Counts, Ended, Event, Finished, MendedRows, Started

if TYPE_CHECKING:
    from tim_async._redis_clients import Client
    from tim_async.client import TIMClient

    from ._redis import RedisStore

_SAVE_EVERY = 10.0
"""Seconds between two saves of the run's series."""
_MEND_AGAIN = 0.5
"""Seconds between two attempts to mend rows that another worker holds."""

StoreFactory = Callable[[asyncio.Event, Callable[..., None]], Store]
"""Makes the store of a run, given the event that ends its waiting and the callback for its outages."""


async def run(
    client: TIMClient,
    source: Source,
    journal: str | Path | Client | Store,
    *,
    mended: Source | None = None,
    restart: bool = False,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    options: MigrateOptions | None = None,
    **changes: Any,
) -> AsyncGenerator[Event, None]:
    """Send all rows of a source, or resume an earlier run.

    ::

        async with contextlib.aclosing(migrate.run(tim, source, "export.csv.journal")) as events:
            async for event in events:
                ...

    The calls are bulk: interactive ones of the same client go first.  However a run ends, the same call resumes it.
    Leaving the loop stops it at once; setting ``stop`` gives the calls in flight a few seconds to finish.

    Args:
        client: makes the calls, at its own rate.
        source: the rows, such as a `FileSource`.  Once its rows are planned, it may be gone.
        journal: a path, or the URL or a client of a Redis or Valkey that several workers share, or a store.
        mended: corrected rows, such as a `MendedSource`; they take the places of failed and rejected rows.
        restart: erase the journal, and start over.
        stop: set it to end the run early.
        recorder: the recorder of the client's attempts; its series is kept in the journal, for the report.
        options: by default `MigrateOptions()`.
        changes: options by name, which override those in ``options``.

    Yields:
        `Reading` while the rows are planned, `MendedRows`, `Started`; then `RowFailed`, `RowLowered`, `Waiting`,
        `Resumed`, `PaceChanged` and `Progress` as they happen; `Finished` last.  The run waits while too many events
        are unread.

    Raises:
        ValueError, TypeError: an invalid argument.
        SourceError: the rows cannot be read.
        JournalError: the journal belongs to another migration, is in use, or cannot be written.
        MigrateError: another part of the run failed, or a task of it was cancelled.
        AuthError, PermissionDenied: the service refuses the account as a whole; no row was marked failed for it.
        InvalidRequest: groups cannot be looked up at all; turn ``group_check`` off.
    """
    options = dataclasses.replace(options or MigrateOptions(), **changes)
    if restart and mended is not None:
        raise ValueError("restart would forget the rows that mended corrects")
    make = store_factory(journal)
    # Closed here, not by the garbage collector: a caller that leaves a run may start another at once.
    async with contextlib.aclosing(drive(client, make, source, mended, restart, stop, recorder, options)) as events:
        async for event in events:
            yield event


def store_factory(journal: str | Path | Client | Store, name: str | None = None) -> StoreFactory:
    """Return the factory of a journal's store.

    Args:
        journal: a path, a URL, a client of ``redis.asyncio``, or a store.
        name: of a shared store, the migration's name; None for the default.
    """
    if not isinstance(journal, str | Path | Store) or (isinstance(journal, str) and is_url(journal)):
        from ._redis import DEFAULT_NAME, RedisStore

        return lambda stop, tell: RedisStore(journal, name or DEFAULT_NAME, stop=stop, tell=tell)
    if isinstance(journal, str | Path):
        from ._sqlite import SqliteStore

        return lambda _stop, _tell: SqliteStore(journal)
    return lambda _stop, _tell: journal


async def drive(
    client: TIMClient,
    make: StoreFactory,
    source: Source | None,
    mended: Source | None,
    restart: bool,
    stop: asyncio.Event | None,
    recorder: Recorder | None,
    options: MigrateOptions,
) -> AsyncGenerator[Event, None]:
    """Run a migration on any store; with ``source`` None, join one on a shared store that another process planned."""
    this = _Run(client, make, source, mended, restart, stop, recorder, options)
    async with running(this.migrate()) as task:
        try:
            async for event in this.events.all(task, options.interval):
                yield event
        finally:
            this.hurry()


_TYPES: dict[str, type] = {
    "source": Source,
    "mended": Source,
    "restart": bool,
    "stop": asyncio.Event,
    "recorder": Recorder,
}


def check_arguments(**given: object) -> None:
    """Check the types of arguments, by name; None is absent.  As a truth value, "false" would discard a journal."""
    for name, value in given.items():
        if value is not None:
            _arguments.kind(name, value, _TYPES[name])


class _Run:
    def __init__(
        self,
        client: TIMClient,
        make: StoreFactory,
        source: Source | None,
        mended: Source | None,
        restart: bool,
        stop: asyncio.Event | None,
        recorder: Recorder | None,
        options: MigrateOptions,
    ) -> None:
        from tim_async.client import TIMClient

        _arguments.kind("client", client, TIMClient)
        check_arguments(source=source, mended=mended, restart=restart, stop=stop, recorder=recorder)
        self._client = client
        self._source = source
        self._mended = mended
        self._restart = restart
        self._users_stop = asyncio.Event() if stop is None else stop
        self._recorder = recorder
        self._options = options
        # The run's own event, so that a limit can set it, too.
        self._stop = asyncio.Event()
        self.events = EventQueue()
        self._breaker = CircuitBreaker(self._stop, options.longest_outage, self.events.emit)
        self._store = make(self._stop, self.events.emit)
        self._reader = Reader(self._stop)

    async def migrate(self) -> Finished:
        """Run the migration, from opening the source to closing the store."""
        LANE.set(Lane.BULK)
        how, has_store = "interrupted", True
        try:
            finished = await beside(self._migrate(), self._forward_stop())
            how = finished.ended.name.lower()
            return finished
        except JournalInUse:
            has_store = False
            raise
        except StoreAway:
            if not self._users_stop.is_set():
                raise
            return Finished(self.events.counts or Counts(), Ended.INTERRUPTED)
        except Exception:
            how = "failed"
            raise
        finally:
            try:
                if has_store:
                    await self._store.close(how)
            finally:
                await self._reader.close()

    def hurry(self) -> None:
        """End soon, even if a disk or a store no longer responds."""
        self._reader.hurry()
        self._store.hurry()

    async def _forward_stop(self) -> None:
        await self._users_stop.wait()
        self._stop.set()

    async def _migrate(self) -> Finished:
        try:
            about, resumed = await self._open()
            if self._mended is not None:
                await self._mend(self._mended)
        except Stopped:
            return Finished(Counts(), Ended.INTERRUPTED)
        if about.kind not in KINDS:
            raise MigrateError(f"{self._store.name} holds rows of an unknown kind, {about.kind!r}")
        counts = await self._store.counts()
        sender = Sender(
            self._client,
            KINDS[about.kind],
            self._store,
            self._options,
            counts=counts,
            breaker=self._breaker,
            recorder=self._recorder,
            stop=self._stop,
            events=self.events,
        )
        self.events.emit(Started(counts, resumed))
        limit = ""
        if not sender.too_many_errors and counts.left:
            try:
                await beside(sender.send_all(), self._keep_series())
            except OutageTooLong as error:
                limit = str(error)
            finally:
                if self._recorder is not None:
                    await self._store.save_series(self._recorder.series.to_json())
            self._check_recorder()
            resumed = False
        return await self._finished(sender, limit, nothing_sent=resumed)

    # The rows into the store

    async def _open(self) -> tuple[About, bool]:
        """Open the store, and plan the rows unless they are planned.

        Returns:
            The identity of the migration, and whether its rows were planned before.

        Raises:
            Stopped: the run is to end.
        """
        source = self._source
        if source is None:
            joined = await cast("RedisStore", self._store).join(self._client.sdk_app_id, self._client.base_url)
            if joined is None:
                raise Stopped
            return joined, True
        return await plan(
            source,
            self._store,
            self._reader,
            self._stop,
            self.events.emit,
            sdk_app_id=self._client.sdk_app_id,
            base_url=self._client.base_url,
            restart=self._restart,
            mends=self._mended is not None,
        )

    async def _mend(self, mended: Source) -> None:
        rows = await self._reader.read(lambda: list(mended.read()))
        total = await self._store.mend(rows)
        self.events.emit(MendedRows(total.taken, total.superseded, total.rejected, total.skipped))
        wait = Wait(self.events.emit)
        while total.busy:
            if self._stop.is_set():
                raise Stopped
            reason = f"{len(total.busy):,} corrected rows follow rows that other workers are sending"
            wait.report(reason, "those are sent")
            await asyncio.sleep(_MEND_AGAIN)
            total = await self._store.mend([row for row in rows if row.line in total.busy])
        wait.end()

    async def _finished(self, sender: Sender, limit: str, *, nothing_sent: bool) -> Finished:
        status = await self._store.status()
        counts = status.counts
        limit = limit or sender.too_many_errors
        if limit:
            ended = Ended.LIMIT
        elif counts.left:
            ended = Ended.ROW_LIMIT if sender.limited and not self._users_stop.is_set() else Ended.INTERRUPTED
        else:
            ended = Ended.NOTHING_TO_DO if nothing_sent else Ended.DONE
        failures: Counter[int | None] = Counter()
        for failure in status.failures:
            failures[failure.code] += failure.rows
        return Finished(counts, ended, dict(failures), limit)

    def _check_recorder(self) -> None:
        error = None if self._recorder is None else self._recorder.failure
        if error is not None:
            raise MigrateError(f"the calls can no longer be counted: {type(error).__name__}: {error}") from error

    async def _keep_series(self) -> None:
        while self._recorder is not None:
            await asyncio.sleep(_SAVE_EVERY)
            self._check_recorder()
            await self._store.save_series(self._recorder.series.to_json())
