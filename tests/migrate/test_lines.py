from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import sqlite3
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import strategies as st

from tim_async.migrate import SourceError
from tim_async.migrate import _lines as lines
from tim_async.migrate._encodings import likely
from tim_async.migrate._lines import Text, TextFile, text_encoding

BOM = b"\xef\xbb\xbf"
MIB = 1 << 20


def read(path: str | Path, encoding: str = "utf-8") -> list[str | None]:
    with TextFile(str(path), encoding).open() as text:
        return list(text.lines())


def whole(path: str | Path) -> bytes:
    """Return the text of a file."""
    return b"".join(filter(None, as_bytes(read(path))))


def head(path: str | Path) -> Text:
    """Return the beginning of a file."""
    with TextFile(str(path)).open() as text:
        return text


def as_bytes(read: list[str | None]) -> list[bytes | None]:
    return [None if line is None else line.encode("utf-8", "surrogateescape") for line in read]


def gzipped(data: bytes) -> bytes:
    """Compress without a time stamp, for the same bytes at any time."""
    return gzip.compress(data, mtime=0)


def members(data: bytes, cuts: list[int]) -> bytes:
    """Return a gzip file of several members, some of them empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join(gzipped(data[start:end]) for start, end in pairwise(places))


@contextlib.contextmanager
def pipe(data: bytes) -> Iterator[int]:
    """Yield the reading end of a pipe to which a thread writes."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb", 0) as stream:
            stream.writelines(data[start : start + 1000] for start in range(0, len(data), 1000))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)
        writer.join()


@contextlib.contextmanager
def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> Iterator[None]:
    with (
        pipe(data) as reading,
        os.fdopen(reading, encoding="utf-8", closefd=False) as stream,
        monkeypatch.context() as patch,
    ):
        patch.setattr("sys.stdin", stream)
        yield


# Lines


@given(
    st.binary() | st.text("ab\r\n\n,é🦊").map(str.encode),
    st.booleans(),
    st.none() | st.lists(st.integers(0), max_size=3),
)
@example(b"\n\r\n\r\r\n", True, None)
@example(b"\x1c", False, None)  # white space in text, but not in bytes
def test_every_byte_is_read(tmp_path: Path, data: bytes, bom: bool, cuts: list[int] | None) -> None:
    """Lines are split at whichever line end the file has; only a byte-order mark is left out."""
    text = data.strip()
    if (
        not data.decode(errors="surrogateescape").strip()
        or b"\0" in data
        or data.startswith((b"\x1f", BOM, b"\xff\xfe", b"\xfe\xff", *lines._UNSUPPORTED))
    ):
        return
    path = tmp_path / "file"
    written = BOM * bom + data
    path.write_bytes(written if cuts is None else members(written, cuts))
    end = b"\r" if b"\r" in text and b"\n" not in data else b"\n"
    *ended, rest = data.split(end)
    assert as_bytes(read(path)) == [line + end for line in ended] + [rest] * bool(rest)


LIMIT = 8


@given(st.lists(st.text("abé", max_size=3 * LIMIT), min_size=1), st.booleans(), st.booleans(), st.booleans())
@example(["a" * LIMIT], True, False, False)
@example(["a" * (LIMIT - 1), "b"], True, True, False)
def test_a_line_that_is_too_long_is_skipped(
    tmp_path: Path, texts: list[str], bom: bool, ended: bool, packed: bool
) -> None:
    """It counts as one line, and its neighbours are read."""
    data = "\n".join(texts) + "\n" * ended
    if not data.strip():
        return
    *full, rest = data.split("\n")
    expected = [line + "\n" if len(line) < LIMIT + 1 else None for line in full]
    expected += [rest if len(rest) <= LIMIT else None] * bool(rest)
    path = tmp_path / "file"
    written = BOM * bom + data.encode()
    path.write_bytes(gzipped(written) if packed else written)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LONGEST", LIMIT)
        patch.setattr(lines, "_BLOCK", 3)
        assert read(path) == expected


@pytest.mark.parametrize("pack", [bytes, gzipped, zstd.compress])
def test_a_long_line_is_skipped_in_bounded_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack((b"x" * 10 * MIB + b"\nshort\n") * 3))
    with TextFile(str(path)).open() as text:
        tracemalloc.start()
        try:
            found = list(text.lines())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found == [None, "short\n"] * 3
    assert peak < 8 * MIB


# Archives


SAMPLE = b"GroupId,Member_Account,UnreadMsgNum\n" + b"".join(
    b"g%d,m%d,%d\n" % (n % 7, n, n * 37 % 101) for n in range(60)
)


SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00size"
"""A frame of zstd without content."""


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv", "rows", "rows.zip"])
def test_compression_is_detected_without_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for data in (
        gzipped(SAMPLE),
        zstd.compress(SAMPLE),
        zstd.compress(SAMPLE[:90]) + zstd.compress(SAMPLE[90:]),
        b"".join(SKIPPED + zstd.compress(part) for part in (SAMPLE[:90], SAMPLE[90:])),  # as pzstd writes it
        SAMPLE,
    ):
        path.write_bytes(data)
        assert whole(path) == SAMPLE


@pytest.mark.parametrize(("data", "message"), [(SKIPPED, "empty"), (SKIPPED[:-1], "a truncated or damaged zstd file")])
def test_an_archive_without_content_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "rows.csv.zst"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"is {message}"):
        read(path)


@pytest.mark.parametrize("parts", [[SAMPLE], [SAMPLE[:100], SAMPLE[100:]], [b"", SAMPLE], [SAMPLE, b""]])
@pytest.mark.parametrize("pack", [gzipped, zstd.compress])
def test_a_truncated_archive_is_refused(tmp_path: Path, parts: list[bytes], pack: Callable[[bytes], bytes]) -> None:
    """Except between two parts, where it cannot be detected."""
    packed = [pack(part) for part in parts]
    complete = {0, *accumulate(map(len, packed))}
    path = tmp_path / "rows.csv.gz"
    shortest = 1 if pack is gzipped else 4
    for length in set(range(shortest, max(complete))) - complete:
        path.write_bytes(b"".join(packed)[:length])
        with pytest.raises(SourceError, match=r"rows.csv.gz is a truncated or damaged (gzip|zstd) file|is empty"):
            read(path)


@given(st.integers(0, len(gzipped(SAMPLE)) - 1), st.integers(1, 255))
def test_a_damaged_gzip_file_is_refused_or_read_completely(tmp_path: Path, place: int, change: int) -> None:
    packed = bytearray(gzipped(SAMPLE))
    packed[place] ^= change
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(packed)
    with contextlib.suppress(SourceError):
        assert whole(path) == SAMPLE


@pytest.mark.parametrize("garbage", [b"garbage", b"\n", b"\x1f", b"\x1f\x8b", SAMPLE])
@pytest.mark.parametrize("pack", [gzipped, zstd.compress])
def test_garbage_after_an_archive_is_refused(tmp_path: Path, garbage: bytes, pack: Callable[[bytes], bytes]) -> None:
    """It may have been another part."""
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(pack(SAMPLE) + garbage)
    with pytest.raises(SourceError, match=r"truncated or damaged (gzip|zstd) file"):
        read(path)


def test_zeros_after_a_gzip_file_are_ignored(tmp_path: Path) -> None:
    """Tapes and block devices add them."""
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzipped(SAMPLE) + bytes(512))
    assert whole(path) == SAMPLE


def test_a_python_without_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "rows.csv.zst"
    path.write_bytes(zstd.compress(SAMPLE))
    with pytest.raises(SourceError, match=r"compressed with zstd; decompress it, or: pip install backports.zstd$"):
        read(path)


# Encodings


@pytest.mark.parametrize(
    ("encoding", "texts"),
    {
        "gb18030": ["管理员,1\n爱好,2", "张伟,李娜,王芳", "GroupId,备注\n@TGS#1,中文"],
        "big5": ["管理員,陳大文,1", "GroupId,備註\n@TGS#1,王小明", "臺灣"],
        "shift_jis": ["ユーザー,1", "田中さん,3", "GroupId,備考\n1,テスト"],
        "cp949": ["사용자,그룹,안녕하세요 여러분 반갑습니다"],
        "cp1252": ["André,1", "Größe,2\nMüller", "it\u2019s “quoted”", "naïve café", "señor Ñandú ÀÉÎ"],
        "utf-16-le": ["GroupId,管理员\n1,2,3,4,5"],
        "utf-16-be": ["GroupId,管理员\n1,2,3,4,5"],
        "utf-16": ["GroupId"],
        "utf-32": ["GroupId"],
    }.items(),
)
def test_the_likely_encoding(encoding: str, texts: list[str]) -> None:
    """Only a hint: no file is decoded with it."""
    assert [likely(text.encode(encoding)) for text in texts] == [encoding] * len(texts)
    assert likely(b"\x81") == "latin-1"
    assert likely(b"\x7fELF\x02\x00\x00\x00") == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "utf-16-le", "gb18030", "big5", "cp949"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_given_encoding(tmp_path: Path, encoding: str, packed: bool) -> None:
    path = tmp_path / "rows.csv"
    text = "GroupId,中文\r\n" + "漢字,1\n" * 50_000
    path.write_bytes(gzipped(text.encode(encoding)) if packed else text.encode(encoding))
    assert read(path, text_encoding(encoding)) == text.splitlines(keepends=True)


def test_bytes_that_are_not_in_the_encoding(tmp_path: Path) -> None:
    """They are passed on if they can be; otherwise the file is refused."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b"caf\xe9\n")
    assert read(path) == read(path, text_encoding("ascii")) == ["caf\udce9\n"]
    path.write_bytes("good\n".encode("utf-16-le") + b"\x00\xd8")
    with pytest.raises(SourceError, match=r"rows.csv is not utf-16-le: "):
        read(path, text_encoding("utf-16-le"))


@pytest.mark.parametrize("name", ["", "no-such", "rot13", "hex", "a\0b", "é"])
def test_an_unknown_encoding(name: str) -> None:
    with pytest.raises(ValueError, match="unknown encoding"):
        text_encoding(name)


# Binary files


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo("rows.csv")
        info.size = len(SAMPLE)
        archive.addfile(info, io.BytesIO(SAMPLE))
    return stream.getvalue()


def database() -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE row (line)")
        return db.serialize()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(), "a zip archive, such as an Excel workbook; export it as CSV"),
        (database(), "an SQLite database"),
        (SAMPLE.decode().encode("utf-16"), "UTF-16; --encoding utf-16 reads it"),
        (b"\xfe\xff" + SAMPLE.decode().encode("utf-16-be"), "UTF-16; --encoding utf-16 reads it"),
        (SAMPLE.decode().encode("utf-16-le"), "binary, not text; try --encoding utf-16-le"),
        (SAMPLE.decode().encode("utf-16-be"), "binary, not text; try --encoding utf-16-be"),
        (SAMPLE.decode().encode("utf-32"), "UTF-32; --encoding utf-32 reads it"),
        (bz2.compress(SAMPLE), "compressed with bzip2"),
        (lzma.compress(SAMPLE), "compressed with xz"),
        (b"(\xb5/\xfd" + SAMPLE, "a truncated or damaged zstd file|compressed twice"),
        (b"PAR1\x15\x04" + SAMPLE, "Parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "binary"),
        (b"\x7fELF\x02\x01\x01\x00", "binary"),
        (b"GroupId,\x00\n", "binary"),
        (b"", "empty"),
        (BOM, "empty"),
        (BOM + b"\r\n", "empty"),
        (b" \r\n\t\n\x0b", "empty"),
    ],
)
def test_binary_and_empty_files_are_refused(tmp_path: Path, data: bytes, message: str, packed: bool) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(gzipped(data) if packed else data)
    with pytest.raises(SourceError, match=f"^{path} is ({message})"):
        head(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzipped(gzipped(SAMPLE)), "compressed twice"),
        (zstd.compress(zstd.compress(SAMPLE)), "compressed twice"),
        (tarred(), "binary"),
    ],
)
def test_binary_content_of_an_archive_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message):
        head(path)


@pytest.mark.parametrize("name", ["BZhID", "PAR1", "PKID", "SQLite format 3", "(x)"])
def test_text_that_begins_like_a_binary_format_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{name},GroupId\n", encoding="utf-8")
    assert head(path).head == f"{name},GroupId\n"


# Paths and permissions


def test_a_missing_file_has_no_fingerprint(tmp_path: Path) -> None:
    """That is no error, because its rows may be in the journal; reading it, or another bad path, is."""
    for path, message in (
        (tmp_path / "none.csv", "cannot read .*none.csv: No such file"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / ("x" * 300), "cannot read .*too long"),
    ):
        file = TextFile(str(path))
        with pytest.raises(SourceError, match=message), file.open():
            pass
    assert TextFile(str(tmp_path / "none.csv")).fingerprint() == ""
    for path in (tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(SourceError):
            TextFile(str(path)).fingerprint()


def test_a_symlink_loop(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.symlink_to(path)
    with pytest.raises(SourceError, match="cannot read"):
        TextFile(str(path)).fingerprint()


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Drop the privileges of root, to which permissions do not apply."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(SAMPLE)
    path.chmod(0)
    with unprivileged(), pytest.raises(SourceError, match="Permission denied"):
        head(path)


@pytest.mark.parametrize("after", [0, 1 << 20])
def test_a_read_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    class Failing(io.FileIO):
        def readinto1(self, buffer: Any) -> int:
            if self.tell() >= after:
                raise OSError(5, "Input/output error")
            return self.readinto(buffer) or 0

    path = tmp_path / "rows.csv"
    path.write_bytes(SAMPLE * 10_000)
    monkeypatch.setattr(Path, "open", lambda self, *_: Failing(self))
    for use in (TextFile(str(path)).fingerprint, lambda: read(path)):
        with pytest.raises(SourceError, match=r"cannot read .*rows.csv: Input/output error"):
            use()


@pytest.mark.parametrize("data", [SAMPLE, gzipped(SAMPLE), zstd.compress(SAMPLE), SAMPLE * 10_000])
@pytest.mark.parametrize("most", [0, 1, None])
def test_the_fingerprint_is_that_of_the_files_bytes(tmp_path: Path, data: bytes, most: int | None) -> None:
    """Whether the file was read, read in part or not read."""
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    file = TextFile(str(path))
    if most != 0:
        with file.open() as text:
            assert list(zip(text.lines(), range(most or 10**9), strict=False))
    if most is None:
        path.unlink()
    assert file.fingerprint() == hashlib.sha256(data).hexdigest()


# Pipes

BIG = b"".join(b"g%d,m,%d\n" % (n, n) for n in range(30_000))


@contextlib.contextmanager
def by_fifo(tmp_path: Path, data: bytes) -> Iterator[str]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    try:
        yield str(path)
    finally:
        writer.join()


@contextlib.contextmanager
def by_substitution(tmp_path: Path, data: bytes) -> Iterator[str]:
    """As a shell passes ``<(zcat rows.csv.gz)``."""
    with pipe(data) as reading:
        yield f"/dev/fd/{reading}"


@contextlib.contextmanager
def by_stdin(tmp_path: Path, data: bytes) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, stdin(patch, data):
        yield "-"


By = Callable[[Path, bytes], contextlib.AbstractContextManager[str]]
ONCE = "can be read only once, and has been already"


@pytest.mark.parametrize("by", [by_fifo, by_substitution, by_stdin])
@pytest.mark.parametrize("pack", [bytes, gzipped])
def test_a_pipe_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: By, pack: Callable[[bytes], bytes]
) -> None:
    """Its fingerprint is known afterwards, and no temporary file is created."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with by(tmp_path, pack(BOM + BIG)) as path:
        file = TextFile(path)
        with file.open() as text:
            assert text.head.encode() == BIG[: (1 << 16) - len(BOM)]
            assert b"".join(filter(None, as_bytes(list(text.lines())))) == BIG
        assert file.fingerprint() == hashlib.sha256(pack(BOM + BIG)).hexdigest()
        with pytest.raises(SourceError, match=ONCE), file.open():
            pass


@pytest.mark.parametrize("by", [by_fifo, by_substitution, by_stdin])
@pytest.mark.parametrize("data", [BIG, b""])
def test_the_fingerprint_of_an_unread_pipe(tmp_path: Path, by: By, data: bytes) -> None:
    """The pipe is read for it; an empty one has none."""
    with by(tmp_path, data) as path:
        file = TextFile(path)
        assert file.fingerprint() == (hashlib.sha256(data).hexdigest() if data else "")
        with pytest.raises(SourceError, match=ONCE), file.open():
            pass


def test_a_pipe_that_was_read_in_part_has_no_fingerprint(tmp_path: Path) -> None:
    with by_stdin(tmp_path, BIG) as path:
        file = TextFile(path)
        with file.open() as text:
            next(text.lines())
        assert file.fingerprint() == ""
        with pytest.raises(SourceError, match=f"standard input {ONCE}"), file.open():
            pass


def test_a_pipe_that_delivers_single_bytes(tmp_path: Path) -> None:
    """The compression is not known from the first."""
    data = gzipped(SAMPLE)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", 0) as stream:
            for place in range(len(data)):
                stream.write(data[place : place + 1])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert whole(f"/dev/fd/{reading}") == SAMPLE
    finally:
        os.close(reading)
        writer.join()


def test_standard_input_that_is_not_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process can set this; having no data yet is not the end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        fingerprints: list[str] = []
        reader = threading.Thread(target=lambda: fingerprints.append(TextFile("-").fingerprint()))
        reader.start()
        try:
            while not os.get_blocking(reading) and reader.is_alive():
                pass
            os.write(writing, SAMPLE)
        finally:
            os.close(writing)
            reader.join()
        assert fingerprints == [hashlib.sha256(SAMPLE).hexdigest()]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_missing_standard_input(monkeypatch: pytest.MonkeyPatch, is_closed: bool) -> None:
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr("sys.stdin", closed if is_closed else None)
    with pytest.raises(SourceError, match="there is no standard input"):
        TextFile("-").fingerprint()


def test_an_empty_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with stdin(monkeypatch, b""), pytest.raises(SourceError, match="standard input is empty"):
        read("-")
