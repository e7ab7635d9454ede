"""A file as lines of text: plain or gzipped, a file or a pipe, with a bound on what one line or record may hold."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

from .errors import SourceError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST = 1 << 20
"""Bytes of the longest line that can be a row."""

TOO_LONG = f"is longer than {LONGEST:,} bytes, which no row is"
"""What there is to say of a longer one."""

UNCLOSED = "is not CSV: opens a quote that is not closed, or not at a field's end"
"""What there is to say of a record that does not end where it should."""

STDIN = "-"
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK = 1 << 16
_BUFFER = 1 << 18
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, such as an Excel workbook; export it as CSV",
    b"\xff\xfe": "UTF-16; convert it to UTF-8",
    b"\xfe\xff": "UTF-16; convert it to UTF-8",
    _GZIP: "gzipped twice; unpack it once",
    b"BZh91AY&SY": "compressed with bzip2; only gzip is read",
    b"\xfd7zXZ": "compressed with xz; only gzip is read",
    b"(\xb5/\xfd": "compressed with zstd; only gzip is read",
    b"SQLite format 3\x00": "an SQLite database, perhaps a journal; give the file with the rows",
    b"PAR1\x15": "Parquet; export it as CSV or JSON Lines",
}


class TextFile:
    """A file that can be read from its beginning more than once; a pipe is copied to a temporary file first.

    To be entered with ``with``.  Every method blocks, and may raise `SourceError`.

    Args:
        path: where it is; "-" for standard input.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name: str = "standard input" if path == STDIN else path
        self._copy: IO[bytes] | None = None
        self._room: IO[bytes] | None = None
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._copy, self._room):
            if file is not None:
                file.close()
        self._copy = self._room = None

    def reserve(self) -> None:
        """Make the file that a pipe is copied to, so that an interrupt of the copying meets nothing half made."""
        with self._plainly():
            if self._copy is None and not self._is_regular():
                self._make_room()

    def fingerprint(self) -> str:
        """The SHA-256 of its bytes, as hexadecimal digits."""
        with self._bytes() as stream, self._plainly():
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def head(self) -> bytes:
        """Its first bytes, unpacked, without a byte-order mark.

        Raises:
            SourceError: there are none, or they are not text.
        """
        with self._unpacked() as stream, self._plainly():
            head = stream.read(_BLOCK)
        for magic, what in _FOREIGN.items():
            if head.startswith(magic):
                raise SourceError(f"{self.name} is {what}")
        head = head.removeprefix(_BYTE_ORDER_MARK)
        if not head.strip():
            raise SourceError(f"{self.name} is empty")
        if b"\x00" in head:
            raise SourceError(f"{self.name} is binary, not text")
        return head

    def lines(self) -> Iterator[str | None]:
        """Each line, its end included; None for one that is too long to be a row.

        Bytes that are not UTF-8 become lone surrogates: only who needs them need refuse them.
        """
        begin = _BYTE_ORDER_MARK
        with self._unpacked() as stream, self._plainly():
            while line := stream.readline(LONGEST + 1):
                if len(line) > LONGEST and not line.endswith(b"\n"):
                    while (line := stream.readline(_BLOCK)) and not line.endswith(b"\n"):
                        pass
                    yield None
                else:
                    yield line.removeprefix(begin).decode("utf-8", "surrogateescape")
                begin = b""

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[IO[bytes]]:
        with self._bytes() as stream:
            with self._plainly():
                start = stream.peek(len(_GZIP))[: len(_GZIP)]
            # A single byte that begins an archive is an archive that was cut.
            if start not in (_GZIP, _GZIP[:1]):
                yield stream
                return
            with gzip.open(stream) as unpacked:
                yield cast("IO[bytes]", unpacked)

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[io.BufferedReader]:
        """The file at its beginning, whoever else reads it meanwhile."""
        with self._plainly():
            if self._copy is None and not self._is_regular():
                self._copy = self._copied()
        if self._copy is not None:
            raw: io.RawIOBase = _FromStart(self._copy)
        else:
            with self._plainly():
                raw = Path(self.path).open("rb", 0)  # noqa: SIM115 - closed by what buffers it
        stream: io.BufferedReader = io.BufferedReader(raw, _BUFFER)
        with stream:
            yield stream

    def _is_regular(self) -> bool:
        if self.path == STDIN:
            return False
        mode = Path(self.path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(f"{self.path} is a folder, not a file")
        return stat.S_ISREG(mode)

    def _copied(self) -> IO[bytes]:
        """A copy of what can be read only once; it has no name, so that nothing is left of it however this ends."""
        if self._begun:  # what is left of it would pass for all of it
            raise SourceError(f"{self.name} can be read only once, and has been already")
        copy, self._room = self._make_room(), None
        try:
            with contextlib.ExitStack() as stack:
                source = _stdin() if self.path == STDIN else stack.enter_context(Path(self.path).open("rb"))
                self._begun = True
                while block := source.read1(_BLOCK):
                    copy.write(block)
            copy.flush()
        except BaseException:
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                copy.close()
            raise
        return copy

    def _make_room(self) -> IO[bytes]:
        if self._room is None:
            self._room = tempfile.TemporaryFile()  # noqa: SIM115 - kept until the end
        return self._room

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        """Turn what reading raises into one plain error."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name} is a cut or damaged gzip file: {error}") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SourceError(
                    f"no room in {tempfile.gettempdir()} for a copy of {self.name}; set TMPDIR to a folder with more"
                ) from None
            raise SourceError(f"cannot read {self.name}: {error.strerror or error}") from None


_RETURN = "\ud800"
"""Stands for a carriage return within a line; what was decoded as UTF-8 cannot hold it."""


class LineError(Exception):
    """The next line cannot be part of the record that is being read."""


class Feed:
    """Lines for a CSV reader, and which of them the record that is being read has taken.

    Iterating over it may raise `LineError`, and go on after that.  A carriage return that does not end a line is
    hidden from the reader, which would refuse it outside quotes, where ``csv`` and all that is made with it have
    written it; `restored` brings it back.

    Args:
        lines: of a file, from its beginning.

    Attributes:
        first: the number of the record's first line.
        taken: its lines so far.
        has_returns: whether carriage returns were hidden in it.
    """

    def __init__(self, lines: Iterator[str | None]) -> None:
        self.first: int = 1
        self.taken: list[str | None] = []
        self.has_returns: bool = False
        self._lines = lines
        self._again: list[str | None] = []
        self._size = 0
        self._apart = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self.taken and self.first < self._apart:
            raise LineError(UNCLOSED)
        line = self._again.pop() if self._again else next(self._lines)
        self.taken.append(line)
        if line is None:
            raise LineError(TOO_LONG if len(self.taken) == 1 else UNCLOSED)
        self._size += len(line)
        if self._size > LONGEST and len(self.taken) > 1:
            raise LineError(UNCLOSED)
        return self._hidden(line) if "\r" in line else line

    def _hidden(self, line: str) -> str:
        text = line.rstrip("\r\n")
        if "\r" not in text:
            return line
        self.has_returns = True
        return text.replace("\r", _RETURN) + line[len(text) :]

    def restored(self, fields: list[str]) -> list[str]:
        """The fields of the record with its carriage returns."""
        return [field.replace(_RETURN, "\r") for field in fields]

    @property
    def is_blank(self) -> bool:
        """Whether the record is a line with nothing on it."""
        return not (self.taken[0] or "").strip()

    def begin(self) -> None:
        """A record begins with the next line."""
        self.first += len(self.taken)
        self.taken.clear()
        self.has_returns = False
        self._size = 0

    def give_back(self, after: int) -> None:
        """Have all but so many of the record's lines read again."""
        self._again.extend(reversed(self.taken[after:]))
        del self.taken[after:]

    def take_apart(self) -> None:
        """Have the lines read again that an opening quote too many has swallowed."""
        # One of them that opens a quote, too, and does not close it, would come to the same end as this record.  Not
        # to try keeps a file that is full of such lines from being read as often as it has lines.
        self._apart = max(self._apart, self.first + len(self.taken) - 1)
        self.give_back(1)

    def rest(self) -> Iterator[tuple[int, str]]:
        """The record's lines but the first and blank ones, with their numbers."""
        for number, line in enumerate(self.taken[1:], self.first + 1):
            if line and not line.isspace():
                yield number, line


class _FromStart(io.RawIOBase):
    """A file from its beginning, at a place of its own: several may read the same file in turns."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = cast("io.BufferedRandom", file)
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._file.seek(self._at)
        read = self._file.readinto(buffer)
        self._at += read
        return read


def _stdin() -> io.BufferedReader:
    """Standard input as bytes.

    Raises:
        SourceError: there is none.
    """
    stdin = getattr(sys.stdin, "buffer", None)
    if stdin is None or stdin.closed:
        raise SourceError("there is no standard input")
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # what stands in for it in a test is no file of the system
            # If another process has made it so that it does not wait, a pause of the writer would look like the end.
            os.set_blocking(stdin.fileno(), True)
    return cast("io.BufferedReader", stdin)
