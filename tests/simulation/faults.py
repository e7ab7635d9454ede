"""The faults: their effects, their durations, and the violations that they excuse.

Each takes the simulation and a random source, begins at once, and returns its duration.  A fault can excuse:

* `CALM`: goodput, fairness and lanes are not checked during the fault and for `RECOVERY` seconds after it;
* `REFUSALS`: a fleet that learns may be refused, because another consumer uses a part of the limit, because processes
  without the store use their fallback shares while the others share the whole limit, or because calls of a stopped
  process come late;
* `STRICT`: a strict fleet may exceed the limit, for the same reasons, but never with ``fail_closed``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from . import service as of_service
from . import store as of_store
from .watch import CALM, PAUSED, REFUSALS, STRICT

if TYPE_CHECKING:
    from .simulation import Simulation

RECOVERY = 2.0
"""Seconds after a fault within which a fleet reaches its limit again."""
REGAIN = 15.0
"""The same after another consumer has ended: the fleet finds its rate by probing."""

Fault = Callable[["Simulation", random.Random], float]
"""A fault: begins at once, and returns its duration, seconds."""


def _excuse(sim: Simulation, seconds: float, *kinds: str, recovery: float = RECOVERY) -> None:
    now = sim.world.now
    for kind in kinds:
        sim.watch.windows.add(kind, now, now + seconds + (recovery if kind in (CALM, PAUSED) else 1.5))


def _excuse_apart(sim: Simulation, seconds: float) -> None:
    """Excuse a time in which some processes use their fallback shares while others share the whole limit."""
    kinds = () if sim.plan.terms.quota.get("fail_closed") else (REFUSALS, STRICT)
    _excuse(sim, seconds, CALM, *kinds)


def _some(sim: Simulation, dice: random.Random) -> list[of_store.StoreClient]:
    clients = [process.store for process in sim.running()]
    return [client for client in clients if dice.random() < 0.5] or clients[:1]


# The network to the store.


def slow_path(sim: Simulation, dice: random.Random) -> float:
    """Every message to the store and back takes longer, but not so long that it times out."""
    seconds, more = dice.uniform(1, 6), dice.uniform(0.005, 0.08)
    for client in _some(sim, dice):
        _during(sim, seconds, client.weather, "more", more)
    _excuse_apart(sim, seconds)
    return seconds


def late(sim: Simulation, dice: random.Random) -> float:
    """Some messages to the store or back come late, some of them after they have timed out."""
    seconds, share = dice.uniform(1, 6), dice.choice((0.02, 0.1, 0.5))
    lateness = dice.choice((0.2, 1.0, 3.0))
    for client in _some(sim, dice):
        _during(sim, seconds, client.weather, "late", share)
        client.weather.lateness = lateness
    _excuse_apart(sim, seconds + lateness)
    return seconds + lateness


def lossy(sim: Simulation, dice: random.Random) -> float:
    """Some requests or replies are lost and time out."""
    seconds, share = dice.uniform(1, 6), dice.choice((0.02, 0.1, 0.3))
    for client in _some(sim, dice):
        _during(sim, seconds, client.weather, "lost", share)
    _excuse_apart(sim, seconds)
    return seconds


def twice(sim: Simulation, dice: random.Random) -> float:
    """Some requests arrive twice."""
    seconds = dice.uniform(1, 6)
    for client in _some(sim, dice):
        _during(sim, seconds, client.weather, "twice", dice.choice((0.05, 0.5, 1.0)))
    _excuse(sim, seconds, CALM)
    return seconds


def partition(sim: Simulation, dice: random.Random) -> float:
    """Some processes cannot reach the store; their messages arrive afterwards."""
    seconds = dice.uniform(0.1, 5)
    for client in _some(sim, dice):
        _during(sim, seconds, client.weather, "cut", True)
        sim.world.after(seconds + 1e-6, client.mend)
    _excuse_apart(sim, seconds + 1.0)
    return seconds


def broken_links(sim: Simulation, dice: random.Random) -> float:
    """Connections to the store end, of some processes or of all."""
    for client in _some(sim, dice) if dice.random() < 0.5 else [process.store for process in sim.running()]:
        client.break_connections()
    _excuse_apart(sim, 0.5)
    return 0.0


# The store.


def outage(sim: Simulation, dice: random.Random) -> float:
    """The store stops and starts again: with all its data, with none, or with an older copy."""
    seconds, store = dice.uniform(0.05, 6), sim.store
    memory = dice.choice(("all", "none", "some"))
    data = None if memory == "none" else store.primary.copied() if memory == "all" else sim.saved_lately(dice)
    store.stop()
    sim.world.after(seconds, store.restart, data)
    _excuse_apart(sim, seconds + 1.0)
    return seconds


def restart(sim: Simulation, dice: random.Random) -> float:
    """The store restarts at once, without data or with an older copy."""
    sim.store.restart(dice.choice((None, sim.saved_lately(dice))))
    _excuse_apart(sim, 1.0)
    return 0.0


def failover(sim: Simulation, dice: random.Random) -> float:
    """A replica takes over without the last writes, with another clock; the old primary dies or becomes a replica."""
    seconds, store = dice.choice((0.0, dice.uniform(0.05, 5))), sim.store
    demoted = dice.random() < 0.3
    data, shift = sim.saved_lately(dice), store.primary.shift + dice.uniform(-0.5, 0.5)
    if seconds:
        store.stop()
    sim.world.after(seconds, lambda: store.fail_over(data, shift=shift, demoted=demoted and not seconds))
    _excuse_apart(sim, seconds + 1.0)
    return seconds


def clock_step(sim: Simulation, dice: random.Random) -> float:
    """The store's clock jumps by up to half a second."""
    sim.store.primary.shift += dice.uniform(-0.5, 0.5)
    _excuse(sim, 0.5, CALM)
    return 0.0


def clock_drift(sim: Simulation, dice: random.Random) -> float:
    """The store's clock gains or loses up to 300 ppm."""
    server = sim.store.primary
    before = server.speed
    server.speed = 1.0 + dice.uniform(-3e-4, 3e-4)
    # Its time continues without a jump.
    server.shift += sim.world.now * (before - server.speed)
    return 0.0


def slow_store(sim: Simulation, dice: random.Random) -> float:
    """Each script takes longer."""
    seconds = dice.uniform(0.5, 4)
    _during(sim, seconds, sim.store.primary, "slow", dice.uniform(0.0002, 0.002))
    _excuse_apart(sim, seconds)
    return seconds


def eviction(sim: Simulation, dice: random.Random) -> float:
    """The store evicts one of its keys."""
    keys = sim.store.primary.keys()
    if keys:
        sim.store.primary.evict(dice.choice(keys))
    _excuse_apart(sim, 1.0)
    return 0.0


# The processes.


def stopped(sim: Simulation, dice: random.Random) -> float:
    """A process is stopped (SIGSTOP) and continued: calls with permits may be sent late."""
    seconds = dice.uniform(0.5, 6)
    _hold(sim, dice, seconds)
    return seconds


def blocked(sim: Simulation, dice: random.Random) -> float:
    """The event loop of one or more processes is blocked."""
    seconds = dice.uniform(0.05, 2)
    for _ in range(dice.choice((1, 1, 3))):
        _hold(sim, dice, seconds)
    return seconds


def _hold(sim: Simulation, dice: random.Random, seconds: float) -> None:
    callbacks = dice.choice((0, dice.randrange(1, 400)))
    dice.choice(sim.running()).hold(seconds, callbacks, lambda: _excuse(sim, seconds, CALM, REFUSALS))


def killed(sim: Simulation, dice: random.Random) -> float:
    """A process is killed, and possibly another is started."""
    if len(sim.running()) > 1:
        process = dice.choice(sim.running())
        process.kill()
        if dice.random() < 0.7:
            sim.world.after(dice.uniform(0.0, 1.0), sim.start, process.profile)
    _excuse(sim, 1.0, CALM)
    return 0.0


def closed(sim: Simulation, dice: random.Random) -> float:
    """A process exits cleanly, and possibly another is started."""
    if len(sim.running()) > 1:
        process = dice.choice(sim.running())
        process.close()
        if dice.random() < 0.7:
            sim.world.after(dice.uniform(0.0, 1.0), sim.start, process.profile)
    _excuse(sim, 1.0, CALM)
    return 0.0


def deployed(sim: Simulation, dice: random.Random) -> float:
    """A deployment: processes exit cleanly, one after the other, and processes of another release replace them."""
    at = 0.0
    for process in sim.running():
        if dice.random() < 0.5:
            at += dice.uniform(0.0, 0.5)
            sim.world.after(at, process.close)
            profile = replace(process.profile, later=not process.profile.later)
            sim.world.after(at + dice.uniform(0.0, 0.3), sim.start, profile)
    _excuse(sim, at + 1.0, CALM)
    return at


def started(sim: Simulation, dice: random.Random) -> float:
    """Some more processes start."""
    for _ in range(dice.randrange(1, 4)):
        sim.start(dice.choice(sim.plan.profiles))
    _excuse(sim, 1.0, CALM)
    return 0.0


def other_rate(sim: Simulation, dice: random.Random) -> float:
    """A process sets a smaller rate for a while (`TIMClient.set_rate`)."""
    process, seconds = dice.choice(sim.running()), dice.uniform(1, 5)
    usual = process.profile.rate
    process.set_rate(max(1.0, round(usual * dice.uniform(0.3, 0.9))))
    sim.world.after(seconds, process.set_rate, usual)
    # The smaller rate applies for ten more seconds.
    _excuse(sim, seconds + 10.0, CALM)
    return seconds


def cancellations(sim: Simulation, dice: random.Random) -> float:
    """Many callers are cancelled at once."""
    for process in sim.running():
        if dice.random() < 0.5:
            process.cancel_callers(dice.uniform(0.2, 1.0))
    _excuse(sim, 1.0, CALM)
    return 0.0


# The service.


def foreign(sim: Simulation, dice: random.Random) -> float:
    """Another consumer uses a part of the limit."""
    seconds = dice.uniform(2, 8)
    sim.start_foreign(dice.uniform(0.1, 0.6) * sim.plan.limit, seconds, refusable=dice.random() < 0.5)
    _excuse(sim, seconds, CALM, REFUSALS, recovery=REGAIN)
    return seconds


def service_trouble(sim: Simulation, dice: random.Random) -> float:
    """Calls are lost or answered with a transient error; connections end or cannot be made."""
    seconds = dice.uniform(1, 6)
    kind = dice.choice(("lost", "dropped", "refused", "busy"))
    _during(sim, seconds, sim.service.weather, kind, dice.choice((0.01, 0.1, 0.4)))
    # A lost call holds its slot until it times out.
    _excuse(sim, seconds + 5.0, CALM)
    return seconds


def paused_service(sim: Simulation, dice: random.Random) -> float:
    """Some calls are answered with a Retry-After."""
    seconds, pause = dice.uniform(0.1, 2), dice.randrange(1, 4)
    sim.service.weather.pause = pause
    _during(sim, seconds, sim.service.weather, "paused", dice.choice((0.02, 0.2)))
    # The news of a pause may come late, with a slow call; after a pause, calls come in a burst.
    _excuse(sim, seconds + pause + 2.0, PAUSED, REFUSALS)
    return seconds + pause


def slow_service(sim: Simulation, dice: random.Random) -> float:
    """The service, or the network to it, is slower for a while."""
    seconds = dice.uniform(0.5, 5)
    _during(sim, seconds, sim.service.weather, "more", dice.uniform(0.01, 0.5))
    # Credit was earned on the faster path: late calls now coincide with calls that were sent early.
    _excuse(sim, seconds + 1.0, CALM, REFUSALS)
    return seconds


def _during(
    sim: Simulation,
    seconds: float,
    on: of_store.Weather | of_service.Weather | of_store.Server,
    name: str,
    value: float | bool,
) -> None:
    """Set an attribute for some seconds; the latest setting wins."""
    usual = type(on)().__getattribute__(name) if not isinstance(on, of_store.Server) else 50e-6
    setattr(on, name, value)

    def end() -> None:
        if getattr(on, name) == value:
            setattr(on, name, usual)

    sim.world.after(seconds, end)


FAULTS: dict[str, Fault] = {
    "the way to the store is slow": slow_path,
    "messages to the store or back are late": late,
    "messages to the store or back are lost": lossy,
    "requests to the store arrive twice": twice,
    "processes are cut off from the store": partition,
    "connections to the store end": broken_links,
    "the store is away": outage,
    "the store restarts": restart,
    "the store fails over": failover,
    "the store's clock is set": clock_step,
    "the store's clock drifts": clock_drift,
    "the store is slow": slow_store,
    "the store evicts a key": eviction,
    "a process is stopped": stopped,
    "a loop is blocked": blocked,
    "a process is killed": killed,
    "a process is closed": closed,
    "processes are started": started,
    "another release is deployed": deployed,
    "callers are cancelled": cancellations,
    "a process changes its rate": other_rate,
    "another consumer": foreign,
    "calls fail": service_trouble,
    "the service is slow": slow_service,
    "the service asks for pauses": paused_service,
}
