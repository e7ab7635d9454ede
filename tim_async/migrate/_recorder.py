"""How a run went over time: a few numbers for each slot of time, however long the run.

Slots are a second wide at first.  When there would be too many of them, pairs are merged and each is twice as wide:
a minute of a run is shown in seconds, a night in minutes, and both take the same room.
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
    from tim_async._attempts import Attempt

SLOTS = 600
"""The most slots of a series."""

BINS = 128
"""The most bins of a latency histogram."""

_PER_OCTAVE = 5
"""Bins for a factor of two: each is 15 % wide."""

_PER_SECOND = 64_000.0
"""Seconds times this are in units of the first bin's edge."""

_RECENT = 10
"""Seconds that `Recorder.recent_rate` looks back."""

_LONGEST = 1e11
"""Seconds, 3,000 years: no time, width or limit is as large."""

_LEAST = 1e-3
"""Calls/s: no limit is as low."""

_MOST = 2**53
"""No count is as large."""

_VERSION = 1


@dataclass(slots=True)
class Slot:
    """What happened in one slot of time, by when the attempts ended.

    What of ``sent`` is neither done nor refused nor a fault was cut short by this side, as when a run is stopped.

    Attributes:
        sent: attempts.
        done: those that succeeded.
        refused: those that were over the rate.
        faults: those that failed otherwise.
        retried: those that were not the first of their call.
        took: how long the answered ones took: how many by bin, see `bin_of`.
    """

    sent: int = 0
    done: int = 0
    refused: int = 0
    faults: int = 0
    retried: int = 0
    took: dict[int, int] = field(default_factory=dict)

    def add(self, other: Slot) -> None:
        """Take in what happened in another."""
        self.sent += other.sent
        self.done += other.done
        self.refused += other.refused
        self.faults += other.faults
        self.retried += other.retried
        for bin_, count in other.took.items():
            self.took[bin_] = self.took.get(bin_, 0) + count

    @classmethod
    def sum(cls, slots: Iterable[Slot]) -> Slot:
        """All of some slots as one."""
        total = cls()
        for slot in slots:
            total.add(slot)
        return total


@dataclass(slots=True)
class Series:
    """How a run went over time.

    Attributes:
        started: when slot 0 begins, unix seconds: when the first attempt was sent.
        width: how long a slot is, seconds.
        limit: what the service allows, calls/s; 0 when that is not known.
        slots: one after the other, at most `SLOTS`.
        until: when the last attempt ended, unix seconds; 0 when that is not known.
    """

    started: float = 0.0
    width: float = 1.0
    limit: float = 0.0
    slots: list[Slot] = field(default_factory=list)
    until: float = 0.0

    @property
    def seconds(self) -> float:
        """From the start of the first slot to the end of the last attempt, seconds."""
        whole = self.width * len(self.slots)
        return min(whole, self.until - self.started) if self.until > self.started else whole

    @property
    def rate(self) -> float:
        """Calls that succeeded a second, over whole slots: the limit holds for any one second, and not for a part."""
        whole = self.slots[:-1] or self.slots
        return sum(slot.done for slot in whole) / (self.width * len(whole)) if whole else 0.0

    def to_json(self) -> str:
        """This, as lists without names: it is saved every few seconds."""
        document = {
            "version": _VERSION,
            "started": self.started,
            "until": self.until,
            "width": self.width,
            "limit": self.limit,
            "slots": [_row(slot) for slot in self.slots],
        }
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Series:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            document = json.loads(text)
        except RecursionError:
            raise ValueError("not a series: nested too deep") from None
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise ValueError("not a series, or one of another version")
        started, until, width, limit = (_seconds(document, name) for name in ("started", "until", "width", "limit"))
        if width < 1.0 or (limit and limit < _LEAST):
            raise ValueError("not a series: a slot shorter than a second, or a limit that cannot be")
        rows = document.get("slots")
        if not isinstance(rows, list) or len(rows) > SLOTS:
            raise ValueError("not a series: no slots, or too many")
        return cls(started, width, limit, [_slot(row) for row in rows], until)


class Recorder:
    """Counts the attempts of one endpoint; to be given to ``TIMClient(on_attempt=recorder.attempt)``.

    It belongs to the client's event loop: nothing here may be called from another thread while attempts are made.

    Args:
        endpoint: the endpoint's name, or several of them; attempts of others are ignored.
        limit: what the service allows on it, calls/s.
        clock: the time, unix seconds.

    Attributes:
        series: what was counted, over time.
        sent: attempts so far.
        done: those that succeeded.
        refused: those that were over the rate.
        faults: those that failed otherwise.
        retried: those that were not the first of their call.
        failure: what counting raised; nothing is counted after that.  None as long as all is well.
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
        self._ahead = 0.0
        self._slot = Slot()
        self._second: int | None = None
        # Seconds since the start in which something was sent, each with what was done before it.
        self._before: deque[tuple[int, int]] = deque(maxlen=_RECENT + 2)

    def attempt(self, attempt: Attempt) -> None:
        """Count one attempt; called for each, so that it must cost next to nothing."""
        if attempt.endpoint not in self._endpoints or self.failure is not None:
            return
        try:
            self._count(attempt)
        except Exception as error:
            self.failure = error  # a client only logs what its hook raises; the run looks here
            raise

    def _count(self, attempt: Attempt) -> None:
        now = self._clock() + self._ahead
        series = self.series
        if now < series.until:  # the clock was set back; for us, time goes on
            self._ahead += series.until - now
            now = series.until
        series.until = now
        if int(now - series.started) != self._second:
            self._turn(now, attempt.took)
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
        elif error != "CancelledError":  # which says nothing of the service
            slot.faults += 1
            self.faults += 1
        if attempt.number > 1:
            slot.retried += 1
            self.retried += 1
        if attempt.code is not None:
            bin_ = bin_of(attempt.took)
            slot.took[bin_] = slot.took.get(bin_, 0) + 1

    def recent_rate(self, now: float) -> float:
        """Calls that succeeded a second, over the last 10 whole seconds or those since the first attempt.

        Whole seconds, since the limit holds for any one: half a second may hold as many calls as a whole one.

        Args:
            now: the time, unix seconds, by the recorder's clock.

        Returns:
            Calls/s; 0 before the first attempt, and during the first second the calls so far.
        """
        second = math.floor(now + self._ahead - self.series.started)
        if not self._before or second <= 0:
            return float(self.done) if second == 0 else 0.0
        first = max(0, second - _RECENT)
        return (self._done_before(second) - self._done_before(first)) / (second - first)

    def _done_before(self, second: int) -> int:
        return next((done for began, done in self._before if began >= second), self.done)

    def _turn(self, now: float, took: float) -> None:
        """Begin another second, and with it perhaps another slot."""
        series = self.series
        if self._second is None:
            series.started = now - took
        second = self._second = int(now - series.started)
        self._before.append((second, self.done))
        index = int(second / series.width)
        while index >= SLOTS:
            series.slots[:] = _pairs(series.slots)
            series.width *= 2
            index //= 2
        while len(series.slots) <= index:
            series.slots.append(Slot())
        self._slot = series.slots[index]


def bin_of(seconds: float) -> int:
    """The bin of a latency histogram that a time is in, 0 to `BINS` - 1."""
    units = seconds * _PER_SECOND
    if units < 1.0:
        return 0
    bin_ = int(math.log2(units) * _PER_OCTAVE)
    return bin_ if bin_ < BINS else BINS - 1


def edge(bin_: float) -> float:
    """Where a bin begins, seconds; a bin and a half is its middle, by proportion."""
    return float(2.0 ** (bin_ / _PER_OCTAVE)) / _PER_SECOND


def quantile(took: Mapping[int, int], q: float) -> float | None:
    """A quantile of a latency histogram, to within a few per cent.

    Args:
        took: how many by bin.
        q: which, 0 to 1; 0.5 is the median.

    Returns:
        Seconds; None when there is nothing in it.

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


def _pairs(slots: list[Slot]) -> Iterator[Slot]:
    return (Slot.sum(slots[at : at + 2]) for at in range(0, len(slots), 2))


def _row(slot: Slot) -> list[int]:
    """A slot as a list: five counts, then bin after bin, each with its count."""
    counts = [slot.sent, slot.done, slot.refused, slot.faults, slot.retried]
    return counts + [number for pair in slot.took.items() for number in pair]


def _seconds(document: dict[str, Any], name: str) -> float:
    value: Any = document.get(name)
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not abs(number) < _LONGEST:
        raise ValueError(f"not a series: {name} is not a number of this age")
    return number


def _slot(row: Any) -> Slot:
    if (
        not isinstance(row, list)
        or len(row) < 5
        or any(type(number) is not int or not 0 <= number < _MOST for number in row)
    ):
        raise ValueError("not a series: a slot is not a list of counts")
    bins = row[5::2]
    if len(bins) != len(row[6::2]) or any(bin_ >= BINS for bin_ in bins):
        raise ValueError("not a series: a latency beyond the last bin, or without its count")
    sent, done, refused, faults, retried = row[:5]
    return Slot(sent, done, refused, faults, retried, dict(zip(bins, row[6::2], strict=True)))
