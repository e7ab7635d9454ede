"""Who holds a journal: one run, for as long as it lives, and whoever looks disturbs nobody."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tim_async.migrate import JournalError, JournalInUse, locking
from tim_async.migrate.journal import Journal
from tim_async.migrate.locking import FileLock, being_read, head_of, is_held
from tim_async.migrate.status import reading

from .storing import ABOUT, KILLED, outcome, plan, process, rows, said


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return plan(tmp_path / "rows.journal", rows(10))


def test_two_runs_of_one_process(journal: Path) -> None:
    """The second is refused, and the first is none the worse."""
    with Journal(journal, ABOUT) as first:
        for _ in range(2):
            with pytest.raises(JournalInUse, match="another run of this process"):
                Journal(journal, ABOUT)
        assert first.counts().pending == 10
        assert outcome("look", journal) is True
    assert not is_held(journal)
    Journal(journal, ABOUT).close()


def test_by_whatever_name(journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link.journal"
    link.symlink_to(journal)
    monkeypatch.chdir(tmp_path)
    with Journal(link, ABOUT):
        for name in (journal, link, Path("rows.journal")):
            assert is_held(name)
            with pytest.raises(JournalInUse):
                Journal(name, ABOUT)


def test_two_processes(journal: Path) -> None:
    """The second is refused with what to do, until the first ends."""
    with process("hold", journal) as holder:
        assert list(said(holder, 1)) == ["held"]
        assert is_held(journal)
        with pytest.raises(JournalInUse, match=r"another run holds the journal .*rows\.journal; wait for its end"):
            Journal(journal, ABOUT)
        assert is_held(journal)
        holder.communicate()
    assert holder.returncode == 0
    assert not is_held(journal)
    Journal(journal, ABOUT).close()


def test_a_holder_that_is_killed_leaves_it_free(journal: Path) -> None:
    with process("hold", journal) as holder:
        list(said(holder, 1))
        holder.kill()
        assert holder.wait() == KILLED
        assert not is_held(journal)
        with Journal(journal, ABOUT) as taken:
            assert taken.counts().pending == 10


def test_a_holder_that_is_stopped_keeps_it(journal: Path) -> None:
    """One in the background of a shell may go on at any time."""
    with process("hold", journal) as holder:
        list(said(holder, 1))
        holder.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(JournalInUse):
                Journal(journal, ABOUT)
        finally:
            holder.send_signal(signal.SIGCONT)


def test_threads_that_begin_at_once(tmp_path: Path) -> None:
    """One of them has it, however they meet."""
    path = tmp_path / "new.journal"
    begin, end = threading.Barrier(8), threading.Barrier(8)
    outcomes: list[str] = []

    def run() -> None:
        with contextlib.ExitStack() as stack:
            begin.wait()
            try:
                stack.enter_context(Journal(path, ABOUT))
                outcomes.append("held")
            except JournalInUse:
                outcomes.append("refused")
            end.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7


def test_who_only_looks_does_not_refuse_a_run(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look has the lock for a moment; a run that begins in that moment asks again."""
    import fcntl

    look = os.open(journal, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    assert not is_held(journal)  # those who look do not see each other
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            os.close(look)

    monkeypatch.setattr(time, "sleep", sleep)
    with Journal(journal, ABOUT):
        assert is_held(journal)
    assert len(waits) == 2
    assert sum(locking._PAUSES) < 1.0


def test_a_file_that_is_removed_before_it_is_locked(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that discards its journal must not leave the next with one that nobody else can find."""
    lock = locking._lock

    def late(file: int, *, shared: bool) -> bool:
        monkeypatch.setattr(locking, "_lock", lock)
        journal.unlink()
        return lock(file, shared=shared)

    monkeypatch.setattr(locking, "_lock", late)
    with Journal(journal, ABOUT):
        assert outcome("look", journal) is True
        with pytest.raises(JournalInUse):
            Journal(journal, ABOUT)


def test_a_look_makes_no_file(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "nowhere.journal")
    assert not is_held(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert not is_held(tmp_path / "pipe")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_what_cannot_be_held(tmp_path: Path) -> None:
    """One line that names the file and the reason."""
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "nowhere" / "rows.journal", "No such file"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/null"), "no regular file"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(JournalError, match=rf"cannot write the journal .*{reason}.*; another place") as caught:
            Journal(path, ABOUT)
        assert str(path) in str(caught.value)
        assert not isinstance(caught.value, JournalInUse)


def test_a_drive_without_locks(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, instead of that somebody else holds the file."""
    import fcntl

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(JournalError, match="No locks available") as caught:
        Journal(journal, ABOUT)
    assert not isinstance(caught.value, JournalInUse)
    assert not is_held(journal)


def test_looks_leave_the_locks_of_a_reader(journal: Path) -> None:
    """On POSIX to close a file is to give up all of the process's locks on it, those of SQLite included."""
    with process("hold", journal) as other:
        list(said(other, 1))
        with reading(journal) as db:
            db.execute("SELECT count(*) FROM row")
            other.communicate()
            assert outcome("sqlite_locks", journal) is True
            for _ in range(50):
                assert not is_held(journal)
                assert head_of(journal, 6) == b"SQLite"
                FileLock(journal).release()
            assert outcome("sqlite_locks", journal) is True
            (kept,) = locking._kept.values()
            assert len(kept) <= 51  # one for each lock, and no more for looks
    assert outcome("sqlite_locks", journal) is False
    assert (locking._kept, locking._read, locking._held) == ({}, {}, {})


def test_looks_leave_the_locks_of_a_run(journal: Path) -> None:
    """Nor does a second run that is refused, or whoever reads."""
    with Journal(journal, ABOUT):
        assert outcome("sqlite_locks", journal) is True
        with pytest.raises(JournalInUse):
            Journal(journal, ABOUT)
        assert is_held(journal)
        assert head_of(journal, 6) == b"SQLite"
        with reading(journal) as db:
            db.execute("SELECT count(*) FROM row")
        assert outcome("sqlite_locks", journal) is True
    assert outcome("sqlite_locks", journal) is False


def test_looks_during_a_read_open_no_more_files(journal: Path) -> None:
    with being_read(journal):
        for _ in range(100):
            is_held(journal)
            head_of(journal, 6)
        assert [len(kept) for kept in locking._kept.values()] == [1]
    assert locking._kept == {}


def test_what_a_look_kept_open_is_no_lock(journal: Path) -> None:
    """Another process can hold the journal while this one goes on reading it."""
    with being_read(journal):
        assert not is_held(journal)
        FileLock(journal).release()
        with process("hold", journal) as holder:
            assert list(said(holder, 1)) == ["held"]
            assert is_held(journal)
