"""A lock on a file, given up by the operating system itself when the process ends, however it ends.

On POSIX any close of a file ends all of the process's locks on it, SQLite's among them.  So what this process holds
and reads is known here, and what is opened beside SQLite's own is closed only when nothing depends on those locks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .errors import JournalError, JournalInUse
from .files import create, followed

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR = 0x7FFF_0000
"""A byte that no journal reaches, beyond those that SQLite locks."""
_PAUSES = (0.0, 0.001, 0.01, 0.05, 0.1)
"""Seconds between attempts: whoever only looks whether a run holds the file has it for a moment."""
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What the systems say of a lock that somebody else has."""

_Key = tuple[int, int]
"""Device and inode."""

_guard = threading.Lock()
_held: dict[_Key, int] = {}
"""What runs of this process hold, and the descriptor of each."""
_read: Counter[_Key] = Counter()
"""What this process reads through SQLite, and how many times at once."""
_kept: dict[_Key, list[int]] = {}
"""Descriptors that would have been closed, had the file not been read at that moment."""


class FileLock:
    """Holds a file for one run; the file is made if there is none.

    Not SQLite's own locks: those are given up between transactions.

    Args:
        path: the file.

    Raises:
        JournalInUse: somebody else holds it.
        JournalError: it cannot be opened for writing, or cannot be locked.
    """

    def __init__(self, path: Path) -> None:
        pauses = iter(_PAUSES)
        while not self._take(path):
            pause = next(pauses, None)
            if pause is None:
                raise JournalInUse(f"another run holds the journal {path}; wait for its end, or stop it")
            time.sleep(pause)

    def head(self, length: int) -> bytes:
        """The first bytes of the file, at most so many."""
        with _guard:
            return _head(_held[self._key], length)

    def release(self) -> None:
        """Let others have it; to be called after SQLite has closed it."""
        with _guard:
            _close(_held.pop(self._key), self._key)

    def _take(self, path: Path) -> bool:
        """Take the lock; False if somebody else has it, or has just removed the file."""
        with _guard:
            with contextlib.suppress(OSError):
                _refuse_if_held(path, _key(path.stat()))
            try:
                file = _opened_or_made(path)
                if file is None:
                    return False
                key = _key(os.fstat(file))
                taken = False
                try:
                    _refuse_if_held(path, key)
                    _check_regular(os.fstat(file))
                    taken = _lock(file, shared=False) and _is_still(path, key)
                finally:
                    if not taken:
                        _close(file, key)
            except OSError as error:
                reason = error.strerror or str(error)
                raise JournalError(
                    f"cannot write the journal {path}: {reason}; another place can be named for it"
                ) from None
            if taken:
                self._key = key
                _held[key] = file
            return taken


def _opened_or_made(path: Path) -> int | None:
    """Open a file for writing, and make it if there is none; None if it came or went meanwhile."""
    place = followed(path)
    try:
        # Without blocking, should it be a pipe.
        return os.open(place, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        try:
            return create(place)
        except FileExistsError:
            return None


def is_held(path: Path) -> bool:
    """Whether a run holds the journal at this moment; False also where that cannot be known."""
    with _guard, contextlib.suppress(OSError), _opened(path) as (file, key):
        return key in _held or not _lock(file, shared=True)
    return False  # not there, or not ours to read


def head_of(path: Path, length: int) -> bytes:
    """The first bytes of a journal, at most so many, whoever holds or reads it.

    Raises:
        OSError: it cannot be read.
    """
    with _guard, _opened(path) as (file, _):
        return _head(file, length)


@contextlib.contextmanager
def being_read(path: Path) -> Iterator[None]:
    """Keeps what is done here from ending the locks under which SQLite reads a file.

    Raises:
        OSError: the file is not there.
    """
    key = _key(path.stat())
    with _guard:
        _read[key] += 1
    try:
        yield
    finally:
        with _guard:
            _read[key] -= 1
            if not _read[key]:
                del _read[key]
                for file in _kept.pop(key, ()):
                    os.close(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, _Key]]:
    """A file opened for a look; the guard must be held."""
    found = path.stat()
    _check_regular(found)
    if _key(found) in _held:
        yield _held[_key(found)], _key(found)
        return
    kept = _kept.get(_key(found))
    file = kept.pop() if kept else os.open(path, os.O_RDONLY)
    key = _key(os.fstat(file))
    try:
        yield file, key
    finally:
        _close(file, key)


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def _refuse_if_held(path: Path, key: _Key) -> None:
    if key in _held:
        raise JournalInUse(f"another run of this process holds the journal {path}")


def _is_still(path: Path, key: _Key) -> bool:
    """Whether the file has not been removed, or replaced, before it was locked."""
    try:
        return _key(path.stat()) == key
    except FileNotFoundError:
        return False


def _lock(file: int, *, shared: bool) -> bool:
    """Lock a file; False if somebody else has it.

    Raises:
        OSError: it cannot be locked at all, as on some network drives.
    """
    try:
        if sys.platform == "win32":
            os.lseek(file, _FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _head(file: int, length: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, length)


def _close(file: int, key: _Key) -> None:
    """Give a lock up and close the file, if need be later."""
    if sys.platform != "win32" and _read[key]:
        fcntl.flock(file, fcntl.LOCK_UN)
        _kept.setdefault(key, []).append(file)
    else:
        os.close(file)


def _key(found: os.stat_result) -> _Key:
    return found.st_dev, found.st_ino
