"""A disk: real files in a folder, where each write may be the last one of its process.

There is a *point*, at which the process may be killed, before and after every operation that changes a file.  After a
power loss, each sector that was written and not synchronized is either kept or lost.  Changes by a killed process,
while its functions unwind, are undone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

SECTOR = 512
"""Bytes that are written atomically."""
_CHANGING = ("fsync", "replace", "unlink", "truncate", "chmod")
"""Functions of ``os`` by which the product changes files other than SQLite's."""
_TAKING = ("write", "sync", "fsync")
"""Changes that a full disk refuses."""


class Killed(BaseException):
    """The process was killed within a function; nothing may catch this."""


class _Written(NamedTuple):
    """A write that is not synchronized."""

    offset: int
    old: bytes
    new: bytes
    size: int
    """The file's size before the write."""


class Disk:
    """A folder, and its faults.

    Args:
        folder: the folder with all files, without subfolders.
        dice: decides which sectors survive a power loss.
        note: receives each point.

    Attributes:
        counting: whether a process runs that may be killed or fail.
        points: the number of points so far.
        kill_at: the number of the point at which the process is killed; 0 for none.
        power: whether it is killed by a power loss.
        fail_at: the number of the point from which on all changes fail; 0 for none.
        full: whether they fail because the disk is full, instead of broken.
        dying: called when the process is killed.
        died: the contents of the files when the process was killed; None before.
    """

    def __init__(self, folder: Path, dice: random.Random, note: Callable[..., None]) -> None:
        self._folder = folder
        self._dice = dice
        self._note = note
        self._unsynced: dict[str, list[_Written]] = {}
        self.counting = False
        self.points = 0
        self.kill_at = 0
        self.power = False
        self.fail_at = 0
        self.full = True
        self.dying: Callable[[], object] = lambda: None
        self.died: dict[str, bytes] | None = None

    # Points

    def point(self, what: str, name: str) -> None:
        """Count a point.

        Raises:
            Killed: the process is killed here.
        """
        if self.died is not None or not self.counting:
            return
        self.points += 1
        self._note("disk", what, name)
        if self.points == self.kill_at:
            self.die()
            raise Killed

    def change(self, what: str, name: str, change: Callable[[], Any]) -> Any:
        """Make a change between two points.

        Raises:
            OSError: the disk fails.
        """
        self.point(f"before {what}", name)
        if self.fails and what in _TAKING:
            number = errno.ENOSPC if self.full else errno.EIO
            raise OSError(number, os.strerror(number))
        done = change()
        self.point(f"after {what}", name)
        return done

    @property
    def fails(self) -> bool:
        """Whether all changes fail."""
        return self.counting and 0 < self.fail_at <= self.points and self.died is None

    def written(self, name: str, offset: int, old: bytes, new: bytes, size: int) -> None:
        """Record a write that is not synchronized yet."""
        self._unsynced.setdefault(name, []).append(_Written(offset, old, new, size))

    def synchronized(self, name: str) -> None:
        """Record that all writes to a file are durable."""
        self._unsynced.pop(name, None)

    # The end of a process, and the files it leaves

    def die(self) -> None:
        """Kill the process now."""
        self.died = {path.name: path.read_bytes() for path in sorted(self._folder.iterdir())}
        if self.power:
            for name in sorted(self._unsynced):
                if name in self.died:
                    self.died[name] = self._torn(self.died[name], self._unsynced[name])
            self._unsynced.clear()
        self._note("disk", "died", "power" if self.power else "kill")
        self.dying()

    def recover(self) -> None:
        """Restore the files' contents at the end of the process; they must not be open."""
        found, self.died = self.died, None
        assert found is not None
        for path in self._folder.iterdir():
            if path.name not in found:
                path.unlink()
        for name, content in found.items():
            path = self._folder / name
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def _torn(self, content: bytes, unsynced: list[_Written]) -> bytes:
        """Return a file's content after a power loss: all synchronized writes, and some sectors of the others."""
        found = bytearray(content)
        for written in reversed(unsynced):
            found[written.offset : written.offset + len(written.new)] = written.old
            del found[written.size :]
        share = self._dice.choice((0.0, 0.5, 0.9, 1.0))
        for written in unsynced:
            for start in range(0, len(written.new), SECTOR):
                if self._dice.random() < share:
                    part = written.new[start : start + SECTOR]
                    offset = written.offset + start
                    found.extend(bytes(max(0, offset + len(part) - len(found))))
                    found[offset : offset + len(part)] = part
        return bytes(found)

    # Files other than SQLite's

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Add points to the product's changes by ``os``."""

        def changing(name: str) -> Any:
            real = getattr(os, name)

            def change(*args: Any, **kwargs: Any) -> Any:
                shown = "" if isinstance(args[0], int) else Path(args[0]).name
                return self.change(name, shown, lambda: real(*args, **kwargs))

            return change

        with contextlib.ExitStack() as patched:
            for name in _CHANGING:
                patched.enter_context(mock.patch.object(os, name, changing(name)))
            yield
