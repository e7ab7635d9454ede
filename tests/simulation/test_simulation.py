"""Short simulations for every test run; ``python -m benchmarks simulate`` runs more and longer ones."""

from __future__ import annotations

import pytest

from .replaying import replays
from .simulation import simulate

SECONDS = 5.0
PARTS = 10


@pytest.mark.simulated
@pytest.mark.parametrize("part", range(PARTS))
def test_a_fleet_keeps_its_invariants_under_faults(part: int) -> None:
    for seed in range(part, 100, PARTS):
        result = simulate(seed, SECONDS, small=True)
        again = f"python -m benchmarks simulate --small --seconds {SECONDS:g} --trace --seed {seed}"
        assert not result.violations, f"{result.violations[0]}; again by {again}"


@pytest.mark.processes
def test_a_seed_replays_to_the_same_step_with_any_hashes_and_clocks() -> None:
    program = (
        "from tests.simulation.simulation import simulate\n"
        "for seed in (5, 14, 29): print(simulate(seed, 5.0, small=True).fingerprint)"
    )
    seen = replays(program)
    assert len(seen) == 1
    assert len({*next(iter(seen)).split()}) == 3
