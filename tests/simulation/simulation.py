"""The simulation of one seed."""

from __future__ import annotations

import gc
import logging
import random
import sys
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tim_async import _store_link

from . import chance
from .faults import FAULTS
from .plan import Plan, drawn
from .process import Process, Profile
from .service import Service
from .store import Engine, Store
from .watch import CALM, Counts, Violation, Watch
from .world import Trace, World

DRAIN = 15.0
"""Seconds after the callers have stopped within which every call must end; longer queues get more."""
SAVED = 0.25
"""Seconds between copies of the store's data, which a failover can restore."""

_engine: Engine | None = None


@dataclass
class Result:
    """The result of a seed.

    Attributes:
        plan: its plan.
        fingerprint: a hash of every step.
        steps: the number of events of the world.
        seconds: the virtual time.
        faults: the number of faults of each kind.
        counts: the counts of calls.
        scripts: the number of runs of ``quota.lua``.
        taken: the number of calls that the service accepted.
        processes: the number of processes started.
        violations: the violated invariants.
    """

    plan: Plan
    fingerprint: str
    steps: int
    seconds: float
    faults: Counter[str]
    counts: Counts
    scripts: int
    taken: int
    processes: int
    violations: list[Violation] = field(default_factory=list)


class Simulation:
    """A world with a fleet.

    Args:
        plan: the plan.
        trace: receives every step.
    """

    def __init__(self, plan: Plan, trace: Trace | None = None) -> None:
        global _engine  # noqa: PLW0603 - it compiles scripts, and keeps no data
        _engine = _engine or Engine()
        self.plan = plan
        self.world = World(plan.seed, trace)
        self.watch = Watch(self.world, plan.bounds)
        self.store = Store(_engine, self.world)
        self.store.primary.listeners.append(self.watch.asked)
        self.service = Service(self.world, plan.make_window(), self.watch)
        self.processes: list[Process] = []
        self.faults: Counter[str] = Counter()
        self._saved: deque[Any] = deque(maxlen=10)
        self._ending = False

    def running(self) -> list[Process]:
        """Return the processes that run and are not stopping."""
        return [process for process in self.processes if process.alive and not process.stopping]

    def start(self, profile: Profile) -> None:
        """Start a process."""
        if not self._ending:
            name = f"p{len(self.processes)}"
            self.world.note("starts", name)
            self.processes.append(Process(name, profile, self.plan.terms, self.world, self.service, self.store))

    def saved_lately(self, dice: random.Random) -> Any:
        """Return a copy of the store's data, some seconds old at most."""
        return _engine.lua.copy(dice.choice(self._saved)) if self._saved and _engine is not None else None

    def start_foreign(self, rate: float, seconds: float, *, refusable: bool) -> None:
        """Start another consumer, which calls for some seconds."""
        world, until = self.world, self.world.now + seconds

        def call() -> None:
            if world.now < until:
                self.service.take_foreign(refusable)
                world.after(1.0 / rate, call)

        call()

    def run(self) -> Result:
        """Run the simulation."""
        world, plan = self.world, self.plan
        dice = world.dice("faults")
        for profile in plan.profiles:
            world.at(dice.uniform(0.0, 0.2), self.start, profile)
        self.watch.windows.add(CALM, 0.0, 3.0)
        self._save()
        for at in _times(dice, plan):
            world.at(at, self._inject_fault, dice)
        world.run(plan.seconds)
        self._ending = True
        self.watch.judge_windows(self.processes, plan.seconds)
        self._end()
        return Result(
            plan,
            world.fingerprint(),
            world.step,
            world.now,
            self.faults,
            self.watch.counts,
            self.store.ran,
            self.service.counts.taken,
            len(self.processes),
            self.watch.violations,
        )

    def _save(self) -> None:
        self._saved.append(self.store.primary.copied())
        if not self._ending:
            self.world.after(SAVED, self._save)

    def _inject_fault(self, dice: random.Random) -> None:
        name = dice.choice([*FAULTS])
        self.world.note("fault", name)
        self.faults[name] += 1
        seconds = FAULTS[name](self, dice)
        self.world.note("lasts", f"{seconds:.3f}")

    def _end(self) -> None:
        """Run to the end without new calls: every call and every process must end, and nothing may be left."""
        world, watch = self.world, self.watch
        for process in self.processes:
            process.stop_callers()
        until = world.now + DRAIN + 2 * len(watch.open) / self.plan.limit
        while watch.open and world.now < until:
            world.run(min(until, world.now + 0.5))
        watch.judge_open()
        for process in self.processes:
            if process.alive:
                process.close()
        world.run(world.now + 6.0)
        for process in self.processes:
            if process.alive:
                watch.violated("closing", f"{process.name} has not ended")
            elif process.closed:
                watch.exited(process)
        watch.judge_refusals()


def _times(dice: random.Random, plan: Plan) -> Iterator[float]:
    """Draw the times of faults: some coincide, some are alone; most end before the callers stop."""
    at, mean, last = (1.0, 2.0, 3.0) if plan.small else (2.0, dice.choice((2.0, 6.0, 12.0)), 8.0)
    while (at := at + dice.expovariate(1 / mean)) < plan.seconds - last:
        yield at


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Suppress log lines about outages, and warnings about objects that the simulation leaves unfinished."""
    log = logging.getLogger("tim_async")
    disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        log.disabled = disabled


@contextmanager
def ignoring_unraisable() -> Iterator[None]:
    """Suppress errors of coroutines that the garbage collector ends outside any event loop."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _run(simulation: Simulation) -> Result:
    with chance.shut(simulation.plan.seed, lambda: simulation.world.now):
        result = simulation.run()
        for process in simulation.processes:
            process.kill()
    return result


def simulate(seed: int, seconds: float = 60.0, trace: Trace | None = None, *, small: bool = False) -> Result:
    """Run one seed.

    Args:
        seed: the seed.
        seconds: the virtual time for which callers call.
        trace: receives every step.
        small: few processes and calls; see `drawn`.
    """
    plan = drawn(seed, seconds, small=small)
    collecting = gc.isenabled()
    gc.disable()  # a collection would end objects of killed processes, at a step that depends on the heap
    gc.freeze()  # so that the collection at the end skips older objects
    try:
        with quiet_logs():
            simulation = Simulation(plan, trace)
            result = _run(simulation)
            with ignoring_unraisable():
                del simulation
                _store_link._links.clear()  # the links of killed processes
                gc.collect()
        return result
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
