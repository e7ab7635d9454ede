"""The journal as its run writes it, with its lock, its connection and the progress of the migration; blocks."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import _journal, _journal_rows
from ._files import create, followed
from ._journal import TABLES
from ._journal_file import APPLICATION, VERSION, code, empty, explained, fetch, is_begun, is_journal, lock_of, require
from ._rows import Rejected, Row
from ._store import (
    About,
    Calls,
    Claim,
    Exchange,
    Mended,
    Outcome,
    Pace,
    RowState,
    differing,
    mismatch,
    shortened,
)
from .errors import JournalError, JournalInUse
from .events import Counts

_LOCKING = 0.5
"""Seconds to wait for the lock: a process that checks whether a run holds the journal has it for a moment."""
_WINDOW = 1000
"""Rows read ahead."""

# One statement for a whole exchange, so that the thread releases the interpreter's lock once, and not for each row.
_EXCHANGE = """
CREATE TEMP VIEW exchange (done, lowered, failed, settled, claimed, at, session, calls) AS
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TEMP TRIGGER settle INSTEAD OF INSERT ON exchange BEGIN
    UPDATE row SET state = {DONE:d} WHERE line IN (SELECT value FROM json_each(NEW.done));
    UPDATE row SET state = {LOWERED:d} WHERE line IN (SELECT value FROM json_each(NEW.lowered));
    UPDATE row SET state = {FAILED:d} WHERE line IN (SELECT json_extract(value, '$[0]') FROM json_each(NEW.failed));
    INSERT OR REPLACE INTO problem (line, code, reason)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
        FROM json_each(NEW.failed);
    DELETE FROM claim WHERE line IN (SELECT value FROM json_each(NEW.settled));
    INSERT INTO claim SELECT value, NEW.at FROM json_each(NEW.claimed);
    UPDATE session SET calls = NEW.calls WHERE id = NEW.session;
END;
"""


class Writer:
    """Writes a journal for one run at a time.

    Args:
        path: the journal; created if it does not exist, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target = path
        self._lock: FileLock | None = None
        self._db: sqlite3.Connection | None = None
        self._kind = ""
        self._planned: bool | None = None
        self._counts: Counter[str] = Counter()
        self._session = 0
        self._calls = Calls()
        self._ahead: list[tuple[Any, ...]] = []
        self._cursor = 0
        self._exhausted = False
        self._claimed_before: set[int] = set()
        self._pace_version = 0
        self._pace_read = 0.0

    # Begin and end

    @property
    def is_open(self) -> bool:
        """Whether a run has opened it."""
        return self._lock is not None

    @property
    def counts(self) -> Counts:
        """The number of rows in each state."""
        return Counts(**self._counts)

    def open(self, about: About, restart: bool) -> About | None:
        """See `Store.open`."""
        path = self._resolved(restart)
        lock = lock_of(path, _LOCKING)
        try:
            lock.acquire()
        except Timeout:
            raise JournalInUse(f"another run holds the journal {self._path}; wait for its end, or stop it") from None
        except (OSError, NotImplementedError) as error:
            raise self._unwritable(getattr(error, "strerror", None) or error) from None
        self._lock, self._target = lock, path
        try:
            return self._prepare(path, about, restart)
        except BaseException:
            self._close()
            raise

    def _resolved(self, restart: bool) -> Path:
        """Return the path of the journal; create nothing, not even a lock, if there is a file that is not a journal.

        Raises:
            JournalError: there is such a file, or the path is inaccessible.
        """
        try:
            path = followed(self._path).absolute()  # SQLite gives some relative names a meaning: ":memory:"
            path.parent.stat()  # the lock would create a missing folder
            if path.exists():
                is_journal(self._path, any_version=restart)
        except JournalError:
            if path.exists():  # else another run has just removed it, because it never planned its rows
                raise
        except OSError as error:
            raise self._unwritable(error.strerror or error) from None
        return path

    def _unwritable(self, reason: object) -> JournalError:
        return JournalError(f"cannot write the journal {self._path}: {reason}; use another --journal")

    def _prepare(self, path: Path, about: About, restart: bool) -> About | None:
        try:
            with contextlib.suppress(FileExistsError):
                os.close(create(path))
        except OSError as error:
            raise self._unwritable(error.strerror or error) from None
        begun = is_journal(self._path, any_version=restart)
        # An existing journal may be planned, and is removed only once it is known not to be.
        self._planned = None if begun else False
        self._session, self._calls, self._pace_read = 0, Calls(), 0.0
        kept: list[tuple[str, str]] = []
        with explained(self._path):
            if restart and begun:
                with contextlib.closing(sqlite3.connect(path)) as db:
                    is_begun(db, self._path, any_version=True)  # this rolls back a transaction that was cut short
                    with contextlib.suppress(sqlite3.Error):
                        kept = _journal.notes_of_files(db)
                empty(path)
                self._planned = False
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA busy_timeout = 10000")
            # Every commit reaches the disk, so that claims survive a power failure.
            self._db.execute("PRAGMA synchronous = FULL")
            if not is_begun(self._db, self._path):
                # Before the log is switched on, so that the file itself shows its format from now on.
                with self._transaction():
                    for statement in TABLES.split(";"):
                        self._db.execute(statement)
                    _journal.write_about(self._db, about, planned=False)
                    self._db.executemany("INSERT INTO note VALUES (?, ?)", kept)
                    self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                    self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_EXCHANGE.format_map({state.name: state for state in RowState}))
            found, self._planned = _journal.read_about(self._db)
            if not self._planned:  # none of its rows was ever sent, so this migration may replace it
                with self._transaction():
                    for table in ("row", "claim", "problem", "session"):
                        self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
                    _journal.write_about(self._db, about, planned=False)
                found = about
            elif differences := differing(found, about):
                raise mismatch(str(self._path), differences)
            self._kind = found.kind
            self._load()
            return found if self._planned else None

    def _load(self) -> None:
        """Read the progress of the migration."""
        db = self._connection
        self._counts = Counter(asdict(_journal.read_counts(db)))
        self._claimed_before = {line for (line,) in fetch(db, "SELECT line FROM claim")}
        self._ahead, self._cursor, self._exhausted = [], 0, False
        self._pace_version, _ = _journal.read_pace(db)

    def close(self, how: str) -> None:
        """See `Store.close`."""
        if self._db is None:
            return
        try:
            if self._session and how:
                self.save_session("ended = max(started, ?), how = ?", time.time(), how)
        finally:
            self._close()

    def _close(self) -> None:
        """Close the file, remove it if it was never planned, and release the lock."""
        try:
            if self._db is not None:
                self._db.close()
                self._db = None
            if self._lock is not None and self._planned is False:
                # Emptied first: if this is cut short, a log that is left behind must not be taken for that of the next
                # journal.
                with contextlib.suppress(OSError):
                    empty(self._target)
                    self._target.unlink()
                    Path(self._lock.lock_file).unlink()  # a process that waits for it notices, and creates another
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    # Rows

    def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """See `Store.plan`."""
        with self._transaction() as db:
            _journal_rows.put(db, rows)

    def finish_plan(self, fingerprint: str) -> None:
        """See `Store.planned`."""
        with self._transaction() as db, self._sorting():
            _journal_rows.supersede(db)
            about, _ = _journal.read_about(db)
            _journal.write_about(db, replace(about, fingerprint=fingerprint), planned=True)
        self._planned = True
        with explained(self._path):
            self._load()

    def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """See `Store.mend`."""
        with self._transaction() as db, self._sorting():
            mended = _journal_rows.mend(db, rows)
        with explained(self._path):
            self._load()
        return mended

    def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """See `Store.exchange`."""
        with explained(self._path):
            if not self._session:
                ran = self._connection.execute("INSERT INTO session (started, how) VALUES (?, '')", (time.time(),))
                self._session = ran.lastrowid or 0
            claims = self._next(room, int(time.time()))
            new = [claim for claim in claims if not claim.again]
            if outcomes or new or calls != self._calls:
                by_state = {state: [one for one in outcomes if one.state is state] for state in RowState}
                self._connection.execute(
                    "INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        json.dumps([one.line for one in by_state[RowState.DONE]]),
                        json.dumps([one.line for one in by_state[RowState.LOWERED]]),
                        json.dumps([(one.line, one.code, shortened(one.reason)) for one in by_state[RowState.FAILED]]),
                        json.dumps([one.line for one in outcomes]),
                        json.dumps([claim.row.line for claim in new]),
                        int(time.time()),
                        self._session,
                        json.dumps(asdict(calls)),
                    ),
                )
                self._calls = calls
            self._counts["pending"] -= len(new)
            self._counts["sending"] += len(new) - len(outcomes)
            for outcome in outcomes:
                self._counts[outcome.state.name.lower()] += 1
            self._claimed_before.difference_update(outcome.line for outcome in outcomes)
            return Exchange(claims, self.counts, self._exhausted and not self._ahead, pace=self._new_pace())

    def _next(self, room: int, now: int) -> list[Claim]:
        """Return the next rows to be claimed, by line."""
        claims: list[Claim] = []
        while len(claims) < room and not (self._exhausted and not self._ahead):
            if not self._ahead:
                self._read_ahead()
                continue
            line, since, *values = self._ahead.pop()
            row = _journal.read_row(self._kind, line, *values)
            claims.append(Claim(row, now if since is None else since, again=line in self._claimed_before))
        return claims

    def _read_ahead(self) -> None:
        # As one JSON document, for the same reason as `_EXCHANGE`.
        [(text,)] = fetch(
            self._connection,
            """
            SELECT json_group_array(json_array(line, since, first, second, third, fourth)) FROM (
                SELECT row.line, since, first, second, third, fourth FROM row LEFT JOIN claim USING (line)
                WHERE row.line > ? AND state = ? ORDER BY row.line LIMIT ?)
            """,
            *(self._cursor, RowState.PENDING, _WINDOW),
        )
        try:
            found = json.loads(text)
        except ValueError:  # SQLite has numbers that JSON has not
            raise sqlite3.DatabaseError("it is damaged: a value of a row is invalid") from None
        require(all(since is None or _journal.is_time(since) for _, since, *_ in found), "a time of a row is invalid")
        self._exhausted = len(found) < _WINDOW
        if found:
            self._cursor = found[-1][0]
        self._ahead = found[::-1]

    def release(self, lines: Sequence[int]) -> None:
        """See `Store.release`."""
        given = [line for line in lines if line not in self._claimed_before]
        with self._transaction():
            self._connection.execute(
                "DELETE FROM claim WHERE line IN (SELECT value FROM json_each(?))", (json.dumps(given),)
            )
        self._counts["sending"] -= len(given)
        self._counts["pending"] += len(given)

    def save_session(self, assignments: str, *values: object) -> None:
        """Save columns of this run's session."""
        with self._transaction():
            self._connection.execute(
                f"UPDATE session SET {assignments} WHERE id = ?",  # noqa: S608 - assignments of our own
                (*values, self._session),
            )

    def _new_pace(self) -> Pace | None:
        if time.monotonic() < self._pace_read + 1.0:
            return None
        self._pace_read = time.monotonic()
        version, pace = _journal.read_pace(self._connection)
        if version == self._pace_version:
            return None
        self._pace_version = version
        return pace

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None, "the store is not open"
        return self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection
        with explained(self._path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # on a full disk SQLite rolls back by itself
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _sorting(self) -> Iterator[None]:
        """Turn the errors of a full disk into one that also mentions the temporary files."""
        try:
            yield
        except sqlite3.Error as error:
            if code(error) not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
                raise
            raise JournalError(
                f"no space for the journal {self._path}, or for sorting its rows ({error}), which takes up to 100 bytes"
                " a row in the folder that SQLITE_TMPDIR names, or else in that for temporary files"
            ) from None
