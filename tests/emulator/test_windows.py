"""The rate windows, compared with brute-force counts.

These tests use private modules: they need many thousands of arrivals at exact times, which would take minutes by HTTP.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.emulator import Emulator, WindowKind
from tim_async.emulator._report import CallLog
from tim_async.emulator._windows import Window

# Multiples of 1/64 s: their sums and differences are exact, so the brute force can be naive.
TIMES = st.lists(st.integers(0, 64 * 5), max_size=120).map(lambda ticks: [tick / 64 for tick in sorted(ticks)])
LIMITS = st.integers(1, 8)


@given(TIMES, LIMITS)
def test_a_sliding_second_admits_a_call_if_fewer_than_the_limit_were_admitted_in_the_second_before(
    times: list[float], limit: int
) -> None:
    window = Window("sliding", limit)
    admitted: list[float] = []
    for now in times:
        room = sum(now - 1 < earlier for earlier in admitted) < limit
        assert window.admit(now) is room
        if room:
            admitted.append(now)


@given(TIMES, LIMITS)
def test_a_sliding_second_that_counts_refused_calls_stays_closed_under_hammering(
    times: list[float], limit: int
) -> None:
    window = Window("sliding", limit, count_refused=True)
    for index, now in enumerate(times):
        assert window.admit(now) is (sum(now - 1 < earlier for earlier in times[:index]) < limit)


@given(TIMES, LIMITS)
def test_a_calendar_second_admits_the_first_calls_of_each_second_of_the_clock(times: list[float], limit: int) -> None:
    window = Window("calendar", limit)
    for index, now in enumerate(times):
        earlier = sum(math.floor(other) == math.floor(now) for other in times[:index])
        assert window.admit(now) is (earlier < limit)


@given(TIMES, LIMITS, st.integers(1, 8))
def test_a_bucket_never_admits_more_than_its_capacity_and_its_refill(
    times: list[float], limit: int, capacity: int
) -> None:
    window = Window("bucket", limit, capacity=capacity)
    admitted = [now for now in times if window.admit(now)]
    for first, start in enumerate(admitted):
        for count, end in enumerate(admitted[first:], start=1):
            assert count <= capacity + (end - start) * limit


@given(TIMES, LIMITS, st.integers(1, 8))
def test_a_bucket_refuses_only_when_it_holds_less_than_a_permit(times: list[float], limit: int, capacity: int) -> None:
    window = Window("bucket", limit, capacity=capacity)
    level, filled_at = float(capacity), 0.0
    for now in times:
        level, filled_at = min(capacity, level + (now - filled_at) * limit), now
        assert window.admit(now) is (level >= 1)
        level -= level >= 1


@given(TIMES)
def test_the_fullest_seconds_equal_a_brute_force_count(times: list[float]) -> None:
    log = CallLog()
    for now in times:
        log.add("x", now, b"", code=0)
    report = log.report().total
    sliding = max((sum(start <= t < start + 1 for t in times) for start in times), default=0)
    calendar = max((sum(math.floor(t) == s for t in times) for s in range(6)), default=0)
    assert (report.fullest_sliding_second, report.fullest_calendar_second) == (sliding, calendar)


@pytest.mark.parametrize("kind", ["sliding", "calendar", "bucket"])
def test_a_limit_or_a_capacity_below_one_is_refused(kind: WindowKind) -> None:
    for limit, capacity in ((0, None), (-1, None), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Emulator(limit=limit, window=kind, bucket_capacity=capacity)


def test_an_unknown_kind_of_window_is_refused() -> None:
    with pytest.raises(ValueError, match="sliding, calendar, bucket"):
        Emulator(window="fixed")  # type: ignore[arg-type]
