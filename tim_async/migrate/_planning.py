"""Planning puts all rows of a source into a store, once.  The engine plans before it sends; `load` only plans."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Generator
from itertools import islice
from typing import TypeVar

from ._breaker import Stopped
from ._executor import SerialExecutor
from ._rows import Rejected, Row
from ._sources import Source
from ._store import About, Store, differing, mismatch
from ._supervision import end
from .errors import JournalMismatch, SourceError
from .events import Reading

T = TypeVar("T")

_RULES = ("until_now", "strict_ids")
"""The arguments of a source that decide which rows are valid, and nothing else."""
_BATCH = 5_000
"""Rows read and planned together."""
_GRACE = 1.0
"""Seconds for a read to finish once the run is to end: enough for a file, while a pipe may block for ever."""


class Reader:
    """A thread that reads sources.

    Args:
        stop: set when the run is to end; ends all waiting.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._blocked = False
        self._executor = SerialExecutor()

    async def read(self, function: Callable[[], T]) -> T:
        """Call a function that reads a source.

        Raises:
            Stopped: the run is to end, even if the function blocks on a pipe without a writer.
        """
        reading = asyncio.ensure_future(self._executor.run(function))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait([reading], timeout=_GRACE)
            if not reading.done():
                self._blocked = True
                self._executor.hurry(0.0)
                raise Stopped
            return reading.result()
        finally:
            await end([reading, stopping])

    async def finish(self, function: Callable[[], object]) -> None:
        """Call a function that closes a source, also when the run is to end; not while a read blocks."""
        if not self._blocked:
            await self._executor.run(function)

    def hurry(self) -> None:
        """End soon, even if a disk no longer responds."""
        self._executor.hurry()

    async def close(self) -> None:
        """End the thread."""
        await self._executor.close()


async def plan(
    source: Source,
    store: Store,
    reader: Reader,
    stop: asyncio.Event,
    emit: Callable[[Reading], None],
    *,
    sdk_app_id: int,
    base_url: str,
    restart: bool,
    mends: bool = False,
) -> tuple[About, bool]:
    """Open a store, and plan the rows of a source unless they are planned.

    Args:
        source: the rows.
        store: the store for them.
        reader: reads them.
        stop: set when the run is to end.
        emit: called with the number of rows so far.
        sdk_app_id: the app; 0 when unknown.
        base_url: the URL of the app's service.
        restart: erase the store first.
        mends: whether rows will be corrected; then the rules of this run may differ from those of the planned rows.

    Returns:
        The identity of the migration, and whether its rows were planned before.

    Raises:
        Stopped: the run is to end.
        SourceError: the rows cannot be read, or there are none.
        JournalError: the store holds another migration, or failed.
    """
    arguments = {name: value for name, value in source.arguments.items() if not (mends and name in _RULES)}
    about = About(source.kind.name, source.name, "", arguments, sdk_app_id, base_url)
    reading = batches(source)
    following = functools.partial(next, reading, [])
    # An unreadable source must not cost the journal that it was to replace.
    batch = await reader.read(following) if restart else []
    found = await store.open(about, restart=restart)
    if found is not None:
        fingerprint = await reader.read(source.fingerprint)
        if differences := differing(found, dataclasses.replace(about, fingerprint=fingerprint)):
            raise mismatch(store.name, differences)
        return found, True
    if mends:
        raise JournalMismatch(f"{store.name} holds no rows to be corrected; run the command without --mended first")
    rows = 0
    try:
        while batch := batch or await reader.read(following):
            await store.plan(batch)
            rows += len(batch)
            batch = []
            emit(Reading(rows))
            if stop.is_set():
                raise Stopped
    finally:
        await reader.finish(reading.close)
    await store.planned(await reader.read(source.fingerprint))
    await store.note("notes", source.notes.to_json())
    return about, False


def batches(source: Source) -> Generator[list[Row | Rejected]]:
    """Yield the rows of a source in batches, at least one; reading blocks.

    Raises:
        SourceError: the rows cannot be read, or there are none.
    """
    rows = source.read()
    try:
        batch = list(islice(rows, _BATCH))
        if not batch:
            raise SourceError(f"{source.name} holds no rows")
        while batch:
            yield batch
            batch = list(islice(rows, _BATCH))
    finally:
        if isinstance(rows, Generator):
            rows.close()
