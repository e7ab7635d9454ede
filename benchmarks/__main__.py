"""The command `python -m benchmarks [SUBJECT]`."""

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
from benchmarks.rate import SCENARIOS, USUAL

SUBJECTS = {
    "rate": "goodput and refusals of each policy on a strict server",
    "pace": "the same in virtual time: many servers and paths, alone and beside another consumer",
    "cpu": "process CPU of a call beside a bare session.post",
    "memory": "bytes of a waiting call, and growth of a long batch.map",
    "fairness": "the wait of an interactive call among bulk work",
    "lookups": "calls, time, latency and CPU of merged look-ups",
    "startup": "import time beyond that of aiohttp",
    "fleet": "processes that share one quota: rate, shares, waits, and a store that is killed",
    "limiters": "the same, compared with limits, pyrate-limiter, throttled-py and self-limiters on the same store",
    "deployments": "a fleet on single servers, Sentinel and a cluster, each with its failure",
    "simulate": "fleets in virtual time under faults, each from a seed: checks of the invariants",
    "migrate": "rows/s, memory and journal of a migration, and its share of the limit",
    "webapp": "response times of the FastAPI example for 200 users, below the quota and above it",
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
"""The options of a run without a subject: a short run of each, about five minutes in all."""


def _parser() -> argparse.ArgumentParser:
    # --json may come before or after the subject, so the subject's parser must not reset it to a default.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", metavar="FILE", default=argparse.SUPPRESS, help="write all figures as JSON; - for stdout"
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        parents=[common],
        description="Benchmarks of tim_async and of simpler recipes, on loopback only.",
        epilog="Without a subject: a short run of each, about five minutes in all.",
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
    rate.add_argument("--rounds", type=int, default=3, help="runs of each policy, in turn (%(default)s)")
    rate.add_argument("--workers", type=int, default=0, help="tasks for each endpoint; default: a task for each call")
    added["pace"].add_argument("--seconds", type=float, default=300.0, help="virtual time of a run (%(default)s)")
    added["pace"].add_argument("--seeds", type=int, default=1, help="runs of each path (%(default)s)")
    added["pace"].add_argument("--only", default="", help="only paths whose names contain this")
    added["cpu"].add_argument("--pairs", type=int, default=5, help="paired runs (%(default)s)")
    added["cpu"].add_argument("--calls", type=int, default=5000, help="calls in a run (%(default)s)")
    memory = added["memory"]
    memory.add_argument("--rows", type=int, default=100_000, help="rows of batch.map (%(default)s)")
    memory.add_argument("--waiting", type=int, default=10_000, help="queued calls (%(default)s)")
    added["fairness"].add_argument("--seconds", type=float, default=15.0, help="time for each policy (%(default)s)")
    lookups = added["lookups"]
    lookups.add_argument("--seconds", type=float, default=10.0, help="time of the sustained run (%(default)s)")
    lookups.add_argument(
        "--singles", type=int, default=200, help="lone look-ups, each paired with a call (%(default)s)"
    )
    lookups.add_argument("--pairs", type=int, default=3, help="paired CPU runs (%(default)s)")
    lookups.add_argument("--calls", type=int, default=2000, help="calls of ten in a CPU run (%(default)s)")
    fleet = added["fleet"]
    fleet.add_argument(
        "--scenario",
        dest="scenarios",
        action="append",
        help="may be repeated; default: the usual five",
    )
    fleet.add_argument("--rounds", type=int, default=1, help="runs of each scenario (%(default)s)")
    limiters = added["limiters"]
    limiters.add_argument(
        "--library", dest="libraries", action="append", help="may be repeated; default: all installed"
    )
    limiters.add_argument("--seconds", type=float, default=15.0, help="time for each library (%(default)s)")
    limiters.add_argument("--rounds", type=int, default=1, help="runs of each library (%(default)s)")
    added["deployments"].add_argument("--only", default="", help="only deployments whose names contain this")
    added["deployments"].add_argument("--rounds", type=int, default=1, help="runs of each deployment (%(default)s)")
    _add_simulate(added["simulate"])
    migrate = added["migrate"]
    migrate.add_argument(
        "--rows", dest="sizes", type=int, action="append", help="may be repeated; default: 100,000 and 1,000,000"
    )
    migrate.add_argument("--seconds", type=int, default=60, help="time at the limit; 0 for none (%(default)s)")
    webapp = added["webapp"]
    webapp.add_argument(
        "--loop", dest="loops", action="append", choices=("asyncio", "uvloop"), help="may be repeated; default: both"
    )
    webapp.add_argument("--users", type=int, default=200, help="concurrent users (%(default)s)")
    webapp.add_argument("--seconds", type=float, default=20.0, help="time for each load (%(default)s)")
    added["startup"].add_argument("--runs", type=int, default=15, help="fresh interpreters (%(default)s)")
    return parser


def _add_simulate(simulate: argparse.ArgumentParser) -> None:
    simulate.add_argument("--seeds", type=int, default=1000, help="number of seeds (%(default)s)")
    simulate.add_argument("--first", type=int, default=0, help="first seed (%(default)s)")
    simulate.add_argument("--seconds", type=float, default=60.0, help="virtual time of a seed (%(default)s)")
    simulate.add_argument("--processes", type=int, default=2, help="processes that run seeds (%(default)s)")
    simulate.add_argument("--seed", type=int, help="run only this seed")
    simulate.add_argument("--small", action="store_true", help="few processes and calls for each seed, as in the tests")
    simulate.add_argument("--trace", action="store_true", help="with --seed: print each step")
    simulate.add_argument("--mutants", action="store_true", help="check that known mutants of the code are found")
    simulate.add_argument("--migrations", action="store_true", help="simulate migrations instead of fleets")
    simulate.add_argument("--store", choices=("file", "stream"), help="store of the migrations; default: both")


def main() -> int:
    """Run the chosen benchmarks; tables go to stdout, progress to stderr."""
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
    # With the JSON on stdout, the tables go elsewhere.
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
