"""A dry run: everything is read and checked, and nothing is sent."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tim_async import _arguments

from . import _journal
from ._notes import Notes
from ._planning import Reader, plan
from ._rejects import write_rejects
from ._rows import Row
from ._sources import Source
from ._sqlite import SqliteStore
from ._store import Calls, FailureCount, Problem, Status
from .errors import JournalError
from .events import Counts

_FIRST = 3
_MOST_PROBLEMS = 1000
_SLEEP = 0.2
"""Seconds after which the loop wakes: a Ctrl-C that comes just before it sleeps does not wake it."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run would do.

    Attributes:
        status: the state of the rows before anything is sent.
        seconds: how long the calls would take at the rate asked about.
        notes: what is worth saying of the rows.
        first: the first three rows that would be sent.
        problems: the rejected rows, at most the first 1,000.
        rejected: the file with all of them; None when none was asked for, or none was rejected.
    """

    status: Status
    seconds: float
    notes: Notes
    first: list[Row]
    problems: list[Problem]
    rejected: Path | None

    @property
    def counts(self) -> Counts:
        """The rows by state; those that would be sent are ``pending``."""
        return self.status.counts

    @property
    def failures(self) -> list[FailureCount]:
        """The rejected rows by field."""
        return self.status.failures


def survey(source: Source, rate: float = 200.0, *, rejected: str | Path | None = None) -> Survey:
    """Read and check all rows; needs neither credentials nor a service.

    Blocks, and has an event loop of its own: in a program that has one, call it by ``asyncio.to_thread``.

    Args:
        source: the rows.
        rate: calls/s that a run would make.
        rejected: a file for all rejected rows, as `write_rejects` writes it; None for none.

    Raises:
        ValueError, TypeError: a rate that cannot be.
        SourceError: the rows cannot be read.
        JournalError: there is no room for a temporary journal.
        OSError: the file cannot be written.
    """
    _arguments.positive("rate", rate)
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tim-async-")
    except OSError as error:
        raise JournalError(f"no place for a temporary journal: {error.strerror or error}") from None
    with temporary as folder:
        journal = Path(folder) / "journal"
        status, first = asyncio.run(_plan(source, journal))
        written = None if rejected is None else write_rejects(journal, rejected).path
        problems = _journal.read_problems(journal, 0, _MOST_PROBLEMS)
    return Survey(status, status.counts.pending / rate, source.notes, first, problems, written)


async def _plan(source: Source, journal: Path) -> tuple[Status, list[Row]]:
    """Plan the rows as a run does; what it would begin with."""
    store, stop = SqliteStore(journal), asyncio.Event()
    reader = Reader(stop)
    planning = asyncio.ensure_future(
        plan(source, store, reader, stop, lambda _: None, sdk_app_id=0, base_url="", restart=False)
    )
    try:
        try:
            while not planning.done():
                await asyncio.wait([planning], timeout=_SLEEP)
        except asyncio.CancelledError:
            stop.set()  # it may be waiting for a pipe
            await asyncio.wait([planning])
            raise
        await planning
        status = dataclasses.replace(await store.status(), journal="", running=False)
        claims = (await store.exchange([], _FIRST, Calls())).claims
    finally:
        planning.cancel()
        await store.close()
        await reader.close()
    return status, [claim.row for claim in claims]
