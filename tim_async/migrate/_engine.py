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
from typing import TYPE_CHECKING, Any

from tim_async import _arguments
from tim_async._lanes import LANE, Lane
from tim_async._stores import is_url

from ._breaker import CircuitBreaker, OutageTooLong, Stopped
from ._event_queue import EventQueue, running
from ._groups import Groups
from ._options import MigrateOptions
from ._planning import Reader, plan
from ._recorder import Recorder
from ._rows import KINDS
from ._sending import Sender
from ._sources import Source
from ._store import About, Pace, Store
from ._supervision import beside
from .errors import JournalInUse, MigrateError, StoreAway
from .events import Counts, Ended, Event, Finished, MendedRows, PaceChanged, Resumed, Started, Waiting

if TYPE_CHECKING:
    from tim_async._redis_clients import Client
    from tim_async.client import TIMClient

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
    if not isinstance(journal, str | Path | Store):
        return _shared(journal, name)
    if isinstance(journal, str) and is_url(journal):
        return _shared(journal, name)
    if isinstance(journal, str | Path):
        from ._sqlite import SqliteStore

        return lambda _stop, _tell: SqliteStore(journal)
    return lambda _stop, _tell: journal


def _shared(store: str | Client, name: str | None) -> StoreFactory:
    from ._redis import DEFAULT_NAME, RedisStore

    return lambda stop, tell: RedisStore(store, name or DEFAULT_NAME, stop=stop, tell=tell)


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
    """Run a migration on any store; with ``source`` None, join one that another process planned."""
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
        self._limit = ""
        self._sender: Sender | None = None
        self.events = EventQueue(lambda: None if self._sender is None else self._sender.counts)
        self._breaker = CircuitBreaker(self._stop, options.longest_outage, self.events.outage)
        self._store = make(self._stop, self.events.store_outage)
        self._reader = Reader(self._stop)
        self._pace = (options.rate, options.share)
        self._waiting_since: float | None = None

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
            return Finished(self._counts, Ended.INTERRUPTED)
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

    @property
    def _counts(self) -> Counts:
        return Counts() if self._sender is None else self._sender.counts

    async def _migrate(self) -> Finished:
        try:
            about, resumed = await self._open()
            if self._mended is not None:
                await self._mend(self._mended)
        except Stopped:
            return Finished(Counts(), Ended.INTERRUPTED)
        counts = await self._store.counts()
        sender = self._sender = self._make_sender(about, counts)
        self.events.emit(Started(counts, resumed))
        if not sender.too_many_errors and counts.left:
            try:
                await beside(sender.send_all(), self._keep_series())
            except OutageTooLong as error:
                self._limit = str(error)
            finally:
                if self._recorder is not None:
                    await self._store.save_series(self._recorder.series.to_json())
            self._check_recorder()
            resumed = False
        return await self._finished(sender, resumed)

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
            joined = await self._store.join(self._client.sdk_app_id, self._client.base_url)
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
        waited = 0.0
        while total.busy:
            if self._stop.is_set():
                raise Stopped
            reason = f"{len(total.busy):,} corrected rows follow rows that other workers are sending"
            self.events.emit(Waiting(reason, waited, "those are sent"))
            await asyncio.sleep(_MEND_AGAIN)
            waited += _MEND_AGAIN
            total = await self._store.mend([row for row in rows if row.line in total.busy])
        if waited:
            self.events.emit(Resumed(waited))

    # The rows to the service

    def _make_sender(self, about: About, counts: Counts) -> Sender:
        if about.kind not in KINDS:
            raise MigrateError(f"{self._store.name} holds rows of an unknown kind, {about.kind!r}")
        kind = KINDS[about.kind]
        return Sender(
            self._client,
            kind,
            self._store,
            self._options,
            counts=counts,
            groups=Groups(self._client, self._breaker) if self._options.group_check and kind.groups else None,
            breaker=self._breaker,
            recorder=self._recorder,
            stop=self._stop,
            tell=self.events.row,
            waiting=self._wait_for_others,
            set_pace=lambda pace: self._set_pace(kind.endpoint.name, pace),
        )

    def _wait_for_others(self, reason: str, until: str) -> None:
        """Report a wait for rows that other workers hold; with an empty reason, its end."""
        now = asyncio.get_running_loop().time()
        if not reason:
            if self._waiting_since is not None:
                self.events.emit(Resumed(now - self._waiting_since))
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since = now
        self.events.emit(Waiting(reason, now - self._waiting_since, until))

    def _set_pace(self, endpoint: str, pace: Pace) -> None:
        """Apply a pace set during the run."""
        rate, share = self._pace = (pace.rate or self._pace[0], pace.share or self._pace[1])
        if self._options.shared_quota:
            self._client.set_rate(endpoint, rate, bulk_share=share)
        else:
            self._client.set_rate(endpoint, rate * share)
        self.events.emit(PaceChanged(rate, share))

    async def _finished(self, sender: Sender, nothing_sent: bool) -> Finished:
        counts = await self._store.counts()
        limit = self._limit or sender.too_many_errors
        if limit:
            ended = Ended.LIMIT
        elif counts.left:
            ended = Ended.ROW_LIMIT if sender.limited and not self._users_stop.is_set() else Ended.INTERRUPTED
        else:
            ended = Ended.NOTHING_TO_DO if nothing_sent else Ended.DONE
        failures: Counter[int | None] = Counter()
        for failure in await self._store.failures():
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
