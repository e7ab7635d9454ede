"""An event loop in virtual time: its clock jumps to the next timer, so hours of waiting take no real time.

It is for code that waits for timers and other tasks, not for sockets.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from . import loops

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    """A selector that moves the clock to the next timer instead of waiting for it."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            self.loop.jump(math.inf if timeout is None else timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 1000 s and never waits.

    Args:
        resolution: the resolution of timers, seconds; waits are rounded up to it, as epoll does; 0 for exact timers.
    """

    def __init__(self, resolution: float = 0.0) -> None:
        self.now = 1000.0
        self._resolution = resolution
        self._deliveries: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._serial = itertools.count()
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)
        loops.adapt(self)

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self.now

    def deliver(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back as if a socket became readable: after exactly ``delay`` seconds, whatever the resolution."""
        heapq.heappush(self._deliveries, (self.now + delay, next(self._serial), callback, args))

    def jump(self, timeout: float) -> None:
        """Move the clock by ``timeout`` seconds, or to the next delivery if that is sooner."""
        if self._resolution and 0.0 < timeout < math.inf:
            timeout = math.ceil(timeout / self._resolution - 1e-6) * self._resolution
        until = self.now + timeout
        if self._deliveries:
            until = min(until, max(self.now, self._deliveries[0][0]))
        if until == math.inf:
            raise RuntimeError("deadlock: nothing is ready and no timer is set")
        self.now = until
        while self._deliveries and self._deliveries[0][0] <= until:
            _, _, callback, args = heapq.heappop(self._deliveries)
            self.call_soon(callback, *args)


def run(main: Coroutine[Any, Any, T], *, resolution: float = 0.0) -> T:
    """Like `asyncio.run`, in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(resolution)) as runner:
        return runner.run(main)
