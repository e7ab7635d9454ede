"""A fleet on typical deployments of the store, each with its failure, under load.

The servers and their failures are those of `tests.topologies`.  Each member of the fleet, the strict service and the
servers are separate processes on one machine.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.calls import COMMANDS
from benchmarks.fleet_run import begin_together, worker
from benchmarks.fleet_worker import NAME
from benchmarks.remote import SDK_APP_ID, server
from benchmarks.server import Config, fullest_second, per_second
from benchmarks.tables import table
from tests.topologies import Topology, deployments, wait

CONFIG = Config(rtt=0.005)
KEY = f"tim_async:{{{SDK_APP_ID}:{COMMANDS[NAME]}}}"
PROCESSES, TASKS = 4, 50
START_UP, BEFORE, AFTER = 0.5, 4.0, 6.0
"""Seconds before the processes begin together, of load before the failure, and of load after there is a primary."""


def run(make: Callable[[], Topology], *, fail_closed: bool) -> dict[str, Any]:
    """Run a fleet through the failure of a deployment."""
    with contextlib.ExitStack() as stack:
        topology = stack.enter_context(make())
        remote = stack.enter_context(server(CONFIG))
        settings = {
            "base_url": remote.base_url,
            "limit": CONFIG.limit,
            "store": topology.url,
            "quota": {"fail_closed": fail_closed},
            "seconds": 600,  # longer than the run, which kills them
            "lane": "interactive",
            "tasks": TASKS,
        }
        processes = [stack.enter_context(worker("benchmarks.fleet_worker", settings)) for _ in range(PROCESSES)]
        busy = begin_together(processes, START_UP)
        time.sleep(START_UP + BEFORE)
        failed = time.monotonic()
        topology.disturb()
        wait(topology.decided)
        decided = time.monotonic()
        time.sleep(AFTER / 2)
        topology.settle()
        time.sleep(AFTER / 2)
        for each in processes:
            each.process.kill()
        return _figures([each.lines() for each in processes], remote.report()[NAME], busy, failed, decided)


def _figures(
    outputs: list[list[dict[str, Any]]], seen: dict[str, Any], busy: float, failed: float, decided: float
) -> dict[str, Any]:
    returns = [line["at"] for lines in outputs for line in lines if line.get("shared") and line["at"] > failed]
    back = max(decided, *returns) if returns else decided
    accepted = seen["accepted_times"]

    return {
        "failed": sum(lines[-1]["failed"] for lines in outputs),
        "refused": seen["refused"],
        "fullest": fullest_second(sorted(accepted + seen["refused_times"])),
        "without": decided - failed,
        "back": back - decided,
        "before": per_second(accepted, busy + 1, failed) / CONFIG.limit,
        "after": per_second(accepted, back + 1, decided + AFTER) / CONFIG.limit,
    }


def measure(*, only: str = "", rounds: int = 1, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run each deployment with processes that use their fallback shares, and with ``fail_closed``."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for closed in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                for name, make in deployments(Path(folder), KEY):
                    if only in name:
                        title = f"{name}{', fail_closed' if closed else ''}"
                        say(f"deployments: {title}, round {number + 1} of {rounds}")
                        found.setdefault(title, []).append(run(make, fail_closed=closed))
    return {"deployments": found}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table, with a line for each run."""
    rows = [
        [
            title,
            f"{run['failed']}",
            f"{run['refused']}",
            f"{run['fullest']}",
            f"{run['without']:.1f}",
            f"{run['back']:.2f}",
            f"{run['before']:.3f}",
            f"{run['after']:.3f}",
        ]
        for title, runs in result["deployments"].items()
        for run in runs
    ]
    header = ["deployment", "failed", "refused", "fullest s", "without, s", "back, s", "before", "after"]
    return [table(f"DEPLOYMENTS: {PROCESSES} saturating processes, limit {CONFIG.limit}, RTT 5 ms", header, rows)]


NOTES = [
    "failed: calls; fullest s: most arrivals in any second; without: from the failure until there is a primary again;",
    "back: from then until the last process shares the quota again; before, after: share of the limit, from 1 s on",
]
