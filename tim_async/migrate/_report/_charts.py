"""The charts: drawings that scale with the page, and labels around them that do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from tim_async.migrate._recorder import quantile

from ._timeline import WIDTH, Cell, Panel, ticks_of
from ._words import latency, rate, safe

HEIGHT = 200.0
"""The height of every chart, in units of the drawing."""

_MAX_NUMBERED = 12
"""The maximum number of sessions whose numbers fit above a chart."""


class _Scale(NamedTuple):
    """A vertical axis: its ends, the values that are labelled, and whether it is logarithmic."""

    bottom: float
    top: float
    marks: Sequence[float]
    log: bool = False

    def y(self, value: float) -> float:
        """Return the position of a value in the drawing."""
        if self.log:
            part = math.log(max(value, self.bottom) / self.bottom) / math.log(self.top / self.bottom)
        else:
            part = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT * (1 - min(1.0, max(0.0, part)))


Value = Callable[[Cell], float | None]


class _Layer(NamedTuple):
    """A value of the cells as an area or a line, with its colour and its entry in the key; None is a gap."""

    shape: str
    colour: str
    label: str
    top: Value
    bottom: Value = lambda _: 0.0


def charts(panels: Sequence[Panel]) -> str:
    """Return the charts over time: calls a second, failures and retries, latencies."""
    return _rates(panels) + _failures(panels) + _latencies(panels)


def _cells(panels: Sequence[Panel]) -> list[Cell]:
    return [cell for panel in panels for cell in panel.cells]


def _rates(panels: Sequence[Panel]) -> str:
    def done(cell: Cell) -> float:
        return cell.per_second(cell.slot.done)

    cells = _cells(panels)
    limits = sorted({cell.limit for cell in cells if cell.limit})
    most = max(map(done, cells))
    layers = [_Layer("area", "done", "calls that succeeded", done), _Layer("line", "done", "", done)]
    summary = f"Calls a second over time, at most {rate(most)}"
    if limits:
        text = " to ".join(f"{limit:,.4g}" for limit in dict.fromkeys((limits[0], limits[-1])))
        layers.append(_Layer("line", "limit", f"the limit, {text}/s", lambda cell: cell.limit or None))
        summary += f"; the limit is {text}"
    return _figure("Calls a second", summary, layers, _linear(1.1 * max([most, *limits])), _number, panels)


def _failures(panels: Sequence[Panel]) -> str:
    cells = _cells(panels)
    title = "Refusals, faults and retries"
    most = max(cell.per_second(max(cell.slot.refused + cell.slot.faults, cell.slot.retried)) for cell in cells)
    if not most:
        return _no_chart(title, "None at any time.")
    factor, unit = (1, "second") if most >= 1 else (60, "minute")

    def faults(cell: Cell) -> float:
        return factor * cell.per_second(cell.slot.faults)

    def failed(cell: Cell) -> float:
        return factor * cell.per_second(cell.slot.refused + cell.slot.faults)

    layers = [
        _Layer("area", "fault", "faults: time-outs, lost connections, error codes", faults),
        _Layer("area", "refused", "refused: over the rate", failed, faults),
        _Layer("line", "retried", "retried: repeats of a request", lambda c: factor * c.per_second(c.slot.retried)),
    ]
    title = f"{title} a {unit}"
    summary = f"{title} over time; refusals and faults together are at most {rate(max(map(failed, cells)))}"
    return _figure(title, summary, layers, _linear(1.05 * factor * most), _number, panels)


def _latencies(panels: Sequence[Panel]) -> str:
    def median(cell: Cell) -> float | None:
        return quantile(cell.slot.took, 0.5)

    def p95(cell: Cell) -> float | None:
        return quantile(cell.slot.took, 0.95)

    known = [(low, high) for cell in _cells(panels) if (low := median(cell)) and (high := p95(cell))]
    if not known:
        return _no_chart("Latency", "There were no answers.")
    most = max(high for _, high in known)
    scale = _logarithmic(min(low for low, _ in known) / 2, most * 2)
    layers = [
        _Layer("area", "between", "", p95, median),
        _Layer("line", "p95", "95th percentile", p95),
        _Layer("line", "median", "median", median),
    ]
    summary = f"Latency over time, logarithmic; 95th percentiles are at most {latency(most)}"
    return _figure("Latency, logarithmic", summary, layers, scale, latency, panels)


def swatch(shape: str, colour: str) -> str:
    """Return a sample of a colour for a key or a table: drawn, since browsers do not print backgrounds."""
    inside = '<rect width="16" height="10" rx="2"/>' if shape == "area" else '<path d="M0 5H16"/>'
    size = 'viewBox="0 0 16 10" width="16" height="10"'
    return f'<svg class="swatch {shape} {colour}" {size} aria-hidden="true">{inside}</svg>'


def bar(parts: Sequence[tuple[str, int]], summary: str) -> str:
    """Return a bar of counts, each with its colour; ``summary`` is its text for screen readers."""
    parts = [part for part in parts if part[1]]
    # Even one of ten million stays visible.
    widths = [max(0.006, count / sum(count for _, count in parts)) for _, count in parts]
    drawing, x = "", 0.0
    for (colour, _), width in zip(parts, widths, strict=True):
        part = WIDTH * width / sum(widths)
        drawing += f'<rect class="area {colour}" x="{x:.1f}" y="0" width="{part:.1f}" height="20"/>'
        x += part
    size = f'viewBox="0 0 {WIDTH:g} 20" preserveAspectRatio="none"'
    return f'<svg class="bar" {size} role="img" aria-label="{safe(summary)}">{drawing}</svg>' if parts else ""


def _figure(
    title: str,
    summary: str,
    layers: Sequence[_Layer],
    scale: _Scale,
    unit: Callable[[float], str],
    panels: Sequence[Panel],
) -> str:
    key = "".join(f"<li>{swatch(one.shape, one.colour)}<span>{one.label}</span></li>" for one in layers if one.label)
    grounds = "".join(
        f'<rect class="ground" x="{panel.left:.1f}" y="0" width="{panel.right - panel.left:.1f}" height="{HEIGHT:g}"/>'
        for panel in panels
    )
    grid = "".join(f'<path class="grid" d="M0 {scale.y(mark):.1f}H{WIDTH:g}"/>' for mark in scale.marks)
    drawing = "".join(_drawn(layer, panel, scale) for layer in layers for panel in panels)
    ys = "".join(f'<span style="top:{scale.y(mark) / HEIGHT:.1%}">{unit(mark)}</span>' for mark in scale.marks)
    xs = "".join(
        f'<span style="left:{tick.x / WIDTH:.1%}"{"" if tick.always else " class=wide"}>{tick.text}</span>'
        for tick in ticks_of(panels)
    )
    numbers = "".join(
        f'<span style="left:{(panel.left + panel.right) / 2 / WIDTH:.1%}">{panel.number}</span>' for panel in panels
    )
    above = f'<div class="numbers" aria-hidden="true">{numbers}</div>' if 1 < len(panels) <= _MAX_NUMBERED else ""
    return (
        f'<figure class="chart"><figcaption><h3>{title}</h3><ul class="key">{key}</ul></figcaption>'
        f'<div class="plot">{above}<div class="ys" aria-hidden="true">{ys}</div><div class="canvas">'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img"'
        f' aria-label="{safe(summary)}">{grounds}{grid}{drawing}</svg></div>'
        f'<div class="xs" aria-hidden="true">{xs}</div></div></figure>'
    )


def _no_chart(title: str, text: str) -> str:
    return f'<figure class="chart"><figcaption><h3>{title}</h3></figcaption><p class="none">{text}</p></figure>'


def _drawn(layer: _Layer, panel: Panel, scale: _Scale) -> str:
    """Return a layer over one panel: a shape for each run of cells with values."""
    shapes = ""
    for known, run in groupby(panel.cells, lambda cell: layer.top(cell) is not None):
        cells = list(run)
        if not known:
            continue
        corners = _corners(panel, cells, layer.top, scale)
        if layer.shape == "line":
            shapes += f'<polyline class="line {layer.colour}" points="{_points(corners)}"/>'
            continue
        floor = _corners(panel, cells, layer.bottom, scale)
        if corners != floor:
            shapes += f'<polygon class="area {layer.colour}" points="{_points([*corners, *floor[::-1]])}"/>'
    return shapes


def _corners(panel: Panel, cells: Sequence[Cell], value: Value, scale: _Scale) -> list[tuple[float, float]]:
    """Return the corners of a stepped line along cells; neighbours of equal height are one step."""
    corners: list[tuple[float, float]] = []
    for cell in cells:
        y = round(scale.y(value(cell) or 0.0), 1)
        if corners and corners[-1][1] == y:
            corners.pop()
        else:
            corners.append((panel.x(cell.start), y))
        corners.append((panel.x(cell.end), y))
    return corners


def _points(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:g}" for x, y in corners)


def _number(value: float) -> str:
    return f"{value:,.4g}"


def _linear(most: float) -> _Scale:
    """Return an axis from 0 to a value, with three to six marks."""
    most = most or 1.0
    power = 10.0 ** math.floor(math.log10(most))
    step = next(lead * power for lead in (0.2, 0.25, 0.5, 1.0, 2.0) if most <= 5 * lead * power)
    return _Scale(0.0, most, [step * number for number in range(math.floor(most / step + 1e-9) + 1)])


def _logarithmic(bottom: float, top: float) -> _Scale:
    """Return an axis with marks at 1, 2 and 5 times the powers of ten, or at the powers alone when these are many."""
    powers = [10.0**power for power in range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)]
    for leads in ((1, 2, 5), (1,)):
        marks = [lead * power for power in powers for lead in leads if bottom <= lead * power <= top]
        if len(marks) <= 6:
            break
    return _Scale(bottom, top, marks, log=True)
