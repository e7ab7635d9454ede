"""Text files that are read once: plain or compressed, regular files or pipes, in any encoding."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import importlib
import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ._encodings import likely
from .errors import SourceError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST = 1 << 20
"""The maximum length of a line, record or document that can be a row, characters."""

TOO_LONG = f"is longer than {LONGEST:,} characters, which no row is"
"""The reason for rejecting a longer one."""

STDIN = "-"
UTF_8 = "utf-8"
_GZIP = b"\x1f\x8b"
_ZSTD = b"(\xb5/\xfd"
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""The magic number of a skippable frame, with which pzstd begins a file."""
_BLOCK = 1 << 16
_BUFFER = 1 << 18
_UNDECODED = re.compile("[\udc80-\udcff]")
"""A lone surrogate: the escape of a byte that is invalid in the encoding."""
_UNSUPPORTED = {
    b"PK\x03\x04": "a zip archive, such as an Excel workbook; export it as CSV",
    _GZIP: "compressed twice; decompress it once",
    _ZSTD: "compressed twice; decompress it once",
    b"BZh91AY&SY": "compressed with bzip2; only gzip and zstd are read",
    b"\xfd7zXZ": "compressed with xz; only gzip and zstd are read",
    b"SQLite format 3\x00": "an SQLite database, perhaps a journal; give the file with the rows",
    b"PAR1\x15": "Parquet; export it as CSV or JSON Lines",
}


def text_encoding(name: str) -> str:
    """Return Python's canonical name of a text encoding.

    Raises:
        ValueError: an unknown encoding.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        known = "utf-8, utf-16, gb18030, big5, shift_jis or cp1252"
        raise ValueError(f"unknown encoding {name!r}; use one such as {known}") from None


@dataclass(frozen=True, slots=True)
class Text:
    """An open text file.

    Attributes:
        head: its first characters, those of at most 65,536 bytes; ``stream`` has them, too.
        is_cut: whether the file may continue after the head.
        stream: its characters.  Invalid bytes become lone surrogates, so that only fields that are read reject them.
        end: its line terminator.
    """

    head: str
    is_cut: bool
    stream: io.TextIOWrapper
    end: str

    def lines(self) -> Iterator[str | None]:
        """Yield each line with its terminator; None for a line that is too long to be a row."""
        readline, end = self.stream.readline, self.end
        while line := readline(LONGEST + 1):
            if len(line) > LONGEST and not line.endswith(end):
                while (line := readline(_BLOCK)) and not line.endswith(end):
                    pass
                yield None
            else:
                yield line

    def hint(self, text: str) -> str:
        """Return a hint at the likely encoding, to append to the error about a text with invalid bytes; else ""."""
        if self.stream.encoding != UTF_8 or not _UNDECODED.search(text):
            return ""
        sample = self.head if _UNDECODED.search(self.head) else text
        return _encoding_hint(sample.encode(UTF_8, "surrogateescape"))


class TextFile:
    """A text file, and the SHA-256 of its bytes.

    Every method blocks, and may raise `SourceError`.

    Args:
        path: its path; "-" for standard input.
        encoding: the canonical name of its encoding, from `text_encoding`.
    """

    def __init__(self, path: str, encoding: str = UTF_8) -> None:
        self.path = path
        self.name: str = "standard input" if path == STDIN else path
        self._encoding = encoding
        self._opened = False
        self._digest = ""

    def fingerprint(self) -> str:
        """Return the SHA-256 of its bytes, as hexadecimal digits.

        It first reads a regular file that was not read to its end, and a pipe that was not opened yet.

        Returns:
            "" when the file does not exist, when a pipe was empty, or when only a part of a pipe was read.
        """
        with self._read_errors():
            if not self._digest and (self._is_regular() or not self._opened):
                with contextlib.suppress(FileNotFoundError), self._bytes() as stream:
                    while stream.read(_BUFFER):
                        pass
        return self._digest

    @contextlib.contextmanager
    def open(self) -> Iterator[Text]:
        """Open the file, a pipe only once; until it is closed, read errors are raised as `SourceError`."""
        with self._read_errors(), self._bytes() as stream, _decompressed(stream, self.name) as decompressed:
            sample = decompressed.read(_BLOCK)
            is_cut = len(sample) == _BLOCK
            self._refuse_unsupported(sample)
            if self._encoding == UTF_8:
                sample = sample.removeprefix(codecs.BOM_UTF8)
            head = codecs.getincrementaldecoder(self._encoding)("surrogateescape").decode(sample, not is_cut)
            if not head.strip() and not is_cut:
                raise SourceError(f"{self.name} is empty")
            if "\x00" in head:
                raise SourceError(f"{self.name} is binary, not text{_encoding_hint(sample)}")
            end = "\r" if "\r" in head.strip() and "\n" not in head else "\n"
            joined = io.BufferedReader(_PrefixedReader(sample, decompressed), _BUFFER)
            characters = io.TextIOWrapper(joined, self._encoding, "surrogateescape", end)
            yield Text(head, is_cut, characters, end)

    def _refuse_unsupported(self, sample: bytes) -> None:
        for magic, description in _UNSUPPORTED.items():
            if sample.startswith(magic):
                raise SourceError(f"{self.name} is {description}")
        if self._encoding == UTF_8 and sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            guess = likely(sample)
            raise SourceError(f"{self.name} is {guess.upper()}; --encoding {guess} reads it")

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[io.BufferedReader]:
        """Open its bytes; reading them to the end stores their SHA-256."""
        regular = self._is_regular()
        if self._opened and not regular:  # the rest would pass for the whole
            raise SourceError(f"{self.name} can be read only once, and has been already")
        with _stdin() if self.path == STDIN else Path(self.path).open("rb") as source:
            self._opened = True
            yield io.BufferedReader(_HashingReader(source, self._store_digest), _BUFFER)

    def _store_digest(self, digest: str, length: int) -> None:
        if length or self._is_regular():
            self._digest = digest

    def _is_regular(self) -> bool:
        if self.path == STDIN:
            return False
        try:
            mode = Path(self.path).stat().st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode):
            raise SourceError(f"{self.path} is a folder, not a file")
        return stat.S_ISREG(mode)

    @contextlib.contextmanager
    def _read_errors(self) -> Iterator[None]:
        """Raise every read error as a `SourceError`."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name} is a truncated or damaged gzip file: {error}") from None
        except UnicodeError as error:
            raise SourceError(f"{self.name} is not {self._encoding}: {error}") from None
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: {error.strerror or error}") from None


def _encoding_hint(sample: bytes) -> str:
    """Return the likely encoding of a sample, to continue an error; "" when the sample is no text."""
    return f"; try --encoding {encoding}" if (encoding := likely(sample)) else ""


@contextlib.contextmanager
def _decompressed(stream: io.BufferedReader, name: str) -> Iterator[IO[bytes]]:
    """Decompress a gzip or zstd file; yield any other file as it is."""
    magic = stream.read(len(_ZSTD))
    whole = cast("IO[bytes]", io.BufferedReader(_PrefixedReader(magic, cast("IO[bytes]", stream)), _BUFFER))
    if magic == _ZSTD or _ZSTD_SKIPPABLE.fullmatch(magic):
        zstd = _zstd(name)
        try:
            with zstd.open(whole) as decompressed:
                yield decompressed
        except (EOFError, zstd.ZstdError) as error:
            raise SourceError(f"{name} is a truncated or damaged zstd file: {error}") from None
    elif magic[: len(_GZIP)] in (_GZIP, _GZIP[:1]):  # or a gzip file cut after one byte
        with gzip.open(whole) as decompressed:
            yield cast("IO[bytes]", decompressed)
    else:
        yield whole


def _zstd(name: str) -> Any:
    """Import Python's own module, or its backport.  The package zstandard does not detect truncated files."""
    for module in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(module)
    raise SourceError(f"{name} is compressed with zstd; decompress it, or: pip install backports.zstd")


class _HashingReader(io.RawIOBase):
    """A raw stream that hashes the bytes that are read from it.

    Args:
        source: the bytes.
        on_end: called at their end, with their SHA-256 and their number.
    """

    def __init__(self, source: io.BufferedIOBase, on_end: Callable[[str, int], None]) -> None:
        self._source = source
        self._on_end = on_end
        self._hash = hashlib.sha256()
        self._length = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        read = self._source.readinto1(buffer)
        self._hash.update(memoryview(buffer)[:read])
        self._length += read
        if not read:
            self._on_end(self._hash.hexdigest(), self._length)
        return read


class _PrefixedReader(io.RawIOBase):
    """A raw stream of bytes that were read ahead, and the stream after them."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        read = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(read)] = read
        return len(read)


@contextlib.contextmanager
def _stdin() -> Iterator[io.BufferedReader]:
    """Open standard input as bytes.

    With a reader of its own: at exit, the interpreter aborts while a thread reads from ``sys.stdin``.

    Raises:
        SourceError: there is no standard input.
    """
    stdin = getattr(sys.stdin, "buffer", None)
    if stdin is None or stdin.closed:
        raise SourceError("there is no standard input")
    try:
        number = os.dup(stdin.fileno())
    except OSError:  # a test's replacement has no descriptor
        yield cast("io.BufferedReader", stdin)
        return
    if sys.platform != "win32":
        # Another process may have set O_NONBLOCK, with which a pause of the writer would look like the end.
        os.set_blocking(number, True)
    with open(number, "rb") as own:  # noqa: PTH123 - a descriptor
        yield own
