"""The processes: each has a real `TIMClient` with the quota, in an event loop of its own, and callers.

Only two parts of a client are not the product's: its transport (`service.Wire`) and its quota's connection to the store
(`store.StoreClient`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from redis.asyncio import Redis

from tim_async import Attempt, TIMClient
from tim_async._redis_clients import Connected
from tim_async.errors import TIMError
from tim_async.quota import RedisQuota
from tim_async.retrying import RetryPolicy

from .network import Path
from .releases import Later
from .service import Service, Wire
from .store import SimulatedLink, Store, StoreClient
from .watch import LOOKUP, Watch
from .world import ProcessLoop, World

APP = 1400000000
METHOD = "get_c2c_unread_msg_num"
TIMEOUT = 4.0
"""The time-out of one attempt, seconds."""
RETRY = RetryPolicy(attempts=6, total=8.0)


@functools.cache
def _later() -> Later:
    return Later(importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8"))


class SimulatedQuota(RedisQuota):
    """The product's quota, connected to the simulated store."""

    def __init__(self, client: StoreClient, **options: Any) -> None:
        self._simulated = client
        super().__init__("redis://simulated", **options)

    def _connect(self) -> Connected:
        return SimulatedLink(cast("Redis", self._simulated), True, "simulated")


@dataclass(frozen=True)
class Load:
    """The load of a process.

    Attributes:
        interactive: the number of callers that call without a pause.
        bulk: the concurrency of an endless batch.
        visitors: interactive calls/s at random times.
        lookups: look-ups/s at random times, of few items.
        cancel: the share of the visitors' calls that are soon cancelled.
        max_wait: ``max_wait`` of the visitors' calls, seconds; None for no limit.
    """

    interactive: int = 0
    bulk: int = 0
    visitors: float = 0.0
    lookups: float = 0.0
    cancel: float = 0.0
    max_wait: float | None = None

    @property
    def busy(self) -> int:
        """The number of callers that call without a pause, in both lanes."""
        return self.interactive + self.bulk


@dataclass(frozen=True)
class Profile:
    """The configuration of a process.

    Attributes:
        load: its load.
        rate: the rate that it names, calls/s.
        own_rate: whether the rate limits only the process itself, instead of being the service's limit.
        to_service, to_store: its one-way paths.
        later: whether it is of a later release than the others.
        offset: its clock at the beginning, seconds.
        speed: the seconds that its clock advances in one second of the world.
    """

    load: Load
    rate: float
    to_service: Path
    to_store: Path
    own_rate: bool = False
    later: bool = False
    offset: float = 1000.0
    speed: float = 1.0


@dataclass(frozen=True)
class Terms:
    """The options common to all processes of a fleet.

    Attributes:
        strict: the client's option ``strict``.
        quota: the options of the quota.
    """

    strict: bool = False
    quota: dict[str, Any] = field(default_factory=dict)


class Process:
    """One process.

    Attributes:
        name: its name, unique in the world.
        began: its start, in the world's time.
        stopping: whether its callers have stopped.
        closed: whether its client is closed.
        held: the world's time until which it is stopped or blocked, or later.
        reported: the number of attempts that its hook has received.
        reported_after_close: of those, the attempts that failed after the close, some of which it never sent.
    """

    def __init__(self, name: str, profile: Profile, terms: Terms, world: World, service: Service, store: Store) -> None:
        self.name = name
        self.profile = profile
        self.world = world
        self.began = world.now
        self.stopping = self.closed = False
        self.held = -1.0
        self.reported = self.reported_after_close = 0
        self._calls = 0
        self._dice = world.dice(f"process {name}")
        watch = service.watcher
        self.watch: Watch = watch
        self.loop = ProcessLoop(  # type: ignore[abstract]  # without sockets, threads and signals
            world, profile.offset, profile.speed, lambda: watch.violated("spins", name)
        )
        self.wire: Wire = Wire(service, self, profile.to_service)
        self.store = StoreClient(store, self, profile.to_store, _later() if profile.later else None)
        self._terms = terms
        self._callers: set[asyncio.Task[None]] = set()
        self.client: TIMClient | None = None
        self._stop: asyncio.Event | None = None
        self.loop.begin(self._main())

    # Called by the world.

    def hold(self, seconds: float, callbacks: int, begins: Callable[[], object]) -> None:
        """Stop or block it for some seconds, after ``callbacks`` more callbacks; call ``begins`` at their start."""

        def held() -> None:
            self.world.note("held", self.name, f"{seconds:.3f}")
            self.held = max(self.held, self.world.now + seconds)
            begins()

        self.loop.hold(seconds, callbacks, held)

    def kill(self) -> None:
        """Kill it as by SIGKILL."""
        self.loop.kill()
        self.wire.vanish()
        self.store.vanish()
        self.watch.killed(self)
        if self.client is not None:
            self.client._caller._home = None  # otherwise its deletion would warn that it was not closed

    def stop_callers(self) -> None:
        """Stop calling; calls in flight continue."""
        self.stopping = True

    def close(self) -> None:
        """Exit cleanly: calls in flight fail with `ClientClosed`."""
        self.stopping = True
        if self._stop is not None:
            self.loop.arrive(self._stop.set)

    def cancel_callers(self, share: float) -> None:
        """Cancel a share of the callers without pauses, all in one iteration of the loop; new callers replace them."""

        def cancel() -> None:
            for task in sorted(self._callers, key=lambda task: task.get_name()):
                if self._dice.random() < share:
                    task.cancel()

        self.loop.arrive(cancel)

    def set_rate(self, rate: float) -> None:
        """Change the rate that it names."""

        def change() -> None:
            if self.client is not None and not self.stopping:
                self.client.set_rate(METHOD, rate)

        self.loop.arrive(change)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self.loop.dead and not self.closed

    @property
    def calls(self) -> int:
        """The number of calls begun."""
        return self._calls

    # Its own work.

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        terms, load = self._terms, self.profile.load
        client = TIMClient(
            sdk_app_id=APP,
            secret_key="5" * 64,
            base_url="http://127.0.0.1:1",
            rates={METHOD: self.profile.rate},
            timeout=TIMEOUT,
            retry=RETRY,
            strict=terms.strict,
            quota=SimulatedQuota(self.store, own_rates=self.profile.own_rate, **terms.quota),
            on_attempt=self._attempted,
        )
        client._caller._transport = cast("Any", self.wire)
        self.client = client
        background = []
        # Not by `async with`, because a killed process closes nothing.
        await client.__aenter__()
        for number in range(load.interactive):
            self._keep_calling(number)
        if load.bulk:
            background.append(asyncio.create_task(self._batch(load.bulk)))
        if load.visitors:
            background.append(asyncio.create_task(self._visits(load.visitors, self._visit)))
        if load.lookups:
            background.append(asyncio.create_task(self._visits(load.lookups, self._look_up)))
        await self._stop.wait()
        closing = self.world.now
        await client.aclose()
        self.watch.closed(self, self.world.now - max(closing, self.held))
        # Each caller must see the end of its call.
        for task in background:
            await asyncio.wait([task], timeout=1.0)
            task.cancel()
        self.closed = True

    def _attempted(self, attempt: Attempt) -> None:
        self.reported += 1
        self.reported_after_close += attempt.error == "ClientClosed"
        self.watch.attempted(self, attempt)

    async def call(self, client: TIMClient, *, max_wait: float | None = None) -> None:
        """Make one call, and check that it ends in a permitted way."""
        self._calls += 1
        account = f"{self.name}.{self._calls}"
        await self._watched(account, lambda: client.get_all_c2c_unread_msg_num(account), max_wait)

    async def _watched(self, account: str, call: Callable[[], Awaitable[object]], max_wait: float | None) -> None:
        watch = self.watch
        watch.begun(self, account)
        ended = "lost"
        attempts: int | None = None
        try:
            await call()
            ended = "value"
        except TIMError as error:
            ended, attempts = type(error).__name__, error.attempts
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        except GeneratorExit:  # the end of the simulation
            return
        except BaseException as error:
            ended = repr(error)
            raise
        finally:
            watch.ended(self, account, ended, attempts, max_wait)

    def _keep_calling(self, number: int) -> None:
        """Start a caller without pauses, which is replaced when it is cancelled."""
        if self.stopping:
            return
        client = self.client
        assert client is not None

        async def caller() -> None:
            while not self.stopping:
                await self.call(client)
                if client._caller.closed:
                    return

        task: asyncio.Task[None] = asyncio.create_task(caller(), name=f"{number:06}")
        self._callers.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._callers.discard(task)
            if task.cancelled():
                self._keep_calling(number)

        task.add_done_callback(ended)

    async def _batch(self, concurrency: int) -> None:
        client = self.client
        assert client is not None

        async def rows() -> AsyncIterator[tuple[()]]:
            while not self.stopping:
                yield ()

        async with client.batch.map(lambda: self.call(client), rows(), concurrency=concurrency) as outcomes:
            async for _ in outcomes:
                pass

    async def _visits(self, rate: float, visit: Callable[[TIMClient], Awaitable[None]]) -> None:
        client = self.client
        assert client is not None
        load = self.profile.load
        if load.max_wait is not None:
            client = client.with_options(max_wait=load.max_wait)
        visits: set[asyncio.Task[None]] = set()
        while not self.stopping:
            await asyncio.sleep(self._dice.expovariate(rate))
            if self.stopping:
                break
            task = asyncio.ensure_future(visit(client))
            visits.add(task)
            task.add_done_callback(visits.discard)
            if load.cancel and self._dice.random() < load.cancel:
                asyncio.get_running_loop().call_later(_soon(self._dice), task.cancel)
        if visits:
            await asyncio.wait(visits)

    async def _visit(self, client: TIMClient) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.call(client, max_wait=self.profile.load.max_wait)

    async def _look_up(self, client: TIMClient) -> None:
        """Look up an item that other callers look up, too."""
        self._calls += 1
        group = self._calls // 4
        peer = f"peer{self._dice.randrange(12)}"
        with contextlib.suppress(asyncio.CancelledError):
            await self._watched(
                f"{LOOKUP}{self.name}.{self._calls}",
                lambda: client.lookup.c2c_unread_msg_num(f"{self.name}.shared{group}", peer),
                self.profile.load.max_wait,
            )


def _soon(dice: random.Random) -> float:
    """Draw the seconds until a call is cancelled: in the iteration of its start, in flight, or later."""
    return dice.choice((0.0, 0.001, dice.expovariate(1 / 0.05), dice.expovariate(1 / 0.5)))
