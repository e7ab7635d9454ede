"""How far a migration is: what its events add up to, and how that is said."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tim_async.cli.output import plain
from tim_async.migrate import (
    Counts,
    Event,
    Finished,
    Progress,
    Reading,
    Resumed,
    RowFailed,
    RowLowered,
    Started,
    Waiting,
)

from .pace import Pace
from .tables import duration, speed

if TYPE_CHECKING:
    from tim_async.migrate import Recorder

_MOST_CODES = 4
_MOST_FAILURES_SHOWN = 5


class Tally:
    """What is known of a run so far.

    Args:
        recorder: what its calls are counted by.
        limit: the calls/s it keeps to.
        clock: seconds, from any origin, never running backwards.

    Attributes:
        limit: as given.
        read: rows read, while the file is being read.
        counts: rows by state; None until sending begins.
        codes: rows that failed in this run, by code.
        waiting: the latest word of an outage; None when there is none.
    """

    def __init__(self, recorder: Recorder, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.read: int = 0
        self.counts: Counts | None = None
        self.codes: Counter[int | None] = Counter()
        self.waiting: Waiting | None = None
        self._recorder = recorder
        self._clock = clock
        self._pace = Pace(clock(), 0)
        self._began: float | None = None
        self._outage_began = 0.0

    def take(self, event: Event) -> None:
        """Add an event."""
        now = self._clock()
        if isinstance(event, Started | Progress | Finished):
            self.counts = event.counts
        match event:
            case Reading(rows):
                self.read = rows
            case Started(counts):
                self._began = now
                self._pace = Pace(now, counts.settled)
            case Progress(counts):
                self._pace.advance(now, counts.settled)
            case RowFailed(code=code):
                self.codes[code] += 1
            case Waiting(seconds=seconds):
                self.waiting = event
                self._outage_began = now - seconds
                self._pace.wait(now, seconds)
            case Resumed():
                self.waiting = None
                self._pace.resume(now)

    @property
    def started(self) -> bool:
        """Whether all rows are known, so that there is something to say of them."""
        return self._began is not None

    @property
    def seconds(self) -> float:
        """Seconds since sending began; 0 before."""
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def waited(self) -> float:
        """Seconds that the present outage has lasted; 0 when there is none."""
        return 0.0 if self.waiting is None else self._clock() - self._outage_began

    @property
    def rate(self) -> float:
        """Calls/s that succeeded lately."""
        return self._recorder.recent_rate(time.time())

    @property
    def left(self) -> float | None:
        """Seconds until the end; None while that cannot be known."""
        return None if self.counts is None else self._pace.left(self.counts.left, self._clock())

    @property
    def retried(self) -> int:
        """Requests that were repeats."""
        return self._recorder.retried

    @property
    def refused(self) -> int:
        """Requests over the rate."""
        return self._recorder.refused

    def as_plain(self) -> dict[str, Any]:
        """The numbers beside the counts, ready for JSON."""
        left = self.left
        return {
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 1),
            "limit": self.limit,
            "sent": self._recorder.sent,
            "done": self._recorder.done,
            "refused": self.refused,
            "retried": self.retried,
            "faults": self._recorder.faults,
            "seconds_left": None if left is None else round(left, 1),
        }


def line(tally: Tally) -> str:
    """How far it is, in one line."""
    counts = tally.counts
    if counts is None:
        return f"reading: {tally.read:,} rows so far"
    parts = [f"{counts.settled:,} of {counts.total:,} rows ({percent(counts):.1f} %)"]
    parts.append(pace(tally) if tally.waiting is None else waiting(tally))
    parts += [troubles(tally), remaining(tally)]
    return "; ".join(part for part in parts if part)


def percent(counts: Counts) -> float:
    """How much of the rows has come to its end, 0 to 100, and 100 only when all have."""
    if not counts.left:
        return 100.0
    return min(99.9, 100.0 * counts.settled / counts.total)


def pace(tally: Tally) -> str:
    """The rate beside what it may be."""
    return f"{tally.rate:.1f}/s of {speed(tally.limit)}"


def remaining(tally: Tally) -> str:
    """The time left; "" while it cannot be known."""
    left = tally.left
    return "" if left is None else f"{duration(left)} left"


def waiting(tally: Tally) -> str:
    """What is waited for; "" when nothing is."""
    if tally.waiting is None:
        return ""
    return f"waiting for {duration(tally.waited)}: {plain(tally.waiting.reason)}"


def troubles(tally: Tally) -> str:
    """What went otherwise than hoped for, as numbers."""
    counts = tally.counts or Counts()
    # Failures are told one by one, and counts every second.
    failed = max(counts.failed, tally.codes.total())
    parts = [f"{tally.retried:,} retried", f"{tally.refused:,} refused", f"{failed:,} failed{codes(tally)}"]
    if counts.rejected:
        parts.append(f"{counts.rejected:,} rejected")
    if counts.lowered:
        parts.append(f"{counts.lowered:,} lowered")
    return ", ".join(parts)


def codes(tally: Tally) -> str:
    """The failures of this run by code, in brackets; "" when there are none."""
    if not tally.codes:
        return ""
    named = [
        f"{'no code' if code is None else code}: {number:,}" for code, number in tally.codes.most_common(_MOST_CODES)
    ]
    if len(tally.codes) > _MOST_CODES:
        named.append("…")
    return f" ({', '.join(named)})"


class News:
    """What is worth a line of its own among the events of a run: beginnings, outages and the first few failures."""

    def __init__(self) -> None:
        self._failed = 0
        self._lowered = 0
        self._waiting = False

    def of(self, event: Event) -> str:
        """An event in one line; "" when it is not worth one."""
        match event:
            case Started(counts, resumed):
                return _started(counts, resumed=resumed)
            case RowFailed(line, _, code, reason):
                self._failed += 1
                return self._failure(line, code, reason)
            case RowLowered(line, _, messages):
                self._lowered += 1
                if self._lowered == 1:
                    return (
                        f"line {line} asks for more than its group's {messages:,} messages, and the service lowers it"
                        " to that; more such rows are only counted"
                    )
            case Waiting(reason, _, until):
                if not self._waiting:
                    self._waiting = True
                    return f"waiting: {plain(reason)}; it goes on as soon as {until}"
            case Resumed(seconds):
                self._waiting = False
                return f"back after {duration(seconds)}"
        return ""

    def _failure(self, line: int, code: int | None, reason: str) -> str:
        if self._failed > _MOST_FAILURES_SHOWN:
            return ""
        last = "; more failures are only counted" if self._failed == _MOST_FAILURES_SHOWN else ""
        # The service's own words name the code already.
        named = "" if code is None or str(code) in reason else f"{code}: "
        return f"line {line} failed: {named}{plain(reason)}{last}"


def _started(counts: Counts, *, resumed: bool) -> str:
    others = {"rejected": counts.rejected, "superseded": counts.superseded, "failed": counts.failed}
    rest = ", ".join(f"{number:,} {name}" for name, number in others.items() if number)
    if resumed:
        if not counts.left:
            return ""
        rest = f" ({rest})" if rest else ""
        return f"going on: {counts.taken:,} of {counts.total:,} rows are taken, {counts.left:,} are left{rest}"
    rest = f"; {rest}" if rest else ""
    return f"started: {counts.left:,} of {counts.total:,} rows are to be sent{rest}"
