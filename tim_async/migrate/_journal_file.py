"""The file of a journal: its lock, its format, how it is opened, and the errors of SQLite.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from filelock import FileLock, Timeout
except ImportError:
    raise ImportError("a journal needs filelock: pip install 'tim-async[cli]'") from None

from .errors import JournalError

APPLICATION = 0x54494D4A  # "TIMJ", which `file` and SQLite show
VERSION = 2


def journal_files(path: Path) -> list[Path]:
    """Return all files of a journal, which exist at times: its own, SQLite's and its lock."""
    return [Path(f"{os.path.realpath(path)}{suffix}") for suffix in ("", "-wal", "-shm", "-journal", ".lock")]


# The lock


def lock_of(path: Path, timeout: float = 0.0) -> FileLock:
    """Return the lock of a journal: a file beside the journal itself, even if a link names the journal."""
    lock = f"{os.path.realpath(path)}.lock"
    return FileLock(lock, timeout=timeout, mode=0o600, thread_local=False, preserve_lock_file=True)


def is_held(path: Path) -> bool:
    """Whether a run holds the journal at this moment; False also if that cannot be determined."""
    lock = lock_of(path)
    if sys.platform == "win32":
        try:
            with lock:
                return False
        except Timeout:
            return True
        except OSError:  # no right to lock it
            return False
    import fcntl

    # Like filelock, but shared: readers do not block each other, and need no right to write.
    try:
        file = os.open(lock.lock_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


# The format


def is_journal(path: Path, *, any_version: bool = False) -> bool:
    """Whether a file is a journal; False if it is empty.

    Args:
        path: the file.
        any_version: accept journals of other releases, too.

    Raises:
        JournalError: it does not exist, is not a journal, or has another version.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise JournalError(f"there is no journal {path}") from None
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror or error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{path} is not a journal: it is not a regular file")
    if not os.access(path, os.R_OK):
        raise JournalError(f"cannot read the journal {path}: {os.strerror(errno.EACCES)}")
    # Opened by SQLite only, and as immutable, so that SQLite takes no lock and does not touch the files beside it.  If
    # it were opened here, closing it would release, by the rules of POSIX, the locks of a run in this process, and the
    # next to close the journal would remove the log that the run still writes to.
    try:
        with contextlib.closing(opened(path, "mode=ro&immutable=1")) as db:
            begun = is_begun(db, path, any_version=any_version)
    except sqlite3.Error as error:
        # A transaction was cut short, which SQLite rolls back, or the log is being written into the file: opening it
        # in the normal way will show.
        if code(error) == sqlite3.SQLITE_CORRUPT or Path(f"{os.path.realpath(path)}-journal").exists():
            return True
        if code(error) == sqlite3.SQLITE_NOTADB:
            raise JournalError(f"{path} is not a migration's journal") from None
        raise JournalError(f"cannot read the journal {path}: {error}") from None
    except UnicodeDecodeError:  # the message about a damaged table, which quotes its bytes: the same
        return True
    if not begun and found.st_size:  # a single byte, which SQLite takes for an empty file
        raise JournalError(f"{path} is not a migration's journal")
    return begun


def is_begun(db: sqlite3.Connection, path: Path, *, any_version: bool = False) -> bool:
    """Whether an open database is a journal; False if it is empty.

    Raises:
        sqlite3.Error: it is not a database.
        JournalError: it is another database, or has another version.
    """
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION:
        if not db.execute("PRAGMA page_count").fetchone()[0]:
            return False
        raise JournalError(f"{path} is an SQLite database, but not a migration's journal")
    if version != VERSION and not any_version:
        raise JournalError(
            f"{path} is a journal of version {version}, and this release reads version {VERSION}; finish it with the"
            " release that began it, or use --restart to start over, or another --journal"
        )
    return True


@contextlib.contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn the exceptions of SQLite into a `JournalError`.

    Args:
        path: the journal.
        doing: the operation, "read" or "write".

    Raises:
        JournalError: instead of any error of SQLite, or of a value that SQLite cannot hold.
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
        # SQLite's message about a damaged table quotes its bytes.
        message = error.object.decode("utf-8", "backslashreplace")
        raise JournalError(f"{path} is damaged, or not a migration's journal: {message}") from None


def _explained(path: Path, error: sqlite3.Error, doing: str) -> str:
    match code(error):
        case sqlite3.SQLITE_FULL:
            return f"no space for the journal {path}; free some space and run the same command again"
        case sqlite3.SQLITE_IOERR:
            return f"the disk of the journal {path} fails or is full ({error}); run the command again once it works"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM if doing == "read":
            return f"cannot read the journal {path}: {error}; a copy of it and of {path.name}-wal can be read elsewhere"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"cannot write the journal {path}: {error}; use another --journal"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return f"{path} is damaged, or not a migration's journal: {error}"
    return f"the journal {path}: {error}"


def code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code; 0 for an error that Python's module raises itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def require(condition: bool, otherwise: str) -> None:
    """Check a condition on values that were read: a column of SQLite may hold values of any type.

    Raises:
        sqlite3.DatabaseError: it does not hold.
    """
    if not condition:
        raise sqlite3.DatabaseError(f"it is damaged: {otherwise}")


def fetch(db: sqlite3.Connection, query: str, *args: Any) -> list[tuple[Any, ...]]:
    """Return all rows of a query: a traceback that is kept must not keep a cursor, and so the journal, open."""
    return db.execute(query, args).fetchall()


# Reading at any time


@contextlib.contextmanager
def reading(path: Path, *, writable: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a journal at any time, whether or not a run holds it.

    Args:
        path: the journal.
        writable: whether it will be written to.

    Raises:
        JournalError: it cannot be read, or is not a journal.
    """
    if not is_journal(path):
        raise JournalError(f"{path} is empty: no run has begun it")
    with (
        explained(path, "write" if writable else "read"),
        contextlib.closing(_connect(path, writable=writable)) as db,
    ):
        try:
            yield db
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"the journal {path} is damaged: {error!r}") from None


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    held = is_held(path)
    # While a run holds it, read-only.  Otherwise the last connection that closes it also tidies up: it writes the log
    # that a killed run has left into the journal, and removes the log.
    db = opened(path, "mode=ro" if held and not writable else "mode=rw")
    try:
        db.execute("PRAGMA busy_timeout = 10000")
        if not writable:
            db.execute("PRAGMA query_only = ON")
        if not is_begun(db, path):
            raise JournalError(f"{path} is empty: no run has begun it")
    except sqlite3.OperationalError as error:
        db.close()
        # A complete journal can be read as it is where neither the file nor its folder is writable.
        if held or writable or code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or _has_log(path):
            raise
        return opened(path, "mode=ro&immutable=1")
    except BaseException:
        db.close()
        raise
    return db


def opened(path: Path, query: str) -> sqlite3.Connection:
    """Open a database by its URI with a query, such as ``mode=ro``."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?{query}", uri=True, isolation_level=None)


def _has_log(path: Path) -> bool:
    """Whether the log of a journal may have changes that are not in the journal yet."""
    try:
        return Path(f"{path.resolve()}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def empty(path: Path) -> None:
    """Empty a database, and remove SQLite's files beside it."""
    os.truncate(path, 0)
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
