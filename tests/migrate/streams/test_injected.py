"""An exception in any task, thread, callback or writer ends the command with one clear line; a signal still works."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.programs import ForkedProgram, in_thread
from tests.stand_in import Fate, StandIn
from tests.store import Store

from .fleet import Processes, loaded, write

pytestmark = pytest.mark.processes

INJECT = """
import importlib, inspect
def inject(module, name, error, skipped):
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, last)
    calls = 0
    def due():
        nonlocal calls
        calls += 1
        if calls == skipped + 1:
            sys.stderr.write("now\\n")
            sys.stderr.flush()
        return calls > skipped
    async def broken_async(*args, **options):
        if due():
            raise error
        return await real(*args, **options)
    def broken(*args, **options):
        if due():
            raise error
        return real(*args, **options)
    setattr(owner, last, broken_async if inspect.iscoroutinefunction(real) else broken)
"""

ERRORS = ["RuntimeError('injected')", "OverflowError('injected')", "TypeError('injected')", "ValueError('injected')"]

WORK = [
    # Tasks
    ("tim_async.migrate.streams.working", "_Work._carry_out", 0),
    ("tim_async.migrate.streams.working", "_Work._heed", 0),
    ("tim_async.migrate.streams.working", "_Work._keep_lease", 0),
    ("tim_async.migrate.streams.working", "_Work._keep_series", 0),
    ("tim_async.migrate.streams.working", "_Work._cut_off", 0),
    ("tim_async.migrate.sending", "Sender.send_all", 0),
    ("tim_async.migrate.streams.outcomes", "StreamOutcomes._write", 0),
    ("tim_async.migrate.streams.outcomes", "StreamOutcomes.watch", 0),
    # What they call
    ("tim_async.client", "TIMClient.set_unread_msg_num", 3),
    ("tim_async.migrate.streams.working", "_Work._take", 1),
    ("tim_async.migrate.streams.working", "unpacked", 2),
    ("tim_async.migrate.streams.store", "Store.look", 0),
    ("tim_async.migrate.streams.store", "Store.bind", 0),
    ("tim_async.migrate.streams.store", "Store.keep", 1),
    ("tim_async.migrate.streams.store", "Store.take", 1),
    ("tim_async.migrate.streams.store", "Store.record", 1),
    ("tim_async.migrate.streams.link", "Link._wait_for", 6),
    ("redis.asyncio", "Redis.evalsha", 8),
    ("redis.asyncio.connection", "AbstractConnection.read_response", 12),
    ("redis.asyncio.connection", "AbstractConnection.send_packed_command", 12),
    # Callbacks
    ("tim_async.migrate.streams.working", "_Work._heard", 1),
    ("tim_async.migrate.streams.tally", "FleetTally.hear", 3),
    ("tim_async.migrate.streams.about", "State.read", 4),
]
LOAD = [
    ("tim_async.migrate.streams.loading", "_Load._in_store", 0),
    # In the thread
    ("tim_async.migrate._sources", "FileSource.fingerprint", 0),
    ("tim_async.migrate.streams.loading", "_Load._plan", 0),
    ("tim_async.migrate.streams.loading", "_Stoppable.read", 0),
    ("tim_async.migrate.streams.loading", "_Rows.next", 1),
    ("tim_async.migrate.streams.loading", "write_rejects", 0),
    ("tim_async.migrate.journal", "Journal.counts", 0),
    # In the loop
    ("tim_async.migrate.streams.store", "Store.begin", 0),
    ("tim_async.migrate.streams.store", "Store.load", 1),
    ("tim_async.migrate.streams.store", "Store.outlives", 0),
    ("redis.asyncio", "Redis.evalsha", 2),
]
STATUS = [
    ("tim_async.migrate.streams.store", "Store.survey", 0),
    ("tim_async.migrate.streams.fleet", "merged", 0),
    ("redis.asyncio", "Redis.evalsha", 1),
]


def injected(point: tuple[str, str, int]) -> str:
    """The program that breaks a function from one call on; each point with another kind of exception."""
    module, name, skipped = point
    kind = ERRORS[sum(name.encode()) % len(ERRORS)]
    return f"{INJECT}\ninject({module!r}, {name!r}, {kind}, {skipped})"


async def ended_clearly(process: ForkedProgram, *, stopped: bool = False) -> None:
    """It ends within 20 s of the exception, however slowly it started."""
    assert process.stderr is not None
    said = []
    while line := await in_thread(process.stderr.readline):
        said.append(line)
        if line == "now\n":
            break
    assert said[-1:] == ["now\n"], said
    if stopped:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        _, err = await in_thread(process.communicate)
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    if stopped:
        assert process.returncode in (1, 3, 4, 130, -signal.SIGTERM), err
        return
    assert process.returncode in (1, 3, 4), err
    assert len(errors) == 1, err
    assert "injected" in errors[0]
    assert "never retrieved" not in err


def rows(folder: Path, count: int = 1200) -> Path:
    return write(folder / "counts.csv", [("g", f"m{number}" if number else "", "1") for number in range(count)])


def worker(url: str, *more: str) -> list[str]:
    return ["work", "--from", url, "--no-quota", "--rate", "100", "--lease", "0.5", "--no-group-check", *more]


@pytest.mark.parametrize("point", WORK, ids=lambda point: point[1])
async def test_work(tmp_path: Path, store: Store, service: StandIn, point: tuple[str, str, int]) -> None:
    more = []
    if point[1].endswith("_cut_off"):  # which begins when the run is to end
        service.answer = lambda _: Fate.HOLD
        more = ["--max-errors", "0"]
    await loaded(rows(tmp_path), store.url)
    async with Processes(service.url) as processes:
        await ended_clearly(await processes.start(*worker(store.url, *more), before=injected(point)))
    service.let_go.set()


@pytest.mark.parametrize("point", LOAD, ids=lambda point: point[1])
async def test_load(tmp_path: Path, store: Store, point: tuple[str, str, int]) -> None:
    file = str(rows(tmp_path))
    async with Processes() as processes:
        await ended_clearly(await processes.start("load", file, "--to", store.url, before=injected(point)))


@pytest.mark.parametrize("point", STATUS, ids=lambda point: point[1])
async def test_status(tmp_path: Path, store: Store, point: tuple[str, str, int]) -> None:
    await loaded(rows(tmp_path, 5), store.url)
    async with Processes() as processes:
        await ended_clearly(await processes.start("status", store.url, before=injected(point)))


@pytest.mark.parametrize("point", [WORK[2], WORK[6], WORK[8], WORK[15], WORK[17]], ids=lambda point: point[1])
async def test_sigterm_after_it(tmp_path: Path, store: Store, service: StandIn, point: tuple[str, str, int]) -> None:
    await loaded(rows(tmp_path), store.url)
    async with Processes(service.url) as processes:
        process = await processes.start(*worker(store.url), before=injected(point))
        await ended_clearly(process, stopped=True)
