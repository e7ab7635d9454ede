"""Loads and workers against a real store and a real server: requests, stored states, and how each ends."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.migrate.storing import executor_threads, finished, of, row
from tests.stand_in import APP, Fate, StandIn, client_of, error, failure_of, ok
from tests.store import Store as Valkey
from tim_async.migrate import (
    UNREAD,
    Counts,
    Ended,
    Event,
    FileSource,
    Finished,
    Resumed,
    RowFailed,
    SourceError,
    Started,
    Waiting,
)
from tim_async.migrate._redis import RedisStore
from tim_async.migrate._store import About
from tim_async.migrate.streams import (
    Loaded,
    Loading,
    StoreError,
    StreamMismatch,
    load,
    read_fleet,
    work,
    write_fleet_rejects,
)

from .fleet import FAST, key, last_of, loaded, looking, rows_of, simple_file, working, write

ENDS_WITHIN = 20.0
"""Seconds; 2 to 7 on an idle machine."""


# Loads


async def test_a_load_and_a_worker(tmp_path: Path, store: Valkey, service: StandIn) -> None:
    """The last row of each member is sent once; another worker has nothing to do."""
    rows = rows_of(random.Random(1), 300, 200)
    found = await loaded(write(tmp_path / "counts.csv", rows), store.url)
    assert (found.complete, found.before, found.counts) == (True, False, Counts(pending=200, superseded=100))
    events = await working(service, store.url)
    wanted = Counts(done=200, superseded=100)
    assert of(Started, events) == [Started(Counts(pending=200, superseded=100), resumed=True)]
    assert finished(events) == Finished(wanted, Ended.DONE)
    sent = {(body["GroupId"], body["Member_Account"]): body["UnreadMsgNum"] for body in service.bodies}
    assert sent == last_of(rows)
    assert len(service.bodies) == 200
    assert finished(await working(service, store.url)) == Finished(wanted, Ended.NOTHING_TO_DO)
    assert len(service.bodies) == 200
    assert (await loaded(tmp_path / "counts.csv", store.url)).before


async def test_simultaneous_loads(tmp_path: Path, store: Valkey) -> None:
    """The newest loads each row once; the others fail, or find all rows loaded."""
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(6000)])
    results = await asyncio.gather(*(loaded(file, store.url) for _ in range(3)), return_exceptions=True)
    failed = [str(result) for result in results if isinstance(result, BaseException)]
    assert len(failed) < 3
    assert all("another load replaced it" in text for text in failed)
    assert (await read_fleet(store.url)).counts == Counts(pending=6000)


async def test_a_stopped_load_is_repeated(tmp_path: Path, store: Valkey) -> None:
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(11_000)])
    stop = asyncio.Event()
    with FileSource(file, UNREAD) as source:
        async with contextlib.aclosing(load(source, store.url, stop=stop)) as events:
            async for event in events:
                if isinstance(event, Loading):
                    stop.set()
    assert event == Loaded(complete=False, before=False, counts=Counts())
    assert not (await read_fleet(store.url)).planned
    assert (await loaded(file, store.url)).counts == Counts(pending=11_000)


async def test_another_file_needs_another_name_or_a_restart(tmp_path: Path, store: Valkey) -> None:
    """With a restart, an unreadable source does not remove a loaded one."""
    other = write(tmp_path / "other.csv", [("g", "m", "1")])
    await loaded(simple_file(tmp_path, 3), store.url)
    assert isinstance(await failure_of(loaded(other, store.url)), StreamMismatch)
    for path in (tmp_path / "none.csv", write(tmp_path / "empty.csv", [])):
        assert isinstance(await failure_of(loaded(path, store.url, restart=True)), SourceError)
    assert (await read_fleet(store.url)).counts == Counts(pending=3)
    assert (await loaded(other, store.url, name="other")).counts == Counts(pending=1)
    assert (await loaded(other, store.url, restart=True)).counts == Counts(pending=1)


async def test_the_rejected_file_does_not_overwrite_the_source(tmp_path: Path, store: Valkey) -> None:
    file = write(tmp_path / "counts.csv", [("g", "", "1")])
    await loaded(file, store.url)
    assert "is the file of the rows" in str(await failure_of(write_fleet_rejects(store.url, file)))


# Workers


async def test_a_worker_waits_for_the_load(store: Valkey, service: StandIn) -> None:
    """Its events say so, before the load and during it."""
    found: list[Event] = []
    waits = asyncio.Event()

    async def watched() -> None:
        async with (
            client_of(service, rates=FAST) as tim,
            contextlib.aclosing(work(tim, store.url, group_check=False)) as events,
        ):
            async for event in events:
                found.append(event)
                waits.set()

    worker = asyncio.create_task(watched())
    await waits.wait()
    loader = RedisStore(store.url)
    await loader.open(About("unread", "counts.csv"))
    await loader.plan([row(line, f"m{line}") for line in range(2, 52)])
    while not found or "not all rows of" not in of(Waiting, found)[-1].reason:
        waits.clear()
        await waits.wait()
    await loader.planned("")
    await loader.close()
    await worker
    assert of(Waiting, found)[0].reason == f"there is no stream migration at {store.url} yet"
    assert of(Resumed, found)
    assert finished(found).counts == Counts(done=50)


@pytest.mark.parametrize("how", ["stop", "leave"])
async def test_a_worker_that_ends_releases_its_rows(tmp_path: Path, store: Valkey, service: StandIn, how: str) -> None:
    """A stop finishes the requests under way, and leaving cancels them; others need not wait for the lease."""
    await loaded(simple_file(tmp_path, 60), store.url)
    service.answer = lambda _: Fate.HOLD
    stop = asyncio.Event()
    first = asyncio.create_task(working(service, store.url, concurrency=10, stop=stop, lease=1000.0))
    await service.until(10)
    async with looking(store.url) as redis:
        assert (await redis.xpending(key("rows"), "workers"))["pending"] == 10
        if how == "stop":
            stop.set()
            service.answer = lambda _: ok()
            service.let_go.set()
            assert finished(await first) == Finished(Counts(pending=50, done=10), Ended.INTERRUPTED)
        else:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            service.answer = lambda _: ok()
            service.let_go.set()
        consumers = await redis.xinfo_consumers(key("rows"), "workers")
        assert {consumer["name"] for consumer in consumers} <= {"returned"}
    assert [worker.how for worker in (await read_fleet(store.url)).workers] == ["interrupted"]
    assert finished(await working(service, store.url, lease=1000.0)).counts == Counts(done=60)


async def test_a_dead_workers_rows_are_claimed_after_the_lease(tmp_path: Path, store: Valkey, service: StandIn) -> None:
    """A living worker keeps its own, also during long calls."""
    await loaded(simple_file(tmp_path, 20), store.url)
    async with looking(store.url) as redis:
        await redis.xreadgroup("workers", "dead", {key("rows"): ">"}, count=5)
    service.script.extend([Fate.HOLD] * 3)
    slow = asyncio.create_task(working(service, store.url, concurrency=3, lease=1.5))
    await service.until(3)
    # The others have taken all but these three, which are held for longer than a lease: leases have ended.
    others = asyncio.create_task(working(service, store.url, lease=1.5))
    await service.until(20)
    async with looking(store.url) as redis:
        while (await redis.xpending(key("rows"), "workers"))["pending"] > 3:
            pass
    service.let_go.set()
    assert finished(await slow).counts == finished(await others).counts == Counts(done=20)
    assert len(service.bodies) == 20


async def test_max_errors_counts_the_errors_of_all_workers(tmp_path: Path, store: Valkey, service: StandIn) -> None:
    await loaded(simple_file(tmp_path, 40), store.url)
    service.answer = lambda _: error(10007, "no")
    first = finished(await working(service, store.url, max_errors=4, concurrency=2))
    assert first.ended is Ended.LIMIT
    assert 5 <= first.counts.failed <= 7
    sent = len(service.bodies)
    assert finished(await working(service, store.url, max_errors=4)).ended is Ended.LIMIT
    assert len(service.bodies) == sent


async def test_foreign_entries_are_reported(tmp_path: Path, store: Valkey, service: StandIn) -> None:
    """They count as errors, and do not affect rows."""
    await loaded(simple_file(tmp_path, 6), store.url)
    async with looking(store.url) as redis:
        for _ in range(6):
            await redis.xadd(key("rows"), {"v": '["g","m0",9]'})
        await redis.xreadgroup("workers", "dead", {key("rows"): ">"}, count=6)
    events = await working(service, store.url, lease=0.5)
    assert finished(events) == Finished(Counts(done=6, rejected=6), Ended.DONE, {None: 6})
    assert len(of(RowFailed, events)) == 6
    assert [body["UnreadMsgNum"] for body in service.bodies] == [1] * 6


# Failures


async def begin_to_work(folder: Path, store: Valkey, service: StandIn, stop: asyncio.Event) -> asyncio.Task[Any]:
    """Start a worker, and wait for five requests of a hundred rows."""
    await loaded(simple_file(folder, 100), store.url, sdk_app_id=APP, base_url=service.url)
    service.answer = lambda _: Fate.HOLD
    worker = asyncio.create_task(working(service, store.url, concurrency=5, stop=stop, lease=0.5))
    await service.until(5)
    return worker


def let_go(service: StandIn) -> None:
    service.answer = lambda _: ok()
    service.let_go.set()


@pytest.mark.parametrize("how", ["lost", "trimmed", "full"])
async def test_a_store_that_breaks(tmp_path: Path, store: Valkey, service: StandIn, how: str) -> None:
    """Lost rows end a worker with one error; a full store does not."""
    worker = await begin_to_work(tmp_path, store, service, asyncio.Event())
    async with looking(store.url) as redis:
        if how == "lost":
            store.kill()
            store.start()
        elif how == "trimmed":
            await redis.xtrim(key("rows"), maxlen=90, approximate=False)
        else:
            await redis.config_set("maxmemory", "1")
    let_go(service)
    async with asyncio.timeout(ENDS_WITHIN):
        if how == "full":
            assert finished(await worker).counts == Counts(done=100)
            return
        raised = await failure_of(worker)
    assert isinstance(raised, StoreError)
    assert {"lost": "is gone: ", "trimmed": "has lost 5 rows"}[how] in str(raised)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_stop_during_an_outage_of_the_store(tmp_path: Path, store: Valkey, service: StandIn, how: str) -> None:
    """The end waits for seconds only; rows whose outcomes were not saved are sent again by others."""
    stop = asyncio.Event()
    worker = await begin_to_work(tmp_path, store, service, stop)
    if how == "killed":
        store.kill()
    else:
        store.freeze()
    stop.set()
    let_go(service)
    async with asyncio.timeout(ENDS_WITHIN):
        assert finished(await worker).ended is Ended.INTERRUPTED
    if how == "killed":
        store.start()
    else:
        store.thaw()


class Injected(RuntimeError):
    pass


BROKEN = [
    ("tim_async.migrate._engine", "_Run._keep_series", 0),
    ("tim_async.migrate._engine", "_Run._open", 0),
    ("tim_async.migrate._sending", "Sender._admit_all", 0),
    ("tim_async.client", "TIMClient.set_unread_msg_num", 3),
    ("tim_async.migrate._redis", "RedisStore.join", 0),
    ("tim_async.migrate._redis", "RedisStore.exchange", 1),
    ("tim_async.migrate._redis", "RedisStore.keep", 0),
    ("tim_async.migrate._redis_reader", "RedisReader.status", 0),
    ("tim_async.migrate._redis_replies", "entry_of", 12),
    ("tim_async.migrate._redis_link", "RedisLink.run", 4),
    ("tim_async.migrate._redis_link", "RedisLink._attempt", 5),
    ("redis.asyncio", "Redis.execute_command", 5),
    ("redis.asyncio.connection", "AbstractConnection.send_packed_command", 8),
]


@pytest.mark.parametrize("point", BROKEN, ids=lambda point: point[1])
async def test_an_exception_anywhere_ends_the_worker(
    tmp_path: Path,
    store: Valkey,
    service: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[str, str, int],
) -> None:
    """With one error; another worker sends the rows."""
    module, name, skipped = point
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, last)
    calls = 0

    def due() -> None:
        nonlocal calls
        calls += 1
        if calls > skipped:
            raise Injected("injected")

    async def broken_async(*args: Any, **options: Any) -> Any:
        due()
        return await real(*args, **options)

    def broken(*args: Any, **options: Any) -> Any:
        due()
        return real(*args, **options)

    await loaded(simple_file(tmp_path, 100), store.url)
    with monkeypatch.context() as patch:
        patch.setattr(owner, last, broken_async if inspect.iscoroutinefunction(real) else broken)
        async with asyncio.timeout(ENDS_WITHIN):
            raised = await failure_of(working(service, store.url, concurrency=5, lease=0.5))
    assert "injected" in str(raised)
    assert finished(await working(service, store.url, lease=0.5)).counts == Counts(done=100)


@pytest.mark.parametrize("step", range(0, 10, 2))
async def test_the_cancellation_of_every_task_ends_the_worker(
    tmp_path: Path, store: Valkey, service: StandIn, step: int
) -> None:
    """At any step; another worker sends the rows."""
    await loaded(simple_file(tmp_path, 40), store.url)
    threads = executor_threads()
    task = asyncio.create_task(working(service, store.url, concurrency=4, lease=1.0))
    for _ in range(3**step % 200):
        await asyncio.sleep(0)
    if step > 5:
        await service.until(2 * step - 10)
    mine = asyncio.current_task()
    for other in asyncio.all_tasks():
        if other not in (mine, task) and not re.search(r"\b(StandIn|_accept_connection2)\b", repr(other)):
            other.cancel()
    async with asyncio.timeout(ENDS_WITHIN):
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
    assert executor_threads() <= threads
    assert finished(await working(service, store.url, lease=0.5)).counts == Counts(done=40)
