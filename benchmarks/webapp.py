"""The FastAPI example under 200 concurrent users, below the quota and above it.

The app runs as its docstring shows, with four processes, beside the strict server and a Valkey, each a separate
process; the users are tasks of this one.  All share one machine, so above the quota this also tests the pace when the
CPU is exhausted.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp

from benchmarks.remote import Remote, credentials, server
from benchmarks.server import Config, per_second
from benchmarks.tables import table
from tests.examples.serving import Program
from tests.store import Store, free_port

NAME = "get_c2c_unread_msg_num"
LOOPS = ("asyncio", "uvloop")
"""Event loops that uvicorn can run the app on."""
WORKERS = 4
WARM_UP = 3.0
"""Seconds of load before the measurement, for connections, imports and the first signature."""
CONFIG = Config(rtt=0.005)


@dataclass(frozen=True)
class Scenario:
    """The behaviour of the users.

    Attributes:
        title: its name in the table.
        peers: conversations in one view, which the user looks up concurrently, by a request each.
        pause: mean seconds between two views; 0 for none.
    """

    title: str
    peers: int
    pause: float


SCENARIOS = {
    # 200 views in 3 s, with 3 requests each: 200 requests a second; those of one user in one process merge.
    "below": Scenario("below the quota", 3, 3.0),
    "twice": Scenario("twice the quota", 1, 0.5),
    "flood": Scenario("as fast as they can", 1, 0.0),
}


@dataclass
class Seen:
    """The responses that the users received."""

    taken: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0
    broken: Counter[str] = field(default_factory=Counter)

    def add(self, status: int, seconds: float, retry_after: str | None) -> None:
        self.taken.setdefault(status, []).append(seconds)
        if status == 429 and not (retry_after and retry_after.isdecimal() and int(retry_after) >= 1):
            self.without_retry_after += 1


def _app(base_url: str, store: str, loop: str, port: int, log: Path) -> Program:
    command = ["-m", "uvicorn", "tim_async.examples.fastapi_app:app", "--workers", str(WORKERS), "--no-access-log"]
    command += ["--limit-concurrency", "1000", "--loop", loop, "--port", str(port)]
    ready = ("Application startup complete.", WORKERS)
    return Program(log, *command, env={**credentials(base_url), "TIM_QUOTA_URL": store}, ready=ready)


def _memory(app: Program) -> list[int]:
    """Return the resident memory of each of the app's processes, bytes."""
    return [_rss(pid) for pid in re.findall(r"server process \[(\d+)\]", app.output)]


def _rss(pid: str) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def _user(session: aiohttp.ClientSession, number: int, scenario: Scenario, seen: list[Seen]) -> None:
    """Make views until cancelled; responses go to the last of ``seen``."""
    dice = random.Random(number)
    await asyncio.sleep(dice.uniform(0.0, scenario.pause))

    async def ask(peer: int) -> None:
        start = time.perf_counter()
        try:
            async with session.get(f"/users/user{number}/unread/peer{peer}") as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            seen[-1].broken[type(error).__name__] += 1
        else:
            seen[-1].add(response.status, time.perf_counter() - start, response.headers.get("Retry-After"))

    while True:
        if scenario.peers == 1:
            await ask(0)
        else:
            await asyncio.gather(*(ask(peer) for peer in range(scenario.peers)))
        if scenario.pause:
            await asyncio.sleep(scenario.pause * dice.uniform(0.5, 1.5))


async def _load(
    app: Program, url: str, remote: Remote, scenario: Scenario, users: int, seconds: float
) -> dict[str, Any]:
    seen = [Seen()]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        tasks = [asyncio.create_task(_user(session, number, scenario, seen)) for number in range(users)]
        await asyncio.sleep(WARM_UP)
        memory = [_memory(app)]
        start = time.monotonic()
        seen.append(Seen())
        for _ in range(2):
            await asyncio.sleep(seconds / 2)
            memory.append(_memory(app))
        end, found = time.monotonic(), seen[-1]
        seen.append(Seen())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    calls = remote.report()[NAME]
    complaints = [line for line in app.output.splitlines() if not line.startswith("INFO:")]
    return {**_figures(scenario, found, calls, memory, start, end), "complaints": complaints}


def _figures(
    scenario: Scenario, found: Seen, calls: dict[str, Any], memory: list[list[int]], start: float, end: float
) -> dict[str, Any]:
    everything = [taken for times in found.taken.values() for taken in times]
    return {
        "title": scenario.title,
        "requests": len(everything) / (end - start),
        "statuses": {str(status): len(times) for status, times in sorted(found.taken.items())},
        "broken": dict(found.broken),
        "without_retry_after": found.without_retry_after,
        "calls": per_second(calls["accepted_times"] + calls["refused_times"], start, end),
        "fullest": calls["fullest"],
        "refused": calls["refused"],
        "all": _percentiles(everything),
        "200": _percentiles(found.taken.get(200, [])),
        "429": _percentiles(found.taken.get(429, [])),
        "memory": {"start": memory[0], "middle": memory[1], "end": memory[2]},
    }


def _percentiles(times: list[float]) -> dict[str, float] | None:
    if len(times) < 2:
        return None
    cuts = quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "worst": max(times)}


def measure(
    *,
    scenarios: tuple[str, ...] = tuple(SCENARIOS),
    loops: tuple[str, ...] = LOOPS,
    users: int = 200,
    seconds: float = 20.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run each scenario on each event loop, with its own app, server and store."""
    found = []
    for loop, name in itertools.product(loops, scenarios):
        say(f"webapp: {SCENARIOS[name].title}, {loop}, {seconds:g} s")
        port = free_port()
        with (
            server(CONFIG) as remote,
            tempfile.TemporaryDirectory() as folder,
            Store(Path(folder)) as store,
            _app(remote.base_url, store.url, loop, port, Path(folder, "log")) as app,
        ):
            run = asyncio.run(_load(app, f"http://127.0.0.1:{port}", remote, SCENARIOS[name], users, seconds))
            found.append({"scenario": name, "loop": loop, **run})
    return {"users": users, "seconds": seconds, "workers": WORKERS, "runs": found}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as a table of responses and calls, and a table of memory."""
    runs = result["runs"]

    def ms(figures: dict[str, float] | None, which: str) -> str:
        return "" if figures is None else f"{figures[which] * 1000:.0f}"

    seen = [
        [
            run["title"],
            run["loop"],
            f"{run['requests']:.0f}",
            f"{run['statuses'].get('200', 0)}",
            f"{run['statuses'].get('429', 0)}",
            f"{sum(n for status, n in run['statuses'].items() if status not in ('200', '429'))}",
            f"{sum(run['broken'].values())}",
            f"{run['without_retry_after']}",
            ms(run["200"], "p50"),
            ms(run["200"], "p99"),
            ms(run["429"], "p50"),
            ms(run["429"], "p99"),
            f"{run['calls']:.0f}",
            f"{run['fullest']}",
            f"{run['refused']}",
            f"{len(run['complaints'])}",
        ]
        for run in runs
    ]
    held = [
        [
            run["title"],
            run["loop"],
            *(" ".join(f"{n / 2**20:.1f}" for n in run["memory"][when]) for when in ("start", "middle", "end")),
        ]
        for run in runs
    ]
    header = ["users", "loop", "req/s", "200", "429", "other", "broken", "no R-A"]
    header += ["200 p50", "p99", "429 p50", "p99", "calls/s", "fullest s", "refused", "log"]
    title = (
        f"WEBAPP: {result['users']} users of the FastAPI example, {result['workers']} workers, {result['seconds']:g} s"
    )
    return [
        table(title, header, seen),
        table("Memory of each worker, MB", ["users", "loop", "after the warm-up", "middle", "end"], held),
    ]


NOTES = [
    "no R-A: 429s without a Retry-After of whole seconds; p50, p99: ms, as measured by users; calls/s: received by the",
    "service on the one endpoint; fullest s: most arrivals in any second; refused: by the service, in the whole run;",
    "log: lines of the app's log other than INFO",
]
