from __future__ import annotations

import bz2
import contextlib
import csv
import gc
import gzip
import hashlib
import io
import lzma
import os
import sqlite3
import tarfile
import tempfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tim_async.migrate import SourceError
from tim_async.migrate import _lines as lines
from tim_async.migrate._lines import LONGEST, Feed, LineError, TextFile

BOM = b"\xef\xbb\xbf"
MIB = 1 << 20

# One file in one folder, whatever the number of examples.


def read(path: str | Path) -> list[str | None]:
    with TextFile(str(path)) as file:
        return list(file.lines())


def as_bytes(read: list[str | None]) -> list[bytes | None]:
    return [None if line is None else line.encode("utf-8", "surrogateescape") for line in read]


def members(data: bytes, cuts: list[int]) -> bytes:
    """A gzip file in several members, some of them empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join(gzip.compress(data[start:end]) for start, end in pairwise(places))


@contextlib.contextmanager
def pipe(data: bytes) -> Iterator[int]:
    """The end to read of a pipe into which somebody writes."""
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
def test_what_is_read_is_what_is_there(tmp_path: Path, data: bytes, bom: bool, cuts: list[int] | None) -> None:
    """Every byte, and each line by itself, whichever end it has; the byte-order mark alone is left out."""
    if not data or data.startswith((b"\x1f", BOM)):
        return
    path = tmp_path / "file"
    written = BOM * bom + data
    path.write_bytes(written if cuts is None else members(written, cuts))
    *whole, rest = data.split(b"\n")
    assert as_bytes(read(path)) == [line + b"\n" for line in whole] + [rest] * bool(rest)


LIMIT = 8


@given(st.lists(st.text("ab\r", max_size=3 * LIMIT).map(str.encode)), st.booleans(), st.booleans(), st.booleans())
@example([b"a" * LIMIT], True, False, False)
@example([b"a" * (LIMIT - 2), b"b"], True, True, False)
@example([b"a" * (LIMIT - 3), b"b"], True, True, False)
def test_a_line_that_is_too_long_is_one_line(
    tmp_path: Path, texts: list[bytes], bom: bool, ended: bool, packed: bool
) -> None:
    """So that those after it have their numbers; and none that is short enough is lost for its neighbour's length."""
    data = BOM * bom + b"\n".join(texts) + b"\n" * ended
    whole = data.split(b"\n")
    ends = [b"\n"] * (len(whole) - 1) + [b""]
    expected = [
        line + end if len(line) <= LIMIT else None for line, end in zip(whole, ends, strict=True) if line or end
    ]
    if expected and bom and expected[0] is not None:
        expected[0] = expected[0].removeprefix(BOM)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LONGEST", LIMIT)
        patch.setattr(lines, "_BLOCK", 3)
        assert as_bytes(read(path)) == expected


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bom", [b"", BOM])
def test_the_longest_line(tmp_path: Path, bom: bytes, packed: bool) -> None:
    longest = b"x" * (LONGEST - len(bom))
    data = bom + longest + b"\nsecond\n" + b"y" * (LONGEST + 1) + b"\n" + b"z" * LONGEST + b"\n" + b"w" * (LONGEST + 1)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    assert as_bytes(read(path)) == [longest + b"\n", b"second\n", None, b"z" * LONGEST + b"\n", None]


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_line_is_never_in_memory(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "file"
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as stream:
        for _ in range(3):
            for _ in range(10):
                stream.write(b"x" * MIB)
            stream.write(b"\nshort\n")
    with TextFile(str(path)) as file:
        tracemalloc.start()
        try:
            found = list(file.lines())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found == [None, "short\n"] * 3
    assert peak < 5 * MIB


def test_many_blank_lines_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(b"\n" * 300_000))
    with TextFile(str(path)) as file:
        tracemalloc.start()
        try:
            assert sum(1 for _ in file.lines()) == 300_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2 * MIB


@pytest.mark.parametrize("line", ['g","m","5\n', '","\n'])
def test_a_record_has_a_bound_however_many_fields_it_has(line: str) -> None:
    """And what it took so far is there to be read again."""
    feed = Feed(iter([f'"{line}'] + [line] * (2 * MIB // len(line))))
    with pytest.raises(LineError, match="a quote that is not closed"):
        next(csv.reader(feed, strict=True))
    taken = list(feed.taken)
    assert LONGEST < sum(len(line or "") for line in taken) <= LONGEST + len(line)
    feed.take_apart()
    feed.begin()
    assert feed.first == 2
    assert next(feed) == taken[1] == line
    with pytest.raises(LineError):
        next(feed)
    feed.begin()
    assert next(feed) == taken[2] == line


# gzip


SAMPLE = b"GroupId,Member_Account,UnreadMsgNum\n" + b"".join(
    b"g%d,m%d,%d\n" % (n % 7, n, n * 37 % 101) for n in range(60)
)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv", "rows", "rows.zip"])
def test_the_name_says_nothing_of_gzip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for data in (gzip.compress(SAMPLE), SAMPLE):
        path.write_bytes(data)
        assert b"".join(filter(None, as_bytes(read(path)))) == SAMPLE


@pytest.mark.parametrize("parts", [[SAMPLE], [SAMPLE[:100], SAMPLE[100:]], [b"", SAMPLE], [SAMPLE, b""]])
def test_a_gzip_file_cut_anywhere_is_cut(tmp_path: Path, parts: list[bytes]) -> None:
    """All but between two members, where nothing tells."""
    packed = [gzip.compress(part) for part in parts]
    whole = {0, *accumulate(map(len, packed))}
    path = tmp_path / "rows.csv.gz"
    for length in set(range(max(whole))) - whole:
        path.write_bytes(b"".join(packed)[:length])
        with pytest.raises(SourceError, match=r"rows.csv.gz is a cut or damaged gzip file"):
            read(path)


@given(st.integers(0, len(gzip.compress(SAMPLE)) - 1), st.integers(1, 255))
def test_a_damaged_gzip_file_is_refused_or_has_lost_nothing(tmp_path: Path, place: int, change: int) -> None:
    packed = bytearray(gzip.compress(SAMPLE))
    packed[place] ^= change
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(packed)
    try:
        with TextFile(str(path)) as file:
            file.head()
            found = b"".join(filter(None, as_bytes(list(file.lines()))))
    except SourceError:
        return
    assert found == SAMPLE


@pytest.mark.parametrize("garbage", [b"garbage", b"\n", b"\x1f", b"\x1f\x8b", SAMPLE])
def test_garbage_after_a_gzip_file(tmp_path: Path, garbage: bytes) -> None:
    """What it may have been is unknown: a member more, perhaps."""
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(SAMPLE) + garbage)
    with pytest.raises(SourceError, match="cut or damaged gzip file"):
        read(path)


def test_zeros_after_a_gzip_file(tmp_path: Path) -> None:
    """Tapes and block devices leave them."""
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(SAMPLE) + bytes(512))
    assert b"".join(filter(None, as_bytes(read(path)))) == SAMPLE


# What is not text


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
    ("data", "said"),
    [
        (zipped(), "a zip archive, such as an Excel workbook; export it as CSV"),
        (database(), "an SQLite database"),
        (SAMPLE.decode().encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + SAMPLE.decode().encode("utf-16-be"), "UTF-16"),
        (SAMPLE.decode().encode("utf-16-le"), "binary, not text"),
        (SAMPLE.decode().encode("utf-32"), "UTF-16"),
        (bz2.compress(SAMPLE), "compressed with bzip2"),
        (lzma.compress(SAMPLE), "compressed with xz"),
        (b"(\xb5/\xfd" + SAMPLE, "compressed with zstd"),
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
def test_what_is_no_text(tmp_path: Path, data: bytes, said: str, packed: bool) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    with TextFile(str(path)) as file, pytest.raises(SourceError, match=f"^{path} is {said}"):
        file.head()


@pytest.mark.parametrize(
    ("data", "said"),
    [(gzip.compress(gzip.compress(SAMPLE)), "gzipped twice"), (tarred(), "binary")],
)
def test_what_is_no_text_when_unpacked(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(data)
    with TextFile(str(path)) as file, pytest.raises(SourceError, match=said):
        file.head()


@pytest.mark.parametrize("name", ["BZhID", "PAR1", "PKID", "SQLite format 3", "(x)"])
def test_what_is_text_though_it_begins_like_something_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{name},GroupId\n", encoding="utf-8")
    with TextFile(str(path)) as file:
        assert file.head() == f"{name},GroupId\n".encode()


# Where it is


def test_no_file(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "none.csv", "cannot read .*none.csv: No such file"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "a" / ("x" * 300), "cannot read"),
        (tmp_path / ("x" * 300), "cannot read .*too long"),
    ):
        with TextFile(str(path)) as file:
            for use in (file.fingerprint, file.head, lambda: next(file.lines())):
                with pytest.raises(SourceError, match=said):
                    use()


def test_a_circle_of_links(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.symlink_to(path)
    with TextFile(str(path)) as file, pytest.raises(SourceError, match="cannot read"):
        file.fingerprint()


@contextlib.contextmanager
def powerless() -> Iterator[None]:
    """As somebody whom permissions hold back, which root is not."""
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
    with TextFile(str(path)) as file, powerless(), pytest.raises(SourceError, match="Permission denied"):
        file.head()


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the beginning or later."""

    class Failing(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError(5, "Input/output error")

    path = tmp_path / "rows.csv"
    path.write_bytes(SAMPLE)
    monkeypatch.setattr(Path, "open", lambda self, *_: Failing(self))
    with TextFile(str(path)) as file:
        for use in (file.fingerprint, file.head, lambda: list(file.lines())):
            with pytest.raises(SourceError, match=r"cannot read .*rows.csv: Input/output error"):
                use()


def test_a_fingerprint_is_of_the_bytes(tmp_path: Path) -> None:
    for data in (SAMPLE, gzip.compress(SAMPLE), b""):
        path = tmp_path / "rows.csv"
        path.write_bytes(data)
        with TextFile(str(path)) as file:
            assert file.fingerprint() == hashlib.sha256(data).hexdigest()


# What can be read only once

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
    """What a shell makes of ``<(zcat rows.csv.gz)``."""
    with pipe(data) as reading:
        yield f"/dev/fd/{reading}"


@pytest.mark.parametrize("by", [by_fifo, by_substitution])
@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_can_be_read_more_than_once(
    tmp_path: Path, by: Callable[[Path, bytes], contextlib.AbstractContextManager[str]], packed: bool
) -> None:
    data = gzip.compress(BIG) if packed else BIG
    with by(tmp_path, data) as path, TextFile(path) as file:
        assert file.fingerprint() == hashlib.sha256(data).hexdigest()
        assert file.head() == BIG[: 1 << 16]
        for _ in range(2):
            assert b"".join(filter(None, as_bytes(list(file.lines())))) == BIG
        assert file.fingerprint() == hashlib.sha256(data).hexdigest()


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with stdin(monkeypatch, BOM + BIG), TextFile("-") as file:
        assert file.name == "standard input"
        assert b"".join(filter(None, as_bytes(list(file.lines())))) == BIG
        assert file.head() == BIG[: (1 << 16) - len(BOM)]
        assert file.fingerprint() == hashlib.sha256(BOM + BIG).hexdigest()


def test_standard_input_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process can have made it so; that nothing is there yet is not its end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        with TextFile("-") as file:
            fingerprints: list[str] = []
            reader = threading.Thread(target=lambda: fingerprints.append(file.fingerprint()))
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
def test_no_standard_input(monkeypatch: pytest.MonkeyPatch, is_closed: bool) -> None:
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr("sys.stdin", closed if is_closed else None)
    with TextFile("-") as file, pytest.raises(SourceError, match="there is no standard input"):
        file.fingerprint()


def test_an_empty_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with stdin(monkeypatch, b""), TextFile("-") as file, pytest.raises(SourceError, match="standard input is empty"):
        file.head()


@pytest.mark.parametrize("path", ["file", "fifo"])
def test_two_may_read_in_turns(tmp_path: Path, path: str) -> None:
    """What one reads does not move what the other reads, of a copy as of a file."""
    whole = BIG.decode().splitlines(keepends=True)
    with contextlib.ExitStack() as stack:
        if path == "fifo":
            path = stack.enter_context(by_fifo(tmp_path, gzip.compress(BIG)))
        else:
            path = str(tmp_path / path)
            Path(path).write_bytes(BIG)
        file = stack.enter_context(TextFile(path))
        one = file.lines()
        begun = [next(one) for _ in range(10)]
        other = file.lines()
        for first, second in zip(whole[10:], whole, strict=False):
            assert (next(one), next(other)) == (first, second)
        assert file.head() == BIG[: 1 << 16]
        assert [*begun, *list(one)] == whole[:10]
        assert list(other) == whole[-10:]


def test_nothing_is_left_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while it is read: it has no name, so that a process that is killed leaves none either."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with by_fifo(tmp_path, BIG) as path, TextFile(path) as file:
        file.head()
        assert list(folder.iterdir()) == []
        half_read = file.lines()
        next(half_read)
    del half_read
    gc.collect()  # an open file would be a warning, and a warning is an error


@pytest.mark.parametrize("data", [b"a,b\n", BIG], ids=["short", "long"])
def test_no_room_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Told as that, also when it is noticed only at the end."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: io.BufferedRandom(io.FileIO("/dev/full", "w+")))
    said = r"no room in .* for a copy of standard input; set TMPDIR"
    with stdin(monkeypatch, data), TextFile("-") as file, pytest.raises(SourceError, match=said):
        file.fingerprint()


def test_what_is_left_of_a_pipe_is_not_taken_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after a failure, nor once it was forgotten."""
    said = "standard input can be read only once, and has been already"
    with stdin(monkeypatch, BIG), TextFile("-") as file:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "TemporaryFile", lambda: io.FileIO("/dev/full", "w+"))
            with pytest.raises(SourceError, match="no room"):
                file.fingerprint()
        with pytest.raises(SourceError, match=said):
            file.head()
    with stdin(monkeypatch, BIG):
        file = TextFile("-")
        with file:
            file.head()
        with file, pytest.raises(SourceError, match=said):
            next(file.lines())
