"""Reading the status of a journal: at any time, with read permission only, and without disturbing a run."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tim_async.migrate import Counts, Status, read_status
from tim_async.migrate._store import Calls

from .storing import KILLED, contents, journal, journal_files, messages, planned, process, result_of, rows, settle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.journal"
    asyncio.run(journal(path, rows(30)))
    return path


@pytest.fixture
def shared() -> Iterator[Path]:
    """A journal in a folder that other users can read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield asyncio.run(journal(folder / "rows.journal", rows(30)))
        folder.chmod(0o755)


def forbid_writing(path: Path) -> None:
    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)


def killed(path: Path) -> None:
    """Settle ten rows and claim three, in the log only."""
    with process("die_after_an_exchange", path) as running:
        assert running.wait() == KILLED
    assert len(journal_files(path)) == 3


def test_reading_the_status_changes_nothing(path: Path) -> None:
    before = contents(path)
    for _ in range(3):
        assert read_status(str(path)).counts == Counts(pending=30)
    assert contents(path) == before


def test_the_status_after_a_kill(path: Path, tmp_path: Path) -> None:
    """It includes the log, which is merged into the journal; also through a link, next to which there is no log."""
    killed(path)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.journal"
    link.symlink_to(path)
    for name in (link, path):
        status = read_status(name)
        assert (status.running, status.counts) == (False, Counts(pending=17, sending=3, done=10))
        assert [session.ended for session in status.sessions] == [None]
        assert journal_files(path) == ["rows.journal"]


def test_the_status_while_another_process_writes(tmp_path: Path) -> None:
    """It always shows whole exchanges of seven rows, the last of them failed."""
    path = tmp_path / "many.journal"
    asyncio.run(journal(path, rows(2800)))
    looks: list[Status] = []
    with process("exchange_repeatedly", path, 7) as running:
        while not looks or looks[-1].counts.left:
            looks.append(read_status(path))
        assert len(list(messages(running))) == 400
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
    assert journal_files(path) == ["many.journal"]


# Without write permission


@pytest.mark.parametrize("left", ["complete", "killed", "killed, without the index"])
def test_the_status_in_a_folder_without_write_permission(shared: Path, path: Path, left: str) -> None:
    """It includes the log; for an incomplete copy an error is better than an outdated status."""
    if left != "complete":
        killed(path)
        for suffix in ("", "-wal", "-shm")[: 3 if left == "killed" else 2]:
            shutil.copy(f"{path}{suffix}", f"{shared}{suffix}")
    before = contents(shared)
    forbid_writing(shared)
    result = result_of("status", shared)
    if left == "killed, without the index":
        assert result == [10, 20, False] or "a copy of it and of rows.journal-wal can be read elsewhere" in result
    else:
        assert result == ([10, 20, False] if left == "killed" else [0, 30, False])
        assert contents(shared) == before


async def test_the_status_without_write_permission_while_a_run_writes(shared: Path) -> None:
    """Without read permission it is an error."""
    async with planned(shared, ()) as store:
        await store.exchange([], 9, Calls())
        for file in shared.parent.iterdir():
            file.chmod(0o644)
        await settle(store, done=[2, 3, 4])
        assert result_of("status", shared) == [3, 27, True]
        await settle(store, done=[5], failed=[6])
        assert result_of("status", shared) == [4, 25, True]
    shared.chmod(0)
    result = result_of("status", shared)
    assert "cannot read the journal" in result
    assert "Permission denied" in result
