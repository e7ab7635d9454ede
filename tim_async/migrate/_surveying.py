"""The dry run: all rows are read and checked, and nothing is sent."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tim_async import _arguments

from . import _journal
from ._journal_writer import Writer
from ._notes import Notes
from ._planning import batches
from ._rejects import write_rejects
from ._rows import Row
from ._sources import Source
from ._store import About, Calls, FailureCount, Problem, Status
from .errors import JournalError
from .events import Counts

_FIRST = 3
_MAX_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a dry run.

    Attributes:
        status: the state of the rows before anything is sent.
        seconds: the duration of the calls at the given rate, seconds.
        notes: notes on the rows.
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
    """Read and check all rows, without credentials and without the service.

    Blocks: in a program with an event loop, call it through ``asyncio.to_thread``.

    Args:
        source: the rows.
        rate: the rate of the run, calls/s.
        rejected: a file for all rejected rows, as `write_rejects` writes it; None for none.

    Raises:
        ValueError, TypeError: an invalid rate.
        SourceError: the rows cannot be read.
        JournalError: a temporary journal cannot be created.
        OSError: the rejected file cannot be written.
    """
    _arguments.positive("rate", rate)
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tim-async-")
    except OSError as error:
        reason = error.strerror or error
        raise JournalError(f"cannot create a temporary journal: {reason}; set TMPDIR to another folder") from None
    with temporary as folder:
        journal = Path(folder) / "journal"
        status, first = _plan(source, journal)
        written = None if rejected is None else write_rejects(journal, rejected).path
        problems = _journal.read_problems(journal, 0, _MAX_PROBLEMS)
    return Survey(status, status.counts.pending / rate, source.notes, first, problems, written)


def _plan(source: Source, journal: Path) -> tuple[Status, list[Row]]:
    """Plan the rows as a run does; return the status and the first rows to be sent."""
    writer = Writer(journal)
    writer.open(About(source.kind.name, source.name, arguments=source.arguments), restart=False)
    try:
        with contextlib.closing(batches(source)) as reading:
            for batch in reading:
                writer.plan(batch)
        writer.finish_plan("")
        status = dataclasses.replace(_journal.read_status(journal), journal="", running=False)
        first = [claim.row for claim in writer.exchange([], _FIRST, Calls()).claims]
    finally:
        writer.close("")
    return status, first
