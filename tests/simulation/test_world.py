"""The virtual time of the simulation."""

from __future__ import annotations

import math

import pytest

from .world import ProcessLoop, World


@pytest.mark.parametrize("offset", [0.0, 1e5, 2e5, 3e5, 1e6])
def test_a_timer_that_is_almost_due_does_not_stop_the_time(offset: float) -> None:
    """Almost by the smallest steps of a float: some timers are due now, the others after a millisecond."""
    world = World(0)
    loop = ProcessLoop(world, offset, 1.0 + 1e-4, lambda: pytest.fail("it spins"))  # type: ignore[abstract]
    rung: list[float] = []
    world.run(0.25)
    for steps in range(80):
        when = loop.time() + steps * math.ulp(loop.time())
        loop.arrive(loop.call_at, when, lambda: rung.append(world.now))
        world.run(world.now + 0.01)
    assert len(rung) == 80
    assert loop.timers == 0


def test_a_time_that_stands_still_is_a_failure() -> None:
    world = World(0)

    def again() -> None:
        world.after(0.0, again)

    again()
    with pytest.raises(RuntimeError, match="stands still"):
        world.run(1.0)
