"""One run holds a journal for as long as it lives; reading it, or keeping a note, disturbs nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from tim_async.migrate import Counts, JournalError, JournalInUse, MemoryStore, SqliteStore, _journal_file, read_status
from tim_async.migrate._journal_file import is_held, opened, reading
from tim_async.migrate._store import Calls

from .storing import ABOUT, KILLED, beside, journal, outcome, plan, planned, process, rows, said, settle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.journal"
    asyncio.run(journal(path, rows(10)))
    return path


async def refused(path: Path, error: type[JournalError] = JournalInUse, says: str = "wait for its end, or") -> None:
    store = SqliteStore(path)
    with pytest.raises(error, match=says) as caught:
        await store.open(ABOUT)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    await store.close()


async def test_two_runs_of_one_process(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever name, the second is refused, and the first is none the worse."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.journal"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    async with planned(link, ()) as first:
        for name in (path, link, Path("rows.journal"), Path("elsewhere/../rows.journal")):
            assert is_held(name)
            await refused(name)
        assert outcome("look", path) == [True, 0]
        assert lines_of(await first.exchange([], 2, Calls())) == [2, 3]
        assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["link.journal"]
    assert not is_held(link)
    async with planned(path, ()) as next_one:
        assert await next_one.counts() == Counts(pending=8, sending=2)


def lines_of(reply: Any) -> list[int]:
    return [claim.row.line for claim in reply.claims]


async def test_a_store_is_of_one_run_at_a_time(tmp_path: Path) -> None:
    """Whatever keeps it."""
    for store in (MemoryStore(), SqliteStore(tmp_path / "own.journal")):
        await plan(store, rows(2))
        with pytest.raises(JournalInUse):
            await store.open(ABOUT)
        assert lines_of(await store.exchange([], 1, Calls())) == [2]
        await store.close()
        assert await store.open(ABOUT) is not None
        await store.close()


async def test_a_holder_keeps_it_until_it_ends(path: Path) -> None:
    """One that is stopped, too, such as one in the background of a shell; one that is killed leaves it free."""
    with process("hold", path) as holder:
        assert list(said(holder, 1)) == ["held"]
        await refused(path)
        holder.send_signal(signal.SIGSTOP)
        await refused(path)
        assert is_held(path)
        holder.send_signal(signal.SIGCONT)
        holder.communicate()
    assert holder.returncode == 0
    with process("hold", path) as holder:
        list(said(holder, 1))
        holder.kill()
        assert holder.wait() == KILLED
    assert not is_held(path)
    async with planned(path, ()) as taken:
        assert await taken.counts() == Counts(pending=10)


def test_threads_that_begin_at_once(tmp_path: Path) -> None:
    """One of them has it, however they meet; also where one removes what it never planned."""
    path = tmp_path / "new.journal"
    begin, end = threading.Barrier(8), threading.Barrier(8)
    outcomes: list[str] = []

    async def run() -> None:
        store = SqliteStore(path)
        begin.wait()
        with contextlib.suppress(JournalInUse):
            await store.open(ABOUT)
            outcomes.append("held")
        end.wait()
        await store.close()

    threads = [threading.Thread(target=asyncio.run, args=[run()]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["held"]
    assert list(tmp_path.iterdir()) == []


async def test_who_only_looks_does_not_refuse_a_run(path: Path) -> None:
    """A look has the lock for a moment; a run that begins in that moment asks again, and other looks see no run."""
    look = os.open(f"{path}.lock", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    assert not is_held(path)
    store = SqliteStore(path)
    opening = asyncio.create_task(store.open(ABOUT))
    await asyncio.sleep(0)
    os.close(look)
    assert await opening is not None
    await store.close()


async def test_a_lock_that_is_removed_before_it_is_taken(path: Path) -> None:
    """By a run that removes a journal it never planned: a run that waits for that lock takes the next one."""
    other = path.with_name("other.journal")
    first = SqliteStore(other)
    await first.open(ABOUT)
    second = SqliteStore(other)
    opening = asyncio.create_task(second.open(ABOUT))
    await asyncio.sleep(0)
    await first.close()
    await opening
    assert is_held(other)
    await refused(other)
    await second.close()


async def test_a_journal_that_is_removed_while_it_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same run, between the look at the file and its opening: the next run begins a new one."""
    other = path.with_name("other.journal")
    other.touch()

    def first_removed(path: Path, options: str) -> sqlite3.Connection:
        other.unlink()
        patched.undo()
        return opened(path, options)

    with monkeypatch.context() as patched:  # there is no other way to be sure of the moment
        patched.setattr(_journal_file, "opened", first_removed)
        store = SqliteStore(other)
        await store.open(ABOUT)
    assert is_held(other)
    await store.close()


def test_a_look_makes_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.lock")
    (tmp_path / "planted.lock").symlink_to(tmp_path / "victim")
    for name in ("nowhere", "no/folder", "pipe", "planted", ""):
        assert not is_held(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe.lock", "planted.lock"]


async def test_a_lock_that_cannot_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, instead of that somebody else holds the file; a link that was planted is not followed."""
    lock = Path(f"{path}.lock")
    lock.unlink()
    victim = path.with_name("victim")
    victim.write_text("precious")
    lock.symlink_to(victim)
    await refused(path, JournalError, r"cannot write the journal .*rows\.journal: .*; use another --journal")
    assert victim.read_text() == "precious"
    lock.unlink()

    for number in (errno.ENOLCK, errno.ENOSYS):

        def flock(*_: Any, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", flock)
            await refused(path, JournalError, os.strerror(number))
            assert not is_held(path)
    await journal(path, ())


# SQLite's own locks


async def test_looks_leave_the_log_to_the_run(path: Path) -> None:
    """On POSIX to close a file is to give up all locks that the process has on it, those of SQLite included.

    Without them the next to close the journal takes itself for the last, and removes the log that the run writes to.
    """
    async with planned(path, ()) as store:
        await store.exchange([], 9, Calls())
        for done in range(2, 8):
            assert read_status(path).running
            await store.note("note", str(done))
            await refused(path)
            with process("note", path) as other:
                assert other.wait() == 0
            assert await store.note("note") == "kept"
            assert len(beside(path)) == 3
            await settle(store, done=[done])
            assert outcome("look", path) == [True, done - 1]
    assert read_status(path).counts == Counts(pending=1, sending=3, done=6)
    assert beside(path) == ["rows.journal"]


async def test_a_reader_never_holds_a_writer_up(path: Path) -> None:
    """One that never ends sees what was there when it began, while a whole run begins, saves and ends."""
    query = "SELECT count(*) FROM row WHERE state = 0"
    with reading(path) as db:
        db.execute("BEGIN")
        assert db.execute(query).fetchone() == (10,)
        with process("exchange_on_and_on", path, 5) as running:
            assert len(list(said(running))) == 2
            assert running.wait() == 0
        assert read_status(path).counts == Counts(done=8, failed=2)
        assert db.execute(query).fetchone() == (10,)
        with pytest.raises(JournalError, match="cannot read the journal"), reading(path) as other:
            other.execute("DELETE FROM row")
    assert read_status(path).counts == Counts(done=8, failed=2)
    assert beside(path) == ["rows.journal"]
