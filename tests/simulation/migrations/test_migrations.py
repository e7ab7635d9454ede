"""Short simulated migrations for every test run; ``python -m benchmarks simulate --migrations`` runs longer ones."""

from __future__ import annotations

import dataclasses

import pytest

from tests.simulation.replaying import replays

from .plan import End, drawn
from .simulation import simulate

SMALL = 1148
"""A seed whose file has few rows, of all kinds."""
PARTS = 2
EVERY = 17
"""The stride, in moments of a migration, between those at which a process is killed."""


@pytest.mark.simulated
@pytest.mark.parametrize("part", range(PARTS))
def test_a_migration_survives_any_ends_of_its_processes(part: int) -> None:
    for seed in range(part, 24, PARTS):
        result = simulate(seed, small=True)
        again = f"python -m benchmarks simulate --migrations --small --trace --seed {seed}"
        assert not result.violations, f"{result.violations[0]}; again by {again}"


@pytest.mark.simulated
@pytest.mark.parametrize(("how", "stream"), [("await", False), ("write", False), ("power", False), ("await", True)])
def test_a_process_may_be_killed_at_any_moment_and_so_may_the_next(how: str, stream: bool) -> None:
    """A file with few rows of all kinds; two processes are killed at the same moment, later in each iteration."""
    plan = dataclasses.replace(drawn(SMALL, stream=stream, small=True), faults=0, workers=1)
    at = 1
    while True:
        # For a shared store, the ends are dealt to the loader and to the worker.
        result = simulate(SMALL, plan=dataclasses.replace(plan, ends=(End(how, at),) * (4 if stream else 2)))
        assert not result.violations, f"{result.violations[0]}, killed at {at}"
        if not result.ended["killed"]:
            break
        at += EVERY
    assert at > 100


@pytest.mark.processes
def test_a_seed_replays_to_the_same_step_with_any_hashes_and_folders() -> None:
    program = (
        "from tests.simulation.migrations.simulation import simulate\n"
        "for seed in (3, 5, 8): print(simulate(seed, small=True).fingerprint)"
    )
    seen = replays(program)
    assert len(seen) == 1
    assert len({*next(iter(seen)).split()}) == 3
