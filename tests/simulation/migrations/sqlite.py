"""SQLite on a simulated disk: the part of ``sqlite3`` that the product uses, by ``apsw``, which allows a VFS in Python.

It is another build of the same SQLite; `_File` reads and writes all of its files.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

from .disk import Disk, Killed

_numbers = itertools.count()


class _System(apsw.VFS):
    """SQLite's file system."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.name = f"simulated-{next(_numbers)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's names
        if name is None or not flags[0] & (
            apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        ):
            return apsw.VFSFile("", name, flags)  # a temporary file, which leaves nothing
        return _File(self.disk, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.disk.change("delete", Path(name).name, lambda: super(_System, self).xDelete(name, sync))
        self.disk.synchronized(Path(name).name)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        size = self.xFileSize()
        there = max(0, min(len(data), size - offset))
        old = self.xRead(there, offset) if there else b""
        new = bytes(data)

        def write() -> None:
            super(_File, self).xWrite(new, offset)
            self._disk.written(self._name, offset, old, new, size)

        self._changed("write", write)

    def _changed(self, what: str, change: Callable[[], None]) -> None:
        try:
            self._disk.change(what, self._name, change)
        except OSError as error:
            raise apsw.exception_for(apsw.SQLITE_FULL if error.errno == errno.ENOSPC else apsw.SQLITE_IOERR) from None

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.change("truncate", self._name, lambda: super(_File, self).xTruncate(size))
        self._disk.synchronized(self._name)

    def xSync(self, flags: int) -> None:  # noqa: N802

        def synchronize() -> None:
            super(_File, self).xSync(flags)
            self._disk.synchronized(self._name)

        self._changed("sync", synchronize)


class Cursor:
    """The part of ``sqlite3.Cursor`` that the product uses."""

    def __init__(self, db: apsw.Connection, cursor: apsw.Cursor) -> None:
        self._db = db
        self._cursor = cursor
        self.lastrowid: int | None = db.last_insert_rowid()

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row."""
        with _translated():
            return next(self._cursor, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the remaining rows."""
        with _translated():
            return list(self._cursor)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())


class Connection:
    """The part of ``sqlite3.Connection`` that the product uses."""

    def __init__(self, system: _System, path: str, *, uri: bool) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        with _translated():
            self._db = apsw.Connection(path, flags, system.name)

    def execute(self, statement: str, args: Sequence[Any] | dict[str, Any] = ()) -> Cursor:
        """Run one statement."""
        with _translated():
            return Cursor(self._db, self._db.cursor().execute(statement, args))

    def executemany(self, statement: str, many: Iterable[Iterable[Any]]) -> None:
        """Run one statement several times."""
        with _translated():
            self._db.cursor().executemany(statement, (tuple(args) for args in many))

    def executescript(self, script: str) -> None:
        """Run several statements."""
        with _translated():
            list(self._db.cursor().execute(script))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db.in_transaction

    def close(self) -> None:
        """Close it; the last connection to a journal checkpoints its log; if it fails, the next one does."""
        with contextlib.suppress(apsw.Error):
            self._db.close(True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate exceptions to those of ``sqlite3``."""
    try:
        yield
    except Killed:
        raise
    except apsw.Error as error:
        kind: type[sqlite3.Error] = sqlite3.OperationalError
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            kind = sqlite3.DatabaseError
        translated = kind(str(error))
        translated.sqlite_errorcode = getattr(error, "extendedresult", 0)
        raise translated from None


@contextlib.contextmanager
def simulated(disk: Disk) -> Iterator[list[Connection]]:
    """Make every ``sqlite3.connect`` open a file on a disk; yield the list of connections."""
    system = _System(disk)
    made: list[Connection] = []

    def connect(path: Any, *, uri: bool = False, **_: Any) -> Connection:
        made.append(Connection(system, str(path), uri=uri))
        return made[-1]

    with mock.patch.object(sqlite3, "connect", connect):
        try:
            yield made
        finally:
            for connection in made:
                connection.close()
            system.unregister()
