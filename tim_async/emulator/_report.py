"""The report: counts of calls, by which a client's pace and retries are judged."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from tim_async.emulator._windows import CalendarSecond, SlidingSecond

_PINNED = "MsgReadTime"
_OTHERS = "(others)"
_MOST_NAMES = 100
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """Counts of the calls of one endpoint, or of all together.

    Attributes:
        calls: calls that arrived.
        succeeded: calls that were carried out and answered with code 0.
        refused: calls over the rate.
        retried: calls that repeated one that was refused, met a fault or was answered with an error; a call repeated
            because its answer was late is not one of them.
        fullest_sliding_second: the most calls in any second.
        fullest_calendar_second: the most calls in a second of the clock.
        seconds: time between the first call and the last.
        calls_per_second: calls a second in this time; 0.0 for fewer than two.
        succeeded_per_second: goodput: the same of the calls that succeeded.
        codes: answers by ``ErrorCode`` other than 0, those of faults included.
        faults: injected faults by kind.
        unknown_fields: requests by each field in them that the documents do not know, e.g. ``"MsgReadedTime"`` or
            ``"ResponseFilter.Limit"``; of 100 such names, any other is under ``"(others)"``.
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
        total: all endpoints together; its fullest seconds are those of the whole, not a sum.
        endpoints: each endpoint that was called, by its method's name; an unknown command by its path, e.g.
            ``"v4/openim/sendmsg"``; of 100 such paths, any other is under ``"(others)"``.
    """

    total: EndpointReport
    endpoints: dict[str, EndpointReport]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return asdict(self)


class _EndpointCounts:
    """The counts behind one `EndpointReport`, by the names of its attributes."""

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
            if _fits(self.unknown_fields, name):
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
    """Counts calls.  Any thread may read the report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = _EndpointCounts()
        self._endpoints: defaultdict[str, _EndpointCounts] = defaultdict(_EndpointCounts)
        self._unknown_commands: set[str] = set()
        # Calls that failed and have not been repeated yet.
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
            now: when it arrived, seconds.
            raw: its body.
            code: the ``ErrorCode`` of its answer, 0 for success; None where no such code reached the caller.
            known: whether its command is known.
            refused: whether it was over the rate.
            fault: the kind of the fault it met, if any.
            unknown_fields: the fields of its body that the documents do not know.
        """
        with self._lock:
            if not known:
                endpoint = endpoint if _fits(self._unknown_commands, endpoint) else _OTHERS
                self._unknown_commands.add(endpoint)
            retried = self._repeats(endpoint, raw)
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
        """The counts so far."""
        with self._lock:
            return Report(self._total.report(), {name: tally.report() for name, tally in self._endpoints.items()})

    def _repeats(self, endpoint: str, raw: bytes) -> bool:
        # Bodies are parsed only once something has failed.
        for identity in _identities(raw) if self._failed else ():
            if (endpoint, identity) in self._failed:
                self._failed.remove((endpoint, identity))
                return True
        return False


def _fits(names: Collection[str], name: str) -> bool:
    """Whether a name that a caller made up is kept beside others: a report does not grow with what is sent."""
    return name in names or (len(names) < _MOST_NAMES and len(name) <= _LONGEST_NAME)


def _identities(raw: bytes) -> list[str]:
    """The identities of a call, by its body: the body itself and, where it has a read time, the body without it.

    A client may omit the time at first, and must then pin it when it repeats the call.
    """
    try:
        body = json.loads(raw)
        identities = [json.dumps(body, sort_keys=True)]
        if isinstance(body, dict) and _PINNED in body:
            del body[_PINNED]
            identities.append(json.dumps(body, sort_keys=True))
    except (ValueError, RecursionError):
        return [repr(raw)]
    return identities
