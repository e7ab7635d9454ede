"""The rate of a process without the store.

`Fallback` is tested directly: over sockets, a slow machine would hide silences of a few hundredths of a second.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import virtual_time
from tests.hypotheses import at_most
from tim_async import Lane
from tim_async._limiter.fallback import (
    ASSUMED_MEMBERS,
    LOSS_SILENCE,
    RETURN_SILENCE,
    Fallback,
    Timetable,
    timetable_silence,
)
from tim_async._limiter.local import Use
from tim_async._limiter.reply import Reply, StoreView
from tim_async._limiter.sharing import Shares

from .support import max_per_second


def in_virtual_time(check: Callable[[float], None]) -> None:
    """Run a check in an event loop, which the limiter needs, with the loop's time."""

    async def main() -> None:
        check(asyncio.get_running_loop().time())

    virtual_time.run(main())


def view(limit: float, members: int, place: int = 0) -> StoreView:
    """Return the view of a store that has replied."""
    store = StoreView(limit)
    if members:
        store.update(Reply(1, "1", limit=limit, rate=limit, members=members, place=place), None, 0.0, 0.0)
    return store


def make_fallback(limit: float = 200, share: float | None = 0.5, *, members: int = 2, closed: bool = False) -> Fallback:
    return Fallback(limit, Shares(fallback=share, fail_closed=closed), view(limit, members), strict=False)


def times(limiter: Fallback | Timetable, now: float, until: float) -> list[float]:
    """Return the times of the calls of a caller that never runs out."""
    sent = []
    while now < until:
        if (delay := limiter.wait(now, Lane.INTERACTIVE)) <= 0.0:
            sent.append(now)
            limiter.take(now)
        now += delay
    return sent


@at_most(50)
@given(
    limit=st.integers(5, 500),
    each=st.floats(0.1, 9.9),
    place=st.integers(0, 1000),
    start=st.floats(0, 1e4),
)
def test_the_timetables_of_all_processes_together_keep_and_use_the_limit(
    limit: int, each: float, place: int, start: float
) -> None:
    """With any number of processes and any places, even if each calls less than once a second."""
    members = math.ceil(limit / each)
    arrivals = list[float]()
    for number in range(members):
        fallback = Fallback(limit, Shares(), view(limit, members, place + number), strict=True)
        fallback.begin(start, start)
        arrivals += times(fallback, start, start + 6.0)
    assert max_per_second(arrivals) <= limit
    # Of a small limit more is unused, as a margin for uneven calls.
    assert len(arrivals) >= (0.9 if limit >= 50 else 0.3) * (6.0 - timetable_silence(limit)) * limit


@pytest.mark.parametrize("late", [0.019, 0.021])
def test_a_late_call_is_sent_at_once_or_at_the_next_time(late: float) -> None:
    table = Timetable(2.0, 0.5, lambda now: now)
    assert table.wait(10.0, Lane.BULK) == pytest.approx(0.25)
    wait = table.wait(10.25 + late, Lane.BULK)
    assert wait == (0.0 if late < Timetable.TOLERANCE else pytest.approx(0.5 - late))
    table.take(10.25)
    assert table.wait(10.26, Lane.BULK) == pytest.approx(0.49), "one call for each time"


def test_refusals_skip_times_and_answers_restore_them() -> None:
    table = Timetable(4.0, 0.0, lambda now: now)
    for rate in (4 / 3, 4 / 7, 4 / 8, 4 / 8):
        table.refused(0.0, 0.0)
        assert table.rate(0.0) == pytest.approx(rate)
    sent = times(table, 10.0, 17.0)
    assert [later - sooner for sooner, later in itertools.pairwise(sent)] == [pytest.approx(2.0)] * 3
    permit = table.take(20.0)
    for use, rate in ((Use.UNSENT, 0.5), (Use.UNANSWERED, 0.5), (Use.ANSWERED, 4 / 7), (Use.ANSWERED, 4 / 6)):
        table.release(permit, 20.0, use)
        assert table.rate(20.0) == pytest.approx(rate)
    table.slow_down(1.0, 20.0)
    assert table.rate(20.0) == pytest.approx(4 / 6)
    table.slow_down(0.9, 20.0)
    assert table.rate(20.0) == pytest.approx(4 / 8)
    assert table.wait(20.1, Lane.BULK) == pytest.approx(2.0 - 0.1)
    for _ in range(10):
        table.release(permit, 20.0, Use.ANSWERED)
    assert table.rate(20.0) == pytest.approx(4.0)
    assert len(times(table, 20.0, 25.9)) == 4 * 6 - 1, "of one time only a call is made"


def test_a_timetable_of_another_rate_goes_on_at_once() -> None:
    table = Timetable(4.0, 0.0, lambda now: now)
    table.take(10.0)
    table.set_limit(8.0)
    assert len(times(table, 10.1, 12.1)) == 16


@pytest.mark.parametrize(
    ("limit", "share", "members", "rate"),
    [
        (200, None, 4, 50),
        (200, None, 20, 10),
        (200, None, 21, 0.94 * 200 / 21),
        (200, None, 0, 0.94 * 200 / ASSUMED_MEMBERS),
        (200, None, 1000, 0.94 * 0.2),
        (200, 0.5, 1000, 100),
        (200, 0.01, 1, 0.94 * 2),
    ],
)
def test_the_share_is_that_of_one_member_or_the_one_given(
    limit: float, share: float | None, members: int, rate: float
) -> None:
    """With slots, or with a timetable where slots would be few; the quota's limit applies if it is lower."""

    def check(now: float) -> None:
        fallback = make_fallback(limit, share, members=members)
        assert fallback.wait(now, Lane.BULK) == math.inf
        assert fallback.rate(now, otherwise=17.0) == 17.0
        fallback.begin(now, now)
        assert fallback.rate(now, otherwise=17.0) == pytest.approx(rate)
        fallback.set_limit(limit / 2)
        assert fallback.rate(now, otherwise=17.0) == pytest.approx(max(1.0 if rate >= 10 else 0.0, rate / 2))
        if rate >= 10:  # by slots, of which there is one at least
            for calls, kept in ((1.5, 1.5), (0.5, 1.0)):
                fallback.set_limit(limit * calls / rate)
                assert fallback.rate(now, otherwise=17.0) == pytest.approx(kept)
        again = Fallback(2 * limit, Shares(fallback=share), view(limit, members), strict=False)
        again.begin(now, now)
        assert again.rate(now, otherwise=17.0) == pytest.approx(rate)

    in_virtual_time(check)


def test_a_lone_process_leaves_one_call_of_a_small_limit() -> None:
    """Its timetable alone is even but for the call at each end of a second."""
    fallback = make_fallback(8, None, members=1)
    fallback.begin(10.0, 10.0)
    assert fallback.rate(10.0, otherwise=17.0) == pytest.approx(7.0)


def test_the_fallback_begins_with_silence_and_without_a_burst() -> None:
    """Otherwise the store's last calls and the bursts of all processes would fall into one second."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        fallback, begin = make_fallback(), loop.time()
        fallback.begin(begin, begin + 0.2)
        assert fallback.wait(begin, Lane.INTERACTIVE) == pytest.approx(0.2 + LOSS_SILENCE)
        assert fallback.wait(begin + 0.2 + 0.9 * LOSS_SILENCE, Lane.BULK) == pytest.approx(0.1 * LOSS_SILENCE)
        await asyncio.sleep(0.2 + LOSS_SILENCE)
        assert len(times(fallback, loop.time(), loop.time() + 0.001)) <= 1
        await asyncio.sleep(1.1)
        assert len(times(fallback, loop.time(), loop.time() + 0.001)) == 5, "later bursts are as usual"

    virtual_time.run(main())


@pytest.mark.parametrize(("now", "last"), [(9.9, 10.0), (10.0, 9.0)])
def test_a_timetable_begins_a_little_after_the_loss(now: float, last: float) -> None:
    """The last calls of other processes may be later than its own."""
    fallback = make_fallback(share=None, members=100)
    fallback.begin(now, last)
    begin = 10.0 + timetable_silence(200)
    assert fallback.wait(now, Lane.BULK) == pytest.approx(begin - now)
    assert begin <= times(fallback, now, 11.0)[0] <= begin + 1 / (0.94 * 2)


@at_most(50)
@given(limit=st.integers(5, 500), each=st.floats(0.5, 9.9), start=st.floats(0, 1e4), part=st.floats(0.1, 1.0))
def test_no_second_holds_more_than_the_limit_when_the_store_is_lost(
    limit: int, each: float, start: float, part: float
) -> None:
    """However dense the store's last calls: a burst of limit/20, at least 4, and 1.1 times the limit."""
    burst, last = max(4, limit // 20), round(part * limit)
    arrivals = [start - min(number, last - burst) / (1.1 * limit) for number in range(last)]
    members = math.ceil(limit / each)
    for number in range(members):
        fallback = Fallback(limit, Shares(), view(limit, members, number), strict=False)
        fallback.begin(start, -math.inf)
        arrivals += times(fallback, start, start + 2.0)
    assert max_per_second(arrivals) <= limit


@pytest.mark.parametrize(("members", "alert", "refusal"), [(4, 0.485, 0.99 * 0.9), (100, 1 / 3, 1 / 3)])
def test_refusals_and_alerts_lower_the_fallback_rate(members: int, alert: float, refusal: float) -> None:
    def check(now: float) -> None:
        one, two = (make_fallback(share=None, members=members) for _ in range(2))
        for fallback in (one, two):
            fallback.begin(now, now)
        before = one.rate(now, otherwise=0.0)
        one.slow_down(0.5, now)
        two.refused(now - 0.01, now)
        assert one.rate(now, otherwise=0.0) == pytest.approx(alert * before)
        assert two.rate(now, otherwise=0.0) == pytest.approx(refusal * before)

    in_virtual_time(check)


def test_a_permit_is_released_to_the_limiter_that_granted_it() -> None:
    """It may be that of an earlier outage."""

    def check(now: float) -> None:
        fallback = make_fallback(share=0.05, members=1)
        fallback.begin(now - 1.0, now - 1.0)
        permit = fallback.take(now)
        assert permit.sent == now
        fallback.begin(now - 1.0, now - 1.0)
        assert permit.release_inner is not None
        permit.release_inner(permit, now, Use.ANSWERED)
        assert fallback.take(now).release_inner != permit.release_inner

    in_virtual_time(check)


@pytest.mark.parametrize("settling", [0.05, 0.45])
def test_the_fallback_is_silent_just_before_the_store_grants_again(settling: float) -> None:
    """By then all its calls must be reported; if the store is late, calls continue."""

    def check(now: float) -> None:
        fallback = make_fallback()
        fallback.begin(now - 1.0, now - 1.0)
        fallback.settles(now + settling)
        for after in (settling - 0.9 * RETURN_SILENCE, settling, settling + 0.9 * RETURN_SILENCE):
            assert fallback.wait(now + after, Lane.INTERACTIVE) == pytest.approx(settling + RETURN_SILENCE - after)
        for after in (settling - 1.1 * RETURN_SILENCE, settling + 1.1 * RETURN_SILENCE):
            assert fallback.wait(now + after, Lane.INTERACTIVE) < 0.02, "as long as one call takes"

    in_virtual_time(check)


def test_fail_closed_grants_nothing_without_the_store() -> None:
    def check(now: float) -> None:
        fallback = make_fallback(closed=True)
        fallback.begin(now, now)
        assert fallback.wait(now, Lane.INTERACTIVE) == math.inf
        fallback.refused(now, now)
        fallback.slow_down(0.5, now)
        fallback.set_limit(100)
        assert fallback.rate(now, otherwise=200.0) == 200.0
        with pytest.raises(RuntimeError, match=r"^there is no permit to take: no call is sent without the store$"):
            fallback.take(now)

    in_virtual_time(check)
