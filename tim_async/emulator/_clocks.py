"""The emulator's clocks: one for the times that it is told and tells, one for rates.

Signatures, read times and messages have unix times, which belong to the clock on the wall: a test that freezes or moves
it, as freezegun and time-machine do, moves them.  Rates are calls in a duration that really passes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

if sys.platform != "win32":

    def monotonic() -> float:
        """Seconds that pass, also where a test freezes ``time.monotonic``, as freezegun does."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

else:
    monotonic = time.monotonic


class SteadyLoop(asyncio.SelectorEventLoop):
    """A loop whose timers end also where a test freezes ``time.monotonic``."""

    def time(self) -> float:
        """Seconds that pass."""
        return monotonic()


def wall_clock() -> float:
    """Unix seconds, by ``time.time`` as it is at the moment of the call."""
    return time.time()


def steady_clock() -> Callable[[], float]:
    """Make a clock of unix seconds that nothing sets: it starts at the time on the wall."""
    start = time.time() - monotonic()
    return lambda: start + monotonic()
