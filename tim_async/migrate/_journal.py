"""The tables of a journal, and how any process reads them at any time, even while a run writes them; blocks."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

from ._documents import is_deep
from ._journal_file import fetch, is_held, reading, require
from ._recorder import Series
from ._rows import KINDS, Row
from ._store import (
    About,
    Calls,
    FailureCount,
    Pace,
    Problem,
    RowState,
    Session,
    Status,
    about_from,
    as_json,
    with_field,
)
from .events import Counts

_LONGEST_REASON = 1000
"""Characters of a reason and its field that are read; a run writes fewer."""

# A claimed row is also in `claim`, instead of a state of its own: a row whose bytes do not grow stays on its page.
TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE row (line INTEGER PRIMARY KEY, state INTEGER NOT NULL, first TEXT, second TEXT, third INTEGER,
    fourth INTEGER);
CREATE TABLE claim (line INTEGER PRIMARY KEY, since INTEGER NOT NULL);
CREATE TABLE problem (line INTEGER PRIMARY KEY, code INTEGER, field TEXT, reason TEXT NOT NULL, found TEXT);
CREATE TABLE session (id INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, how TEXT NOT NULL, series TEXT,
    calls TEXT);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def is_time(value: object) -> TypeGuard[float]:
    """Whether a value can be a time of a run, unix seconds."""
    return isinstance(value, int | float) and 0 <= value < 1e11


def read_about(db: sqlite3.Connection) -> tuple[About, bool]:
    """Return the identity of the migration, and whether its rows are planned.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    try:
        found = {name: _loaded(value) for name, value in fetch(db, "SELECT name, value FROM about")}
        about = about_from(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise sqlite3.DatabaseError(f"it is damaged: {error}") from None
    planned = found.get("planned")
    require(isinstance(planned, bool), "whether its rows are planned is not a truth value")
    return about, planned is True


def write_about(db: sqlite3.Connection, about: About, *, planned: bool) -> None:
    """Write the identity of the migration, and whether its rows are planned."""
    values = [*asdict(about).items(), ("planned", planned)]
    db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", [(name, as_json(value)) for name, value in values])


def _loaded(text: str) -> Any:
    # Deeper nesting could exhaust the stack of any code that walks through the value.
    if is_deep(text):
        raise ValueError("nested too deep")
    return json.loads(text)


def read_counts(db: sqlite3.Connection) -> Counts:
    """Return the number of rows in each state."""
    # Separate queries take half the time: nearly all rows are in one of the first two states, and SQLite groups row by
    # row.
    found = dict(fetch(db, "SELECT state, count(*) FROM row WHERE state NOT IN (0, 1) GROUP BY state"))
    require(found.keys() <= set(RowState), "a row is in an unknown state")
    [(rows,)] = fetch(db, "SELECT count(*) FROM row")
    [(found[RowState.DONE],)] = fetch(db, "SELECT count(*) FROM row WHERE state = ?", RowState.DONE)
    found[RowState.PENDING] = rows - sum(found.values())
    [(sending,)] = fetch(db, "SELECT count(*) FROM claim")
    by_name = {state.name.lower(): found.get(state, 0) for state in RowState}
    require(sending <= by_name["pending"], "more rows are claimed than pending")
    return Counts(**by_name | {"pending": by_name["pending"] - sending, "sending": sending})


def read_failures(db: sqlite3.Connection) -> list[FailureCount]:
    """Return the failed and rejected rows by code or field, the most frequent first."""
    # Reasons without a code are few and alike; those with a code contain ids.  Rejected rows have a field, if only "".
    found = fetch(
        db,
        """
        SELECT code, coalesce(field, ''), reason, count(*), min(line), field IS NOT NULL
        FROM problem
        GROUP BY code, field, CASE WHEN code IS NULL AND coalesce(field, '') = '' THEN reason END
        ORDER BY count(*) DESC, min(line)
        """,
    )
    return [
        FailureCount(*_checked(code, field, reason), rows, line, bool(rejected))
        for code, field, reason, rows, line, rejected in found
    ]


def _checked(code: object, field: object, reason: object) -> tuple[int | None, str]:
    """Return a code and a reason, if a run could have written them."""
    require(
        (code is None or isinstance(code, int)) and isinstance(field, str) and isinstance(reason, str),
        "a code is not a number, or a reason not text",
    )
    return code, with_field(str(field), str(reason))[:_LONGEST_REASON]  # type: ignore[return-value]


def read_row(kind: str, line: int, *values: Any) -> Row:
    """Return a row of the table as a `Row`.

    Raises:
        sqlite3.DatabaseError: it is invalid.
    """
    require(kind in KINDS, f"its rows are of an unknown kind, {kind!r}")
    columns = KINDS[kind].columns
    taken = values[: len(columns)]
    texts, numbers = taken[:2], taken[2:]
    require(
        all(isinstance(text, str) and text for text in texts)
        and all(number is None or isinstance(number, int) for number in numbers),
        f"the row of line {line} is invalid",
    )
    return Row(line, taken)


def read_sessions(db: sqlite3.Connection) -> list[Session]:
    """Return the runs that sent something, in their order."""
    sessions = []
    for started, ended, how, series, calls in fetch(
        db, "SELECT started, ended, how, series, calls FROM session ORDER BY id"
    ):
        require(is_time(started) and (ended is None or is_time(ended)), "a time of a run is invalid")
        require(isinstance(how, str), "the end of a run is not text")
        counted = Calls(**_loaded(calls)) if calls else Calls()
        require(all(type(number) is int for number in asdict(counted).values()), "a number of calls is invalid")
        sessions.append(Session(started, ended, how[:100], Series.from_json(series) if series else None, counted))
    return sessions


def read_status(path: str | Path) -> Status:
    """Read the status of a journal, which may be in use.

    Raises:
        JournalError: it cannot be read, or is not a journal.
    """
    path = Path(path)
    running = is_held(path)
    with reading(path) as db:
        db.execute("BEGIN")  # one snapshot for all queries, while a run may write
        about, planned = read_about(db)
        return Status(
            journal=str(path),
            kind=about.kind,
            source=about.source,
            arguments=dict(about.arguments),
            sdk_app_id=about.sdk_app_id,
            base_url=about.base_url,
            planned=planned,
            running=running,
            counts=read_counts(db),
            failures=read_failures(db),
            sessions=read_sessions(db),
        )


def read_source(path: Path) -> str:
    """Return the name of the file whose rows a journal holds."""
    with reading(path) as db:
        return read_about(db)[0].source


def read_problems(path: Path, after: int, most: int) -> list[Problem]:
    """Return the failed and rejected rows after a line, ``most`` of them at most."""
    query = """
        SELECT row.line, code, field, reason, found, first, second, third, fourth FROM problem JOIN row USING (line)
        WHERE row.line > ? ORDER BY row.line LIMIT ?
        """
    with reading(path) as db:
        about, _ = read_about(db)
        names = [column.name for column in KINDS[about.kind].columns]
        problems = []
        for line, code_, field, reason, found, *values in fetch(db, query, after, most):
            if found is None:
                sent = read_row(about.kind, line, *values).values
                fields_ = {name: value for name, value in zip(names, sent, strict=True) if value is not None}
            else:
                fields_ = _loaded(found)
            require(isinstance(fields_, Mapping), "the fields of a row are invalid")
            problems.append(Problem(line, *_checked(code_, field or "", reason), fields_))
        return problems


def read_accepted(path: Path, after: int, most: int) -> list[Row]:
    """Return the rows in the state ``DONE`` after a line, ``most`` of them at most."""
    query = "SELECT line, first, second, third, fourth FROM row WHERE line > ? AND state = ? ORDER BY line LIMIT ?"
    with reading(path) as db:
        about, _ = read_about(db)
        return [read_row(about.kind, *values) for values in fetch(db, query, after, RowState.DONE, most)]


def keep_note(path: Path, name: str, value: str | None) -> str:
    """Keep a text under a name, or with ``value`` None read it; return it."""
    with reading(path, writable=value is not None) as db:
        if value is not None:
            _keep(db, name, value)
            return value
        return note_of(db, name)


def _keep(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))


def note_of(db: sqlite3.Connection, name: str) -> str:
    """Return the text under a name, "" when there is none."""
    found = fetch(db, "SELECT value FROM note WHERE name = ?", name)
    return str(found[0][0]) if found else ""


FILE = "rejected:"
"""The prefix of the names of notes on rejected files, each of which holds the file's SHA-256 as it was written."""


def notes_of_files(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return the notes on rejected files, which stay true when the journal starts over."""
    return fetch(db, "SELECT name, value FROM note WHERE substr(name, 1, ?) = ?", len(FILE), FILE)


_PACE = "pace"
"""The note that holds the pace, with a version that rises with each change."""


def keep_pace(path: Path, pace: Pace) -> None:
    """Set the pace of the current run."""
    with reading(path, writable=True) as db:
        db.execute("BEGIN IMMEDIATE")
        version, _ = read_pace(db)
        _keep(db, _PACE, json.dumps({"version": version + 1, **asdict(pace)}))
        db.execute("COMMIT")


def read_pace(db: sqlite3.Connection) -> tuple[int, Pace]:
    """Return the version of the pace that was set last, and the pace; 0 when there is none."""
    text = note_of(db, _PACE)
    if not text:
        return 0, Pace()
    try:
        found = _loaded(text)
        version, pace = found["version"], Pace(found["rate"], found["share"])
    except (KeyError, TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"it is damaged: {error!r}") from None
    require(
        type(version) is int
        and all(
            value is None or (isinstance(value, int | float) and 0 < value < math.inf)
            for value in (pace.rate, pace.share)
        ),
        "the pace is invalid",
    )
    return version, pace
