"""The faults of the service, its paths, the disk and the processes; each begins at once and ends by itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tim_async.migrate._redis_link import TIMEOUT

if TYPE_CHECKING:
    from .simulation import Simulation

Fault = Callable[["Simulation", random.Random], None]


def _during(sim: Simulation, seconds: float, weather: Any, name: str, value: float) -> None:
    """Set an attribute for some seconds; two concurrent settings end together, at the later end."""
    setattr(weather, name, value)
    sim.world.after(seconds, setattr, weather, name, 0.0)


def outage(sim: Simulation, dice: random.Random) -> None:
    """The service is unavailable: no connection, no answer, or only transient errors."""
    name = dice.choice(("refused", "lost", "busy"))
    _during(sim, dice.choice((1.0, 8.0, 30.0, 30.0)), sim.service.weather, name, 1.0)


def flaky(sim: Simulation, dice: random.Random) -> None:
    """Some calls fail in various ways; some of them were executed."""
    name = dice.choice(("refused", "lost", "busy", "dropped", "paused"))
    _during(sim, dice.uniform(1.0, 10.0), sim.service.weather, name, dice.choice((0.05, 0.3)))


def slow(sim: Simulation, dice: random.Random) -> None:
    """Calls are slow, some slower than their time-out."""
    _during(sim, dice.uniform(1.0, 5.0), sim.service.weather, "more", dice.choice((0.3, 1.0, 3.0)))


def held(sim: Simulation, dice: random.Random) -> None:
    """A process is stopped or its loop is blocked for a while."""
    if sim.running:
        dice.choice(sim.running).hold(dice.choice((0.1, 1.0, 5.0, 15.0)))


def hanging(sim: Simulation, dice: random.Random) -> None:
    """The disk does not respond for a while."""
    sim.hangs_until = sim.world.now + dice.choice((0.5, 2.0, 10.0))


def _quiet(sim: Simulation, seconds: float) -> None:
    """Note that no process may be able to renew its lease for some seconds plus a time-out of the store."""
    for process in sim.running:
        process.quiet(seconds + TIMEOUT)


def broken(sim: Simulation, dice: random.Random) -> None:
    """The connections to the store end: requests may have been executed, but their replies are lost."""
    _quiet(sim, 0.0)
    for process in sim.running:
        sim.store.client_of(process.loop).break_connections()


def away(sim: Simulation, dice: random.Random) -> None:
    """The store stops, and starts again with all its data."""
    seconds, store = dice.choice((0.1, 1.0, 15.0)), sim.store.store
    _quiet(sim, seconds)
    store.stop()
    sim.world.after(seconds, lambda: store.restart(store.primary.data))


def read_only(sim: Simulation, dice: random.Random) -> None:
    """The store accepts no writes for a while, as before a switch-over; then its replica, with all data, takes over."""
    seconds, store = dice.choice((0.1, 1.0, 8.0)), sim.store.store
    _quiet(sim, seconds)
    store.primary.primary = False
    # The old primary replicates the new one: they have the same data.
    sim.world.after(seconds, lambda: store.fail_over(store.primary.data, shift=0.0, demoted=True))


def unheard(sim: Simulation, dice: random.Random) -> None:
    """Messages to the store and back are late, lost, or arrive twice."""
    seconds, name = dice.choice((1.0, 10.0)), dice.choice(("late", "lost", "twice"))
    _quiet(sim, seconds)
    for process in sim.running:
        _during(sim, seconds, sim.store.client_of(process.loop).weather, name, dice.choice((0.1, 0.5)))


def cut(sim: Simulation, dice: random.Random) -> None:
    """A process cannot reach the store for a while."""
    if sim.running:
        process, seconds = dice.choice(sim.running), dice.choice((0.5, 4.0, 20.0))
        process.quiet(seconds + TIMEOUT)
        client = sim.store.client_of(process.loop)
        _during(sim, seconds, client.weather, "cut", True)
        sim.world.after(seconds + 1e-6, client.mend)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault for fault in (outage, flaky, slow, held, hanging, broken, away, read_only, unheard, cut)
}
OF_FILES = ("hanging",)
OF_STREAMS = ("broken", "away", "read_only", "unheard", "cut")
"""The faults that apply to only one kind of store."""
