"""The store in a file, on the simulated disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import TYPE_CHECKING

from tim_async import TIMClient
from tim_async.migrate import (
    UNREAD,
    FileSource,
    JournalError,
    MigrateOptions,
    SqliteStore,
    Status,
    read_status,
    run,
    write_rejects,
)
from tim_async.migrate._executor import SerialExecutor
from tim_async.migrate._journal_file import reading
from tim_async.migrate._store import RowState
from tim_async.migrate.events import Event

from . import sqlite
from .process import Process, Watched

if TYPE_CHECKING:
    from .simulation import Simulation


class WatchedSqlite(Watched, SqliteStore):
    """The product's store in a file, observed."""


class FileStore:
    """A journal, which one process at a time holds.

    Args:
        sim: the simulation.

    Attributes:
        scripts: the number of script runs, always 0.
    """

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._path = sim.folder / "rows.csv.journal"
        self.scripts = 0
        self._made: list[sqlite.Connection] = []

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        """Make the product use the simulated disk."""
        with self._sim.disk.watching(), sqlite.simulated(self._sim.disk) as self._made:
            yield

    def make(self, process: Process) -> WatchedSqlite:
        """Make the store of a process."""
        store = WatchedSqlite(self._path)
        store.process = process
        return store

    def run(
        self, process: Process, client: TIMClient, options: MigrateOptions, stop: asyncio.Event | None
    ) -> AsyncGenerator[Event, None]:
        """Run the work of a process."""
        return run(client, FileSource(self._sim.source, UNREAD), process.store, stop=stop, options=options)

    async def write_rejects(self, process: Process) -> None:
        """Write the rejected file, as the command does at its end."""
        executor = SerialExecutor()
        try:
            await executor.run(write_rejects, self._path, self._sim.folder / "rejected.jsonl")
        finally:
            await executor.close()

    def holds(self, process: Process) -> bool:
        """Whether a process still holds the journal."""
        return process.store is not None and process.store._writer.is_open

    def released(self, process: Process | None) -> None:
        """Act as the system at the end of the only process: close its files and release its lock."""
        for connection in self._made:
            connection.close()
        self._made.clear()
        lock = None if process is None or process.store is None else process.store._writer._lock
        if lock is not None:
            lock.release(force=True)

    def states(self) -> Mapping[int, str] | None:
        """Return the state of each line, as any process can read it; None before all are planned."""
        try:
            if not read_status(self._path).planned:
                return None
            with reading(self._path) as db:
                found = db.execute("SELECT row.line, state, since IS NOT NULL FROM row LEFT JOIN claim USING (line)")
                return {line: "sending" if claimed else RowState(state).name.lower() for line, state, claimed in found}
        except JournalError as error:
            self._judge(error)
            return None

    def look(self) -> Status | None:
        """Read the status, as any process can at any time; None while there is none."""
        try:
            return read_status(self._path)
        except JournalError as error:
            self._judge(error)
            return None

    def _judge(self, error: JournalError) -> None:
        """Check an error: the journal may be absent before all rows are planned, and must be readable from then on."""
        begun = self._sim.begun
        if begun or (
            not str(error).startswith("there is no journal") and "is empty: no run has begun" not in str(error)
        ):
            self._sim.watch.violated("status", str(error))
