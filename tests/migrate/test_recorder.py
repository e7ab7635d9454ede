from __future__ import annotations

import json
import random
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import Attempt, Lane, TIMClient
from tim_async.emulator import Emulator
from tim_async.migrate import Recorder, Series, Slot, quantile
from tim_async.migrate._recorder import BINS, SLOTS, bin_of, edge

START = 1_763_676_612.0


class Clock:
    """Unix time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


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


def test_what_is_counted() -> None:
    """Each attempt by how it ended; one that was cancelled was sent, and is neither success nor fault."""
    clock = Clock()
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
    # Those that were answered, whatever the answer.
    assert slot.took == {bin_of(0.03): 4}


def test_the_series_begins_with_the_first_request() -> None:
    """Not with the recorder: reading a large file takes minutes."""
    clock = Clock()
    watching = recorder(clock)
    assert watching.series.slots == []
    clock.now += 300
    watching.attempt(attempt(took=0.25))
    assert watching.series.started == clock.now - 0.25
    assert watching.series.until == clock.now
    assert watching.series.seconds == pytest.approx(0.25)
    assert len(watching.series.slots) == 1


def test_slots_are_by_time() -> None:
    clock = Clock()
    watching = recorder(clock)
    for moment in (0.0, 0.9, 1.1, 4.5):
        clock.now = START + 0.03 + moment
        watching.attempt(attempt())
    assert [slot.done for slot in watching.series.slots] == [2, 1, 0, 0, 1]
    assert watching.series.width == 1.0


def test_a_night_takes_no_more_room_than_ten_minutes() -> None:
    """14 hours: slots are merged in pairs, nothing is lost, and the shape stays."""
    clock = Clock()
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


def test_one_jump_of_the_clock_over_all_slots() -> None:
    """A machine that slept for a day, and one whose clock was a year off."""
    clock = Clock()
    watching = recorder(clock)
    for jump in (0, 86_400, 365 * 86_400):
        clock.now += jump
        watching.attempt(attempt())
    assert len(watching.series.slots) <= SLOTS
    assert sum(slot.done for slot in watching.series.slots) == 3
    assert Series.from_json(watching.series.to_json()) == watching.series


def test_a_clock_that_is_set_back() -> None:
    """Nothing is lost, and no rate is wrong for long."""
    clock = Clock()
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


def test_recent_rate() -> None:
    """Of the last ten seconds, or of what there is; gone ten seconds after the last success."""
    clock = Clock()
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


def test_no_rate_exceeds_the_limit() -> None:
    """A second holds at most 200 calls, and a part of one may hold as many: only whole seconds count."""
    clock = Clock()
    watching = recorder(clock)
    for second in range(4):
        for at in range(200):
            clock.now = START + second + 0.05 + at / 250
            watching.attempt(attempt(took=0.05))
            assert watching.recent_rate(clock.now) <= 200
    assert watching.series.rate == 200


@given(series)
def test_json_keeps_everything(found: Series) -> None:
    assert Series.from_json(found.to_json()) == found


def test_json_is_small() -> None:
    """The worst that fits into 600 slots: ten hours at full rate, latencies spread over two powers of ten."""
    random_ = random.Random(5)
    clock = Clock()
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
    clock = Clock()
    watching = recorder(clock)
    for second in range(SLOTS):
        clock.now = START + second + 0.5
        watching.attempt(attempt())
    assert len(watching.series.to_json()) < 15_000


@given(st.one_of(st.text(), st.text(string.printable), st.binary().map(lambda data: data.decode("latin-1"))))
def test_garbage(text: str) -> None:
    with pytest.raises(ValueError):
        Series.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(series, st.sampled_from(["version", "started", "until", "width", "limit", "slots"]), json_values)
def test_one_field_of_garbage(found: Series, name: str, value: object) -> None:
    """Read as what it says, or refused; never anything else."""
    document = json.loads(found.to_json())
    document[name] = value
    text = json.dumps(document)
    try:
        read = Series.from_json(text)
    except ValueError:
        return
    assert Series.from_json(read.to_json()) == read


@given(series, st.data())
def test_damaged(found: Series, data: st.DataObject) -> None:
    """A piece cut out or a character changed: read as something, or refused."""
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
def test_wrong(change: dict[str, object]) -> None:
    """Each rule alone."""
    document = json.loads(Series(1.0, 1.0, 200.0, [Slot(1, 1), Slot()], 2.0).to_json())
    assert Series.from_json(json.dumps(document)).slots == [Slot(1, 1), Slot()]
    with pytest.raises(ValueError, match="not a series"):
        Series.from_json(json.dumps({**document, **change}))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "1", "[" * 100_000, '{"version":1', '{"started":' + "9" * 5000]
)
def test_no_series(text: str) -> None:
    with pytest.raises(ValueError):
        Series.from_json(text)


def test_bins() -> None:
    """They rise, cover all times from nothing to forever, and each holds what is between its edges."""
    assert bin_of(0.0) == bin_of(-1.0) == 0
    assert bin_of(1e9) == BINS - 1
    for bin_ in range(BINS):
        assert bin_of(1.001 * edge(bin_)) == bin_of(0.999 * edge(bin_ + 1)) == bin_


@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=200), st.floats(0, 1))
def test_quantile(times: list[float], q: float) -> None:
    """Between the values on both sides of it, to within a bin."""
    took: dict[int, int] = {}
    for seconds in times:
        took[bin_of(seconds)] = took.get(bin_of(seconds), 0) + 1
    found = quantile(took, q)
    assert found is not None
    ranked = sorted(times)
    low = ranked[max(0, int(q * len(ranked) - 1e-9) - 1)]
    high = ranked[min(len(ranked) - 1, int(q * len(ranked) + 1e-9))]
    assert 0.85 * low <= found <= 1.16 * high


def test_quantiles_of_many() -> None:
    """Of a smooth distribution they are right to a few per cent."""
    random_ = random.Random(3)
    times = sorted(random_.lognormvariate(-3.3, 0.4) for _ in range(50_000))
    took: dict[int, int] = {}
    for seconds in times:
        took[bin_of(seconds)] = took.get(bin_of(seconds), 0) + 1
    for q in (0.05, 0.5, 0.95, 0.99):
        assert quantile(took, q) == pytest.approx(times[int(q * len(times))], rel=0.04)


def test_quantile_of_nothing() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None
    for q in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="q must be"):
            quantile({3: 1}, q)


async def test_as_a_hook_of_the_client() -> None:
    """What it counts is what the service saw, of that endpoint and no other."""
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
