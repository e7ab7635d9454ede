"""A process of a migration: the product's client and engine, in an event loop and with threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from tests.simulation.service import Wire
from tests.simulation.world import ProcessLoop
from tim_async import TIMClient
from tim_async.errors import TIMError
from tim_async.migrate import Finished, MigrateError, MigrateOptions, Status
from tim_async.migrate._store import Calls, Exchange, Outcome, Problem
from tim_async.migrate.errors import StoreAway
from tim_async.migrate.streams import Loaded, StoreError
from tim_async.retrying import RetryPolicy

from .plan import End

if TYPE_CHECKING:
    from .simulation import Simulation

APP = 1400000000
METHOD = "set_unread_msg_num"
TIMEOUT = 4.0
"""The time-out of one attempt, seconds."""
RETRY = RetryPolicy(attempts=5, total=8.0)


class Process:
    """One process.

    Args:
        name: its name, unique in the world.
        sim: the simulation.
        role: "run" for a whole migration, "load" and "work" for its parts, "look" for a reader of the status.
        end: its planned end.
        over: called once it has ended.

    Attributes:
        claims: for each line that it has claimed, whether it still holds the row.
        answered_lines: the lines with an answer of the service.
        failed: whether an exchange failed.
        alive: whether it runs.
        killed: whether it was killed.
        in_order: whether it ended by itself and could write until then.
        complete: whether nothing is left to do for its role.
        status, problems: the last status and problems that it has read.
    """

    def __init__(self, name: str, role: str, sim: Simulation, end: End, over: Callable[[Process], None]) -> None:
        self.name = name
        self.role = role
        self._over = over
        self.sim = sim
        self.world = sim.world
        self.end = end
        self.dice = sim.world.dice(f"process {name}")
        self.claims: dict[int, bool] = {}
        self.answered_lines: set[int] = set()
        self.failed = False
        self._silent_until = 0.0
        self.alive = True
        self.killed = self.in_order = False
        self.complete = False
        self.status: Status | None = None
        self.problems: list[Problem] = []
        self._leaves = False
        self._stop: asyncio.Event | None = None
        self._task: asyncio.Task[str] | None = None
        self.loop = ProcessLoop(  # type: ignore[abstract]  # without sockets, threads and signals
            sim.world, 1000.0, 1.0, lambda: sim.watch.violated("spins", name)
        )
        sim.threads.add(self)
        self.wire = Wire(sim.service, self, sim.plan.to_service)
        self.client: TIMClient | None = None
        self.store: Any = None
        self.loop.begin(self._main())
        self._disk = sim.disk
        self._disk.kill_at = self._disk.fail_at = 0
        self._answers = end.answers
        if not end.answers:
            self._prepare_end(end)

    # Its end

    def _prepare_end(self, end: End) -> None:
        calls: dict[str, Callable[[], object]] = {
            "await": self.kill,
            "power": self.kill,
            "stop": self._interrupt,
            "cancel": self._interrupt,
            "leave": self._interrupt,
        }
        disk = self._disk
        disk.power = end.how == "power"
        if end.how == "write" or (end.how == "power" and self.dice.random() < 0.8):
            disk.kill_at = disk.points + end.at
        elif end.how in ("full", "broken"):
            disk.fail_at = disk.points + end.at
            disk.full = end.how == "full"
        elif end.how in calls:
            self.loop.hold(0.0, end.at, calls[end.how])

    def answered(self, line: int) -> None:
        """Note the service's answer to a row."""
        self.answered_lines.add(line)
        if self._answers:
            self._answers -= 1
            if not self._answers:
                self._prepare_end(self.end)

    def _interrupt(self) -> None:
        self.world.note("end", self.name, self.end.how)
        self.loop.arrive(self._interrupted)

    def _interrupted(self) -> None:
        match self.end.how:
            case "leave":
                self._leaves = True
            case "stop" if self._stop is not None:
                self._stop.set()
            case "cancel" if self._task is not None:
                self._task.cancel()

    def hold(self, seconds: float) -> None:
        """Stop or block the process for some seconds."""
        self.quiet(seconds)
        self.loop.hold(seconds, self.dice.randint(0, 20), lambda: self.world.note("held", self.name, seconds))

    def quiet(self, seconds: float) -> None:
        """Note that it may be unable to renew its lease for some seconds."""
        self._silent_until = max(self._silent_until, self.world.now + seconds + self.sim.plan.lease + 2 * TIMEOUT)

    @property
    def silent(self) -> bool:
        """Whether it may have lost its lease recently."""
        return self.world.now < self._silent_until

    def kill(self) -> None:
        """Kill it as by SIGKILL."""
        if not self.alive:
            return
        if self.sim.disk.died is None:
            self.sim.disk.die()
        self.dead()
        self.sim.store.released(self)
        self.sim.disk.recover()
        self.wire.vanish()
        self.sim.watch.over(self, "killed")
        self._over(self)

    def dead(self) -> None:
        """Stop everything, without any cleanup of its memory."""
        self.killed, self.alive = True, False
        self.kept = [*self.loop._ready, *self.loop._arrived, *self.loop._timers]
        self.loop.kill()
        if self.client is not None:
            self.client._caller._home = None  # otherwise its deletion would warn that it was not closed

    def _ended(self, how: str, *, in_order: bool) -> None:
        self.alive, self.in_order = False, in_order
        self.loop.kill()
        disk, store = self.sim.disk, self.sim.store
        disk.kill_at = disk.fail_at = 0
        if store.holds(self):  # a thread is waiting for the disk; the process ends without it
            disk.die()
            store.released(self)
            disk.recover()
        self.sim.watch.over(self, how)
        self._over(self)

    # The role "look"

    def last_look(self) -> None:
        """Read the status and the problems once more, and end."""
        if self._stop is not None:
            self.loop.arrive(self._stop.set)

    async def _look(self) -> None:
        """Read the status from time to time; an unreachable store is no failure of it."""
        assert self._stop is not None
        store = self.sim.store
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.dice.expovariate(2.0)):
                    await self._stop.wait()
            begun = self.sim.begun
            try:
                self.sim.watch.status_read(await store.look())
            except StoreError as error:
                if begun and not isinstance(error, StoreAway):
                    self.sim.watch.violated("status", str(error))
        while self.status is None:
            with contextlib.suppress(StoreAway):
                self.problems = await store.problems()
                self.status = await store.look()
        self.alive = False

    # Its threads

    def latency(self) -> float:
        """Return the time of a function that begins now, seconds."""
        return max(0.0, self.sim.hangs_until - self.world.now) + self.dice.expovariate(1 / self.sim.plan.disk)

    def blocks(self, function: Callable[[], object]) -> None:
        """Run a function in a thread."""
        disk = self.sim.disk
        disk.dying, disk.counting = self.dead, True
        function()
        disk.dying, disk.counting = _nothing, False
        if disk.died is not None:
            self.alive = True
            self.kill()

    # Its work

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        if self.role == "look":
            await self._look()
            return
        plan = self.sim.plan
        client = TIMClient(
            sdk_app_id=APP,
            secret_key="5" * 64,
            base_url="http://127.0.0.1:1",
            rates={METHOD: plan.rate},
            timeout=TIMEOUT,
            retry=RETRY,
        )
        client._caller._transport = cast("Any", self.wire)
        self.client = client
        await client.__aenter__()  # not by `async with`, because a killed process closes nothing
        self._task = asyncio.ensure_future(self._migrate(client))
        in_order = False
        try:
            how = await self._task
            in_order = True
        except asyncio.CancelledError:
            how, in_order = "cancelled", True
        except (MigrateError, OSError) as error:
            how = type(error).__name__
            self.world.note("error", self.name, str(error).replace(str(self.sim.folder), ""))
        except TIMError as error:
            how = type(error).__name__
            self.sim.watch.violated("error", f"{self.name} ended by {error!r}")
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self.sim.watch.violated("foreign error", f"{self.name} ended by {error!r}")
            raise
        await client.aclose()
        self._ended(how, in_order=in_order and not self.failed)

    async def _migrate(self, client: TIMClient) -> str:
        plan, store = self.sim.plan, self.sim.store
        self.store = store.make(self)
        options = MigrateOptions(
            concurrency=plan.concurrency, group_check=plan.group_check, rate=plan.rate, interval=0.1
        )
        how = "left"
        async with contextlib.aclosing(store.run(self, client, options, self._stop)) as events:
            async for event in events:
                if self._leaves:
                    return "left"
                if isinstance(event, Loaded):
                    how, self.complete = "loaded" if event.complete else "interrupted", event.complete
                    self.sim.begun = self.sim.begun or event.complete
                if isinstance(event, Finished):
                    how, self.complete = event.ended.name.lower(), not event.counts.left
                if self.dice.random() < 0.02:
                    await asyncio.sleep(self.dice.uniform(0.0, 2.0))  # a slow reader
        if self.complete:
            await store.write_rejects(self)
        return how


def _nothing() -> None:
    """Do nothing."""


class Watched:
    """A mixin for a store, which observes its confirmations."""

    process: Process

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """See `Store.exchange`."""
        process, watch = self.process, self.process.sim.watch
        began = process.world.step
        try:
            reply: Exchange = await super().exchange(outcomes, room, calls)  # type: ignore[misc]
        except Exception:
            process.failed = True
            raise
        watch.settled(process, outcomes)
        watch.claimed(process, reply.claims, began)
        return reply

    async def release(self, lines: Sequence[int]) -> None:
        """See `Store.release`."""
        for line in lines:
            self.process.claims[line] = False
        await super().release(lines)  # type: ignore[misc]

    async def close(self, how: str = "") -> None:
        """See `Store.close`, which releases all held rows."""
        if self.process.sim.plan.stream:
            self.process.claims.clear()
        await super().close(how)  # type: ignore[misc]
