"""What a journal's file holds, and how that is read by whoever opens it."""

from __future__ import annotations

import contextlib
import enum
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from .errors import JournalError
from .events import Counts

APPLICATION = 0x54494D4A  # "TIMJ", which `file` and SQLite show
VERSION = 1
HEAD = 100
"""Bytes at the beginning of a database that say what it is."""
_MAGIC = b"SQLite format 3\0"
_PORTS = {"http": 80, "https": 443}
_MOST_NESTED = 500
"""Arrays and objects in what a journal is of."""
_LONGEST_REASON = 1000
"""Characters of a reason and its field that are read; a run writes fewer."""
_SHOWN = 12
"""Digits of a fingerprint that a message shows."""

TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE row (line INTEGER PRIMARY KEY, identity BLOB, state INTEGER NOT NULL, detail INTEGER);
CREATE TABLE problem (line INTEGER PRIMARY KEY, code INTEGER, field TEXT, reason TEXT NOT NULL);
CREATE TABLE session (id INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, how TEXT NOT NULL, series TEXT);
"""


class State(enum.IntEnum):
    """What has become of a row; beside it, what ``detail`` says then."""

    PENDING = 0
    """Not sent yet."""
    SENDING = 1
    """Handed to the client, fate unknown; since when, unix seconds."""
    DONE = 2
    """Taken."""
    LOWERED = 3
    """Taken, and lowered by the service to the group's number of messages: this."""
    FAILED = 4
    """Refused; see ``problem``."""
    REJECTED = 5
    """Cannot be valid, never sent; see ``problem``."""
    SUPERSEDED = 6
    """Never sent, since a later row is for the same member: on this line."""


@dataclass(frozen=True, slots=True)
class About:
    """What a journal is the journal of.

    Attributes:
        kind: the kind's name.
        source: what the source is called; for people.
        fingerprint: the source's content.
        arguments: what shapes its rows.
        sdk_app_id: the app.
        base_url: where the app is.
    """

    kind: str
    source: str
    fingerprint: str
    arguments: dict[str, Any]
    sdk_app_id: int
    base_url: str


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Failed or rejected rows that have the code or the field in common.

    Attributes:
        code: the service's code; None when there was none.
        reason: that of the first of them.
        rows: how many.
        first_line: the first of them.
        rejected: whether they were never sent.
    """

    code: int | None
    reason: str
    rows: int
    first_line: int
    rejected: bool


def refuse_foreign(path: Path, head: bytes) -> bool:
    """Raise if a file is no journal of this version; False if it is empty.

    Judged by its bytes, before SQLite can touch it, or anything beside it; they are written once, and never to a log.

    Args:
        path: the file.
        head: its first `HEAD` bytes.
    """
    if not head:
        return False
    if not head.startswith(_MAGIC):
        if Path(f"{path.resolve()}-journal").exists():
            return True  # SQLite undoes what was cut short, and then finds out for itself
        raise JournalError(f"{path} is no journal of a migration")
    # https://www.sqlite.org/fileformat2.html
    version, application = struct.unpack(">60xI4xI28x", head.ljust(HEAD, b"\0"))
    return _is_ours(path, application, version)


def _is_ours(path: Path, application: int, version: int) -> bool:
    if application != APPLICATION:
        raise JournalError(f"{path} is an SQLite database, and no journal of a migration")
    if version != VERSION:
        raise JournalError(f"{path} is a journal of version {version}; this release reads version {VERSION}")
    return True


def is_begun(db: sqlite3.Connection, path: Path) -> bool:
    """The same as SQLite sees it, once it has undone what was cut short."""
    names = ("page_count", "application_id", "user_version")
    pages, application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return pages > 0 and _is_ours(path, application, version)


@contextlib.contextmanager
def plainly(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn what SQLite raises into one plain error.

    Args:
        path: the journal.
        doing: what is done with it, "read" or "write".

    Raises:
        JournalError: instead of any error of SQLite, and of any value that it cannot hold.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(_explained(path, error, doing)) from None
    except OverflowError as error:
        raise JournalError(f"the journal {path} cannot hold a value: {error}") from None
    except UnicodeDecodeError as error:
        if not error.object.startswith(b"malformed"):
            raise
        # What SQLite says of damaged tables quotes them.
        said = error.object.decode("utf-8", "backslashreplace")
        raise JournalError(f"{path} is no journal of a migration, or damaged: {said}") from None


def _explained(path: Path, error: sqlite3.Error, doing: str) -> str:
    match code(error):
        case sqlite3.SQLITE_FULL:
            return f"no room for the journal {path}; free some space and run the same command again"
        case sqlite3.SQLITE_IOERR:
            return f"the disk of the journal {path} fails or is full ({error}); run the same command again after that"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM if doing == "read":
            return f"cannot read the journal {path}: {error}; a copy of it and of {path.name}-wal can be read elsewhere"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"cannot write the journal {path}: {error}; another place can be named for it"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return f"{path} is no journal of a migration, or damaged: {error}"
    return f"the journal {path}: {error}"


def code(error: sqlite3.Error) -> int:
    """SQLite's primary code; 0 for what Python found out itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def read_about(db: sqlite3.Connection) -> dict[str, Any]:
    """What the journal is of, by the names of `About`, and whether it is planned.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    try:
        # As JSON in ASCII: the name of a file need not be text.
        found = {name: _loaded(value) for name, value in _all(db, "SELECT name, value FROM about")}
    except (TypeError, ValueError, AttributeError) as error:
        raise _damaged(str(error)) from None
    kinds = {"kind": str, "source": str, "fingerprint": str, "arguments": dict, "sdk_app_id": int, "base_url": str}
    require(
        all(isinstance(found.get(name), kind) for name, kind in kinds.items()) and 0 <= found["sdk_app_id"] < 2**63,
        "it does not say what it is of",
    )
    return found


def _all(db: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    # Read to the end before anything is said of it: an error that somebody keeps would keep the journal open.
    return db.execute(query).fetchall()


def _loaded(text: str) -> Any:
    # Nested so deep that whatever works on it would run out of stack.
    if text.count("[") + text.count("{") > _MOST_NESTED:
        raise ValueError("nested too deep")
    return json.loads(text)


def is_planned(about: Mapping[str, Any]) -> bool:
    """Whether a journal knows all rows."""
    return about.get("planned") is True


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What two sides have to agree on and do not, as what a journal is "of"; "" when they agree.

    Args:
        found: what the journal is of.
        wanted: what it should be of, by the names of `About`; the app may be left out.
    """
    differences = []
    if found["kind"] != wanted["kind"]:
        differences.append(f"of a migration of {found['kind']!r}, and this is one of {wanted['kind']!r}")
    if found["fingerprint"] != wanted["fingerprint"]:
        differences.append(_which(found, wanted))
    if as_json(found["arguments"]) != as_json(wanted["arguments"]):
        then, now = _named(found["arguments"]), _named(wanted["arguments"])
        differences.append(f"of other arguments: {then} then, {now} now")
    app = wanted.get("sdk_app_id", found["sdk_app_id"])
    if found["sdk_app_id"] != app:
        differences.append(f"of app {found['sdk_app_id']}, and this is app {app}")
    base_url = wanted.get("base_url", found["base_url"])
    if _place(found["base_url"]) != _place(base_url):
        differences.append(f"of the app at {found['base_url']}, and this is the one at {base_url}")
    return "; and ".join(differences)


def _which(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How two files differ, as what a journal is "of"."""
    then, now = (str(side["fingerprint"])[:_SHOWN] for side in (found, wanted))
    if found["source"] != wanted["source"]:
        return f"of another file: of {found['source']} ({then}…), and this is {wanted['source']} ({now}…)"
    return f"of another file, or {found['source']} has changed since: its fingerprint was {then}… and is {now}…"


def as_json(value: Any) -> str:
    """A value of ``about`` as its text."""
    return json.dumps(value, sort_keys=True)


def _place(base_url: str) -> tuple[str | None, int | None, str] | str:
    """What two spellings of one base URL have in common: host, port and path."""
    try:
        parts = urlsplit(base_url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
    except ValueError:  # of a journal: a client has been checked
        return base_url


def _named(arguments: Mapping[str, Any]) -> str:
    """Arguments as a message can hold them: those that say something."""
    values = {name: value for name, value in arguments.items() if value}
    return json.dumps(values, ensure_ascii=False) if values else "none"


def read_counts(db: sqlite3.Connection) -> Counts:
    """How many rows are in which state."""
    found = dict(_all(db, "SELECT state, count(*) FROM row GROUP BY state"))
    require(found.keys() <= set(State), "a row is in a state that there is not")
    return Counts(**{state.name.lower(): found.get(state, 0) for state in State})


def read_failures(db: sqlite3.Connection) -> list[FailureCount]:
    """The failed and rejected rows by code or field, the most frequent first."""
    # Reasons without a code are few and alike; those with one name ids.  Rejected rows have a field, if only "".
    found = _all(
        db,
        """
        SELECT code, CASE WHEN coalesce(field, '') = '' THEN reason ELSE field || ': ' || reason END,
               count(*), min(line), field IS NOT NULL
        FROM problem
        GROUP BY code, field, CASE WHEN code IS NULL AND coalesce(field, '') = '' THEN reason END
        ORDER BY count(*) DESC, min(line)
        """,
    )
    return [
        FailureCount(*checked_problem(code, reason), rows, line, bool(rejected))
        for code, reason, rows, line, rejected in found
    ]


def checked_problem(code: object, reason: object) -> tuple[int | None, str]:
    """A code and a reason as they were read, if they are what a run writes."""
    if not (code is None or isinstance(code, int)) or not isinstance(reason, str):
        raise _damaged("a code is no number, or a reason no text")
    return code, reason[:_LONGEST_REASON]


def require(condition: bool, otherwise: str) -> None:
    """See that something holds of what was read: SQLite lets any column hold anything.

    Raises:
        sqlite3.DatabaseError: it does not.
    """
    if not condition:
        raise _damaged(otherwise)


def is_moment(value: object) -> TypeGuard[float]:
    """Whether a value can be unix seconds of a run."""
    return isinstance(value, int | float) and 0 <= value < 1e11


def _damaged(why: str) -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError(f"it is damaged: {why}")
