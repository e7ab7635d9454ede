"""The import time of tim_async beyond that of aiohttp, in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.remote import environment
from benchmarks.tables import table

PROGRAM = """
import json, sys, time

start = time.perf_counter()
import aiohttp

with_aiohttp = time.perf_counter()
before = set(sys.modules)
import tim_async

with_package = time.perf_counter()
from tim_async import TIMClient

with_client = time.perf_counter()
found = {
    "aiohttp": with_aiohttp - start,
    "package": with_package - with_aiohttp,
    "client": with_client - with_aiohttp,
    "modules": sorted(set(sys.modules) - before),
}
print(json.dumps(found))
"""

LINES = {
    "aiohttp": "import aiohttp",
    "package": "import tim_async, after it",
    "client": "from tim_async import TIMClient, after it",
}


def measure(*, runs: int = 15, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure the medians over `runs` interpreters."""
    say(f"startup: {runs} fresh interpreters")
    # The first one may compile modules, which happens once for each installation, not at each start.
    _fresh()
    found = [_fresh() for _ in range(runs)]
    medians = {line: median(run[line] for run in found) for line in LINES}
    return {"runs": runs, **medians, "modules": found[0]["modules"], "all": [_times(run) for run in found]}


def _fresh() -> dict[str, Any]:
    """Run the program in a fresh interpreter; return the seconds, and the modules that tim_async has loaded."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, check=True, env=environment())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _times(run: dict[str, Any]) -> dict[str, float]:
    return {line: run[line] for line in LINES}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table."""
    rows = [[title, f"{result[line] * 1000:.1f}"] for line, title in LINES.items()]
    return [table(f"STARTUP: import times, ms (medians of {result['runs']})", ["what", "ms"], rows)]


NOTES = [
    "after it: the additional time in a program that has imported aiohttp already",
    "the package imports its modules on first use, so the last line is the cost for a program that makes calls",
]
