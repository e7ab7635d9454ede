"""The simulation of one migration."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import chance
from tests.simulation.simulation import ignoring_unraisable, quiet_logs
from tests.simulation.watch import Violation
from tests.simulation.world import Trace, World
from tim_async.emulator._windows import Window

from .disk import Disk, Killed
from .faults import FAULTS, OF_FILES, OF_STREAMS
from .file_store import FileStore
from .plan import End, Plan, drawn
from .process import Process
from .service import Service
from .stream_store import StreamStore
from .threads import Threads
from .watch import Watch

MAX_SECONDS = 1800.0
"""Seconds within which a migration must end, under any faults."""
MAX_RESTARTS = 60
"""The number of processes that may fail in turn, in long outages."""


@dataclass
class Result:
    """The result of a seed.

    Attributes:
        plan: its plan.
        fingerprint: a hash of every step.
        steps: the number of events of the world.
        seconds: the virtual time.
        faults: the number of faults of each kind.
        ended: the number of processes by their ends.
        calls: the number of attempts for rows.
        again: the number of rows that a second process sent.
        points: the number of points of the disk, two for each change.
        looks: the number of readings of the status.
        scripts: the number of script runs of a shared store.
        violations: the violated invariants.
    """

    plan: Plan
    fingerprint: str
    steps: int
    seconds: float
    faults: Counter[str]
    ended: Counter[str]
    calls: int
    again: int
    points: int
    looks: int
    scripts: int
    violations: list[Violation] = field(default_factory=list)


class _Slot:
    """A sequence of processes, each of which replaces the one that has ended.

    Attributes:
        role: the role of its processes.
        complete: whether nothing is left to do for the role.
    """

    def __init__(self, sim: Simulation, role: str, ends: list[End]) -> None:
        self._sim = sim
        self._ends = ends
        self._begun = 0
        self.role = role
        self.complete = False

    def start(self) -> None:
        """Start the next process; after all planned ends, further processes until the work is complete."""
        sim = self._sim
        if self._begun > len(self._ends) + MAX_RESTARTS:
            sim.watch.violated("end", f"{self.role} is incomplete after {MAX_RESTARTS} restarts: {sim.watch.ended}")
            return
        end = self._ends[self._begun] if self._begun < len(self._ends) else End()
        self._begun += 1
        name = f"{self.role}{len(sim.processes)}"
        sim.world.note("starts", name, end)
        sim.processes.append(Process(name, self.role, sim, end, self._over))

    def _over(self, process: Process) -> None:
        # All planned ends happen, even if nothing is left to do.
        self.complete = process.complete and self._begun > len(self._ends)
        if not self.complete:
            self._sim.world.after(self._sim.dice.uniform(0.0, 2.0), self.start)


class Simulation:
    """A world with a migration.

    Args:
        plan: the plan.
        folder: the folder for the files.
        trace: receives every step.

    Attributes:
        dice: decides when processes start and when the status is read.
        begun: whether all rows are known to be planned.
        hangs_until: the world's time until which the disk does not respond.
    """

    def __init__(self, plan: Plan, folder: Path, trace: Trace | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.world = World(plan.seed, trace)
        self.source = folder / "rows.csv"
        self.source.write_text(plan.text, encoding="utf-8")
        self.disk = Disk(folder, self.world.dice("disk"), self.world.note)
        self.threads = Threads(self.world)
        self.store: Any = StreamStore(self) if plan.stream else FileStore(self)
        self.watch = Watch(self.world, plan, self.store.states)
        self.service = Service(self.world, Window("sliding", int(plan.rate) * plan.workers), self.watch)
        self.processes: list[Process] = []
        self.faults: Counter[str] = Counter()
        self.begun = False
        self.hangs_until = 0.0
        self.dice = self.world.dice("simulation")
        self._slots: list[_Slot] = []
        self._looker: Process | None = None

    @property
    def running(self) -> list[Process]:
        """Return the running processes."""
        looker = [] if self._looker is None else [self._looker]
        return [process for process in (*self.processes, *looker) if process.alive]

    def run(self) -> Result:
        """Run the simulation."""
        world, plan = self.world, self.plan
        dice = world.dice("faults")
        for _ in range(plan.faults):
            world.at(dice.uniform(0.0, plan.seconds), self._inject_fault, dice)
        if plan.stream:
            self._slots = [_Slot(self, role, ends) for role, ends in plan.dealt()]
            self._looker = Process("look", "look", self, End(), lambda _: None)
        else:
            self._slots = [_Slot(self, "run", [*plan.ends])]
            self._look()
        for slot in self._slots:
            world.at(self.dice.uniform(0.0, 1.0) if plan.stream else 0.0, slot.start)
        until = MAX_SECONDS
        while not all(slot.complete for slot in self._slots) and not self.watch.violations and world.now < until:
            world.run(world.now + 0.5)
        if not self.watch.violations:
            self._finish()
        for process in self.running:
            process.kill()
        return Result(
            plan,
            world.fingerprint(),
            world.step,
            world.now,
            self.faults,
            self.watch.ended,
            self.watch.calls,
            self.watch.again,
            self.disk.points,
            self.watch.looks,
            self.store.scripts,
            self.watch.violations,
        )

    def _finish(self) -> None:
        waiting = [slot.role for slot in self._slots if not slot.complete]
        if waiting:
            self.watch.violated("end", f"incomplete after {self.world.now:.0f} s: {', '.join(waiting)}")
            return
        if not self.plan.stream:
            rejected = {path.name: path.read_text() for path in sorted(self.folder.glob("rejected*"))}
            status = self.store.look()
        else:
            assert self._looker is not None
            self._looker.last_look()
            self.world.run(self.world.now + 60.0)
            status = self._looker.status
            text = "".join(f"{json.dumps(problem.to_document())}\n" for problem in self._looker.problems)
            rejected = {"rejected.jsonl": text} if text else {}
        if status is None:
            self.watch.violated("status", "it cannot be read at the end")
            return
        self.watch.finished(self.service.values, status, rejected)

    def _inject_fault(self, dice: Any) -> None:
        name = dice.choice([name for name in FAULTS if name not in (OF_FILES if self.plan.stream else OF_STREAMS)])
        self.world.note("fault", name)
        self.faults[name] += 1
        FAULTS[name](self, dice)

    def _look(self) -> None:
        """Read the status from time to time, as another process would, which may be killed, too."""
        disk = self.disk
        alone = not self.running and disk.kill_at == 0 and self.dice.random() < 0.5
        if alone:
            disk.kill_at, disk.power = disk.points + self.dice.randint(1, 10), self.dice.random() < 0.5
            disk.counting = True
        try:
            found = self.store.look()
        except Killed:
            found = None
        if alone:
            disk.kill_at, disk.counting = 0, False
            if disk.died is not None:
                self.store.released(None)
                disk.recover()
        if found is not None:
            self.begun = self.begun or found.planned
            self.watch.status_read(found)
        self.world.after(self.dice.expovariate(2.0), self._look)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder with the same name in each run of a seed, in memory if possible, as nothing needs a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def _run(simulation: Simulation) -> Result:
    with (
        chance.shut(simulation.plan.seed, lambda: simulation.world.now),
        simulation.threads.simulated(),
        simulation.store.simulated(),
        ignoring_unraisable(),
    ):
        return simulation.run()


def _forget(simulations: list[Simulation]) -> None:
    simulations.clear()
    while gc.collect():  # repeated, because finalizers create garbage
        pass


def simulate(
    seed: int, trace: Trace | None = None, *, stream: bool | None = None, small: bool = False, plan: Plan | None = None
) -> Result:
    """Run one seed.

    Args:
        seed: the seed.
        trace: receives every step.
        stream, small: the arguments of `drawn`.
        plan: a plan to use instead.
    """
    plan = plan or drawn(seed, stream=stream, small=small)
    collecting = gc.isenabled()
    gc.disable()  # a collection would end objects of killed processes, at a step that depends on the heap
    gc.freeze()
    try:
        with quiet_logs(), _folder() as folder:
            simulations = [Simulation(plan, folder, trace)]
            result = _run(simulations[0])
            with ignoring_unraisable():
                # Objects of killed processes are collected in a thread without an event loop: in this thread they would
                # create a loop and start again there.
                thread = threading.Thread(target=_forget, args=(simulations,))
                thread.start()
                thread.join()
        return result
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
