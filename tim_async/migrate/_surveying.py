"""A rehearsal: everything is read and checked, and nothing is sent."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tim_async import _arguments

from ._sources import Source
from .errors import JournalError
from .events import Counts
from .journal import Journal
from .schema import About, FailureCount


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run would do.

    Attributes:
        counts: the rows by state; those that would be sent are ``pending``.
        failures: the rejected rows by field.
        seconds: how long the calls would take at the rate asked about.
    """

    counts: Counts
    failures: list[FailureCount]
    seconds: float


def survey(source: Source, rate: float = 200.0) -> Survey:
    """Read and check all rows; blocks, and needs neither credentials nor a service.

    Args:
        source: the rows.
        rate: calls/s that a run would make.

    Raises:
        ValueError, TypeError: a rate that cannot be.
        SourceError: the rows cannot be read.
        JournalError: there is no room for a temporary journal.
    """
    _arguments.positive("rate", rate)
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tim-async-")
    except OSError as error:
        raise JournalError(f"no place for a temporary journal: {error.strerror or error}") from None
    with temporary as folder:
        about = About(source.kind.name, source.name, "", {}, 0, "")
        with Journal(Path(folder) / "journal", about) as journal:
            for _ in journal.plan(source.read()):
                pass
            counts = journal.counts()
            return Survey(counts, journal.failures(), counts.pending / rate)
