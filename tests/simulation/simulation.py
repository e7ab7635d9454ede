"""One seed from its beginning to its end."""

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
"""Seconds after the callers have stopped within which every call has ended; more where more are waiting."""
SAVED = 0.25
"""Seconds between the copies of the store's data that a failover can bring back."""

_engine: Engine | None = None


@dataclass
class Result:
    """What a seed led to.

    Attributes:
        plan: what was drawn.
        fingerprint: a hash of every step.
        steps: events of the world.
        seconds: virtual time.
        faults: how many of each there were.
        counts: calls.
        scripts: runs of ``quota.lua``.
        taken: calls that the service took.
        processes: processes started.
        violations: what must not be.
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
    """A world with a fleet in it.

    Args:
        plan: what to build.
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
        """The processes that run and are not about to end."""
        return [process for process in self.processes if process.alive and not process.stopping]

    def start(self, profile: Profile) -> None:
        """Start a process."""
        if not self._ending:
            name = f"p{len(self.processes)}"
            self.world.note("starts", name)
            self.processes.append(Process(name, profile, self.plan.terms, self.world, self.service, self.store))

    def saved_lately(self, dice: random.Random) -> Any:
        """What the store had some time ago, at most some seconds."""
        return _engine.lua.copy(dice.choice(self._saved)) if self._saved and _engine is not None else None

    def start_foreign(self, rate: float, seconds: float, *, refusable: bool) -> None:
        """Let another consumer call for some seconds."""
        world, until = self.world, self.world.now + seconds

        def call() -> None:
            if world.now < until:
                self.service.take_foreign(refusable)
                world.after(1.0 / rate, call)

        call()

    def run(self) -> Result:
        """Let it happen."""
        world, plan = self.world, self.plan
        dice = world.dice("faults")
        for profile in plan.profiles:
            world.at(dice.uniform(0.0, 0.2), self.start, profile)
        self.watch.windows.add(CALM, 0.0, 3.0)
        self._save()
        for at in _times(dice, plan):
            world.at(at, self._befall, dice)
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

    def _befall(self, dice: random.Random) -> None:
        name = dice.choice([*FAULTS])
        self.world.note("fault", name)
        self.faults[name] += 1
        seconds = FAULTS[name](self, dice)
        self.world.note("lasts", f"{seconds:.3f}")

    def _end(self) -> None:
        """Nobody calls any more: every call must end, every process must, and nothing must be left."""
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
                watch.gone(process)
        watch.judge_refusals()


def _times(dice: random.Random, plan: Plan) -> Iterator[float]:
    """When faults begin: some together, some alone; most have ended when the callers stop."""
    at, mean, last = (1.0, 2.0, 3.0) if plan.small else (2.0, dice.choice((2.0, 6.0, 12.0)), 8.0)
    while (at := at + dice.expovariate(1 / mean)) < plan.seconds - last:
        yield at


@contextmanager
def in_silence() -> Iterator[None]:
    """Say nothing of outages; and of what the simulation leaves unfinished at its end."""
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
def unheard() -> Iterator[None]:
    """Say nothing of what coroutines do that are ended by the collector, outside of any event loop."""
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
        seed: what everything is drawn from.
        seconds: virtual time for which the callers call.
        trace: receives every step.
        small: as `drawn` takes it.
    """
    plan = drawn(seed, seconds, small=small)
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle would end what killed processes have left, at a step of its own
    gc.freeze()  # what was there before need not be looked through at the end
    try:
        with in_silence():
            simulation = Simulation(plan, trace)
            result = _run(simulation)
            with unheard():
                del simulation
                _store_link._links.clear()  # those of processes that were killed
                gc.collect()
        return result
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
