"""What a journal tells whoever looks: at any time, from anywhere, and without getting in the way."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tim_async.migrate import Counts, FailureCount, JournalError, Recorder, Rejected, Session, Status, read_status
from tim_async.migrate.journal import Changes, Journal
from tim_async.migrate.status import reading

from .storing import ABOUT, KILLED, LONG, beside, contents, outcome, plan, process, rows, said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.journal"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def forbid_writing(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def killed(path: Path) -> None:
    """Save ten rows as done, and have them in the log alone."""
    with process("die_after_saving", path) as running:
        assert running.wait() == KILLED
    assert len(beside(path)) == 3


def test_all_of_it(path: Path) -> None:
    """While it is read, while it runs, and afterwards."""
    series = Recorder("set_unread_msg_num", 200.0, clock=lambda: 1000.0).series
    with Journal(path, ABOUT) as journal:
        status = read_status(path)
        assert (status.planned, status.running, status.counts, status.sessions) == (False, True, Counts(), [])
        list(journal.plan(iter([*rows(3), Rejected(9, "GroupId", "is empty")])))
        journal.begin_session(1000.0)
        journal.save_session(series.to_json())
        assert read_status(path).sessions == [Session(1000.0, None, "", series)]
        journal.save(Changes(sending=[2, 3], at=1000))
        journal.save(Changes(done=[2], failed=[(3, 10007, "not a member")]))
        running = read_status(path)
        journal.save_session(series.to_json(), 1060.0, "interrupted")
        journal.begin_session(2000.0)
        journal.save_session("", 2060.0, "done")
    assert running.running
    assert running.planned
    assert running.counts == Counts(pending=1, done=1, failed=1, rejected=1)
    status = read_status(str(path))
    assert dataclasses.asdict(status) | {"counts": None, "failures": None, "sessions": None} == {
        "kind": "unread",
        "source": "/data/export.csv",
        "arguments": {"format": None, "columns": {"GroupId": "room"}, "id_formats": {}},
        "sdk_app_id": 1400000000,
        "base_url": "http://127.0.0.1:8099",
        "planned": True,
        "running": False,
        "counts": None,
        "failures": None,
        "sessions": None,
    }
    assert status.counts == running.counts
    assert status.failures == [
        FailureCount(10007, "not a member", 1, 3, rejected=False),
        FailureCount(None, "GroupId: is empty", 1, 9, rejected=True),
    ]
    assert status.sessions == [
        Session(1000.0, 1060.0, "interrupted", series),
        Session(2000.0, 2060.0, "done", None),
    ]


def test_to_look_changes_nothing(path: Path) -> None:
    """Neither the file nor what is beside it."""
    plan(path, rows(100))
    before = contents(path)
    for _ in range(3):
        read_status(path)
    assert contents(path) == before


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "there is no journal"), ("rows/journal", "there is no journal"), ("", "no regular file")],
)
def test_what_is_not_there(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "rows").touch()
    path = tmp_path / name
    with pytest.raises(JournalError, match=says) as caught:
        read_status(path)
    assert str(path) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Neither does it wait for what never comes."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path / ("x" * 300)):
        with pytest.raises(JournalError, match="no journal that can be read"):
            read_status(path)


def test_a_series_that_is_damaged(path: Path) -> None:
    plan(path, rows(1))
    with Journal(path, ABOUT) as journal:
        journal.begin_session(1000.0)
        journal.save_session('{"version": 1}')
    with pytest.raises(JournalError, match=r"rows\.journal is damaged"):
        read_status(path)


@pytest.mark.parametrize("what", ["DELETE FROM about WHERE name = 'kind'", "UPDATE about SET value = '[1'"])
def test_one_that_does_not_say_what_it_is_of(path: Path, what: str) -> None:
    plan(path, rows(1))
    with closing(sqlite3.connect(path)) as db:
        db.execute(what)
        db.commit()
    for use in (read_status, lambda path: Journal(path, ABOUT)):
        with pytest.raises(JournalError, match=r"rows\.journal.* is damaged"):
            use(path)


# While a run writes


def test_while_another_process_writes(path: Path) -> None:
    """Every look shows whole saves alone: seven rows at a time, the last of them failed."""
    plan(path, rows(2800))
    looks: list[Status] = []
    with process("save_on_and_on", path, 7) as running:
        while not looks or looks[-1].counts.left:
            looks.append(read_status(path))
        assert len(list(said(running))) == 400
        assert running.wait() == 0
    for status in looks:
        counts = status.counts
        assert counts.total == 2800
        assert counts.sending in (0, 7)
        assert counts.done == 6 * counts.failed
        assert sum(failure.rows for failure in status.failures) == counts.failed
    assert [status.counts.done for status in looks] == sorted(status.counts.done for status in looks)
    assert len({status.counts.done for status in looks}) > 2
    assert any(status.running for status in looks)
    assert not read_status(path).running
    assert beside(path) == ["rows.journal"]


def test_a_reader_never_holds_a_writer_up(path: Path) -> None:
    """One that never ends sees what was there when it began, while a whole run begins, saves and ends."""
    plan(path, rows(700))
    with reading(path) as db:
        db.execute("BEGIN")
        assert db.execute("SELECT count(*) FROM row WHERE state = 0").fetchone() == (700,)
        with process("save_on_and_on", path, 7) as running:
            assert len(list(said(running))) == 100
            assert running.wait() == 0
        assert db.execute("SELECT count(*) FROM row WHERE state = 0").fetchone() == (700,)
    assert read_status(path).counts == Counts(done=600, failed=100)
    assert beside(path) == ["rows.journal"]


def test_a_reader_cannot_write(path: Path) -> None:
    plan(path, rows(3))
    with pytest.raises(JournalError, match="cannot read the journal"), reading(path) as db:
        db.execute("DELETE FROM row")
    assert read_status(path).counts == Counts(pending=3)


def test_a_reader_leaves_the_log_to_the_run(path: Path) -> None:
    """Also where the run has lost SQLite's locks, as it does when its process merely copies the file."""
    plan(path, rows(30))
    with Journal(path, ABOUT) as journal:
        for done in range(1, 11):
            journal.save(Changes(done=[done + 1]))
            path.read_bytes()
            assert outcome("settled", path) == [done, 30 - done]
            assert len(beside(path)) == 3
    assert read_status(path).counts == Counts(done=10, pending=20)


def test_a_run_of_this_process(path: Path) -> None:
    plan(path, rows(30))
    with Journal(path, ABOUT) as journal:
        for done in range(1, 11):
            journal.save(Changes(done=[done + 1]))
            status = read_status(path)
            assert (status.running, status.counts.done) == (True, done)
    assert beside(path) == ["rows.journal"]


# After a kill


def test_after_a_kill(path: Path) -> None:
    """What is in the log counts, and is in the one file afterwards."""
    plan(path, rows(30))
    killed(path)
    for _ in range(2):
        status = read_status(path)
        assert (status.running, status.counts) == (False, Counts(pending=20, done=10))
        assert beside(path) == ["rows.journal"]


def test_through_a_link(path: Path, tmp_path: Path) -> None:
    """The log is beside the file, not beside the link."""
    plan(path, rows(30))
    killed(path)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.journal"
    link.symlink_to(path)
    assert read_status(link).counts == Counts(pending=20, done=10)
    assert beside(path) == ["rows.journal"]
    assert beside(link) == ["link.journal"]


# Where nothing can be written


def test_from_a_folder_that_cannot_be_written(open_folder: Path) -> None:
    path = plan(open_folder / "rows.journal", rows(30))
    forbid_writing(open_folder)
    assert outcome("status", path) == [0, 30, False]
    assert beside(path) == ["rows.journal"]


def test_from_there_after_a_kill(open_folder: Path) -> None:
    """The log can be read all the same."""
    path = plan(open_folder / "rows.journal", rows(30))
    killed(path)
    before = contents(path)
    forbid_writing(open_folder)
    assert outcome("status", path) == [10, 20, False]
    assert contents(path) == before


def test_from_there_after_a_kill_without_the_index(open_folder: Path, path: Path) -> None:
    """As in a copy of two of the three files: better no answer than an old one, and with it what to do."""
    source = plan(path, rows(30))
    killed(source)
    copy = open_folder / "rows.journal"
    for suffix in ("", "-wal"):
        shutil.copy(f"{source}{suffix}", f"{copy}{suffix}")
    forbid_writing(open_folder)
    said = outcome("status", copy)
    assert said == [10, 20, False] or "a copy of it and of rows.journal-wal can be read elsewhere" in said


def test_by_somebody_else_while_a_run_writes(open_folder: Path) -> None:
    """Who may only read sees how far it is."""
    path = plan(open_folder / "rows.journal", rows(30))
    with Journal(path, ABOUT) as journal:
        for file in open_folder.iterdir():
            file.chmod(0o644)
        journal.save(Changes(done=[2, 3, 4]))
        assert outcome("status", path) == [3, 27, True]
        journal.save(Changes(done=[5], failed=[(6, None, LONG)]))
        assert outcome("status", path) == [4, 25, True]
    assert read_status(path).counts == Counts(pending=25, done=4, failed=1)


def test_what_others_may_not_read(open_folder: Path) -> None:
    path = plan(open_folder / "rows.journal", rows(30))
    path.chmod(0)
    said = outcome("status", path)
    assert "no journal that can be read" in said
    assert "Permission denied" in said
