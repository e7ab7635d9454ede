"""A process that runs seeds, and writes a line of JSON for each."""

from __future__ import annotations

import json
import sys
from typing import Any

from . import mutants
from .world import Trace


def summary(seed: int, seconds: float, trace: Trace | None = None, *, small: bool = False) -> dict[str, Any]:
    """Run a seed and return its summary."""
    from .simulation import simulate  # it imports the product, so the mutant must be applied before

    result = simulate(seed, seconds, trace, small=small)
    counts = result.counts
    return {
        "seed": seed,
        "plan": str(result.plan),
        "fingerprint": result.fingerprint,
        "steps": result.steps,
        "seconds": result.seconds,
        "faults": dict(result.faults),
        "calls": counts.calls,
        "attempts": counts.attempts,
        "ended": dict(counts.ended),
        "refused": counts.refused,
        "refused_excused": counts.refused_excused,
        "strict": result.plan.terms.strict,
        "scripts": result.scripts,
        "processes": result.processes,
        "violations": [violation.__dict__ for violation in result.violations],
    }


def summary_of_migration(
    seed: int, trace: Trace | None = None, *, small: bool = False, store: str | None = None
) -> dict[str, Any]:
    """Run a seed of migrations and return its summary."""
    from .migrations.simulation import simulate

    result = simulate(seed, trace, small=small, stream=None if store is None else store == "stream")
    return {
        "seed": seed,
        "plan": str(result.plan),
        "fingerprint": result.fingerprint,
        "steps": result.steps,
        "seconds": result.seconds,
        "faults": dict(result.faults),
        "ended": dict(result.ended),
        "processes": sum(result.ended.values()),
        "rows": len(result.plan.lines),
        "calls": result.calls,
        "again": result.again,
        "points": result.points,
        "looks": result.looks,
        "scripts": result.scripts,
        "violations": [violation.__dict__ for violation in result.violations],
    }


def main() -> None:
    """Run the task in the command-line argument."""
    task = json.loads(sys.argv[1])
    mutants.apply(task["mutant"])
    for seed in task["seeds"]:
        if task["migrations"]:
            found = summary_of_migration(seed, small=task["small"], store=task["store"])
        else:
            found = summary(seed, task["seconds"], small=task["small"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
