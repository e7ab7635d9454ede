"""What a journal tells whoever looks, at any time, also while a run writes it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._recorder import Series
from ._sources import Source
from .errors import JournalError, JournalMismatch
from .events import Counts
from .locking import being_read, head_of, is_held
from .schema import (
    HEAD,
    FailureCount,
    code,
    differing,
    is_moment,
    is_planned,
    plainly,
    read_about,
    read_counts,
    read_failures,
    refuse_foreign,
    require,
)


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
        try:
            about = read_about(db)
            return Status(
                kind=about["kind"],
                source=about["source"],
                arguments=about["arguments"],
                sdk_app_id=about["sdk_app_id"],
                base_url=about["base_url"],
                planned=is_planned(about),
                running=running,
                counts=read_counts(db),
                failures=read_failures(db),
                sessions=_sessions(db),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"the journal {path} is damaged: {error!r}") from None


def _sessions(db: sqlite3.Connection) -> list[Session]:
    sessions = []
    found = db.execute("SELECT started, ended, how, series FROM session ORDER BY id").fetchall()
    for started, ended, how, series in found:
        require(is_moment(started) and (ended is None or is_moment(ended)), "a time of a run is no time")
        require(isinstance(how, str), "the end of a run is no text")
        sessions.append(Session(started, ended, how[:100], Series.from_json(series) if series else None))
    return sessions


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A journal opened for reading, at any time, whoever else holds it.

    Raises:
        JournalError: it cannot be read, or is no journal.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(being_read(path))
            head = head_of(path, HEAD)
        except (FileNotFoundError, NotADirectoryError):
            raise JournalError(f"there is no journal {path}") from None
        except OSError as error:
            raise JournalError(f"{path} is no journal that can be read: {error.strerror or error}") from None
        if not refuse_foreign(path, head):
            raise JournalError(f"{path} is empty: no run has begun it")
        stack.enter_context(plainly(path, "read"))
        yield stack.enter_context(contextlib.closing(_connect(path)))


def _connect(path: Path) -> sqlite3.Connection:
    held = is_held(path)
    # While a run holds it, never more than reading.  After that the last to close it also tidies up: it takes in what
    # a run that was killed has left in the log, and removes that.
    db = _opened(path, "mode=ro" if held else "mode=rw")
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        db.close()
        # Where nothing can be written, neither beside it nor at all, one that is complete can be read as it is.
        if held or code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or _has_log(path):
            raise
        return _opened(path, "mode=ro&immutable=1")
    except BaseException:
        db.close()
        raise
    return db


def _opened(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)


def _has_log(path: Path) -> bool:
    """Whether changes of a journal may be beside it, and not in it yet."""
    try:
        return Path(f"{path.resolve()}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def refuse_another(db: sqlite3.Connection, path: Path, source: Source, **app: Any) -> None:
    """See that a journal is that of a source.

    Args:
        db: the journal, as `reading` has opened it.
        path: what to call it.
        source: the rows.
        app: ``sdk_app_id`` and ``base_url``, where these have to agree, too.

    Raises:
        JournalMismatch: it is of something else.
        SourceError: the rows cannot be read.
    """
    wanted = {
        "kind": source.kind.name,
        "source": source.name,
        "fingerprint": source.fingerprint(),
        "arguments": dict(source.arguments),
    }
    if differences := differing(read_about(db), {**wanted, **app}):
        raise JournalMismatch(f"{path} is the journal {differences}")
