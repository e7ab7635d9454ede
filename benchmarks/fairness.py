"""The wait of an interactive call while bulk work saturates the same endpoint.

A hundred bulk tasks call without a pause; one caller calls about every 100 ms, as web requests would.  Its wait is the
time of its call minus that of a call on the idle endpoint.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any

from benchmarks.policies import BASELINES, POLICIES, client, tim_calls
from benchmarks.remote import server
from benchmarks.server import Config, per_second
from benchmarks.tables import table

NAME = "set_unread_msg_num"
BULK_TASKS = 100
QUIET_CALLS = 20
CONFIG = Config(rtt=0.005)

Once = Callable[[int], Awaitable[object]]


@asynccontextmanager
async def _opened(policy: str, base_url: str) -> AsyncIterator[tuple[Once, Callable[[], Coroutine[Any, Any, None]]]]:
    """Open a policy; yield its interactive call and its bulk work, which is tasks that call in a loop without lanes."""
    serials = itertools.count()
    if policy in BASELINES:
        async with POLICIES[policy](base_url, CONFIG.limit) as call:

            async def work() -> None:
                for serial in serials:
                    await call(NAME, serial)

            async def bulk() -> None:
                await asyncio.gather(*(work() for _ in range(BULK_TASKS)))

            yield lambda n: call(NAME, n), bulk
    else:
        async with client(base_url, CONFIG.limit, strict=policy.endswith("strict")) as tim:
            rows = (("group", f"bulk{n}", 1) for n in serials)

            async def bulk() -> None:
                async with tim.batch.map(tim.set_unread_msg_num, rows, concurrency=BULK_TASKS) as outcomes:
                    async for _ in outcomes:
                        pass

            yield tim_calls(tim)[NAME], bulk


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


async def _run(policy: str, base_url: str, seconds: float) -> dict[str, Any]:
    async with _opened(policy, base_url) as (once, bulk):
        quiet = await _quiet(once)
        task = asyncio.create_task(bulk())
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
        with server(CONFIG) as remote:
            found = asyncio.run(asyncio.wait_for(_run(policy, remote.base_url, seconds), 30 + 3 * seconds))
            seen = remote.report()[NAME]
        waits = [max(0.0, taken - found["quiet"]) for taken in found["seconds"]]
        policies[policy] = {
            "quiet": found["quiet"],
            "calls": len(waits),
            "median": median(waits),
            "p99": quantiles(waits, n=100, method="inclusive")[98],
            "worst": max(waits),
            "total_rate": per_second(seen["accepted_times"], found["began"], found["ended"]),
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
