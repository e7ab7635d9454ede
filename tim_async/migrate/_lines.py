"""A file as text that is read once: plain or packed, a regular file or a pipe, in any encoding."""

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ._encodings import likely
from .errors import SourceError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST = 1 << 20
"""Characters of the longest line, record or document that can be a row."""

TOO_LONG = f"is longer than {LONGEST:,} characters, which no row is"
"""What there is to say of a longer one."""

STDIN = "-"
UTF_8 = "utf-8"
_GZIP = b"\x1f\x8b"
_ZSTD = b"(\xb5/\xfd"
_ZSTD_SKIPPED = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""Begins a frame without content, with which pzstd begins a file."""
_BLOCK = 1 << 16
_BUFFER = 1 << 18
_UNDECODED = re.compile("[\udc80-\udcff]")
"""Stands for a byte that is not text in the encoding."""
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, such as an Excel workbook; export it as CSV",
    _GZIP: "compressed twice; unpack it once",
    _ZSTD: "compressed twice; unpack it once",
    b"BZh91AY&SY": "compressed with bzip2; only gzip and zstd are read",
    b"\xfd7zXZ": "compressed with xz; only gzip and zstd are read",
    b"SQLite format 3\x00": "an SQLite database, perhaps a journal; give the file with the rows",
    b"PAR1\x15": "Parquet; export it as CSV or JSON Lines",
}


def text_encoding(name: str) -> str:
    """Python's own name of a text encoding.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ValueError(f"no encoding {name!r}; such as utf-8, utf-16, gb18030, big5, shift_jis or cp1252") from None


@dataclass(frozen=True, slots=True)
class Text:
    """A file that is open.

    Attributes:
        head: the first characters, those of at most 65,536 bytes.  They are part of ``stream``, too.
        sample: the bytes of the head.
        is_cut: whether there may be more than the head.
        encoding: Python's name of its encoding.
        stream: its characters.  Bytes that are not text in the encoding become lone surrogates: only where they are
            needed need they be refused.
        end: what ends its lines.
    """

    head: str
    sample: bytes
    is_cut: bool
    encoding: str
    stream: io.TextIOWrapper
    end: str

    def lines(self) -> Iterator[str | None]:
        """Each line, its end included; None for one that is too long to be a row."""
        readline, end = self.stream.readline, self.end
        while line := readline(LONGEST + 1):
            if len(line) > LONGEST and not line.endswith(end):
                while (line := readline(_BLOCK)) and not line.endswith(end):
                    pass
                yield None
            else:
                yield line

    def hint(self, text: str) -> str:
        """The likely encoding, for the end of a complaint of a part that is not in this one; "" for no idea."""
        if self.encoding != UTF_8 or not _UNDECODED.search(text):
            return ""
        sample = self.sample if _UNDECODED.search(self.head) else text.encode(UTF_8, "surrogateescape")
        return f"; --encoding {likely(sample)} may be meant"


class TextFile:
    """A file, and the SHA-256 of what was read of it.

    Every method blocks, and may raise `SourceError`.

    Args:
        path: where it is; "-" for standard input.
        encoding: the name of its encoding, as `text_encoding` gives it.
    """

    def __init__(self, path: str, encoding: str = UTF_8) -> None:
        self.path = path
        self.name: str = "standard input" if path == STDIN else path
        self._encoding = encoding
        self._begun = False
        self._digest = ""

    def fingerprint(self) -> str:
        """The SHA-256 of its bytes, as hexadecimal digits.

        A regular file that was not read to its end is read for it, and so is a pipe of which nothing was read.

        Returns:
            "" when there is no such file, when a pipe was empty, or when only a part of it was read.
        """
        with self._plainly():
            if not self._digest and (self._is_regular() or not self._begun):
                with contextlib.suppress(FileNotFoundError), self._bytes() as stream:
                    while stream.read(_BUFFER):
                        pass
        return self._digest

    @contextlib.contextmanager
    def open(self) -> Iterator[Text]:
        """Open the file; a pipe only once.  Errors of reading it are `SourceError` until it is closed."""
        with self._plainly(), self._bytes() as stream, _unpacked(stream, self.name) as unpacked:
            sample = unpacked.read(_BLOCK)
            is_cut = len(sample) == _BLOCK
            self._refuse_foreign(sample)
            if self._encoding == UTF_8:
                sample = sample.removeprefix(codecs.BOM_UTF8)
            head = codecs.getincrementaldecoder(self._encoding)("surrogateescape").decode(sample, not is_cut)
            if not head.strip() and not is_cut:
                raise SourceError(f"{self.name} is empty")
            if "\x00" in head:
                hint = f"; --encoding {guess} may be meant" if (guess := likely(sample)) else ""
                raise SourceError(f"{self.name} is binary, not text{hint}")
            end = "\r" if "\r" in head.strip() and "\n" not in head else "\n"
            joined = io.BufferedReader(_Joined(sample, unpacked), _BUFFER)
            characters = io.TextIOWrapper(joined, self._encoding, "surrogateescape", end)
            yield Text(head, sample, is_cut, self._encoding, characters, end)

    def _refuse_foreign(self, sample: bytes) -> None:
        for magic, what in _FOREIGN.items():
            if sample.startswith(magic):
                raise SourceError(f"{self.name} is {what}")
        if self._encoding == UTF_8 and sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            guess = likely(sample)
            raise SourceError(f"{self.name} is {guess.upper()}; --encoding {guess} reads it")

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[io.BufferedReader]:
        """Its bytes; at their end, their SHA-256 is known."""
        regular = self._is_regular()
        if self._begun and not regular:  # what is left of it would pass for all of it
            raise SourceError(f"{self.name} can be read only once, and has been already")
        with contextlib.ExitStack() as stack:
            opened = _stdin() if self.path == STDIN else Path(self.path).open("rb")  # noqa: SIM115 - entered at once
            source = stack.enter_context(opened)
            self._begun = True
            yield io.BufferedReader(_Hashed(source, self._know), _BUFFER)

    def _know(self, digest: str, length: int) -> None:
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
    def _plainly(self) -> Iterator[None]:
        """Turn what reading raises into one plain error."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name} is a cut or damaged gzip file: {error}") from None
        except UnicodeError as error:
            raise SourceError(f"{self.name} is not {self._encoding}: {error}") from None
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: {error.strerror or error}") from None


@contextlib.contextmanager
def _unpacked(stream: io.BufferedReader, name: str) -> Iterator[IO[bytes]]:
    """What is in a file, if it is an archive of a kind that is read; or else the file itself."""
    magic = stream.read(len(_ZSTD))
    whole = cast("IO[bytes]", io.BufferedReader(_Joined(magic, cast("IO[bytes]", stream)), _BUFFER))
    if magic == _ZSTD or _ZSTD_SKIPPED.fullmatch(magic):
        zstd = _zstd(name)
        try:
            with zstd.open(whole) as unpacked:
                yield unpacked
        except (EOFError, zstd.ZstdError) as error:
            raise SourceError(f"{name} is a cut or damaged zstd file: {error}") from None
    elif magic[: len(_GZIP)] in (_GZIP, _GZIP[:1]):  # a single byte that begins an archive is one that was cut
        with gzip.open(whole) as unpacked:
            yield cast("IO[bytes]", unpacked)
    else:
        yield whole


def _zstd(name: str) -> Any:
    """Python's own module, or its backport.  The package zstandard does not tell a cut file from a whole one."""
    for module in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(module)
    raise SourceError(f"{name} is compressed with zstd; unpack it, or: pip install backports.zstd")


class _Hashed(io.RawIOBase):
    """Bytes that are hashed as they are read.

    Args:
        source: where they are read.
        know: called at their end, with the SHA-256 and how many they were.
    """

    def __init__(self, source: io.BufferedIOBase, know: Any) -> None:
        self._source = source
        self._know = know
        self._hash = hashlib.sha256()
        self._length = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        read = self._source.readinto1(buffer)
        self._hash.update(memoryview(buffer)[:read])
        self._length += read
        if not read:
            self._know(self._hash.hexdigest(), self._length)
        return read


class _Joined(io.RawIOBase):
    """Bytes that were read already, and those after them."""

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
    """Standard input as bytes.

    By a reader of its own: at its end, the interpreter aborts if a thread is reading by the usual one.

    Raises:
        SourceError: there is none.
    """
    stdin = getattr(sys.stdin, "buffer", None)
    if stdin is None or stdin.closed:
        raise SourceError("there is no standard input")
    try:
        number = os.dup(stdin.fileno())
    except OSError:  # what stands in for it in a test is no file of the system
        yield cast("io.BufferedReader", stdin)
        return
    if sys.platform != "win32":
        # If another process has made it so that it does not wait, a pause of the writer would look like the end.
        os.set_blocking(number, True)
    with open(number, "rb") as own:  # noqa: PTH123 - a descriptor
        yield own
