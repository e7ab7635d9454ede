"""The pace of a process without the store.

`Fallback` is asked directly: a few hundredths of a second of silence cannot be told from a slow machine on a socket.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from tests import virtual_time
from tim_async import Lane
from tim_async._limiter.fallback import HUSH, QUIET, Fallback


def in_virtual_time(check: Callable[[float], None]) -> None:
    """Run it inside an event loop, which the limiter needs; gives it the time."""

    async def main() -> None:
        check(asyncio.get_running_loop().time())

    virtual_time.run(main())


def at_once(fallback: Fallback, now: float) -> int:
    """Calls that may go at one moment."""
    count = 0
    while fallback.wait(now, Lane.INTERACTIVE) <= 0.0:
        fallback.take(now)
        count += 1
    return count


def test_it_begins_with_silence_and_then_without_a_burst() -> None:
    """What the store let go last would otherwise meet the bursts of all processes in one second."""

    def check(now: float) -> None:
        fallback = Fallback(200, 0.5, strict=False)
        fallback.begin(now)
        assert fallback.wait(now, Lane.INTERACTIVE) == pytest.approx(QUIET)
        assert fallback.wait(now + 0.9 * QUIET, Lane.BULK) == pytest.approx(0.1 * QUIET)
        assert at_once(fallback, now + QUIET) <= 1

    in_virtual_time(check)


@pytest.mark.parametrize("settling", [0.05, 0.45])
def test_it_is_silent_just_before_the_store_grants_again(settling: float) -> None:
    """Until then each of its calls must have been reported; and should the store be late, calls go on."""

    def check(now: float) -> None:
        fallback = Fallback(200, 0.5, strict=False)
        fallback.settles(now + settling)
        for after in (settling - 0.9 * HUSH, settling, settling + 0.9 * HUSH):
            assert fallback.wait(now + after, Lane.INTERACTIVE) == pytest.approx(settling + HUSH - after)
        assert fallback.wait(now + settling - 1.1 * HUSH, Lane.INTERACTIVE) == 0.0
        assert fallback.wait(now + settling + 1.1 * HUSH, Lane.INTERACTIVE) == 0.0

    in_virtual_time(check)


def test_without_a_share_it_waits_for_the_store() -> None:
    def check(now: float) -> None:
        fallback = Fallback(200, None, strict=False)
        assert fallback.wait(now, Lane.INTERACTIVE) == math.inf
        fallback.refused(now, now)
        fallback.slow_down(0.5, now)
        assert fallback.rate(now, otherwise=200.0) == 200.0
        with pytest.raises(
            RuntimeError, match=r"^there is no permit to take: fail_closed lets no call go without the store$"
        ):
            fallback.take(now)

    in_virtual_time(check)


def test_its_permits_have_negative_numbers_that_the_store_reads_exactly() -> None:
    def check(now: float) -> None:
        fallback = Fallback(5000, 1.0, strict=False)
        permits = [fallback.take(now) for _ in range(100)]
        assert all(-(2**53) < permit.number < 0 for permit in permits)
        assert len({permit.number for permit in permits}) == 100

    in_virtual_time(check)
