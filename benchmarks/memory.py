"""Memory of a waiting call, and growth of a long `batch.map`.

A waiting call is a task that asked for its turn and did not get it yet; ten thousand of them are counted by
tracemalloc beside the same number waiting for a bare aiolimiter, and for nothing but a future, which is
what the tasks themselves cost.  The long run is watched from outside the heap: resident memory of the process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import mmap
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.policies import POLICIES, Call, available, client
from benchmarks.remote import fresh, server
from benchmarks.server import Config
from benchmarks.tables import table

NAME = "set_unread_msg_num"
CONCURRENCY = 64


@asynccontextmanager
async def _future(_base_url: str, _rate: float) -> AsyncIterator[Call]:
    """Waits for what never comes: the cost of a task and a future alone."""
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


async def _waiting(kind: str, base_url: str, count: int) -> dict[str, float]:
    """Bytes for each of the calls that wait, and seconds that it took to queue and to cancel them."""
    # So slow that hardly a call is let go meanwhile, and no connection of one in flight is counted.
    async with WAITERS[kind](base_url, 1) as call:
        # The first call pays for connections, imports and caches, which no waiting call has to.
        if kind != "a bare future":
            await call(NAME, 0)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        start = time.perf_counter()
        tasks = [asyncio.ensure_future(call(NAME, serial)) for serial in range(count)]
        # Twice around the loop, each has started and reached its queue; few were served meanwhile.
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
    """Bytes of resident memory now; where the system does not tell, the most there ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * mmap.PAGESIZE
    import resource  # not there on every system, nor needed on Linux

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


async def _growth(base_url: str, count: int) -> dict[str, float]:
    """Growth of resident memory over a `batch.map`, at its end and at its highest."""
    async with client(base_url, 1e6) as tim:
        # What comes with the first calls, however many follow: a connection each, buffers, caches.
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
    """Each waiter in a fresh interpreter, then the long run in another."""
    here = available()
    waiters = {}
    for kind in WAITERS:
        if kind in POLICIES and kind not in here:
            continue
        say(f"memory: {waiting:,} calls waiting, {kind}")
        with server(Config(record=False)) as remote:
            waiters[kind] = fresh("benchmarks.memory", kind=kind, base_url=remote.base_url, count=waiting)
    growth = None
    if "tim_async" in here:
        say(f"memory: batch.map of {rows:,} rows")
        with server(Config(window="none", record=False)) as remote:
            # At a few hundred rows a second, a machine so slow would still be in time.
            growth = fresh("benchmarks.memory", 60 + rows / 300, kind="growth", base_url=remote.base_url, count=rows)
    return {"asked": waiting, "waiters": waiters, "batch_map": growth}


def tables(result: dict[str, Any]) -> list[str]:
    """One table of waiting calls, one of the long run."""
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
    found = [table(f"MEMORY: {result['asked']:,} calls waiting on one endpoint", header, rows)]
    if (growth := result["batch_map"]) is not None:
        found.append(
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
            )
        )
    return found


NOTES = [
    "bytes a call: all that was allocated for it, its task included (a bare future shows the task alone)",
    "ms: under tracemalloc, which makes everything several times slower; to compare, not to quote",
]


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if asked["kind"] == "growth":
        found = asyncio.run(_growth(asked["base_url"], asked["count"]))
    else:
        found = asyncio.run(_waiting(asked["kind"], asked["base_url"], asked["count"]))
    print(json.dumps(found))
