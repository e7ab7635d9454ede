from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import strategies as st

from tim_async.migrate import KINDS, READ, UNREAD, FileSource, Kind, MendedSource, Notes, Rejected, Row, SourceError
from tim_async.migrate._kinds import kind_of
from tim_async.migrate._lines import LONGEST
from tim_async.migrate._records import Lines
from tim_async.migrate._rows import is_visible, shown

BOM = b"\xef\xbb\xbf"
MIB = 1 << 20
HEADER = "GroupId,Member_Account,UnreadMsgNum"
ALL_NAMES = {column.name.casefold() for kind in KINDS.values() for column in kind.columns}


def read(path: Path, kind: Kind = UNREAD, **options: Any) -> list[Row | Rejected]:
    with FileSource(path, kind, **options) as source:
        return list(source.read())


class File:
    """Writes a file and reads it as rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, data: bytes | str, kind: Kind = UNREAD, *, name: str = "rows.csv", **options: Any
    ) -> list[Row | Rejected]:
        path = self.folder / name
        path.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
        return read(path, kind, **options)

    def outcome(self, data: bytes, **options: Any) -> tuple[list[Row | Rejected], str]:
        """Return the rows before an error, and the text of the error or ""."""
        path = self.folder / "rows.csv"
        path.write_bytes(data)
        return outcome(path, **options)

    def jsonl(self, *lines: str | bytes | dict[str, Any], kind: Kind = UNREAD, **options: Any) -> list[Row | Rejected]:
        """The same for lines of JSON, valid or not."""
        texts = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
        data = b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in texts)
        return self(data, kind, name="rows.jsonl", **options)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def plain(rows: list[Row | Rejected]) -> list[tuple[Any, ...]]:
    """Return a row as its line and values, and a rejected one as its line, field and reason."""
    return [
        (row.line, *row.values) if isinstance(row, Row) else (row.line, row.field, row.reason.split(":")[0])
        for row in rows
    ]


# The output of CSV and JSON writers

ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text == text.strip()
)
counts = st.integers(0, 2**63 - 1)
times = st.integers(1262304000, 1756602000)
rows_of: dict[str, st.SearchStrategy[list[Any]]] = {
    "unread": st.lists(st.tuples(ids, ids, counts), min_size=1, max_size=8),
    "read": st.lists(st.tuples(ids, ids, st.none() | times, st.none() | counts), min_size=1, max_size=8),
}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def is_other(text: str) -> bool:
    """Return whether a text is not the name of a field."""
    return text.strip().casefold() not in ALL_NAMES


other_columns = st.lists(texts.filter(is_other), max_size=3)


class Form(csv.Dialect):
    """A dialect of CSV."""

    quotechar = '"'
    doublequote = True

    def __init__(self, delimiter: str, lineterminator: str, quoting: Literal[0, 1, 2]) -> None:
        self.delimiter = delimiter
        self.lineterminator = lineterminator
        self.quoting = quoting
        super().__init__()

    def __repr__(self) -> str:
        return f"{self.delimiter!r} {self.lineterminator!r} {self.quoting}"


dialects = st.builds(
    Form,
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)


def packed(data: bytes, how: str) -> bytes:
    half = len(data) // 2
    return {
        "plain": data,
        "gzipped": gzip.compress(data),
        "in two members": gzip.compress(data[:half]) + gzip.compress(data[half:]),
    }[how]


packings = st.sampled_from(["plain", "gzipped", "in two members"])


@given(st.data(), st.sampled_from(sorted(KINDS)), dialects, packings, st.booleans(), st.booleans())
def test_any_output_of_a_csv_writer_is_read(
    file: File, data: st.DataObject, kind_name: str, form: Form, how: str, bom: bool, ended: bool
) -> None:
    """In any dialect, order of columns and compression, with other columns, a BOM or no last line end."""
    kind = KINDS[kind_name]
    rows = data.draw(rows_of[kind_name], "rows")
    more = data.draw(other_columns, "more columns")
    names = [column.name for column in kind.columns]
    header = data.draw(st.permutations([*names, *more]), "header")
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, form)
    writer.writerow(header)
    lines = []
    for row in rows:
        fields: dict[str, Any] = dict(zip(names, row, strict=True))
        lines.append(stream.getvalue().count("\n") + 1)
        writer.writerow([fields[name] if name in fields else data.draw(texts, "text") for name in header])
    text = stream.getvalue()
    if not ended:
        text = text.removesuffix(form.lineterminator)
    # Between tabs, quotes are text unless the option is given.
    found = file(packed(BOM * bom + text.encode(), how), kind, until_now=True, quote='"')
    assert found == [Row(line, row) for line, row in zip(lines, rows, strict=True)]


@given(st.data(), st.sampled_from(sorted(KINDS)), packings, st.booleans(), st.booleans(), st.booleans())
def test_any_output_of_a_json_writer_is_read(
    file: File, data: st.DataObject, kind_name: str, how: str, bom: bool, as_ascii: bool, as_text: bool
) -> None:
    """In any order of keys and any layout, with other keys, and with numbers as strings."""
    kind = KINDS[kind_name]
    rows = data.draw(rows_of[kind_name], "rows")
    names = [column.name for column in kind.columns]
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3),
        max_leaves=5,
    )
    array = data.draw(st.booleans(), "array")
    indent = data.draw(st.sampled_from([None, 0, 2]), "indent")
    end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\r\n"]), "end")
    lines, text = [], data.draw(st.sampled_from(["[", "[\n", " \n[\n "]), "start") if array else ""
    for number, row in enumerate(rows):
        fields: dict[str, Any] = data.draw(st.dictionaries(texts.filter(is_other), values, max_size=3), "more keys")
        fields |= {
            name: str(value) if as_text and value is not None else value for name, value in zip(names, row, strict=True)
        }
        document = {name: fields[name] for name in data.draw(st.permutations(sorted(fields)), "order")}
        lines.append(text.count("\n") + 1)
        text += json.dumps(document, ensure_ascii=as_ascii, indent=indent)
        text += ("]" if number == len(rows) - 1 else ",") * array + end
    found = file(packed(BOM * bom + text.encode(), how), kind, name="rows.jsonl", until_now=True)
    assert found == [Row(line, row) for line, row in zip(lines, rows, strict=True)]


# Arbitrary content

pieces = st.lists(
    st.sampled_from(
        [
            b"g1,m1,1",
            b"g2,m2,2",
            b'"g3","m3","3"',
            b'"g,4",m4,4',
            b'g5,"m5,5',
            b'g6,m6",6',
            b'"',
            b'""',
            b'g7,m7,"7\nx"',
            b"g8,m8",
            b"g9,m9,9,9",
            b",,",
            b"g,m,",
            b"g,m,-1",
            b"\xe9,m,1",
            b"g,m\x00,1",
            b"g\rh,m,1",
            b" ",
            b"",
            b"\r",
            b'{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}',
            b'{"GroupId": "g", "Member_Account": "m"}',
            b'{"GroupId": {"GroupId": []}}',
            b"[1]",
            b"null",
            b"\xff",
        ]
    )
    | st.binary(max_size=8),
    max_size=12,
)
formats = st.sampled_from(["csv", "tsv", "jsonl"])


def outcome(path: Path, kind: Kind = UNREAD, **options: Any) -> tuple[list[Row | Rejected], str]:
    """Return the rows before an error, and the text of the error or ""."""
    found = []
    with FileSource(path, kind, **options) as source:
        try:
            for row in source.read():
                found.append(row)  # noqa: PERF402 - the rows before an error count, too
        except SourceError as error:
            return found, str(error)
    return found, ""


@given(
    st.binary() | pieces.map(b"\n".join),
    st.none() | formats,
    st.sampled_from(sorted(KINDS)),
    st.sampled_from([bytes, gzip.compress, zstd.compress]),
    st.fixed_dictionaries({}, optional={"until_now": st.booleans(), "strict_ids": st.booleans(), "null": st.just("1")}),
    st.none() | st.sampled_from(["utf-16", "gb18030", "latin-1"]),
)
def test_any_file_has_rows_or_an_error(
    file: File, data: bytes, form: Any, kind_name: str, pack: Any, options: dict[str, Any], encoding: str | None
) -> None:
    """They are the same when it is read again; the lines increase, and rejected rows can be written as JSON."""
    path = file.folder / "rows"
    path.write_bytes(pack(data))
    kind, options = KINDS[kind_name], {**options, "format": form, "encoding": encoding}
    found, error = outcome(path, kind, **options)
    assert outcome(path, kind, **options) == (found, error)
    assert found or error
    lines = [row.line for row in found]
    assert lines == sorted(set(lines))
    assert not lines or lines[0] >= 1
    for row in found:
        if isinstance(row, Rejected):
            assert row.found.keys() >= {column.name for column in kind.columns}
            assert json.loads(json.dumps(row.found, allow_nan=False)) == row.found


lines_of_text = pieces.map(lambda records: [record.replace(b"\0", b"0") for record in records])


def is_blank(line: bytes) -> bool:
    return not line.decode(errors="surrogateescape").strip()


@given(lines_of_text)
@example([b'g5,"m5,5', b"g1,m1,1", b'g6,m6",6'])
@example([b'g5,"m5,5', b"g1,m1,1", b"g2,m2,2"])
@example([b"", b'"', b"", b'g5,"m5,5', b""])
@example([b'""', b'" "'])
@example([b'"a', b" ", b"", b'b"'])
def test_every_line_of_csv_is_one_row(file: File, records: list[bytes]) -> None:
    """If no field may hold a line end, whatever the quotes."""
    data = b"\n".join([HEADER.encode(), *records])
    found, _ = file.outcome(data)
    assert [row.line for row in found] == [
        number for number, line in enumerate(data.split(b"\n"), 1) if number > 1 and not is_blank(line)
    ]


@given(lines_of_text)
def test_every_line_of_json_is_one_row(file: File, records: list[bytes]) -> None:
    data = b"\n".join([b'{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}', *records])
    found = file(data, name="rows.jsonl")
    assert [row.line for row in found] == [
        number for number, line in enumerate(data.split(b"\n"), 1) if not is_blank(line)
    ]


@given(st.lists(st.sampled_from(["row", '"', 'g,"m,1', '"g,m,1', 'g,m,"1', 'g,m,1"x', "g,m", "g,m,-1"]), max_size=20))
def test_an_unbalanced_quote_rejects_its_own_line_only(file: File, lines: list[str]) -> None:
    """Unless another quote at the end of a field makes it a quoted field."""
    texts = [f"g{number},m{number},{number}" if line == "row" else line for number, line in enumerate(lines)]
    found, _ = file.outcome("\n".join([HEADER, *texts]).encode())
    expected = {number + 2: number for number, line in enumerate(lines) if line == "row"}
    taken = {row.line: row.values[2] for row in found if isinstance(row, Row)}
    assert all(taken[line] == expected[line] for line in taken.keys() & expected.keys())
    if sum('"' in line for line in lines) <= 1:
        assert taken == expected


# Records of CSV


@pytest.mark.parametrize(
    "name", ["rows.csv", "rows.tsv", "rows.txt", "rows", "rows.CSV", "rows.csv.gz", "rows.gz", "rows.json"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_delimiters_are_detected_under_any_file_name(file: File, delimiter: str, quote: str, name: str) -> None:
    """Only .tsv implies a delimiter.  Between tabs, quotes are text unless --quote is given."""
    if name == "rows.tsv" and delimiter != "\t":
        return
    options: dict[str, Any] = {"quote": quote} if quote and delimiter == "\t" else {}
    text = f"{HEADER}\ng,m,5\n".replace(",", f"{quote}{delimiter}{quote}").replace("\n", f"{quote}\r\n{quote}")
    assert file(quote + text.removesuffix(quote), name=name, **options) == [Row(2, ("g", "m", 5))]


@pytest.mark.parametrize(
    ("header", "record"),
    [
        ("UnreadMsgNum,x,Member_Account,GroupId", "5,y,m,g"),
        (" GroupId , Member_Account\t,UnreadMsgNum ", "g,m,5"),
        ("GroupId,Member_Account,UnreadMsgNum,,", "g,m,5,,"),
        ("x,x,GroupId,Member_Account,UnreadMsgNum", "y,z,g,m,5"),
        ('"an ""x"", or not",GroupId,Member_Account,UnreadMsgNum', ",g,m,5"),
        ('"on two\nlines",GroupId,Member_Account,"UnreadMsgNum"', '"\n",g,m,5'),
        ('"on two\r\n\r\n",GroupId;Member_Account;UnreadMsgNum', "g;m;5"),
        ("Größe,GroupId,Member_Account,UnreadMsgNum", "1,g,m,5"),
    ],
)
def test_headers(file: File, header: str, record: str) -> None:
    if "two\r" in header:
        header = header.replace(",", ";")
        record = f"1;{record}"
    found = file(f"\n \r\n{header}\n\n{record}\n")
    assert found == [Row(3 + header.count("\n") + 2, ("g", "m", 5))]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("\n" * 100_000, "is empty"),
        (HEADER, "has no rows"),
        (HEADER + "\r\n \n", "has no rows"),
        (f"sep=,\n{HEADER}", "has no rows"),
        (
            "GroupId,Member_Account\n",
            "has no column UnreadMsgNum; found 'GroupId', 'Member_Account'; name it with --map",
        ),
        (
            "GroupId;Member_Account\ng;m\n",
            "has no column UnreadMsgNum; found 'GroupId', 'Member_Account'; name it with --map",
        ),
        (HEADER.replace(",", "^") + "\ng^m^5\n", "UnreadMsgNum'; name the delimiter with --delimiter CHAR"),
        (
            f"sep=|\n{HEADER}\ng,m,5\n",
            "found only 'GroupId,Member_Account,UnreadMsgNum'; try --format csv --delimiter ,",
        ),
        ("g,m,5\n", "has no header, but begins with 'g', 'm', '5'; --no-header --columns GroupId,Member_Account,U"),
        (json.dumps({"GroupId": "g"}), "; --format jsonl reads JSON"),
        ("g;m;5;x\n", "has no header, but begins with 'g', 'm', '5', 'x'; --no-header --columns NAME,NAME,… names"),
        (f"{HEADER},GroupId\n", "has two columns GroupId"),
        (f'"{HEADER}\ng,m,5\n', "has a first line that is not CSV: opens a quote that is not closed"),
        ('"GroupId"x,Member_Account,UnreadMsgNum\n', "has a first line that is not CSV: ',' expected after"),
        ('"GroupId"\t"Member_Account"\t"UnreadMsgNum"\n', "--quote '\"' removes the quotes"),
        (f"Gr\udcf6\udcdfe,{HEADER}\ng,m,5\n", "has a first line that is not UTF-8; try --encoding cp1252"),
        ("x" * LONGEST + f",{HEADER}\n", "has a first line that is longer than 1,048,576 characters"),
        ("\n" + "x" * 10 * MIB, "has a first line that is longer than 1,048,576 characters"),
        ('"' + "x\n" * MIB, "has a first line that is not CSV: opens a quote that is not closed"),
        ("\x1f", "is a truncated or damaged gzip file"),
    ],
)
def test_files_without_rows_or_columns_are_refused(file: File, data: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        file(data)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_line_ends_may_be_mixed(file: File) -> None:
    found = file(f"{HEADER}\r\ng,m,1\n\ng,m,2\r\n\r\n   \ng,m,3")
    assert found == [Row(2, ("g", "m", 1)), Row(4, ("g", "m", 2)), Row(7, ("g", "m", 3))]


def test_carriage_returns_within_lines(file: File) -> None:
    """`csv` writes them without quotes, and can end lines with two of them."""
    found = file(f'{HEADER},note\r\r\ng,m,1,a\rb\r\r\ng,m,2,"\r\r\r\n\r"\r\r\n"g,\r",m,3,\r\ng,m,4,\r\r')
    assert plain(found) == [
        (2, "g", "m", 1),
        (3, "g", "m", 2),
        (5, "GroupId", "holds a control character"),
        (6, "g", "m", 4),
    ]
    assert isinstance(found[2], Rejected)
    assert found[2].found["GroupId"] == "g,\r"


def test_a_quoted_field_may_hold_line_ends_and_delimiters(file: File) -> None:
    """The rows after it have the line numbers of the file."""
    note = 'a, ""b""\r\n\r\ng9,m9,9\r\n;|\t'
    found = file(f'{HEADER},note\ng,m,1,"{note}"\n"g,""2""",m,2,\n')
    assert found == [Row(2, ("g", "m", 1)), Row(6, ('g,"2"', "m", 2))]


def test_text_in_a_quoted_field_is_never_a_row(file: File) -> None:
    """Even if it looks like a row, and its own row is rejected."""
    found = file(f'{HEADER},note\n,m,1,"hello\ng,victim,9,x\nbye"\ng,m,2,\n')
    assert plain(found) == [(2, "GroupId", "is empty"), (5, "g", "m", 2)]
    # Also in a record that csv itself wrote and its reader refuses.
    found = file(f'name,{HEADER},note\na\rb,g,m,1,"hello\nx,g,victim,9,x\nbye"\n,g,m,2,\n')
    assert plain(found) == [(2, "g", "m", 1), (5, "g", "m", 2)]


@pytest.mark.parametrize(
    "record", ['"g\nevil,victim,9\nx",m,1', 'g,m,"1\nevil,victim,9"', 'g,"m\nevil,victim,9"', '"\nevil,victim,9\n"']
)
def test_lines_within_quotes_are_rejected(file: File, record: str) -> None:
    """In columns that cannot hold line ends, each such line may have been a row: all are rejected, none is sent."""
    found = file(f"{HEADER}\n{record}\ng,m,2\n")
    assert found.pop() == Row(3 + record.count("\n"), ("g", "m", 2))
    assert [row.line for row in found] == list(range(2, 3 + record.count("\n")))
    assert all(isinstance(row, Rejected) for row in found)
    assert plain(found)[1] == (3, "", "is within the quotes that line 2 opens")
    assert "evil,victim,9" in str(found[1])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("g,m", "2 columns where the header has 3"),
        ("g", "1 column where the header has 3"),
        ("g,m,1,", "4 columns where the header has 3"),
        ('"g",m,1"', "is not a whole number"),
        ('"g"x,m,1', "is not CSV"),
        ('g,m,"1"x', "is not CSV"),
        ("g,m,1\rg,m,2", "5 columns where the header has 3"),
        ("g,m\r,2", "holds a control character"),
        ('"g,m,1', "is not CSV"),
        ("x" * LONGEST + ",m,1", "is longer than 1,048,576 characters, which no row is"),
        ("g," + "m" * LONGEST + ",1", "is longer than 1,048,576 characters, which no row is"),
        ('g,m,1,"' + "m" * 10 * MIB + '"', "is longer than 1,048,576 characters, which no row is"),
        ("g," + "m" * 200_000 + ",1", "is longer than 1,000 characters"),
        ("," * (MIB // 2), "524289 columns where the header has 3"),
    ],
)
def test_a_bad_record_is_one_rejected_row(file: File, record: str, reason: str) -> None:
    """The rows around it are read, and little of it is kept."""
    found = file(f"{HEADER}\ng,m,1\n{record}\ng,m,2\n")
    assert plain(found)[::2] == [(2, "g", "m", 1), (4, "g", "m", 2)]
    bad = found[1]
    assert isinstance(bad, Rejected)
    assert (bad.line, bad.reason.partition(":")[0]) == (3, reason)
    assert len(json.dumps(bad.found)) < 2500


def test_a_long_unused_field_is_accepted(file: File) -> None:
    data = f'x,{HEADER}\n{"x" * 1_000_000},g,m,1\n"{"x" * 500_000}\n{"x" * 500_000}",g,m,2\n'
    assert file(data) == [Row(2, ("g", "m", 1)), Row(3, ("g", "m", 2))]


def test_a_quoted_field_after_an_unbalanced_quote(file: File) -> None:
    """It is still a quoted field, even if a line of it looks like a row."""
    found = file(f'{HEADER},note\n"g,m,1,\ng,m,2,\ng,m,3,"a\ng,victim,9,x\n"\ng,m,4,\n')
    assert plain(found) == [(2, "", "is not CSV"), (3, "g", "m", 2), (4, "g", "m", 3), (7, "g", "m", 4)]


def test_the_search_for_a_closing_quote_is_bounded(file: File) -> None:
    """An unclosed quote rejects its own line only, and the file is not read into memory."""
    rows = 60_000
    lines = [f"group_{number},member_{number},{number}" for number in range(rows)]
    lines[7] = '"' + lines[7]
    path = file.folder / "rows.csv"
    path.write_text("\n".join([HEADER, *lines]), encoding="utf-8")
    assert path.stat().st_size > 1.5 * LONGEST
    with FileSource(path, UNREAD) as source:
        tracemalloc.start()
        try:
            found = [(row.line, isinstance(row, Row)) for row in source.read()]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found == [(number + 2, number != 7) for number in range(rows)]
    assert peak < 20 * MIB


@pytest.mark.parametrize("record", ['"x', '"x,"y', 'a,"', '"a""', 'g","m","5', '"""', 'x,"""y'])
def test_many_unclosed_quotes_take_linear_time(file: File, monkeypatch: pytest.MonkeyPatch, record: str) -> None:
    """Quadratic time would be days for a few megabytes."""
    take, taken = Lines.__next__, 0

    def counted(lines: Lines) -> str | None:
        nonlocal taken
        taken += 1
        return take(lines)

    monkeypatch.setattr(Lines, "__next__", counted)
    found = file("\n".join([HEADER, *[record] * 2000, "g,m,1"]))
    assert [row.line for row in found] == list(range(2, 2003))
    assert [row for row in found if isinstance(row, Row)] == [Row(2002, ("g", "m", 1))]
    assert taken < 4 * 2000


def test_bytes_that_are_not_utf_8_reject_their_own_row_only(file: File) -> None:
    """And only if they are in a field that the row needs."""
    data = f"{HEADER},name\n".encode() + b"g,m,1,Andr\xe9\ng,Andr\xe9,2,x\ng,m,\xe9,x\ng,m,4,x\n"
    found = file(data)
    assert plain(found) == [
        (2, "g", "m", 1),
        (3, "Member_Account", "is not UTF-8"),
        (4, "UnreadMsgNum", "is not a whole number"),
        (5, "g", "m", 4),
    ]
    assert isinstance(found[1], Rejected)
    assert found[1].found == {"GroupId": "g", "Member_Account": "Andr\udce9", "UnreadMsgNum": "2"}
    assert found[1].reason == "is not UTF-8: 'Andr\\udce9'; try --encoding cp1252"
    assert plain(file(data, encoding="cp1252"))[1] == (3, "g", "André", 2)


def test_nul_bytes_far_into_a_file(file: File) -> None:
    data = f"{HEADER},note\n" + "g,m,1,\n" * 20_000 + "g,m,2,\0\ng,\0,3,\n"
    assert plain(file(data))[-2:] == [(20_002, "g", "m", 2), (20_003, "Member_Account", "holds a control character")]


def test_no_encoding_is_proposed_for_binary_data(file: File) -> None:
    data = f"{HEADER}\n".encode() + b"g,m,1\n" * 20_000 + b"g,\xe9" + b"a" * 23 + b"\0\0b,3\n"
    found = file(data)[-1]
    assert isinstance(found, Rejected)
    assert found.reason.startswith("holds a control character: '\\udce9aaa")
    assert "--encoding" not in found.reason


# Lines of JSON

GOOD = {"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}


@pytest.mark.parametrize(
    "line",
    [
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": "1"}',
        '{"x": 9, "GroupId": "g", "Member_Account": "m", "x": 1, "UnreadMsgNum": 1}',
        ' \t{"UnreadMsgNum":1,"Member_Account":"m","GroupId":"g","GroupID":"x"} \r',
        '{"GroupId": "\\u0067", "Member_Account": "m", "UnreadMsgNum": 1, "x": "\\ud83e", "\\udcff": "\\u0000"}',
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": NaN, "y": 1e999, "z": -Infinity}',
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": ' + "9" * 100_000 + "}",
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": ' + "[" * 99 + "]" * 99 + "}",
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": "' + "[{" * 1000 + '\\"{"}',
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": [' + "{}," * 1000 + "{}]}",
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": "' + "x" * 1_000_000 + '"}',
        b'{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1, "x": "Andr\xe9"}',
    ],
)
def test_documents_may_have_any_other_content(file: File, line: str | bytes) -> None:
    assert file.jsonl(line) == [Row(1, ("g", "m", 1))]


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ("x", "", "is not JSON: Expecting value"),
        ("{", "", "is not JSON: Expecting property name"),
        ('{"GroupId": "g"', "", "is not JSON: Expecting ',' delimiter"),
        (json.dumps(GOOD) * 2, "", "is not JSON: Extra data"),
        (json.dumps(GOOD) + "\r" + json.dumps(GOOD), "", "is not JSON: Extra data"),
        ("\ufeff" + json.dumps(GOOD), "", "is not JSON: Expecting value"),
        ("9" * 5000, "", "is not a JSON object"),
        ("9" * 5000 + "x", "", "is not JSON: Extra data"),
        ("[]", "", "is not a JSON object"),
        ("null", "", "is not a JSON object"),
        ('"GroupId"', "", "is not a JSON object"),
        ("[" * 100_000, "", "is not JSON: nested too deeply"),
        ('{"GroupId":' * 10_000, "", "is not JSON: nested too deeply"),
        ('{"GroupId": ' + "[" * 100 + "]" * 100 + "}", "", "is not JSON: nested too deeply"),
        ('{"GroupId": ' + "[" * 99 + "]" * 99 + "}", "GroupId", "must be text, not [[["),
        ('{"x": "' + "x" * LONGEST + '"}', "", "is longer than 1,048,576 characters, which no row is"),
        ("x" * 10 * MIB, "", "is longer than 1,048,576 characters, which no row is"),
        ({**GOOD, "GroupId": 1.5}, "GroupId", "must be text, not 1.5"),
        ({**GOOD, "GroupId": {"$oid": "x"}}, "GroupId", "must be text, not {'$oid'"),
        ({**GOOD, "GroupId": ["x"] * 100_000}, "GroupId", "must be text, not ['x', "),
        ({**GOOD, "GroupId": "x" * 1_000_000}, "GroupId", "is longer than 1,000 characters"),
        ({**GOOD, "GroupId": "\ud83e"}, "GroupId", "is not UTF-8"),
        ({**GOOD, "GroupId": None}, "GroupId", "is empty"),
        ({**GOOD, "GroupId": ""}, "GroupId", "is empty"),
        ({"Member_Account": "m", "UnreadMsgNum": 1}, "GroupId", "is missing"),
        ({**GOOD, "UnreadMsgNum": 1.5}, "UnreadMsgNum", "is not a whole number: 1.5"),
        ({**GOOD, "UnreadMsgNum": -1}, "UnreadMsgNum", "is negative: -1"),
        (
            {"groupid": "x", "GROUPID": "y", "Member_Account": "m"},
            "GroupId",
            "is there twice, as 'groupid' and 'GROUPID'",
        ),
        (
            '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": ' + "9" * 5000 + "}",
            "UnreadMsgNum",
            "is not a whole number",
        ),
        ('{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": NaN}', "UnreadMsgNum", "is not a whole number: nan"),
        (b'{"GroupId": "Andr\xe9", "Member_Account": "m", "UnreadMsgNum": 1}', "GroupId", "is not UTF-8"),
    ],
)
def test_an_invalid_document_is_one_rejected_row(
    file: File, line: str | bytes | dict[str, Any], field: str, reason: str
) -> None:
    """The rows around it are read, and what is kept of it is short and can be written as JSON."""
    found = file.jsonl(GOOD, line, "", {**GOOD, "UnreadMsgNum": 2})
    assert plain(found)[::2] == [(1, "g", "m", 1), (4, "g", "m", 2)]
    bad = found[1]
    assert isinstance(bad, Rejected)
    assert (bad.line, bad.field) == (2, field)
    assert bad.reason.startswith(reason)
    assert len(bad.reason) < 200
    assert len(json.dumps(bad.found)) < 4000
    assert list(bad.found)[:3] == ["GroupId", "Member_Account", "UnreadMsgNum"]
    assert ("Text" in bad.found) == (field == "" or "twice" in reason)


def test_the_stored_fields_of_a_rejected_row_are_rejected_again(file: File) -> None:
    """For the same field, also when they are read without the templates."""
    documents = [
        {**GOOD, "GroupId": "x" * 2000},
        {**GOOD, "GroupId": ["x"] * 1000},
        {**GOOD, "GroupId": " g"},
        {**GOOD, "GroupId": 1.5},
        {**GOOD, "team": ""},
        {**GOOD, "UnreadMsgNum": "9" * 2000},
    ]
    first = file.jsonl(
        GOOD | {"team": "t"}, *({"team": "t"} | document for document in documents), id_formats={"GroupId": "{team}_{}"}
    )
    assert len(first) == 7
    again = file.jsonl(GOOD, *(dict(row.found) for row in first if isinstance(row, Rejected)))
    assert [row.field for row in again if isinstance(row, Rejected)] == [
        row.field for row in first if isinstance(row, Rejected)
    ]
    assert len(again) == 7
    assert sum(isinstance(row, Row) for row in again) == 1


@pytest.mark.parametrize("frames", [0, 500])
def test_the_depth_limit_does_not_depend_on_the_callers_stack(file: File, frames: int) -> None:
    def deeper(frames: int) -> list[Row | Rejected]:
        if frames:
            return deeper(frames - 1)
        return file.jsonl(*({**GOOD, "x": nested(depth)} for depth in range(80, 120)))

    found = deeper(frames)
    assert [row.line for row in found if isinstance(row, Row)] == list(range(1, 21))


# JSON that is not one object per line

SECOND = {**GOOD, "UnreadMsgNum": 2}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 0


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (json.dumps([GOOD, SECOND]), (1, 2)),
        (json.dumps([GOOD, SECOND], indent=1), (2, 7)),
        (f"[{json.dumps(GOOD)},\n{json.dumps(SECOND)}]\n", (1, 2)),
        (f"\ufeff \n[\n{json.dumps(GOOD)},{json.dumps(SECOND)}\n]", (3, 4)),
        (json.dumps(GOOD, indent=4) + "\n" + json.dumps(SECOND, indent=4), (1, 6)),
        (json.dumps(GOOD, indent=4) + json.dumps(SECOND), (1, 5)),
        (json.dumps(GOOD).replace(", ", ",\n", 1) + "\n\n" + json.dumps(SECOND), (1, 4)),
        ("{\n" + json.dumps(GOOD)[1:] + "\n{\n" + json.dumps(SECOND)[1:], (1, 3)),
    ],
)
def test_documents_in_arrays_and_over_several_lines(file: File, data: str, lines: tuple[int, int]) -> None:
    """The line of a row is the line where its document begins, or else the next unused one."""
    expected = [Row(line, ("g", "m", number)) for number, line in enumerate(lines, 1)]
    for name in ("rows.json", "rows.jsonl", "rows"):
        assert file(data, name=name) == expected
    if not data.startswith("\ufeff"):
        assert file(data.encode("utf-16"), name="rows", encoding="utf-16") == expected


def test_values_of_an_array_that_are_not_objects_are_rejected(file: File) -> None:
    values = [GOOD, 1, None, "x", [GOOD], nested(120), {**GOOD, "GroupId": " "}, SECOND]
    found = file(json.dumps(values, indent=1), name="rows")
    assert [row.reason.split(":")[0] for row in found if isinstance(row, Rejected)] == [
        *["is not a JSON object"] * 4,
        "is not JSON",
        "begins or ends with white space",
    ]
    assert [row.values[2] for row in found if isinstance(row, Row)] == [1, 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[]", "rows.json has no rows"),
        ("[", "rows.json, line 1: is not JSON: Expecting value"),
        (f"[\n{json.dumps(GOOD)}\n{json.dumps(GOOD)}]", "line 3: is not JSON: ',' or ']' expected in its array"),
        (f"[\n{json.dumps(GOOD)},\n]", "line 3: is not JSON: Expecting value"),
        (f"[\n{json.dumps(GOOD)}", "line 2: is not JSON: ',' or ']' expected"),
        (f"[{json.dumps(GOOD)}]\n[", "line 2: extra data after its array; rows are JSON objects"),
        (json.dumps([GOOD], indent=1).replace('"m"', "m"), "line 4: is not JSON: Expecting value"),
        ("[" * 100_000, "line 1: is not JSON: nested too deeply"),
        ("{\n" + json.dumps(GOOD)[1:-1] + "\n", "line 3: is not JSON: Expecting ',' delimiter"),
        ('[{"x": "' + "x" * 3 * MIB, "line 1: the document that begins here is longer than 1,048,576 characters"),
    ],
)
def test_malformed_arrays_and_documents_are_refused(file: File, data: str, message: str) -> None:
    """With one error that has the line."""
    with pytest.raises(SourceError) as caught:
        file(data, name="rows.json")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("first", ['{"GroupId": "g"', '{"GroupId":', "{", '{"GroupId": "g', '{"GroupId": "g"}}'])
def test_a_truncated_first_line_is_one_rejected_row(file: File, first: str) -> None:
    """The other lines do not become one document."""
    found = file.jsonl(first, GOOD, SECOND)
    assert plain(found) == [(1, "", "is not JSON"), (2, "g", "m", 1), (3, "g", "m", 2)]


def test_an_array_is_read_in_bounded_memory(file: File) -> None:
    path = file.folder / "rows.json"
    text = json.dumps([*[{**GOOD, "note": "x" * 500_000}] * 14, *[GOOD] * 1000])
    path.write_text(text, encoding="utf-8")
    source = FileSource(path, UNREAD)
    tracemalloc.start()
    try:
        assert sum(isinstance(row, Row) for row in source.read()) == 1014
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * MIB < len(text)


def test_carriage_returns_as_line_ends(file: File) -> None:
    """As old spreadsheets write them."""
    for number in (1, 2):
        assert len(file((json.dumps(GOOD) + "\r") * number, name="rows.jsonl")) == number
    assert file(f"{HEADER}\rg,m,1\r\rg,m,2") == [Row(2, ("g", "m", 1)), Row(4, ("g", "m", 2))]


@pytest.mark.parametrize(("between", "named"), [(",", ","), (";", "';'"), ("|", "'|'")])
def test_a_wrong_tsv_suffix_is_refused_with_the_right_options(file: File, between: str, named: str) -> None:
    """The error proposes no column for a field."""
    text = f"{HEADER}\ng,m,1\n".replace(",", between)
    with pytest.raises(SourceError, match=rf"; try --format csv --delimiter {re.escape(named)}$"):
        file(text, name="rows.tsv")
    assert file(text, name="rows.tsv", format="csv", delimiter=between) == [Row(2, ("g", "m", 1))]
    with pytest.raises(SourceError, match="has no columns room, Member_Account, UnreadMsgNum; found only"):
        file(text, name="rows.tsv", columns={"GroupId": "room"})


def test_documents_with_the_rows_in_a_list_are_refused(file: File) -> None:
    with pytest.raises(
        SourceError, match=r"""rows.jsonl has a list of objects in 'rows'; extract them with: jq '.\["rows"\]\[\]'"""
    ):
        file.jsonl({"rows": [GOOD], "none": [], "numbers": [1]})
    with pytest.raises(SourceError, match=r"no row has a GroupId.*; found none; name it with --map"):
        file.jsonl({"rows": [GOOD], "others": [GOOD]})


def test_a_duplicate_key_is_rejected_if_a_field_is_read_from_it(file: File) -> None:
    """Its value is ambiguous; duplicates of other keys do not matter."""
    twice = '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 5, "UnreadMsgNum": 0}'
    other = json.dumps(GOOD).replace("{", '{"x": 1, "x": 2, "y": {"GroupId": "h", "GroupId": "h"}, ')
    for text in (f"{twice}\n{other}\n", f"[{twice},\n{other}]"):
        found = file(text, name="rows.jsonl")
        assert isinstance(found[0], Rejected)
        assert (found[0].field, found[0].reason) == ("UnreadMsgNum", "is there twice, as 'UnreadMsgNum'")
        assert found[0].found["Text"] == twice
        assert found[1:] == [Row(2, ("g", "m", 1))]
        nested = file(text, name="rows.jsonl", columns={"GroupId": "y.GroupId"})
        assert [(row.field, row.reason) for row in nested if isinstance(row, Rejected)][1:] == [
            ("GroupId", "is there twice, as 'GroupId'")
        ]
    many = "{" + '"x": 1, ' * 100_000 + other[1:]
    assert file(many, name="rows.jsonl") == [Row(1, ("g", "m", 1))]
    (kept,) = file('{"GroupId": {"a": 1, "a": 2}, "Member_Account": "m", "UnreadMsgNum": 1}', name="rows.jsonl")
    assert isinstance(kept, Rejected)
    assert json.loads(json.dumps(dict(kept.found)))["GroupId"] == {"a": "two values"}  # as in the rejected file


def test_a_field_that_no_row_has_is_an_error(file: File) -> None:
    document = {"room": {"id": "g"}, "Member_Account": "m", "UnreadMsgNum": 1}
    with pytest.raises(SourceError) as caught:
        file.jsonl(document, document)
    assert str(caught.value).endswith(
        "rows.jsonl: no row has a GroupId; found 'room.id', 'Member_Account', 'UnreadMsgNum'; try --map GroupId=room.id"
    )
    assert len(file.jsonl(document, GOOD)) == 2
    assert file.jsonl(document, columns={"GroupId": "room.id"}) == [Row(1, ("g", "m", 1))]
    with pytest.raises(SourceError, match="no row has a team"):
        file.jsonl(GOOD, id_formats={"GroupId": "{team}"})


# Rows without a time

CONVERSATION = {"Report_Account": "a", "Peer_Account": "b"}
TIMES: list[Any] = [1756602000, None, "", ..., "2025-08-31T01:00:00Z", 1756602000.0]


def conversations(file: File, name: str, times: list[Any], **options: Any) -> list[Row | Rejected]:
    """Return rows with these times, read from a file of either format."""
    documents = [CONVERSATION if time is ... else {**CONVERSATION, "MsgReadTime": time} for time in times]
    if name == "rows.jsonl":
        return file.jsonl(*documents, kind=READ, **options)
    lines = ["Report_Account,Peer_Account,MsgReadTime", *(f"a,b,{row.get('MsgReadTime') or ''}" for row in documents)]
    return file("\n".join(lines), READ, **options)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_rows_without_a_time_are_rejected_without_until_now(file: File, name: str) -> None:
    """They would be marked read up to now, which cannot be undone."""
    found = conversations(file, name, TIMES)
    assert [row.values[2] for row in found if isinstance(row, Row)] == [1756602000] * 3
    reasons = [row.reason for row in found if isinstance(row, Rejected)]
    assert [reason.split(";")[0] for reason in reasons] in (["is empty"] * 3, ["is empty", "is empty", "is missing"])
    assert all("--until-now" in reason for reason in reasons)
    source = FileSource(file.folder / name, READ, until_now=True)
    assert [row.values[2] for row in source.read() if isinstance(row, Row)] == [
        1756602000,
        *[None] * 3,
        *[1756602000] * 2,
    ]
    assert source.notes == Notes(without_time=3)


def test_a_file_without_a_time_column_is_refused_without_until_now(file: File) -> None:
    """The error proposes a column with a similar name."""
    message = "MsgReadTime; found 'Report_Account', 'Peer_Account', 'LastReadTime'; try --map MsgReadTime=LastReadTime"
    csv_text = "Report_Account,Peer_Account,LastReadTime\nalice,bob,1700000000\n"
    with pytest.raises(SourceError, match=f"has no column {message}; --until-now marks"):
        file(csv_text, READ)
    document = {**CONVERSATION, "LastReadTime": 1700000000}
    with pytest.raises(SourceError, match=f"no row has a {message}; --until-now marks"):
        file.jsonl(document, document, kind=READ)
    for read in (file(csv_text, READ, until_now=True), file.jsonl(document, kind=READ, until_now=True)):
        assert [row.values[2] for row in read if isinstance(row, Row)] == [None]
    named = {"MsgReadTime": "LastReadTime"}
    assert file(csv_text, READ, columns=named) == [Row(2, ("alice", "bob", 1700000000, None))]


def test_a_named_optional_field_that_no_row_has_is_an_error(file: File) -> None:
    """Otherwise a typo would mark everything as read up to now."""
    document = {**CONVERSATION, "last_read": 1756602000}
    options: dict[str, Any] = {"columns": {"MsgReadTime": "last_raed"}, "until_now": True}
    with pytest.raises(SourceError, match=r"no row has a last_raed; found .*; try --map MsgReadTime=last_read$"):
        file.jsonl(document, document, kind=READ, **options)
    with pytest.raises(SourceError, match="has no column last_raed"):
        file("Report_Account,Peer_Account,last_read\na,b,1756602000\n", READ, **options)
    assert plain(file.jsonl("x", kind=READ, **options)) == [(1, "", "is not JSON")]
    for there in ({"last_raed": 6}, {"last_raed": None}, {"last_raed": "x"}):
        found = file.jsonl(document, {**document, **there}, kind=READ, **options)
        assert found[0] == Row(1, ("a", "b", None, None))


# Options


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_columns_and_templates(file: File, name: str) -> None:
    if name == "rows.csv":
        data = "team,room.id,user,unread\nred,7,m,1\nred, 8,m,2\n,9,m,3\nred,,m,4\n"
    else:
        rooms: list[Any] = [7, " 8", 9, ""]
        teams = ["red", "red", "", "red"]
        data = "".join(
            json.dumps({"team": team, "room": {"id": room}, "user": "m", "unread": number}) + "\n"
            for number, (team, room) in enumerate(zip(teams, rooms, strict=True), 1)
        )
    found = file(
        data,
        name=name,
        columns={"GroupId": "room.id", "Member_Account": "user", "UnreadMsgNum": "unread"},
        id_formats={"GroupId": "{team}_{}", "Member_Account": "u_{}"},
    )
    first = 2 if name == "rows.csv" else 1
    assert plain(found) == [
        (first, "red_7", "u_m", 1),
        (first + 1, "GroupId", "begins or ends with white space"),
        (first + 2, "GroupId", "needs team, which is empty"),
        (first + 3, "GroupId", "is empty"),
    ]
    assert [dict(row.found)["Member_Account"] for row in found if isinstance(row, Rejected)] == ["u_m"] * 3


@pytest.mark.parametrize(
    "options",
    [
        {"format": "xml"},
        {"format": ""},
        {"columns": {"Group": "x"}},
        {"id_formats": {"GroupId": "x"}},
        {"delimiter": ""},
        {"delimiter": ", "},
        {"delimiter": "\n"},
        {"delimiter": '"'},
        {"delimiter": ",", "format": "tsv"},
        {"quote": "\t", "format": "tsv"},
        {"quote": "''"},
        {"quote": "\r"},
        {"encoding": "no-such"},
        {"header": []},
        {"header": "GroupId,Member_Account,UnreadMsgNum"},
        {"header": ["GroupId", "Member_Account"]},
        {"format": "jsonl", "delimiter": ","},
        {"format": "jsonl", "quote": "none"},
        {"format": "jsonl", "header": ["GroupId", "Member_Account", "UnreadMsgNum"]},
    ],
)
def test_invalid_arguments(tmp_path: Path, options: dict[str, Any]) -> None:
    """They raise before the file is looked for."""
    with pytest.raises(ValueError):
        FileSource(tmp_path / "none", UNREAD, **options)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (["GroupId", "Member_Account"], "has no column UnreadMsgNum"),
        (["GroupId", "Member_Account", "UnreadMsgNum", "GroupId"], "has two columns GroupId"),
    ],
)
def test_a_given_header_that_lacks_a_column(tmp_path: Path, header: list[str], reason: str) -> None:
    """The error names it, because the file has none."""
    with pytest.raises(ValueError, match=f"^the given header {reason}"):
        FileSource(tmp_path / "none", UNREAD, header=header)


@pytest.mark.parametrize(
    "options",
    [
        {"path": None},
        {"path": b"counts.csv"},
        {"kind": "unread"},
        {"until_now": "false"},
        {"strict_ids": "no"},
        {"columns": "GroupId"},
        {"id_formats": ["GroupId"]},
        {"delimiter": 9},
        {"quote": b"'"},
        {"encoding": 8},
        {"null": 0},
    ],
)
def test_arguments_of_wrong_types(tmp_path: Path, options: dict[str, Any]) -> None:
    """Text would be true: until_now would mark conversations read up to now."""
    given: dict[str, Any] = {"path": tmp_path / "none", "kind": UNREAD, **options}
    with pytest.raises(TypeError):
        FileSource(**given)


def test_the_attributes_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {"UnreadMsgNum": "n", "GroupId": "g"}
    source = FileSource("rows.csv", UNREAD, columns=columns, id_formats={"GroupId": "{}"})
    assert source.kind is UNREAD
    assert source.name == str(tmp_path / "rows.csv")
    assert source.arguments["columns"] == columns
    options: dict[str, Any] = {
        "header": ["g", "n", "Member_Account"],
        "columns": columns,
        "delimiter": "tab",
        "until_now": True,
    }
    one = FileSource("rows.csv", UNREAD, **options)
    other = FileSource("rows.csv", UNREAD, **json.loads(json.dumps(one.arguments)))
    assert json.dumps(one.arguments) == json.dumps(other.arguments)
    assert {name: value for name, value in one.arguments.items() if value} == options
    assert FileSource("-", UNREAD).name == "-"


@pytest.mark.parametrize(
    ("name", "form", "data", "rows"),
    [
        ("rows.jsonl", "csv", f"{HEADER}\ng,m,1\n", 1),
        ("rows.csv", "jsonl", json.dumps(GOOD), 1),
        ("rows.ndjson", None, json.dumps(GOOD), 1),
        ("rows.ndjson.gz", None, json.dumps(GOOD), 1),
        ("rows", None, " \n" + json.dumps(GOOD), 1),
        ("rows.txt", None, "\ufeff" + json.dumps(GOOD), 1),
        ("rows.tab", None, f"{HEADER}\ng,m,1\n".replace(",", "\t"), 1),
        (".gz", None, f"{HEADER}\ng,m,1\n", 1),
        ("..gz", None, f"{HEADER}\ng,m,1\n", 1),
        ("rows.csv.GZ", None, f"{HEADER}\ng,m,1\n", 1),
        ("rows.jsonl.zst", None, json.dumps(GOOD), 1),
    ],
)
def test_formats(file: File, name: str, form: Any, data: str, rows: int) -> None:
    assert len(file(data, name=name, format=form)) == rows


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (f"{HEADER}\ng^m^5\n".replace(",", "^"), {"delimiter": "^"}),
        (f"{HEADER}\ng\tm\t5\n".replace(",", "\t"), {"delimiter": r"\t"}),
        (f"{HEADER}\ng\tm\t5\n".replace(",", "\t"), {"delimiter": r"\t", "format": "tsv"}),
        (f"{HEADER}\ng\tm\t5\n".replace(",", "\t"), {"delimiter": "TAB", "format": "tsv"}),
        (f"{HEADER}\n'g','m','5'\n", {"quote": "'"}),
        (f"{HEADER}\n|g|,|m|,|5|\n", {"quote": "|"}),
        (f"{HEADER},x\n'g','m','5','it''s, it\nis'\n", {"quote": "'"}),
        (f'{HEADER},x\ng,m,5,"y\n', {"quote": "none"}),
        ("\ng,m,5", {"header": ["GroupId", "Member_Account", "UnreadMsgNum"]}),
        ("\ng\t5\tm", {"header": ["groupid", "UnreadMsgNum", " Member_Account "]}),
        ("\ng;x;m;5\n", {"header": ["GroupId", "_", "Member_Account", "UnreadMsgNum"]}),
        (f"{HEADER}\ng,m,5.0\n", {}),
        (f"\ufeff{HEADER.lower()}\ng,m,5\n", {}),
        (f"\ufeff\ufeff{HEADER}\ng,m,5\n", {}),
    ],
)
def test_delimiters_quotes_and_headers(file: File, data: str, options: dict[str, Any]) -> None:
    assert file(data, **options) == [Row(2, ("g", "m", 5))]


@pytest.mark.parametrize("first", ["sep=;", '"SEP=;"'])
def test_a_sep_line_names_the_delimiter(file: File, first: str) -> None:
    data = f"{first}\n{HEADER}\ng,m,5".replace(",", ";")
    assert file(data) == [Row(3, ("g", "m", 5))]


@pytest.mark.parametrize(
    ("data", "header", "message"),
    [
        (f"{HEADER}\ng,m,5\n", HEADER, "has a header in its first line; leave --no-header and --columns out"),
        (f"{HEADER.lower()}\ng,m,5\n", HEADER, "has a header in its first line"),
        ("g,m,5\n", "GroupId,Member_Account,UnreadMsgNum,x", "has 3 columns in its first line, and --columns names 4"),
        ('"g,m,5\n', HEADER, "has a first line that is not CSV"),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(file: File, data: str, header: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        file(data, header=header.split(","))


def test_a_null_text_is_a_missing_value(file: File) -> None:
    data = f"{HEADER}\n\\N,m,1\ng,m,\\N\ng,\\Nm,2\n"
    assert plain(file(data, null="\\N")) == [
        (2, "GroupId", "is empty"),
        (3, "UnreadMsgNum", "is empty"),
        (4, "g", "\\Nm", 2),
    ]
    documents = {**GOOD, "GroupId": "\\N"}, {**GOOD, "Member_Account": "\\Nm"}
    assert plain(file.jsonl(*documents, null="\\N")) == [(1, "GroupId", "is empty"), (2, "g", "\\Nm", 1)]
    rows = "Report_Account,Peer_Account,MsgReadTime\na,b,NULL\n"
    assert plain(file(rows, READ, null="NULL"))[0][:2] == (2, "MsgReadTime")
    assert file(rows, READ, null="NULL", until_now=True) == [Row(2, ("a", "b", None, None))]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("rows.csv", lambda: b"x" * 10 * MIB + b"\n"),
        ("rows.csv", lambda: b'g,m,"' + b"x" * 10 * MIB + b'"\n'),
        ("rows.csv", lambda: b'g,m,"' + (b"x" * 99 + b"\n") * (MIB // 10)),
        ("rows.jsonl", lambda: b'{"GroupId": "' + b"x" * 10 * MIB + b'"}\n'),
    ],
)
def test_lines_of_ten_megabytes_are_read_in_bounded_memory(file: File, name: str, bad: Any) -> None:
    good = f"{HEADER}\ng,m,1\n" if name == "rows.csv" else json.dumps(GOOD) + "\n"
    path = file.folder / name
    path.write_bytes(good.encode() + bad())
    rows: Iterator[Row | Rejected] = iter(())
    with FileSource(path, UNREAD) as source:
        tracemalloc.start()
        try:
            rows = source.read()
            assert isinstance(next(rows), Row)
            assert not any(isinstance(row, Row) for row in rows)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 60 * MIB


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("rows.csv", f"{HEADER}\ng,m,1\n", UNREAD),
        ("rows.csv", f"{HEADER}\ng,m,x\n", UNREAD),
        ("rows.csv", "Report_Account,Peer_Account,MsgReadTime\na,b,1756602000\n", READ),
        ("rows.csv", "Report_Account,Peer_Account\na,b\n", READ),
        ("rows.jsonl", json.dumps(GOOD), UNREAD),
        ("rows.jsonl", json.dumps(CONVERSATION), READ),
        ("rows.jsonl", f"x\n{json.dumps(CONVERSATION)}", READ),
        ("rows.csv", f"{HEADER},Report_Account,Peer_Account\ng,m,1,a,b\n", None),
        ("rows.csv", "a,b\n1,2\n", None),
        ("rows.csv", "", None),
    ],
)
def test_the_kind_of_a_file(tmp_path: Path, name: str, data: str, kind: Kind | None) -> None:
    """The columns decide, if only one kind has them."""
    path = tmp_path / name
    path.write_text(data, encoding="utf-8")
    assert kind_of(path) is kind
    options = {"columns": {"GroupId": "Report_Account"}}
    if kind is READ and "rows.csv" in name:
        assert kind_of(path, **options) is None


# Notes


def test_records_over_several_lines_are_noted(file: File) -> None:
    """They may be right, or an unbalanced quote may have merged rows."""
    path = file.folder / "rows.csv"
    record = 'g,m,1,"on\n\ntwo"\n'
    path.write_text(f"{HEADER},note\n" + record * 7 + 'g,m,2,"one"\n,m,3,"x\ny"\n')
    source = FileSource(path, UNREAD)
    assert source.notes == Notes()
    assert len(list(source.read())) == 9
    assert source.notes == Notes(on_several_lines=8, first_lines=[2, 5, 8, 11, 14])
    assert source.notes.sentences() == [
        "8 records extend over several lines, from line 2, 5, 8, 11, 14, …; --quote none takes each line as a row"
    ]


SUSPICIOUS = {
    "m" * 33: "is longer than the 32 bytes that the service allows",
    "管理员": "is not printable ASCII",
    "a\u200b": "holds an invisible character",
    "\ufeffa": "holds an invisible character",
    "a\xa0b": "holds an invisible character",
    "\u3164": "holds an invisible character",
    "a\ufe0f": "holds an invisible character",
    "1.38E+10": "is a number that a spreadsheet has rounded",
    "1,38E+10": "is a number that a spreadsheet has rounded",
    "1e+16": "is a number that a spreadsheet has rounded",
    "1.38e10": "is a number that a spreadsheet has rounded",
    "NULL": "stands for an empty value",
    "null": "stands for an empty value",
    "nan": "stands for an empty value",
    "None": "stands for an empty value",
    "\\N": "stands for an empty value",
    "NA": "stands for an empty value",
    "#N/A": "stands for an empty value",
    "<NA>": "stands for an empty value",
    "undefined": "stands for an empty value",
    '="0042"': "is a spreadsheet's formula",
    "1001.0": "is a number with decimals",
    '"bob"': "is in quotes, which were taken as part of it",
}
FINE = [
    "m" * 32,
    "alice",
    "user-1",
    "5f3c",
    "12e45",
    "na",
    "a.b@c",
    "1001",
    "-7",
    "O'Neil",
    'x"',
    "1.5.0",
    "it is",
    "@me",
]


@pytest.mark.parametrize("value", [*SUSPICIOUS, *FINE])
def test_suspicious_ids(file: File, value: str) -> None:
    """They are sent and noted, with invisible characters escaped; strict_ids rejects them."""
    rows = [GOOD, {**GOOD, "Member_Account": value}]
    path = file.folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows * 2)), encoding="utf-8")
    source = FileSource(path, UNREAD)
    assert all(isinstance(row, Row) for row in source.read())
    strict = [row for row in FileSource(path, UNREAD, strict_ids=True).read() if isinstance(row, Rejected)]
    if value in FINE:
        assert (source.notes, strict) == (Notes(), [])
        return
    (found,) = source.notes.suspicions.values()
    assert (found.reason, found.ids, found.first_line, found.field) == (SUSPICIOUS[value], 2, 2, "Member_Account")
    assert is_visible(found.value)
    assert [(row.line, row.field, row.reason) for row in strict] == [
        (line, "Member_Account", f"{found.reason}: {shown(value)}") for line in (2, 4)
    ]
    assert source.notes.sentences() == [
        f"2 suspicious ids, the first on line 2: Member_Account {found.value} {found.reason}"
    ]


def test_suspicious_group_ids(file: File) -> None:
    """The limit of 48 bytes does not apply to ids that the service made."""
    groups = ["g" * 49, "@TGS#" + "g" * 60, "g" * 48, "rc_\u200d"]
    file.jsonl(*({**GOOD, "GroupId": group} for group in groups))
    source = FileSource(file.folder / "rows.jsonl", UNREAD, id_formats={"GroupId": "{}"})
    assert len(list(source.read())) == 4
    assert {one.first_line: one.reason for one in source.notes.suspicions.values()} == {
        1: "is longer than the 48 bytes that the service allows",
        4: "holds an invisible character",
    }


def test_notes_are_restored_from_json(file: File) -> None:
    data = 'Report_Account,Peer_Account,note\na,NULL,"x\ny"\na,\u3164b,\nnan,b,\n'
    file(data, READ, until_now=True)
    source = FileSource(file.folder / "rows.csv", READ, until_now=True)
    list(source.read())
    again = Notes.from_json(source.notes.to_json())
    assert again == source.notes != Notes()
    assert again.sentences() == [
        "3 rows have no time: read up to when it is first sent",
        "1 record extends over several lines, from line 2; --quote none takes each line as a row",
        "2 suspicious ids, the first on line 2: Peer_Account 'NULL' stands for an empty value",
        "1 suspicious id, the first on line 4: Peer_Account '\\u3164b' holds an invisible character",
    ]
    assert Notes.from_json("") == Notes()


# Corrected rows


def mended(path: Path, *documents: Any, kind: Kind = UNREAD, **options: Any) -> list[Row | Rejected]:
    path.write_text("\n".join(json.dumps(document) for document in documents), encoding="utf-8")
    return list(MendedSource(path, kind, **options).read())


def test_corrected_rows(tmp_path: Path) -> None:
    """An edited rejected file has the new values, each with the line of its row."""
    rest = {"Code": 10019, "Reason": "no such account", "Text": "g,m"}
    found = mended(
        tmp_path / "rejected.jsonl",
        {**GOOD, "Line": 7, **rest},
        {**GOOD, "Line": 3, "UnreadMsgNum": "5.0"},
        {**GOOD, "Line": "12", "unreadmsgnum": 9},
        {**GOOD, "Line": 7.0, "GroupId": None},
        {**GOOD, "Line": 8, "Member_Account": "NULL"},
        strict_ids=True,
    )
    assert plain(found) == [
        (7, "g", "m", 1),
        (3, "g", "m", 5),
        (12, "g", "m", 1),
        (7, "GroupId", "is empty"),
        (8, "Member_Account", "stands for an empty value"),
    ]


def test_corrected_rows_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "rejected.json"
    path.write_text(json.dumps([{**GOOD, "Line": 7}, {**SECOND, "Line": 2}], indent=2), encoding="utf-8")
    assert plain(list(MendedSource(path, UNREAD).read())) == [(7, "g", "m", 1), (2, "g", "m", 2)]


def test_corrected_rows_without_a_time(tmp_path: Path) -> None:
    document = {**CONVERSATION, "MsgReadTime": None, "Line": 2}
    assert plain(mended(tmp_path / "rejected.jsonl", document, kind=READ))[0][:2] == (2, "MsgReadTime")
    assert plain(mended(tmp_path / "rejected.jsonl", document, kind=READ, until_now=True)) == [
        (2, "a", "b", None, None)
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (GOOD, "Line: is missing"),
        ({**GOOD, "Line": None}, "Line: is missing"),
        ({**GOOD, "Line": 0}, "Line: is below 1: 0"),
        ({**GOOD, "Line": -2}, "Line: is below 1: -2"),
        ({**GOOD, "Line": "two"}, "Line: is not a whole number: 'two'"),
        ({**GOOD, "Line": True}, "Line: is not a whole number: True"),
        ([GOOD], "is not a JSON object"),
        ({"Line": 2, "GroupId": "a", "groupid": "b", "GROUPID": "c", "UnreadMsgNum": 1}, ""),
        ({"Line": 2, "groupid": "b", "GROUPID": "c"}, "GroupId: is there twice"),
    ],
)
def test_a_correction_without_a_valid_line_is_refused(tmp_path: Path, document: Any, message: str) -> None:
    """No line is guessed: the whole file is refused, and the error has the line of the correction."""
    path = tmp_path / "rejected.jsonl"
    if not message:
        assert len(mended(path, document)) == 1
        return
    with pytest.raises(SourceError) as caught:
        mended(path, {**GOOD, "Line": 2}, document)
    assert f"rejected.jsonl, line 2: {message}" in str(caught.value)
    assert "each row needs the Line that it had when rejected" in str(caught.value)


def test_an_empty_or_missing_rejected_file(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(SourceError, match="is empty"):
        list(MendedSource(path, UNREAD).read())
    with pytest.raises(SourceError, match="No such file"):
        list(MendedSource(tmp_path / "none", UNREAD).read())
