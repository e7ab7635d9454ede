"""The standard streams of the process: always open, able to encode any text, and failing in one way only.

A failed write (a closed pipe, a full disk, a stream closed before the start) raises `OutputLost`.  That is not an
OSError, so that it is never mistaken for the failure of a file.
"""

from __future__ import annotations

import contextlib
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
        reason: the reason; "" when the reader closed the stream, as ``head`` does.
    """

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"cannot write to {stream}: {reason or 'it was closed'}")
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


def give_up(error: OutputLost) -> None:
    """Report a lost stream on standard error, unless its reader closed it; call this once, at the end.

    Discards the rest of the output, on which the interpreter would fail at exit.
    """
    with contextlib.suppress(OutputLost):
        sys.stderr.write(f"Error: {error}\n" if error.reason else "")
        sys.stderr.flush()
    with contextlib.suppress(OutputLost):
        sys.stdout.flush()
    _Output.discards = True


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
        discards: whether all of them discard what is written.
    """

    discards = False

    def __init__(self, raw: io.RawIOBase, number: int) -> None:
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
        if self.discards:
            return memoryview(data).nbytes
        try:
            return self._raw.write(data)
        except OSError as error:
            number = error.errno or errno.EBADF  # without a number if the file is read-only
        except ValueError:  # closed
            number = errno.EBADF
        raise OutputLost(_NAMES[self._number], "" if number == errno.EPIPE else os.strerror(number))
