"""The standard streams of the process: there at any rate, able to show any text, and failing in one way only.

Whatever keeps a stream from taking what is written to it (a pipe that was closed, a full disk, a stream that was
closed before the start) is raised as `OutputLost`.  That is no OSError, and so never taken for the failure of a file.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NAMES = {1: "standard output", 2: "standard error"}


class OutputLost(Exception):
    """A standard stream takes no more.

    Attributes:
        stream: what it is called.
        reason: why; "" when its reader has closed it, such as ``head`` that has seen enough.
    """

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"cannot write to {stream}: {reason or 'it was closed'}")
        self.stream = stream
        self.reason = reason


def prepare() -> None:
    """Replace the standard streams by ones that fail as described above; to be called once, at the start."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # A file or a connection that is opened later must not get its number.  Nothing can be written to this one.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)


def lose(error: OutputLost) -> None:
    """Say what was lost, if anybody can still be told, and write nothing more to that stream."""
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Output) and raw.called == error.stream:
            raw.lost = True
    if error.reason:
        try:
            sys.stderr.write(f"Error: {error}\n")
        except OutputLost as other:
            lose(other)


def _prepared(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    raw: io.RawIOBase
    if isinstance(stream, io.TextIOWrapper):
        buffer = stream.buffer
        raw = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer  # the latter with python -u
    else:
        raw = io.FileIO(number, "r", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(raw, number)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",  # where there is no UTF-8, names are shown as code points
        # As with python -u, nearly: what must be seen before its line ends is flushed by whoever writes it.
        line_buffering=getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False),
    )


class _Output(io.RawIOBase):
    """A stream's bytes on their way out.

    Attributes:
        called: what the stream is called.
        lost: whether everything is dropped: that it is lost has been said.
    """

    def __init__(self, raw: io.RawIOBase, number: int) -> None:
        self.called = _NAMES[number]
        self.lost = False
        self._raw = raw
        self._number = number

    @property
    def name(self) -> str:
        return f"<{'stdout' if self._number == 1 else 'stderr'}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: ReadableBuffer, /) -> int | None:
        if self.lost:
            return memoryview(data).nbytes
        try:
            return self._raw.write(data)
        except OSError as error:
            number = error.errno or errno.EBADF  # Python's own refusal to write to what can only be read has none
        except ValueError:  # it was closed
            number = errno.EBADF
        raise OutputLost(self.called, "" if number == errno.EPIPE else os.strerror(number))
