"""The sessions of a migration side by side on one axis; the pauses between them, of whatever length, are left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tim_async.migrate._recorder import Series, Slot
from tim_async.migrate._store import Session

from ._words import clock

WIDTH = 1000.0
"""The whole axis, in units of the drawing."""

_CELLS = 240
"""Steps on the whole axis: about as many as a phone's chart has pixels."""

SHORTEST = 1e-3
"""Seconds from which on a rate can be told."""

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between two labels of the axis."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is drawn as one step: a slot or some slots.

    Attributes:
        start: unix seconds.
        seconds: how long it is.
        slot: what happened in it.
        limit: what the service allows, calls/s; 0 when that is not known.
    """

    start: float
    seconds: float
    slot: Slot
    limit: float

    @property
    def end(self) -> float:
        """Unix seconds."""
        return self.start + self.seconds

    def per_second(self, count: int) -> float:
        """A count of its slot as a rate."""
        return count / max(self.seconds, SHORTEST)


@dataclass(frozen=True, slots=True)
class Panel:
    """One session on the axis.

    Attributes:
        number: which, from 1.
        cells: one after the other, at least one.
        left: where it begins, 0 to `WIDTH`.
        right: where it ends.
    """

    number: int
    cells: list[Cell]
    left: float
    right: float

    @property
    def start(self) -> float:
        """Unix seconds."""
        return self.cells[0].start

    @property
    def end(self) -> float:
        """Unix seconds."""
        return self.cells[-1].end

    def x(self, moment: float) -> float:
        """Where a moment is on the axis."""
        return self.left + (self.right - self.left) * (moment - self.start) / max(self.end - self.start, SHORTEST)


class Tick(NamedTuple):
    """A label of the axis: where it is, what it says, and whether there is room for it on a phone, too."""

    x: float
    text: str
    always: bool


def lay_out(sessions: Sequence[Session]) -> list[Panel]:
    """The sessions in which anything was sent, side by side by their length; none too narrow to be seen."""
    series = {number: session.series for number, session in enumerate(sessions, 1)}
    found = [(number, one) for number, one in series.items() if one is not None and one.slots]
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
    """The slots of a series, merged until they are at most so many cells.

    The last cell ends with the last attempt: as a whole one it would look as if the run had slowed down.  When hardly
    anything is left of it, it belongs to the one before.
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
    """Round times, in UTC, as far as there is room."""
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
    """Its start when no round time is in it."""
    apart = 85.0 * (panel.end - panel.start) / (panel.right - panel.left)
    step = next((step for step in _STEPS if step >= apart), 86400 * math.ceil(apart / 86400))
    pattern = "%H:%M:%S" if step < 60 else "%m-%d" if step >= 86400 else "%H:%M"
    first = math.ceil(panel.start / step)
    moments = range(first, math.floor(panel.end / step) + 1)
    yield from ((panel.x(step * moment), clock(step * moment, pattern)) for moment in moments)
    if not moments:
        yield panel.left, clock(panel.start, "%H:%M")
