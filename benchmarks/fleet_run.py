"""One run of a fleet: its processes, a strict server, the store, their failures, and the measured figures.

The members, the server and the store are separate processes on one machine; times are by its monotonic clock, which all
of them share.
"""

from __future__ import annotations

import contextlib
import json
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

from benchmarks.remote import ROOT, environment, listening, server
from benchmarks.server import Config, fullest_second, per_second
from tests.store import Store

NAME = "set_unread_msg_num"
START_UP = 1.0
"""Seconds in which all processes make their clients, before they begin together."""
EARLY = 2.0
"""Seconds from the begin that count as early."""


@dataclass
class Scenario:
    """A fleet, and its failures.

    Attributes:
        title: its name in the table.
        workers: for each process, the settings that differ from the default.
        seconds: the duration of the run.
        config: the configuration of the server.
        kill_worker: seconds from the begin until the first process is killed.
        kill_store, start_store: seconds until the store is killed and started again.
        freeze_store, thaw_store: seconds until the store hangs and continues.
        far: the one-way latency to the store, seconds.
        measured: the interval, seconds, in which CPU is measured, of the store and the processes; None for the run.
        direct: whether the processes only take permits and make no calls.
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
    direct: bool = False


def run(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        remote = stack.enter_context(server(scenario.config))
        # With a slow log of every script that takes more than 0.2 ms.
        store = stack.enter_context(Store(Path(folder), slowlog_log_slower_than=200, slowlog_max_len=100_000))
        url = store.url
        if scenario.far:
            port = stack.enter_context(listening("benchmarks.relay", str(store.port), str(scenario.far)))
            url = f"redis://127.0.0.1:{port}/0"
        clients = sum(settings.get("clients", 1) for settings in scenario.workers)
        defaults = {
            "base_url": remote.base_url,
            "limit": scenario.config.limit,
            "store": url,
            "seconds": scenario.seconds,
            "lane": "interactive",
            "tasks": 50,
        }
        module = "benchmarks.fleet_direct" if scenario.direct else "benchmarks.fleet_worker"
        workers = [stack.enter_context(worker(module, {**defaults, **settings})) for settings in scenario.workers]
        begin = begin_together(workers, START_UP + 0.01 * clients)
        counters: list[dict[str, float]] = []
        for after, action in _events(scenario, workers[0], store, counters):
            time.sleep(max(0.0, begin + after - time.monotonic()))
            action()
        lines = [one.lines() for one in workers]
        seen = _sent(lines) if scenario.direct else remote.report()[NAME]
    return _figures(scenario, begin, lines, seen) | _store_figures(*counters)


def _events(
    scenario: Scenario, first: Worker, store: Store, counters: list[dict[str, float]]
) -> list[tuple[float, Callable[[], object]]]:
    start, end = scenario.measured or (0.0, scenario.seconds)
    events: list[tuple[float | None, Callable[[], object]]] = [
        (scenario.kill_worker, first.process.kill),
        (scenario.kill_store, store.kill),
        (scenario.start_store, store.start),
        (scenario.freeze_store, store.freeze),
        (scenario.thaw_store, store.thaw),
        (start, lambda: counters.append(_counters(store))),
        (end, lambda: counters.append(_counters(store))),
    ]
    return sorted(((after, action) for after, action in events if after is not None), key=lambda event: event[0])


class Worker:
    """A process of the fleet, which prints lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process = process
        self._out = out

    def wait_until_started(self) -> None:
        """Wait until it reports its start.

        Raises:
            RuntimeError: it has ended instead.
        """
        while not self._out.stat().st_size:
            if self.process.poll() is not None:
                raise RuntimeError(f"a process did not start: {self.process.args!r}")
            time.sleep(0.02)

    def begin(self, moment: float) -> None:
        """Send it the time at which to begin, monotonic seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{moment}\n")
        self.process.stdin.flush()

    def lines(self) -> list[dict[str, Any]]:
        """Wait for its end, and return its output."""
        self.process.wait(timeout=120)
        text = self._out.read_text().splitlines()
        return [json.loads(line) for line in text if line.endswith("}")]


@contextlib.contextmanager
def worker(module: str, settings: dict[str, Any]) -> Iterator[Worker]:
    """Run a module, which must begin with `started`, in a process of its own."""
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
    """Let all processes begin ``after`` seconds after the last has started; return that time, monotonic seconds."""
    for one in workers:
        one.wait_until_started()
    moment = time.monotonic() + after
    for one in workers:
        one.begin(moment)
    return moment


def started() -> dict[str, Any]:
    """In such a process: report the start, and return its settings with the times of begin and end."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    print("started", flush=True)
    settings["begin"] = float(sys.stdin.readline())
    settings["end"] = settings["begin"] + settings["seconds"]
    return settings


def _sent(lines: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the report that a server would have made."""
    return {"accepted_times": [at for output in lines for at in output[-1]["times"]], "refused_times": []}


def _figures(
    scenario: Scenario, begin: float, lines: list[list[dict[str, Any]]], seen: dict[str, Any]
) -> dict[str, Any]:
    accepted = [at - begin for at in seen["accepted_times"]]
    refused = [at - begin for at in seen["refused_times"]]
    busy = [
        output
        for output, settings in zip(lines, scenario.workers, strict=True)
        if settings.get("tasks") != 0 and "newcomers" not in settings
    ]
    until = scenario.kill_worker or scenario.seconds
    done = [next((line["done"] for line in output[::-1] if line["at"] - begin <= until + 0.3), 0) for output in busy]
    least = min(done, default=0)
    last = [output[-1] for output in lines if output]
    each = sorted(count for output in busy if output for count in output[-1].get("each", []))
    waits = [wait for line in last for wait in line.get("waits", [])]
    firsts = [first for line in last for first in line.get("firsts", [])]
    limit = scenario.config.limit

    def share(start: float, end: float) -> float:
        return per_second(accepted, start, end) / limit

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
        "spread": max(done) / least - 1 if least else None,
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
    measured = scenario.measured or (0.0, scenario.seconds)
    figures["cpu"] = sum(_cpu(output, begin, measured) for output in lines)
    return figures


def _counters(store: Store) -> dict[str, float]:
    """Return the store's counters since its start; none while it is away."""
    try:
        with Redis(port=store.port, socket_timeout=5.0) as redis:
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


def _store_figures(start: dict[str, float], end: dict[str, float]) -> dict[str, Any]:
    """Return the store's figures between two readings of its counters; none if it was killed in between."""
    if not start or not end or end["calls"] < start["calls"]:
        return {}
    seconds, calls = end["at"] - start["at"], end["calls"] - start["calls"]
    return {
        "scripts": calls / seconds,
        "script_us": (end["usec"] - start["usec"]) / calls if calls else 0.0,
        "slowest_ms": end["slowest"] / 1000,
        "store_cpu": (end["cpu"] - start["cpu"]) / seconds,
    }


def _cpu(output: list[dict[str, Any]], begin: float, measured: tuple[float, float]) -> float:
    """Return the share of one core that a process used in a part of the run."""
    within = [line for line in output if measured[0] <= line["at"] - begin <= measured[1]]
    if len(within) < 2:
        return 0.0
    return float((within[-1]["cpu"] - within[0]["cpu"]) / (within[-1]["at"] - within[0]["at"]))
