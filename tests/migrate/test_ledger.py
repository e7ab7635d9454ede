"""Changes are saved together, and nobody is told before they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tim_async.migrate import JournalError
from tim_async.migrate.journal import Changes
from tim_async.migrate.ledger import Disk, Ledger


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
