"""`load`, `work` and the status of a shared migration, on the engine and `RedisStore`; this imports redis-py."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tim_async.migrate._breaker import Stopped
from tim_async.migrate._engine import check_arguments, drive
from tim_async.migrate._event_queue import EventQueue, running
from tim_async.migrate._options import MigrateOptions
from tim_async.migrate._planning import Reader, plan
from tim_async.migrate._recorder import Recorder
from tim_async.migrate._redis import DEFAULT_LEASE, DEFAULT_NAME, RedisStore
from tim_async.migrate._rejects import Written, refuse_to_overwrite, write_problems
from tim_async.migrate._sources import Source
from tim_async.migrate._store import Problem, Status
from tim_async.migrate.errors import StoreAway
from tim_async.migrate.events import Counts, Event, Reading, Resumed, Waiting

from ._names import Loaded

if TYPE_CHECKING:
    from tim_async._redis_clients import Client
    from tim_async.client import TIMClient

T = TypeVar("T")

_WINDOW = 1000
"""Problems read at once."""


async def load(
    source: Source,
    store: str | Client,
    *,
    name: str = DEFAULT_NAME,
    sdk_app_id: int | None = None,
    base_url: str | None = None,
    restart: bool = False,
    stop: asyncio.Event | None = None,
) -> AsyncGenerator[Reading | Waiting | Resumed | Loaded, None]:
    """Load the rows of a source into a store, for workers that wait for them or start later.

    However a load ends, the same call completes it by starting over: no worker sends a row before all are loaded.

    Args:
        source: the rows, such as a `FileSource`.
        store: its URL: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://…`` or ``redis+cluster://…``,
            with a password if it needs one.  Or a client of ``redis.asyncio``: `Redis`, also one from
            ``Sentinel(…).master_for(…)``, or `RedisCluster`; it is never closed.
        name: the name of the migration; several can be in one database.
        sdk_app_id: the app that the rows are for; None to leave it to the first worker.
        base_url: the URL of the app's service; goes with ``sdk_app_id``.
        restart: erase any migration of this name first.
        stop: set it to end the load early.

    Yields:
        `Loading` with the rows so far, `Waiting` and `Resumed` when the store is unreachable meanwhile; `Loaded` last.

    Raises:
        TypeError, ValueError: an invalid store or name.
        SourceError: the rows cannot be read.
        StreamMismatch: the store holds another migration of this name; nothing was changed.
        StoreError: the store refuses, is unreachable at the start, or loses rows.
    """
    check_arguments(source=source, restart=restart, stop=stop)
    stop = asyncio.Event() if stop is None else stop
    events = EventQueue()
    shared = RedisStore(store, name, stop=stop, tell=events.emit)
    planning = {"sdk_app_id": sdk_app_id or 0, "base_url": base_url or "", "restart": restart}
    async with running(_load(source, shared, stop, events, **planning)) as task:
        async for event in events.all(task):
            yield event


async def _load(source: Source, store: RedisStore, stop: asyncio.Event, events: EventQueue, **planning: Any) -> Loaded:
    reader = Reader(stop)
    try:
        _, before = await plan(source, store, reader, stop, events.emit, **planning)
        status = await store.status()
        return Loaded(True, before, status.counts, status.failures, "" if before else await store.make_durable())
    except (Stopped, StoreAway):
        if not stop.is_set():
            raise
        return Loaded(False, False, Counts())
    finally:
        reader.hurry()
        try:
            await store.close()
        finally:
            await reader.close()


async def work(
    client: TIMClient,
    store: str | Client,
    *,
    name: str = DEFAULT_NAME,
    lease: float = DEFAULT_LEASE,
    mended: Source | None = None,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    options: MigrateOptions | None = None,
    **changes: Any,
) -> AsyncGenerator[Event, None]:
    """Send the rows of a store, beside any number of other workers, until every row is settled.

    It waits until all rows are loaded, and for the rows that other workers hold.  Everything else is as for
    `tim_async.migrate.run`.

    Args:
        client: makes the calls, at its own rate.
        store: as for `load`.
        name: the name of the migration.
        lease: seconds of silence after which other workers take over a worker's rows; the same for all.
        mended: corrected rows, as for `tim_async.migrate.run`.
        stop: set it to end early.
        recorder: the recorder of the client's attempts; its series is kept in the store, for the report.
        options: by default `MigrateOptions()`.
        changes: options by name, which override those in ``options``.

    Yields:
        The events of `tim_async.migrate.run`: `RowFailed` and `RowLowered` for rows of this worker, `Progress` with the
        counts of all.

    Raises:
        ValueError, TypeError: an invalid argument.
        StreamMismatch: the migration is for another app.
        StoreError: the store refuses, or has lost the migration or some of its rows.
        MigrateError: another part of the run failed, or a task of it was cancelled.
        AuthError, PermissionDenied: the service refuses the account as a whole; no row was marked failed for it.
        InvalidRequest: groups cannot be looked up at all; turn ``group_check`` off.
    """
    options = dataclasses.replace(options or MigrateOptions(), **changes)
    events = drive(
        client,
        lambda stop, tell: RedisStore(store, name, lease=lease, stop=stop, tell=tell),
        None,
        mended,
        restart=False,
        stop=stop,
        recorder=recorder,
        options=options,
    )
    async with contextlib.aclosing(events):
        async for event in events:
            yield event


async def read_fleet(store: str | Client, *, name: str = DEFAULT_NAME) -> Status:
    """Read the status of a migration and its workers.

    Args:
        store: as for `load`.
        name: the name of the migration.

    Raises:
        TypeError, ValueError: an invalid store or name.
        StoreError: no such migration, or the store is unreachable or refuses.
    """
    async with _opened(store, name) as opened:
        return await opened.status()


async def write_fleet_rejects(store: str | Client, to: str | Path, *, name: str = DEFAULT_NAME) -> Written:
    """Write the failed and rejected rows of a migration as JSON Lines, as `tim_async.migrate.write_rejects` does.

    Args:
        store: as for `load`.
        to: the file; removed when there is nothing to write.
        name: the name of the migration.

    Raises:
        TypeError, ValueError: an invalid store or name, or ``to`` is the file of the rows.
        StoreError: no such migration, or the store is unreachable or refuses.
        OSError: the file cannot be written.
    """
    async with _opened(store, name) as opened:
        refuse_to_overwrite(Path(to), {Path((await opened.status()).source): "the file of the rows"})
        loop = asyncio.get_running_loop()

        def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        def problems() -> Iterator[Problem]:
            found = opened.problems()
            while window := wait_for(_window(found)):
                yield from window

        return await asyncio.to_thread(
            write_problems, problems(), Path(to), lambda key, value: wait_for(opened.note(key, value))
        )


async def _window(problems: AsyncIterator[Problem]) -> list[Problem]:
    found: list[Problem] = []
    while len(found) < _WINDOW and (problem := await anext(problems, None)) is not None:
        found.append(problem)
    return found


@contextlib.asynccontextmanager
async def _opened(store: str | Client, name: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore(store, name)
    try:
        yield opened
    finally:
        await opened.close()
