"""The looks of a subject, once a second, and its charts over the last minutes."""

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
"""Seconds between two looks."""
SPAN = 300
"""Seconds that the charts show."""

Values = tuple[float | None, ...]
_DRAWN = ("passed", "refused", "limit", "takes")
"""Attributes of a chart that are drawn over time; a moment's values are in this order."""
_NOTHING: Values = (None,) * len(_DRAWN)


class History:
    """Looks at a subject, once a second within `running`; what it found is the `document`.

    Args:
        subject: what is looked at.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._last = Snapshot(0.0)
        self._trouble = ""
        self._past: deque[tuple[float, dict[str, Values]]] = deque()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look within the block; later looks that fail are told of on the page.

        Raises:
            Failure: the first look failed.
        """
        await self._poll()
        looking = asyncio.create_task(self._poll_forever())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    async def _poll_forever(self) -> None:
        while True:
            # Never sooner, to make up for a late look: a rate over less than a second may exceed the limit.
            await asyncio.sleep(INTERVAL)
            try:
                await self._poll()
                self._trouble = ""
            except click.ClickException as error:
                self._trouble = error.message
            except Exception as error:  # noqa: BLE001 - told on the page, which would stand still without a word
                self._trouble = describe(error)

    async def _poll(self) -> None:
        found = self._last = await self._subject.snapshot()
        self._past.append((found.time, {chart.key: _values(chart) for chart in found.charts}))
        # Those of the future, too, where the clock was set back.
        while not -SPAN <= self._past[0][0] - found.time <= 0:
            self._past.popleft()

    def document(self) -> dict[str, Any]:
        """The page's data: the last look, the past of its charts, and the faults of this moment.

        The past is columns: ``at``, seconds before the last look, and for each chart its values then, None for none.
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
