"""Kills of workers, loads and stores: the final state is that of the file, and no row is lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import PIPE, ForkedProgram, in_thread
from tests.stand_in import Fate, StandIn
from tests.store import Store as Valkey
from tim_async.migrate import Counts
from tim_async.migrate.streams import read_fleet

from .fleet import Service, key, last_of, loaded, looking, rows_of, served, simple_file, write

pytestmark = pytest.mark.processes

ROWS = 2000
PAIRS = 1600
CONCURRENCY = 20
ENDS_WITHIN = 20.0
"""Seconds; 2 to 7 on an idle machine."""


class Fleet:
    """Workers and loads as processes, which are killed at the end of the test."""

    def __init__(self) -> None:
        self._all: list[ForkedProgram] = []

    def start(
        self, url: str, base_url: str = "", *, file: str = "", kind: str = "unread", **options: Any
    ) -> ForkedProgram:
        if not file:
            options = {"concurrency": CONCURRENCY, **options}
        given = {"base_url": base_url, "rate": 400, "url": url, "file": file, "kind": kind, "options": options}
        arguments = ("-m", "tests.migrate.streams.program", json.dumps(given))
        process = ForkedProgram(*arguments, stdout=PIPE, stderr=PIPE)
        self._all.append(process)
        return process

    async def ended(self, process: ForkedProgram) -> tuple[str | bool, str]:
        """Return how it ended, "" if it was killed, and its standard error."""
        out, err = await in_thread(process.communicate)
        if process.returncode == -signal.SIGKILL:
            return "", err
        assert process.returncode == 0, err
        assert "Traceback" not in err
        return json.loads(out)["how"], err

    def close(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            process.close()


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    running = Fleet()
    yield running
    await in_thread(running.close)


class Slot:
    """A worker that can be killed, and is then restarted."""

    def __init__(self, fleet: Fleet, url: str, base_url: str) -> None:
        self._fleet = fleet
        self._given = (url, base_url)
        self.process: ForkedProgram | None = None
        self.kills = 0

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process = None
            self.kills += 1

    async def work(self) -> str | bool:
        """Restart it until it ends by itself, and return how it ended."""
        while True:
            process = self.process = self._fleet.start(*self._given, lease=1.5)
            how, _ = await self._fleet.ended(process)
            if how:
                return how


async def leftovers(url: str) -> dict[str, int]:
    """Return the number of claims, pending entries and consumers in the store, if any."""
    async with looking(url) as redis:
        sizes = {
            "pending": (await redis.xpending(key("rows"), "workers"))["pending"],
            "claims": await redis.hlen(key("claims")),
            "consumers": len(await redis.xinfo_consumers(key("rows"), "workers")),
        }
    return {name: size for name, size in sizes.items() if size}


async def test_killed_workers_lose_nothing(tmp_path: Path, store: Valkey, fleet: Fleet) -> None:
    """Three workers, each killed up to five times at a random request and restarted."""
    dice = random.Random(4)
    service = Service(dice)
    rows = rows_of(dice, ROWS, PAIRS)
    wanted = last_of(rows)
    await loaded(write(tmp_path / "counts.csv", rows), store.url)
    async with served(service) as running:
        slots = [Slot(fleet, store.url, running.url) for _ in range(3)]
        for slot in slots:
            for number in dice.sample(range(1, PAIRS * 9 // 10), dice.randint(1, 5)):
                service.at[number] = slot.kill
        ended = await asyncio.gather(*(slot.work() for slot in slots))
    assert set(ended) <= {"DONE", "NOTHING_TO_DO"}
    assert service.state == wanted
    # No value of a superseded row was ever sent.
    assert {pair: {value} for pair, value in wanted.items()} == service.values
    kills = sum(slot.kills for slot in slots)
    assert kills >= 3
    assert sum(service.arrivals.values()) - len(wanted) <= CONCURRENCY * kills + service.faults
    status = await read_fleet(store.url)
    assert status.counts == Counts(done=PAIRS, superseded=ROWS - PAIRS)
    hows = [worker.how for worker in status.workers]
    assert len([how for how in hows if how in ("done", "nothing_to_do")]) == 3
    assert set(hows) <= {"done", "nothing_to_do", ""}
    assert sum(worker.rows for worker in status.workers) == PAIRS
    assert (await leftovers(store.url)).keys() <= {"consumers"}


async def test_a_row_without_a_time_keeps_the_time_of_its_first_claim(
    tmp_path: Path, store: Valkey, fleet: Fleet
) -> None:
    """Also if another worker sends it again; given times are unchanged."""
    service = Service(random.Random(5))
    rows = [(f"u{number}", f"p{number % 7}", str(1700000000 + number) if number % 3 else "") for number in range(700)]
    file = write(tmp_path / "reads.csv", rows, "read")
    before = int(time.time())
    async with served(service) as running:
        how, _ = await fleet.ended(fleet.start(store.url, file=str(file), kind="read"))
        assert how
        slots = [Slot(fleet, store.url, running.url) for _ in range(2)]
        for number in (100, 300, 420, 500):
            service.at[number] = slots[number // 100 % 2].kill
        assert set(await asyncio.gather(*(slot.work() for slot in slots))) <= {"DONE", "NOTHING_TO_DO"}
    assert sum(slot.kills for slot in slots) >= 2
    assert set(service.values) == {row[:2] for row in rows}
    for first, second, value in rows:
        (sent,) = service.values[first, second]
        assert sent == value if value else before <= int(sent) <= time.time()
    assert (await leftovers(store.url)).keys() <= {"consumers"}


async def test_a_killed_load_is_repeated(tmp_path: Path, store: Valkey, fleet: Fleet) -> None:
    """The same command starts over; then each row is in the stream once, in order."""
    rows = rows_of(random.Random(6), 18_000, 15_000)
    file = str(write(tmp_path / "counts.csv", rows))
    kills = 0
    async with looking(store.url) as redis:
        for upto in (1, 7_000):
            await redis.flushdb()
            process = fleet.start(store.url, file=file)
            while process.poll() is None and await redis.xlen(key("rows")) < upto:  # noqa: ASYNC110 - polls as fast as possible
                await asyncio.sleep(0.002)
            process.kill()
            kills += await fleet.ended(process) == ("", "")
            assert await redis.hget(key("about"), "complete") == "0" or not kills
        assert kills == 2
        assert await fleet.ended(fleet.start(store.url, file=file)) == (True, "")
        entries = await redis.xrange(key("rows"))
    found = [tuple(json.loads(fields["v"])) for _, fields in entries]
    lasts = {row[:2]: (line, row) for line, row in enumerate(rows)}
    assert found == [(first, second, int(value)) for _, (first, second, value) in sorted(lasts.values())]


async def test_workers_survive_a_killed_store(tmp_path: Path, fleet: Fleet) -> None:
    """An append-only file keeps what was acknowledged; workers wait for the store and continue."""
    dice = random.Random(7)
    service = Service(dice)
    rows = rows_of(dice, 1600, 1400)
    file = write(tmp_path / "counts.csv", rows)
    with Valkey(tmp_path / "valkey", appendonly="yes", appendfsync="everysec") as store:
        down = asyncio.Event()
        service.at[400] = down.set
        async with served(service) as running:
            assert (await loaded(file, store.url)).complete
            workers = [fleet.start(store.url, running.url, lease=1) for _ in range(2)]
            await down.wait()
            store.kill()
            for worker in workers:
                assert worker.stderr is not None
                assert "cannot reach the store at redis://127.0.0.1:" in await in_thread(worker.stderr.readline)
            store.start()
            ended = await asyncio.gather(*map(fleet.ended, workers))
        status = await read_fleet(store.url)
        assert await leftovers(store.url) == {}
    assert [how for how, _ in ended] == ["DONE", "DONE"]
    assert all("Resumed(" in err for _, err in ended)
    assert service.state == last_of(rows)
    assert status.counts == Counts(done=1400, superseded=200)


async def test_a_suspended_worker(tmp_path: Path, store: Valkey, fleet: Fleet) -> None:
    """Others send its rows; when it continues it sends them again, and its outcomes are ignored."""
    service = Service(random.Random(8), faulty=0.0)
    rows = [(f"g{number % 5}", f"m{number}", str(number % 90)) for number in range(500)]
    asleep = asyncio.Event()
    async with served(service) as running:
        assert (await loaded(write(tmp_path / "counts.csv", rows), store.url)).complete
        first = fleet.start(store.url, running.url, lease=1)

        def suspend() -> None:
            first.send_signal(signal.SIGSTOP)
            asleep.set()

        service.at[200] = suspend
        await asleep.wait()
        assert (await fleet.ended(fleet.start(store.url, running.url, lease=1)))[0] == "DONE"
        status = await read_fleet(store.url)
        first.send_signal(signal.SIGCONT)
        assert (await fleet.ended(first))[0] in ("DONE", "NOTHING_TO_DO")
        after = await read_fleet(store.url)
    assert status.counts == after.counts == Counts(done=500)
    assert sum(worker.rows for worker in after.workers) == 500
    assert {pair: {value} for pair, value in service.state.items()} == service.values
    assert service.state == last_of(rows)
    assert sum(service.arrivals.values()) - 500 <= CONCURRENCY


@pytest.mark.parametrize("what", ["store", "service", "both"])
async def test_a_signal_ends_a_worker_while_everything_hangs(
    tmp_path: Path, store: Valkey, service: StandIn, fleet: Fleet, what: str
) -> None:
    """Within seconds, whether the store, the service or both do not answer."""
    await loaded(simple_file(tmp_path, 2000), store.url)
    if what != "store":
        service.answer = lambda _: Fate.HOLD
    worker = fleet.start(store.url, service.url, concurrency=5, lease=1)
    await service.until(5)
    if what != "service":
        store.freeze()
    try:
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(ENDS_WITHIN):
            assert (await fleet.ended(worker))[0] == "INTERRUPTED"
    finally:
        store.thaw()
    service.let_go.set()
