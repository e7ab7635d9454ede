"""Memory of a waiting call, and growth of a long `batch.map`.

A waiting call is a task in the queue for a permit; tracemalloc measures ten thousand of them, and as many tasks that
wait for a bare aiolimiter or for a mere future, which shows the cost of the tasks themselves.  The long run is measured
by the resident memory of its process.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.policies import POLICIES, Call, client
from benchmarks.remote import fresh, server
from benchmarks.server import Config
from benchmarks.tables import table

NAME = "set_unread_msg_num"
CONCURRENCY = 64


@asynccontextmanager
async def _future(_base_url: str, _rate: float) -> AsyncIterator[Call]:
    """Wait forever: the cost of a task and a future alone."""
    never = asyncio.Event()

    async def call(_name: str, _serial: int) -> bool:
        return await never.wait()

    yield call


WAITERS = {
    "a bare future": _future,
    "AsyncLimiter": POLICIES["fixed"],
    "slot-hold": POLICIES["slot-hold"],
    "tim_async": POLICIES["tim_async"],
}


async def wait(kind: str, base_url: str, count: int) -> dict[str, float]:
    """Measure the bytes of each waiting call, and the seconds to queue and to cancel all."""
    # The rate is so low that hardly any call is permitted meanwhile, and no connection is counted.
    async with WAITERS[kind](base_url, 1) as call:
        # The first call pays for connections, imports and caches.
        if kind != "a bare future":
            await call(NAME, 0)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        start = time.perf_counter()
        tasks = [asyncio.ensure_future(call(NAME, serial)) for serial in range(count)]
        # After two iterations of the loop, each has reached the queue, and few have a permit.
        for _ in range(2):
            await asyncio.sleep(0)
        queued = time.perf_counter() - start
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        waiting = sum(not task.done() for task in tasks)
        start = time.perf_counter()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = time.perf_counter() - start
    return {"bytes": used / waiting, "waiting": waiting, "queue_seconds": queued, "cancel_seconds": cancelled}


def resident() -> int:
    """Return the resident memory, bytes; on systems without ``/proc``, its peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * mmap.PAGESIZE
    import resource  # not available on every system, nor needed on Linux

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


async def grow(base_url: str, count: int) -> dict[str, float]:
    """Measure the growth of resident memory over a `batch.map`, at its end and at its peak."""
    async with client(base_url, 1e6) as tim:
        # The first calls allocate connections, buffers and caches, however many follow.
        await asyncio.gather(*(tim.set_unread_msg_num("group", f"member{n}", 1) for n in range(CONCURRENCY)))
        gc.collect()
        before = highest = resident()
        start = time.perf_counter()
        rows = (("group", f"member{n}", 1) for n in range(count))
        done = 0
        async with tim.batch.map(tim.set_unread_msg_num, rows, concurrency=CONCURRENCY) as outcomes:
            async for outcome in outcomes:
                if type(outcome).__name__ != "Done":
                    raise RuntimeError(f"a row failed: {outcome!r}")
                done += 1
                if done % 1000 == 0:
                    highest = max(highest, resident())
        elapsed = time.perf_counter() - start
        after = resident()
    return {
        "rows": done,
        "before": before,
        "growth": after - before,
        "highest_growth": max(highest, after) - before,
        "rows_per_second": done / elapsed,
    }


def measure(*, rows: int = 100_000, waiting: int = 10_000, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure each kind of waiting in a fresh interpreter, then the long run in another."""
    waiters = {}
    for kind in WAITERS:
        say(f"memory: {waiting:,} calls waiting, {kind}")
        with server(Config(record=False)) as remote:
            waiters[kind] = fresh(wait, kind=kind, base_url=remote.base_url, count=waiting)
    say(f"memory: batch.map of {rows:,} rows")
    with server(Config(window="none", record=False)) as remote:
        # The time-out suits a machine that sends only 300 rows a second.
        growth = fresh(grow, 60 + rows / 300, base_url=remote.base_url, count=rows)
    return {"asked": waiting, "waiters": waiters, "batch_map": growth}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as a table of the waiting calls and a table of the long run."""
    rows = [
        [
            kind,
            f"{figures['bytes']:,.0f}",
            f"{figures['waiting']:,.0f}",
            f"{figures['queue_seconds'] * 1000:.0f}",
            f"{figures['cancel_seconds'] * 1000:.0f}",
        ]
        for kind, figures in result["waiters"].items()
    ]
    header = ["waiting for", "bytes a call", "calls", "ms to queue all", "ms to cancel all"]
    growth = result["batch_map"]
    return [
        table(f"MEMORY: {result['asked']:,} calls waiting on one endpoint", header, rows),
        table(
            "MEMORY: a long batch.map, resident memory",
            ["rows", "growth, MB", "highest, MB", "rows/s"],
            [
                [
                    f"{growth['rows']:,}",
                    f"{growth['growth'] / 1e6:.1f}",
                    f"{growth['highest_growth'] / 1e6:.1f}",
                    f"{growth['rows_per_second']:,.0f}",
                ]
            ],
        ),
    ]


NOTES = [
    "bytes a call: all allocations, its task included (a bare future shows the task alone)",
    "ms: under tracemalloc, which makes everything several times slower; only for comparison",
]
