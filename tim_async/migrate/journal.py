"""The journal of a migration: one SQLite file that knows, for each row, what has become of it.

A row is known by its line in a file that is known by its SHA-256.  Beside its state stands a digest of the two ids, so
that rows for the same member are found, and a file that changes under a run is noticed; the values stay in the file.
A million rows take some 30 MB.

Everything here blocks.  A journal belongs to one thread at a time; `read_status` may be called at any time, by anybody.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from .errors import JournalError, JournalMismatch
from .events import Counts
from .locking import FileLock
from .rows import Rejected, Row

APPLICATION = 0x54494D4A  # "TIMJ", which `file` and SQLite show
VERSION = 1
_BATCH = 10_000
_LONGEST_REASON = 300

_TABLES = """
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


@dataclass(slots=True)
class Changes:
    """Changes of rows, to be saved together.

    Attributes:
        sending: lines handed to the client.
        at: since when, unix seconds.
        pending: lines that were handed over and not sent after all.
        done: lines taken.
        lowered: lines taken and lowered, each with the group's number of messages before it.
        failed: lines refused, each with its code and the reason.
    """

    sending: list[int] = field(default_factory=list)
    at: int = 0
    pending: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    lowered: list[tuple[int, int]] = field(default_factory=list)
    failed: list[tuple[int, int | None, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A row that is still to be sent.

    Attributes:
        line: which.
        identity: the digest of its ids.
        since: when it was first handed over, unix seconds; None if it never was.
    """

    line: int
    identity: bytes
    since: int | None


class Journal:
    """A journal, held by this run and no other.

    Args:
        path: the file; made if there is none.
        about: what it must be the journal of.

    Raises:
        JournalMismatch: it is of something else.
        JournalInUse: another run holds it.
        JournalError: it cannot be read or written, or is no journal.
    """

    def __init__(self, path: Path, about: About) -> None:
        self.path = path
        self._session = 0
        self._lock = FileLock(path)
        try:
            with self._plainly():
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                with self._plainly():
                    self._prepare(about)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; what was saved is in the one file."""
        self._db.close()
        self._lock.release()

    @property
    def planned(self) -> bool:
        """Whether it knows all rows."""
        with self._plainly():
            return read_about(self._db).get("planned") == "1"

    def plan(self, rows: Iterator[Row | Rejected]) -> Iterator[int]:
        """Take all rows in, and find those that a later row supersedes.

        Args:
            rows: by rising line.

        Yields:
            Now and then, how many it has taken in.
        """
        taken = 0
        with self._plainly():
            self._db.execute("DELETE FROM row")
            self._db.execute("DELETE FROM problem")
        while batch := list(islice(rows, _BATCH)):
            with self._transaction():
                self._insert(batch)
            taken += len(batch)
            yield taken
        with self._transaction():
            self._supersede()
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('planned', '1')")

    def _insert(self, batch: list[Row | Rejected]) -> None:
        self._db.executemany(
            "INSERT INTO row VALUES (?, ?, ?, NULL)",
            (
                (row.line, row.identity, State.PENDING) if isinstance(row, Row) else (row.line, None, State.REJECTED)
                for row in batch
            ),
        )
        self._db.executemany(
            "INSERT INTO problem VALUES (?, NULL, ?, ?)",
            ((row.line, row.field, _text(row.reason)) for row in batch if isinstance(row, Rejected)),
        )

    def _supersede(self) -> None:
        # SQLite sorts in temporary files, so that memory stays bounded whatever the number of rows.
        self._db.execute("CREATE TEMP TABLE later (line INTEGER PRIMARY KEY, next INTEGER NOT NULL)")
        self._db.execute(
            """
            INSERT INTO later SELECT line, next FROM (
                SELECT line, lead(line) OVER (PARTITION BY identity ORDER BY line) AS next FROM row WHERE state = ?
            ) WHERE next IS NOT NULL
            """,
            (State.PENDING,),
        )
        self._db.execute(
            """
            UPDATE row SET state = ?, detail = (SELECT next FROM later WHERE later.line = row.line)
            WHERE line IN (SELECT line FROM later)
            """,
            (State.SUPERSEDED,),
        )
        self._db.execute("DROP TABLE later")

    def discard(self) -> None:
        """Close it and remove the file: of one that was never planned nothing is worth keeping."""
        self._db.close()
        # While it is still held: nobody else can have begun to use it.
        self.path.unlink(missing_ok=True)
        self._lock.release()

    def counts(self) -> Counts:
        """How many rows are in which state."""
        with self._plainly():
            return read_counts(self._db)

    def failures(self) -> list[FailureCount]:
        """The failed and rejected rows by code or field."""
        with self._plainly():
            return read_failures(self._db)

    def unsettled(self, after: int, most: int) -> list[Unsettled]:
        """The next rows to be sent.

        Args:
            after: a line.
            most: how many at most.
        """
        with self._plainly():
            found = self._db.execute(
                "SELECT line, identity, detail FROM row WHERE line > ? AND state IN (?, ?) ORDER BY line LIMIT ?",
                (after, State.PENDING, State.SENDING, most),
            )
            return [Unsettled(*row) for row in found]

    def save(self, changes: Changes) -> None:
        """Save changes of rows, all or none; once this returns, they outlive a loss of power."""
        with self._transaction():
            # Each list in one statement: a thread that lets go of the interpreter for each row gets it back late.
            self._db.execute(
                "UPDATE row SET state = ?, detail = coalesce(detail, ?) WHERE line IN (SELECT value FROM json_each(?))",
                (State.SENDING, changes.at, json.dumps(changes.sending)),
            )
            for lines, state in ((changes.done, State.DONE), (changes.pending, State.PENDING)):
                if lines:
                    self._db.execute(
                        "UPDATE row SET state = ?, detail = NULL WHERE line IN (SELECT value FROM json_each(?))",
                        (state, json.dumps(lines)),
                    )
            self._db.executemany(
                f"UPDATE row SET state = {State.LOWERED:d}, detail = ? WHERE line = ?",  # noqa: S608 - a number of ours
                changes.lowered,
            )
            for line, code, reason in changes.failed:
                self._db.execute("UPDATE row SET state = ?, detail = NULL WHERE line = ?", (State.FAILED, line))
                self._db.execute("INSERT OR REPLACE INTO problem VALUES (?, ?, NULL, ?)", (line, code, _text(reason)))

    def begin_session(self, now: float) -> None:
        """Note that a run begins, at a unix time in seconds."""
        with self._transaction():
            ran = self._db.execute("INSERT INTO session (started, how) VALUES (?, '')", (now,))
            self._session = ran.lastrowid or 0

    def save_session(self, series: str, now: float | None = None, how: str = "") -> None:
        """Save how the run goes, and with ``now``, a unix time in seconds, that and how it ended."""
        with self._transaction():
            self._db.execute(
                "UPDATE session SET series = ?, ended = ?, how = ? WHERE id = ?", (series, now, how, self._session)
            )

    def _prepare(self, about: About) -> None:
        self._db.execute("PRAGMA busy_timeout = 10000")
        self._db.execute("PRAGMA journal_mode = WAL")
        # Every commit reaches the disk: what is `sending` is known to be so after a loss of power.
        self._db.execute("PRAGMA synchronous = FULL")
        if not _is_journal(self._db):
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise JournalError(f"{self.path} is an SQLite database, and no journal of a migration")
            with self._transaction():
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.executemany("INSERT INTO about VALUES (?, ?)", _as_text(about).items())
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            return
        _check_version(self._db, self.path)
        self._compare(about)

    def _compare(self, about: About) -> None:
        """Refuse to go on with something else."""
        found = read_about(self._db)
        wanted = _as_text(about)
        if found.get("planned") != "1":  # nothing was ever sent by it, so it may as well be of this
            with self._transaction():
                self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", wanted.items())
            return
        differing = [name for name in ("kind", "fingerprint", "arguments", "sdk_app_id") if found[name] != wanted[name]]
        # Not the port: an emulator, or a proxy, comes back at another.
        if _host(found["base_url"]) != _host(about.base_url):
            differing.append("base_url")
        if not differing:
            return
        what = {
            "kind": f"of a migration of {found.get('kind')!r}, and this is one of {about.kind!r}",
            "fingerprint": f"of another file, or {found.get('source')} has changed since",
            "arguments": f"of other arguments: {_named(found['arguments'])} then, {_named(wanted['arguments'])} now",
            "sdk_app_id": f"of app {found.get('sdk_app_id')}, and this is app {about.sdk_app_id}",
            "base_url": f"of the app at {found.get('base_url')}, and this is the one at {wanted['base_url']}",
        }
        counts = read_counts(self._db)
        raise JournalMismatch(
            f"{self.path} is the journal {what[differing[0]]}; it holds {counts.total:,} rows, {counts.left:,} of them"
            " unsettled. Give another journal to begin anew."
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._plainly():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # when the disk is full, SQLite has rolled back itself
                    self._db.execute("ROLLBACK")
                raise

    def _plainly(self) -> contextlib.AbstractContextManager[None]:
        return _plainly(self.path)


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


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A journal opened for reading, at any time, whoever else holds it.

    Raises:
        JournalError: it cannot be read, or is no journal.
    """
    if not path.exists():
        raise JournalError(f"there is no journal {path}")
    with _plainly(path):
        db = _connect_to_read(path)
        try:
            if not _is_journal(db):
                raise JournalError(f"{path} is no journal of a migration")
            _check_version(db, path)
            yield db
        finally:
            db.close()


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        db.close()
        # In a folder that cannot be written, a journal that nobody holds can be read as it is.
        if Path(f"{path}-wal").exists():
            raise
        return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into one plain error."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(_explained(path, error)) from None


def _explained(path: Path, error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return f"no room for the journal {path}; free some space and run the same command again"
        case sqlite3.SQLITE_IOERR:
            return f"the disk of the journal {path} fails or is full ({error}); run the same command again after that"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"cannot write the journal {path}: {error}; another place can be named for it"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return f"{path} is no journal of a migration, or damaged: {error}"
    return f"the journal {path}: {error}"


def _is_journal(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION)


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise JournalError(f"{path} is a journal of version {version}; this release reads version {VERSION}")


def read_about(db: sqlite3.Connection) -> dict[str, str]:
    """What the journal is of, as text by name."""
    return dict(db.execute("SELECT name, value FROM about"))


def _as_text(about: About) -> dict[str, str]:
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, dict) else str(value)
        for name, value in asdict(about).items()
    }


def _host(base_url: str) -> str | None:
    return urlsplit(base_url).hostname


def _named(arguments: str) -> str:
    """Arguments as a message can hold them: those that say something."""
    values = {name: value for name, value in json.loads(arguments).items() if value}
    return json.dumps(values, ensure_ascii=False) if values else "none"


def read_counts(db: sqlite3.Connection) -> Counts:
    """How many rows are in which state."""
    found = dict(db.execute("SELECT state, count(*) FROM row GROUP BY state"))
    return Counts(**{state.name.lower(): found.get(state, 0) for state in State})


def read_failures(db: sqlite3.Connection) -> list[FailureCount]:
    """The failed and rejected rows by code or field, the most frequent first."""
    # Reasons without a code are few and alike; those with one name ids.  Rejected rows have a field, if only "".
    found = db.execute(
        """
        SELECT code, CASE WHEN coalesce(field, '') = '' THEN reason ELSE field || ': ' || reason END,
               count(*), min(line), field IS NOT NULL
        FROM problem
        GROUP BY code, field, CASE WHEN code IS NULL AND coalesce(field, '') = '' THEN reason END
        ORDER BY count(*) DESC, min(line)
        """
    )
    return [FailureCount(code, reason, rows, line, bool(rejected)) for code, reason, rows, line, rejected in found]


def _text(reason: str) -> str:
    """A reason as the journal keeps it: not too long, and without what SQLite cannot hold."""
    return reason[:_LONGEST_REASON].encode("utf-8", "backslashreplace").decode()
