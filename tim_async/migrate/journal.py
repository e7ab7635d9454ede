"""The journal of a migration: one SQLite file that knows, for each row, what has become of it.

A row is known by its line in a file that is known by its SHA-256.  Beside its state stands a digest of the two ids, so
that rows for the same member are found, and a file that changes under a run is noticed; the values stay in the file.
A million rows take some 30 MB.

Everything here blocks.  A journal belongs to one thread at a time; `read_status` may be called at any time, by anybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

from ._rows import Rejected, Row
from .errors import JournalError, JournalMismatch
from .events import Counts
from .locking import FileLock
from .schema import (
    APPLICATION,
    HEAD,
    TABLES,
    VERSION,
    About,
    FailureCount,
    State,
    as_json,
    code,
    differing,
    is_begun,
    is_moment,
    is_planned,
    plainly,
    read_about,
    read_counts,
    read_failures,
    refuse_foreign,
    require,
)

_BATCH = 10_000
_LONGEST_REASON = 300
"""Bytes of a reason that are kept: with hundreds of thousands of failures they are most of the file."""
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""


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
                # Absolute: to SQLite some names, such as ":memory:", are no files.
                self._db = sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False)
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
        try:
            self._db.close()
        finally:
            self._lock.release()

    @property
    def planned(self) -> bool:
        """Whether it knows all rows."""
        with self._plainly():
            return is_planned(read_about(self._db))

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
            with self._sorting():
                self._supersede()
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('planned', 'true')")

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
            ((row.line, row.field, shortened(row.reason)) for row in batch if isinstance(row, Rejected)),
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
        try:
            self._db.close()
            # While it is still held: nobody else can have begun to use it.  Emptied first, so that a log that is left
            # beside it, should this be cut short, is never taken for that of the next.
            path = self.path.resolve()
            os.truncate(path, 0)
            for beside in (*(Path(f"{path}{suffix}") for suffix in _BESIDE), path):
                beside.unlink(missing_ok=True)
        except OSError:
            # What cannot be removed was never planned, and the next run begins it anew.
            return
        finally:
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
            unsettled = [Unsettled(*row) for row in found]
            require(all(row.since is None or is_moment(row.since) for row in unsettled), "a time of a row is no time")
            return unsettled

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
                self._db.execute(
                    "INSERT OR REPLACE INTO problem VALUES (?, ?, NULL, ?)", (line, code, shortened(reason))
                )

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
        # Before SQLite has touched it: what is not ours stays as it is.
        refuse_foreign(self.path, self._lock.head(HEAD))
        self._db.execute("PRAGMA busy_timeout = 10000")
        # Every commit reaches the disk: what is `sending` is known to be so after a loss of power.
        self._db.execute("PRAGMA synchronous = FULL")
        if not is_begun(self._db, self.path):
            # Not into a log: from now on the file itself says what it is.
            with self._transaction():
                for statement in TABLES.split(";"):
                    self._db.execute(statement)
                self._write_about(about)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        self._db.execute("PRAGMA journal_mode = WAL")
        found = read_about(self._db)
        if not is_planned(found):  # nothing was ever sent by it, so it may as well be of this
            with self._transaction():
                self._write_about(about)
            return
        if differences := differing(found, asdict(about)):
            counts = read_counts(self._db)
            raise JournalMismatch(
                f"{self.path} is the journal {differences}; it holds {counts.total:,} rows, {counts.left:,} of them"
                " unsettled. Give another journal to begin anew."
            )

    def _write_about(self, about: About) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO about VALUES (?, ?)",
            [(name, as_json(value)) for name, value in asdict(about).items()],
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

    @contextlib.contextmanager
    def _sorting(self) -> Iterator[None]:
        """Tell what a lack of room may mean where temporary files are needed, too."""
        try:
            yield
        except sqlite3.Error as error:
            if code(error) not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
                raise
            raise JournalError(
                f"no room for the journal {self.path}, or for sorting its rows ({error}), which takes up to 100 bytes a"
                f" row in the folder that SQLITE_TMPDIR names, or else in one for temporary files"
            ) from None

    def _plainly(self) -> contextlib.AbstractContextManager[None]:
        return plainly(self.path)


def shortened(reason: str) -> str:
    """A reason as it is kept: not too long, and without what cannot be written as UTF-8."""
    return reason.encode("utf-8", "backslashreplace")[:_LONGEST_REASON].decode("utf-8", "ignore")
