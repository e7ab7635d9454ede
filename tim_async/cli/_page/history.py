"""The snapshots of a subject, once a second, and its charts over the last minutes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import click

from tim_async.cli.failures import describe

from .subject import Chart, Snapshot, Subject

INTERVAL = 1.0
"""Seconds between two snapshots."""
SPAN = 300
"""Seconds that the charts show."""

Values = tuple[float | None, ...]
_DRAWN = ("passed", "refused", "limit", "adaptive")
"""Attributes of a chart that are drawn over time; `Values` have their order."""
_NOTHING: Values = (None,) * len(_DRAWN)


class History:
    """The recent snapshots of a subject, taken once a second within `running`.

    Args:
        subject: the subject.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._last = Snapshot(0.0)
        self._trouble = ""
        self._past: deque[tuple[float, dict[str, Values]]] = deque()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take snapshots within the block; the page shows the errors of later ones.

        Raises:
            Failure: the first snapshot failed.
        """
        await self._poll()
        polling = asyncio.create_task(self._poll_forever())
        try:
            yield
        finally:
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling

    async def _poll_forever(self) -> None:
        while True:
            # Never sooner, also after a late snapshot: a rate over less than a second may exceed the limit.
            await asyncio.sleep(INTERVAL)
            try:
                await self._poll()
                self._trouble = ""
            except click.ClickException as error:
                self._trouble = error.message
            except Exception as error:  # noqa: BLE001 - shown on the page, which would otherwise freeze silently
                self._trouble = describe(error)

    async def _poll(self) -> None:
        found = self._last = await self._subject.snapshot()
        self._past.append((found.time, {chart.key: _values(chart) for chart in found.charts}))
        # Also drop snapshots of the future, after the clock was set back.
        while not -SPAN <= self._past[0][0] - found.time <= 0:
            self._past.popleft()

    def document(self) -> dict[str, Any]:
        """Return the data of the page: the last snapshot, the past of its charts, and the current faults.

        The past is in columns: ``at``, the times relative to the last snapshot, and the values of each chart at these
        times, None for no value.
        """
        last = self._last
        past: list[Mapping[str, Values]] = [charts for _, charts in self._past]
        return {
            "name": self._subject.name,
            "address": self._subject.address,
            "time": last.time,
            "note": last.note,
            "trouble": self._trouble,
            "span": SPAN,
            "at": [round(time - last.time, 3) for time, _ in self._past],
            "charts": [{**asdict(chart), "past": _past(chart.key, past)} for chart in last.charts],
            "tables": [asdict(table) for table in last.tables],
            "faults": self._subject.faults(),
        }


def _past(key: str, past: list[Mapping[str, Values]]) -> dict[str, Values]:
    columns = zip(*(charts.get(key, _NOTHING) for charts in past), strict=True)
    return dict(zip(_DRAWN, columns, strict=True))


def _values(chart: Chart) -> Values:
    values = (getattr(chart, name) for name in _DRAWN)
    return tuple(None if value is None else round(value, 2) for value in values)
