"""The sessions of a migration side by side on one axis; the pauses between them, of whatever length, are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tim_async.migrate._recorder import Series, Slot

from .wording import clock

if TYPE_CHECKING:
    from tim_async.migrate.status import Session

WIDTH = 1000.0
"""The whole axis, in units of the drawing."""

_CELLS = 360
"""Cells on the whole axis: as many as a phone's chart has pixels."""

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

_APART = 85.0
"""Units between two labels of the axis on a wide screen…"""

_APART_SHORT, _APART_LONG = 140.0, 270.0
"""…and on a phone: of labels without seconds, and with them."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is drawn as one step: a slot or some slots.

    Attributes:
        start: unix seconds.
        seconds: how long it is.
        slot: what happened in it.
    """

    start: float
    seconds: float
    slot: Slot

    def per_second(self, count: int) -> float:
        """A count of its slot as a rate."""
        return count / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Panel:
    """One session on the axis.

    Attributes:
        number: which, from 1.
        limit: what the service allows, calls/s.
        cells: one after the other, at least one.
        left: where it begins, 0 to `WIDTH`.
        right: where it ends.
    """

    number: int
    limit: float
    cells: list[Cell]
    left: float
    right: float

    @property
    def start(self) -> float:
        """When it begins, unix seconds."""
        return self.cells[0].start

    @property
    def end(self) -> float:
        """When it ends, unix seconds."""
        return self.cells[-1].start + self.cells[-1].seconds

    def x(self, moment: float) -> float:
        """Where a moment is on the axis."""
        return self.left + (self.right - self.left) * (moment - self.start) / (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis.

    Attributes:
        at: where, 0 to 1.
        text: what it says.
        always: whether there is room for it on a phone, too.
    """

    at: float
    text: str
    always: bool = True


@dataclass(frozen=True, slots=True)
class Timeline:
    """The axis, and what is on it.

    Attributes:
        panels: the sessions in which anything was sent.
        ticks: the labels, in UTC.
    """

    panels: list[Panel]
    ticks: list[Tick]

    @property
    def cells(self) -> list[Cell]:
        """Those of all panels."""
        return [cell for panel in self.panels for cell in panel.cells]


def lay_out(sessions: Sequence[Session]) -> Timeline:
    """Put the sessions in which anything was sent on an axis."""
    found = [
        (number, session.series)
        for number, session in enumerate(sessions, 1)
        if session.series is not None and session.series.slots
    ]
    if not found:
        return Timeline([], [])
    gap = min(16.0, 200.0 / len(found))
    room = WIDTH - gap * (len(found) - 1)
    widths = _widths([series.seconds for _, series in found], room)
    panels, left = [], 0.0
    for (number, series), width in zip(found, widths, strict=True):
        cells = cells_of(series, max(1, round(_CELLS * width / WIDTH)))
        panels.append(Panel(number, series.limit, cells, left, left + width))
        left += width + gap
    return Timeline(panels, _ticks(panels))


def cells_of(series: Series, most: int) -> list[Cell]:
    """The slots of a series, merged until they are not too many.

    Args:
        series: with at least one slot.
        most: cells.
    """
    together = -(-len(series.slots) // most)
    width = series.width * together
    cells = []
    for number, at in enumerate(range(0, len(series.slots), together)):
        slots = series.slots[at : at + together]
        cells.append(Cell(series.started + number * width, len(slots) * series.width, Slot.sum(slots)))
    # The last slot ends with the last attempt: as a whole one it would look as if the run had slowed down.
    last = cells.pop()
    seconds = series.started + series.seconds - last.start
    if cells and seconds < width / 2:
        before = cells.pop()
        return [*cells, Cell(before.start, before.seconds + max(0.0, seconds), Slot.sum((before.slot, last.slot)))]
    return [*cells, Cell(last.start, seconds if seconds > 0 else width, last.slot)]


def _widths(lengths: list[float], room: float) -> list[float]:
    """Share the room out by length; none gets so little that nothing can be seen in it."""
    least = min(90.0, 0.6 * room / len(lengths))
    narrow: set[int] = set()
    while True:
        rest = room - least * len(narrow)
        total = sum(length for at, length in enumerate(lengths) if at not in narrow)
        more = {at for at, length in enumerate(lengths) if at not in narrow and rest * length < least * total}
        if not more:
            return [least if at in narrow else rest * length / total for at, length in enumerate(lengths)]
        narrow |= more


def _ticks(panels: list[Panel]) -> list[Tick]:
    firsts: list[tuple[float, str]] = []
    others: list[tuple[float, str]] = []
    for panel in panels:
        found = _round_times(panel) or [(panel.left, clock(panel.start, "%H:%M"))]
        firsts.append(found[0])
        others += found[1:]
    # Each session's first, as far as there is room, and then what fits between them.
    # One with seconds at the right end would stand out over the page.
    found = [(x, text) for x, text in (*firsts, *others) if len(text) <= 5 or x <= WIDTH - 45.0]
    phone = spread(found, lambda text: _APART_LONG if len(text) > 5 else _APART_SHORT)
    wide = spread([*phone, *found], lambda _: _APART)
    return [Tick(x / WIDTH, text, (x, text) in phone) for x, text in sorted(wide)]


def _round_times(panel: Panel) -> list[tuple[float, str]]:
    scale = (panel.right - panel.left) / (panel.end - panel.start)
    step: float = next((step for step in _STEPS if step * scale >= _APART), _STEPS[-1])
    while step * scale < _APART:
        step *= 2
    pattern = "%H:%M:%S" if step < 60 else "%m-%d" if step >= 86400 else "%H:%M"
    moments = []
    moment = -(-panel.start // step) * step
    while moment <= panel.end:
        moments.append((panel.x(moment), clock(moment, pattern)))
        moment += step
    return moments


def spread(candidates: Sequence[tuple[float, str]], apart: Callable[[str], float]) -> list[tuple[float, str]]:
    """Those labels that fit, earlier ones first.

    Args:
        candidates: where each is, and its text.
        apart: how far a text must be from others.
    """
    kept: list[tuple[float, str]] = []
    for x, text in candidates:
        if all(abs(x - other) >= max(apart(text), apart(there)) for other, there in kept):
            kept.append((x, text))
    return kept
