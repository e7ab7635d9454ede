"""Files that are written as a whole: complete under their name, or not at all.

A file holds ids and what is said of them, so a new one is its owner's alone; one that is replaced keeps its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

PRIVATE = 0o600
"""The mode of a new file."""


@contextlib.contextmanager
def replacing(path: Path, choose: Callable[[Path], Path] | None = None) -> Iterator[IO[str]]:
    """Write a file as a whole: first beside it as ``.part``, then under its name.

    What is no regular file, such as ``/dev/stdout``, is written to as it is.  An empty file is not left: an earlier one
    is removed.

    Args:
        path: the file; a link to it remains one.
        choose: given the complete ``.part``, says under which name it goes; by default ``path``.

    Yields:
        The file, as UTF-8.

    Raises:
        OSError: it cannot be written.
    """
    target = followed(path)
    if _is_special(path):  # by its own name: that of a pipe behind /dev/stdout leads nowhere
        with _text(os.open(path, os.O_WRONLY)) as file:
            yield file
        return
    path = target
    part = path.with_name(path.name + ".part")
    # What a killed run has left there, or a link that somebody has planted: the name goes, never its target.
    part.unlink(missing_ok=True)
    try:
        with _text(create(part)) as file:
            yield file
            file.flush()
            # Or else a loss of power could leave the new name with nothing in it.
            os.fsync(file.fileno())
        if choose is not None:
            path = choose(part)
        if not part.stat().st_size:
            path.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError):  # there is none yet, or it belongs to another user
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def followed(path: Path) -> Path:
    """Where a path leads: links of one's own are followed, to the end.

    Raises:
        PermissionError: it is a link of another user, who may have planted it to have another file overwritten.
    """
    if sys.platform != "win32" and path.is_symlink():
        owner = path.lstat().st_uid
        # As Linux itself has it in folders that everybody may write to.
        if owner not in (os.geteuid(), path.parent.stat().st_uid):
            raise PermissionError(errno.EACCES, "it is a link of another user")
    return Path(os.path.realpath(path))


def create(path: Path) -> int:
    """Make a file that was not there, for its owner alone; neither a file nor a link that is there is opened.

    Returns:
        A descriptor for reading and writing.

    Raises:
        FileExistsError: there is something of that name, be it a link to nothing.
        OSError: it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, PRIVATE)


def _text(descriptor: int) -> IO[str]:
    # What is not UTF-8 comes as lone surrogates, whose replacement is also JSON's own escape of them.
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
