"""The virtual time of a world: its events in order, and the event loops of its processes.

Every process has its own event loop and clock, and all run in this thread, in turn: a loop runs when a timer is due or
a message arrives, and takes no virtual time; then the time advances to the next event.  A loop can be held between any
two callbacks, like a blocked loop or a process after SIGSTOP: timers and messages wait, and then come all at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVarTuple

Args = TypeVarTuple("Args")
Trace = Callable[[int, float, str], None]
"""Receives each step's number, time and description."""

ENDLESS = 10_000
"""The number of iterations of a loop, or of events of the world, at one time that counts as spinning."""


class World:
    """The time, and the scheduled events.

    Args:
        seed: the seed.
        trace: receives every step.

    Attributes:
        now: seconds since the beginning.
        step: the number of the current event.
    """

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        self.seed = seed
        self.now = 0.0
        self.step = 0
        self._trace = trace
        self._serial = itertools.count()
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._digest = hashlib.blake2b(digest_size=8)

    def dice(self, name: str) -> random.Random:
        """Return an independent random source, so that an additional draw in one place changes nothing in another."""
        return random.Random(f"{self.seed} {name}")

    def at(self, when: float, call: Callable[..., object], *args: Any) -> None:
        """Schedule a call at a time, or now if that has passed; calls at the same time keep their order."""
        heapq.heappush(self._events, (max(when, self.now), next(self._serial), call, args))

    def after(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Schedule a call after some seconds."""
        self.at(self.now + seconds, call, *args)

    def note(self, *what: object) -> None:
        """Add a description of the current event to the trace."""
        text = " ".join(map(str, what))
        self._digest.update(f"{self.step} {self.now!r} {text}\n".encode())
        if self._trace is not None:
            self._trace(self.step, self.now, text)

    def fingerprint(self) -> str:
        """Return a hash of all steps so far."""
        return self._digest.hexdigest()

    def run(self, until: float) -> None:
        """Advance the time.

        Raises:
            RuntimeError: the time stands still.
        """
        events = self._events
        still = 0
        while events and events[0][0] <= until:
            when, _, call, args = heapq.heappop(events)
            still = still + 1 if when == self.now else 0
            if still > ENDLESS:
                raise RuntimeError(f"seed {self.seed}: the time stands still at {when} s, step {self.step}")
            self.now = when
            self.step += 1
            call(*args)
        self.now = until


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one process.

    Timers are up to a millisecond late, as epoll's are; messages are not.

    Args:
        world: its world.
        offset: its clock at the world's beginning, seconds.
        speed: the seconds that its clock advances in one second of the world.
        spins: called when it spins without an end.

    Attributes:
        held_until: the world's time until which it is held.
        failures: the errors that asyncio would have logged: unretrieved exceptions, and exceptions in callbacks.
    """

    def __init__(self, world: World, offset: float, speed: float, spins: Callable[[], None]) -> None:
        self._world = world
        self._offset = offset
        self._speed = speed
        self._spins = spins
        self._ready: deque[asyncio.Handle] = deque()
        self._arrived: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = itertools.count()
        self._cancelled = 0
        self._shown = offset
        self._wakes_at = math.inf
        self._running = False
        self._dead = False
        self._holds: deque[tuple[int, float, Callable[[], object]]] = deque()
        self.held_until = 0.0
        self.failures: list[str] = []

    # Called by the world.

    def arrive(self, call: Callable[..., object], *args: Any) -> None:
        """Call a function as if a socket became readable."""
        if not self._dead:
            self._arrived.append(asyncio.Handle(call, args, self, contextvars.Context()))
            self._wake(self._world.now)

    def begin(self, main: Coroutine[Any, Any, object]) -> None:
        """Start the process's first task."""
        self._ready.append(asyncio.Handle(self._first, (main,), self, contextvars.Context()))
        self._wake(self._world.now)

    def _first(self, main: Coroutine[Any, Any, object]) -> None:
        self._main = self.create_task(main)

    def hold(self, seconds: float, callbacks: int, begins: Callable[[], object]) -> None:
        """Hold it for some seconds, after ``callbacks`` more callbacks; call ``begins`` at their start."""
        if callbacks:
            self._holds.append((callbacks, seconds, begins))
        else:
            self.held_until = max(self.held_until, self._world.now + seconds)
            begins()

    def kill(self) -> None:
        """Stop it forever."""
        self._dead = True
        self._ready.clear()
        self._arrived.clear()
        self._timers.clear()

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self._dead

    @property
    def timers(self) -> int:
        """The number of pending timers."""
        return len(self._timers) - self._cancelled

    def _wake(self, when: float) -> None:
        when = max(when, self.held_until)
        if when < self._wakes_at and not self._running:
            self._wakes_at = when
            self._world.at(when, self._turn, when)

    def _turn(self, when: float) -> None:
        """Run until nothing is ready at this time."""
        world = self._world
        if when != self._wakes_at or self._dead:
            return
        self._wakes_at = math.inf
        if world.now < self.held_until:
            self._wake(self.held_until)
            return
        self._running = True
        asyncio._set_running_loop(self)
        try:
            self._iterate()
        finally:
            asyncio._set_running_loop(None)
            self._running = False
        if self._ready or self._arrived:
            self._wake(self.held_until)
        elif self._timers:
            # Wait as a selector does: in whole milliseconds, at least one, or time would stand still.
            wait = (self._timers[0][0] - self.time()) / self._speed
            self._wake(world.now + max(1, math.ceil(wait * 1e3 - 1e-6)) * 1e-3)

    def _iterate(self) -> None:
        ready = self._ready
        for _ in range(ENDLESS):
            ready.extend(self._arrived)
            self._arrived.clear()
            due = self.time() + 1e-9
            timers = self._timers
            while timers and (timers[0][0] < due or timers[0][2].cancelled()):
                when, _, timer = heapq.heappop(timers)
                timer._scheduled = False  # type: ignore[attr-defined]  # the attribute that asyncio's own loops use
                if timer.cancelled():
                    self._cancelled -= 1
                else:
                    # No timer may see a time before its own: it would be set again and be due at once.
                    self._shown = max(self._shown, when)
                    ready.append(timer)
            if not ready:
                return
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle.cancelled():
                    continue
                handle._run()
                if self._dead:
                    return
                if self._holds and self._held():
                    return
        self._spins()
        self.kill()

    def _held(self) -> bool:
        """Whether the loop is held before the next callback."""
        left, seconds, begins = self._holds.popleft()
        if left > 1:
            self._holds.appendleft((left - 1, seconds, begins))
            return False
        self.held_until = max(self.held_until, self._world.now + seconds)
        begins()
        return True

    # Called by asyncio.

    def time(self) -> float:
        """Return this process's monotonic time."""
        return max(self._shown, self._offset + self._world.now * self._speed)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._dead:
            self._ready.append(handle)
            self._wake(self._world.now)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._dead:
            handle._scheduled = True  # type: ignore[attr-defined]
            heapq.heappush(self._timers, (when, next(self._serial), handle))
            self._wake(self._world.now + max(0.0, (when - self.time()) / self._speed))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += handle._scheduled  # type: ignore[attr-defined]
        if self._cancelled > 100 and self._cancelled > len(self._timers) / 2:
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 1  # asyncio counts this timer only afterwards

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: contextvars.Context | None = None) -> Any:
        return asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def get_exception_handler(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Record an error that asyncio would log."""
        if not self._dead:
            error = context.get("exception")
            self.failures.append(f"{context.get('message')}: {error!r}")
