"""The first signal ends a command within seconds, whatever hangs; a store that misbehaves ends it with one error."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.programs import ForkedProgram, in_thread
from tests.stand_in import NOT_GZIP, Fate, Raw, Reply, Seen, StandIn, client_of, error, failure_of, ok
from tests.store import Store
from tim_async import RetryPolicy
from tim_async.migrate import Counts, Ended, Waiting
from tim_async.migrate.streams import StoreError, read_fleet, work
from tim_async.migrate.streams.link import Link
from tim_async.migrate.streams.store import Store as Stream

from .fleet import Processes, key, loaded, looking, of, write
from .test_working import FAST, finished, simple, working

pytestmark = pytest.mark.processes

ENDS_WITHIN = 20.0
"""Seconds; it takes 2 to 7 where the machine has nothing else to do."""


def worker(url: str, *more: str) -> list[str]:
    options = ("--no-quota", "--rate", "50", "--no-group-check", "--concurrency", "5", "--lease", "1")
    return ["work", "--from", url, *options, *more]


async def heard(process: ForkedProgram, wanted: str) -> None:
    """Wait until it says something."""
    assert process.stderr is not None
    while line := await in_thread(process.stderr.readline):
        if wanted in line:
            return
    raise AssertionError(f"it never said {wanted!r}")


async def ended(processes: Processes, process: ForkedProgram) -> tuple[int, str]:
    async with asyncio.timeout(ENDS_WITHIN):
        code, _, err = await processes.ended(process)
    return code, err


@pytest.fixture
def frozen(store: Store) -> Any:
    """A store that is thawed at the end, so that it can be stopped."""
    yield store
    store.thaw()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("said", [True, False])
async def test_the_store_hangs(
    tmp_path: Path, frozen: Store, service: StandIn, number: signal.Signals, said: bool
) -> None:
    """At once, and when the worker has found out."""
    await loaded(simple(tmp_path, 2000), frozen.url)
    async with Processes(service.url) as processes:
        process = await processes.start(*worker(frozen.url))
        await service.until(10)
        frozen.freeze()
        if said:
            await heard(process, "waiting: cannot reach the store")
        process.send_signal(number)
        assert (await ended(processes, process))[0] == 130


async def test_the_store_hangs_before_anything_is_known(frozen: Store, service: StandIn) -> None:
    frozen.freeze()
    async with Processes(service.url) as processes:
        process = await processes.start(*worker(frozen.url))
        await heard(process, "waiting: cannot reach the store")
        process.send_signal(signal.SIGTERM)
        assert (await ended(processes, process))[0] == 130
        code, _, err = await processes.run("status", frozen.url)
        assert (code, err.count("cannot reach the store")) == (1, 1)


async def test_the_store_hangs_while_a_load_runs(tmp_path: Path, frozen: Store) -> None:
    file = write(tmp_path / "counts.csv", [("g", f"m{number}", "1") for number in range(60_000)])
    async with Processes() as processes, looking(frozen.url) as redis:
        process = await processes.start("load", str(file), "--to", frozen.url)
        while not await redis.xlen(key("rows")):  # noqa: ASYNC110 - as fast as can be
            await asyncio.sleep(0.002)
        frozen.freeze()
        process.send_signal(signal.SIGTERM)
        assert (await ended(processes, process))[0] == 130


async def test_the_service_hangs(tmp_path: Path, store: Store, service: StandIn) -> None:
    """Calls under way are cut short after some seconds, and their rows given back."""
    await loaded(simple(tmp_path, 50), store.url)
    service.answer = lambda _: Fate.HOLD
    async with Processes(service.url) as processes:
        process = await processes.start(*worker(store.url, "--lease", "1000"))
        await service.until(5)
        process.send_signal(signal.SIGTERM)
        code, err = await ended(processes, process)
        assert (code, "Interrupted" in err) == (130, True)
    service.answer = lambda _: ok()
    service.let_go.set()
    assert finished(await working(service, store.url, lease=1000.0)).counts == Counts(done=50)


async def test_both_hang(tmp_path: Path, frozen: Store, service: StandIn) -> None:
    """While the lease is renewed; a second signal is as quick."""
    await loaded(simple(tmp_path, 50), frozen.url)
    service.answer = lambda _: Fate.HOLD
    async with Processes(service.url) as processes:
        workers = [await processes.start(*worker(frozen.url, "--lease", "0.5")) for _ in range(2)]
        await service.until(10)
        frozen.freeze()
        for process in (*workers, workers[0]):
            process.send_signal(signal.SIGTERM)
        for process in workers:
            assert (await ended(processes, process))[0] == 130
    service.let_go.set()


# A store that misbehaves


async def broken(redis: Any, how: str) -> None:
    """Have the store refuse."""
    match how:
        case "WRONGTYPE":
            await redis.set(key("counts"), "x")
        case "NOPERM":
            await redis.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        case "READONLY":
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        case "no number":
            await redis.hset(key("counts"), "done", "many")
        case "gone":
            await redis.delete(key("about"))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("WRONGTYPE", "is of something else"),
        ("NOPERM", "refuses: "),
        ("READONLY", "is read-only, such as a replica; give the primary's URL"),
        ("no number", "not an integer"),
        ("gone", "is gone from"),
    ],
)
async def test_a_store_that_begins_to_refuse(
    tmp_path: Path, store: Store, service: StandIn, monkeypatch: pytest.MonkeyPatch, how: str, says: str
) -> None:
    """The worker ends with one line, though calls are under way: all that wait for an outcome are woken."""
    monkeypatch.setattr("tim_async.migrate.streams.link._READ_ONLY", 0.5)
    await loaded(simple(tmp_path, 100), store.url)
    service.answer = lambda _: Fate.HOLD
    run = asyncio.create_task(working(service, store.url, concurrency=5, lease=30.0))
    await service.until(5)
    async with looking(store.url) as redis:
        await broken(redis, how)
    service.answer = lambda _: ok()
    service.let_go.set()
    async with asyncio.timeout(20):
        raised = await failure_of(run)
    assert isinstance(raised, StoreError)
    assert says in str(raised)


@pytest.mark.parametrize("how", ["OOM", "READONLY"])
async def test_a_load_that_is_refused(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr("tim_async.migrate.streams.link._READ_ONLY", 0.5)
    async with looking(store.url) as redis:
        if how == "OOM":
            await redis.config_set("maxmemory", "1")
        else:
            await broken(redis, how)
        async with asyncio.timeout(20):
            raised = await failure_of(loaded(simple(tmp_path, 5), store.url))
        await redis.config_set("maxmemory", "0")
    assert isinstance(raised, StoreError)
    assert {"OOM": "no memory left", "READONLY": "is read-only"}[how] in str(raised)


async def test_a_failover_is_waited_for(tmp_path: Path, store: Store, service: StandIn) -> None:
    """A store that may soon be written to again is no reason to end."""
    await loaded(simple(tmp_path, 20), store.url)
    async with looking(store.url) as redis:
        await broken(redis, "READONLY")
        async with (
            client_of(service, rates=FAST) as tim,
            contextlib.aclosing(work(tim, store.url, group_check=False)) as events,
        ):
            said = []
            async for event in events:
                said.append(event)
                if isinstance(event, Waiting):
                    await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert "read only replica" in of(Waiting, said)[0].reason
    assert finished(said).counts == Counts(done=20)


NONSENSE = [
    b"+OK\r\n",
    b"$2\r\nOK\r\n",
    b":1\r\n",
    b":many\r\n",
    b"$many\r\n",
    b"$-7\r\n",
    b"*-7\r\n",
    b"*many\r\n",
    b"*1\r\n$4\r\nnone\r\n",
    b"*2\r\n$3\r\nold\r\n:1\r\n",
    b"*2\r\n$3\r\nold\r\n*1\r\n$1\r\nx\r\n",
    b"*1\r\n" * 3000,
    b"%1\r\n+a\r\n",
    b"%1\r\n*1\r\n+a\r\n+b\r\n",
    b"~1\r\n*0\r\n",
    b"(999999999999999999999\r\n",
    b"_\r\n",
    b"-\r\n",
    b"-ERR\r\n",
    b"\x00\xff\xfe\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\r\n" * 100,
]


@contextlib.asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """Something that answers each command alike."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                # As many answers as there are commands, so that none is too late for its own.
                writer.write(reply * max(1, data.count(b"*")))
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize("reply", NONSENSE, ids=range(len(NONSENSE)))
async def test_something_else_than_a_store(
    tmp_path: Path, service: StandIn, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """Whatever answers, a look and a load end with one error; a worker does, or waits and can be stopped."""
    monkeypatch.setattr("tim_async.migrate.streams.link.TIMEOUT", 0.2)
    monkeypatch.setattr("tim_async.migrate.streams.link._GRACE", 0.2)
    async with asyncio.timeout(30), answering(reply) as url:
        for look in (read_fleet(url), loaded(simple(tmp_path, 5), url)):
            raised = await failure_of(look)
            assert isinstance(raised, StoreError), raised
            assert "\n" not in str(raised)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, stop.set)
        with contextlib.suppress(StoreError):
            assert finished(await working(service, url, stop=stop)).ended is Ended.INTERRUPTED
    assert service.bodies == []


async def test_a_command_that_swallows_its_cancellation(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """As redis-py's time-outs may on Python 3.11: neither the caller, nor the end of the run waits for it."""
    over, begun = asyncio.Event(), asyncio.Event()
    deaf: list[asyncio.Task[Any] | None] = []

    async def command(*_: Any, **__: Any) -> None:
        deaf.append(asyncio.current_task())
        begun.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    monkeypatch.setattr(Redis, "evalsha", command)
    monkeypatch.setattr("tim_async.migrate.streams.link._CLOSING", 0.1)
    monkeypatch.setattr("tim_async.migrate.streams.link._GRACE", 0.1)
    stop = asyncio.Event()
    async with asyncio.timeout(20):
        async with Link(store.url, ["k"], stop=None, tell=None, patient=True) as link:
            running = asyncio.create_task(link.run("script"))
            await begun.wait()
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
        async with Link(store.url, ["k"], stop=stop, tell=None, patient=True) as link:
            running = asyncio.create_task(link.run("script"))
            begun.clear()
            await begun.wait()
            stop.set()
            for run in (running, link.run("script"), link.run("script")):  # those after the first are not tried
                assert isinstance(await failure_of(run), StoreError)
        over.set()
        await asyncio.wait([task for task in deaf if task is not None])
    assert len(deaf) == 2


async def test_a_command_that_somebody_cancels(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """It is carried out again: nobody asked the caller to end."""
    cancelled: list[bool] = []
    real: Callable[..., Any] = Redis.evalsha

    async def once(*args: Any, **options: Any) -> Any:
        if not cancelled:
            cancelled.append(True)
            raise asyncio.CancelledError
        return await real(*args, **options)

    monkeypatch.setattr(Redis, "evalsha", once)
    async with Stream(store.url, "s") as stream:
        assert await stream.look() is None
    assert cancelled


@pytest.mark.parametrize("step", range(12))
async def test_every_task_is_cancelled_at_some_step(tmp_path: Path, store: Store, service: StandIn, step: int) -> None:
    """Whatever survives that, the run ends, and its rows are there for others."""
    await loaded(simple(tmp_path, 40), store.url)
    run = asyncio.create_task(working(service, store.url, concurrency=4, lease=1.0))
    for _ in range(3**step % 200):
        await asyncio.sleep(0)
    if step > 5:
        await service.until(2 * step - 10)
    mine = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task not in (mine, run) and not re.search(r"\b(StandIn|_accept_connection2)\b", repr(task)):
            task.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([run])
    if not run.cancelled():
        run.exception()
    assert finished(await working(service, store.url, lease=0.5)).counts == Counts(done=40)


# A service that misbehaves


@pytest.mark.parametrize(
    "answer",
    [
        error(10**30, "x"),
        NOT_GZIP,
        Reply(b"\xff\xfe"),
        Reply(b"[" * 5000),
        Raw(b"HTTP/1.1 200 OK\r\n\r\n{}"),
        ok(ErrorCode=-1),
    ],
    ids=range(6),
)
async def test_garbage_from_the_service(tmp_path: Path, store: Store, service: StandIn, answer: Any) -> None:
    """A row that gets it fails once others have got through; when all do, that is an outage."""

    def some(seen: Seen) -> Any:
        return answer if seen.json["Member_Account"] == "m3" else ok()

    await loaded(simple(tmp_path, 30), store.url)
    service.answer = lambda _: answer
    for _ in range(2):
        client = {"retry": RetryPolicy(attempts=1)}
        end = finished(await working(service, store.url, client=client, max_outage=0.3))
        assert end.ended in (Ended.LIMIT, Ended.DONE, Ended.NOTHING_TO_DO)
        service.answer = some
    assert end.counts.done in (0, 29)
    assert end.counts.done + end.counts.errors + end.counts.left == 30


async def test_a_stop_of_another_loop(tmp_path: Path, store: Store, service: StandIn) -> None:
    """An event that cannot be waited for ends the run, instead of never ending it."""
    stop = asyncio.Event()

    async def bind() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await stop.wait()

    await asyncio.to_thread(asyncio.run, bind())
    await loaded(simple(tmp_path, 5), store.url)
    raised = await failure_of(working(service, store.url, stop=stop))
    assert isinstance(raised, RuntimeError)
    assert "event loop" in str(raised)
