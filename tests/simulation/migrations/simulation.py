"""One migration from its beginning to its end."""

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
from tests.simulation.simulation import in_silence, unheard
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

LONGEST = 1800.0
"""Seconds within which a migration ends, whatever befalls it."""
MOST = 60
"""Processes that may fail in turn, for outages that last."""


@dataclass
class Result:
    """What a seed led to.

    Attributes:
        plan: what was drawn.
        fingerprint: a hash of every step.
        steps: events of the world.
        seconds: virtual time.
        faults: how many of each there were.
        ended: processes by how they ended.
        calls: attempts of rows.
        again: rows that a second process sent.
        points: changes of the disk, each before and after.
        looks: at the status.
        scripts: runs of the scripts of a shared store.
        violations: what must not be.
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
    """A place for one process at a time: what comes after the one that has ended.

    Attributes:
        role: of the processes.
        complete: whether one of them has left nothing to do.
    """

    def __init__(self, sim: Simulation, role: str, ends: list[End]) -> None:
        self._sim = sim
        self._ends = ends
        self._begun = 0
        self.role = role
        self.complete = False

    def start(self) -> None:
        """Start the next process; after those with an end of their own, as many as it takes."""
        sim = self._sim
        if self._begun > len(self._ends) + MOST:
            sim.watch.violated("end", f"{MOST} times in turn {self.role} has ended without an end: {sim.watch.ended}")
            return
        end = self._ends[self._begun] if self._begun < len(self._ends) else End()
        self._begun += 1
        name = f"{self.role}{len(sim.processes)}"
        sim.world.note("starts", name, end)
        sim.processes.append(Process(name, self.role, sim, end, self._over))

    def _over(self, process: Process) -> None:
        # All of the ends come to pass, also when there is nothing left to do.
        self.complete = process.complete and self._begun > len(self._ends)
        if not self.complete:
            self._sim.world.after(self._sim.dice.uniform(0.0, 2.0), self.start)


class Simulation:
    """A world with a migration in it.

    Args:
        plan: what to build.
        folder: for the files.
        trace: receives every step.

    Attributes:
        dice: decides when processes start, and when the status is looked at.
        begun: whether all rows were seen to be planned.
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
        """The processes that run."""
        looker = [] if self._looker is None else [self._looker]
        return [process for process in (*self.processes, *looker) if process.alive]

    def run(self) -> Result:
        """Let it happen."""
        world, plan = self.world, self.plan
        dice = world.dice("faults")
        for _ in range(plan.faults):
            world.at(dice.uniform(0.0, plan.seconds), self._befall, dice)
        if plan.stream:
            self._slots = [_Slot(self, role, ends) for role, ends in plan.dealt()]
            self._looker = Process("look", "look", self, End(), lambda _: None)
        else:
            self._slots = [_Slot(self, "run", [*plan.ends])]
            self._look()
        for slot in self._slots:
            world.at(self.dice.uniform(0.0, 1.0) if plan.stream else 0.0, slot.start)
        until = LONGEST
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
            self.watch.violated("end", f"after {self.world.now:.0f} s there is no end of {', '.join(waiting)}")
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
            self.watch.violated("status", "it cannot be read in the end")
            return
        self.watch.finished(self.service.values, status, rejected)

    def _befall(self, dice: Any) -> None:
        name = dice.choice([name for name in FAULTS if name not in (OF_FILES if self.plan.stream else OF_STREAMS)])
        self.world.note("fault", name)
        self.faults[name] += 1
        FAULTS[name](self, dice)

    def _look(self) -> None:
        """Look at the status from time to time, as another process would; that may be killed, too."""
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
            self.watch.looked(found)
        self.world.after(self.dice.expovariate(2.0), self._look)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder of the same name in each run of a seed, in memory where there is such: nothing here waits for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def _run(simulation: Simulation) -> Result:
    with (
        chance.shut(simulation.plan.seed, lambda: simulation.world.now),
        simulation.threads.simulated(),
        simulation.store.simulated(),
        unheard(),
    ):
        return simulation.run()


def _forget(simulations: list[Simulation]) -> None:
    simulations.clear()
    while gc.collect():  # what ends others as it ends
        pass


def simulate(
    seed: int, trace: Trace | None = None, *, stream: bool | None = None, small: bool = False, plan: Plan | None = None
) -> Result:
    """Run one seed.

    Args:
        seed: what everything is drawn from.
        trace: receives every step.
        stream, small: as `drawn` takes them.
        plan: this one instead.
    """
    plan = plan or drawn(seed, stream=stream, small=small)
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle would end what killed processes have left, at a step of its own
    gc.freeze()
    try:
        with in_silence(), _folder() as folder:
            simulations = [Simulation(plan, folder, trace)]
            result = _run(simulations[0])
            with unheard():
                # What killed processes have left is ended in a thread that has no event loop: in this one it would make
                # one, and begin anew there.
                thread = threading.Thread(target=_forget, args=(simulations,))
                thread.start()
                thread.join()
        return result
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
