"""The subject that shows an emulator: its calls, refusals, error codes and faults, which buttons inject and clear."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tim_async._codes import code_of
from tim_async._plaintext import plain
from tim_async.cli.faultspec import fault_text, parse_fault
from tim_async.endpoints import ENDPOINTS, GET_GROUP_INFO

from .subject import Cell, Chart, Snapshot, Table

if TYPE_CHECKING:
    from tim_async.emulator import Emulator, EndpointReport

_NAMES = tuple(dict.fromkeys(endpoint.name for endpoint in (*ENDPOINTS, GET_GROUP_INFO)))
_MAX_FAULTS = 100
"""Faults that can be injected at once: each call tries all of them."""


class EmulatorSubject:
    """An emulator that runs.

    Args:
        service: the emulator.
        limit: its calls a second of each endpoint; None for no limit.
    """

    name = "Emulator"

    def __init__(self, service: Emulator, limit: int | None) -> None:
        self.address = service.url
        self._service = service
        self._limit = limit
        self._before: Mapping[str, EndpointReport] = {}
        self._looked = time.monotonic()

    async def snapshot(self) -> Snapshot:
        """Read the report; see `Subject`."""
        report, now, clock = self._service.report(), time.monotonic(), time.time()
        seconds = max(now - self._looked, 1e-3)
        found, before = report.endpoints, self._before
        charts = [self._chart(name, found[name], before.get(name), seconds) for name in _NAMES if name in found]
        self._before, self._looked = found, now
        calls = [_calls(plain(name), one) for name, one in found.items()]
        total = _calls("all", report.total) if len(found) > 1 else None
        columns = {"endpoint": "text", **dict.fromkeys(_COUNTS, "count"), "mean calls/s": "rate"}
        codes: list[list[Cell]] = [
            [plain(name), str(code), code_of(code).meaning, count]
            for name, one in found.items()
            for code, count in sorted(one.codes.items())
        ]
        met = _counted((name, one.faults) for name, one in found.items())
        unknown = _counted((name, one.unknown_fields) for name, one in found.items())
        tables = [
            Table("Calls", columns, calls, sum=total),
            Table("Error codes", {"endpoint": "text", "code": "text", "meaning": "text", "answers": "count"}, codes),
            Table("Faults met", {"endpoint": "text", "fault": "text", "calls": "count"}, met),
        ]
        if unknown:
            tables.append(Table("Unknown fields", {"endpoint": "text", "field": "text", "requests": "count"}, unknown))
        return Snapshot(clock, charts, tables)

    def _chart(self, name: str, one: EndpointReport, before: EndpointReport | None, seconds: float) -> Chart:
        calls, refused = one.calls, one.refused
        if before is not None:
            calls, refused = calls - before.calls, refused - before.refused
        faults = sum(one.faults.values())
        note = f"{one.refused:,} refused · {faults:,} faults · fullest second {one.fullest_sliding_second:,}"
        return Chart(name, name, self._limit, (calls - refused) / seconds, refused / seconds, note=note)

    def faults(self) -> dict[str, Any]:
        """The faults that calls may meet, and the endpoints that can be named; see `Subject`."""
        active = [
            {
                "text": fault_text(fault),
                "kind": fault.kind,
                "share": fault.probability,
                "endpoint": fault.endpoint or "all endpoints",
            }
            for fault in self._service.faults
        ]
        return {"active": active, "endpoints": _NAMES}

    def act(self, action: Mapping[str, Any]) -> None:
        """Inject the fault that a text describes, or clear the one that it describes, or all; see `Subject`."""
        match action:
            case {"inject": str(text)}:
                if len(self._service.faults) >= _MAX_FAULTS:
                    raise ValueError(f"there are {_MAX_FAULTS} faults already; clear some")
                self._service.fault(**parse_fault(text))
            case {"clear": None}:
                self._service.clear_faults()
            case {"clear": str(text)}:
                found = next((fault for fault in self._service.faults if fault_text(fault) == text), None)
                if found is None:
                    raise ValueError(f"there is no fault {text!r}: it has been cleared")
                self._service.clear_faults(found)
            case _:
                raise ValueError("no such action")


_COUNTS = {
    "calls": "calls",
    "succeeded": "succeeded",
    "refused": "refused",
    "faults": "faults",
    "retried": "retried",
    "fullest second": "fullest_sliding_second",
}
"""Columns of counts, and the attributes of the report in them."""


def _counted(counts: Iterable[tuple[str, Mapping[str, int]]]) -> list[list[Cell]]:
    return [[plain(name), plain(what), count] for name, found in counts for what, count in sorted(found.items())]


def _calls(name: str, one: EndpointReport) -> list[Any]:
    counts = {**asdict(one), "faults": sum(one.faults.values())}
    return [name, *(counts[attribute] for attribute in _COUNTS.values()), one.calls_per_second]
