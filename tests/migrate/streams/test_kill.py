"""Whatever dies, and whenever: the final state is the file's, the last row wins, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.programs import in_thread
from tests.store import Store
from tim_async.migrate import Counts
from tim_async.migrate.streams import read_fleet

from .fleet import Processes, Service, Slot, key, last_of, loaded, looking, rows_of, served, write

pytestmark = pytest.mark.processes

ROWS = 2000
PAIRS = 1600
CONCURRENCY = 20


def worker(url: str, *more: str) -> list[str]:
    """The command of a worker whose rate leaves the time to kill it."""
    return ["work", "--from", url, "--no-quota", "--rate", "400", "--concurrency", str(CONCURRENCY), *more]


async def test_workers_that_are_killed(tmp_path: Path, store: Store) -> None:
    """Three workers, each killed up to five times at a random request and started again by the same command."""
    dice = random.Random(4)
    service = Service(dice)
    rows = rows_of(dice, ROWS, PAIRS)
    wanted = {pair: int(value) for pair, value in last_of(rows).items()}
    file = write(tmp_path / "counts.csv", rows)
    async with served(service) as running, Processes(running.url) as processes:
        code, out, err = await processes.run("load", str(file), "--to", store.url)
        assert code == 0, err
        assert f"{PAIRS:,}" in out
        slots = [Slot(processes, worker(store.url, "--lease", "1.5")) for _ in range(3)]
        for slot in slots:
            for number in dice.sample(range(1, PAIRS * 9 // 10), dice.randint(1, 5)):
                service.at[number] = slot.kill
        ended = await asyncio.gather(*(slot.work() for slot in slots))
    assert [code for code, _, _ in ended] == [0, 0, 0]
    assert service.state == wanted
    # Not one value of a row that a later one supersedes, at any time.
    assert {pair: {value} for pair, value in wanted.items()} == service.values
    kills = sum(slot.kills for slot in slots)
    assert kills >= 3
    assert sum(service.arrivals.values()) - len(wanted) <= CONCURRENCY * kills + service.faults
    fleet = await read_fleet(store.url)
    assert fleet.status.counts == Counts(done=PAIRS, superseded=ROWS - PAIRS)
    hows = [worker.how for worker in fleet.workers]
    assert len([how for how in hows if how in ("done", "nothing_to_do")]) == 3
    assert set(hows) <= {"done", "nothing_to_do", ""}
    assert sum(worker.rows for worker in fleet.workers) <= PAIRS
    assert await left_behind(store.url) == {}


async def left_behind(url: str) -> dict[str, int]:
    """What is in the store of rows that have come to their end."""
    async with looking(url) as redis:
        sizes = {
            "rows": await redis.xlen(key("rows")),
            "pending": (await redis.xpending(key("rows"), "workers"))["pending"],
            "pins": await redis.hlen(key("pins")),
        }
    return {name: size for name, size in sizes.items() if size}


async def test_a_time_is_drawn_once(tmp_path: Path, store: Store) -> None:
    """A row without a time is sent with the same one by whoever sends it again; those with one keep theirs."""
    dice = random.Random(5)
    service = Service(dice)
    rows = [(f"u{number}", f"p{number % 7}", str(1700000000 + number) if number % 3 else "") for number in range(700)]
    file = write(tmp_path / "reads.csv", rows, "read")
    before = int(time.time())
    async with served(service) as running, Processes(running.url) as processes:
        assert (await processes.run("load", str(file), "--to", store.url))[0] == 0
        slots = [Slot(processes, worker(store.url, "--lease", "1")) for _ in range(2)]
        for number in (100, 300, 420, 500):
            service.at[number] = slots[number // 100 % 2].kill
        ended = await asyncio.gather(*(slot.work() for slot in slots))
    assert [code for code, _, _ in ended] == [0, 0]
    assert sum(slot.kills for slot in slots) >= 2
    assert set(service.values) == {row[:2] for row in rows}
    for first, second, value in rows:
        (sent,) = service.values[first, second]
        assert sent == value if value else before <= int(sent) <= time.time()
    assert await left_behind(store.url) == {}


async def test_a_load_that_is_killed(tmp_path: Path, store: Store) -> None:
    """The same command goes on where it was, each time; then every row is on the stream once, in its order."""
    dice = random.Random(6)
    rows = rows_of(dice, 18_000, 15_000)
    file = write(tmp_path / "counts.csv", rows)
    arguments = ("load", str(file), "--to", store.url)
    kills = 0
    async with Processes() as processes, looking(store.url) as redis:
        for upto in (1, 7_000):
            process = await processes.start(*arguments)
            while process.poll() is None and await redis.xlen(key("rows")) < upto:  # noqa: ASYNC110 - as fast as can be
                await asyncio.sleep(0.002)
            process.kill()
            await in_thread(process.communicate)
            kills += process.returncode == -signal.SIGKILL
            assert await redis.hget(key("about"), "complete") == "0" or not kills
        code, out, _ = await processes.run(*arguments)
        assert code == 0
        assert "loaded      15,000" in out
        assert kills == 2
        entries = await redis.xrange(key("rows"))
        code, _, err = await processes.run(*arguments)
        assert (code, err) == (0, "Nothing to do: every row has been put on the stream already.\n")
        assert await redis.xlen(key("rows")) == 15_000
    found = [tuple(json.loads(fields["v"])) for _, fields in entries]
    lasts = {row[:2]: (line, row) for line, row in enumerate(rows)}
    assert found == [(first, second, int(value)) for _, (first, second, value) in sorted(lasts.values())]


async def test_a_store_that_is_killed(tmp_path: Path) -> None:
    """With an append-only file it comes back with all that counts; workers and a load wait for it, and go on."""
    dice = random.Random(7)
    service = Service(dice)
    rows = rows_of(dice, 1600, 1400)
    file = write(tmp_path / "counts.csv", rows)
    wanted = {pair: int(value) for pair, value in last_of(rows).items()}
    with Store(tmp_path / "valkey", appendonly="yes", appendfsync="everysec") as store:
        down = asyncio.Event()
        service.at[400] = down.set
        async with served(service) as running, Processes(running.url) as processes:
            assert (await loaded(file, store.url)).complete
            workers = [await processes.start(*worker(store.url, "--lease", "1")) for _ in range(2)]
            await down.wait()
            store.kill()
            await asyncio.sleep(0.5)
            store.start()
            ended = await asyncio.gather(*map(processes.ended, workers))
        fleet = await read_fleet(store.url)
        assert await left_behind(store.url) == {}
    assert [code for code, _, _ in ended] == [0, 0], ended
    for _, _, err in ended:
        assert err.count("waiting: cannot reach the store at redis://127.0.0.1:") == 1, err
        assert err.count("it goes on as soon as the store is back") == 1
        assert "back after" in err
    assert service.state == wanted
    assert fleet.status.counts == Counts(done=1400, superseded=200)


async def test_a_worker_that_is_suspended(tmp_path: Path, store: Store) -> None:
    """Others send what it holds; when it wakes up, it sends the same again, and counts for nothing."""
    service = Service(random.Random(8), faulty=0.0)
    rows = [(f"g{number % 5}", f"m{number}", str(number % 90)) for number in range(500)]
    file = write(tmp_path / "counts.csv", rows)
    asleep = asyncio.Event()
    async with served(service) as running, Processes(running.url) as processes:
        assert (await loaded(file, store.url)).complete
        first = await processes.start(*worker(store.url, "--lease", "1"))

        def suspend() -> None:
            first.send_signal(signal.SIGSTOP)
            asleep.set()

        service.at[200] = suspend
        await asleep.wait()
        code, _, err = await processes.run(*worker(store.url, "--lease", "1"))
        assert code == 0, err
        fleet = await read_fleet(store.url)
        first.send_signal(signal.SIGCONT)
        code, _, err = await processes.ended(first)
        assert code == 0, err
        after = await read_fleet(store.url)
    assert fleet.status.counts == after.status.counts == Counts(done=500)
    assert sum(worker.rows for worker in after.workers) == 500
    assert {pair: {value} for pair, value in service.state.items()} == service.values
    assert service.state == {(group, member): int(count) for group, member, count in rows}
    assert sum(service.arrivals.values()) - 500 <= CONCURRENCY
