"""Goodput and refusals: every policy in turn on a fresh server, in rounds, so that all have the same conditions.

Goodput is the number of successful calls divided by the seconds from the first sending to the last answer, as a share
of the limit.  The first sending is taken as half an RTT before the first arrival: by the server's clock, the same way
for all policies.  Refusals and the fullest second are counted by the server, too.  Creating and queueing thousands of
tasks takes time before anything is sent; "with start" includes it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, median
from typing import Any

from benchmarks.calls import NAMES
from benchmarks.policies import BASELINES, LEGEND, POLICIES, Call
from benchmarks.remote import Remote, server
from benchmarks.server import Config, per_second
from benchmarks.tables import table


@dataclass(frozen=True)
class Scenario:
    """One load on one kind of server.

    Attributes:
        title: its title in the table.
        config: the server and the path to it.
        endpoints: the number of endpoints called concurrently, up to four.
        calls: calls for each endpoint; 0 for a run by time.
        seconds: the time within which calls are started, in a run by time.
        stall_at: seconds after the first call at which the server stalls for a second; 0 for never.
        marks: times, seconds after the first arrival, between which the goodput is reported separately.
    """

    title: str
    config: Config
    endpoints: int = 1
    calls: int = 1200
    seconds: float = 0.0
    stall_at: float = 0.0
    marks: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[: self.endpoints]

    @property
    def time_limit(self) -> float:
        """Seconds after which a run has failed."""
        return 30 + 4 * max(self.seconds, self.calls / self.config.limit)


SCENARIOS: dict[str, Scenario] = {
    "four": Scenario(
        "four endpoints at once, 1,200 calls each, RTT 5 ms, sliding second",
        Config(rtt=0.005),
        endpoints=4,
    ),
    "sliding": Scenario(
        "one endpoint, 1,200 calls, RTT 50 ms lognormal 0.3, sliding second",
        Config(rtt=0.05, cv=0.3),
    ),
    "calendar": Scenario(
        "one endpoint, 1,200 calls, RTT 50 ms lognormal 0.3, calendar second",
        Config(rtt=0.05, cv=0.3, window="calendar"),
    ),
    "minute": Scenario(
        "four endpoints at once for 60 s, RTT 5 ms, sliding second",
        Config(rtt=0.005),
        endpoints=4,
        calls=0,
        seconds=60,
        marks=(0, 5, 20, 40, 59),
    ),
    "foreign": Scenario(
        "one endpoint for 70 s, RTT 50 ms lognormal 0.3, another consumer uses 80/s from 20 s to 60 s",
        Config(rtt=0.05, cv=0.3, foreign_rate=80, foreign_start=20, foreign_end=60),
        calls=0,
        seconds=70,
        marks=(0, 20, 60, 70),
    ),
    "stall": Scenario(
        "one endpoint, 1,200 calls, RTT 5 ms, sliding second, nothing arrives from 2 s to 3 s",
        Config(rtt=0.005),
        stall_at=2,
    ),
}

USUAL = ("four", "sliding", "calendar")
"""The default scenarios, which take seconds, not minutes."""


@dataclass
class Tally:
    """The client's counts for one endpoint."""

    served: int = 0
    failed: int = 0
    issued: float = field(default_factory=time.monotonic)
    last_answer: float = 0.0

    def answered(self, served: bool) -> None:
        self.last_answer = time.monotonic()
        if served:
            self.served += 1
        else:
            self.failed += 1


async def _drive(call: Call, scenario: Scenario, workers: int) -> dict[str, Tally]:
    """Make the scenario's calls: each in its own task or, with ``workers``, by that many tasks for each endpoint."""
    tallies = {name: Tally() for name in scenario.names}

    async def one(name: str, serial: int) -> None:
        tallies[name].answered(await call(name, serial))

    async def work(name: str, serials: Iterable[int], until: float) -> None:
        for serial in serials:
            if time.monotonic() >= until:
                return
            await one(name, serial)

    jobs: list[Coroutine[Any, Any, None]] = []
    if scenario.seconds:
        until = time.monotonic() + scenario.seconds
        for name in scenario.names:
            serials = itertools.count()
            jobs += [work(name, serials, until) for _ in range(workers or 64)]
    elif workers:
        for name in scenario.names:
            shared = iter(range(scenario.calls))
            jobs += [work(name, shared, float("inf")) for _ in range(workers)]
    else:
        jobs += [one(name, serial) for serial in range(scenario.calls) for name in scenario.names]
    await asyncio.gather(*jobs)
    return tallies


async def _run_client(policy: str, remote: Remote, scenario: Scenario, workers: int) -> dict[str, Tally]:
    async with asyncio.timeout(scenario.time_limit), asyncio.TaskGroup() as group:
        if scenario.stall_at:

            async def stall() -> None:
                await asyncio.sleep(scenario.stall_at)
                await asyncio.to_thread(remote.stall, 1.0)

            group.create_task(stall())
        async with POLICIES[policy](remote.base_url, scenario.config.limit) as call:
            return await _drive(call, scenario, workers)


def run_once(policy: str, scenario: Scenario, *, workers: int = 0, seed: int = 0) -> dict[str, Any]:
    """Run one policy through one scenario on a fresh server."""
    config = replace(scenario.config, seed=seed)
    with server(config) as remote:
        tallies = asyncio.run(_run_client(policy, remote, scenario, workers))
        seen = remote.report()
    endpoints = {}
    for name, tally in tallies.items():
        first_sent = seen[name]["first"] - config.rtt / 2
        elapsed = tally.last_answer - first_sent
        endpoints[name] = {
            "goodput": tally.served / elapsed / config.limit,
            "goodput_with_start": tally.served / (tally.last_answer - tally.issued) / config.limit,
            "elapsed": elapsed,
            "served": tally.served,
            "failed": tally.failed,
            "accepted": seen[name]["accepted"],
            "refused": seen[name]["refused"],
            "fullest": seen[name]["fullest"],
            "phases": [
                per_second(seen[name]["accepted_times"], seen[name]["first"] + start, seen[name]["first"] + end)
                for start, end in itertools.pairwise(scenario.marks)
            ],
        }
    figures = list(endpoints.values())
    refused = sum(figure["refused"] for figure in figures)
    return {
        "policy": policy,
        "goodput": mean(figure["goodput"] for figure in figures),
        "goodput_min": min(figure["goodput"] for figure in figures),
        "goodput_with_start": mean(figure["goodput_with_start"] for figure in figures),
        "refused_per_1000": 1000 * refused / (refused + sum(figure["accepted"] for figure in figures)),
        "fullest": max(figure["fullest"] for figure in figures),
        "failed": sum(figure["failed"] for figure in figures),
        "phases": [mean(column) for column in zip(*(figure["phases"] for figure in figures), strict=True)],
        "endpoints": endpoints,
    }


def measure(
    scenarios: Sequence[str] = USUAL,
    policies: Sequence[str] | None = None,
    *,
    rounds: int = 3,
    workers: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run every scenario with every policy, the policies in turn within each round."""
    chosen = [name for name in POLICIES if policies is None or name in policies]
    result: dict[str, Any] = {}
    for key in scenarios:
        runs: list[dict[str, Any]] = []
        for number in range(rounds):
            for policy in chosen:
                say(f"rate: {key}, round {number + 1} of {rounds}, {policy}")
                run = run_once(policy, SCENARIOS[key], workers=workers, seed=number)
                runs.append({"round": number, **run})
        result[key] = {"rounds": rounds, "workers": workers, "policies": _summary(runs), "runs": runs}
    return result


def _summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the medians over the rounds; the comparison with the baselines is made within each round."""
    better = {
        number: max(
            (run["goodput"] for run in runs if run["round"] == number and run["policy"] in BASELINES),
            default=None,
        )
        for number in {run["round"] for run in runs}
    }
    summary = {}
    for policy in dict.fromkeys(run["policy"] for run in runs):
        own = [run for run in runs if run["policy"] == policy]
        ratios = [run["goodput"] / best for run in own if (best := better[run["round"]]) is not None]
        summary[policy] = {
            "goodput": median(run["goodput"] for run in own),
            "goodput_min": median(run["goodput_min"] for run in own),
            "goodput_with_start": median(run["goodput_with_start"] for run in own),
            "to_better_baseline": median(ratios) if ratios else None,
            "refused_per_1000": median(run["refused_per_1000"] for run in own),
            "refused_per_1000_worst": max(run["refused_per_1000"] for run in own),
            "fullest": max(run["fullest"] for run in own),
            "failed": median(run["failed"] for run in own),
            "phases": [median(column) for column in zip(*(run["phases"] for run in own), strict=True)],
        }
    return summary


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table for each scenario."""
    return [_table(SCENARIOS[key], measured) for key, measured in result.items()]


def _table(scenario: Scenario, measured: dict[str, Any]) -> str:
    spans = list(itertools.pairwise(scenario.marks))
    header = ["policy", "goodput", "slowest", "with start", "to better", "refused", "worst", "fullest", "failed"]
    header += [f"{start:g}-{end:g} s" for start, end in spans]
    rows = []
    for policy, figures in measured["policies"].items():
        ratio = figures["to_better_baseline"]
        rows.append(
            [
                policy,
                f"{figures['goodput']:.3f}",
                f"{figures['goodput_min']:.3f}",
                f"{figures['goodput_with_start']:.3f}",
                "" if ratio is None else f"{ratio:.3f}",
                f"{figures['refused_per_1000']:.1f}",
                f"{figures['refused_per_1000_worst']:.1f}",
                f"{figures['fullest']:.0f}",
                f"{figures['failed']:.0f}",
                *(f"{phase:.1f}" for phase in figures["phases"]),
            ]
        )
    return table(f"RATE: {scenario.title} (medians of {measured['rounds']})", header, rows)


NOTES = [
    *(f"{name}: {meaning}" for name, meaning in LEGEND.items()),
    "goodput: share of the limit, mean over the endpoints; slowest: the slowest endpoint's",
    "    1,200 calls are six seconds' worth, and the sixth second need not end, so a little over 1 is possible",
    "with start: goodput including the time from creating the tasks to the first sending",
    "to better: ratio to the goodput of the better of fixed and slot-hold in the same round",
    "refused, worst: refused by the server for each 1,000 attempts, median and worst round",
    "fullest: most arrivals in a sliding second, in any round; failed: calls that failed after all retries",
    "from-to s: accepted calls a second in that interval",
]
