"""A fleet on one quota: saturating processes, a store that is killed, clocks and rates that disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.fleet_run import Scenario, run
from benchmarks.server import Config
from benchmarks.tables import table


def _many(count: int, **settings: Any) -> list[dict[str, Any]]:
    return [settings for _ in range(count)]


def _clients(count: int, **settings: Any) -> list[dict[str, Any]]:
    """Spread clients over up to eight processes, with tasks that saturate the endpoint: two or more for each client."""
    processes = min(8, max(4, count // 50))
    tasks = max(2, 200 // count)
    parts = [count // processes + (number < count % processes) for number in range(processes)]
    return [{"clients": part, "tasks": tasks, **settings} for part in parts]


def _size(count: int) -> Scenario:
    # Newcomers start while the others are calling; each is alone in a process, as in a deployment.
    newcomers = [{"clients": 1, "newcomers": [at]} for at in (9.0, 12.0, 15.0)]
    return Scenario(f"{count} busy clients", [*_clients(count), *newcomers], seconds=20.0)


def _away(count: int) -> Scenario:
    title = f"{count} clients, store away for 5 s"
    return Scenario(title, _clients(count), kill_store=5.0, start_store=10.0, seconds=18.0)


def _disagreeing(low: float, high: float) -> Scenario:
    workers = [*_many(4, limit=low, tasks=25), *_many(4, limit=high, tasks=25)]
    return Scenario(f"4 processes say {low:g}/s, 4 {high:g}/s", workers, config=Config(rtt=0.005, limit=int(low)))


SCENARIOS: dict[str, list[Scenario]] = {
    "equal": [Scenario("8 processes", _many(8))],
    "bulk": [Scenario("8 processes, bulk", _many(8, lane="bulk", tasks=100))],
    "kill": [Scenario("8, one killed in the middle", _many(8), kill_worker=7.0)],
    "skew": [Scenario("8, clocks ±5 s", [{"skew": 5.0 * (-1) ** n} for n in range(8)])],
    "lanes": [Scenario("4 bulk, 1 interactive", [*_many(4, lane="bulk", tasks=100), {"tasks": 0}])],
    "outage": [Scenario("4, store killed for 5 s", _many(4), kill_store=5.0, start_store=10.0, seconds=18.0)],
    "hang": [Scenario("4, store hangs for 5 s", _many(4), freeze_store=5.0, thaw_store=10.0, seconds=18.0)],
    "foreign": [
        Scenario(
            "4, and a consumer of 80/s outside the quota from 4 to 14 s",
            _many(4),
            seconds=20.0,
            config=Config(rtt=0.005, foreign_rate=80, foreign_start=4, foreign_end=14),
        )
    ],
    "many": [Scenario("16 processes", _many(16))],
    "far": [Scenario("8, RTT 50 ms, jittered", _many(8), config=Config(rtt=0.05, cv=0.3, spike_share=0.005))],
    "size": [_size(count) for count in (4, 100, 200, 300, 500)],
    "idle": [Scenario("1,000 idle clients", _many(8, clients=125, tasks=0, calls=1), seconds=25.0, measured=(13, 24))],
    "disagree": [_disagreeing(*rates) for rates in ((200, 300), (100, 200), (200, 201))],
    "away": [_away(count) for count in (30, 300)],
    "latency": [
        Scenario(f"8, store {milliseconds} ms away", _many(8), far=milliseconds / 2000) for milliseconds in (50, 200)
    ],
    "big": [
        Scenario(
            "4 processes, 20,000/s, no service",
            _many(4, tasks=500),
            seconds=10.0,
            config=Config(limit=20_000),
            direct=True,
        )
    ],
}
USUAL = ("equal", "kill", "skew", "lanes", "outage")


def measure(
    *, scenarios: tuple[str, ...] = USUAL, rounds: int = 1, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run each scenario ``rounds`` times."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in scenarios}
    for number in range(rounds):
        for name in scenarios:
            for scenario in SCENARIOS[name]:
                say(f"fleet: {scenario.title}, round {number + 1} of {rounds}")
                found[name].append(run(scenario))
    return {"scenarios": found}


def _cell(figures: dict[str, Any], name: str, form: str, factor: float = 1.0) -> str:
    value = figures.get(name)
    return "" if value is None else format(value * factor, form)


def _fairness(run: dict[str, Any]) -> str:
    return "" if "each" not in run else " / ".join(f"{count:g}" for count in run["each"])


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as two tables: the fleet's calls, and its costs."""
    runs = [run for runs in result["scenarios"].values() for run in runs]
    got = [
        [
            run["title"],
            _cell(run, "share", ".3f"),
            _cell(run, "late_share", ".3f"),
            f"{run['refused']} ({run['refused_early']})",
            f"{run['fullest']}",
            f"{run['failed']}",
            _cell(run, "spread", ".1%"),
            _fairness(run),
            _cell(run, "meanwhile", ".3f"),
            _cell(run, "after", ".3f"),
            _cell(run, "median", ".1f", 1000),
            _cell(run, "p99", ".1f", 1000),
        ]
        for run in runs
    ]
    cost = [
        [
            run["title"],
            _cell(run, "first", ".2f"),
            _cell(run, "first", ".2f", run["limit"] / max(1, run["clients"])),
            _cell(run, "scripts", ".0f"),
            _cell(run, "script_us", ".0f"),
            _cell(run, "slowest_ms", ".1f"),
            _cell(run, "store_cpu", ".2f"),
            _cell(run, "cpu", ".2f"),
            f"{run['flaps']}",
            f"{len(run['logged'])}",
        ]
        for run in runs
    ]
    header = ["of the limit", "from 5 s", "refused", "fullest s", "failed", "spread", "calls of each"]
    return [
        table(
            "FLEET: clients that share one quota, strict server, 200/s and RTT 5 ms unless said",
            ["fleet", *header, "away", "after", "wait p50", "p99"],
            got,
        ),
        table(
            "FLEET: the store and newcomers",
            [
                "fleet",
                "first call",
                "of fair",
                "scripts/s",
                "µs",
                "slowest ms",
                "store CPU",
                "CPU of all",
                "flaps",
                "logged",
            ],
            cost,
        ),
    ]


NOTES = [
    "of the limit: accepted calls of all clients over the whole run; refused: in brackets those in the first 2 s",
    "fullest s: most arrivals in any second; spread: the busiest process's lead over the least busy one",
    "calls of each: minimum, median and maximum of one client's calls",
    "away: share of the limit from 1 s after the store went until it came back; after: from 1 s after its return, or",
    "after a process was killed; wait: of the interactive process, ms",
    "first call: the slowest first call of three newcomers, s, and as a multiple of clients / limit (of fair)",
    "µs, slowest ms: of a script, by the store's own clock (which includes time in which other processes had its core)",
    "store CPU, CPU of all: cores used by the store, and by all processes of the fleet",
    "flaps: the maximum of a client's changes between sharing and its fallback",
    "logged: lines of level WARNING or above, of all processes",
]
