"""The standard streams of the process: always open, able to encode any text, and failing in one way only.

A failed write (a closed pipe, a full disk, a stream closed before the start) raises `OutputLost`.  That is not an
OSError, so that it is never mistaken for the failure of a file.
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
    """A failed write to a standard stream.

    Attributes:
        stream: the name of the stream.
        reason: the reason; "" when the reader closed the stream, as ``head`` does.
    """

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"cannot write to {stream}: {reason or 'it was closed'}")
        self.stream = stream
        self.reason = reason


def prepare() -> None:
    """Replace the standard streams with ones that raise `OutputLost`; call this once, at the start."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Reserve the descriptor, so that no file or connection opened later gets it.  Writes to it fail.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)


def abandon(error: OutputLost) -> None:
    """Report a lost stream once, on standard error if possible, and discard later writes to it."""
    known = False
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Output) and raw.label == error.stream:
            known, raw.lost = raw.lost, True
    if error.reason and not known:
        try:
            sys.stderr.write(f"Error: {error}\n")
        except OutputLost as other:
            abandon(other)


def flush() -> None:
    """Flush the standard streams; discard the rest of a lost one, on which the interpreter would fail at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OutputLost as error:
            abandon(error)


def _prepared(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    raw: io.RawIOBase
    if isinstance(stream, io.TextIOWrapper):
        buffer = stream.buffer
        raw = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer  # unbuffered with python -u
    else:
        raw = io.FileIO(number, "r", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(raw, number)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",  # without UTF-8, show names as code points
        # As with python -u, except that the writer flushes a partial line itself.
        line_buffering=getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False),
    )


class _Output(io.RawIOBase):
    """The raw stream below a standard stream.

    Attributes:
        label: the name of the stream.
        lost: whether the loss was reported; later writes are discarded.
    """

    def __init__(self, raw: io.RawIOBase, number: int) -> None:
        self.label = _NAMES[number]
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
            number = error.errno or errno.EBADF  # without a number if the file is read-only
        except ValueError:  # closed
            number = errno.EBADF
        raise OutputLost(self.label, "" if number == errno.EPIPE else os.strerror(number))
