"""Between the store and the service: outcomes are saved in batches, and events are emitted after that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import Action, Fate, Seen, StandIn, client_of, error, ok
from tim_async import Attempt
from tim_async.migrate import (
    UNREAD,
    Counts,
    Ended,
    Event,
    FileSource,
    Finished,
    JournalError,
    MemoryStore,
    MigrateError,
    Rejected,
    Resumed,
    Row,
    RowFailed,
    Store,
    Waiting,
    _engine,
    _sending,
    run,
)
from tim_async.migrate._store import Calls, Exchange, Mended, Outcome

from .storing import Rows, all_of, finished, of, rows

RATES = {"set_unread_msg_num": 5000}


def source(count: int) -> Rows:
    return Rows(lambda: rows(count))


class RecordingStore(MemoryStore):
    """A store that records its exchanges, and fails at a chosen one."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[list[Outcome]] = []
        self.most = 0
        self.error_at = -1
        self.error: BaseException = JournalError("no room")

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        if len(self.exchanges) == self.error_at:
            raise self.error
        await asyncio.sleep(0)
        reply = await super().exchange(outcomes, room, calls)
        self.exchanges.append(list(outcomes))
        self.most = max(self.most, reply.counts.sending)
        return reply


async def migrate(service: StandIn, store: Store, rows: Rows, **options: Any) -> list[Event]:
    async with client_of(service, rates=RATES) as tim:
        return await all_of(run(tim, rows, store, group_check=False, **options))


@pytest.mark.parametrize("concurrency", [1, 7, 64])
async def test_outcomes_are_saved_in_batches(
    service: StandIn, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """A row counts as under way until its outcome is saved, so that no more rows are claimed at once."""
    monkeypatch.setattr(_sending, "_GATHER", 0.5)  # long enough for a batch on a slow machine
    store = RecordingStore()
    events = await migrate(service, store, source(500), concurrency=concurrency)
    assert finished(events).counts.done == 500
    saved = [outcome.line for outcomes in store.exchanges for outcome in outcomes]
    assert sorted(saved) == list(range(2, 502))
    assert store.most <= max(2, concurrency)
    assert len(store.exchanges) <= 2 + 500 / (max(2, concurrency) // 2)


async def test_events_are_emitted_after_the_outcome_is_saved(service: StandIn) -> None:
    """For rows that the service refused and for rows that were not sent."""
    service.answer = lambda _: error(10015, "no")
    store = RecordingStore()
    failed = 0
    async with client_of(service, rates=RATES) as tim:
        async for event in run(tim, source(100), store, group_check=False, concurrency=8):
            failed += isinstance(event, RowFailed)
            assert failed <= (await store.counts()).failed
    assert failed == 100


class SlowStore(RecordingStore):
    """A store that saves outcomes only a moment after `hurry`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.hurried = asyncio.Event(), asyncio.Event()

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        if outcomes:
            self.asked.set()
            await self.hurried.wait()
        return await super().exchange(outcomes, room, calls)

    def hurry(self) -> None:
        asyncio.get_running_loop().call_later(0.01, self.hurried.set)


async def test_leaving_a_run_waits_for_the_outcome_that_is_being_saved(service: StandIn) -> None:
    store = SlowStore()
    async with client_of(service, rates=RATES) as tim:
        events = run(tim, source(1), store, group_check=False, interval=0.01)
        async with contextlib.aclosing(events):
            async for _ in events:
                if store.asked.is_set():
                    break
    assert (await store.counts()).done == len(service.seen) == 1


class LeasingStore(RecordingStore):
    """A store with rows that are leased to others; it saves the first outcome only when the second is there."""

    def __init__(self, service: StandIn) -> None:
        super().__init__()
        self.service = service
        self.answers = 0
        self.both = asyncio.Event()

    def attempted(self, _: Attempt) -> None:
        self.answers += 1
        if self.answers == 2:
            self.both.set()

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        if outcomes:
            self.service.let_go.set()
            await self.both.wait()
            await run_loop(20)
        reply = await super().exchange(outcomes, room, calls)
        return replace(reply, exhausted=False)


async def run_loop(count: int) -> None:
    """Let the event loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_run_that_waits_for_other_workers_polls_with_pauses(
    service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its last outcome arrived during an exchange."""
    monkeypatch.setattr(_sending, "_SOON", 60.0)
    service.script.extend([ok(), Fate.HOLD])
    store, stop = LeasingStore(service), asyncio.Event()
    async with client_of(service, rates=RATES, on_attempt=store.attempted) as tim:
        running = asyncio.ensure_future(all_of(run(tim, source(2), store, group_check=False, concurrency=2, stop=stop)))
        await store.both.wait()
        await run_loop(500)
        assert [len(outcomes) for outcomes in store.exchanges] == [0, 1, 1]
        stop.set()
        assert finished(await running).ended is Ended.DONE


class EndingLeases(RecordingStore):
    """Another worker's rows end without being claimed by this run."""

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        reply = await super().exchange(outcomes, room, calls)
        if len(self.exchanges) >= 12:
            return reply
        return replace(reply, exhausted=False, counts=replace(reply.counts, sending=reply.counts.sending + 3))


async def test_a_wait_for_others_ends_with_the_last_rows(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sending, "_SOON", 0.0)
    events = await migrate(service, EndingLeases(), source(2), concurrency=2)
    assert of(Waiting, events)[0].reason == "3 rows are leased to other workers"
    waits = [type(event) for event in events if isinstance(event, Waiting | Resumed)]
    assert (waits[0], waits[-1], waits.count(Resumed)) == (Waiting, Resumed, 1)


class BusyStore(RecordingStore):
    """The first time, a corrected row follows one that another worker is sending."""

    mends = 0

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        self.mends += 1
        mended = await super().mend(rows)
        return replace(mended, busy=(2,)) if self.mends == 1 else mended


async def test_a_wait_for_the_rows_before_corrected_ones_ends(
    service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_engine, "_MEND_AGAIN", 1e-9)
    store = BusyStore()
    await migrate(service, store, source(2))
    events = await migrate(service, store, source(2), mended=source(1))
    waits = [event for event in events if isinstance(event, Waiting | Resumed)]
    assert [type(event) for event in waits] == [Waiting, Resumed]


@pytest.mark.parametrize("at", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("kind", [JournalError, RuntimeError])
async def test_a_store_that_fails_ends_the_run(service: StandIn, at: int, kind: type[Exception]) -> None:
    """With its error; the next run sends only the rows under way again."""
    store = RecordingStore()
    store.error_at, store.error = at, kind("no room")
    with pytest.raises(kind, match="no room"):
        await migrate(service, store, source(200), concurrency=4)
    store.error_at = -1
    events = await migrate(service, store, source(200), concurrency=4)
    assert finished(events) == Finished(Counts(done=200), Ended.DONE)
    assert {body["Member_Account"] for body in service.bodies} == {f"member{number}" for number in range(200)}
    assert len(service.seen) <= 200 + 4


async def test_a_cancelled_task_of_a_run_ends_the_run(service: StandIn) -> None:
    """Each of its tasks; the run raises an error that says so."""
    for number in range(12):
        store = RecordingStore()

        def answer(_: Seen, number: int = number) -> Action:
            if len(service.seen) == 30:
                mine = [task for task in asyncio.all_tasks() if "migrate" in repr(task.get_coro())]
                of_run = sorted(mine, key=lambda task: task.get_name())[1:]
                of_run[number % len(of_run)].cancel()
            return ok()

        service.answer = answer
        service.seen.clear()
        with contextlib.suppress(MigrateError):
            async with asyncio.timeout(60):
                await migrate(service, store, source(100), concurrency=4)
        service.answer = lambda _: ok()
        events = await migrate(service, store, source(100), concurrency=4)
        assert finished(events).counts.done == 100


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_run_that_reads_a_silent_pipe_can_be_ended(service: StandIn, tmp_path: Path, how: str) -> None:
    """By a stop or a cancellation; no journal is left."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reader: asyncio.Future[threading.Thread] = loop.create_future()

    class Pipe(FileSource):
        def read(self) -> Iterator[Row | Rejected]:
            loop.call_soon_threadsafe(reader.set_result, threading.current_thread())
            return super().read()

    async with client_of(service) as tim:
        events = run(tim, Pipe(pipe, UNREAD, format="csv"), tmp_path / "journal", stop=stop, interval=0.01)
        waiting = asyncio.ensure_future(anext(events))
        thread = await reader
        async with asyncio.timeout(60):
            if how == "stop":
                stop.set()
                assert finished([await waiting]).ended is Ended.INTERRUPTED
            else:
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await events.aclose()
    os.close(writer)
    while thread.is_alive():  # the run has left it behind
        os.close(os.open(pipe, os.O_RDWR))  # so that it reads the end of the pipe, even if it opens it only now
        thread.join(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
