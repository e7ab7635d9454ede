"""An emulator as a subject: its calls, refusals, error codes and faults, with buttons to inject and clear faults."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tim_async._codes import code_of
from tim_async._plaintext import plain
from tim_async.cli.faultspec import fault_text, parse_fault
from tim_async.cli.output import Cell
from tim_async.endpoints import ENDPOINTS, GET_GROUP_INFO

from .subject import Chart, Snapshot, Table

if TYPE_CHECKING:
    from tim_async.emulator import Emulator, EndpointReport

_NAMES = tuple(dict.fromkeys(endpoint.name for endpoint in (*ENDPOINTS, GET_GROUP_INFO)))
_MAX_FAULTS = 100
"""Maximum number of faults: each call tries all of them."""


class EmulatorSubject:
    """A running emulator.

    Args:
        service: the emulator.
        limit: its limit on each endpoint, calls/s; None for no limit.
    """

    name = "Emulator"

    def __init__(self, service: Emulator, limit: int | None) -> None:
        self.address = service.url
        self._service = service
        self._limit = limit
        self._before: Mapping[str, EndpointReport] = {}
        self._polled = time.monotonic()

    async def snapshot(self) -> Snapshot:
        """Make charts and tables of the report; see `Subject`."""
        report, now, clock = self._service.report(), time.monotonic(), time.time()
        seconds = max(now - self._polled, 1e-3)
        found, before = report.endpoints, self._before
        charts = [self._chart(name, found[name], before.get(name), seconds) for name in _NAMES if name in found]
        self._before, self._polled = found, now
        calls = [_calls(plain(name), one) for name, one in found.items()]
        total = _calls("all", report.total) if len(found) > 1 else None
        columns = {"endpoint": "text", **dict.fromkeys(_COUNTS, "count"), "mean calls/s": "rate"}
        codes: list[list[Cell]] = [
            [plain(name), str(code), code_of(code).meaning, count]
            for name, one in found.items()
            for code, count in sorted(one.codes.items())
        ]
        faults = _counted((name, one.faults) for name, one in found.items())
        unknown = _counted((name, one.unknown_fields) for name, one in found.items())
        tables = [
            Table("Calls", columns, calls, sum=total),
            Table("Error codes", {"endpoint": "text", "code": "text", "meaning": "text", "responses": "count"}, codes),
            Table("Injected faults", {"endpoint": "text", "fault": "text", "calls": "count"}, faults),
        ]
        if unknown:
            tables.append(
                Table("Undocumented fields", {"endpoint": "text", "field": "text", "requests": "count"}, unknown)
            )
        return Snapshot(clock, charts, tables)

    def _chart(self, name: str, one: EndpointReport, before: EndpointReport | None, seconds: float) -> Chart:
        calls, refused = one.calls, one.refused
        if before is not None:
            calls, refused = calls - before.calls, refused - before.refused
        faults = sum(one.faults.values())
        note = f"{one.refused:,} refused · {faults:,} faults · fullest second {one.fullest_sliding_second:,}"
        return Chart(name, name, self._limit, (calls - refused) / seconds, refused / seconds, note=note)

    def faults(self) -> dict[str, Any]:
        """Return the injected faults, and the endpoints for new ones; see `Subject`."""
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
        """Inject or clear the fault of a text, or clear all faults; see `Subject`."""
        match action:
            case {"inject": str(text)}:
                if len(self._service.faults) >= _MAX_FAULTS:
                    raise ValueError(f"{_MAX_FAULTS} faults are injected already; clear some")
                self._service.fault(**parse_fault(text))
            case {"clear": None}:
                self._service.clear_faults()
            case {"clear": str(text)}:
                found = next((fault for fault in self._service.faults if fault_text(fault) == text), None)
                if found is None:
                    raise ValueError(f"the fault {text!r} was already cleared")
                self._service.clear_faults(found)
            case _:
                raise ValueError("unknown action")


_COUNTS = {
    "calls": "calls",
    "succeeded": "succeeded",
    "refused": "refused",
    "faults": "faults",
    "retried": "retried",
    "fullest second": "fullest_sliding_second",
}
"""Attributes of the report by column."""


def _counted(counts: Iterable[tuple[str, Mapping[str, int]]]) -> list[list[Cell]]:
    return [[plain(name), plain(key), count] for name, found in counts for key, count in sorted(found.items())]


def _calls(name: str, one: EndpointReport) -> list[Any]:
    counts = {**asdict(one), "faults": sum(one.faults.values())}
    return [name, *(counts[attribute] for attribute in _COUNTS.values()), one.calls_per_second]
