"""The file of rows that did not arrive: users correct it, a run takes it back, and it overwrites no other file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
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
    Kind,
    MendedSource,
    Rejected,
    Row,
    SqliteStore,
    write_rejects,
)
from tim_async.migrate._rejects import Written
from tim_async.migrate._store import About, Calls, Outcome, RowState

from .storing import contents, journal_files, ram_folder, settle

Fail = Iterable[tuple[int, int | None, str]]


async def migrate(source: FileSource, path: Path, failed: Fail = ()) -> None:
    """Run a migration in which these rows fail, and all others arrive."""
    store = SqliteStore(path)
    if await store.open(About(source.kind.name, source.name, "", dict(source.arguments))) is None:
        await store.plan(list(source.read()))
        await store.planned(source.fingerprint())
    claims = (await store.exchange([], 1000, Calls())).claims
    lines = {claim.row.line for claim in claims}
    outcomes = [Outcome(line, RowState.FAILED, code, reason) for line, code, reason in failed if line in lines]
    await store.exchange(outcomes, 0, Calls())
    await settle(store, done=lines - {outcome.line for outcome in outcomes})
    await store.close("done")


async def mend(path: Path, rows: Iterable[Row | Rejected], source: FileSource) -> None:
    store = SqliteStore(path)
    await store.open(About(source.kind.name, source.name, "", dict(source.arguments)))
    await store.mend(list(rows))
    await store.close("done")


def written(to: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in to.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Eight rows, of which lines 4 and 6 are invalid, and line 8 has too few columns."""
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
    asyncio.run(migrate(source, path, [(3, 10007, "not a member: b"), (9, None, "timed out")]))
    return path


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "rejected.jsonl"


def test_the_rejected_file(journal: Path, to: Path, file: Path) -> None:
    """It has the vendor's field names, ids as they were sent, and the line, code and reason; the source is not read."""
    file.unlink()
    assert write_rejects(str(journal), str(to)) == Written(to, 5)
    assert written(to) == [
        {"GroupId": "群_1", "Member_Account": "b", "UnreadMsgNum": 2}
        | {"Line": 3, "Code": 10007, "Reason": "not a member: b"},
        {"GroupId": "群_1", "Member_Account": "", "UnreadMsgNum": "3"}
        | {"Line": 4, "Code": None, "Reason": "Member_Account: is empty"},
        {"GroupId": "群_1", "Member_Account": "e", "UnreadMsgNum": "five"}
        | {"Line": 6, "Code": None, "Reason": "UnreadMsgNum: is not a whole number: 'five'"},
        {"GroupId": None, "Member_Account": None, "UnreadMsgNum": None, "Text": "1,g"}
        | {"Line": 8, "Code": None, "Reason": "2 columns where the header has 4"},
        {"GroupId": "群_1", "Member_Account": "h", "UnreadMsgNum": 8}
        | {"Line": 9, "Code": None, "Reason": "timed out"},
    ]
    # It can be edited and read again.
    assert "群_1" in to.read_text(encoding="utf-8")
    again = list(MendedSource(to, UNREAD).read())
    assert [row.values for row in again if isinstance(row, Row)] == [("群_1", "b", 2), ("群_1", "h", 8)]
    assert [(row.line, row.field) for row in again if isinstance(row, Rejected)] == [
        (4, "Member_Account"),
        (6, "UnreadMsgNum"),
        (8, ""),
    ]


async def test_a_row_that_could_not_be_parsed_keeps_its_text_until_it_is_filled_in(
    source: FileSource, journal: Path, to: Path
) -> None:
    """Also if other rows of the file have been corrected; its reason stays, too."""
    write_rejects(journal, to)
    text, fields = to.read_text(encoding="utf-8"), '"UnreadMsgNum": null, "Text"'
    (before,) = (row for row in written(to) if row["Line"] == 8)
    to.write_text(text.replace('"five"', "5"), encoding="utf-8")
    await mend(journal, MendedSource(to, UNREAD).read(), source)
    write_rejects(journal, to)
    (after,) = (row for row in written(to.with_name("rejected-2.jsonl")) if row["Line"] == 8)
    assert after == before
    to.write_text(text.replace(fields, fields.replace("null", "3")), encoding="utf-8")
    (partly,) = (row for row in MendedSource(to, UNREAD).read() if row.line == 8)
    assert isinstance(partly, Rejected)
    assert partly.field == "GroupId"


ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
numbers = st.one_of(st.integers(0, 2**63 - 1), st.integers(-5, 5), st.floats(), st.sampled_from(["", "many", "5.0"]))
times = st.one_of(st.none(), st.integers(0, 2 * 10**9), st.sampled_from(["2025-08-31T09:00:00+08:00", "2025-08-31"]))
odd = st.sampled_from(
    ["[" * 50 + "]" * 50, "NaN", "-Infinity", "1e999", '{"a": [NaN]}', "1" * 400, '"\\ud800"', f'"{"[" * 600}"']
)
rows_of_counts = st.tuples(ids, ids, numbers.map(json.dumps) | odd)
rows_of_times = st.tuples(ids, ids, times.map(json.dumps) | odd, numbers.map(json.dumps) | odd)


@given(st.lists(rows_of_counts, min_size=1) | st.lists(rows_of_times, min_size=1), st.data())
def test_rejected_and_failed_rows_are_read_back_unchanged(rows: list[tuple[str, ...]], data: st.DataObject) -> None:
    """Each is in the file once."""
    kind: Kind = UNREAD if len(rows[0]) == 3 else READ
    fields = [column.name for column in kind.columns]
    texts = [(*map(json.dumps, row[:2]), *row[2:]) for row in rows]
    lines = [", ".join(f'"{name}": {text}' for name, text in zip(fields, row, strict=True)) for row in texts]
    with ram_folder() as folder:
        file = folder / "rows.jsonl"
        file.write_text("".join(f"{{{line}}}\n" for line in lines), encoding="utf-8")
        source = FileSource(file, kind, until_now=True)
        valid = [row for row in source.read() if isinstance(row, Row)]
        last = {row.identity: row.line for row in valid}
        failing = [line for line in sorted(last.values()) if data.draw(st.booleans())]
        asyncio.run(migrate(source, folder / "journal", [(line, None, "no") for line in failing]))
        expected = [row for row in source.read() if isinstance(row, Rejected) or row.line in failing]
        to = folder / "rejected.jsonl"
        assert write_rejects(folder / "journal", to) == Written(to if expected else None, len(expected))
        assert to.exists() == bool(expected)
        if expected:
            assert [row["Line"] for row in written(to)] == [row.line for row in expected]
            for row, again in zip(expected, MendedSource(to, kind, until_now=True).read(), strict=True):
                assert (type(again), again.line) == (type(row), row.line)
                if isinstance(row, Row):
                    assert again == row
                elif isinstance(again, Rejected):
                    assert again.field == row.field


async def test_bytes_that_are_not_utf_8_are_read_back_unchanged(tmp_path: Path, to: Path) -> None:
    """Their row is rejected again for the same reason."""
    file = tmp_path / "rows.csv"
    file.write_bytes(b"GroupId,Member_Account,UnreadMsgNum\ng,caf\xe9,1\ng,m,2\n")
    await migrate(FileSource(file, UNREAD), tmp_path / "journal", [(3, 10007, "no")])
    assert write_rejects(tmp_path / "journal", to).rows == 2
    assert to.read_bytes().isascii()
    (first, *_), (again, failed) = FileSource(file, UNREAD).read(), MendedSource(to, UNREAD).read()
    assert isinstance(first, Rejected)
    assert isinstance(again, Rejected)
    assert failed == Row(3, ("g", "m", 2))
    assert again.found["Member_Account"] == first.found["Member_Account"] == "caf\udce9"


# Edited files


async def test_an_edited_file_is_never_overwritten(source: FileSource, journal: Path, to: Path) -> None:
    """An unedited one is; otherwise the name gets the first free number.  An unedited file without rows is removed."""
    second, third = to.with_name("rejected-2.jsonl"), to.with_name("rejected-3.jsonl")
    for _ in range(2):
        assert write_rejects(journal, to) == Written(to, 5)
    to.write_text(edited := to.read_text(encoding="utf-8").replace('"five"', "5"), encoding="utf-8")
    for _ in range(2):
        assert write_rejects(journal, to) == Written(second, 5)
    await mend(journal, (row for row in MendedSource(to, UNREAD).read() if row.line == 6), source)
    assert write_rejects(journal, to) == Written(second, 4)
    second.write_text("edited, too")
    assert write_rejects(journal, to) == Written(third, 4)
    assert (to.read_text(encoding="utf-8"), second.read_text()) == (edited, "edited, too")
    await mend(journal, [Row(line, ("g", f"m{line}", 1)) for line in (3, 4, 8, 9)], source)
    assert write_rejects(journal, to) == Written(None, 0)
    assert names(to.parent) == ["rejected-2.jsonl", "rejected.jsonl", "rows.csv", "rows.journal"]
    assert (to.read_text(encoding="utf-8"), second.read_text()) == (edited, "edited, too")


async def test_a_restarted_journal_remembers_its_files(source: FileSource, journal: Path, to: Path) -> None:
    """An earlier file that nobody edited is replaced, so that its rows are not taken for the new ones."""
    write_rejects(journal, to)
    store = SqliteStore(journal)
    assert await store.open(About("unread", "other", "", {}), restart=True) is None
    await store.plan([Row(2, ("g", "m", 1)), Rejected(3, "", "is wrong")])
    await store.planned("b2" * 32)
    await store.close()
    assert write_rejects(journal, to) == Written(to, 1)


@pytest.mark.parametrize("content", [b"", b"anything", b"\xff\x00"])
def test_a_foreign_file_is_not_overwritten(journal: Path, to: Path, content: bytes) -> None:
    """Nor are other files with a numbered name."""
    to.write_bytes(content)
    os.mkfifo(to.with_name("rejected-2.jsonl"))
    to.with_name("rejected-3.jsonl").mkdir()
    assert write_rejects(journal, to) == Written(to.with_name("rejected-4.jsonl"), 5)
    assert to.read_bytes() == content


def test_the_file_is_replaced_atomically(journal: Path, to: Path) -> None:
    """An open reader reads the old one to its end; no temporary file is left."""
    write_rejects(journal, to)
    with to.open(encoding="utf-8") as old:
        write_rejects(journal, to)
        assert len(old.readlines()) == 5
    assert len(written(to)) == 5
    assert names(to.parent) == ["rejected.jsonl", "rows.csv", "rows.journal"]


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", "名字.jsonl".encode(), b"no suffix"])
def test_unusual_file_names(journal: Path, tmp_path: Path, name: bytes) -> None:
    to = tmp_path / os.fsdecode(name)
    assert [write_rejects(journal, to) for _ in range(2)] == [Written(to, 5)] * 2
    to.write_text("edited")
    assert write_rejects(journal, to) == Written(to.with_name(f"{to.stem}-2{to.suffix}"), 5)


# Refused destinations


@pytest.mark.parametrize("link", ["same", "relative", "symlink", "hard link"])
@pytest.mark.parametrize("what", ["rows.csv", "rows.journal"])
def test_the_source_and_the_journal_are_never_overwritten(
    journal: Path, tmp_path: Path, what: str, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any path to them, also if there are no rows to write."""
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
    with pytest.raises(ValueError, match=r"the rejected rows cannot be written to .*: that is the ") as caught:
        write_rejects(journal, to)
    assert str(to) in str(caught.value)
    assert (contents(journal), contents(tmp_path / "rows.csv")) == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock"])
def test_the_files_of_the_journal_are_never_overwritten(journal: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match="that is the journal"):
        write_rejects(journal, f"{journal}{suffix}")


def test_a_journal_with_the_name_of_the_temporary_file_is_not_overwritten(
    journal: Path, file: Path, tmp_path: Path
) -> None:
    moved = journal.rename(tmp_path / "rejected.jsonl.part")
    with pytest.raises(ValueError, match="that is the journal, or would overwrite it"):
        write_rejects(moved, tmp_path / "rejected.jsonl")
    assert moved.exists()


def test_a_link_is_followed_and_kept(journal: Path, to: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    to.symlink_to(tmp_path / "kept" / "today.jsonl")
    assert write_rejects(journal, to).rows == 5
    assert to.is_symlink()
    assert len(written(to)) == 5
    assert names(tmp_path / "kept") == ["today.jsonl"]


async def test_a_pipe_is_neither_replaced_nor_removed(source: FileSource, journal: Path, tmp_path: Path) -> None:
    """For root it could be /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as stream:
        assert write_rejects(journal, pipe) == Written(pipe, 5)
        assert [json.loads(line)["Line"] for line in stream] == [3, 4, 6, 8, 9]
        await mend(journal, [Row(line, ("g", f"m{line}", 1)) for line in (3, 4, 6, 8, 9)], source)
        assert write_rejects(journal, pipe) == Written(None, 0)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["nowhere/rejected.jsonl", ""])
def test_an_unwritable_destination(journal: Path, tmp_path: Path, name: str) -> None:
    """A missing folder, or a folder; no temporary file is left."""
    with pytest.raises(OSError):
        write_rejects(journal, tmp_path / name)
    assert names(tmp_path) == ["rows.csv", "rows.journal"]
    assert journal_files(tmp_path) == [tmp_path.name]


def test_a_missing_or_invalid_journal(to: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no journal at all")
    for name in ("nowhere", "other"):
        with pytest.raises(JournalError, match=r"there is no journal|is not a migration's journal"):
            write_rejects(tmp_path / name, to)
    assert not to.exists()
