"""Workers against a real store and a real server: what is sent, what is written, and how each ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import APP, Fate, Seen, StandIn, client_of, error, failure_of, ok, page
from tests.store import Store
from tim_async import AuthError, RetryPolicy
from tim_async.migrate import (
    READ,
    Counts,
    Ended,
    Event,
    Finished,
    Recorder,
    Resumed,
    RowFailed,
    RowLowered,
    Started,
    Waiting,
)
from tim_async.migrate.streams import StoreError, StreamMismatch, read_fleet, work
from tim_async.migrate.streams.store import Store as Stream

from .fleet import key, last_of, loaded, looking, of, rows_of, write

FAST = {"set_unread_msg_num": 2000, "admin_set_msg_read": 2000, "get_group_info": 2000}


def simple(folder: Path, count: int) -> Path:
    """A file with so many rows, for as many members."""
    return write(folder / "counts.csv", [(f"g{number % 3}", f"m{number}", "1") for number in range(count)])


async def working(service: StandIn, url: str, *, client: dict[str, Any] | None = None, **options: Any) -> list[Event]:
    """All events of a worker."""
    options = {"group_check": False, "interval": 0.05, **options}
    async with (
        client_of(service, rates=FAST, **(client or {})) as tim,
        contextlib.aclosing(work(tim, url, **options)) as events,
    ):
        return [event async for event in events]


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def test_all_rows(tmp_path: Path, store: Store, service: StandIn) -> None:
    """The last row of each member is sent, once; and then there is nothing to do."""
    dice = random.Random(1)
    rows = rows_of(dice, 300, 200)
    await loaded(write(tmp_path / "counts.csv", rows), store.url)
    events = await working(service, store.url)
    wanted = Counts(done=200, superseded=100)
    assert of(Started, events) == [Started(Counts(pending=200, superseded=100), resumed=False)]
    assert finished(events) == Finished(wanted, Ended.DONE)
    sent = {(body["GroupId"], body["Member_Account"]): str(body["UnreadMsgNum"]) for body in service.bodies}
    assert sent == last_of(rows)
    assert len(service.bodies) == 200
    assert finished(await working(service, store.url)) == Finished(wanted, Ended.NOTHING_TO_DO)
    assert len(service.bodies) == 200


async def test_before_the_load(tmp_path: Path, store: Store, service: StandIn) -> None:
    """A worker waits for the stream, and says so."""
    said: list[Event] = []
    waits = asyncio.Event()

    async def watched() -> None:
        async with (
            client_of(service, rates=FAST) as tim,
            contextlib.aclosing(work(tim, store.url, group_check=False)) as events,
        ):
            async for event in events:
                said.append(event)
                if isinstance(event, Waiting):
                    waits.set()

    worker = asyncio.create_task(watched())
    await waits.wait()
    assert of(Waiting, said)[0].reason == f"there is no stream migration at {store.url} yet"
    assert (await loaded(simple(tmp_path, 50), store.url)).complete
    await worker
    assert of(Resumed, said)
    assert finished(said).counts == Counts(done=50)


async def test_an_incomplete_load_is_waited_for(tmp_path: Path, store: Store, service: StandIn) -> None:
    """What is there is sent; the end is not reached before the load's."""
    await loaded(simple(tmp_path, 30), store.url)
    async with looking(store.url) as redis:
        await redis.hset(key("about"), mapping={"complete": 0, "rows": 40, "loaded": 30})
        stop = asyncio.Event()
        said: list[Event] = []
        async with (
            client_of(service, rates=FAST) as tim,
            contextlib.aclosing(work(tim, store.url, group_check=False, stop=stop)) as events,
        ):
            async for event in events:
                said.append(event)
                if isinstance(event, Waiting):
                    stop.set()
    (waiting,) = of(Waiting, said)
    assert waiting.reason == "the load of the stream is at 30 of 40 rows"
    assert finished(said) == Finished(Counts(done=30, pending=10), Ended.INTERRUPTED)


async def test_failures(tmp_path: Path, store: Store, service: StandIn) -> None:
    """A row that the service refuses fails, with its code; the others go on."""

    def answer(seen: Seen) -> Any:
        number = int(seen.json["Member_Account"][1:])
        return error(10007, "no") if number % 10 == 3 else error(77777, "odd") if number == 5 else ok()

    service.answer = answer
    await loaded(simple(tmp_path, 40), store.url)
    events = await working(service, store.url)
    assert finished(events) == Finished(Counts(done=35, failed=5), Ended.DONE, {10007: 4, 77777: 1})
    assert {event.line for event in of(RowFailed, events)} == {5, 15, 25, 35, 7}
    first, second = (await read_fleet(store.url)).status.failures
    assert (first.code, first.rows, first.first_line, first.rejected) == (10007, 4, 5, False)
    assert (second.code, second.rows, second.first_line) == (77777, 1, 7)


async def test_groups(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Groups that would ignore a row fail it unsent; a count above a group's messages is told of."""

    def answer(seen: Seen) -> Any:
        if not seen.path.endswith("/get_group_info"):
            return ok()
        kinds = {"g0": "Public", "g1": "Meeting", "g2": "Private"}
        groups = [
            {"GroupId": name, "ErrorCode": 0, "Type": kinds[name], "NextMsgSeq": 1 if name == "g2" else 9}
            for name in seen.json["GroupIdList"]
        ]
        return ok(GroupInfo=groups)

    service.answer = answer
    await loaded(simple(tmp_path, 30), store.url)
    events = await working(service, store.url, group_check=True, concurrency=8)
    assert finished(events).counts == Counts(done=10, lowered=10, failed=10)
    assert len(of(RowLowered, events)) == 10
    (failure,) = (await read_fleet(store.url)).status.failures
    assert failure.code is None
    assert "Meeting" in failure.reason
    assert {body["GroupId"] for body in service.bodies if "Member_Account" in body} == {"g0", "g2"}


async def test_rows_without_a_time_of_their_own(tmp_path: Path, store: Store, service: StandIn) -> None:
    """They are sent with the store's time, already the first time."""
    file = write(tmp_path / "reads.csv", [("a", "b", ""), ("c", "d", "1700000000")], "read")
    await loaded(file, store.url, READ)
    async with looking(store.url) as redis:
        before, _ = await redis.time()
        await working(service, store.url)
        after, _ = await redis.time()
        assert await redis.exists(key("pins")) == 0
    times = {body["Report_Account"]: int(body["MsgReadTime"]) for body in service.bodies}
    assert times["c"] == 1700000000
    assert before <= times["a"] <= after


async def test_a_stop_gives_the_rest_back(tmp_path: Path, store: Store, service: StandIn) -> None:
    """What is under way is finished; the rest is there for others at once, whatever the lease."""
    await loaded(simple(tmp_path, 60), store.url)
    service.answer = lambda _: Fate.HOLD
    stop = asyncio.Event()
    first = asyncio.create_task(working(service, store.url, concurrency=10, stop=stop, lease=1000.0))
    await service.until(10)
    async with looking(store.url) as redis:
        assert (await redis.xpending(key("rows"), "workers"))["pending"] == 10
    stop.set()
    service.answer = lambda _: ok()
    service.let_go.set()
    end = finished(await first)
    assert end.ended is Ended.INTERRUPTED
    assert end.counts.done == 10
    async with looking(store.url) as redis:
        consumers = await redis.xinfo_consumers(key("rows"), "workers")
        assert {consumer["name"] for consumer in consumers} <= {"returned"}
    assert finished(await working(service, store.url, lease=1000.0)).counts == Counts(done=60)
    assert len(service.bodies) == 60


async def test_leaving_gives_the_rest_back(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Stopped at once, calls are cut short, and their rows are sent by others without waiting for a lease."""
    await loaded(simple(tmp_path, 30), store.url)
    service.answer = lambda _: Fate.HOLD
    first = asyncio.create_task(working(service, store.url, concurrency=10, lease=1000.0))
    await service.until(10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    service.answer = lambda _: ok()
    service.let_go.set()
    assert finished(await working(service, store.url, lease=1000.0)).counts == Counts(done=30)


async def test_what_a_dead_worker_held_is_taken_over(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Once its lease is over; a living worker keeps its own, however long a call takes."""
    await loaded(simple(tmp_path, 20), store.url)
    async with looking(store.url) as redis:
        await redis.xreadgroup("workers", "dead", {key("rows"): ">"}, count=5)
    service.script.extend([Fate.HOLD] * 3)
    slow = asyncio.create_task(working(service, store.url, concurrency=3, lease=1.5))
    await service.until(3)
    # The others have everything but the three, which are held for several leases.
    others = asyncio.create_task(working(service, store.url, lease=1.5))
    await service.until(20)
    await asyncio.sleep(3.5)
    service.let_go.set()
    assert finished(await slow).counts == finished(await others).counts == Counts(done=20)
    assert len(service.bodies) == 20


async def test_refused_credentials(tmp_path: Path, store: Store, service: StandIn) -> None:
    """They end the worker at once; no row fails, and others send all of them."""
    await loaded(simple(tmp_path, 20), store.url)
    service.answer = lambda _: error(70003, "bad signature")
    raised = await failure_of(working(service, store.url, lease=1000.0))
    assert isinstance(raised, AuthError)
    fleet = await read_fleet(store.url)
    assert fleet.status.counts.failed == 0
    assert [worker.how for worker in fleet.workers] == ["failed"]
    service.answer = lambda _: ok()
    assert finished(await working(service, store.url, lease=1000.0)).counts == Counts(done=20)


async def test_another_app(tmp_path: Path, store: Store, service: StandIn) -> None:
    """A stream belongs to the app of its load, or of its first worker."""
    await loaded(simple(tmp_path, 3), store.url)
    await working(service, store.url)
    raised = await failure_of(working(service, store.url, client={"sdk_app_id": 1400000001}))
    assert isinstance(raised, StreamMismatch)
    assert "is of app 1400000000, and this is app 1400000001" in str(raised)
    await loaded(simple(tmp_path, 3), store.url, name="b", sdk_app_id=1400000009, base_url="https://example.com")
    raised = await failure_of(working(service, store.url, name="b"))
    assert isinstance(raised, StreamMismatch)
    assert "https://example.com" in str(raised)
    assert len(service.bodies) == 3


async def test_an_outage(tmp_path: Path, store: Store, service: StandIn) -> None:
    """It is waited out, or ends the worker when it was told so; no row fails."""
    await loaded(simple(tmp_path, 20), store.url)
    service.answer = lambda _: page(503)
    one = RetryPolicy(attempts=1)
    end = finished(await working(service, store.url, max_outage=0.2, client={"retry": one}))
    assert end.ended is Ended.LIMIT
    assert "the service took nothing for" in end.reason
    assert end.counts.failed == 0
    worker = asyncio.create_task(working(service, store.url, client={"retry": one}))
    await service.until(len(service.seen) + 12)
    service.answer = lambda _: ok()
    events = await worker
    assert of(Resumed, events)
    assert finished(events).counts == Counts(done=20)


async def test_too_many_errors(tmp_path: Path, store: Store, service: StandIn) -> None:
    """They are those of all workers; each stops at its own limit."""
    await loaded(simple(tmp_path, 40), store.url)
    service.answer = lambda _: error(10007, "no")
    first = finished(await working(service, store.url, max_errors=4, concurrency=2))
    assert first.ended is Ended.LIMIT
    assert 5 <= first.counts.failed <= 7
    sent = len(service.bodies)
    second = finished(await working(service, store.url, max_errors=4))
    assert second.ended is Ended.LIMIT
    assert len(service.bodies) == sent


async def test_a_reply_that_was_overtaken(
    tmp_path: Path, store: Store, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older count of the errors, on another connection, does not undo a limit."""
    await loaded(simple(tmp_path, 4), store.url)
    service.answer = lambda _: error(10007, "no")
    record, take = Stream.record, Stream.take
    recorded = asyncio.Event()
    late = 0

    async def recording(self: Stream, *args: Any) -> Any:
        try:
            return await record(self, *args)
        finally:
            recorded.set()

    async def taking(self: Stream, *args: Any) -> Any:
        nonlocal late
        found, state = await take(self, *args)
        if not found:
            await recorded.wait()
            late += state.failed == 0
        return found, state

    monkeypatch.setattr(Stream, "record", recording)
    monkeypatch.setattr(Stream, "take", taking)
    assert finished(await working(service, store.url, max_errors=0)).ended is Ended.LIMIT
    assert late == 1


async def test_a_store_that_lost_everything(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Its workers do not wait for a stream that will never be whole again."""
    await loaded(simple(tmp_path, 200), store.url)
    service.answer = lambda _: Fate.HOLD
    worker = asyncio.create_task(working(service, store.url, concurrency=5))
    await service.until(5)
    store.kill()
    store.start()
    service.answer = lambda _: ok()
    service.let_go.set()
    raised = await failure_of(worker)
    assert isinstance(raised, StoreError)
    assert "the stream migration is gone from" in str(raised)


async def test_rows_that_are_lost(tmp_path: Path, store: Store, service: StandIn) -> None:
    """A stream that somebody trimmed is told from one that is done."""
    await loaded(simple(tmp_path, 10), store.url)
    async with looking(store.url) as redis:
        await redis.xtrim(key("rows"), maxlen=7, approximate=False)
    raised = await failure_of(working(service, store.url))
    assert isinstance(raised, StoreError)
    assert "3 rows of the stream migration went missing" in str(raised)
    assert (await read_fleet(store.url)).missing == 3


async def test_a_full_store(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Nothing new can be written then; but outcomes can, which free memory."""
    await loaded(simple(tmp_path, 100), store.url, sdk_app_id=APP, base_url=service.url)
    service.answer = lambda _: error(10007, "no")
    async with looking(store.url) as redis:
        await redis.config_set("maxmemory", "1")
        assert finished(await working(service, store.url, lease=0.5)).counts == Counts(failed=100)
        await redis.config_set("maxmemory", "0")
    assert (await read_fleet(store.url)).status.failures[0].rows == 100


async def test_a_stop_while_the_store_is_away(tmp_path: Path, store: Store, service: StandIn) -> None:
    """The end does not wait for it for long: what could not be written is sent again by others."""
    await loaded(simple(tmp_path, 20), store.url)
    service.answer = lambda _: Fate.HOLD
    stop = asyncio.Event()
    worker = asyncio.create_task(working(service, store.url, concurrency=5, stop=stop))
    await service.until(5)
    store.kill()
    service.answer = lambda _: ok()
    service.let_go.set()
    stop.set()
    async with asyncio.timeout(20):
        assert finished(await worker).ended is Ended.INTERRUPTED
    store.start()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"lease": 0.0}, "lease"),
        ({"max_errors": -1}, "max_errors"),
        ({"max_outage": 0}, "max_outage"),
        ({"name": "a b"}, "name"),
        ({"url": "http://localhost"}, "redis://"),
    ],
)
async def test_arguments(service: StandIn, options: dict[str, Any], problem: str) -> None:
    given = {"url": "redis://127.0.0.1:1", **options}
    raised = await failure_of(working(service, given.pop("url"), **given))
    assert isinstance(raised, ValueError)
    assert problem in str(raised)


async def test_the_recorder_is_kept(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Two workers' calls are one session of the fleet."""
    await loaded(simple(tmp_path, 60), store.url)
    recorders = [Recorder("set_unread_msg_num", 200.0) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for recorder in recorders:
            group.create_task(
                working(service, store.url, concurrency=5, recorder=recorder, client={"on_attempt": recorder.attempt})
            )
    (session,) = (await read_fleet(store.url)).status.sessions
    assert session.how == "done"
    assert session.series is not None
    assert sum(slot.done for slot in session.series.slots) == 60
    assert session.series.limit == 200.0


async def test_a_store_that_is_away_for_very_long(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """A night's outage is as good as a minute's, however often one has looked."""
    monkeypatch.setattr("tim_async.migrate.streams.link._LONGEST_PAUSE", 0.0)
    said: list[str | None] = []
    store.kill()

    def tell(reason: str | None, _: float) -> None:
        said.append(reason)
        if len(said) == 1500:
            store.start()

    async with Stream(store.url, "s", tell=tell) as stream:
        assert await stream.look() is None
    assert said[-1] is None
    assert set(said[:-1]) == {said[0]}
    assert str(said[0]).startswith(f"cannot reach the store at {store.url}: ")
