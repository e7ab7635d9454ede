"""Time that passes on the way: the network's latency, and a server that stands still."""

from __future__ import annotations

import asyncio
import math
import random
import time


class Latency:
    """One way of a round trip, drawn afresh for each."""

    def __init__(self, round_trip: float, jitter: float, seed: int) -> None:
        """Describe the network.

        Args:
            round_trip: the mean of a round trip, seconds; 0 for none beyond the loopback's own.
            jitter: its coefficient of variation, lognormal; 0 for a constant.
            seed: of the draw.

        Raises:
            ValueError: either is negative.
        """
        if round_trip < 0.0 or jitter < 0.0:
            raise ValueError("latency and jitter are not negative")
        self._mean = round_trip / 2
        # Two independent ways make a round trip; for that to vary by `jitter`, each varies by √2 times as much.
        variance = math.log1p(2 * jitter**2)
        self._sigma = math.sqrt(variance)
        self._mu = math.log(self._mean) - variance / 2 if self._mean else 0.0
        self._random = random.Random(seed)

    async def travel(self) -> None:
        """Take as long as one way takes."""
        if not self._mean:
            return
        await asyncio.sleep(self._random.lognormvariate(self._mu, self._sigma) if self._sigma else self._mean)


class Stall:
    """A time in which nothing is answered.  Any thread may start and end it.

    Those who wait look at the clock now and then rather than being woken: what is shared between threads is then
    one number, and an end called from another thread needs no loop to be told.
    """

    _LOOK_EVERY = 0.02

    def __init__(self) -> None:
        self._until = 0.0

    def start(self, seconds: float) -> None:
        """Answer nothing for this long from now, whatever was said before."""
        self._until = time.monotonic() + seconds

    def end(self) -> None:
        """Answer again, and first of all what was held."""
        self._until = 0.0

    async def wait(self) -> None:
        """Return once answers may go out."""
        while (left := self._until - time.monotonic()) > 0.0:  # noqa: ASYNC110 - see the class
            await asyncio.sleep(min(left, self._LOOK_EVERY))
