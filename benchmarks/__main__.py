"""The command: `python -m benchmarks`, or one subject of it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.policies import POLICIES
from benchmarks.scenarios import SCENARIOS, USUAL

SUBJECTS = {
    "rate": "goodput and refusals of each policy on a strict server",
    "pace": "the same in virtual time: many servers and paths, alone and beside another consumer",
    "cpu": "process CPU of a call beside a bare session.post",
    "memory": "bytes of a waiting call, and growth of a long batch.map",
    "fairness": "how long an interactive call waits among bulk work",
    "lookups": "calls, time, latency and CPU of look-ups that merge themselves",
    "startup": "import time over that of aiohttp",
    "fleet": "processes that share one quota: rate, parts, waits, and a store that is killed",
    "limiters": "the same beside limits, pyrate-limiter, throttled-py and self-limiters on the same store",
    "deployments": "a fleet on single servers, Sentinel and a cluster, each with its failure",
    "simulate": "fleets in virtual time under faults, each from a seed: what must hold, and whether it did",
    "migrate": "rows/s, memory and journal of a migration, and what it keeps of the limit",
    "webapp": "what 200 users of the FastAPI example feel, below the quota and above it",
}

BOUNDED: dict[str, dict[str, Any]] = {
    "rate": {"scenarios": ("four", "sliding"), "rounds": 1},
    "pace": {"seconds": 120.0, "only": "50 ms, 80/s"},
    "cpu": {"pairs": 3},
    "memory": {"rows": 30_000},
    "fairness": {"seconds": 8.0},
    "lookups": {"seconds": 5.0, "singles": 100, "pairs": 1},
    "startup": {"runs": 7},
    "fleet": {"scenarios": ("equal", "lanes")},
    "limiters": {"seconds": 5.0},
    "deployments": {"only": "Sentinel, primary killed"},
    "simulate": {"seeds": 20},
    "migrate": {"sizes": (20_000,), "seconds": 10},
    "webapp": {"seconds": 5.0, "loops": ("asyncio",)},
}
"""What runs without a subject: a look at everything in some five minutes."""


def _parser() -> argparse.ArgumentParser:
    # --json is taken before the subject and after it, so it must not be reset by the second parser.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", metavar="FILE", default=argparse.SUPPRESS, help="write every figure as JSON; - is stdout"
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        parents=[common],
        description="Measurements of tim_async beside simpler recipes, on loopback only.",
        epilog="Without a subject: a short look at each, some five minutes.",
    )
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT")
    added = {
        name: subjects.add_parser(name, help=help_text, description=help_text, parents=[common])
        for name, help_text in SUBJECTS.items()
    }
    rate = added["rate"]
    rate.add_argument(
        "--scenario",
        dest="scenarios",
        action="append",
        choices=SCENARIOS,
        help=f"may be repeated; default: {', '.join(USUAL)}",
    )
    rate.add_argument(
        "--policy", dest="policies", action="append", choices=POLICIES, help="may be repeated; default: all"
    )
    rate.add_argument("--rounds", type=int, default=3, help="each policy in turn, so often (%(default)s)")
    rate.add_argument("--workers", type=int, default=0, help="on each endpoint; default: every call a task at once")
    added["pace"].add_argument("--seconds", type=float, default=300.0, help="virtual, of each run (%(default)s)")
    added["pace"].add_argument("--seeds", type=int, default=1, help="runs of each (%(default)s)")
    added["pace"].add_argument("--only", default="", help="paths whose name contains this")
    added["cpu"].add_argument("--pairs", type=int, default=5, help="paired runs (%(default)s)")
    added["cpu"].add_argument("--calls", type=int, default=5000, help="in each run (%(default)s)")
    memory = added["memory"]
    memory.add_argument("--rows", type=int, default=100_000, help="of batch.map (%(default)s)")
    memory.add_argument("--waiting", type=int, default=10_000, help="queued calls (%(default)s)")
    added["fairness"].add_argument("--seconds", type=float, default=15.0, help="for each (%(default)s)")
    lookups = added["lookups"]
    lookups.add_argument("--seconds", type=float, default=10.0, help="of the sustained run (%(default)s)")
    lookups.add_argument("--singles", type=int, default=200, help="look-ups alone, each beside a call (%(default)s)")
    lookups.add_argument("--pairs", type=int, default=3, help="paired runs of the CPU (%(default)s)")
    lookups.add_argument("--calls", type=int, default=2000, help="of ten, in each of those (%(default)s)")
    fleet = added["fleet"]
    fleet.add_argument(
        "--scenario",
        dest="scenarios",
        action="append",
        help="may be repeated; default: the usual five",
    )
    fleet.add_argument("--rounds", type=int, default=1, help="each scenario so often (%(default)s)")
    limiters = added["limiters"]
    limiters.add_argument(
        "--library", dest="libraries", action="append", help="may be repeated; default: all installed"
    )
    limiters.add_argument("--seconds", type=float, default=15.0, help="for each (%(default)s)")
    limiters.add_argument("--rounds", type=int, default=1, help="each library so often (%(default)s)")
    added["deployments"].add_argument("--only", default="", help="deployments whose name contains this")
    added["deployments"].add_argument("--rounds", type=int, default=1, help="each so often (%(default)s)")
    _add_simulate(added["simulate"])
    migrate = added["migrate"]
    migrate.add_argument(
        "--rows", dest="sizes", type=int, action="append", help="may be repeated; default: 100,000 and 1,000,000"
    )
    migrate.add_argument("--seconds", type=int, default=60, help="at the limit; 0 for none (%(default)s)")
    webapp = added["webapp"]
    webapp.add_argument(
        "--loop", dest="loops", action="append", choices=("asyncio", "uvloop"), help="may be repeated; default: both"
    )
    webapp.add_argument("--users", type=int, default=200, help="at a time (%(default)s)")
    webapp.add_argument("--seconds", type=float, default=20.0, help="for each load (%(default)s)")
    added["startup"].add_argument("--runs", type=int, default=15, help="fresh interpreters (%(default)s)")
    return parser


def _add_simulate(simulate: argparse.ArgumentParser) -> None:
    simulate.add_argument("--seeds", type=int, default=1000, help="how many (%(default)s)")
    simulate.add_argument("--first", type=int, default=0, help="the first of them (%(default)s)")
    simulate.add_argument("--seconds", type=float, default=60.0, help="virtual, of each (%(default)s)")
    simulate.add_argument("--processes", type=int, default=2, help="of this machine (%(default)s)")
    simulate.add_argument("--seed", type=int, help="this one alone")
    simulate.add_argument("--small", action="store_true", help="few processes and calls in each, as in the test run")
    simulate.add_argument("--trace", action="store_true", help="with --seed: print each step")
    simulate.add_argument("--mutants", action="store_true", help="put faults in by hand: is each found?")
    simulate.add_argument("--migrations", action="store_true", help="migrations instead of fleets")
    simulate.add_argument("--store", choices=("file", "stream"), help="of migrations; default: both")


def main() -> int:
    """Measure what was asked for; tables on stdout, progress on stderr."""
    settings = vars(_parser().parse_args())
    target = settings.pop("json", None)
    subject = settings.pop("subject")
    wanted = BOUNDED if subject is None else {subject: settings}
    document: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("aiohttp", "aiolimiter")},
        "results": {},
    }
    # With the JSON on stdout, the tables must not be there too.
    out = sys.stderr if target == "-" else sys.stdout
    failed = False
    for name, options in wanted.items():
        module = import_module(f"benchmarks.{name}")
        given = {key: value for key, value in options.items() if value is not None}
        measured = module.measure(**given, say=lambda text: print(text, file=sys.stderr, flush=True))
        document["results"][name] = measured
        failed = failed or (hasattr(module, "failed") and module.failed(measured))
        print("\n" + "\n\n".join([*module.tables(measured), "\n".join(module.NOTES)]), file=out, flush=True)
    if target == "-":
        json.dump(document, sys.stdout, indent=1)
        print()
    elif target:
        Path(target).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
