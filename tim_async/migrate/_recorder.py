"""A run over time: a series of slots, each with a few numbers.

Slots are one second wide at first.  When there would be too many, pairs are merged and each is twice as wide: a minute
of a run is shown in seconds, a night in minutes, and both take the same space.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tim_async._hooks import Attempt

SLOTS = 600
"""The maximum number of slots of a series."""

BINS = 128
"""The maximum number of bins of a latency histogram."""

_BINS_PER_OCTAVE = 5
"""Bins for a factor of two: each is 15 % wide."""

_UNITS_PER_SECOND = 64_000.0
"""The inverse of the first bin's lower edge, 1/s."""

_RECENT = 10
"""The window of `Recorder.recent_rate`, seconds."""

_TOO_LARGE = 1e11
"""3,000 years in seconds; every time, width and limit is below."""

_MIN_LIMIT = 1e-3
"""The minimum limit, calls/s."""

_TOO_MANY = 2**53
"""Every count is below."""

_VERSION = 1


@dataclass(slots=True)
class Slot:
    """The attempts that ended in one slot of time.

    An attempt that is neither done nor refused nor a fault was cancelled by this side, e.g. when a run was stopped.

    Attributes:
        sent: attempts.
        done: those that succeeded.
        refused: those that were over the rate.
        faults: those that failed otherwise.
        retried: those that were not the first of their call.
        took: the latencies of those that were answered: a histogram, the number by bin, see `bin_of`.
    """

    sent: int = 0
    done: int = 0
    refused: int = 0
    faults: int = 0
    retried: int = 0
    took: dict[int, int] = field(default_factory=dict)

    def add(self, other: Slot) -> None:
        """Add the attempts of another slot."""
        self.sent += other.sent
        self.done += other.done
        self.refused += other.refused
        self.faults += other.faults
        self.retried += other.retried
        for bin_, count in other.took.items():
            self.took[bin_] = self.took.get(bin_, 0) + count

    @classmethod
    def sum(cls, slots: Iterable[Slot]) -> Slot:
        """Return one slot with the attempts of several."""
        total = cls()
        for slot in slots:
            total.add(slot)
        return total


@dataclass(slots=True)
class Series:
    """A run over time.

    Attributes:
        started: the start of slot 0, unix seconds: the time when the first attempt was sent.
        width: the length of a slot, seconds.
        limit: the rate that the service allows, calls/s; 0 when unknown.
        slots: consecutive slots, at most `SLOTS`.
        until: the time when the last attempt ended, unix seconds; 0 when unknown.
    """

    started: float = 0.0
    width: float = 1.0
    limit: float = 0.0
    slots: list[Slot] = field(default_factory=list)
    until: float = 0.0

    @property
    def seconds(self) -> float:
        """The time from the start of the first slot to the end of the last attempt, seconds."""
        whole = self.width * len(self.slots)
        return min(whole, self.until - self.started) if self.until > self.started else whole

    @property
    def rate(self) -> float:
        """The mean rate of successful calls, calls/s, over whole slots: the limit applies to whole seconds only."""
        whole = self.slots[:-1] or self.slots
        return sum(slot.done for slot in whole) / (self.width * len(whole)) if whole else 0.0

    def to_json(self) -> str:
        """Return the series as JSON, slots as lists without names: it is saved every few seconds."""
        document = {
            "version": _VERSION,
            "started": self.started,
            "until": self.until,
            "width": self.width,
            "limit": self.limit,
            "slots": [_to_list(slot) for slot in self.slots],
        }
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Series:
        """Return the series of a text from `to_json`.

        Raises:
            ValueError: the text is none.
        """
        try:
            document = json.loads(text)
        except RecursionError:
            raise ValueError("not a series: nested too deep") from None
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise ValueError("not a series, or one of another version")
        started, until, width, limit = (_seconds(document, name) for name in ("started", "until", "width", "limit"))
        if width < 1.0 or (limit and limit < _MIN_LIMIT):
            raise ValueError("not a series: a slot shorter than a second, or an impossible limit")
        rows = document.get("slots")
        if not isinstance(rows, list) or len(rows) > SLOTS:
            raise ValueError("not a series: no slots, or too many")
        return cls(started, width, limit, [_from_list(row) for row in rows], until)


class Recorder:
    """A counter of the attempts of one endpoint, for ``TIMClient(on_attempt=recorder.attempt)``.

    It belongs to the client's event loop: no other thread may call it while attempts are made.

    Args:
        endpoint: the endpoint's name, or several; attempts of other endpoints are ignored.
        limit: the rate that the service allows on it, calls/s.
        clock: returns the time, unix seconds.

    Attributes:
        series: the attempts over time.
        sent: attempts so far.
        done: those that succeeded.
        refused: those that were over the rate.
        faults: those that failed otherwise.
        retried: those that were not the first of their call.
        failure: the error that ended the counting; None when there was none.
    """

    def __init__(self, endpoint: str | Iterable[str], limit: float, *, clock: Callable[[], float] = time.time) -> None:
        self.series: Series = Series(limit=limit)
        self.sent: int = 0
        self.done: int = 0
        self.refused: int = 0
        self.faults: int = 0
        self.retried: int = 0
        self._endpoints = frozenset((endpoint,) if isinstance(endpoint, str) else endpoint)
        self.failure: Exception | None = None
        self._clock = clock
        self._clock_offset = 0.0
        self._slot = Slot()
        self._second: int | None = None
        # Seconds since the start with attempts, each with the number of calls done before it.
        self._done_until: deque[tuple[int, int]] = deque(maxlen=_RECENT + 2)

    def attempt(self, attempt: Attempt) -> None:
        """Count one attempt; it is called for each, and must be cheap."""
        if attempt.endpoint not in self._endpoints or self.failure is not None:
            return
        try:
            self._count(attempt)
        except Exception as error:
            self.failure = error  # the client only logs a hook's error; the run checks this
            raise

    def _count(self, attempt: Attempt) -> None:
        now = self._clock() + self._clock_offset
        series = self.series
        if now < series.until:  # the clock was set back; the series' time is monotonic
            self._clock_offset += series.until - now
            now = series.until
        series.until = now
        if int(now - series.started) != self._second:
            self._begin_second(now, attempt.took)
        slot = self._slot
        slot.sent += 1
        self.sent += 1
        error = attempt.error
        if error is None:
            slot.done += 1
            self.done += 1
        elif error == "RateLimited":
            slot.refused += 1
            self.refused += 1
        elif error != "CancelledError":  # not the service's fault
            slot.faults += 1
            self.faults += 1
        if attempt.number > 1:
            slot.retried += 1
            self.retried += 1
        if attempt.code is not None:
            bin_ = bin_of(attempt.took)
            slot.took[bin_] = slot.took.get(bin_, 0) + 1

    def recent_rate(self, now: float) -> float:
        """Return the rate of successful calls over the last 10 whole seconds, or those since the first attempt.

        The limit applies to whole seconds only: half a second may hold as many calls as a whole one.

        Args:
            now: the recorder's time, unix seconds.

        Returns:
            Calls/s; 0 before the first attempt, and during the first second the calls so far.
        """
        second = math.floor(now + self._clock_offset - self.series.started)
        if not self._done_until or second <= 0:
            return float(self.done) if second == 0 else 0.0
        first = max(0, second - _RECENT)
        return (self._done_before(second) - self._done_before(first)) / (second - first)

    def _done_before(self, second: int) -> int:
        return next((done for began, done in self._done_until if began >= second), self.done)

    def _begin_second(self, now: float, took: float) -> None:
        """Begin the next second, and perhaps the next slot."""
        series = self.series
        if self._second is None:
            series.started = now - took
        second = self._second = int(now - series.started)
        self._done_until.append((second, self.done))
        index = int(second / series.width)
        while index >= SLOTS:
            series.slots[:] = _merged_pairs(series.slots)
            series.width *= 2
            index //= 2
        while len(series.slots) <= index:
            series.slots.append(Slot())
        self._slot = series.slots[index]


def bin_of(seconds: float) -> int:
    """Return the bin of a latency, 0 to `BINS` - 1."""
    units = seconds * _UNITS_PER_SECOND
    if units < 1.0:
        return 0
    bin_ = int(math.log2(units) * _BINS_PER_OCTAVE)
    return bin_ if bin_ < BINS else BINS - 1


def edge(bin_: float) -> float:
    """Return the lower edge of a bin, seconds; with a fraction, a point within it on the logarithmic scale."""
    return float(2.0 ** (bin_ / _BINS_PER_OCTAVE)) / _UNITS_PER_SECOND


def quantile(took: Mapping[int, int], q: float) -> float | None:
    """Return a quantile of a latency histogram, accurate to a few per cent.

    Args:
        took: the histogram: the number of latencies by bin.
        q: the quantile, 0 to 1; 0.5 is the median.

    Returns:
        Seconds; None when the histogram is empty.

    Raises:
        ValueError: ``q`` is out of range.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q must be 0 to 1, not {q}")
    rank = q * sum(took.values())
    for bin_ in sorted(took):
        count = took[bin_]
        if count and rank <= count:
            return edge(bin_ + rank / count)
        rank -= count
    return None


def _merged_pairs(slots: list[Slot]) -> Iterator[Slot]:
    return (Slot.sum(slots[at : at + 2]) for at in range(0, len(slots), 2))


def _to_list(slot: Slot) -> list[int]:
    """Return a slot as a list: five counts, then bin after bin, each followed by its count."""
    counts = [slot.sent, slot.done, slot.refused, slot.faults, slot.retried]
    return counts + [number for pair in slot.took.items() for number in pair]


def _seconds(document: dict[str, Any], name: str) -> float:
    value: Any = document.get(name)
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not abs(number) < _TOO_LARGE:
        raise ValueError(f"not a series: {name} is not a number below {_TOO_LARGE:g}")
    return number


def _from_list(row: Any) -> Slot:
    if (
        not isinstance(row, list)
        or len(row) < 5
        or any(type(number) is not int or not 0 <= number < _TOO_MANY for number in row)
    ):
        raise ValueError("not a series: a slot is not a list of counts")
    bins = row[5::2]
    if len(bins) != len(row[6::2]) or any(bin_ >= BINS for bin_ in bins):
        raise ValueError("not a series: a latency beyond the last bin, or without its count")
    sent, done, refused, faults, retried = row[:5]
    return Slot(sent, done, refused, faults, retried, dict(zip(bins, row[6::2], strict=True)))
