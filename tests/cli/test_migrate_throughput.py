"""The estimated time left, as arithmetic on observations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.cli.migrate.throughput import Throughput

steps = st.lists(st.floats(0.01, 30.0), min_size=1, max_size=60)
rates = st.floats(1.0, 10_000.0)


class Run:
    """A run with a known rate and its own clock, observed at intervals."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.now = 1000.0
        self.settled = 0.0
        self.seen = Throughput(self.now, 0)

    def work(self, seconds: float, look_every: float = 1.0) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            step = min(look_every, until - self.now)
            self.now += step
            self.settled += self.rate * step
            self.seen.advance(self.now, round(self.settled))

    def outage(self, seconds: float, noticed_after: float) -> None:
        """Settle nothing; the outage is reported only after a while."""
        rate, self.rate = self.rate, 0.0
        self.work(noticed_after)
        self.seen.pause()
        self.work(seconds)
        self.seen.resume(self.now)
        self.rate = rate

    def error(self) -> float:
        """Return the relative error of the time left for 100,000 rows."""
        left = self.seen.seconds_left(100_000, self.now)
        assert left is not None
        return abs(left * self.rate / 100_000 - 1)


@given(rates, steps, st.integers(0, 10**7))
def test_a_constant_rate_is_estimated_exactly(rate: float, looks: list[float], settled: int) -> None:
    """At any interval, and after any earlier run; at first, it is unknown."""
    seen, now = Throughput(50.0, settled), 50.0
    seen.advance(now, settled)
    assert (seen.rate, seen.seconds_left(10, 55.0)) == (None, None)
    for step in looks:
        now += step
        seen.advance(now, settled + round(rate * (now - 50.0)))
    if rate * min(now - 50.0, 100.0) >= 20:
        left = seen.seconds_left(1_000, now)
        assert left is not None
        # Rows are whole, so that the first and the last may be off by half; the clock may be off by what a float loses.
        assert left == pytest.approx(1_000 / rate, rel=0.06)


@given(rates, st.floats(60.0, 600.0), st.lists(st.tuples(st.floats(1.0, 7200.0), st.floats(0.0, 25.0)), max_size=3))
def test_within_ten_percent_after_a_minute_whatever_the_outages(
    rate: float, seconds: float, outages: list[tuple[float, float]]
) -> None:
    """Outages do not change the estimate, though 25 seconds of retries pass before one is reported."""
    run = Run(rate)
    for outage, noticed in outages:
        run.work(seconds / (len(outages) + 1))
        run.outage(outage, noticed)
    run.work(seconds / (len(outages) + 1))
    assert run.error() < 0.1


@given(rates, rates, st.floats(1.0, 10.0))
def test_a_change_shows(before: float, after: float, seconds: float) -> None:
    """A slow start is within ten percent after a minute; a pace of two minutes ago is gone."""
    run = Run(before * 0.5)
    run.work(seconds / 2)
    run.rate = before
    run.work(60.0)
    assert run.error() < 0.1
    run.rate = after
    run.work(125.0)
    assert run.error() < 0.05


@given(rates, st.floats(0.0, 100.0))
def test_the_clock_runs_on(rate: float, later: float) -> None:
    """The estimate counts down between observations, and is unknown during an outage."""
    run = Run(rate)
    run.work(30.0)
    left = run.seen.seconds_left(1_000, run.now)
    assert left is not None
    assert run.seen.seconds_left(1_000, run.now + later) == pytest.approx(max(0.0, left - later))
    run.seen.pause()
    assert run.seen.seconds_left(1, run.now) is None
    assert run.seen.seconds_left(0, run.now) == 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["work", "wait", "resume"]), st.floats(0.0, 1000.0), st.integers(0, 100_000)),
    )
)
def test_whatever_happens_it_is_a_time_or_unknown(happenings: list[tuple[str, float, int]]) -> None:
    """Never negative, infinite or an error, even with a clock that stands still."""
    seen, now, settled = Throughput(0.0, 0), 0.0, 0
    for what, passed, rows in happenings:
        now += passed
        if what == "work":
            settled += rows
            seen.advance(now, settled)
        elif what == "wait":
            seen.pause()
        else:
            seen.resume(now)
        left = seen.seconds_left(1_000, now)
        assert left is None or 0.0 <= left < float("inf")
        assert seen.seconds_left(0, now) == 0.0
