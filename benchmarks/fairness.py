"""The wait of an interactive call while bulk work saturates the same endpoint.

A hundred bulk tasks call without a pause; one caller calls about every 100 ms, as web requests would.  Its wait is the
time of its call minus that of a call on the idle endpoint.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any

from benchmarks.policies import BASELINES, POLICIES, Call, client, tim_calls
from benchmarks.remote import server
from benchmarks.server import Config
from benchmarks.tables import table

NAME = "set_unread_msg_num"
BULK_TASKS = 100
QUIET_CALLS = 20
CONFIG = Config(rtt=0.005)

Once = Callable[[int], Awaitable[object]]


@asynccontextmanager
async def _tasks(call: Call) -> AsyncIterator[None]:
    """Run the bulk work of a policy without lanes: tasks that call in a loop."""
    serials = itertools.count()

    async def work() -> None:
        for serial in serials:
            await call(NAME, serial)

    tasks = [asyncio.ensure_future(work()) for _ in range(BULK_TASKS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _call_interactively(once: Once, seconds: float) -> dict[str, Any]:
    """Call about every 100 ms, with random gaps so as not to synchronise with the bulk work."""
    waits: list[float] = []
    began = time.monotonic()
    gaps = random.Random(0)
    until = began + seconds
    for serial in itertools.count():
        if time.monotonic() >= until:
            break
        await asyncio.sleep(gaps.uniform(0.08, 0.12))
        start = time.perf_counter()
        await once(serial)
        waits.append(time.perf_counter() - start)
    return {"seconds": waits, "began": began, "ended": time.monotonic()}


async def _quiet(once: Once) -> float:
    """Measure the time of a call on the idle endpoint."""
    times = []
    for serial in range(QUIET_CALLS):
        start = time.perf_counter()
        await once(serial)
        times.append(time.perf_counter() - start)
        await asyncio.sleep(0.02)
    return median(times)


async def _baseline(policy: str, base_url: str, seconds: float) -> dict[str, Any]:
    async with POLICIES[policy](base_url, CONFIG.limit) as call:
        quiet = await _quiet(lambda n: call(NAME, n))
        async with _tasks(call):
            await asyncio.sleep(1.5)
            return {"quiet": quiet, **await _call_interactively(lambda n: call(NAME, n), seconds)}


async def _tim_async(policy: str, base_url: str, seconds: float) -> dict[str, Any]:
    async with client(base_url, CONFIG.limit, strict=policy.endswith("strict")) as tim:
        once = tim_calls(tim)[NAME]
        quiet = await _quiet(once)
        rows = (("group", f"bulk{n}", 1) for n in itertools.count())

        async def bulk() -> None:
            async with tim.batch.map(tim.set_unread_msg_num, rows, concurrency=BULK_TASKS) as outcomes:
                async for _ in outcomes:
                    pass

        task = asyncio.ensure_future(bulk())
        try:
            # Skip the first burst, in which limiters delay less than later.
            await asyncio.sleep(1.5)
            return {"quiet": quiet, **await _call_interactively(once, seconds)}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def measure(*, seconds: float = 15.0, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure the baselines and the client, each on a fresh server."""
    policies = {}
    for policy in POLICIES:
        if policy == "naive":
            continue
        say(f"fairness: {policy}")
        run = _baseline if policy in BASELINES else _tim_async
        with server(CONFIG) as remote:
            found = asyncio.run(asyncio.wait_for(run(policy, remote.base_url, seconds), 30 + 3 * seconds))
            seen = remote.report()[NAME]
        waits = [max(0.0, taken - found["quiet"]) for taken in found["seconds"]]
        policies[policy] = {
            "quiet": found["quiet"],
            "calls": len(waits),
            "median": median(waits),
            "p99": quantiles(waits, n=100, method="inclusive")[98],
            "worst": max(waits),
            "total_rate": sum(found["began"] <= time < found["ended"] for time in seen["accepted_times"])
            / (found["ended"] - found["began"]),
            "refused": seen["refused"],
        }
    return {"bulk_tasks": BULK_TASKS, "seconds": seconds, "policies": policies}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table."""
    rows = [
        [
            policy,
            f"{figures['median'] * 1000:.1f}",
            f"{figures['p99'] * 1000:.1f}",
            f"{figures['worst'] * 1000:.1f}",
            f"{figures['calls']}",
            f"{figures['quiet'] * 1000:.1f}",
            f"{figures['total_rate']:.0f}",
            f"{figures['refused']}",
        ]
        for policy, figures in result["policies"].items()
    ]
    header = ["policy", "median", "p99", "worst", "calls", "quiet call", "all/s", "refused"]
    return [table(f"FAIRNESS: wait of an interactive call among {BULK_TASKS} bulk tasks, ms, RTT 5 ms", header, rows)]


NOTES = [
    "wait: time of the call minus that of a quiet call (the median of those before the bulk work began)",
    "all/s: calls a second that the server accepted while the interactive caller ran; refused: in the whole run",
]
