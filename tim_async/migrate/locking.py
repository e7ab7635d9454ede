"""A lock on a file, given up by the operating system itself when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from .errors import JournalError, JournalInUse

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR = 0x7FFF_0000
"""A byte that no journal reaches, beyond those that SQLite locks."""

_held: set[tuple[int, int]] = set()
"""Device and inode of what this process holds.  It must not be opened and closed a second time while SQLite has it:
on POSIX any close of a file ends all of the process's locks on it, SQLite's among them."""


class FileLock:
    """Holds a file for one run; the file is made if there is none.

    Not SQLite's own locks: those are given up between transactions.

    Args:
        path: the file.

    Raises:
        JournalInUse: somebody else holds it.
        JournalError: it cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if _key(path.stat()) in _held:
                raise JournalInUse(f"another run of this process holds the journal {path}")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = error.strerror or str(error)
            raise JournalError(
                f"cannot write the journal {path}: {reason}; another place can be named for it"
            ) from None
        self._key = _key(os.fstat(self._file))
        try:
            self._take()
        except OSError:
            os.close(self._file)
            raise JournalInUse(f"another run holds the journal {path}; wait for its end, or stop it") from None
        _held.add(self._key)

    def _take(self) -> None:
        if sys.platform == "win32":
            os.lseek(self._file, _FAR, os.SEEK_SET)
            msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let others have it; to be called after SQLite has closed it."""
        _held.discard(self._key)
        os.close(self._file)


def is_held(path: Path) -> bool:
    """Whether a run holds the journal at this moment."""
    try:
        if _key(path.stat()) in _held:
            return True
        FileLock(path).release()
    except JournalInUse:
        return True
    except (OSError, JournalError):  # not there, or not ours to write: nothing is known of a run
        return False
    return False


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
