"""The report: counts of calls, to check a client's pace and retries."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from tim_async.emulator._windows import CalendarSecond, SlidingSecond

_READ_TIME = "MsgReadTime"
_OTHERS = "(others)"
_MAX_NAMES = 100
_MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """Counts of the calls of one endpoint, or of all together.

    Attributes:
        calls: calls that arrived.
        succeeded: calls that were executed and answered with code 0.
        refused: calls over the rate.
        retried: calls that repeated a call that was refused, met a fault or was answered with an error; a repetition
            because of a late answer is not counted.
        fullest_sliding_second: the maximum number of calls in any second.
        fullest_calendar_second: the maximum number of calls in a second of the clock.
        seconds: the time between the first call and the last.
        calls_per_second: calls a second in this time; 0.0 for fewer than two.
        succeeded_per_second: the goodput: calls a second in this time that succeeded.
        codes: answers by ``ErrorCode`` other than 0, those of faults included.
        faults: injected faults by kind.
        unknown_fields: requests by undocumented field, e.g. ``"MsgReadedTime"`` or ``"ResponseFilter.Limit"``; after
            100 names, any further one counts as ``"(others)"``.
    """

    calls: int = 0
    succeeded: int = 0
    refused: int = 0
    retried: int = 0
    fullest_sliding_second: int = 0
    fullest_calendar_second: int = 0
    seconds: float = 0.0
    calls_per_second: float = 0.0
    succeeded_per_second: float = 0.0
    codes: dict[int, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    unknown_fields: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of all calls so far.

    Attributes:
        total: all endpoints together; its fullest seconds are counted over all calls, not summed.
        endpoints: each endpoint that was called, by its method's name; an unknown command by its path, e.g.
            ``"v4/openim/sendmsg"``; after 100 such paths, any further one counts as ``"(others)"``.
    """

    total: EndpointReport
    endpoints: dict[str, EndpointReport]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data, ready for JSON."""
        return asdict(self)


class _EndpointCounts:
    """The counters of one `EndpointReport`, under the names of its attributes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.unknown_fields: Counter[str] = Counter()
        self._seconds: dict[str, SlidingSecond | CalendarSecond] = {
            "fullest_sliding_second": SlidingSecond(),
            "fullest_calendar_second": CalendarSecond(),
        }
        self._fullest = dict.fromkeys(self._seconds, 0)
        self._first = self._last = 0.0

    def arrive(self, now: float) -> None:
        if not self.counts["calls"]:
            self._first = now
        self._last = now
        for name, second in self._seconds.items():
            self._fullest[name] = max(self._fullest[name], int(second.count(now)) + 1)
            second.add()

    def count_unknown(self, names: Collection[str]) -> None:
        others = False
        for name in names:
            if _is_kept(self.unknown_fields, name):
                self.unknown_fields[name] += 1
            else:
                others = True
        if others:
            self.unknown_fields[_OTHERS] += 1

    def report(self) -> EndpointReport:
        span = self._last - self._first
        # n arrivals have n - 1 gaps between them.
        per_second = (1 - 1 / self.counts["calls"]) / span if span > 0.0 else 0.0
        return EndpointReport(
            **self.counts,
            **self._fullest,
            seconds=span,
            calls_per_second=self.counts["calls"] * per_second,
            succeeded_per_second=self.counts["succeeded"] * per_second,
            codes=dict(self.codes),
            faults=dict(self.faults),
            unknown_fields=dict(self.unknown_fields),
        )


class CallLog:
    """The counters of all calls.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = _EndpointCounts()
        self._endpoints: defaultdict[str, _EndpointCounts] = defaultdict(_EndpointCounts)
        self._unknown_commands: set[str] = set()
        # Failed calls that have not been repeated yet.
        self._failed: set[tuple[str, str]] = set()

    def add(
        self,
        endpoint: str,
        now: float,
        raw: bytes,
        *,
        code: int | None,
        known: bool = True,
        refused: bool = False,
        fault: str | None = None,
        unknown_fields: Collection[str] = (),
    ) -> None:
        """Count a call.

        Args:
            endpoint: its endpoint's name, or the path of an unknown command.
            now: its time of arrival, seconds.
            raw: its body.
            code: the ``ErrorCode`` of its answer, 0 for success; None if none reached the caller.
            known: whether its command is known.
            refused: whether it was over the rate.
            fault: the kind of its fault, if any.
            unknown_fields: the undocumented fields of its body.
        """
        with self._lock:
            if not known:
                endpoint = endpoint if _is_kept(self._unknown_commands, endpoint) else _OTHERS
                self._unknown_commands.add(endpoint)
            retried = self._is_retry(endpoint, raw)
            for tally in (self._total, self._endpoints[endpoint]):
                tally.arrive(now)
                tally.counts.update(calls=1, succeeded=int(code == 0), refused=int(refused), retried=int(retried))
                if code:
                    tally.codes[code] += 1
                if fault is not None:
                    tally.faults[fault] += 1
                tally.count_unknown(unknown_fields)
            if code != 0:
                self._failed.add((endpoint, _identities(raw)[0]))

    def report(self) -> Report:
        """Return the counts so far."""
        with self._lock:
            return Report(self._total.report(), {name: tally.report() for name, tally in self._endpoints.items()})

    def _is_retry(self, endpoint: str, raw: bytes) -> bool:
        # Bodies are parsed only after a failure.
        for identity in _identities(raw) if self._failed else ():
            if (endpoint, identity) in self._failed:
                self._failed.remove((endpoint, identity))
                return True
        return False


def _is_kept(names: Collection[str], name: str) -> bool:
    """Whether the report keeps a caller's name as it is; a bound, so that no caller can make the report grow."""
    return name in names or (len(names) < _MAX_NAMES and len(name) <= _MAX_NAME_LENGTH)


def _identities(raw: bytes) -> list[str]:
    """Return the identities of a call: its body and, if that has a read time, the body without it.

    A client may omit the time in the first attempt, and must then pin it in the retries.
    """
    try:
        body = json.loads(raw)
        identities = [json.dumps(body, sort_keys=True)]
        if isinstance(body, dict) and _READ_TIME in body:
            del body[_READ_TIME]
            identities.append(json.dumps(body, sort_keys=True))
    except (ValueError, RecursionError):
        return [repr(raw)]
    return identities
