"""The progress of a migration: the sum of its events, in words and as JSON."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tim_async.cli.output import number_of, plain
from tim_async.migrate import (
    Counts,
    Ended,
    Event,
    Finished,
    MendedRows,
    PaceChanged,
    Progress,
    Reading,
    Recorder,
    Resumed,
    RowFailed,
    RowLowered,
    Started,
    Waiting,
)
from tim_async.migrate.streams._names import Loaded

from .tables import counts_dict, duration, speed

_MAX_CODES = 4
_MAX_FAILURE_MESSAGES = 5
_WINDOW = 120
"""Number of `Progress` events, one each second, from which the time left is estimated; a changed pace shows soon."""
_EVENT_NAMES: dict[type, str] = {
    Started: "started",
    RowFailed: "row_failed",
    RowLowered: "row_lowered",
    Waiting: "waiting",
    Resumed: "resumed",
    PaceChanged: "pace_changed",
    MendedRows: "mended",
}
"""The names of the events that are printed as JSON at once; the others are part of the regular progress."""


class Tally:
    """The progress of a run; a `View` for a `Display`.

    Args:
        recorder: counts the calls of the run.
        rate: calls/s that the service allows.
        share: the share of the rate to use.
        clock: a monotonic clock, seconds.

    Attributes:
        read: rows read so far, until sending begins.
        counts: rows by state; None until sending begins.
        codes: rows that failed in this run, by code.
        waiting: the latest event of the current outage; None for no outage.
        finished: the last event; None for a run that was cut short.
        error: the error that cut the run short; None for no error, also after a second Ctrl-C.
    """

    def __init__(
        self, recorder: Recorder, rate: float, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.read: int = 0
        self.counts: Counts | None = None
        self.codes: Counter[int | None] = Counter()
        self.waiting: Waiting | None = None
        self.finished: Finished | Loaded | None = None
        self.error: Exception | None = None
        self._recorder = recorder
        self._rate, self._share, self._pace_changed = rate, share, False
        self._clock = clock
        self._settled: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._began: float | None = None
        self._ended: float | None = None
        self._outage_began, self._outage_is_new = 0.0, False
        self._lowered = 0

    def add(self, event: Event | Loaded) -> None:
        """Add an event."""
        now = self._clock()
        match event:
            case Reading(rows):
                self.read = rows
            case Started(counts):
                self._began, self.counts = now, counts
                self._settled.append((now, counts.settled))
            case Progress(counts):
                self.counts = counts
                self._settled.append((now, counts.settled))
            case RowFailed(code=code):
                self.codes[code] += 1
            case RowLowered():
                self._lowered += 1
            case PaceChanged(rate, share):
                self._rate, self._share, self._pace_changed = rate, share, True
            case Waiting(seconds=seconds):
                self._outage_is_new = self.waiting is None
                self.waiting, self._outage_began = event, now - seconds
            case Resumed():
                self.waiting = None
                self._settled.clear()
            case Finished() | Loaded():
                self.finished, self.counts, self._ended = event, event.counts, now

    @property
    def started(self) -> bool:
        """Whether sending has begun, so that there are counts to report."""
        return self._began is not None

    @property
    def ended(self) -> Ended | None:
        """The reason why the run ended; None for an error."""
        if self.error is not None:
            return None
        if isinstance(self.finished, Loaded) and self.finished.complete:
            return Ended.NOTHING_TO_DO if self.finished.before else Ended.DONE
        return self.finished.ended if isinstance(self.finished, Finished) else Ended.INTERRUPTED

    @property
    def seconds(self) -> float:
        """Seconds since sending began; 0 before."""
        now = self._clock() if self._ended is None else self._ended
        return 0.0 if self._began is None else now - self._began

    @property
    def limit(self) -> float:
        """The calls/s that the run may make."""
        return self._rate * self._share

    @property
    def mean_rate(self) -> float:
        """Mean rate of successful calls, calls/s."""
        return self._recorder.series.rate

    @property
    def share_of_limit(self) -> float | None:
        """The mean rate as a share of the limit; None if the limit was changed during the run."""
        return None if self._pace_changed else self.mean_rate / self.limit

    @property
    def _rate_now(self) -> float:
        return self._recorder.recent_rate(time.time())

    @property
    def _seconds_left(self) -> float | None:
        """Estimated seconds left, by the rows settled in the last two minutes without an outage; None while unknown."""
        if self.counts is not None and not self.counts.left:
            return 0.0
        if self.counts is None or self.waiting is not None or not self._settled:
            return None
        (began, before), (now, settled) = self._settled[0], self._settled[-1]
        if settled == before:
            return None
        return max(0.0, self.counts.left * (now - began) / (settled - before) - (self._clock() - now))

    def calls(self) -> dict[str, int]:
        """Return the counts of the requests so far."""
        return {name: getattr(self._recorder, name) for name in ("sent", "done", "refused", "retried", "faults")}

    # As text

    def line(self) -> str:
        """Return the progress in one line."""
        counts = self.counts
        if counts is None:
            return f"reading: {self.read:,} rows so far"
        parts = [f"{counts.settled:,} of {counts.total:,} rows ({percent(counts):.1f} %)"]
        if self.waiting is None:
            parts.append(f"{self._rate_now:.1f}/s of {speed(self.limit)}")
        else:
            parts.append(f"waiting for {duration(self._clock() - self._outage_began)}: {plain(self.waiting.reason)}")
        parts.append(", ".join(self._problems()))
        left = self._seconds_left
        return "; ".join(parts if left is None else [*parts, f"{duration(left)} left"])

    def fraction(self) -> float | None:
        """Return the settled part of the rows, 0 to 1; None until sending begins."""
        return None if self.counts is None else percent(self.counts) / 100

    def _problems(self) -> list[str]:
        """Return the counts of retries, refusals and rows with problems."""
        counts, most = self.counts or Counts(), self.codes.most_common(_MAX_CODES)
        named = [f"{'no code' if code is None else code}: {number:,}" for code, number in most]
        by_code = f" ({', '.join(named)}{', …' if len(self.codes) > _MAX_CODES else ''})" if named else ""
        # Failures arrive one by one, counts only every second.
        failed = max(counts.failed, self.codes.total())
        parts = [f"{self._recorder.retried:,} retried", f"{self._recorder.refused:,} refused"]
        parts.append(f"{failed:,} failed{by_code}")
        parts += [f"{counts.rejected:,} rejected"] * bool(counts.rejected)
        return parts + [f"{counts.lowered:,} lowered"] * bool(counts.lowered)

    def message(self, event: Event | Loaded) -> str:
        """Return the line for an event that was just added; "" for no line."""
        match event:
            case Started(counts, resumed):
                return _started(counts, resumed=resumed)
            case RowFailed(line, _, code, reason) if self.codes.total() <= _MAX_FAILURE_MESSAGES:
                last = "; further failures are only counted" if self.codes.total() == _MAX_FAILURE_MESSAGES else ""
                # The service's text may contain the code already.
                named = "" if code is None or str(code) in reason else f"{code}: "
                return f"line {line} failed: {named}{plain(reason)}{last}"
            case RowLowered(line, _, messages) if self._lowered == 1:
                return (
                    f"line {line}: the count is above its group's {messages:,} messages, to which the service lowers it"
                    "; further lowered rows are only counted"
                )
            case Waiting(reason, _, until) if self._outage_is_new:
                return f"waiting: {plain(reason)}; resumes as soon as {until}"
            case Resumed(seconds):
                return f"resumed after {duration(seconds)}"
            case PaceChanged():
                return f"pace changed to {speed(self.limit)} (--rate {self._rate:g}, --share {self._share:g})"
            case MendedRows(taken, superseded, rejected, skipped):
                others = {
                    "superseded by later rows": superseded,
                    "still invalid": rejected,
                    "skipped: already accepted or superseded, or not in this file": len(skipped),
                }
                rest = [f"{count:,} {state}" for state, count in others.items() if count]
                return "; ".join([f"mended: {number_of(taken, 'row')} to send", *rest])
        return ""

    # As JSON

    def progress_event(self) -> tuple[str, dict[str, Any]]:
        """Return the progress as a JSON event, with its name."""
        if self.counts is None:
            return "reading", {"rows": self.read}
        if self.waiting is not None:
            return "waiting", {**asdict(self.waiting), "seconds": round(self._clock() - self._outage_began, 3)}
        left = self._seconds_left
        return "progress", {
            "counts": counts_dict(self.counts),
            "seconds": round(self.seconds, 3),
            "rate": round(self._rate_now, 1),
            "limit": self.limit,
            **self.calls(),
            "seconds_left": None if left is None else round(left, 1),
        }

    def json_event(self, event: Event | Loaded) -> tuple[str, dict[str, Any]] | None:
        """Return an event that was just added as a JSON event, with its name; None for a recurring one."""
        name = _EVENT_NAMES.get(type(event))
        if name is None or (isinstance(event, Waiting) and not self._outage_is_new):
            return None
        match event:
            case Started(counts):
                return name, {"resumed": event.resumed, "counts": counts_dict(counts)}
            case PaceChanged():
                return name, asdict(event) | {"limit": self.limit}
        return name, asdict(event)


def percent(counts: Counts) -> float:
    """Return the percentage of settled rows; 100 only if all are settled."""
    return min(99.9, 100.0 * counts.settled / counts.total) if counts.left else 100.0


def _started(counts: Counts, *, resumed: bool) -> str:
    others = {"rejected": counts.rejected, "superseded": counts.superseded, "failed": counts.failed}
    rest = ", ".join(f"{number:,} {name}" for name, number in others.items() if number)
    if resumed and not counts.left:
        return ""
    if resumed and counts.taken + counts.failed:
        rest = f" ({rest})" if rest else ""
        return f"resuming: {counts.taken:,} of {counts.total:,} rows accepted, {counts.left:,} left{rest}"
    return f"started: {counts.left:,} of {counts.total:,} rows to send{f'; {rest}' if rest else ''}"
