"""What importing tim_async takes over `import aiohttp`, in fresh interpreters."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.policies import available
from benchmarks.remote import fresh
from benchmarks.tables import table

LINES = {
    "aiohttp": "import aiohttp",
    "package": "import tim_async, after it",
    "client": "from tim_async import TIMClient, after it",
}


def measure(*, runs: int = 15, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Medians over `runs` interpreters."""
    if "tim_async" not in available():
        return {"runs": 0}
    say(f"startup: {runs} fresh interpreters")
    # The first one may have to compile, which happens once for each installation and not for each start.
    fresh("benchmarks.imports")
    found = [fresh("benchmarks.imports") for _ in range(runs)]
    medians = {line: median(run[line] for run in found) for line in LINES}
    return {"runs": runs, **medians, "modules": found[0]["modules"], "all": [_times(run) for run in found]}


def _times(run: dict[str, Any]) -> dict[str, float]:
    return {line: run[line] for line in LINES}


def tables(result: dict[str, Any]) -> list[str]:
    """One table."""
    rows = [[title, f"{result[line] * 1000:.1f}"] for line, title in LINES.items() if line in result]
    return [table(f"STARTUP: import times, ms (medians of {result['runs']})", ["what", "ms"], rows)]


NOTES = [
    "after it: added for somebody who has imported aiohttp already",
    "the package loads its parts when they are asked for, so the last line is what a program pays that makes calls",
]
