"""The limiter's learning in exact numbers, and its permits; `test_pacing` has the effects against servers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import Lane
from tim_async._limiter.learning import Burst, Credit, Rate
from tim_async._limiter.local import SECOND, LocalLimiter, Permit, Slots, Use

from . import virtual_time


class TestRate:
    """The rate that the server accepts."""

    def test_rises_to_the_plateau_stays_near_and_then_climbs(self) -> None:
        """A cubic on both sides of the plateau, and then a straight line."""
        rate = Rate(200, 20)
        rate.lower(10, 0.5)
        low = 0.97 * 0.5 * 200
        plateau = low / 0.85
        assert rate.value(10) == pytest.approx(low)
        assert rate.value(11) == pytest.approx(plateau - (plateau - low) / 8)
        assert rate.value(12) == pytest.approx(plateau)
        assert rate.value(13) == pytest.approx(plateau + 200 / 150)
        assert rate.value(14.5) == pytest.approx(plateau + 200 * 2.5**3 / 150)
        assert rate.value(15.5) == pytest.approx(plateau + 200 * (2.5**3 / 150 + 0.125))
        assert not rate.full
        assert rate.value(17.5) == 200
        assert rate.full

    def test_falls_a_little_below_the_answers_of_the_last_second(self) -> None:
        """The server had room for that many calls of this client: the plateau, to which the rate returns."""
        rate = Rate(200, 20)
        for now, answered in ((10.0, 199.0), (12.0, 190.0)):
            assert rate.refused(now, now - 0.01, answered, 1000.0)
            assert rate.value(now) == pytest.approx(0.99 * answered)
        assert rate.value(12.0 + Rate.HOLD) == pytest.approx(190.0)

    def test_probes_above_the_plateau_only(self) -> None:
        rate = Rate(200, 20)
        assert not rate.probing(1000)
        rate.lower(10, 0.5)
        assert not rate.probing(12)
        assert rate.probing(12.001)

    def test_never_falls_below_the_floor(self) -> None:
        rate = Rate(200, 150)
        rate.lower(10, 0.1)
        assert rate.value(10) == pytest.approx(150)
        for _ in range(100):
            rate.refused(10.1, 10.0, 10.0, 100.0)
        assert rate.value(10.1) == pytest.approx(150)

    @pytest.mark.parametrize(("later", "begins"), [(0.999, False), (1.0, True)])
    def test_an_event_lasts_for_a_second(self, later: float, begins: bool) -> None:
        rate = Rate(200, 20)
        assert rate.refused(10.0, 9.9, 200.0, 1.0)
        before = rate.value(10.0 + later)
        assert rate.refused(10.0 + later, 10.0 + later - 0.01, 200.0, 100.0) is begins
        assert rate.value(10.0 + later) == pytest.approx(0.99 * before if begins else before - 1.0)
        rate = Rate(200, 20)
        rate.lower(10.0, 0.5)
        before = rate.value(10.0 + later)
        rate.lower(10.0 + later, 0.5)
        assert rate.value(10.0 + later) == pytest.approx(0.485 * before if begins else before)

    @pytest.mark.parametrize(("sent", "begins"), [(10.0, False), (10.001, True)])
    def test_a_call_sent_when_the_event_began_begins_no_other(self, sent: float, begins: bool) -> None:
        """It was sent at the old rate and says nothing about the new one."""
        rate = Rate(200, 20)
        rate.refused(10.0, 9.9, 200.0, 1.0)
        before = rate.value(15.0)
        assert rate.refused(15.0, sent, 200.0, 100.0) is begins
        assert (rate.value(15.0) < before) is begins

    @pytest.mark.parametrize(("refusals", "cuts"), [(2.9, False), (3.0, True)])
    def test_three_in_a_hundred_refused_are_tolerated_below_the_limit(self, refusals: float, cuts: bool) -> None:
        rate = Rate(200, 20)
        rate.lower(10.0, 0.5)
        assert rate.refused(12.0, 11.9, 100.0, refusals) is cuts

    @pytest.mark.parametrize(("accepted", "kept"), [(0.99, 0.95), (0.6, 0.97 * 0.6), (0.1, 0.4)])
    def test_an_alert_lowers_it_by_5_to_60_percent(self, accepted: float, kept: float) -> None:
        rate = Rate(200, 20)
        rate.lower(10.0, accepted)
        assert rate.value(10.0) == pytest.approx(kept * 200)


@given(
    steps=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2), st.floats(0, 1000), st.floats(0, 1)), max_size=60),
    limit=st.floats(1, 5000),
)
def test_a_rate_stays_within_its_bounds_and_begins_one_event_a_second(
    steps: list[tuple[float, float, float, float]], limit: float
) -> None:
    """For any refusals; without one it never falls."""
    rate, now, begun = Rate(limit, limit / 10), 1000.0, -math.inf
    value = limit
    for pause, age, answered, share in steps:
        now += pause
        assert value - 1e-6 <= rate.value(now) <= limit
        if rate.refused(now, now - age, answered, max(1.0, share * answered)):
            assert now - begun >= 1.0
            assert now - age > begun
            begun = now
        value = rate.value(now)
        assert limit / 10 <= value <= limit


class TestBurst:
    """The number of calls that may start at once."""

    def test_doubles_in_half_a_minute(self) -> None:
        burst = Burst(10)
        assert (burst.value(0.0), burst.full) == (10, True)
        burst.refused(100.0)
        assert not burst.full
        assert burst.value(115.0) == pytest.approx(5 * math.sqrt(2))
        burst.refused(115.0)
        assert burst.value(115.0) == pytest.approx(2.5 * math.sqrt(2))
        assert burst.value(145.0) == pytest.approx(5 * math.sqrt(2))
        assert (burst.value(1000.0), burst.full) == (10, True)

    def test_is_at_least_a_little_more_than_one_call(self) -> None:
        burst = Burst(10)
        for _ in range(9):
            burst.refused(100.0)
        assert burst.value(100.0) == Burst.LEAST

    def test_a_size_below_the_least_is_kept(self) -> None:
        burst = Burst(1.0)
        burst.refused(100.0)
        assert burst.value(100.0) == 1.0


class TestCredit:
    """The credit: how much earlier than a second after its response a slot is used again."""

    @staticmethod
    def of(rtts: tuple[float, ...], times: int) -> Credit:
        """Return a credit that has seen the round trips ``times`` times on an endpoint that was never saturated."""
        credit = Credit()
        for _ in range(times):
            for rtt in rtts:
                credit.answered(rtt, 200, saturated=False)
        return credit

    def test_the_spread_is_a_typical_round_trip_less_the_credit(self) -> None:
        """It is 0 before there are enough of them, and where the credit exceeds a second."""
        assert self.of((0.05,), 19).spread == 0.0
        credit = self.of((0.05,), 20)
        assert credit.spread == pytest.approx(0.05 - credit.value, rel=0.03)
        credit = self.of((3.0,), 20)
        assert credit.value > 1.0
        assert credit.spread == 0.0

    def test_a_path_that_has_become_short_lowers_it_within_a_few_calls(self) -> None:
        """Each of many processes makes few calls."""
        credit = Credit()
        for _ in range(40):
            credit.answered(1.0, 30, saturated=True)
        assert credit.value > 0.8
        for rtt in (0.045, 0.04, 0.05):
            credit.answered(rtt, 30, saturated=True)
        assert credit.value < 0.1

    @pytest.mark.parametrize(
        ("rtt", "typical"), [(0.0051, 0.03), (0.0049, 0.0098), (0.003, 0.006)], ids=["longer", "half", "shorter"]
    )
    def test_a_typical_round_trip_is_at_most_twice_that_of_a_way_that_has_halved(
        self, rtt: float, typical: float
    ) -> None:
        """Seen by a credit that reaches as far as the typical round trip."""
        rtts = (0.01, 0.03, 0.03, 0.03)
        credit = self.of(rtts, 750)
        for _ in range(100):
            for each in rtts:
                credit.answered(each, 1.0, saturated=True)
        assert credit.value == pytest.approx(0.9 * 0.01 - 0.002 + 0.02, rel=0.02)
        credit.answered(rtt, 1.0, saturated=True)
        assert credit.value == pytest.approx(0.9 * rtt - 0.002 + typical - rtt, rel=0.03)

    @pytest.mark.parametrize(
        ("rtts", "climbed"),
        [
            ((0.01, 0.03, 0.03, 0.03), 0.02),  # 400 calls of 200 a second, a hundredth each second
            ((0.05, 0.08, 0.08, 0.08), 0.08),  # four times as fast where the typical round trip is twice LONG
            ((0.05, 0.12, 0.12, 0.12), 0.18),
        ],
    )
    def test_climbs_into_the_spread_of_the_round_trips(self, rtts: tuple[float, ...], climbed: float) -> None:
        credit = self.of(rtts, 750)
        sure = 0.9 * rtts[0] - 0.002
        assert credit.value == pytest.approx(sure)
        for _ in range(100):
            for rtt in rtts:
                credit.answered(rtt, 200, saturated=True)
        assert credit.value - sure == pytest.approx(climbed * (rtts[1] - rtts[0]), rel=0.06)

    def test_a_refusal_lowers_it_and_slows_the_climb(self) -> None:
        credit = self.of((0.01,), 500)
        credit.refused()
        assert credit.value == pytest.approx(0.85 * 0.007)
        for _ in range(500):
            credit.answered(0.01, 200, saturated=True)
        assert credit.value == pytest.approx((0.85 + 0.005) * 0.007, rel=1e-4)
        for _ in range(20):
            credit.refused()
        assert credit.value == 0.0

    def test_climbs_at_most_to_the_typical_round_trip(self) -> None:
        credit = self.of((0.05, 0.08, 0.08, 0.08), 200)
        for _ in range(20_000):
            for rtt in (0.05, 0.08, 0.08, 0.08):
                credit.answered(rtt, 200, saturated=True)
        assert credit.value == pytest.approx(0.9 * 0.05 - 0.002 + 0.03, rel=0.02)

    def test_the_smallest_round_trip_is_that_of_the_last_500_to_999_calls(self) -> None:
        credit = self.of((0.05,), 1)
        for _ in range(998):
            credit.answered(0.1, 200, saturated=False)
        assert credit.value == pytest.approx(0.9 * 0.05 - 0.002)
        credit.answered(0.1, 200, saturated=False)
        assert credit.value == pytest.approx(0.9 * 0.1 - 0.002)

    def test_is_0_before_there_are_enough_round_trips(self) -> None:
        """The first ones are longer because they open connections."""
        credit = Credit()
        for _ in range(Credit.MIN_SAMPLES - 1):
            credit.answered(0.05, 200, saturated=True)
        assert credit.value == 0.0
        credit.answered(0.05, 200, saturated=True)
        assert credit.value > 0.0

    def test_is_0_for_very_short_round_trips(self) -> None:
        """Below the resolution of timers there is nothing to gain."""
        credit = Credit()
        for _ in range(Credit.MIN_SAMPLES):
            credit.answered(0.002, 200, saturated=False)
        assert credit.value == 0.0

    def test_a_stall_changes_it_little(self) -> None:
        """Two hundred answers that are a second late say nothing about the times of arrival."""
        credit = Credit()
        for _ in range(2000):
            credit.answered(0.005, 200, saturated=True)
        before = credit.value
        for _ in range(200):
            credit.answered(1.0, 200, saturated=True)
        assert credit.value - before < 0.001

    def test_a_round_trip_measured_as_0_does_not_make_the_typical_one_0(self) -> None:
        """No factor could raise a typical round trip of 0 again."""
        credit = Credit()
        credit.answered(0.0, 200, saturated=False)
        for _ in range(3000):
            credit.answered(0.05, 200, saturated=False)
        assert credit.spread + credit.value == pytest.approx(0.05, rel=0.01)


class TestSlots:
    """Slots, each of which is taken until a second after its response."""

    def test_a_slot_is_free_a_second_after_its_response_less_the_credit(self) -> None:
        slots = Slots()
        slots.take()
        slots.give_back(10.0)
        assert slots.wait(10.5, 0.0, 1) == pytest.approx(SECOND - 0.5)
        assert slots.wait(10.5, 0.2, 1) == pytest.approx(SECOND - 0.7)
        assert slots.wait(10.5, 0.2, 2) == 0.0
        assert slots.wait(10.0 + SECOND, 0.0, 1) == 0.0

    def test_after_a_cut_of_the_slots_the_excess_must_become_free_first(self) -> None:
        """With five taken of three, the third to become free is the one that leaves two."""
        slots = Slots()
        for _ in range(5):
            slots.take()
        for answered in (10.0, 10.1, 10.2, 10.3, 10.4):
            slots.give_back(answered)
        assert slots.wait(10.5, 0.0, 3) == pytest.approx(10.2 + SECOND - 10.5)

    def test_the_wait_is_infinite_while_all_slots_are_in_flight(self) -> None:
        """Only an answer can end it."""
        slots = Slots()
        slots.take()
        assert slots.wait(10.0, 0.0, 1) == math.inf

    def test_an_unused_slot_is_free_at_once(self) -> None:
        """Its call was never sent."""
        slots = Slots()
        slots.take()
        slots.unused()
        assert slots.wait(10.0, 0.0, 1) == 0.0

    def test_the_answers_of_the_last_second_are_counted(self) -> None:
        """Also when a credit frees the slots sooner."""
        slots = Slots()
        for number in range(200):
            slots.take()
            slots.give_back(10.0 + number / 100)
        assert slots.answered(12.0, 0.0) == pytest.approx(100, abs=1)
        assert slots.answered(12.0, 0.2) == pytest.approx(100, abs=1)

    def test_the_answers_of_free_slots_are_not_counted(self) -> None:
        slots = Slots()
        slots.take()
        slots.give_back(10.0)
        assert slots.answered(11.0, 0.0) == pytest.approx(1 / SECOND)
        assert slots.answered(10.0 + SECOND, 0.0) == 0.0


# Limiters, which need a running event loop


def in_virtual_time(check: Callable[[virtual_time.VirtualTimeLoop], None]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        check(loop)

    virtual_time.run(main())


def at_once(limiter: LocalLimiter, now: float) -> int:
    """Take all permits of one moment and return their number."""
    count = 0
    while limiter.wait(now, Lane.INTERACTIVE) == 0.0:
        limiter.take(now)
        count += 1
    return count


@pytest.mark.parametrize(
    ("limit", "options", "calls", "next_one"),
    [
        (200, {}, 10, 1 / 220),
        (200, {"strict": True}, 4, 1 / 200),
        (5000, {"strict": True}, 100, None),
        (5000, {}, 250 // 12 * 12, None),  # blocks of 12, 20 of them at most
        (20, {}, 4, 1 / 22),
        (20, {"burst": 2.0}, 2, 0.5 / 22),
        (2, {}, 2, math.inf),  # there are two slots
    ],
)
def test_the_calls_that_start_at_once(
    limit: float, options: dict[str, Any], calls: int, next_one: float | None
) -> None:
    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter, strict = LocalLimiter(limit, **options), "strict" in options
        assert at_once(limiter, loop.now) == calls
        wait = limiter.wait(loop.now, Lane.INTERACTIVE)
        if next_one is not None:
            assert wait == pytest.approx(next_one)
        if wait < math.inf:
            loop.now += 1.01 * max(1.0, int(limit / 50 / 20)) / (limit * (1.0 if strict else 1.1))
            assert 1 <= at_once(limiter, loop.now) <= 12

    in_virtual_time(check)


def test_a_permit_has_the_time_at_which_it_was_taken() -> None:
    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(200)
        permit = limiter.take(loop.now)
        assert (permit.sent, permit.release_inner) == (loop.now, None)
        assert (limiter.latency, limiter.grace, limiter.shared) == (0.0, math.inf, False)
        assert (limiter.limit, limiter.processes) == (200, 1)
        assert limiter.rate(loop.now) == limiter.pace(loop.now) == 200

    in_virtual_time(check)


def test_a_permit_taken_before_its_time_is_a_runtime_error() -> None:
    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(200)
        at_once(limiter, loop.now)
        with pytest.raises(RuntimeError, match=r"^aiolimiter waited although it had capacity$"):
            limiter.take(loop.now)

    in_virtual_time(check)


def test_a_drained_bucket_has_no_burst() -> None:
    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        for limit in (200, 5000):
            limiter = LocalLimiter(limit)
            if limit == 5000:
                limiter.take(loop.now)  # of a block, whose rest must be gone, too
            limiter.drain()
            assert at_once(limiter, loop.now) == 0

    in_virtual_time(check)


def test_a_lowered_rate_is_kept_by_slots_and_bucket() -> None:
    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(200)
        limiter.slow_down(0.5, loop.now)
        rate = limiter.rate(loop.now)
        assert rate == pytest.approx(97)
        assert limiter.pace(loop.now) == rate
        assert at_once(limiter, loop.now) == 10 * rate // 220
        assert limiter.wait(loop.now, Lane.BULK) == pytest.approx(1 / rate)

    in_virtual_time(check)


def test_below_the_limit_a_few_refusals_a_second_are_tolerated() -> None:
    """Of the 90 calls of a second fewer than 3 %: two, and two more in the next second."""

    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(200)
        limiter.slow_down(0.5, loop.now)

        def a_refusal_lowers_the_rate() -> bool:
            before = limiter.rate(loop.now)
            limiter.refused(loop.now - 0.01, loop.now)
            return limiter.rate(loop.now) < before

        for refusals in (2, 2, 3):
            for _ in range(90):
                loop.now += 1.001 / 90
                assert limiter.wait(loop.now, Lane.BULK) == 0.0
                limiter.release(limiter.take(loop.now), loop.now, Use.ANSWERED)
            lowered = [a_refusal_lowers_the_rate() for _ in range(refusals)]
            assert lowered == [False, False, True][:refusals]

    in_virtual_time(check)


def test_a_refusal_at_the_limit_lowers_credit_and_burst() -> None:
    """A later one, below the limit, leaves the credit and, while the rate probes, the burst."""

    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(200)
        for _ in range(60):
            permit = limiter.take(loop.now)
            loop.now += 0.05
            limiter.release(permit, loop.now, Use.ANSWERED)
        sure = 0.9 * 0.05 - 0.002
        assert limiter._credit.value == pytest.approx(sure)
        limiter.refused(loop.now - 0.01, loop.now)
        assert limiter._credit.value == pytest.approx(0.85 * sure)
        assert limiter._burst.value(loop.now) == 5.0
        assert limiter.rate(loop.now) == pytest.approx(0.99 * 0.9 * 200)
        loop.now += 1.0
        assert 4 <= at_once(limiter, loop.now) <= 5
        loop.now += 1.5
        for _ in range(20):
            limiter.refused(loop.now - 0.01, loop.now)
        assert limiter._credit.value == pytest.approx(0.85 * sure)
        assert limiter._burst.value(loop.now) == pytest.approx(5.0 * 2 ** (2.5 / 30))

    in_virtual_time(check)


@pytest.mark.parametrize(("limit", "before", "after"), [(200, 10, 5), (5000, 240, 120)])
def test_a_refusal_halves_the_calls_that_go_at_once(limit: float, before: int, after: int) -> None:
    """Also where they are permitted in blocks."""

    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(limit)
        limiter.refused(loop.now - 0.01, loop.now)
        loop.now += 60.0
        limiter.wait(loop.now, Lane.BULK)
        assert limiter.rate(loop.now) == limit, "of the refusal only the smaller burst is left, soon not even that"
        assert at_once(limiter, loop.now) == before
        loop.now += 60.0
        limiter.refused(loop.now - 0.01, loop.now)
        loop.now += 1.0
        assert after * 0.9 <= at_once(limiter, loop.now) <= after * 1.05

    in_virtual_time(check)


@pytest.mark.parametrize(("use", "strict"), [(Use.UNANSWERED, False), (Use.UNSENT, False), (Use.ANSWERED, True)])
def test_only_answers_raise_the_credit_and_strict_has_none(use: Use, strict: bool) -> None:
    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(200, strict=strict)
        for _ in range(60):
            permit = limiter.take(loop.now)
            loop.now += 0.05
            limiter.release(permit, loop.now, use)
        assert limiter._credit.value == 0.0

    in_virtual_time(check)


@pytest.mark.parametrize("limit", [2, 200])
def test_credit_grows_while_calls_wait_for_slots(limit: float) -> None:
    """Two calls at a time wait for the slots of a limit of 2, and for none of 200."""

    def check(loop: virtual_time.VirtualTimeLoop) -> None:
        limiter = LocalLimiter(limit)
        for number in range(200):
            permits = list[Permit]()
            while len(permits) < 3 and limiter.wait(loop.now, Lane.BULK) == 0.0:
                permits.append(limiter.take(loop.now))
            loop.now += 0.05 if number % 4 == 0 else 0.07
            for permit in permits:
                limiter.release(permit, loop.now, Use.ANSWERED)
            loop.now += 1.1
        sure = 0.9 * 0.05 - 0.002
        assert limiter._credit.value > 1.1 * sure if limit == 2 else limiter._credit.value == pytest.approx(sure)

    in_virtual_time(check)
