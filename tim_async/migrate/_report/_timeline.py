"""The time axis of the charts: sessions side by side, without the pauses between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tim_async.migrate._recorder import Series, Slot
from tim_async.migrate._store import Session

from ._words import clock

WIDTH = 1000.0
"""The width of the axis, in units of the drawing."""

_CELLS = 240
"""The cells on the axis: about as many as a phone's chart has pixels."""

SHORTEST = 1e-3
"""The minimum time for a rate, seconds."""

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""The possible intervals between two labels of the axis, seconds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One step of a chart: one slot, or several merged.

    Attributes:
        start: its start, unix seconds.
        seconds: its length, seconds.
        slot: its attempts.
        limit: the rate that the service allows, calls/s; 0 when unknown.
    """

    start: float
    seconds: float
    slot: Slot
    limit: float

    @property
    def end(self) -> float:
        """Its end, unix seconds."""
        return self.start + self.seconds

    def per_second(self, count: int) -> float:
        """Return a count of its slot as a rate."""
        return count / max(self.seconds, SHORTEST)


@dataclass(frozen=True, slots=True)
class Panel:
    """One session on the axis.

    Attributes:
        number: the number of the session, from 1.
        cells: consecutive cells, at least one.
        left: its left edge, 0 to `WIDTH`.
        right: its right edge.
    """

    number: int
    cells: list[Cell]
    left: float
    right: float

    @property
    def start(self) -> float:
        """Its start, unix seconds."""
        return self.cells[0].start

    @property
    def end(self) -> float:
        """Its end, unix seconds."""
        return self.cells[-1].end

    def x(self, moment: float) -> float:
        """Return the position of a time on the axis."""
        return self.left + (self.right - self.left) * (moment - self.start) / max(self.end - self.start, SHORTEST)


class Tick(NamedTuple):
    """A label of the axis: its position, its text, and whether it is shown on a phone, too."""

    x: float
    text: str
    always: bool


def lay_out(sessions: Sequence[Session]) -> list[Panel]:
    """Return panels of the sessions with attempts, side by side, as wide as they were long, but wide enough to see."""
    found = [(number, one.series) for number, one in enumerate(sessions, 1) if one.series and one.series.slots]
    if not found:
        return []
    least = 0.15 * sum(one.seconds for _, one in found) / len(found)
    lengths = [max(one.seconds, least, SHORTEST) for _, one in found]
    gap = min(16.0, 200.0 / len(found))
    scale = (WIDTH - gap * (len(found) - 1)) / sum(lengths)
    panels, left = [], 0.0
    for (number, one), length in zip(found, lengths, strict=True):
        right = left + length * scale
        panels.append(Panel(number, cells_of(one, max(1, round(_CELLS * length * scale / WIDTH))), left, right))
        left = right + gap
    return panels


def cells_of(series: Series, most: int) -> list[Cell]:
    """Merge the slots of a series into at most this many cells.

    The last cell ends with the last attempt: at full width, the run would seem to slow down.  When it is then shorter
    than half a cell, it is merged with the one before.
    """
    together = -(-len(series.slots) // most)
    width = series.width * together
    slots = [Slot.sum(series.slots[at : at + together]) for at in range(0, len(series.slots), together)]
    rest = series.seconds - (len(slots) - 1) * width
    if len(slots) > 1 and rest < width / 2:
        last = slots.pop()
        slots[-1] = Slot.sum((slots[-1], last))
        rest += width
    return [
        Cell(series.started + at * width, width if at < len(slots) - 1 or rest <= 0 else rest, slot, series.limit)
        for at, slot in enumerate(slots)
    ]


def ticks_of(panels: Sequence[Panel]) -> list[Tick]:
    """Return labels at round times, in UTC, where they fit."""
    ticks: list[Tick] = []
    wide = narrow = -WIDTH
    for x, text in (found for panel in panels for found in _round_times(panel)):
        if x - wide < 85.0 or (len(text) > 5 and x > WIDTH - 45.0):
            continue
        wide = x
        always = x - narrow >= (230.0 if len(text) > 5 else 140.0)
        narrow = x if always else narrow
        ticks.append(Tick(x, text, always))
    return ticks


def _round_times(panel: Panel) -> Iterator[tuple[float, str]]:
    """Yield the round times in a panel, or its start when there is none, by their positions."""
    apart = 85.0 * (panel.end - panel.start) / (panel.right - panel.left)
    step = next((step for step in _STEPS if step >= apart), 86400 * math.ceil(apart / 86400))
    pattern = "%H:%M:%S" if step < 60 else "%m-%d" if step >= 86400 else "%H:%M"
    first = math.ceil(panel.start / step)
    moments = range(first, math.floor(panel.end / step) + 1)
    yield from ((panel.x(step * moment), clock(step * moment, pattern)) for moment in moments)
    if not moments:
        yield panel.left, clock(panel.start, "%H:%M")
