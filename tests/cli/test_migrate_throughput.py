"""The time left: plain arithmetic on what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.cli.migrate.throughput import Throughput

steps = st.lists(st.floats(0.01, 30.0), min_size=1, max_size=60)
rates = st.floats(1.0, 10_000.0)
TOTAL = 10_000_000


class Run:
    """A run of a known speed on a clock of its own, looked at now and then."""

    def __init__(self, rate: float, began: float = 1000.0, settled: int = 0) -> None:
        self.rate = rate
        self.now = began
        self.settled = float(settled)
        self.pace = Throughput(began, settled)

    def work(self, seconds: float, look_every: float = 1.0) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            step = min(look_every, until - self.now)
            self.now += step
            self.settled += self.rate * step
            self.pace.advance(self.now, round(self.settled))

    def outage(self, seconds: float, noticed_after: float) -> None:
        """Nothing moves; it is known as an outage only after a while, which the event itself may not count."""
        rate, self.rate = self.rate, 0.0
        self.work(noticed_after)
        self.pace.wait(self.now, 0.0)
        self.work(seconds)
        self.pace.resume(self.now)
        self.rate = rate

    def error(self) -> float:
        """By which share the time left for 100,000 rows is wrong."""
        left = self.pace.left(100_000, self.now)
        assert left is not None
        return abs(left * self.rate / 100_000 - 1)


def test_nothing_is_known_at_first() -> None:
    pace = Throughput(0.0, 5)
    assert pace.rate is None
    assert pace.left(10, 5.0) is None
    pace.advance(0.0, 5)
    pace.advance(3.0, 5)
    assert pace.left(10, 5.0) is None


@given(rates, steps)
def test_no_rows_take_no_time(rate: float, looks: list[float]) -> None:
    pace, now = Throughput(0.0, 0), 0.0
    assert pace.left(0, now) == 0.0
    for step in looks:
        now += step
        pace.advance(now, 1)
    assert pace.left(0, now) == 0.0


@given(rates, steps, st.integers(0, TOTAL))
def test_an_even_speed_is_told_exactly(rate: float, looks: list[float], settled: int) -> None:
    """However often it is looked at, and whatever an earlier run had done."""
    pace, now = Throughput(50.0, settled), 50.0
    for step in looks:
        now += step
        pace.advance(now, settled + round(rate * (now - 50.0)))
    passed = now - 50.0
    if rate * passed >= 20:
        left = pace.left(1_000, now)
        assert left is not None
        # Rows are whole, so that the last one may be off by half; the clock may be off by what a float loses.
        assert left == pytest.approx(1_000 / rate, rel=0.06)


@given(rates, st.floats(60.0, 600.0), st.lists(st.tuples(st.floats(1.0, 7200.0), st.floats(0.0, 25.0)), max_size=3))
def test_within_ten_percent_after_a_minute_whatever_the_outages(
    rate: float, seconds: float, outages: list[tuple[float, float]]
) -> None:
    """The promise; an outage says nothing of the speed, though 25 seconds of retries pass before it is known as one."""
    run = Run(rate)
    for outage, noticed in outages:
        run.work(seconds / (len(outages) + 1))
        run.outage(outage, noticed)
    run.work(seconds / (len(outages) + 1))
    assert run.error() < 0.1


@given(rates, st.floats(1.0, 10.0))
def test_within_ten_percent_after_a_slow_start(rate: float, seconds: float) -> None:
    """The client climbs to its rate within some seconds."""
    run = Run(rate * 0.5)
    run.work(seconds / 2)
    run.rate = rate
    run.work(60.0)
    assert run.error() < 0.1


@given(rates, st.floats(0.0, 100.0))
def test_between_two_looks_the_clock_runs_on(rate: float, later: float) -> None:
    run = Run(rate)
    run.work(30.0)
    left = run.pace.left(1_000, run.now)
    assert left is not None
    assert run.pace.left(1_000, run.now + later) == pytest.approx(max(0.0, left - later))


@given(rates, rates)
def test_a_changed_speed_shows_within_minutes(before: float, after: float) -> None:
    """Five minutes later an hour at another speed counts little: less than a twelfth of it."""
    run = Run(before)
    run.work(3600.0, look_every=10.0)
    run.rate = after
    run.work(300.0)
    rate = run.pace.rate
    assert rate is not None
    assert abs(rate - after) <= abs(before - after) / 12 + 0.5


@given(rates, st.floats(0.0, 60.0))
def test_while_it_waits_nobody_knows(rate: float, seconds: float) -> None:
    run = Run(rate)
    run.work(5.0)
    run.pace.wait(run.now, seconds)
    assert run.pace.left(1, run.now) is None
    run.pace.wait(run.now + 5.0, seconds + 5.0)
    assert run.pace.left(1, run.now) is None
    assert run.pace.left(0, run.now) == 0.0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("work"), st.floats(0.0, 1000.0), st.integers(0, 100_000)),
            st.tuples(st.just("wait"), st.floats(0.0, 1000.0), st.floats(0.0, 1000.0)),
            st.tuples(st.just("resume"), st.floats(0.0, 1000.0), st.just(0)),
        )
    )
)
def test_whatever_happens_it_is_a_time_or_unknown(happenings: list[tuple[str, float, float]]) -> None:
    """Never negative, never infinite, never an error; clocks that stand still included."""
    pace, now, settled = Throughput(0.0, 0), 0.0, 0
    for what, passed, number in happenings:
        now += passed
        if what == "work":
            settled += int(number)
            pace.advance(now, settled)
        elif what == "wait":
            pace.wait(now, number)
        else:
            pace.resume(now)
        left = pace.left(1_000, now)
        assert left is None or 0.0 <= left < float("inf")
