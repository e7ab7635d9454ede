"""A run holds the lock of its journal until it ends; reading the journal or writing a note does not disturb it."""

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

from .storing import ABOUT, KILLED, journal, journal_files, messages, plan, planned, process, result_of, rows, settle


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


async def test_a_second_run_in_the_same_process_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any path to the journal; the first is not disturbed."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.journal"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    async with planned(link, ()) as first:
        for name in (path, link, Path("rows.journal"), Path("elsewhere/../rows.journal")):
            assert is_held(name)
            await refused(name)
        assert result_of("look", path) == [True, 0]
        assert lines_of(await first.exchange([], 2, Calls())) == [2, 3]
        assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["link.journal"]
    assert not is_held(link)
    async with planned(path, ()) as next_one:
        assert await next_one.counts() == Counts(pending=8, sending=2)


def lines_of(reply: Any) -> list[int]:
    return [claim.row.line for claim in reply.claims]


async def test_a_store_is_open_for_one_run_at_a_time(tmp_path: Path) -> None:
    for store in (MemoryStore(), SqliteStore(tmp_path / "own.journal")):
        await plan(store, rows(2))
        with pytest.raises(JournalInUse):
            await store.open(ABOUT)
        assert lines_of(await store.exchange([], 1, Calls())) == [2]
        await store.close()
        assert await store.open(ABOUT) is not None
        await store.close()


async def test_a_process_holds_the_lock_until_it_ends(path: Path) -> None:
    """Also while it is stopped, as in the background of a shell; a killed process releases it."""
    with process("hold", path) as holder:
        assert list(messages(holder, 1)) == ["held"]
        await refused(path)
        holder.send_signal(signal.SIGSTOP)
        await refused(path)
        assert is_held(path)
        holder.send_signal(signal.SIGCONT)
        holder.communicate()
    assert holder.returncode == 0
    with process("hold", path) as holder:
        list(messages(holder, 1))
        holder.kill()
        assert holder.wait() == KILLED
    assert not is_held(path)
    async with planned(path, ()) as taken:
        assert await taken.counts() == Counts(pending=10)


def test_one_of_several_threads_gets_the_lock(tmp_path: Path) -> None:
    """Also if one of them removes the journal because it was never planned."""
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


async def test_a_reader_does_not_keep_a_run_from_starting(path: Path) -> None:
    """It holds a shared lock for a moment; the run tries again, and other readers see no run."""
    look = os.open(f"{path}.lock", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    assert not is_held(path)
    store = SqliteStore(path)
    opening = asyncio.create_task(store.open(ABOUT))
    await asyncio.sleep(0)
    os.close(look)
    assert await opening is not None
    await store.close()


async def test_a_lock_file_that_is_removed_while_another_run_waits_for_it(path: Path) -> None:
    """By a run that removes a journal that was never planned: the waiting run creates a new lock file."""
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


async def test_a_journal_that_is_removed_while_a_run_opens_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check of the file and its opening: the run creates a new one."""
    other = path.with_name("other.journal")
    other.touch()

    def first_removed(path: Path, options: str) -> sqlite3.Connection:
        other.unlink()
        patched.undo()
        return opened(path, options)

    with monkeypatch.context() as patched:  # the only way to hit this moment
        patched.setattr(_journal_file, "opened", first_removed)
        store = SqliteStore(other)
        await store.open(ABOUT)
    assert is_held(other)
    await store.close()


def test_checking_the_lock_creates_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.lock")
    (tmp_path / "planted.lock").symlink_to(tmp_path / "victim")
    for name in ("nowhere", "no/folder", "pipe", "planted", ""):
        assert not is_held(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe.lock", "planted.lock"]


async def test_a_lock_file_that_cannot_be_created(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not claim that another run holds the journal; a planted link is not followed."""
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


async def test_readers_do_not_release_sqlites_locks(path: Path) -> None:
    """On POSIX, closing a file releases all locks of the process on it, those of SQLite included.

    Without them, the next process to close the journal would remove the log.
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
            assert len(journal_files(path)) == 3
            await settle(store, done=[done])
            assert result_of("look", path) == [True, done - 1]
    assert read_status(path).counts == Counts(pending=1, sending=3, done=6)
    assert journal_files(path) == ["rows.journal"]


async def test_a_reader_never_blocks_a_writer(path: Path) -> None:
    """A long transaction sees the state of its start, while a run starts, saves and ends."""
    query = "SELECT count(*) FROM row WHERE state = 0"
    with reading(path) as db:
        db.execute("BEGIN")
        assert db.execute(query).fetchone() == (10,)
        with process("exchange_repeatedly", path, 5) as running:
            assert len(list(messages(running))) == 2
            assert running.wait() == 0
        assert read_status(path).counts == Counts(done=8, failed=2)
        assert db.execute(query).fetchone() == (10,)
        with pytest.raises(JournalError, match="cannot read the journal"), reading(path) as other:
            other.execute("DELETE FROM row")
    assert read_status(path).counts == Counts(done=8, failed=2)
    assert journal_files(path) == ["rows.journal"]
