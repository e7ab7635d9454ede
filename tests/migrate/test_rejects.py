"""The rows that did not arrive: a file that is itself valid input, and never at the cost of another."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.migrate import (
    READ,
    UNREAD,
    FileSource,
    JournalError,
    JournalMismatch,
    Kind,
    Rejected,
    Row,
    SourceError,
    write_rejects,
)
from tim_async.migrate.journal import Changes, Journal
from tim_async.migrate.schema import About

from .storing import beside, contents

Fail = Iterable[tuple[int, int | None, str]]


def about(source: FileSource) -> About:
    return About(
        source.kind.name, source.name, source.fingerprint(), dict(source.arguments), 1400000000, "http://127.0.0.1:8099"
    )


def migrate(source: FileSource, journal: Path, failed: Fail = ()) -> None:
    """A migration in which these rows failed, and all others arrived."""
    with Journal(journal, about(source)) as opened:
        for _ in opened.plan(source.read()):
            pass
        lines = {line for line, *_ in failed}
        while unsettled := [row.line for row in opened.unsettled(0, 1000)]:
            done = [line for line in unsettled if line not in lines]
            opened.save(Changes(done=done, failed=[row for row in failed if row[0] in unsettled]))


def written(to: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Eight rows, of which lines 4 and 6 cannot be valid, and line 8 is no row."""
    path = tmp_path / "rows.csv"
    path.write_text(
        "room,Member_Account,UnreadMsgNum,Line\n1,a,1,\n1,b,2,\n1,,3,\n1,d,4,\n1,e,five,\n1,f,6,\n1,g\n1,h,8,\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def source(file: Path) -> FileSource:
    return FileSource(file, UNREAD, columns={"GroupId": "room"}, id_formats={"GroupId": "群_{}"})


@pytest.fixture
def journal(file: Path, source: FileSource) -> Path:
    path = file.with_suffix(".journal")
    migrate(source, path, [(3, 10007, "not a member: b"), (9, None, "timed out after 40 attempts")])
    return path


def test_what_it_holds(source: FileSource, journal: Path, tmp_path: Path) -> None:
    """Fields by the vendor's names, ids as they were sent, each row with its line, code and reason."""
    to = tmp_path / "rejected.jsonl"
    assert write_rejects(source, journal, str(to)) == 5
    assert written(to) == [
        {
            "GroupId": "群_1",
            "Member_Account": "b",
            "UnreadMsgNum": 2,
            "Line": 3,
            "Code": 10007,
            "Reason": "not a member: b",
        },
        {
            "GroupId": "群_1",
            "Member_Account": "",
            "UnreadMsgNum": "3",
            "Line": 4,
            "Code": None,
            "Reason": "Member_Account: is empty",
        },
        {
            "GroupId": "群_1",
            "Member_Account": "e",
            "UnreadMsgNum": "five",
            "Line": 6,
            "Code": None,
            "Reason": "UnreadMsgNum: is not a whole number: 'five'",
        },
        {"Text": "1,g", "Line": 8, "Code": None, "Reason": "2 columns where the header has 4"},
        {
            "GroupId": "群_1",
            "Member_Account": "h",
            "UnreadMsgNum": 8,
            "Line": 9,
            "Code": None,
            "Reason": "timed out after 40 attempts",
        },
    ]
    # As people can mend it.
    assert "群_1" in to.read_text(encoding="utf-8")


def test_it_is_input_again(source: FileSource, journal: Path, tmp_path: Path) -> None:
    """Without the options that the first file needed: what failed comes back as it was, the rest as it was wrong."""
    to = tmp_path / "rejected.jsonl"
    write_rejects(source, journal, to)
    again = list(FileSource(to, UNREAD).read())
    assert [row.values for row in again if isinstance(row, Row)] == [("群_1", "b", 2), ("群_1", "h", 8)]
    assert [(row.line, row.field) for row in again if isinstance(row, Rejected)] == [
        (2, "Member_Account"),
        (3, "UnreadMsgNum"),
        (4, "GroupId"),
    ]
    with FileSource(to, UNREAD) as second:
        migrate(second, tmp_path / "second.journal", [(1, 10007, "not a member: b")])
        third = tmp_path / "third.jsonl"
        assert write_rejects(second, tmp_path / "second.journal", third) == 4
    assert [row["Line"] for row in written(third)] == [1, 2, 3, 4]


ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
counts = st.one_of(st.integers(0, 2**63 - 1), st.integers(-5, 5), st.sampled_from(["", "many", " 7 ", "1_0"]))
times = st.one_of(st.none(), st.integers(0, 10**11), st.sampled_from(["2025-08-31T09:00:00+08:00", "2025-08-31"]))


@given(st.lists(st.tuples(ids, ids, counts, st.booleans()), max_size=12), st.sampled_from(["csv", "jsonl"]))
def test_counts_come_back_as_they_were(rows: list[tuple[str, str, Any, bool]], form: str) -> None:
    names = ("GroupId", "Member_Account", "UnreadMsgNum")
    round_trip(UNREAD, names, [row[:3] for row in rows], [row[3] for row in rows], form)


@given(
    st.lists(st.tuples(ids, ids, times, st.one_of(st.none(), counts), st.booleans()), max_size=12),
    st.sampled_from(["csv", "jsonl"]),
)
def test_times_come_back_as_they_were(rows: list[tuple[str, str, Any, Any, bool]], form: str) -> None:
    names = ("Report_Account", "Peer_Account", "MsgReadTime", "C2CUnreadMsgNum")
    round_trip(READ, names, [row[:4] for row in rows], [row[4] for row in rows], form)


def round_trip(kind: Kind, names: tuple[str, ...], rows: list[Any], fails: list[bool], form: str) -> None:
    """Every row that failed, and each that was rejected, is in the file once, and is read from it as it was."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / f"rows.{form}"
        if form == "csv":
            text = io.StringIO()
            csv.writer(text).writerows([names, *rows])
            file.write_text(text.getvalue(), encoding="utf-8", newline="")
        else:
            lines = [
                json.dumps(dict(zip(names, row, strict=True))) + "\n"
                for row in [*rows, ("a", "b", *range(1, len(names) - 1))]
            ]
            file.write_text("".join(lines), encoding="utf-8")
        source = FileSource(file, kind)
        given = list(source.read())
        failing = {row.line for row, fails in zip(given, [*fails, True], strict=False) if fails}
        with Journal(folder / "journal", about(source)) as journal:
            for _ in journal.plan(iter(given)):
                pass
            unsettled = {row.line for row in journal.unsettled(0, 100)}
            journal.save(
                Changes(
                    done=[*unsettled - failing],
                    failed=[(line, None, "no") for line in sorted(unsettled & failing)],
                )
            )
        expected = [row for row in given if isinstance(row, Rejected) or row.line in unsettled & failing]
        to = folder / "rejected.jsonl"
        assert write_rejects(source, folder / "journal", to) == len(expected)
        assert to.exists() == bool(expected)
        if not any(isinstance(row, Row) for row in expected):
            return
        for row, again in zip(expected, FileSource(to, kind).read(), strict=True):
            if isinstance(row, Row):
                assert isinstance(again, Row)
                assert again.values == row.values
            else:
                assert isinstance(again, Rejected)


def test_what_is_not_text(tmp_path: Path) -> None:
    """It is rejected the second time for the same reason, and comes back as it was."""
    file = tmp_path / "rows.csv"
    file.write_bytes(b"GroupId,Member_Account,UnreadMsgNum\ng,caf\xe9,1\ng,m,2\n")
    to = tmp_path / "rejected.jsonl"
    for _ in range(2):
        with FileSource(file, UNREAD) as source:
            migrate(source, file.with_suffix(".journal"), [(3, 10007, "no")])
            first = list(source.read())
            assert write_rejects(source, file.with_suffix(".journal"), to) == 2
        again = list(FileSource(to, UNREAD).read())
        assert [type(row) for row in again] == [Rejected, Row]
        assert isinstance(first[0], Rejected)
        assert isinstance(again[0], Rejected)
        assert (again[0].field, again[0].reason) == (first[0].field, first[0].reason)
        assert again[0].found["Member_Account"] == first[0].found["Member_Account"]
    assert to.read_bytes().isascii()


def test_deep_and_odd_json(tmp_path: Path) -> None:
    """Whatever stands where an id or a number should."""
    file = tmp_path / "rows.jsonl"
    odd = ["[" * 50 + "]" * 50, "NaN", "-Infinity", "1e999", "true", '{"a": [1, {"b": null}]}', "1" * 400, '"\\ud800"']
    file.write_text(
        "".join(f'{{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": {value}}}\n' for value in odd)
        + '{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}\n',
        encoding="utf-8",
    )
    with FileSource(file, UNREAD) as source:
        migrate(source, tmp_path / "journal")
        to = tmp_path / "rejected.jsonl"
        assert write_rejects(source, tmp_path / "journal", to) == len(odd)
        before = list(source.read())
    after = list(FileSource(to, UNREAD, format="jsonl").read())
    for row, again in zip(before[:-1], after, strict=True):
        assert isinstance(row, Rejected)
        assert isinstance(again, Rejected)
        assert (again.field, again.reason) == (row.field, row.reason)


# The file


def test_it_is_replaced_as_a_whole(source: FileSource, journal: Path, tmp_path: Path) -> None:
    """Who reads the old one reads it to its end; nothing else is left."""
    to = tmp_path / "rejected.jsonl"
    to.write_text("old\n" * 1000)
    with to.open(encoding="utf-8") as old:
        write_rejects(source, journal, to)
        assert old.read() == "old\n" * 1000
    assert len(written(to)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejected.jsonl", "rows.csv", "rows.journal"]


def test_it_is_removed_when_there_is_nothing(file: Path, tmp_path: Path) -> None:
    file.write_text("GroupId,Member_Account,UnreadMsgNum\ng,m,1\n")
    source = FileSource(file, UNREAD)
    migrate(source, file.with_suffix(".journal"))
    to = tmp_path / "rejected.jsonl"
    to.write_text("old\n")
    for _ in range(2):
        assert write_rejects(source, file.with_suffix(".journal"), to) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.journal"]


def test_to_write_it_changes_neither_source_nor_journal(source: FileSource, journal: Path, tmp_path: Path) -> None:
    before = contents(journal), contents(tmp_path / "rows.csv")
    write_rejects(source, journal, tmp_path / "rejected.jsonl")
    assert (contents(journal), contents(tmp_path / "rows.csv")) == before


@pytest.mark.parametrize("link", ["same", "relative", "symlink", "hard link"])
@pytest.mark.parametrize("what", ["rows.csv", "rows.journal"])
def test_it_is_never_written_over_what_it_is_made_of(
    source: FileSource, journal: Path, tmp_path: Path, what: str, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever name, and least of all when there is nothing to write."""
    monkeypatch.chdir(tmp_path)
    to = tmp_path / what
    if link == "relative":
        to = Path("..") / tmp_path.name / what
    elif link == "symlink":
        to = tmp_path / "link.jsonl"
        to.symlink_to(tmp_path / what)
    elif link == "hard link":
        to = tmp_path / "link.jsonl"
        to.hardlink_to(tmp_path / what)
    before = contents(journal), contents(tmp_path / "rows.csv")
    named = "the source" if what == "rows.csv" else "the journal"
    with pytest.raises(ValueError, match=rf"the rejected rows cannot be written to .*: that is {named}") as caught:
        write_rejects(source, journal, to)
    assert str(to) in str(caught.value)
    assert (contents(journal), contents(tmp_path / "rows.csv")) == before


def test_nor_by_way_of_the_file_it_is_made_in(tmp_path: Path) -> None:
    """The rows happen to be called as that would be."""
    file = tmp_path / "rejected.jsonl.part"
    file.write_text('{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 1}\n')
    source = FileSource(file, UNREAD)
    migrate(source, tmp_path / "journal", [(1, 10007, "no")])
    with pytest.raises(ValueError, match="that is the source"):
        write_rejects(source, tmp_path / "journal", tmp_path / "rejected.jsonl")
    with pytest.raises(ValueError, match="that is the journal"):
        write_rejects(source, tmp_path / "journal", tmp_path / "journal-wal")
    assert file.read_text().startswith('{"GroupId"')


def test_a_link_remains_one(source: FileSource, journal: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    to = tmp_path / "rejected.jsonl"
    to.symlink_to(tmp_path / "kept" / "today.jsonl")
    assert write_rejects(source, journal, to) == 5
    assert to.is_symlink()
    assert len(written(to)) == 5
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["today.jsonl"]


def test_what_is_no_file_is_neither_replaced_nor_removed(source: FileSource, journal: Path, tmp_path: Path) -> None:
    """As root that could be /dev/null itself."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as stream:
        assert write_rejects(source, journal, pipe) == 5
        assert [json.loads(line)["Line"] for line in stream] == [3, 4, 6, 8, 9]
        good = tmp_path / "good.csv"
        good.write_text("GroupId,Member_Account,UnreadMsgNum\ng,m,1\n")
        migrate(FileSource(good, UNREAD), tmp_path / "good.journal")
        assert write_rejects(FileSource(good, UNREAD), tmp_path / "good.journal", pipe) == 0
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("to", ["nowhere/rejected.jsonl", ""])
def test_it_cannot_be_written(source: FileSource, journal: Path, tmp_path: Path, to: str) -> None:
    """No folder, or a folder by that name; nothing is left of the attempt."""
    with pytest.raises(OSError):
        write_rejects(source, journal, tmp_path / to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.journal"]
    assert beside(tmp_path) == [tmp_path.name]


# The rows and the journal


def test_rows_that_have_changed(source: FileSource, file: Path, journal: Path, tmp_path: Path) -> None:
    """Refused with both sides, and the file of the last time stays."""
    to = tmp_path / "rejected.jsonl"
    write_rejects(source, journal, to)
    before = to.read_bytes()
    text = file.read_text(encoding="utf-8")
    for changed in (text.replace("1,b,2", "1,B,2"), text + "1,z,1,\n", "room,Member_Account,UnreadMsgNum\n1,b,2\n"):
        file.write_text(changed, encoding="utf-8")
        again = FileSource(file, UNREAD, columns={"GroupId": "room"}, id_formats={"GroupId": "群_{}"})
        with pytest.raises(JournalMismatch, match="has changed since"):
            write_rejects(again, journal, to)
    file.unlink()
    with pytest.raises(SourceError):
        write_rejects(source, journal, to)
    assert to.read_bytes() == before
    assert not to.with_name("rejected.jsonl.part").exists()


def test_rows_that_change_meanwhile(source: FileSource, file: Path, journal: Path, tmp_path: Path) -> None:
    """Between the look at the whole and the reading of each."""
    fingerprint = source.fingerprint()
    text = file.read_text(encoding="utf-8")
    for old, new in (("1,b,2", "1,B,2"), ("1,b,2", "1,b,x"), ("1,e,five", "1,e,5"), ("1,h,8,\n", "")):
        file.write_text(text.replace(old, new), encoding="utf-8")

        class Changed(FileSource):
            def fingerprint(self) -> str:
                return fingerprint

        changed = Changed(file, UNREAD, columns={"GroupId": "room"}, id_formats={"GroupId": "群_{}"})
        with pytest.raises(SourceError, match="is not the file that was migrated") as caught:
            write_rejects(changed, journal, tmp_path / "rejected.jsonl")
        if (fds := Path("/proc/self/fd")).exists():  # whoever keeps the error keeps no file open with it
            assert str(file) not in {str(fd.readlink()) for fd in fds.iterdir() if fd.is_symlink()}
        assert caught.value is not None
    assert not (tmp_path / "rejected.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "other arguments"),
        ({"columns": {"GroupId": "room"}}, "other arguments"),
        ({"columns": {"GroupId": "room"}, "id_formats": {"GroupId": "room_{}"}}, "room_"),
    ],
)
def test_rows_of_other_arguments(file: Path, journal: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    """Other ids would be written than those that failed."""
    with pytest.raises(JournalMismatch, match=says):
        write_rejects(FileSource(file, UNREAD, **options), journal, tmp_path / "rejected.jsonl")


def test_no_journal(source: FileSource, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no journal at all")
    to = tmp_path / "rejected.jsonl"
    for name in ("nowhere", "other"):
        with pytest.raises(JournalError, match="no journal"):
            write_rejects(source, tmp_path / name, to)
    assert not to.exists()
