"""Many simulated fleets or migrations, each from a seed: totals, and violated invariants.

`tests.simulation` and `tests.simulation.migrations` describe the simulations.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.tables import table
from tests.simulation.mutants import MUTANTS, OF_MIGRATIONS

MUTANT_SEEDS = 50
"""Seeds within which each mutant must be found."""
_TOTALS = {
    False: ("processes", "calls", "attempts", "scripts", "steps", "refused", "refused_excused"),
    True: ("rows", "processes", "calls", "again", "points", "scripts", "looks", "steps"),
}
"""The figures to add up, of fleets (False) and of migrations (True)."""


def measure(
    *,
    seeds: int = 1000,
    seconds: float = 60.0,
    first: int = 0,
    seed: int | None = None,
    trace: bool = False,
    processes: int = 2,
    mutants: bool = False,
    small: bool = False,
    migrations: bool = False,
    store: str | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run seeds, one seed, or the mutants.

    Args:
        seeds: the number of seeds.
        seconds: the virtual time of each; a migration runs to its end.
        first: the first seed.
        seed: run only this seed.
        trace: print each step of ``seed``.
        processes: the number of processes that run seeds.
        mutants: run mutants of the code instead, each until it is found.
        small: few processes and calls in each, and early faults.
        migrations: simulate migrations instead of fleets.
        store: the store of the migrations, "file" or "stream"; None for both.
        say: receives the progress.
    """
    task = {"seconds": seconds, "small": small, "migrations": migrations, "store": store}
    if seed is not None:
        from tests.simulation import worker  # imports the product

        show = _show if trace else None
        if migrations:
            found = [worker.summary_of_migration(seed, show, small=small, store=store)]
        else:
            found = [worker.summary(seed, seconds, show, small=small)]
    elif mutants:
        return {"seconds": seconds, "mutants": _mutants(task, first, processes, say)}
    else:
        found = []
        began = time.monotonic()
        for result in _many(range(first, first + seeds), processes, task):
            found.append(result)
            for violation in result["violations"]:
                say(f"simulate: seed {result['seed']}: {violation['invariant']}: {violation['text']}")
            if len(found) % 50 == 0:
                say(f"simulate: {len(found)} of {seeds} seeds, {time.monotonic() - began:.0f} s")
    return {"seconds": seconds, "migrations": migrations, **_sums(found, _TOTALS[migrations])}


def _many(seeds: range, processes: int, task: dict[str, Any], mutant: str | None = None) -> Iterator[dict[str, Any]]:
    """Run seeds in several processes; yield results as they complete."""
    lines: queue.Queue[str | None] = queue.Queue()
    workers = []
    for number in range(min(processes, len(seeds))):
        part = {**task, "seeds": [*seeds[number::processes]], "mutant": mutant}
        # In separate processes, because a mutant must be in place before the code is imported.
        command = [sys.executable, "-m", "tests.simulation.worker", json.dumps(part)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        workers.append(worker)
        threading.Thread(target=_read, args=(worker, lines), daemon=True).start()
    try:
        running = len(workers)
        while running:
            line = lines.get()
            if line is None:
                running -= 1
            else:
                yield json.loads(line)
        for worker in workers:
            if worker.wait():
                raise RuntimeError(f"a worker has failed with {worker.returncode}")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _read(worker: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        lines.put(line)
    lines.put(None)


def _show(step: int, at: float, text: str) -> None:
    sys.stdout.write(f"{step:8} {at:12.6f}  {text}\n")


def _mutants(task: dict[str, Any], first: int, processes: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    for name in OF_MIGRATIONS if task["migrations"] else MUTANTS:
        tried = 0
        found: dict[str, Any] | None = None
        for result in _many(range(first, first + MUTANT_SEEDS), processes, task, mutant=name):
            tried += 1
            if result["violations"]:
                found = result
                break
        say(f"simulate: {name}: {'not found' if found is None else 'found'} in {tried} seeds")
        rows.append(
            {
                "mutant": name,
                "tried": tried,
                "seed": None if found is None else found["seed"],
                "invariant": "" if found is None else found["violations"][0]["invariant"],
            }
        )
    return rows


def _sums(found: list[dict[str, Any]], totals: tuple[str, ...]) -> dict[str, Any]:
    found = sorted(found, key=lambda result: int(result["seed"]))
    faults: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for result in found:
        faults.update(result["faults"])
        ended.update(result["ended"])
    learning = [result for result in found if not result.get("strict", True)]
    return {
        "seeds": len(found),
        "hours": sum(result["seconds"] for result in found) / 3600,
        "totals": {name: sum(result[name] for result in found) for name in totals},
        "learning": {name: sum(result[name] for result in learning) for name in ("attempts", "refused")},
        "faults": dict(faults.most_common()),
        "ended": dict(ended.most_common()),
        "fingerprints": {result["seed"]: result["fingerprint"] for result in found[:3]},
        "violations": [
            {"seed": result["seed"], "plan": result["plan"], **violation}
            for result in found
            for violation in result["violations"]
        ],
    }


WORDS = {
    "refused_excused": "refused, excused",
    "again": "rows sent by a second process",
    "points": "disk operations that can be the last",
    "looks": "readings of the status",
}
"""The labels of some totals."""


def failed(result: dict[str, Any]) -> bool:
    """Whether an invariant was violated, or a mutant was not found."""
    return bool(result.get("violations")) or any(row["seed"] is None for row in result.get("mutants", ()))


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as tables: totals, faults, ends of calls, and violations."""
    if "mutants" in result:
        rows = [
            [row["mutant"], "-" if row["seed"] is None else str(row["seed"]), str(row["tried"]), row["invariant"]]
            for row in result["mutants"]
        ]
        return [table("MUTANTS", ["mutant", "found by seed", "seeds tried", "invariant"], rows)]
    totals, learning = result["totals"], result["learning"]
    figures = [
        ["seeds", f"{result['seeds']:,}"],
        ["virtual hours", f"{result['hours']:.1f}"],
        *([WORDS.get(name, name), f"{value:,}"] for name, value in totals.items()),
    ]
    if not result["migrations"]:
        refused = 1e4 * learning["refused"] / max(1, learning["attempts"])
        figures.append(["refused in 10,000 of a learning fleet", f"{refused:.2f}"])
    ended = "Ends of processes" if result["migrations"] else "Ends of calls"
    shown = [
        table("SIMULATION", ["total", ""], figures),
        table("Faults", ["fault", "times"], [[name, f"{count:,}"] for name, count in result["faults"].items()]),
        table(ended, ["end", "times"], [[name, f"{count:,}"] for name, count in result["ended"].items()]),
    ]
    if result["violations"]:
        rows = [
            [v["invariant"], str(v["seed"]), str(v["step"]), f"{v['at']:.3f}", v["text"]] for v in result["violations"]
        ]
        shown.append(table("VIOLATIONS", ["invariant", "seed", "step", "at, s", "seen"], rows))
    else:
        shown.append("No violation.")
    if len(result["fingerprints"]) < 3:
        shown.append(
            "\n".join(f"fingerprint of seed {seed}: {hash_}" for seed, hash_ in result["fingerprints"].items())
        )
    return shown


NOTES = [
    "refused, excused: within the windows that a fault declares; see tests/simulation/faults.py",
    "to trace a seed: python -m benchmarks simulate --seed N --trace, with the same other options",
]
