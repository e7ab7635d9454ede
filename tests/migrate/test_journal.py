"""The journal: what it keeps, what it refuses, and what no kill and no full disk can take from it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.migrate import Counts, FailureCount, JournalError, JournalMismatch, Rejected, Row, read_status
from tim_async.migrate.journal import Changes, Journal, Unsettled
from tim_async.migrate.schema import APPLICATION, VERSION, About, State
from tim_async.migrate.status import reading

from .storing import (
    ABOUT,
    KILLED,
    LONG,
    beside,
    contents,
    mixed,
    outcome,
    plan,
    process,
    rows,
    said,
    states,
)

IDS = st.text("ab:1", min_size=1, max_size=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.journal"


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with reading(path) as db:
        return db.execute(sql).fetchall()


# What it keeps


def test_from_the_first_row_to_the_last(path: Path) -> None:
    """The states of a row, one after the other."""
    given: list[Row | Rejected] = [Row(2, ("g", "a", 1)), Rejected(3, "UnreadMsgNum", "is negative: -1")]
    given += [Row(4, ("g", "b", 2))]
    given += [Row(line, ("g", f"m{line}", 0)) for line in range(5, 9)]
    with Journal(path, ABOUT) as journal:
        assert not journal.planned
        assert list(journal.plan(iter(given))) == [7]
        assert journal.planned
        assert journal.counts() == Counts(pending=6, rejected=1)
        first, second = journal.unsettled(0, 2)
        assert (first, second) == (
            Unsettled(2, Row(2, ("g", "a", 1)).identity, None),
            Unsettled(4, Row(4, ("g", "b", 2)).identity, None),
        )
        journal.save(Changes(sending=[2, 4, 5, 6], at=1000))
        assert journal.unsettled(3, 1) == [Unsettled(4, second.identity, 1000)]
        journal.save(Changes(pending=[6], done=[2], lowered=[(17, 4)], failed=[(5, 10007, "not a member")]))
        assert [(row.line, row.since) for row in journal.unsettled(0, 9)] == [(6, None), (7, None), (8, None)]
        assert journal.counts() == Counts(pending=3, done=1, lowered=1, failed=1, rejected=1)
        assert journal.failures() == [
            FailureCount(None, "UnreadMsgNum: is negative: -1", 1, 3, rejected=True),
            FailureCount(10007, "not a member", 1, 5, rejected=False),
        ]
    assert states(path)[4] is State.LOWERED
    assert query(path, "SELECT detail FROM row WHERE line = 4") == [(17,)]
    assert beside(path) == ["rows.journal"]


def test_a_row_keeps_the_time_at_which_it_was_first_sent(path: Path) -> None:
    """What marks messages read without a time of its own must not mark more the second time."""
    plan(path, rows(3))
    for at in (1000, 2000, 3000):
        with Journal(path, ABOUT) as journal:
            journal.save(Changes(sending=[2, 3], at=at))
            assert [row.since for row in journal.unsettled(0, 9)] == [1000, 1000, None]
    with Journal(path, ABOUT) as journal:
        journal.save(Changes(pending=[2]))
        journal.save(Changes(sending=[2, 4], at=4000))
        assert [row.since for row in journal.unsettled(0, 9)] == [4000, 1000, 4000]


@given(
    st.lists(st.tuples(IDS, IDS, st.booleans()), max_size=40),
    st.lists(st.integers(1, 3_000_000), min_size=40, max_size=40),
)
def test_the_last_row_of_each_member_is_sent_and_no_other(
    members: list[tuple[str, str, bool]], gaps: list[int]
) -> None:
    """Against a dict; a rejected row is nobody's, and ids that look alike side by side are not the same."""
    given: list[Row | Rejected] = []
    last: dict[tuple[str, str], int] = {}
    line = 64_000_000
    for (first, second, rejected), gap in zip(members, gaps, strict=False):
        line += gap
        if rejected:
            given.append(Rejected(line, "UnreadMsgNum", "is negative: -1"))
        else:
            given.append(Row(line, (first, second, 1)))
            last[first, second] = line
    with tempfile.TemporaryDirectory() as folder:
        path = plan(Path(folder) / "journal", given)
        with Journal(path, ABOUT) as journal:
            assert [row.line for row in journal.unsettled(0, 99)] == sorted(last.values())
            counts = journal.counts()
        later = dict(query(path, f"SELECT line, detail FROM row WHERE state = {State.SUPERSEDED:d}"))
    rejected_rows = sum(isinstance(row, Rejected) for row in given)
    assert counts == Counts(
        pending=len(last), rejected=rejected_rows, superseded=len(given) - len(last) - rejected_rows
    )
    of = {row.line: row.values[:2] for row in given if isinstance(row, Row)}
    for line, following in later.items():
        assert following == min(other for other, member in of.items() if member == of[line] and other > line)


@pytest.mark.parametrize("count", [1, 9_999, 10_000, 10_001, 100_000])
def test_all_rows_for_one_member(path: Path, count: int) -> None:
    """Also where they fill batches to the last row."""
    with Journal(path, ABOUT) as journal:
        taken = list(journal.plan(rows(count, 1)))
        assert taken == [*range(10_000, count, 10_000), count]
        assert journal.counts() == Counts(pending=1, superseded=count - 1)
        assert [row.line for row in journal.unsettled(0, 9)] == [count + 1]


def test_no_rows_and_no_valid_rows(tmp_path: Path) -> None:
    with Journal(tmp_path / "none", ABOUT) as journal:
        assert list(journal.plan(iter(()))) == []
        assert (journal.planned, journal.counts(), journal.failures()) == (True, Counts(), [])
    with Journal(tmp_path / "rejected", ABOUT) as journal:
        bad = [Rejected(line, "" if line % 2 else "GroupId", "is wrong") for line in range(2, 20_002)]
        assert list(journal.plan(iter(bad))) == [10_000, 20_000]
        assert (journal.counts(), journal.unsettled(0, 9)) == (Counts(rejected=20_000), [])
        assert journal.failures() == [
            FailureCount(None, "GroupId: is wrong", 10_000, 2, rejected=True),
            FailureCount(None, "is wrong", 10_000, 3, rejected=True),
        ]


def test_failures_are_grouped(path: Path) -> None:
    """By code, by field, and those that have neither by what they say; the most frequent first."""
    plan(
        path, [*rows(10), Rejected(20, "", "is not JSON"), Rejected(21, "", "is not JSON"), Rejected(22, "", "is long")]
    )
    with Journal(path, ABOUT) as journal:
        failed: list[tuple[int, int | None, str]] = [
            (3, 10010, "no such group: b"),
            (2, 10010, "no such group: a"),
            (5, 10007, "not a member"),
        ]
        failed += [(6, None, "timed out"), (7, None, "timed out"), (8, None, "connection lost")]
        journal.save(Changes(failed=[(9, 10010, "no such group: c"), *failed]))
        assert journal.failures() == [
            FailureCount(10010, "no such group: a", 3, 2, rejected=False),
            FailureCount(None, "timed out", 2, 6, rejected=False),
            FailureCount(None, "is not JSON", 2, 20, rejected=True),
            FailureCount(10007, "not a member", 1, 5, rejected=False),
            FailureCount(None, "connection lost", 1, 8, rejected=False),
            FailureCount(None, "is long", 1, 22, rejected=True),
        ]


@given(st.text(max_size=500))
def test_any_reason_can_be_kept(reason: str) -> None:
    """Whatever bytes the file held, whatever the service says; cut where it is long."""
    reason = reason + "\udce9\x00"
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal", ABOUT) as journal:
        list(journal.plan(iter([Row(2, ("g", "m", 1)), Rejected(3, "", reason)])))
        journal.save(Changes(failed=[(2, None, reason)]))
        kept = [failure.reason for failure in journal.failures()]
    shown = reason.encode("utf-8", "backslashreplace").decode()
    assert kept == [kept[0]] * 2
    assert shown.startswith(kept[0])
    assert len(kept[0].encode()) > 300 - 4 or kept[0] == shown
    assert len(kept[0].encode()) <= 300


def test_sessions(path: Path) -> None:
    plan(path, rows(1))
    with Journal(path, ABOUT) as journal:
        journal.begin_session(1000.5)
        journal.save_session("")
    with Journal(path, ABOUT) as journal:
        journal.begin_session(2000.5)
        journal.save_session("", 2001.0, "interrupted")
    found = [(session.started, session.ended, session.how) for session in read_status(path).sessions]
    assert found == [(1000.5, None, ""), (2000.5, 2001.0, "interrupted")]


def test_a_save_is_all_or_nothing(path: Path) -> None:
    """Whatever is wrong with a part of it."""
    plan(path, rows(10))
    with Journal(path, ABOUT) as journal:
        before = journal.counts()
        with pytest.raises(JournalError):
            journal.save(Changes(sending=[2, 3], done=[4, 5], failed=[(6, 10007, "no"), (7, object(), "no")]))  # type: ignore[list-item]
        assert journal.counts() == before
        assert journal.failures() == []
        journal.save(Changes(done=[2]))
        assert journal.counts().done == 1


# What it refuses

OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "kind": ({"kind": "read"}, ["migration of 'unread'", "one of 'read'"]),
    "file": (
        {"source": "/data/other.csv", "fingerprint": "b2" * 32},
        ["another file", "/data/export.csv", "a1a1a1a1a1a1…", "/data/other.csv", "b2b2b2b2b2b2…"],
    ),
    "changed": (
        {"fingerprint": "b2" * 32},
        ["another file, or /data/export.csv has changed since", "a1a1a1a1a1a1…", "b2b2b2b2b2b2…"],
    ),
    "columns": (
        {"arguments": {"format": None, "columns": {"GroupId": "id"}, "id_formats": {}}},
        ['{"columns": {"GroupId": "room"}} then', '{"columns": {"GroupId": "id"}} now'],
    ),
    "no columns": ({"arguments": {"format": None, "columns": {}, "id_formats": {}}}, ['"room"}} then', "none now"]),
    "templates": (
        {"arguments": {"format": None, "columns": {"GroupId": "room"}, "id_formats": {"GroupId": "群_{}"}}},
        ['"room"}} then', '"群_{}"'],
    ),
    "format": (
        {"arguments": {"format": "csv", "columns": {"GroupId": "room"}, "id_formats": {}}},
        ['"room"}} then', '"format": "csv"'],
    ),
    "app": ({"sdk_app_id": 1400000001}, ["app 1400000000", "app 1400000001"]),
    "host": ({"base_url": "https://adminapikr.im.qcloud.com"}, ["127.0.0.1:8099", "adminapikr.im.qcloud.com"]),
    "port": ({"base_url": "http://127.0.0.1:8100"}, ["127.0.0.1:8099", "127.0.0.1:8100"]),
    "scheme": ({"base_url": "https://127.0.0.1"}, ["http://127.0.0.1:8099", "https://127.0.0.1"]),
    "path": ({"base_url": "http://127.0.0.1:8099/other"}, ["127.0.0.1:8099", "127.0.0.1:8099/other"]),
    "several": (
        {"kind": "read", "fingerprint": "b2" * 32, "sdk_app_id": 7},
        ["'unread'", "'read'", "has changed since", "app 1400000000", "app 7"],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("killed", [False, True])
def test_a_journal_of_something_else(path: Path, name: str, killed: bool) -> None:
    """Refused with both sides and what is at stake, and it stays as it was."""
    plan(path, rows(12))
    if killed:  # what is in the log counts as much as what is in the file
        with process("die_after_saving", path) as running:
            assert running.wait() == KILLED
        assert len(beside(path)) == 3
    before = states(path) if killed else contents(path)
    changes, sides = OTHERS[name]
    with pytest.raises(JournalMismatch) as caught:
        Journal(path, dataclasses.replace(ABOUT, **changes))
    for side in (str(path), *sides, f"12 rows, {2 if killed else 12} of them unsettled", "Give another journal"):
        assert side in str(caught.value)
    assert (states(path) if killed else contents(path)) == before
    with Journal(path, ABOUT) as journal:
        assert journal.planned


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "http://127.0.0.1:8099/"},
        {"base_url": "HTTP://127.0.0.1:8099"},
        {"source": "/moved/export.csv"},
        {"arguments": {"id_formats": {}, "columns": {"GroupId": "room"}, "format": None}},
    ],
)
def test_what_may_differ(path: Path, changes: dict[str, Any]) -> None:
    """How the same place is written, the same file elsewhere, and the order in which arguments were given."""
    plan(path, rows(3))
    with Journal(path, dataclasses.replace(ABOUT, **changes)) as journal:
        assert journal.planned
        assert journal.counts().pending == 3


def test_arguments_as_a_source_of_ones_own_may_have_them(path: Path) -> None:
    """A tuple is a list once it has been in the journal."""
    about = dataclasses.replace(ABOUT, arguments={"tables": ("rooms", "members"), "schema": None})
    plan(path, rows(3), about)
    with Journal(path, about) as journal:
        assert journal.planned


def test_names_that_are_not_text(path: Path) -> None:
    """On POSIX a file may be called anything, and so may what is said of its columns."""
    name = os.fsdecode(b"/data/caf\xe9.csv")
    about = dataclasses.replace(ABOUT, source=name, arguments={"columns": {"GroupId": name}})
    plan(path, rows(3), about)
    with Journal(path, about) as journal:
        assert journal.planned
    assert read_status(path).source == name


def test_one_that_was_never_planned_is_anybodys(path: Path) -> None:
    """Nothing was sent by it."""
    with Journal(path, ABOUT) as journal:
        reader = journal.plan(rows(30_000))
        assert next(reader) == 10_000
    other = dataclasses.replace(ABOUT, kind="read", fingerprint="b2" * 32, sdk_app_id=7)
    with Journal(path, other) as journal:
        assert not journal.planned
        assert list(journal.plan(rows(5))) == [5]
        assert journal.counts() == Counts(pending=5)
    with pytest.raises(JournalMismatch):
        Journal(path, ABOUT)


@pytest.mark.parametrize(
    "content",
    [b"\n", b"GroupId,Member_Account,UnreadMsgNum\ng,m,1\n" * 500, bytes(8192), b"SQLite format 3", b"\xff" * 99],
    ids=["a line", "rows", "zeros", "a few bytes", "garbage"],
)
def test_not_a_database(path: Path, content: bytes) -> None:
    """Least of all the rows themselves are written to."""
    path.write_bytes(content)
    for begin in (lambda: Journal(path, ABOUT), lambda: read_status(path)):
        with pytest.raises(JournalError, match=r"rows\.journal is no journal of a migration"):
            begin()
    assert contents(path) == {"rows.journal": content}


@pytest.mark.parametrize("log", ["delete", "wal", "live"])
def test_somebody_elses_database(path: Path, log: str) -> None:
    """Neither it nor anything beside it is altered, also while somebody has it open."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {'wal' if log == 'live' else log}")
        db.execute("CREATE TABLE row (line)")
        db.execute("INSERT INTO row VALUES (1)")
        db.commit()
        if log != "live":
            db.close()
        before = contents(path)
        assert len(before) == (3 if log == "live" else 1)
        for begin in (lambda: Journal(path, ABOUT), lambda: read_status(path)):
            with pytest.raises(JournalError, match="is an SQLite database, and no journal of a migration"):
                begin()
        after = contents(path)
        assert after.keys() == before.keys()
        assert after["rows.journal"] == before["rows.journal"]
        assert after.get("rows.journal-wal") == before.get("rows.journal-wal")


def test_a_journal_of_a_newer_version(path: Path) -> None:
    plan(path, rows(3))
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = contents(path)
    for begin in (lambda: Journal(path, ABOUT), lambda: read_status(path)):
        with pytest.raises(
            JournalError, match=f"journal of version {VERSION + 1}; this release reads version {VERSION}"
        ):
            begin()
    assert contents(path) == before


def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    """What mktemp, or a run that was killed at once, leaves."""
    path.touch()
    with pytest.raises(JournalError, match="is empty"):
        read_status(path)
    plan(path, rows(3))
    assert read_status(path).counts == Counts(pending=3)


def test_it_says_what_it_is(path: Path) -> None:
    """In the file's own header from the start, where other programs look."""
    with Journal(path, ABOUT):
        head = path.read_bytes()[:100]
    assert head.startswith(b"SQLite format 3\0")
    assert head[68:72] == APPLICATION.to_bytes(4, "big") == b"TIMJ"


@pytest.mark.parametrize("name", [":memory:", "file::memory:?cache=shared", "50% #1?.journal", "-", b"caf\xe9.journal"])
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | bytes) -> None:
    """Some of them mean something else to SQLite, and none here."""
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    plan(path, rows(5))
    assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [os.fsencode(name)]
    with Journal(path, ABOUT) as journal:
        assert journal.counts() == Counts(pending=5)
        assert read_status(path).counts == Counts(pending=5)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal with something in each of its tables."""
    path = plan(tmp_path_factory.mktemp("good") / "journal", mixed(300))
    with Journal(path, ABOUT) as journal:
        journal.begin_session(1000.0)
        lines = [row.line for row in journal.unsettled(0, 50)]
        journal.save(Changes(sending=lines[:5], done=lines[5:40], failed=[(line, None, LONG) for line in lines[40:]]))
        journal.save_session("", 1001.0, "failed")
    return path.read_bytes()


def damaged(good: bytes, dice: random.Random, how: str) -> bytes:
    data = bytearray(good)
    page = dice.randrange(len(data) // 4096) * 4096
    match how:
        case "bytes":
            for _ in range(dice.randint(1, 20)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        case "words":  # where it says what it is of
            word = dice.choice([b"CREATE TABLE", b"arguments", b"base_url", b"planned", b"kind"])
            for _ in range(dice.randint(1, 5)):
                data[good.index(word) + dice.randrange(60)] = dice.randrange(256)
        case "page":
            data[page : page + 4096] = dice.randbytes(4096)
        case "zeros":
            data[page : page + 4096] = bytes(4096)
        case "cut":
            del data[dice.randrange(1, len(data)) :]
    return bytes(data)


@given(st.randoms(use_true_random=False), st.sampled_from(["bytes", "words", "page", "zeros", "cut"]))
def test_damage_is_a_journal_error(good: bytes, dice: random.Random, how: str) -> None:
    """Or is not noticed; but never any other exception, nor a file left open."""
    data = damaged(good, dice, how)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        for use in (read_status, use_all):
            path.write_bytes(data)
            try:
                use(path)
            except JournalError as error:
                complaint = str(error)
            else:
                complaint = str(path)
            assert str(path) in complaint


def use_all(path: Path) -> None:
    with Journal(path, ABOUT) as journal:
        journal.counts()
        journal.failures()
        lines = [row.line for row in journal.unsettled(0, 5)]
        journal.begin_session(2000.0)
        journal.save(Changes(sending=lines, at=2000))
        journal.save_session("", 2001.0, "done")


# What is left of one that is given up


def test_a_discarded_journal_leaves_nothing(path: Path) -> None:
    """And the next takes nothing over."""
    journal = Journal(path, ABOUT)
    assert next(journal.plan(rows(30_000))) == 10_000
    assert len(beside(path)) == 3
    journal.discard()
    assert beside(path) == []


def test_a_discarded_journal_that_is_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.journal"
    real.touch()
    link = tmp_path / "link.journal"
    link.symlink_to(real)
    journal = Journal(link, ABOUT)
    next(journal.plan(rows(30_000)))
    journal.discard()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.journal"]


def test_what_cannot_be_removed_is_empty(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And held by nobody: the next run begins it anew."""
    journal = Journal(path, ABOUT)
    next(journal.plan(rows(30_000)))

    def unlink(*_: object, **__: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        journal.discard()
    assert path.read_bytes() == b""
    assert plan(path, rows(3)) == path
    assert read_status(path).counts == Counts(pending=3)


def test_a_log_that_was_left_without_its_journal(path: Path) -> None:
    """As when a discard was cut short: it is never taken for that of the next."""
    with Journal(path, ABOUT) as journal:
        list(journal.plan(rows(50)))
        left = contents(path)
    path.write_bytes(b"")
    for name in ("rows.journal-wal", "rows.journal-shm"):
        (path.parent / name).write_bytes(left[name])
    with Journal(path, ABOUT) as journal:
        assert not journal.planned
        assert journal.counts() == Counts()
    assert beside(path) == ["rows.journal"]


# What a kill leaves


@pytest.mark.processes
@pytest.mark.parametrize("count", [40, 400])
def test_killed_while_it_begins_and_plans(tmp_path: Path, count: int) -> None:
    """At any of the steps of SQLite's machine: afterwards all rows are known, or it is planned anew."""
    whole = tmp_path / "whole.journal"
    most = 10_000_000
    steps = most - outcome("die_while_planning", whole, count, most)
    expected = states(whole)
    assert steps > 1000
    planned = []
    for number in range(1, 15):
        path = tmp_path / f"{number}.journal"
        with process("die_while_planning", path, count, steps * number // 14) as running:
            assert running.wait() == KILLED
        with Journal(path, ABOUT) as journal:
            planned.append(journal.planned)
            if not journal.planned:
                list(journal.plan(mixed(count)))
        assert states(path) == expected
        assert beside(path) == [path.name]
    assert not planned[0]
    assert planned == sorted(planned)


@pytest.mark.processes
def test_killed_while_it_saves(path: Path) -> None:
    """What was said to be saved is saved, and nothing is saved by halves."""
    plan(path, rows(4000))
    saved: list[int] = []
    for number in (1, 2, 30, 3, 40):
        with process("save_on_and_on", path, 7) as running:
            for lines in said(running, number):
                saved += lines
            running.kill()
            for lines in said(running):  # it got so far before the kill did
                saved += lines
            assert running.wait() == KILLED
        found = states(path)
        problems = {line for (line,) in query(path, "SELECT line FROM problem")}
        settled = [line for line, state in found.items() if state in (State.DONE, State.FAILED)]
        assert set(saved) <= set(settled)
        assert len(set(settled) - set(saved)) in (0, 7)
        assert settled == list(range(2, len(settled) + 2))
        failed = [line for line, state in found.items() if state is State.FAILED]
        assert failed == settled[6::7]
        assert problems == set(failed)
        assert sum(state is State.SENDING for state in found.values()) in (0, 7)
        saved = settled
    assert len(found) == 4000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A journal and its log after six saves of ten rows each."""
    path = plan(tmp_path_factory.mktemp("log") / "journal", rows(1000))
    with Journal(path, ABOUT) as journal:
        for start in range(2, 62, 10):
            lines = list(range(start, start + 10))
            journal.save(Changes(done=lines[:-1], failed=[(lines[-1], 10007, LONG)]))
        found = contents(path)
    return found["journal"], found["journal-wal"]


@given(st.data())
def test_a_log_that_was_cut_by_a_loss_of_power(log: tuple[bytes, bytes], data: st.DataObject) -> None:
    """At any byte, with any garbage after it: the saves before are there, each as a whole."""
    database, whole = log
    cut = data.draw(st.integers(0, len(whole)))
    torn = whole[:cut] + data.draw(st.sampled_from([b"", bytes(5000), b"\xa5" * 5000]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(database)
        Path(f"{path}-wal").write_bytes(torn)
        found = states(path)
        settled = [line for line, state in found.items() if state in (State.DONE, State.FAILED)]
        assert settled == list(range(2, len(settled) + 2))
        assert len(settled) % 10 == 0
        assert len(settled) == 60 or cut < len(whole)
        assert [line for line in settled if found[line] is State.FAILED] == settled[9::10]
        with Journal(path, ABOUT) as journal:
            journal.save(Changes(done=list(range(2, 1002))))
        assert read_status(path).counts == Counts(done=1000)


def test_a_beginning_that_was_cut_by_a_loss_of_power(tmp_path: Path) -> None:
    """SQLite's notes of what to undo are there, and the file itself is not what they expect."""
    begun = tmp_path / "begun.journal"
    with closing(sqlite3.connect(begun, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE row (line INTEGER PRIMARY KEY, identity BLOB)")
        db.executemany("INSERT INTO row VALUES (?, randomblob(100))", [(line,) for line in range(1000)])
        left = contents(begun)
    database, notes = left["begun.journal"], left["begun.journal-journal"]
    for number, torn in enumerate((database, bytes(len(database)), b"", database[:5000])):
        path = tmp_path / f"{number}.journal"
        path.write_bytes(torn)
        Path(f"{path}-journal").write_bytes(notes)
        plan(path, rows(3))
        assert read_status(path).counts == Counts(pending=3)
        assert beside(path) == [path.name]


def test_every_save_reaches_the_disk(path: Path) -> None:
    """Into a log, so that readers are in nobody's way."""
    plan(path, rows(3))
    for _ in range(2):
        with Journal(path, ABOUT) as journal:
            asked = [journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
            assert asked == [2, "wal"]


# A disk that is full


def test_a_full_disk(tmp_path: Path) -> None:
    """Wherever it strikes, it is one clear error; what was saved stays, and with more room the same journal goes on."""
    count = 1500
    sizes = [0, 1, 1000, 4096, 20_000, 30_000, 50_000, *range(60_000, 420_000, 12_000), 10_000_000]
    found = outcome("fill_the_disk", tmp_path, count, *sizes)
    assert {each["stage"] for each in found} == {"begin", "read", "supersede", "save", "done"}
    for size, each in zip(sizes, found, strict=True):
        name = f"{size}.journal"
        assert each["beside"] == [name]
        assert (each["total"], each["left"]) == (count, 0)
        if each["stage"] != "done":
            assert name in each["error"]
            assert "room" in each["error"] or "full" in each["error"]


def test_no_room_to_sort(path: Path) -> None:
    """The folder for temporary files may be full where the journal's is not."""
    with Journal(path, ABOUT) as journal:
        journal._db.execute("PRAGMA temp.max_page_count = 5")
        with pytest.raises(JournalError, match=r"rows\.journal, or for sorting its rows .* SQLITE_TMPDIR names"):
            list(journal.plan(rows(5000, 1)))
        assert not journal.planned
        journal._db.execute("PRAGMA temp.max_page_count = 1000000")
        list(journal.plan(rows(5000, 1)))
        assert journal.counts() == Counts(pending=1, superseded=4999)


# Its size


@pytest.mark.processes
@pytest.mark.parametrize("members", [0, 1])
def test_memory_is_bounded(tmp_path: Path, members: int) -> None:
    """Four times as many rows take no more of it."""
    small, large = (outcome("memory", tmp_path / str(count), count, members) for count in (50_000, 200_000))
    assert large < small + 10_000


@pytest.mark.parametrize("reason", ["x" * 600, "用户不在群组中" * 60, "\udce9" * 600])
def test_size(path: Path, reason: str) -> None:
    """Under 150 bytes a row, also with a tenth rejected and a tenth failed, for long reasons in any script."""
    count = 20_000
    given = (Rejected(row.line, "UnreadMsgNum", reason) if row.line % 10 == 3 else row for row in rows(count))
    plan(path, given)
    with Journal(path, ABOUT) as journal:
        while lines := [row.line for row in journal.unsettled(0, 500)]:
            journal.save(Changes(sending=lines, at=1_700_000_000))
            failed = [line for line in lines if line % 10 == 4]
            done = [line for line in lines if line % 10 != 4]
            journal.save(Changes(done=done, failed=[(line, 10007, reason) for line in failed]))
            if lines[0] == 2:
                assert sum(map(len, contents(path).values())) < 150 * count
    assert read_status(path).counts == Counts(done=16_000, failed=2_000, rejected=2_000)
    assert path.stat().st_size < 120 * count


def test_size_without_failures(path: Path) -> None:
    """Some 30 bytes a row, as its documentation says."""
    plan(path, rows(20_000))
    with Journal(path, ABOUT) as journal:
        journal.save(Changes(sending=list(range(2, 20_002)), at=1_700_000_000))
        journal.save(Changes(done=list(range(2, 20_002))))
    assert 25 < path.stat().st_size / 20_000 < 40


def test_planning_again_needs_no_more_room(path: Path) -> None:
    """However often it was killed before."""
    with Journal(path, ABOUT) as journal:
        next(journal.plan(rows(30_000)))
    size = path.stat().st_size
    for _ in range(5):
        with Journal(path, ABOUT) as journal:
            next(journal.plan(rows(30_000)))
    assert path.stat().st_size <= size + 8192


def test_what_it_is_of_reads_as_json(path: Path) -> None:
    """For whoever looks into it with SQLite's own tools."""
    plan(path, rows(1))
    about = {name: json.loads(value) for name, value in query(path, "SELECT name, value FROM about")}
    assert About(**{name: value for name, value in about.items() if name != "planned"}) == ABOUT
    assert about["planned"] is True
