"""What a journal tells whoever looks, at any time, also while a run writes it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import JournalError
from .events import Counts
from .journal import FailureCount, read_about, read_counts, read_failures, reading
from .locking import is_held
from .recorder import Series


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a migration.

    Attributes:
        started: when it began to send, unix seconds.
        ended: when it ended; None when it is running, or was killed.
        how: "done", "interrupted", "limit" or "failed"; "" when it is not known to have ended.
        series: how it went; None when nobody watched.
    """

    started: float
    ended: float | None
    how: str
    series: Series | None


@dataclass(frozen=True, slots=True)
class Status:
    """A migration as its journal knows it.

    Attributes:
        kind: the name of its kind.
        source: the file, "-" for standard input.
        arguments: what shapes its rows: the keyword arguments of its `FileSource`.
        sdk_app_id: the app.
        base_url: where the app is.
        planned: whether all rows are known; False while the file is read for the first time.
        running: whether a run holds the journal at this moment.
        counts: the rows by state.
        failures: the failed and rejected rows by code or field.
        sessions: the runs that sent something, in their order.
    """

    kind: str
    source: str
    arguments: dict[str, Any]
    sdk_app_id: int
    base_url: str
    planned: bool
    running: bool
    counts: Counts
    failures: list[FailureCount]
    sessions: list[Session]


def read_status(journal: str | Path) -> Status:
    """Read what a journal knows; it may be in use.

    Args:
        journal: the file.

    Raises:
        JournalError: it cannot be read, or is no journal.
    """
    path = Path(journal)
    running = is_held(path)
    with reading(path) as db:
        # One moment for all of it, whatever a run saves meanwhile.
        db.execute("BEGIN")
        about = read_about(db)
        return Status(
            kind=about["kind"],
            source=about["source"],
            arguments=json.loads(about["arguments"]),
            sdk_app_id=int(about["sdk_app_id"]),
            base_url=about["base_url"],
            planned=about.get("planned") == "1",
            running=running,
            counts=read_counts(db),
            failures=read_failures(db),
            sessions=_sessions(db),
        )


def _sessions(db: sqlite3.Connection) -> list[Session]:
    found = db.execute("SELECT started, ended, how, series FROM session ORDER BY id")
    try:
        return [
            Session(started, ended, how, Series.from_json(series) if series else None)
            for started, ended, how, series in found
        ]
    except ValueError as error:
        raise JournalError(f"the journal is damaged: {error}") from None
