"""A disk: real files in a folder, each of whose writes may be the last one of the process that makes it.

Every operation that changes a file counts, twice: before it and after it, as a *point* at which the process may be
killed.  A loss of power also takes away what was written and not synchronized: of that, each sector is there or not.
What a process does after it was killed, as its functions unwind, is undone.
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
"""Bytes that are written as a whole."""
_CHANGING = ("fsync", "replace", "unlink", "truncate", "chmod")
"""Functions of ``os`` by which the product changes files that are not SQLite's."""
_TAKING = ("write", "sync", "fsync")
"""Changes that a disk refuses that takes no more."""


class Killed(BaseException):
    """The process has ended within a function; nothing may catch this."""


class _Written(NamedTuple):
    """Something written and not synchronized."""

    offset: int
    old: bytes
    new: bytes
    size: int
    """The file's before."""


class Disk:
    """A folder, and what befalls it.

    Args:
        folder: with all files; no folders in it.
        dice: decides what a loss of power leaves.
        note: told of each point.

    Attributes:
        counting: whether a process is under way that may be killed, or fail.
        points: how many there were.
        kill_at: the number of the point at which the process is killed; 0 for none.
        power: whether it is killed by a loss of power.
        fail_at: the number of the point from which on no change succeeds; 0 for none.
        full: whether it is full then, and not broken.
        dying: called when the process is killed.
        died: what the files held when the process was killed; None while nothing was.
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
            Killed: here the process ends.
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
        """Whether no change succeeds."""
        return self.counting and 0 < self.fail_at <= self.points and self.died is None

    def written(self, name: str, offset: int, old: bytes, new: bytes, size: int) -> None:
        """Note what was written and is not synchronized yet."""
        self._unsynced.setdefault(name, []).append(_Written(offset, old, new, size))

    def synchronized(self, name: str) -> None:
        """Note that all that was written to a file stays."""
        self._unsynced.pop(name, None)

    # The end of a process, and what it leaves

    def die(self) -> None:
        """The process ends now."""
        self.died = {path.name: path.read_bytes() for path in sorted(self._folder.iterdir())}
        if self.power:
            for name in sorted(self._unsynced):
                if name in self.died:
                    self.died[name] = self._torn(self.died[name], self._unsynced[name])
            self._unsynced.clear()
        self._note("disk", "died", "power" if self.power else "kill")
        self.dying()

    def recover(self) -> None:
        """Give the files what they held when the process ended; nobody may have them open."""
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
        """What a loss of power leaves: all that is synchronized, and some of the sectors of the rest."""
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

    # What is not SQLite's

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Have the changes that the product makes by ``os`` be points, too."""

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
