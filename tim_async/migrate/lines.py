"""A file as lines of text: plain or gzipped, a file or a pipe, with a bound on what one line may hold."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self, cast

from .errors import SourceError

LONGEST = 1 << 20
"""Bytes of the longest line that can be a row."""

STDIN = "-"
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 16
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, such as an Excel workbook; export it as CSV",
    b"\xff\xfe": "UTF-16; convert it to UTF-8",
    b"\xfe\xff": "UTF-16; convert it to UTF-8",
    b"BZh": "compressed with bzip2; only gzip is read",
    b"\xfd7zXZ": "compressed with xz; only gzip is read",
    b"(\xb5/\xfd": "compressed with zstd; only gzip is read",
    b"SQLite format 3": "an SQLite database, perhaps a journal; give the file with the rows",
    b"PAR1": "Parquet; export it as CSV or JSON Lines",
}


class TextFile:
    """A file that can be read from its beginning more than once; a pipe is copied to a temporary file first.

    To be entered with ``with``.  Every method blocks, and may raise `SourceError`.

    Args:
        path: where it is; "-" for standard input.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == STDIN else path
        self._copy: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def fingerprint(self) -> str:
        """The SHA-256 of its bytes, as hexadecimal digits."""
        with self._bytes() as stream, self._plainly():
            return hashlib.file_digest(cast("io.BufferedReader", stream), "sha256").hexdigest()

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
        head = head.removeprefix(b"\xef\xbb\xbf")
        if not head.strip():
            raise SourceError(f"{self.name} is empty")
        if b"\x00" in head:
            raise SourceError(f"{self.name} is binary, not text")
        return head

    def lines(self) -> Iterator[str | None]:
        """Each line, its end included; None for one that is too long to be a row.

        Bytes that are not UTF-8 become lone surrogates: only who needs them need refuse them.
        """
        with self._unpacked() as stream, self._plainly():
            line = stream.readline(LONGEST + 1).removeprefix(b"\xef\xbb\xbf")
            while line:
                if len(line) > LONGEST and not line.endswith(b"\n"):
                    while (line := stream.readline(_BLOCK)) and not line.endswith(b"\n"):
                        pass
                    yield None
                else:
                    yield line.decode("utf-8", "surrogateescape")
                line = stream.readline(LONGEST + 1)

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[IO[bytes]]:
        with self._bytes() as stream:
            with self._plainly():
                packed = stream.read(2) == _GZIP
                stream.seek(0)
            if not packed:
                yield stream
                return
            with gzip.open(stream) as unpacked:
                yield cast("IO[bytes]", unpacked)

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[IO[bytes]]:
        """The file at its beginning."""
        with self._plainly():
            if self._copy is None and not self._is_regular():
                self._copy = self._copied()
        if self._copy is not None:
            self._copy.seek(0)
            yield self._copy
            return
        with self._plainly():
            stream = Path(self.path).open("rb", buffering=1 << 18)  # noqa: SIM115 - closed by the `with` below
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
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - kept until the end
        try:
            with contextlib.ExitStack() as stack:
                source = sys.stdin.buffer if self.path == STDIN else stack.enter_context(Path(self.path).open("rb"))
                while block := cast("io.BufferedReader", source).read1(_BLOCK):
                    copy.write(block)
        except BaseException:
            copy.close()
            raise
        return copy

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        """Turn what reading raises into one plain error."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name} is a cut or damaged gzip file: {error}") from None
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: {error.strerror or error}") from None
