"""Atomic writing of files: complete under their name, or not at all.

The files hold ids, so only its owner may read a new one; one that is replaced keeps its mode.
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

_PRIVATE = 0o600
"""The mode of a new file."""


@contextlib.contextmanager
def replacing(path: Path, choose: Callable[[Path], Path] | None = None) -> Iterator[IO[str]]:
    """Write a file atomically: first beside it as ``.part``, which is then renamed.

    Anything but a regular file, such as ``/dev/stdout``, is written to directly.  An empty file is not kept: an earlier
    one is removed.

    Args:
        path: the file; a link to it remains one.
        choose: returns the final name, given the complete ``.part``; by default ``path``.

    Yields:
        The file, as UTF-8.

    Raises:
        OSError: it cannot be written.
    """
    target = followed(path)
    if _is_special(path):  # not `target`: the target of /dev/stdout is no path when it is a pipe
        with _open_text(os.open(path, os.O_WRONLY)) as file:
            yield file
        return
    part = part_of(target)
    # The remains of a killed run, or a planted link: this removes the name, never its target.
    part.unlink(missing_ok=True)
    try:
        with _open_text(create(part)) as file:
            yield file
            file.flush()
            # Otherwise a power failure could leave an empty file under the new name.
            os.fsync(file.fileno())
        if choose is not None:
            target = choose(part)
        if not part.stat().st_size:
            target.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError):  # no earlier file, or another user's
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return the name under which `replacing` first writes a file; another file of that name is lost."""
    return Path(f"{os.path.realpath(path)}.part")


def followed(path: Path) -> Path:
    """Return the final target of a path; follow only links of the process's user or the folder's owner.

    Raises:
        PermissionError: a link of another user, who may have planted it to have another file overwritten.
    """
    if sys.platform != "win32" and path.is_symlink():
        owner = path.lstat().st_uid
        # As Linux does in world-writable folders (fs.protected_symlinks).
        if owner not in (os.geteuid(), path.parent.stat().st_uid):
            raise PermissionError(errno.EACCES, "it is a link of another user")
    return Path(os.path.realpath(path))


def create(path: Path) -> int:
    """Create a file that only its owner may read; never open an existing file or link.

    Returns:
        A descriptor for reading and writing.

    Raises:
        FileExistsError: the name is taken, even by a dangling link.
        OSError: the file cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, _PRIVATE)


def _open_text(descriptor: int) -> IO[str]:
    # Bytes that are not UTF-8 come as lone surrogates; "backslashreplace" writes JSON's own escape of them.
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
