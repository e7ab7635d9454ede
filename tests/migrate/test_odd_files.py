"""Files that caused faults in other programs, each with the public report of the fault.

Files of the same kind as those in ``test_sources.py`` and ``test_rows.py`` are left out.
The files are our own, in the columns of this program, with the oddity of the report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tim_async.migrate import READ, UNREAD, FileSource, Kind, MendedSource, Rejected, Row, SourceError

GITHUB = "https://github.com"
CSVKIT, PANDAS = f"{GITHUB}/wireservice/csvkit/issues", f"{GITHUB}/pandas-dev/pandas/issues"
DUCKDB, MILLER = f"{GITHUB}/duckdb/duckdb/issues", f"{GITHUB}/johnkerl/miller/issues"
SQLITE_UTILS = f"{GITHUB}/simonw/sqlite-utils/issues"

COUNTS = "GroupId,Member_Account,UnreadMsgNum\n"
TIMES = "Report_Account,Peer_Account,MsgReadTime\n"
TIME = 1756602000


class Case(NamedTuple):
    """A file with the expected rows or error.

    Attributes:
        report: the report of a similar file; "" for one of our own.
        data: the content.
        expected: for each row its line and values, or its line, its field and the beginning of the reason; or a part of
            the error if there are no rows.
        options: the options of the `FileSource`.
        name: the name of the file.
        notes: parts of the notes about it, in order.
    """

    report: str
    data: str | bytes
    expected: list[tuple[Any, ...]] | str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    name: str = "rows.csv"
    notes: tuple[str, ...] = ()


def check(folder: Path, kind: Kind, case: Case) -> list[Row | Rejected]:
    path = folder / case.name
    path.write_bytes(case.data.encode() if isinstance(case.data, str) else case.data)
    source = FileSource(path, kind, **case.options)
    if isinstance(case.expected, str):
        with pytest.raises(SourceError) as caught:
            list(source.read())
        assert case.expected in str(caught.value)
        return []
    rows = list(source.read())
    assert len(rows) == len(case.expected)
    for row, expected in zip(rows, case.expected, strict=True):
        if isinstance(row, Row):
            assert (row.line, *(value for value in row.values if value is not None)) == expected
        else:
            assert (row.line, row.field) == expected[:2]
            assert row.reason.startswith(expected[2])
    said = source.notes.sentences()
    assert len(said) == len(case.notes)
    assert all(part in sentence for part, sentence in zip(case.notes, said, strict=True))
    return rows


EMPTY = "is empty; --until-now"
READS = [
    # An invisible byte-order mark became part of the first column's name.
    Case(
        f"{CSVKIT}/794",
        "ï»¿MsgReadTime,Report_Account,Peer_Account\n1,alice,bob\n",
        "--map 'MsgReadTime=ï»¿MsgReadTime'",
    ),
    Case(
        f"{PANDAS}/20717",
        f'{TIMES}alice,bob,{TIME}\n"a","c",""\n',
        [(2, "alice", "bob", TIME), (3, "MsgReadTime", EMPTY)],
    ),
    Case(
        f"{PANDAS}/48173",
        f"{TIMES}a,b,\n,,\n",
        [(2, "a", "b"), (3, "Report_Account", "is empty")],
        {"until_now": True},
        notes=("1 row",),
    ),
    Case(f"{DUCKDB}/7581", f"{TIMES}a,b,2001-02-16 20:38:40.12-08\n", [(2, "MsgReadTime", "is before 2010")]),
]

ROWS = [(2, "@TGS#1", '"Bob', 1), (3, "@TGS#1", "ann", 2), (4, "@TGS#1", '24"', 3), (5, "@TGS#1", "zoe", 4)]
TSV = COUNTS.replace(",", "\t")
QUOTES = [
    # Rows between two unbalanced quotes were lost, and only one of two counts showed it.
    Case(
        f"{CSVKIT}/433",
        TSV + '@TGS#1\t"Bob\t1\n@TGS#1\tann\t2\n@TGS#1\t24"\t3\n@TGS#1\tzoe\t4\n',
        ROWS,
        name="rows.txt",
    ),
    Case(
        f"{CSVKIT}/433",
        COUNTS + 'g,"Bob,1\ng,ann,2\ng,24",3\ng,zoe,4\n',
        [
            (2, "Member_Account", "holds a control"),
            (3, "", "is within the quotes that line 2"),
            (4, "", "is within"),
            (5, "g", "zoe", 4),
        ],
    ),
    Case(
        f"{MILLER}/1533",
        TSV + 'g\tabc\t1\ng\t"efg\t2\ng\thij\t3\ng\t"klm"\t4\ng\toh"\t5\n',
        [(2, "g", "abc", 1), (3, "g", '"efg', 2), (4, "g", "hij", 3), (5, "g", '"klm"', 4), (6, "g", 'oh"', 5)],
        name="rows.tsv",
        notes=("Member_Account '\"klm\"' is in quotes",),
    ),
    Case(
        f"{MILLER}/238", TSV + 'g\t36" LCD\t1\ng\tsays ""x""\t2\n', [(2, "g", '36" LCD', 1), (3, "g", 'says ""x""', 2)]
    ),
    Case(f"{MILLER}/780", COUNTS.replace(",", "|") + 'g|COMUNI" MADONIE"|1\n', [(2, "g", 'COMUNI" MADONIE"', 1)]),
    Case(f"{DUCKDB}/10841", COUNTS + '"g, "" x", m,1\n', [(2, "Member_Account", "begins or ends with white space")]),
    Case(f"{CSVKIT}/1099", COUNTS + "Bobby 'Tables' XKCD,m,1\n", [(2, "Bobby 'Tables' XKCD", "m", 1)]),
]

GOOD = [(2, "g", "alice", 3), (4, "g", "bob", 5)]
REJECTED = [
    Case(
        "", COUNTS + 'g,alice,3\ng,carol,"1,204"\ng,bob,5\n', [GOOD[0], (3, "UnreadMsgNum", "is not a whole"), GOOD[1]]
    ),
    # The row after one with too few columns lost its last field, or all later rows were lost.
    Case(f"{DUCKDB}/13197", COUNTS + "g,alice,3\ng\ng,bob,5\n", [GOOD[0], (3, "", "1 column where"), GOOD[1]]),
    Case(f"{DUCKDB}/14001", COUNTS + "g,alice,3\ng,x,1,2\ng,bob,5\n", [GOOD[0], (3, "", "4 columns where"), GOOD[1]]),
    Case(f"{DUCKDB}/14177", COUNTS + "g,alice,3\ng,\nbob,5\n", [GOOD[0], (3, "", "2 columns"), (4, "", "2 columns")]),
    Case(
        f"{DUCKDB}/11734",
        COUNTS + 'g,alice,3\ng,a,"-26,9568"\ng,b,"33.4386,00"\n',
        [
            GOOD[0],
            (3, "UnreadMsgNum", "is not a whole number: '-26,9568'"),
            (4, "UnreadMsgNum", "is not a whole number: '33.43"),
        ],
    ),
    Case(f"{DUCKDB}/14114", COUNTS + "g,alice,3\ng,x,1I\ng,bob,5\n", [GOOD[0], (3, "UnreadMsgNum", "is not"), GOOD[1]]),
    Case(f"{CSVKIT}/751", COUNTS + "g,alice,3\ntitle\ng,bob,5\n", [GOOD[0], (3, "", "1 column where"), GOOD[1]]),
    Case(
        f"{SQLITE_UTILS}/582",
        COUNTS + "g,alice,3\n" + "\n" * 70_000 + "g,\0,1\n",
        [GOOD[0], (70_003, "Member_Account", "holds")],
    ),
]

NULL = "stands for an empty value"
SPREADSHEET = [
    Case(f"{PANDAS}/16078", COUNTS + "n/a,m,1\n", [(2, "n/a", "m", 1)], notes=(f"GroupId 'n/a' {NULL}",)),
    Case(
        f"{PANDAS}/30152",
        COUNTS + "g,#N/A,1\ng,-NaN,2\n",
        [(2, "g", "#N/A", 1), (3, "g", "-NaN", 2)],
        notes=("2 suspicious ids",),
    ),
    Case(
        f"{GITHUB}/alexcaza/export-to-csv/issues/43",
        'sep=~\n"GroupId"~"Member_Account"~"UnreadMsgNum"\n"g"~"m"~"1"\n',
        [(3, "g", "m", 1)],
    ),
]

OBJECT = '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}'
LAYOUT = [
    Case(f"{SQLITE_UTILS}/298", f"{OBJECT}\n{OBJECT}\n", [(1, "g", "m", 1), (2, "g", "m", 1)], name="rows.json"),
    Case(
        f"{SQLITE_UTILS}/206", f"{COUNTS}g,m,1\n", [(1, "", "is not JSON"), (2, "", "is not JSON")], {"format": "jsonl"}
    ),
    Case(
        f"{SQLITE_UTILS}/438",
        (COUNTS.replace(",", ";") + "g;å;1\n").encode("utf-16-le"),
        [(2, "g", "å", 1)],
        {"encoding": "utf-16-le", "delimiter": ";"},
        notes=("is not printable ASCII",),
    ),
    Case(f"{DUCKDB}/25827", "c0\nv0\na;b\n", "has no columns GroupId, Member_Account, UnreadMsgNum; found only 'c0'"),
]

ALL = [(READ, case) for case in READS] + [(UNREAD, case) for case in QUOTES + REJECTED + SPREADSHEET + LAYOUT]


@pytest.mark.parametrize(
    ("kind", "case"), ALL, ids=lambda value: value.report or "ours" if isinstance(value, Case) else ""
)
def test_an_odd_file_is_read_or_reported(tmp_path: Path, kind: Kind, case: Case) -> None:
    """Nothing in it is lost silently."""
    check(tmp_path, kind, case)


@pytest.mark.parametrize("case", REJECTED, ids=lambda case: case.report or "ours")
def test_a_rejected_row_can_be_corrected(tmp_path: Path, case: Case) -> None:
    """Its document has each field, and keeps the line of the row."""
    rejected = [row for row in check(tmp_path, UNREAD, case) if isinstance(row, Rejected)]
    path = tmp_path / "rejected.jsonl"
    documents = [{**row.found, "Line": row.line, "Reason": row.reason} for row in rejected]
    path.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    assert [row.line for row in MendedSource(path, UNREAD).read()] == [row.line for row in rejected]
    assert all(isinstance(row, Rejected) for row in MendedSource(path, UNREAD).read())
    for document in documents:
        assert {"GroupId", "Member_Account", "UnreadMsgNum"} <= document.keys()
        document.update({"GroupId": "g", "Member_Account": "mended", "UnreadMsgNum": 7})
    path.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    assert list(MendedSource(path, UNREAD).read()) == [Row(row.line, ("g", "mended", 7)) for row in rejected]
