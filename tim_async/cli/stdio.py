"""The standard streams of the process: always open, able to show any text, and failing in one way only.

A failed write (a closed pipe, a full disk, a stream closed before the start) raises `OutputLost`, which is no OSError
and so is never mistaken for the failure of a file.
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
    """A standard stream cannot be written to.

    Attributes:
        stream: its name.
        reason: why; "" when its reader has closed it, as ``head`` does.
    """

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"cannot write to {stream}: {reason or 'it was closed'}")
        self.stream = stream
        self.reason = reason


def prepare() -> None:
    """Replace the standard streams by ones that fail as described above; call it once, at the start."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # A file or a connection opened later must not get its number.  This one refuses writes.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)


def abandon(error: OutputLost) -> None:
    """Report a lost stream on standard error where possible, once, and drop what is written to it from now on."""
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
    """Write what is left in the standard streams, and drop it where that fails: the interpreter would fail with it."""
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
        errors="backslashreplace",  # without UTF-8, names are shown as code points
        # As with python -u, except that the writer flushes a partial line itself.
        line_buffering=getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False),
    )


class _Output(io.RawIOBase):
    """The raw side of a standard stream.

    Attributes:
        called: the stream's name.
        lost: whether the stream is known as lost; what is written to it is dropped.
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
            number = error.errno or errno.EBADF  # Python refuses to write to a read-only file without a number
        except ValueError:  # it was closed
            number = errno.EBADF
        raise OutputLost(self.label, "" if number == errno.EPIPE else os.strerror(number))
