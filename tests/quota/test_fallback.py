"""The pace of a process without the store.

`Fallback` is asked directly: a few hundredths of a second of silence cannot be told from a slow machine on a socket.
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

from .script import fullest


def in_virtual_time(check: Callable[[float], None]) -> None:
    """Run it inside an event loop, which the limiter needs; gives it the time."""

    async def main() -> None:
        check(asyncio.get_running_loop().time())

    virtual_time.run(main())


def view(limit: float, members: int, place: int = 0) -> StoreView:
    """What is known of a store that has been asked."""
    store = StoreView(limit)
    if members:
        store.update(Reply(1, "1", limit=limit, rate=limit, members=members, place=place), None, 0.0, 0.0)
    return store


def made(limit: float = 200, alone: float | None = 0.5, *, members: int = 2, closed: bool = False) -> Fallback:
    return Fallback(limit, Shares(fallback=alone, fail_closed=closed), view(limit, members), strict=False)


def times(limiter: Fallback | Timetable, now: float, until: float) -> list[float]:
    """When a caller that never runs out may call."""
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
def test_timetables_together_keep_the_limit_and_use_it(limit: int, each: float, place: int, start: float) -> None:
    """As many processes as there are, whichever places they have; also where each calls less than once a second."""
    members = math.ceil(limit / each)
    arrivals = list[float]()
    for number in range(members):
        fallback = Fallback(limit, Shares(), view(limit, members, place + number), strict=True)
        fallback.begin(start, start)
        arrivals += times(fallback, start, start + 6.0)
    assert fullest(arrivals) <= limit
    # Of a small limit more is left for what is not quite even.
    assert len(arrivals) >= (0.9 if limit >= 50 else 0.3) * (6.0 - timetable_silence(limit)) * limit


@pytest.mark.parametrize("late", [0.019, 0.021])
def test_a_call_that_is_late_goes_at_once_or_waits_for_the_next_time(late: float) -> None:
    table = Timetable(2.0, 0.5, lambda now: now)
    assert table.wait(10.0, Lane.BULK) == pytest.approx(0.25)
    wait = table.wait(10.25 + late, Lane.BULK)
    assert wait == (0.0 if late < Timetable.TOLERANCE else pytest.approx(0.5 - late))
    table.take(10.25)
    assert table.wait(10.26, Lane.BULK) == pytest.approx(0.49), "there is one call for each time"


def test_refusals_leave_times_out_and_answers_bring_them_back() -> None:
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
    ("limit", "alone", "members", "rate"),
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
    limit: float, alone: float | None, members: int, rate: float
) -> None:
    """By slots, or by a timetable where slots would be few; the quota's limit holds where it is lower."""

    def check(now: float) -> None:
        fallback = made(limit, alone, members=members)
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
        again = Fallback(2 * limit, Shares(fallback=alone), view(limit, members), strict=False)
        again.begin(now, now)
        assert again.rate(now, otherwise=17.0) == pytest.approx(rate)

    in_virtual_time(check)


def test_a_lone_process_leaves_one_call_of_a_small_limit() -> None:
    """Its timetable alone is even but for the call at each end of a second."""
    fallback = made(8, None, members=1)
    fallback.begin(10.0, 10.0)
    assert fallback.rate(10.0, otherwise=17.0) == pytest.approx(7.0)


def test_it_begins_with_silence_and_then_without_a_burst() -> None:
    """What the store let go last would otherwise meet the bursts of all processes in one second."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        fallback, begin = made(), loop.time()
        fallback.begin(begin, begin + 0.2)
        assert fallback.wait(begin, Lane.INTERACTIVE) == pytest.approx(0.2 + LOSS_SILENCE)
        assert fallback.wait(begin + 0.2 + 0.9 * LOSS_SILENCE, Lane.BULK) == pytest.approx(0.1 * LOSS_SILENCE)
        await asyncio.sleep(0.2 + LOSS_SILENCE)
        assert len(times(fallback, loop.time(), loop.time() + 0.001)) <= 1
        await asyncio.sleep(1.1)
        assert len(times(fallback, loop.time(), loop.time() + 0.001)) == 5, "the next one is as usual"

    virtual_time.run(main())


@pytest.mark.parametrize(("now", "last"), [(9.9, 10.0), (10.0, 9.0)])
def test_by_a_timetable_it_begins_a_little_after_the_loss(now: float, last: float) -> None:
    """The others' last calls may be later than its own."""
    fallback = made(alone=None, members=100)
    fallback.begin(now, last)
    begin = 10.0 + timetable_silence(200)
    assert fallback.wait(now, Lane.BULK) == pytest.approx(begin - now)
    assert begin <= times(fallback, now, 11.0)[0] <= begin + 1 / (0.94 * 2)


@at_most(50)
@given(limit=st.integers(5, 500), each=st.floats(0.5, 9.9), start=st.floats(0, 1e4), part=st.floats(0.1, 1.0))
def test_no_second_holds_more_than_the_limit_when_the_store_is_lost(
    limit: int, each: float, start: float, part: float
) -> None:
    """However close together the store let the last calls go: a burst of limit/20, or 4, and 1.1 of the limit."""
    burst, last = max(4, limit // 20), round(part * limit)
    arrivals = [start - min(number, last - burst) / (1.1 * limit) for number in range(last)]
    members = math.ceil(limit / each)
    for number in range(members):
        fallback = Fallback(limit, Shares(), view(limit, members, number), strict=False)
        fallback.begin(start, -math.inf)
        arrivals += times(fallback, start, start + 2.0)
    assert fullest(arrivals) <= limit


@pytest.mark.parametrize(("members", "alert", "refusal"), [(4, 0.485, 0.99 * 0.9), (100, 1 / 3, 1 / 3)])
def test_refusals_and_alerts_slow_it(members: int, alert: float, refusal: float) -> None:
    def check(now: float) -> None:
        one, two = (made(alone=None, members=members) for _ in range(2))
        for fallback in (one, two):
            fallback.begin(now, now)
        before = one.rate(now, otherwise=0.0)
        one.slow_down(0.5, now)
        two.refused(now - 0.01, now)
        assert one.rate(now, otherwise=0.0) == pytest.approx(alert * before)
        assert two.rate(now, otherwise=0.0) == pytest.approx(refusal * before)

    in_virtual_time(check)


def test_a_permit_comes_back_to_the_limiter_that_it_is_from() -> None:
    """Which may be that of the last outage."""

    def check(now: float) -> None:
        fallback = made(alone=0.05, members=1)
        fallback.begin(now - 1.0, now - 1.0)
        permit = fallback.take(now)
        assert permit.sent == now
        fallback.begin(now - 1.0, now - 1.0)
        assert permit.source is not None
        permit.source.release(permit, now, Use.ANSWERED)
        assert fallback.take(now).source is not permit.source

    in_virtual_time(check)


@pytest.mark.parametrize("settling", [0.05, 0.45])
def test_it_is_silent_just_before_the_store_grants_again(settling: float) -> None:
    """Until then each of its calls must have been told; and should the store be late, calls go on."""

    def check(now: float) -> None:
        fallback = made()
        fallback.begin(now - 1.0, now - 1.0)
        fallback.settles(now + settling)
        for after in (settling - 0.9 * RETURN_SILENCE, settling, settling + 0.9 * RETURN_SILENCE):
            assert fallback.wait(now + after, Lane.INTERACTIVE) == pytest.approx(settling + RETURN_SILENCE - after)
        for after in (settling - 1.1 * RETURN_SILENCE, settling + 1.1 * RETURN_SILENCE):
            assert fallback.wait(now + after, Lane.INTERACTIVE) < 0.02, "as long as one call takes"

    in_virtual_time(check)


def test_with_nothing_of_its_own_it_waits_for_the_store() -> None:
    def check(now: float) -> None:
        fallback = made(closed=True)
        fallback.begin(now, now)
        assert fallback.wait(now, Lane.INTERACTIVE) == math.inf
        fallback.refused(now, now)
        fallback.slow_down(0.5, now)
        fallback.set_limit(100)
        assert fallback.rate(now, otherwise=200.0) == 200.0
        with pytest.raises(RuntimeError, match=r"^there is no permit to take: no call is sent without the store$"):
            fallback.take(now)

    in_virtual_time(check)
