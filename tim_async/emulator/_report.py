"""What the emulator saw: the judge of how well a client paced and retried."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tim_async.emulator._windows import FullestSeconds

_PINNED = "MsgReadTime"


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """What was seen of one endpoint, or of all together.

    Attributes:
        calls: how many arrived, whatever became of them.
        succeeded: how many were carried out and answered with code 0.
        refused: how many were over the rate.
        retried: how many repeated a call that had been refused, had met a fault or had been answered with an error.
            One repeated merely for being answered late is not among them.
        fullest_sliding_second: the most arrivals in any second.
        fullest_calendar_second: the most arrivals in a second of the clock.
        seconds: from the first arrival to the last.
        calls_per_second: arrivals a second between the first and the last; 0.0 for fewer than two.
        succeeded_per_second: the same of those that succeeded, the goodput.
        codes: how many answers had each ``ErrorCode`` other than 0, injected ones included.
        faults: how many faults of each kind were injected.
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


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen so far.

    Attributes:
        total: all endpoints together; its fullest seconds are those of the whole, not a sum.
        endpoints: each endpoint that was called, by its method's name; unknown commands under
            ``"(unknown command)"``.
    """

    total: EndpointReport
    endpoints: dict[str, EndpointReport]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return asdict(self)


class _Tally:
    """The counts behind one `EndpointReport`."""

    def __init__(self) -> None:
        self.calls = 0
        self.succeeded = 0
        self.refused = 0
        self.retried = 0
        self.seconds = FullestSeconds()
        self.first = 0.0
        self.last = 0.0
        self.codes: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()

    def arrive(self, now: float) -> None:
        if not self.calls:
            self.first = now
        self.calls += 1
        self.last = now
        self.seconds.count(now)

    def close(self, code: int | None, refused: bool, fault: str | None) -> None:
        if refused:
            self.refused += 1
        if code == 0:
            self.succeeded += 1
        elif code is not None:
            self.codes[code] += 1
        if fault is not None:
            self.faults[fault] += 1

    def report(self) -> EndpointReport:
        span = self.last - self.first

        def rate(number: int) -> float:
            # n arrivals have n - 1 gaps between them.
            return (number - number / self.calls) / span if span > 0.0 else 0.0

        return EndpointReport(
            calls=self.calls,
            succeeded=self.succeeded,
            refused=self.refused,
            retried=self.retried,
            fullest_sliding_second=self.seconds.sliding,
            fullest_calendar_second=self.seconds.calendar,
            seconds=span,
            calls_per_second=rate(self.calls),
            succeeded_per_second=rate(self.succeeded),
            codes=dict(self.codes),
            faults=dict(self.faults),
        )


class Ledger:
    """Counts as calls arrive and as they are answered.  Any thread may ask it for the report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = _Tally()
        self._endpoints: dict[str, _Tally] = {}
        # Calls that failed and have not been repeated yet.
        self._failed: Counter[tuple[str, str]] = Counter()

    def arrive(self, endpoint: str, now: float, raw: bytes) -> None:
        """Count a call with the body ``raw`` that arrives at ``now``."""
        with self._lock:
            tally = self._endpoints.get(endpoint)
            if tally is None:
                tally = self._endpoints[endpoint] = _Tally()
            tally.arrive(now)
            self._total.arrive(now)
            # Taking bodies apart costs time, and is for nothing while nothing has failed.
            if self._failed and self._repeats(endpoint, raw):
                tally.retried += 1
                self._total.retried += 1

    def close(
        self, endpoint: str, raw: bytes, *, code: int | None, refused: bool = False, fault: str | None = None
    ) -> None:
        """Count what became of a call that had arrived.

        Args:
            endpoint: as it was given on arrival.
            raw: as it was given on arrival.
            code: the ``ErrorCode`` that was answered, 0 for success; None where no answer held one.
            refused: whether it was over the rate.
            fault: the kind of fault that was injected.
        """
        with self._lock:
            self._endpoints[endpoint].close(code, refused, fault)
            self._total.close(code, refused, fault)
            if code != 0:
                self._failed[endpoint, _identity(raw)[0]] += 1

    def report(self) -> Report:
        """What was seen so far."""
        with self._lock:
            return Report(self._total.report(), {name: tally.report() for name, tally in self._endpoints.items()})

    def _repeats(self, endpoint: str, raw: bytes) -> bool:
        for identity in _identity(raw):
            if self._failed[endpoint, identity] > 0:
                self._failed[endpoint, identity] -= 1
                if not self._failed[endpoint, identity]:
                    del self._failed[endpoint, identity]
                return True
        return False


def _identity(raw: bytes) -> list[str]:
    """What makes two bodies the same call: as it is and, with a time in it, as it would be without.

    A client may leave the time out at first and pin it when it repeats the call, as it then must.
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
