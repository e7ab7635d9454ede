"""Other limiters that share a rate on Redis, compared with this client's quota: same fleet, store and strict server.

Four processes of 25 tasks each call without a pause, and one user calls every 100 ms.  Each library is set up as its
documentation shows for asyncio and Redis, with the algorithm that suits a server with a sliding second best, and waits
as documented; its function gives the reasons.  It may use all 200 calls/s, and nothing is retried.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from redis import Redis

from benchmarks import calls
from benchmarks.fleet_run import NAME, START_UP, begin_together, started, worker
from benchmarks.policies import client, post, wide_session
from benchmarks.remote import server
from benchmarks.server import Config, fullest_second, per_second
from benchmarks.tables import table
from tests.store import Store

LIMIT = 200
PROCESSES, TASKS = 4, 25

Acquire = Callable[[], Awaitable[object]]
Once = Callable[[int], Awaitable[float]]
"""Makes one call; returns the seconds that it waited for its permit."""


@asynccontextmanager
async def _limits(store: str) -> AsyncIterator[Acquire]:
    """Limits: the moving window is exact, its other strategies admit more at a boundary; it has no method that waits.

    Its documentation sleeps until the window's reset by `get_window_stats`, and tries again.
    """
    limits, storage, strategies = (import_module(f"limits{name}") for name in ("", ".aio.storage", ".aio.strategies"))
    limiter = strategies.MovingWindowRateLimiter(storage.RedisStorage(f"async+{store}", implementation="redispy"))
    item = limits.RateLimitItemPerSecond(LIMIT)

    async def acquire() -> None:
        while not await limiter.hit(item, "app"):
            window = await limiter.get_window_stats(item, "app")
            await asyncio.sleep(max(0.0, window.reset_time - time.time()))

    yield acquire


@asynccontextmanager
async def _pyrate_limiter(store: str) -> AsyncIterator[Acquire]:
    """pyrate-limiter: RedisBucket, its choice for several hosts, with its default algorithm, an exact log."""
    pyrate, redis = import_module("pyrate_limiter"), import_module("redis.asyncio")
    async with redis.Redis.from_url(store) as connection:
        bucket = await pyrate.RedisBucket.init([pyrate.Rate(LIMIT, pyrate.Duration.SECOND)], connection, "app")
        limiter = pyrate.Limiter(bucket)
        yield lambda: limiter.try_acquire_async("app")


@asynccontextmanager
async def _throttled(store: str) -> AsyncIterator[Acquire]:
    """throttled-py: GCRA and a time-out, as in its documentation of wait and retry.

    GCRA admits ``burst`` plus a second's rate in one second, so 4 and 196, which add up to the limit.
    """
    throttled = import_module("throttled.asyncio")
    throttle = throttled.Throttled(
        key="app",
        using=throttled.RateLimiterType.GCRA.value,
        quota=throttled.rate_limiter.per_sec(LIMIT - 4, burst=4),
        store=throttled.RedisStore(server=store),
        timeout=60,
    )
    yield throttle.limit


@asynccontextmanager
async def _self_limiters(store: str) -> AsyncIterator[Acquire]:
    """self-limiters: its token bucket, which reserves once and sleeps until then; 196 a second plus 4, as above."""
    limiters = import_module("self_limiters")

    async def acquire() -> None:
        bucket = limiters.TokenBucket(
            name="app",
            capacity=4,
            refill_amount=4,
            refill_frequency=4 / (LIMIT - 4),
            max_sleep=60.0,
            redis_url=store.rpartition("/")[0],
            connection_pool_size=TASKS,
        )
        async with bucket:
            pass

    yield acquire


def _by_post(opener: Callable[[str], AbstractAsyncContextManager[Acquire]]) -> Callable[..., Any]:
    """Make calls by plain aiohttp, each after its permit."""

    @asynccontextmanager
    async def opened(store: str, base_url: str, user: bool) -> AsyncIterator[Once]:  # noqa: ARG001 - common signature
        async with opener(store) as acquire, wide_session() as session:

            async def once(serial: int) -> float:
                start = time.monotonic()
                await acquire()
                waited = time.monotonic() - start
                await post(session, base_url, NAME, calls.body(NAME, serial))
                return waited

            yield once

    return opened


@asynccontextmanager
async def _tim_async(store: str, base_url: str, user: bool) -> AsyncIterator[Once]:
    """tim_async: the tasks are bulk, the user is interactive.  It retries refused calls, which count as refused."""
    from tim_async import Attempt, Lane
    from tim_async.quota import RedisQuota

    waits: list[float] = []

    def attempted(attempt: Attempt) -> None:
        waits.append(attempt.waited)

    async with client(base_url, LIMIT, quota=RedisQuota(store), on_attempt=attempted) as tim:
        view = tim.with_options(lane=Lane.INTERACTIVE if user else Lane.BULK)

        async def once(serial: int) -> float:
            await view.set_unread_msg_num("group", f"member{serial}", 1)
            return waits[-1]

        yield once


LIBRARIES: dict[str, tuple[str, Callable[..., AbstractAsyncContextManager[Once]]]] = {
    "limits": ("limits", _by_post(_limits)),
    "pyrate-limiter": ("pyrate_limiter", _by_post(_pyrate_limiter)),
    "throttled-py": ("throttled", _by_post(_throttled)),
    "self-limiters": ("self_limiters", _by_post(_self_limiters)),
    "tim_async": ("tim_async", _tim_async),
}
"""The module and the factory of calls, by the name on PyPI."""


async def _work(settings: dict[str, Any]) -> None:
    """Run one process, which saturates the limit or calls about every 100 ms, and print the waits."""
    waits: list[float] = []
    user = settings["user"]
    async with LIBRARIES[settings["library"]][1](settings["store"], settings["base_url"], user) as once:
        await asyncio.sleep(max(0.0, settings["begin"] - time.monotonic()))

        async def loop(number: int) -> None:
            gaps = random.Random(number)
            while True:
                waits.append(await once(number))
                if user:
                    await asyncio.sleep(gaps.uniform(0.08, 0.12))

        tasks = [asyncio.create_task(loop(number)) for number in range(1 if user else TASKS)]
        await asyncio.sleep(max(0.0, settings["end"] - time.monotonic()))
        failures = [repr(task.exception()) for task in tasks if task.done() and task.exception() is not None]
        print(json.dumps({"waits": waits, "failures": failures}), flush=True)
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=2.0)
        if left:  # one of the libraries swallows cancellation
            os._exit(0)


def run(library: str, seconds: float) -> dict[str, Any]:
    """Run the fleet with one library."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        remote = stack.enter_context(server(Config(limit=LIMIT, rtt=0.005)))
        store = stack.enter_context(Store(Path(folder)))
        settings = {"library": library, "store": store.url, "base_url": remote.base_url, "seconds": seconds}
        workers = [
            stack.enter_context(worker("benchmarks.limiters", {**settings, "user": number == PROCESSES}))
            for number in range(PROCESSES + 1)
        ]
        begin = begin_together(workers, START_UP)
        counts = []
        for moment in (begin, begin + seconds):
            time.sleep(max(0.0, moment - time.monotonic()))
            with Redis(port=store.port) as redis:
                counts.append(redis.info("stats")["total_reads_processed"])
        results = [one.lines()[-1] for one in workers]
        seen = remote.report()[NAME]
    permits = sum(len(one["waits"]) for one in results)
    cuts = quantiles(results[-1]["waits"], n=100, method="inclusive")
    return {
        "share": per_second(seen["accepted_times"], begin, begin + seconds) / LIMIT,
        "refused": seen["refused"] / max(1, seen["refused"] + seen["accepted"]),
        "fullest": fullest_second(sorted(seen["accepted_times"] + seen["refused_times"])),
        "median": cuts[49],
        "p99": cuts[98],
        "round_trips": (counts[1] - counts[0]) / max(1, permits),
        "failures": [failure for one in results for failure in one["failures"]],
    }


def measure(
    *,
    libraries: tuple[str, ...] = tuple(LIBRARIES),
    seconds: float = 15.0,
    rounds: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run each installed library ``rounds`` times."""
    installed = [name for name in libraries if importlib.util.find_spec(LIBRARIES[name][0]) is not None]
    for name in set(libraries) - {*installed}:
        say(f"limiters: {name} is not installed and left out; to include it: pip install {name}")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in installed}
    for number in range(rounds):
        for name in installed:
            say(f"limiters: {name}, round {number + 1} of {rounds}")
            found[name].append(run(name, seconds))
    versions = {name: "" if name == "tim_async" else version(name) for name in installed}
    return {"seconds": seconds, "rounds": rounds, "versions": versions, "libraries": found}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table, with the medians of each library."""
    rows = [
        [
            f"{name} {result['versions'][name]}".strip(),
            f"{median(run['share'] for run in runs):.3f}",
            f"{median(run['refused'] for run in runs):.2%}",
            f"{max(run['fullest'] for run in runs)}",
            f"{median(run['median'] for run in runs) * 1000:.0f}",
            f"{median(run['p99'] for run in runs) * 1000:.0f}",
            f"{median(run['round_trips'] for run in runs):.1f}",
            f"{sum(len(run['failures']) for run in runs)}",
        ]
        for name, runs in result["libraries"].items()
    ]
    title = (
        f"LIMITERS: {LIMIT}/s shared on Valkey, {PROCESSES} processes × {TASKS} tasks and a user, strict server, "  # noqa: RUF001
        f"RTT 5 ms, {result['seconds']:g} s (medians of {result['rounds']})"
    )
    header = ["library", "of the limit", "refused", "fullest s", "user p50", "p99", "round trips", "failed"]
    return [table(title, header, rows)]


NOTES = [
    "of the limit: accepted calls; refused: share of all arrivals; fullest s: most arrivals in any second",
    "user: ms for which the user who calls every 100 ms waited for a permit; round trips: to the store, per permit",
    "failed: tasks that ended by an exception of the library",
]


if __name__ == "__main__":
    asyncio.run(_work(started()))
    os._exit(0)  # the threads of self-limiters abort at the interpreter's end
