from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tim_async.migrate import KINDS, READ, UNREAD, FileSource, Kind, Rejected, Row, SourceError
from tim_async.migrate._lines import LONGEST

BOM = b"\xef\xbb\xbf"
MIB = 1 << 20
HEADER = "GroupId,Member_Account,UnreadMsgNum"
ALL_NAMES = {column.name for kind in KINDS.values() for column in kind.columns}

# One file in one folder, whatever the number of examples.


def read(path: Path, kind: Kind = UNREAD, **options: Any) -> list[Row | Rejected]:
    with FileSource(path, kind, **options) as source:
        return list(source.read())


class File:
    """Writes what is given into a file, and reads it as rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, data: bytes | str, kind: Kind = UNREAD, *, name: str = "rows.csv", **options: Any
    ) -> list[Row | Rejected]:
        path = self.folder / name
        path.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
        return read(path, kind, **options)

    def jsonl(self, *lines: str | bytes | dict[str, Any], kind: Kind = UNREAD, **options: Any) -> list[Row | Rejected]:
        """The same for lines of JSON, or what should be that."""
        texts = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
        data = b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in texts)
        return self(data, kind, name="rows.jsonl", **options)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def plain(rows: list[Row | Rejected]) -> list[tuple[Any, ...]]:
    """Rows as their line and values, rejected ones as their line, field and reason."""
    return [
        (row.line, *row.values) if isinstance(row, Row) else (row.line, row.field, row.reason.split(":")[0])
        for row in rows
    ]


# What a CSV writer writes

ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text == text.strip()
)
counts = st.integers(0, 2**63 - 1)
times = st.integers(0, 10**11 - 1)
rows_of: dict[str, st.SearchStrategy[list[Any]]] = {
    "unread": st.lists(st.tuples(ids, ids, counts), max_size=8),
    "read": st.lists(st.tuples(ids, ids, st.none() | times, st.none() | counts), max_size=8),
}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
others = st.lists(texts.filter(lambda text: text.strip() not in ALL_NAMES and "\r" not in text), max_size=3)


class Form(csv.Dialect):
    """One of the ways to write CSV."""

    quotechar = '"'
    doublequote = True

    def __init__(self, delimiter: str, lineterminator: str, quoting: Literal[0, 1, 2]) -> None:
        self.delimiter = delimiter
        self.lineterminator = lineterminator
        self.quoting = quoting
        super().__init__()

    def __repr__(self) -> str:
        return f"{self.delimiter!r} {self.lineterminator!r} {self.quoting}"


forms = st.builds(
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


hows = st.sampled_from(["plain", "gzipped", "in two members"])


@given(st.data(), st.sampled_from(sorted(KINDS)), forms, hows, st.booleans(), st.booleans())
def test_what_is_written_as_csv_is_read(
    file: File, data: st.DataObject, kind_name: str, form: Form, how: str, bom: bool, ended: bool
) -> None:
    """Whatever the dialect, the order of columns, what else there is, the ends of lines and the packing."""
    kind = KINDS[kind_name]
    rows = data.draw(rows_of[kind_name], "rows")
    more = data.draw(others, "more columns")
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
    found = file(packed(BOM * bom + text.encode(), how), kind)
    assert found == [Row(line, row) for line, row in zip(lines, rows, strict=True)]


@given(st.data(), st.sampled_from(sorted(KINDS)), hows, st.booleans(), st.booleans(), st.booleans())
def test_what_is_written_as_json_is_read(
    file: File, data: st.DataObject, kind_name: str, how: str, bom: bool, as_ascii: bool, as_text: bool
) -> None:
    """Whatever the order of keys, what else there is, and whether numbers come as text."""
    kind = KINDS[kind_name]
    rows = data.draw(rows_of[kind_name], "rows")
    names = [column.name for column in kind.columns]
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3),
        max_leaves=5,
    )
    end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\r\n"]), "end")
    lines, text = [], ""
    for row in rows:
        fields: dict[str, Any] = data.draw(st.dictionaries(texts, values, max_size=3), "more keys")
        fields |= {
            name: str(value) if as_text and value is not None else value for name, value in zip(names, row, strict=True)
        }
        document = {name: fields[name] for name in data.draw(st.permutations(sorted(fields)), "order")}
        lines.append(text.count("\n") + 1)
        text += json.dumps(document, ensure_ascii=as_ascii) + end
    if not text:
        return
    found = file(packed(BOM * bom + text.encode(), how), kind, name="rows.jsonl")
    assert found == [Row(line, row) for line, row in zip(lines, rows, strict=True)]


# What anything writes

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
    """What is read, and how it ended."""
    found = []
    with FileSource(path, kind, **options) as source:
        try:
            for row in source.read():
                found.append(row)  # noqa: PERF402 - what was read before the end counts, too
        except SourceError as error:
            return found, str(error)
    return found, ""


@given(st.binary() | pieces.map(b"\n".join), st.none() | formats, st.sampled_from(sorted(KINDS)), st.booleans())
def test_whatever_is_in_a_file(file: File, data: bytes, form: Any, kind_name: str, packs: bool) -> None:
    """It is rows, or cannot be read; and the next time it is the same."""
    path = file.folder / "rows"
    path.write_bytes(gzip.compress(data) if packs else data)
    found, error = outcome(path, KINDS[kind_name], format=form)
    assert outcome(path, KINDS[kind_name], format=form) == (found, error)
    lines = [row.line for row in found]
    assert lines == sorted(set(lines))
    assert not found or (lines[0] >= 1 and lines[-1] <= data.count(b"\n") + 1)


lines_of_text = pieces.map(lambda records: [record.replace(b"\0", b"0") for record in records])


def is_blank(line: bytes) -> bool:
    return not line.decode(errors="surrogateescape").strip()


@given(lines_of_text)
@example([b'g5,"m5,5', b"g1,m1,1", b'g6,m6",6'])
@example([b'g5,"m5,5', b"g1,m1,1", b"g2,m2,2"])
@example([b"", b'"', b"", b'g5,"m5,5', b""])
@example([b'""', b'" "'])
@example([b'"a', b" ", b"", b'b"'])
def test_no_line_of_csv_is_swallowed(file: File, records: list[bytes]) -> None:
    """Where no field may hold a line's end, each line comes out once, however the quotes on it and around it are."""
    data = b"\n".join([HEADER.encode(), *records])
    found = file(data)
    assert [row.line for row in found] == [
        number for number, line in enumerate(data.split(b"\n"), 1) if number > 1 and not is_blank(line)
    ]


@given(lines_of_text)
def test_no_line_of_json_is_swallowed(file: File, records: list[bytes]) -> None:
    data = b"\n".join([b'{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}', *records])
    found = file(data, name="rows.jsonl")
    assert [row.line for row in found] == [
        number for number, line in enumerate(data.split(b"\n"), 1) if not is_blank(line)
    ]


@given(st.lists(st.sampled_from(["row", '"', 'g,"m,1', '"g,m,1', 'g,m,"1', 'g,m,1"x', "g,m", "g,m,-1"]), max_size=20))
def test_a_quote_too_many_costs_its_own_line_only(file: File, lines: list[str]) -> None:
    """As long as it is not taken for a quoted field, which needs a second one at a field's end."""
    texts = [f"g{number},m{number},{number}" if line == "row" else line for number, line in enumerate(lines)]
    found = file("\n".join([HEADER, *texts]))
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
def test_dialects(file: File, delimiter: str, quote: str, name: str) -> None:
    """Whatever the name but .tsv, which says what it is."""
    if name == "rows.tsv" and delimiter != "\t":
        return
    text = f"{HEADER}\ng,m,5\n".replace(",", f"{quote}{delimiter}{quote}").replace("\n", f"{quote}\r\n{quote}")
    assert file(quote + text.removesuffix(quote), name=name) == [Row(2, ("g", "m", 5))]


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
    ("data", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("GroupId,Member_Account\n", "has no column UnreadMsgNum; its header is 'GroupId', 'Member_Account'; --map"),
        (
            "GroupId;Member_Account\ng;m\n",
            "has no column UnreadMsgNum; its header is 'GroupId', 'Member_Account'; --map",
        ),
        ("g,m,5\n", "has no column GroupId, Member_Account, UnreadMsgNum; its header is 'g', 'm', '5'"),
        (f"{HEADER},GroupId\n", "has two columns GroupId"),
        (f'"{HEADER}\ng,m,5\n', "has a header that is not CSV: opens a quote that is not closed"),
        ('"GroupId"x,Member_Account,UnreadMsgNum\n', "has a header that is not CSV: ',' expected after"),
        (f"{HEADER}\rg,m,5\r", "ends its lines with a carriage return alone"),
        (f"{HEADER}\rg,m,5\r\n", "ends its lines with a carriage return alone"),
        (f"Gr\udcf6\udcdfe,{HEADER}\ng,m,5\n", "the header is not UTF-8"),
        ("x" * LONGEST + f",{HEADER}\n", "the first line is longer than 1,048,576 bytes"),
        ("\n" + "x" * 10 * MIB, "the first line is longer than 1,048,576 bytes"),
        ('"' + "x\n" * MIB, "has a header that is not CSV: opens a quote that is not closed"),
        ("\x1f", "is a cut or damaged gzip file"),
    ],
)
def test_no_rows_at_all(file: File, data: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        file(data)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
def test_a_header_and_no_rows(file: File, end: str) -> None:
    assert file(HEADER + end) == []


def test_ends_of_lines_may_be_mixed(file: File) -> None:
    found = file(f"{HEADER}\r\ng,m,1\n\ng,m,2\r\n\r\n   \ng,m,3")
    assert found == [Row(2, ("g", "m", 1)), Row(4, ("g", "m", 2)), Row(7, ("g", "m", 3))]


def test_carriage_returns_within_lines(file: File) -> None:
    """`csv` writes them without quotes, and may write the ends of lines with two."""
    found = file(f'{HEADER},note\r\r\ng,m,1,a\rb\r\r\ng,m,2,"\r\r\r\n\r"\r\r\n"g,\r",m,3,\r\ng,m,4,\r\r')
    assert plain(found) == [
        (2, "g", "m", 1),
        (3, "g", "m", 2),
        (5, "GroupId", "holds a control character"),
        (6, "g", "m", 4),
    ]
    assert isinstance(found[2], Rejected)
    assert found[2].found["GroupId"] == "g,\r"


def test_a_quoted_field_may_hold_anything(file: File) -> None:
    """And the numbers of the lines after it are those of the file."""
    note = 'a, ""b""\r\n\r\ng9,m9,9\r\n;|\t'
    found = file(f'{HEADER},note\ng,m,1,"{note}"\n"g,""2""",m,2,\n')
    assert found == [Row(2, ("g", "m", 1)), Row(6, ('g,"2"', "m", 2))]


def test_a_text_is_no_row_whatever_becomes_of_its_record(file: File) -> None:
    """What a user has written may look like a row, and the row that it belongs to may be rejected."""
    found = file(f'{HEADER},note\n,m,1,"hello\ng,victim,9,x\nbye"\ng,m,2,\n')
    assert plain(found) == [(2, "GroupId", "is empty"), (5, "g", "m", 2)]
    # Not even where csv itself has written something that its reader does not take.
    found = file(f'name,{HEADER},note\na\rb,g,m,1,"hello\nx,g,victim,9,x\nbye"\n,g,m,2,\n')
    assert plain(found) == [(2, "g", "m", 1), (5, "g", "m", 2)]


@pytest.mark.parametrize(
    "record", ['"g\nevil,victim,9\nx",m,1', 'g,m,"1\nevil,victim,9"', 'g,"m\nevil,victim,9"', '"\nevil,victim,9\n"']
)
def test_what_is_within_quotes_is_no_row(file: File, record: str) -> None:
    """Not even where it should not be: then each line is told of, as it may have been a row, and none is sent."""
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
        ("x" * LONGEST + ",m,1", "is longer than 1,048,576 bytes, which no row is"),
        ("g," + "m" * LONGEST + ",1", "is longer than 1,048,576 bytes, which no row is"),
        ('g,m,1,"' + "m" * 10 * MIB + '"', "is longer than 1,048,576 bytes, which no row is"),
        ("g," + "m" * 200_000 + ",1", "is longer than 1,000 characters"),
        ("," * (MIB // 2), "524289 columns where the header has 3"),
    ],
)
def test_a_bad_record_is_one(file: File, record: str, reason: str) -> None:
    """Those around it are none the worse, and it is kept as far as a person can read it."""
    found = file(f"{HEADER}\ng,m,1\n{record}\ng,m,2\n")
    assert plain(found)[::2] == [(2, "g", "m", 1), (4, "g", "m", 2)]
    bad = found[1]
    assert isinstance(bad, Rejected)
    assert (bad.line, bad.reason.partition(":")[0]) == (3, reason)
    assert len(json.dumps(bad.found)) < 2500


def test_a_long_field_that_is_not_needed(file: File) -> None:
    """The csv module's own limit of 131,072 is one for the process, and must not decide what a row is."""
    data = f'x,{HEADER}\n{"x" * 1_000_000},g,m,1\n"{"x" * 500_000}\n{"x" * 500_000}",g,m,2\n'
    before = csv.field_size_limit()
    try:
        for limit in (10, 131_072, sys.maxsize):
            csv.field_size_limit(limit)
            assert file(data) == [Row(2, ("g", "m", 1)), Row(3, ("g", "m", 2))]
            assert csv.field_size_limit() >= limit
    finally:
        csv.field_size_limit(before)


def test_a_quoted_field_after_a_quote_too_many(file: File) -> None:
    """It is one still, with all that looks like a row in it."""
    found = file(f'{HEADER},note\n"g,m,1,\ng,m,2,\ng,m,3,"a\ng,victim,9,x\n"\ng,m,4,\n')
    assert plain(found) == [(2, "", "is not CSV"), (3, "g", "m", 2), (4, "g", "m", 3), (7, "g", "m", 4)]


def test_a_quote_that_is_never_closed_has_a_bound(file: File) -> None:
    """Else all of a large file would be taken for one field; what is not read so far is not lost either."""
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
def test_many_quotes_that_are_not_closed(file: File, monkeypatch: pytest.MonkeyPatch, record: str) -> None:
    """Each is looked for the end of, and not through all the others: else some megabytes would take days."""
    take, taken = Feed.__next__, 0

    def counted(feed: Feed) -> str:
        nonlocal taken
        taken += 1
        return take(feed)

    monkeypatch.setattr(Feed, "__next__", counted)
    found = file("\n".join([HEADER, *[record] * 2000, "g,m,1"]))
    assert [row.line for row in found] == list(range(2, 2003))
    assert [row for row in found if isinstance(row, Row)] == [Row(2002, ("g", "m", 1))]
    assert taken < 4 * 2000


def test_bytes_that_are_not_utf_8(file: File) -> None:
    """They spoil what they are in, and no more."""
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


def test_nul_bytes_far_into_a_file(file: File) -> None:
    data = f"{HEADER},note\n" + "g,m,1,\n" * 20_000 + "g,m,2,\0\ng,\0,3,\n"
    assert plain(file(data))[-2:] == [(20_002, "g", "m", 2), (20_003, "Member_Account", "holds a control character")]


# Lines of JSON

GOOD = {"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}


@pytest.mark.parametrize(
    "line",
    [
        '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": "1"}',
        '{"UnreadMsgNum": 9, "GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}',
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
def test_documents(file: File, line: str | bytes) -> None:
    """What a row does not need is its own business."""
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
        ("9" * 5000, "", "is no JSON object"),
        ("9" * 5000 + "x", "", "is not JSON: Extra data"),
        ("[]", "", "is no JSON object"),
        ("null", "", "is no JSON object"),
        ('"GroupId"', "", "is no JSON object"),
        ("[" * 100_000, "", "is not JSON: nested too deeply"),
        ('{"GroupId":' * 10_000, "", "is not JSON: nested too deeply"),
        ('{"GroupId": ' + "[" * 100 + "]" * 100 + "}", "", "is not JSON: nested too deeply"),
        ('{"GroupId": ' + "[" * 99 + "]" * 99 + "}", "GroupId", "must be text, not [[["),
        ('{"x": "' + "x" * LONGEST + '"}', "", "is longer than 1,048,576 bytes, which no row is"),
        ("x" * 10 * MIB, "", "is longer than 1,048,576 bytes, which no row is"),
        ({**GOOD, "GroupId": 1.5}, "GroupId", "must be text, not 1.5"),
        ({**GOOD, "GroupId": False}, "GroupId", "must be text, not False"),
        ({**GOOD, "GroupId": {"$oid": "x"}}, "GroupId", "must be text, not {'$oid'"),
        ({**GOOD, "GroupId": ["x"] * 100_000}, "GroupId", "must be text, not ['x', "),
        ({**GOOD, "GroupId": "x" * 1_000_000}, "GroupId", "is longer than 1,000 characters"),
        ({**GOOD, "GroupId": "\ud83e"}, "GroupId", "is not UTF-8"),
        ({**GOOD, "GroupId": "a\nb"}, "GroupId", "holds a control character"),
        ({**GOOD, "GroupId": None}, "GroupId", "is empty"),
        ({**GOOD, "GroupId": ""}, "GroupId", "is empty"),
        ({"Member_Account": "m", "UnreadMsgNum": 1}, "GroupId", "is missing"),
        ({**GOOD, "UnreadMsgNum": 1.0}, "UnreadMsgNum", "is not a whole number: 1.0"),
        ({**GOOD, "UnreadMsgNum": True}, "UnreadMsgNum", "is not a whole number: True"),
        ({**GOOD, "UnreadMsgNum": -1}, "UnreadMsgNum", "is negative: -1"),
        ({**GOOD, "UnreadMsgNum": 2**63}, "UnreadMsgNum", "is too large"),
        ({**GOOD, "UnreadMsgNum": "\u0663"}, "UnreadMsgNum", "is not a whole number"),
        (
            '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1e3}',
            "UnreadMsgNum",
            "is not a whole number: 1000.0",
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
def test_no_documents(file: File, line: str | bytes | dict[str, Any], field: str, reason: str) -> None:
    """Each is one line, those around it are none the worse, and what is kept of it can be written."""
    found = file.jsonl(GOOD, line, "", {**GOOD, "UnreadMsgNum": 2})
    assert plain(found)[::2] == [(1, "g", "m", 1), (4, "g", "m", 2)]
    bad = found[1]
    assert isinstance(bad, Rejected)
    assert (bad.line, bad.field) == (2, field)
    assert bad.reason.startswith(reason)
    assert len(bad.reason) < 200
    assert len(json.dumps(bad.found)) < 4000
    assert bad.found or "longer" in reason


def test_what_is_kept_is_no_row_either(file: File) -> None:
    """Read again by itself, without what shaped it, it is rejected for the same field."""
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


@pytest.mark.parametrize("frames", [0, 100, 500])
def test_how_deep_a_document_may_be_does_not_depend_on_the_reader(file: File, frames: int) -> None:
    """A row that was planned must be the same row when it is sent."""

    def deeper(frames: int) -> list[Row | Rejected]:
        if frames:
            return deeper(frames - 1)
        return file.jsonl(*({**GOOD, "x": nested(depth)} for depth in range(80, 120)))

    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else 0

    found = deeper(frames)
    assert [row.line for row in found if isinstance(row, Row)] == list(range(1, 21))


def test_an_array_is_no_json_lines(file: File) -> None:
    for text in ("[]", ' \n[{"GroupId": "g"}]', json.dumps([GOOD] * 1000, indent=1)):
        with pytest.raises(SourceError, match="is one JSON array; make it JSON Lines"):
            file(text, name="rows.json")


def test_carriage_returns_alone(file: File) -> None:
    with pytest.raises(SourceError, match="ends its lines with a carriage return alone"):
        file(f"{json.dumps(GOOD)}\r{json.dumps(GOOD)}\r", name="rows.jsonl")
    assert file(f"{json.dumps(GOOD)}\r", name="rows.jsonl") == [Row(1, ("g", "m", 1))]


def test_a_field_that_no_row_has(file: File) -> None:
    document = {"room": "g", "Member_Account": "m", "UnreadMsgNum": 1}
    with pytest.raises(SourceError, match="no row has a GroupId; --map GroupId=NAME says what it is called"):
        file.jsonl(document, document)
    assert len(file.jsonl(document, GOOD)) == 2
    assert file.jsonl(document, columns={"GroupId": "room"}) == [Row(1, ("g", "m", 1))]


def test_an_optional_field_that_was_named_and_that_no_row_has(file: File) -> None:
    """A slip of the pen would mark everything as read up to now."""
    document = {"Report_Account": "a", "Peer_Account": "b", "last_read": 5}
    columns = {"MsgReadTime": "last_raed"}
    with pytest.raises(SourceError, match="no row has a last_raed; without --map MsgReadTime=last_raed"):
        file.jsonl(document, document, kind=READ, columns=columns)
    with pytest.raises(SourceError, match="has no column last_raed"):
        file("Report_Account,Peer_Account,last_read\na,b,5\n", READ, columns=columns)
    assert plain(file.jsonl("x", kind=READ, columns=columns)) == [(1, "", "is not JSON")]
    for there in ({"last_raed": 6}, {"last_raed": None}, {"last_raed": "x"}):
        found = file.jsonl(document, {**document, **there}, kind=READ, columns=columns)
        assert found[0] == Row(1, ("a", "b", None, None))


# What shapes rows


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
        {"columns": {"GroupId": ""}},
        {"id_formats": {"UnreadMsgNum": "{}"}},
        {"id_formats": {"GroupId": "x"}},
        {"id_formats": {"GroupId": "{"}},
    ],
)
def test_arguments_that_cannot_be_right(tmp_path: Path, options: dict[str, Any]) -> None:
    """Told before any file is looked for."""
    with pytest.raises(ValueError):
        FileSource(tmp_path / "none", UNREAD, **options)


def test_what_a_source_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {"UnreadMsgNum": "n", "GroupId": "g"}
    source = FileSource("rows.csv", UNREAD, columns=columns, id_formats={"GroupId": "{}"})
    assert source.kind is UNREAD
    assert source.name == str(tmp_path / "rows.csv")
    assert source.arguments == {"format": None, "columns": columns, "id_formats": {"GroupId": "{}"}}
    assert json.dumps(source.arguments) == json.dumps(
        FileSource("rows.csv", UNREAD, columns=dict(reversed(columns.items())), id_formats={"GroupId": "{}"}).arguments
    )
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
        ("rows.tab", None, HEADER.replace(",", "\t"), 0),
        (".gz", None, HEADER, 0),
        ("..gz", None, HEADER, 0),
        ("rows.csv.GZ", None, HEADER, 0),
    ],
)
def test_formats(file: File, name: str, form: Any, data: str, rows: int) -> None:
    assert len(file(data, name=name, format=form)) == rows


def test_a_tsv_file_has_tabs(file: File) -> None:
    with pytest.raises(SourceError, match="has no column"):
        file(f"{HEADER}\ng,m,1\n", name="rows.tsv")


def test_a_pipe(tmp_path: Path) -> None:
    """Its fingerprint, and its rows as often as they are wanted, two readers at a time."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    data = f"{HEADER}\n" + "".join(f"g,m{number},{number}\n" for number in range(20_000))
    writer = threading.Thread(target=path.write_bytes, args=(gzip.compress(data.encode()),))
    writer.start()
    with FileSource(path, UNREAD) as source:
        fingerprint = source.fingerprint()
        first, second = source.read(), source.read()
        begun = [next(first) for _ in range(5)]
        whole = list(second)
        assert [*begun, *first] == whole
        assert source.fingerprint() == fingerprint
    writer.join()
    assert [row.line for row in whole] == list(range(2, 20_002))
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(gzip.compress(data.encode()))
    assert read(file) == whole


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(json.dumps(GOOD).encode()))))
    with FileSource("-", UNREAD) as source:
        assert list(source.read()) == list(source.read()) == [Row(1, ("g", "m", 1))]


def test_a_file_that_ends_too_early(file: File) -> None:
    """Some rows come before that is noticed; whoever reads to the end is told."""
    data = gzip.compress(
        f"{HEADER}\n".encode() + b"".join(os.urandom(20).hex().encode() + b",m,1\n" for _ in range(10_000))
    )
    path = file.folder / "rows.csv.gz"
    path.write_bytes(data[:-1000])
    found, error = outcome(path)
    assert 1000 < len(found) < 10_000
    assert all(isinstance(row, Row) for row in found)
    assert "is a cut or damaged gzip file" in error


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("rows.csv", lambda: b"x" * 10 * MIB + b"\n"),
        ("rows.csv", lambda: b'g,m,"' + b"x" * 10 * MIB + b'"\n'),
        ("rows.csv", lambda: b'g,m,"' + (b"x" * 99 + b"\n") * (MIB // 10)),
        ("rows.jsonl", lambda: b'{"GroupId": "' + b"x" * 10 * MIB + b'"}\n'),
    ],
)
def test_ten_megabytes_are_never_in_memory(file: File, name: str, bad: Any) -> None:
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
