"""What a journal holds, and how that is read by anybody at any time, also while a run writes it; blocks."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeGuard

from ._journal_file import fetch, is_held, reading, require
from ._recorder import Series
from ._rows import KINDS, Row
from ._store import About, Calls, FailureCount, Pace, Problem, Session, State, Status, as_json, with_field
from .events import Counts

_MOST_NESTED = 500
"""Arrays and objects in what a journal is of."""
_LONGEST_REASON = 1000
"""Characters of a reason and its field that are read; a run writes fewer."""

# A row that is claimed is in `claim`, too, and not in another state: a row whose bytes do not grow stays on its page.
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


def is_moment(value: object) -> TypeGuard[float]:
    """Whether a value can be unix seconds of a run."""
    return isinstance(value, int | float) and 0 <= value < 1e11


def read_about(db: sqlite3.Connection) -> tuple[About, bool]:
    """What the journal is of, and whether its rows are planned.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    try:
        found = {name: _loaded(value) for name, value in fetch(db, "SELECT name, value FROM about")}
        about = About(**{one.name: found[one.name] for one in fields(About)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise sqlite3.DatabaseError(f"it is damaged: {error}") from None
    texts = (about.kind, about.source, about.fingerprint, about.base_url)
    require(
        all(isinstance(text, str) for text in texts)
        and isinstance(about.arguments, dict)
        and isinstance(about.sdk_app_id, int)
        and 0 <= about.sdk_app_id < 2**63
        and isinstance(found.get("planned"), bool),
        "it does not say what it is of",
    )
    return about, found["planned"]


def write_about(db: sqlite3.Connection, about: About, *, planned: bool) -> None:
    """Write what the journal is of."""
    values = [*asdict(about).items(), ("planned", planned)]
    # As JSON in ASCII: the name of a file need not be text.
    db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", [(name, as_json(value)) for name, value in values])


def _loaded(text: str) -> Any:
    # Nested so deep that whatever works on it would run out of stack.
    if text.count("[") + text.count("{") > _MOST_NESTED:
        raise ValueError("nested too deep")
    return json.loads(text)


def read_counts(db: sqlite3.Connection) -> Counts:
    """How many rows are in which state."""
    # Apart, in half the time: nearly all rows are in one of the first two states, and SQLite groups row by row.
    found = dict(fetch(db, "SELECT state, count(*) FROM row WHERE state NOT IN (0, 1) GROUP BY state"))
    require(found.keys() <= set(State), "a row is in an unknown state")
    [(rows,)] = fetch(db, "SELECT count(*) FROM row")
    [(found[State.DONE],)] = fetch(db, "SELECT count(*) FROM row WHERE state = ?", State.DONE)
    found[State.PENDING] = rows - sum(found.values())
    [(sending,)] = fetch(db, "SELECT count(*) FROM claim")
    by_name = {state.name.lower(): found.get(state, 0) for state in State}
    require(sending <= by_name["pending"], "more rows are claimed than pending")
    return Counts(**by_name | {"pending": by_name["pending"] - sending, "sending": sending})


def read_failures(db: sqlite3.Connection) -> list[FailureCount]:
    """The failed and rejected rows by code or field, the most frequent first."""
    # Reasons without a code are few and alike; those with one name ids.  Rejected rows have a field, if only "".
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
    """A code and a reason as they were read, if they are what a run writes."""
    require(
        (code is None or isinstance(code, int)) and isinstance(field, str) and isinstance(reason, str),
        "a code is no number, or a reason no text",
    )
    return code, with_field(str(field), str(reason))[:_LONGEST_REASON]  # type: ignore[return-value]


def read_row(kind: str, line: int, *values: Any) -> Row:
    """A row of the table as one that can be sent.

    Raises:
        sqlite3.DatabaseError: it is none.
    """
    require(kind in KINDS, f"its rows are of an unknown kind, {kind!r}")
    columns = KINDS[kind].columns
    taken = values[: len(columns)]
    texts, numbers = taken[:2], taken[2:]
    require(
        all(isinstance(text, str) and text for text in texts)
        and all(number is None or isinstance(number, int) for number in numbers),
        f"the row of line {line} is none",
    )
    return Row(line, taken)


def read_sessions(db: sqlite3.Connection) -> list[Session]:
    """The runs that sent something, in their order."""
    sessions = []
    for started, ended, how, series, calls in fetch(
        db, "SELECT started, ended, how, series, calls FROM session ORDER BY id"
    ):
        require(is_moment(started) and (ended is None or is_moment(ended)), "a time of a run is no time")
        require(isinstance(how, str), "the end of a run is no text")
        counted = Calls(**_loaded(calls)) if calls else Calls()
        require(all(type(number) is int for number in asdict(counted).values()), "a number of calls is none")
        sessions.append(Session(started, ended, how[:100], Series.from_json(series) if series else None, counted))
    return sessions


def read_status(path: str | Path) -> Status:
    """What a journal knows; it may be in use.

    Raises:
        JournalError: it cannot be read, or is no journal.
    """
    path = Path(path)
    running = is_held(path)
    with reading(path) as db:
        db.execute("BEGIN")  # one moment for all of it, whatever a run saves meanwhile
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
    """The name of the file whose rows a journal holds."""
    with reading(path) as db:
        return read_about(db)[0].source


def read_problems(path: Path, after: int, most: int) -> list[Problem]:
    """The failed and rejected rows after a line, at most so many."""
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
            require(isinstance(fields_, Mapping), "the fields of a row are none")
            problems.append(Problem(line, *_checked(code_, field or "", reason), fields_))
        return problems


def read_accepted(path: Path, after: int, most: int) -> list[Row]:
    """The rows in the state ``DONE`` after a line, at most so many."""
    query = "SELECT line, first, second, third, fourth FROM row WHERE line > ? AND state = ? ORDER BY line LIMIT ?"
    with reading(path) as db:
        about, _ = read_about(db)
        return [read_row(about.kind, *values) for values in fetch(db, query, after, State.DONE, most)]


def keep_note(path: Path, name: str, value: str | None) -> str:
    """Keep a text under a name, or read it."""
    with reading(path, writable=value is not None) as db:
        if value is not None:
            _keep(db, name, value)
            return value
        return note_of(db, name)


def _keep(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))


def note_of(db: sqlite3.Connection, name: str) -> str:
    """The text under a name, "" when there is none."""
    found = fetch(db, "SELECT value FROM note WHERE name = ?", name)
    return str(found[0][0]) if found else ""


FILE = "rejected:"
"""How the names of notes of rejected files begin, which hold the SHA-256 of each as it was written."""


def notes_of_files(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The notes of rejected files: true of the files whatever becomes of the journal."""
    return fetch(db, "SELECT name, value FROM note WHERE substr(name, 1, ?) = ?", len(FILE), FILE)


_PACE = "pace"
"""The note that holds the pace of the runs under way, with a number that rises."""


def keep_pace(path: Path, pace: Pace) -> None:
    """Set the pace of the run under way."""
    with reading(path, writable=True) as db:
        db.execute("BEGIN IMMEDIATE")
        version, _ = read_pace(db)
        _keep(db, _PACE, json.dumps({"version": version + 1, **asdict(pace)}))
        db.execute("COMMIT")


def read_pace(db: sqlite3.Connection) -> tuple[int, Pace]:
    """The pace that was set last, and its number; 0 when there is none."""
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
        "a pace is none",
    )
    return version, pace
