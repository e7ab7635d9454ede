"""The emulator's clocks: the wall clock for unix times, a monotonic clock for rates.

Signatures, read times and messages have unix times, by the wall clock, which a test can freeze or move, as freezegun
and time-machine do.  Rates are calls in a real duration.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

if sys.platform != "win32":

    def monotonic() -> float:
        """Return real monotonic seconds, even while a test freezes ``time.monotonic``, as freezegun does."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

else:
    monotonic = time.monotonic


class SteadyLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers fire even while a test freezes ``time.monotonic``."""

    def time(self) -> float:
        """Return real monotonic seconds."""
        return monotonic()


def wall_clock() -> float:
    """Return unix seconds by ``time.time``, looked up at each call because a test may replace it."""
    return time.time()


def steady_clock() -> Callable[[], float]:
    """Make a clock that starts at the current unix time and that nothing adjusts."""
    start = time.time() - monotonic()
    return lambda: start + monotonic()
