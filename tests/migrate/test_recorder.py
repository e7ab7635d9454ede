from __future__ import annotations

import json
import random
import string
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.emulator.support import Clock
from tim_async import Attempt, Lane, TIMClient
from tim_async.emulator import Emulator
from tim_async.migrate import Recorder, Series, Slot, quantile
from tim_async.migrate._recorder import BINS, SLOTS, bin_of, edge

START = 1_763_676_612.0


def attempt(error: str | None = None, *, number: int = 1, took: float = 0.03, endpoint: str = "here") -> Attempt:
    code = {None: 0, "RateLimited": 60011, "ServerBusy": 10002}.get(error)
    return Attempt(endpoint, number, Lane.BULK, 0.0, took, code, error)


def recorder(clock: Clock) -> Recorder:
    return Recorder("here", 200.0, clock=clock)


counts = st.integers(0, 10**9)
slots = st.builds(
    lambda done, refused, faults, retried, cut, took: Slot(
        done + refused + faults + cut, done, refused, faults, retried, took
    ),
    counts,
    counts,
    counts,
    counts,
    counts,
    st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 10**12), max_size=30),
)
times = st.floats(-1e10, 1e10)
limits = st.just(0.0) | st.floats(1e-3, 1e6)
series = st.builds(Series, times, st.integers(0, 20).map(lambda n: 2.0**n), limits, st.lists(slots, max_size=40), times)


def test_attempts_are_counted_by_their_outcome() -> None:
    """A cancelled attempt counts as sent, but neither as a success nor as a fault."""
    clock = Clock(START)
    watching = recorder(clock)
    for one in (
        attempt(),
        attempt(number=2),
        attempt("RateLimited"),
        attempt("ServerBusy"),
        attempt("RequestTimeout", number=3),
        attempt("CancelledError"),
        attempt(endpoint="elsewhere"),
    ):
        watching.attempt(one)
    (slot,) = watching.series.slots
    assert (slot.sent, slot.done, slot.refused, slot.faults, slot.retried) == (6, 2, 1, 2, 2)
    assert (watching.sent, watching.done, watching.refused, watching.faults, watching.retried) == (6, 2, 1, 2, 2)
    # Latencies of all attempts with an answer.
    assert slot.took == {bin_of(0.03): 4}


def test_the_series_begins_with_the_first_request() -> None:
    """Not with the recorder, because reading a large file takes minutes."""
    clock = Clock(START)
    watching = recorder(clock)
    assert watching.series.slots == []
    clock.now += 300
    watching.attempt(attempt(took=0.25))
    assert watching.series.started == clock.now - 0.25
    assert watching.series.until == clock.now
    assert watching.series.seconds == pytest.approx(0.25)
    assert len(watching.series.slots) == 1


def test_slots_are_seconds() -> None:
    clock = Clock(START)
    watching = recorder(clock)
    for moment in (0.0, 0.9, 1.1, 4.5):
        clock.now = START + 0.03 + moment
        watching.attempt(attempt())
    assert [slot.done for slot in watching.series.slots] == [2, 1, 0, 0, 1]
    assert watching.series.width == 1.0


def test_a_long_run_needs_no_more_slots() -> None:
    """In 14 hours slots are merged in pairs; nothing is lost, and the shape stays."""
    clock = Clock(START)
    watching = recorder(clock)
    for second in range(14 * 3600):
        clock.now = START + second + 0.5
        watching.attempt(attempt("RateLimited" if 7200 <= second < 7290 else None))
        assert len(watching.series.slots) <= SLOTS
    result = watching.series
    assert result.width == 128.0
    assert sum(slot.sent for slot in result.slots) == watching.sent == 14 * 3600
    assert sum(sum(slot.took.values()) for slot in result.slots) == 14 * 3600
    assert {at for at, slot in enumerate(result.slots) if slot.refused} == {7200 // 128}
    assert all(slot.done == 128 for slot in result.slots[60:-1])


def test_a_jump_of_the_clock_beyond_all_slots() -> None:
    """After a day of sleep, or a correction by a year."""
    clock = Clock(START)
    watching = recorder(clock)
    for jump in (0, 86_400, 365 * 86_400):
        clock.now += jump
        watching.attempt(attempt())
    assert len(watching.series.slots) <= SLOTS
    assert sum(slot.done for slot in watching.series.slots) == 3
    assert Series.from_json(watching.series.to_json()) == watching.series


def test_a_clock_that_is_set_back() -> None:
    """No attempt is lost, and the rates are right again within seconds."""
    clock = Clock(START)
    watching = recorder(clock)
    for change in (0, -3600, 1800, -7200):
        clock.now += change
        for _ in range(2000):
            clock.now += 0.01
            watching.attempt(attempt())
        assert watching.recent_rate(clock.now) == pytest.approx(100, rel=0.02)
    assert sum(slot.done for slot in watching.series.slots) == watching.done == 8000
    assert watching.series.seconds == pytest.approx(1880, abs=1)
    assert Series.from_json(watching.series.to_json()) == watching.series


def test_the_recent_rate() -> None:
    """The mean of the last ten seconds, or of the run so far; zero ten seconds after the last success."""
    clock = Clock(START)
    watching = recorder(clock)
    assert watching.recent_rate(START) == 0.0
    for at in range(3000):
        clock.now = START + 0.03 + at / 100
        watching.attempt(attempt("ServerBusy" if 1000 <= at < 2000 else None))
        if at in (300, 999):
            assert watching.recent_rate(clock.now) == pytest.approx(100, rel=0.02)
        if at == 2010:
            assert watching.recent_rate(clock.now) < 5
    assert watching.recent_rate(clock.now) == pytest.approx(100, rel=0.02)
    assert watching.recent_rate(clock.now + 5) == pytest.approx(50, rel=0.15)
    assert watching.recent_rate(clock.now + 11) == 0.0


def test_the_rate_never_exceeds_the_limit() -> None:
    """Only whole seconds count: each may have 200 calls, and so may a part of one."""
    clock = Clock(START)
    watching = recorder(clock)
    for second in range(4):
        for at in range(200):
            clock.now = START + second + 0.05 + at / 250
            watching.attempt(attempt(took=0.05))
            assert watching.recent_rate(clock.now) <= 200
    assert watching.series.rate == 200


@given(series)
def test_json_restores_the_series(found: Series) -> None:
    assert Series.from_json(found.to_json()) == found


def test_json_is_small() -> None:
    """Worst case: ten hours at full rate in 600 slots, with latencies over two orders of magnitude."""
    random_ = random.Random(5)
    clock = Clock(START)
    rates = []
    for _ in range(SLOTS):
        took: dict[int, int] = {}
        for _ in range(1_000):
            bin_ = bin_of(random_.lognormvariate(-3.3, 0.4))
            took[bin_] = took.get(bin_, 0) + 13
        rates.append(Slot(12_700, 12_600 + random_.randrange(90), random_.randrange(3), 0, random_.randrange(5), took))
    whole = Series(clock.now, 64.0, 200.0, rates, clock.now + 64 * SLOTS)
    text = whole.to_json()
    assert len(zlib.compress(text.encode())) < 50_000, len(text)
    assert Series.from_json(text) == whole
    text.encode("ascii")


def test_json_of_a_quiet_run_is_small() -> None:
    clock = Clock(START)
    watching = recorder(clock)
    for second in range(SLOTS):
        clock.now = START + second + 0.5
        watching.attempt(attempt())
    assert len(watching.series.to_json()) < 15_000


@given(st.text() | st.text(string.printable))
@example("")
@example("{}")
@example("null")
@example("[" * 100_000)
@example('{"version":1')
@example('{"started":' + "9" * 5000)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Series.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(series, st.sampled_from(["version", "started", "until", "width", "limit", "slots"]), json_values)
def test_a_random_value_of_one_field_is_read_or_refused(found: Series, name: str, value: object) -> None:
    document = json.loads(found.to_json())
    document[name] = value
    text = json.dumps(document)
    try:
        read = Series.from_json(text)
    except ValueError:
        return
    assert Series.from_json(read.to_json()) == read


@given(series, st.data())
def test_damaged_json_is_read_or_refused(found: Series, data: st.DataObject) -> None:
    """With a piece removed or characters changed."""
    text = found.to_json()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    damaged = text[:start] + data.draw(st.text(string.printable, max_size=3)) + text[end:]
    try:
        read = Series.from_json(damaged)
    except ValueError:
        return
    assert len(read.slots) <= SLOTS


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"started": None},
        {"started": 1e300},
        {"until": True},
        {"width": 0},
        {"width": -1.0},
        {"limit": -1},
        {"limit": 1e-9},
        {"width": 0.5},
        {"slots": None},
        {"slots": [[1]] * (SLOTS + 1)},
        {"slots": [[1, 0]]},
        {"slots": [[-1, 0, 0, 0, 0]]},
        {"slots": [[1.5, 0, 0, 0, 0]]},
        {"slots": [[True, 0, 0, 0, 0]]},
        {"slots": [[1, 2, 3, 4, 5, 6]]},
        {"slots": [[1, 2, 3, 4, 5, 6, -7]]},
        {"slots": [[1, 2, 3, 4, 5, BINS, 1]]},
        {"slots": [{"sent": 1}]},
    ],
    ids=repr,
)
def test_an_invalid_value_is_refused(change: dict[str, object]) -> None:
    document = json.loads(Series(1.0, 1.0, 200.0, [Slot(1, 1), Slot()], 2.0).to_json())
    assert Series.from_json(json.dumps(document)).slots == [Slot(1, 1), Slot()]
    with pytest.raises(ValueError, match="not a series"):
        Series.from_json(json.dumps({**document, **change}))


def test_bins() -> None:
    """They increase, cover all times, and each contains the times between its edges."""
    assert bin_of(0.0) == bin_of(-1.0) == 0
    assert bin_of(1e9) == BINS - 1
    for bin_ in range(BINS):
        assert bin_of(1.001 * edge(bin_)) == bin_of(0.999 * edge(bin_ + 1)) == bin_


@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_accurate_to_a_bin(times: list[float], q: float) -> None:
    took: dict[int, int] = {}
    for seconds in times:
        took[bin_of(seconds)] = took.get(bin_of(seconds), 0) + 1
    found = quantile(took, q)
    assert found is not None
    ranked = sorted(times)
    low = ranked[max(0, int(q * len(ranked) - 1e-9) - 1)]
    high = ranked[min(len(ranked) - 1, int(q * len(ranked) + 1e-9))]
    assert 0.85 * low <= found <= 1.16 * high


def test_quantiles_of_a_smooth_distribution() -> None:
    """They are accurate to 4 %."""
    random_ = random.Random(3)
    times = sorted(random_.lognormvariate(-3.3, 0.4) for _ in range(50_000))
    took: dict[int, int] = {}
    for seconds in times:
        took[bin_of(seconds)] = took.get(bin_of(seconds), 0) + 1
    for q in (0.05, 0.5, 0.95, 0.99):
        assert quantile(took, q) == pytest.approx(times[int(q * len(times))], rel=0.04)


def test_quantiles_without_values() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None
    for q in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="q must be"):
            quantile({3: 1}, q)


async def test_a_recorder_is_a_hook_of_the_client() -> None:
    """It counts the requests that the service received, of its own endpoint only."""
    async with Emulator() as service:
        service.state.add_messages("alice", "bob", 3)
        watching = Recorder("admin_set_msg_read", 200.0)
        async with TIMClient(**service.client_options(), on_attempt=watching.attempt) as tim:
            for _ in range(5):
                await tim.admin_set_msg_read("bob", "alice")
            await tim.get_all_c2c_unread_msg_num("bob")
        assert (watching.sent, watching.done) == (5, 5)
        assert sum(sum(slot.took.values()) for slot in watching.series.slots) == 5
        assert watching.recent_rate(watching.series.until) > 0
