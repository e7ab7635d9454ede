"""Changes are saved together, and nobody is told before they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tim_async.migrate import JournalError
from tim_async.migrate.journal import Changes, Journal
from tim_async.migrate.ledger import Disk, Ledger

from .storing import ABOUT, plan, rows


class Notebook:
    """A journal that notes what it is told to save, and when it must, cannot."""

    def __init__(self) -> None:
        self.saved: list[Changes] = []
        self.full = False

    def save(self, changes: Changes) -> None:
        if self.full:
            raise JournalError("no room")
        self.saved.append(replace(changes))


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    disk = Disk()
    yield disk
    await disk.close()


def ledger_of(journal: Notebook, disk: Disk, enough: int = 1000) -> Ledger:
    return Ledger(journal, disk, enough)  # type: ignore[arg-type]


async def test_what_comes_together_is_saved_together(disk: Disk) -> None:
    """And each caller goes on once it is."""
    journal = Notebook()
    ledger = ledger_of(journal, disk)
    await asyncio.gather(
        *(ledger.done(line) for line in range(100)),
        ledger.failed(100, 10015, "no"),
        ledger.lowered(101, 7),
        ledger.unsent([102, 103]),
    )
    assert journal.saved == [
        Changes(pending=[102, 103], done=list(range(100)), lowered=[(7, 101)], failed=[(100, 10015, "no")])
    ]
    await ledger.close()
    assert len(journal.saved) == 1


async def test_rows_about_to_be_sent_do_not_wait_for_others(disk: Disk) -> None:
    """They carry along what has gathered."""
    journal = Notebook()
    ledger = ledger_of(journal, disk)
    done = asyncio.create_task(ledger.done(1))
    await asyncio.sleep(0)
    await ledger.sending([2, 3], 1700000000)
    await done
    assert journal.saved == [Changes(sending=[2, 3], at=1700000000, done=[1])]
    await ledger.close()


async def test_what_comes_while_it_saves_is_saved_next(disk: Disk) -> None:
    """Nothing is forgotten between two saves."""
    journal = Notebook()
    ledger = ledger_of(journal, disk, enough=1)

    async def one_after_another(start: int) -> None:
        for line in range(start, start + 50):
            await ledger.done(line)

    await asyncio.gather(*(one_after_another(start) for start in range(0, 1000, 50)))
    assert sorted(line for changes in journal.saved for line in changes.done) == list(range(1000))
    await ledger.close()


async def test_closing_saves_what_is_left(disk: Disk) -> None:
    """Also what cancelled callers have left."""
    journal = Notebook()
    ledger = ledger_of(journal, disk)
    task = asyncio.create_task(ledger.done(1))
    await asyncio.sleep(0)
    task.cancel()
    await ledger.close()
    assert [changes.done for changes in journal.saved] == [[1]]


async def test_a_cancelled_caller_harms_no_other(disk: Disk) -> None:
    journal = Notebook()
    ledger = ledger_of(journal, disk)
    tasks = [asyncio.create_task(ledger.done(line)) for line in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks[1:])
    assert journal.saved[0].done == [0, 1, 2]
    await ledger.close()


async def test_a_journal_that_cannot_be_written_ends_everything(disk: Disk) -> None:
    """Those who wait, those who come, and the end itself are told."""
    journal = Notebook()
    journal.full = True
    ledger = ledger_of(journal, disk)
    results = await asyncio.gather(*(ledger.done(line) for line in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no room"] * 3
    with pytest.raises(JournalError):
        await ledger.done(4)
    with pytest.raises(JournalError):
        await ledger.close()


class Hands:
    """A journal that raises what it was given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def save(self, changes: Changes) -> None:
        raise self.error


@pytest.mark.parametrize("error", [OverflowError("too large"), TypeError("a bug"), SystemExit("out"), MemoryError()])
async def test_whatever_ends_the_writer_everybody_is_told(disk: Disk, error: BaseException) -> None:
    """Those who wait, those whose change is being saved, and those who come later; the cause is kept."""
    ledger = Ledger(Hands(error), disk, 1)  # type: ignore[arg-type]
    waiting = [asyncio.create_task(ledger.done(line)) for line in range(3)]
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, JournalError)
        assert "the journal can no longer be written" in str(result)
        assert result.__cause__ is not None
    with pytest.raises(JournalError):
        await ledger.failed(4, 10007, "no")
    with pytest.raises(JournalError):
        await ledger.close()


@pytest.mark.parametrize("steps", range(6))
async def test_a_writer_that_is_cancelled(disk: Disk, steps: int) -> None:
    """At any step, even before its first."""
    ledger = ledger_of(Notebook(), disk, enough=1)
    waiting = asyncio.create_task(ledger.done(1))
    for _ in range(steps):
        await asyncio.sleep(0)
    ledger._writer.cancel()
    result = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert result is None or "its writer was cancelled" in str(result)
    with pytest.raises(JournalError, match="its writer was cancelled"):
        await ledger.close()


async def test_after_the_end_nobody_waits(disk: Disk) -> None:
    ledger = ledger_of(Notebook(), disk)
    await ledger.close()
    with pytest.raises(JournalError, match="is closed"):
        await ledger.done(1)


async def test_a_value_that_sqlite_refuses(disk: Disk, tmp_path: Path) -> None:
    """In a real journal, as a code without bounds from the service was."""
    path = plan(tmp_path / "rows.journal", rows(3))
    with Journal(path, ABOUT) as journal:
        ledger = Ledger(journal, disk, 1000)
        results = await asyncio.gather(ledger.failed(2, 10**30, "no"), ledger.done(3), return_exceptions=True)
        assert [type(result) for result in results] == [JournalError] * 2
        assert "cannot hold a value" in str(results[0])
        with pytest.raises(JournalError, match="cannot hold a value"):
            await ledger.close()
        assert journal.counts().pending == 3
