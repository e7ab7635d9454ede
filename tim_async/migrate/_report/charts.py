"""The charts: drawings that stretch with the page, and around them labels that do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tim_async.migrate._recorder import BINS, bin_of, edge, quantile

from . import wording
from .timeline import WIDTH, Cell, Panel, Tick, Timeline, spread

QUANTILES = (("median", 0.5), ("p95", 0.95), ("p99", 0.99))
"""Those of a latency that are shown, by name."""

HEIGHT = 200.0
"""Of every drawing, in its own units."""

_MOST_NUMBERED = 12
"""Sessions whose numbers fit above a chart."""

_FEWEST_BARS = 12
"""Bars for which a histogram has room, however few there are."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A vertical axis.

    Attributes:
        bottom: the value at its bottom.
        top: the value at its top.
        marks: values that are labelled.
        log: whether equal factors, and not equal differences, are equally far apart.
    """

    bottom: float
    top: float
    marks: Sequence[float]
    log: bool = False

    def part(self, value: float) -> float:
        """How far up a value is, 0 to 1."""
        if self.log:
            part = math.log(value / self.bottom) / math.log(self.top / self.bottom)
        else:
            part = (value - self.bottom) / (self.top - self.bottom)
        return min(1.0, max(0.0, part))

    def y(self, value: float) -> float:
        """Where a value is in the drawing."""
        return HEIGHT * (1 - self.part(value))


@dataclass(frozen=True, slots=True)
class _Chart:
    """What one chart is made of; texts are HTML."""

    title: str
    summary: str
    key: Sequence[tuple[str, str, str]]  # shape, colour, text
    drawing: str
    scale: Scale
    unit: Callable[[float], str]
    ticks: Sequence[Tick]
    panels: Sequence[Panel] = ()
    labels: Sequence[str] = field(default_factory=list)
    note: str = ""


def rate_chart(timeline: Timeline) -> str:
    """Calls that succeeded a second, against the limit."""
    rates = [cell.per_second(cell.slot.done) for cell in timeline.cells]
    limits = sorted({panel.limit for panel in timeline.panels if panel.limit})
    scale = _linear(1.12 * max([*rates, *limits]))
    drawing, labels = [], []
    for panel in timeline.panels:
        tops = [scale.y(cell.per_second(cell.slot.done)) for cell in panel.cells]
        drawing += [_area("done", panel, tops), _line("done", panel, tops)]
        if panel.limit:
            y = scale.y(panel.limit)
            drawing.append(f'<path class="line limit" d="M{panel.left:.1f} {y:.1f}H{panel.right:.1f}"/>')
    key = [("fill", "done", "calls that succeeded")]
    summary = f"Calls a second over time, at most {wording.rate(max(rates))}"
    if limits:
        text = " to ".join(f"{limit:,.4g}" for limit in dict.fromkeys((limits[0], limits[-1])))
        labels.append(_label("limit", 1.0, scale.part(limits[-1]), f"limit {text}/s", left=True))
        key.append(("line", "limit", "the limit"))
        summary += f"; the limit is {text}"
    return _figure(
        _Chart(
            "Calls a second",
            summary,
            key,
            "".join(drawing),
            scale,
            wording.short,
            timeline.ticks,
            timeline.panels,
            labels,
        )
    )


def trouble_chart(timeline: Timeline) -> str:
    """Refusals, faults and retries."""
    cells = timeline.cells
    most = max(max(_failed(cell), cell.per_second(cell.slot.retried)) for cell in cells)
    key = [
        ("fill", "fault", "faults: time-outs, lost connections, error codes"),
        ("fill", "refused", "refused: over the rate"),
        ("line", "retried", "retried: repeats of a request"),
    ]
    if not most:
        return _without("Refusals, faults and retries", "None at any time.")
    factor, unit = (1, "second") if most >= 1 else (60, "minute")
    scale = _linear(1.05 * factor * most)
    drawing = []
    for panel in timeline.panels:
        faults = [scale.y(factor * cell.per_second(cell.slot.faults)) for cell in panel.cells]
        failed = [scale.y(factor * _failed(cell)) for cell in panel.cells]
        retried = [scale.y(factor * cell.per_second(cell.slot.retried)) for cell in panel.cells]
        drawing += [_area("refused", panel, failed, faults), _area("fault", panel, faults)]
        drawing.append(_line("retried", panel, retried))
    title = f"Refusals, faults and retries a {unit}"
    summary = (
        f"{title} over time; refusals and faults together are at most {wording.rate(factor * max(map(_failed, cells)))}"
    )
    return _figure(_Chart(title, summary, key, "".join(drawing), scale, wording.short, timeline.ticks, timeline.panels))


def latency_chart(timeline: Timeline) -> str:
    """Median and 95th percentile of how long answers took."""
    found = {q: [quantile(cell.slot.took, q) for cell in timeline.cells] for q in (0.5, 0.95)}
    known = [value for values in found.values() for value in values if value is not None]
    if not known:
        return _without("Latency over time", "There were no answers.")
    scale = _linear(1.05 * max(known)) if max(known) < 12 * min(known) else _logarithmic(min(known), max(known))
    drawing = []
    for panel in timeline.panels:
        for run in _runs(panel.cells):
            median, p95 = ([scale.y(quantile(cell.slot.took, q) or 0.0) for cell in run] for q in (0.5, 0.95))
            part = Panel(panel.number, panel.limit, run, panel.x(run[0].start), panel.x(_end(run)))
            drawing += [_area("between", part, p95, median), _line("p95", part, p95), _line("median", part, median)]
    key = [("line", "median", "median"), ("line", "p95", "95th percentile")]
    summary = f"Latency over time; 95th percentiles are at most {wording.latency(max(v for v in found[0.95] if v))}"
    note = "The scale is logarithmic." if scale.log else ""
    return _figure(
        _Chart(
            "Latency over time",
            summary,
            key,
            "".join(drawing),
            scale,
            wording.latency,
            timeline.ticks,
            timeline.panels,
            note=note,
        )
    )


def histogram_chart(took: Mapping[int, int]) -> str:
    """How many answers took how long."""
    total = sum(took.values())
    if not total:
        return _without("Latency of all answers", "There were no answers.")
    # Wide enough that a single bar is not a wall.
    around = max(1, (_FEWEST_BARS - (max(took) - min(took))) // 2)
    first = max(0, min(took) - around)
    width = min(BINS, max(took) + 1 + around) - first
    highest = 100 * max(took.values()) / total
    marks = _linear(highest).marks
    # Room above the bars for the labels of the quantiles.
    scale = Scale(0.0, highest / 0.68, [mark for mark in marks if mark <= highest])
    drawing = []
    for bin_, count in sorted(took.items()):
        # Whatever is there can be seen.
        top = min(scale.y(100 * count / total), HEIGHT - 1.5)
        x = WIDTH * (bin_ - first) / width
        drawing.append(
            f'<path class="area done" d="M{x + 0.5:.1f} {HEIGHT:g}V{top:.1f}h{WIDTH / width - 1:.1f}V{HEIGHT:g}z"/>'
        )
    labels = []
    for row, (name, q) in enumerate(QUANTILES):
        seconds = quantile(took, q)
        assert seconds is not None
        at = (_place(seconds) - first) / width
        top = HEIGHT * (0.02 + 0.1 * row)
        drawing.append(f'<path class="line {name}" d="M{WIDTH * at:.1f} {HEIGHT:g}V{top:.1f}"/>')
        labels.append(_label(name, at, 0.98 - 0.1 * row, f"{name} {wording.latency(seconds)}", left=at > 0.66))
    candidates = [
        (WIDTH * (_place(seconds) - first) / width, wording.latency(seconds))
        for seconds in _one_two_five(edge(first), edge(first + width))
    ]
    wide = spread(candidates, lambda _: 70.0)
    phone = spread(wide, lambda text: 31.0 * len(text))
    ticks = [Tick(x / WIDTH, text, (x, text) in phone) for x, text in wide]
    summary = f"Latency of {wording.counted(total, 'answer', 'answers')}: " + ", ".join(
        f"{name} {wording.latency(quantile(took, q))}" for name, q in QUANTILES
    )
    return _figure(
        _Chart(
            "Latency of all answers",
            summary,
            [("fill", "done", "share of the answers")],
            "".join(drawing),
            scale,
            lambda value: f"{value:.3g}%",
            ticks,
            labels=labels,
            note="The scale of time is logarithmic.",
        )
    )


def swatch(shape: str, colour: str) -> str:
    """A colour beside what it stands for: drawn, since a browser prints no backgrounds."""
    inside = '<rect width="16" height="10" rx="2"/>' if shape == "fill" else '<path d="M0 5H16"/>'
    kind = "area" if shape == "fill" else "line"
    size = 'viewBox="0 0 16 10" width="16" height="10"'
    return f'<svg class="swatch {kind} {colour}" {size} aria-hidden="true">{inside}</svg>'


def bar(parts: Sequence[tuple[str, int]], summary: str) -> str:
    """Counts as parts of one bar.

    Args:
        parts: colour and count of each.
        summary: what it shows, in words.
    """
    parts = [part for part in parts if part[1]]
    if not parts:
        return ""
    # However few of ten million: they can be seen.
    widths = [max(6.0, WIDTH * count / sum(count for _, count in parts)) for _, count in parts]
    drawing, x = [], 0.0
    for (colour, _), width in zip(parts, widths, strict=True):
        part = WIDTH * width / sum(widths)
        drawing.append(f'<rect class="area {colour}" x="{x:.1f}" y="0" width="{part:.1f}" height="20"/>')
        x += part
    return (
        f'<svg class="bar" viewBox="0 0 {WIDTH:g} 20" preserveAspectRatio="none" role="img"'
        f' aria-label="{wording.safe(summary)}">{"".join(drawing)}</svg>'
    )


def _figure(chart: _Chart) -> str:
    key = "".join(f"<li>{swatch(shape, colour)}<span>{text}</span></li>" for shape, colour, text in chart.key)
    grounds = (
        "".join(
            f'<path class="ground" d="M{panel.left:.1f} 0H{panel.right:.1f}V{HEIGHT:g}H{panel.left:.1f}z"/>'
            for panel in chart.panels
        )
        or f'<path class="ground" d="M0 0H{WIDTH:g}V{HEIGHT:g}H0z"/>'
    )
    lines = "".join(f'<path class="grid" d="M0 {chart.scale.y(mark):.1f}H{WIDTH:g}"/>' for mark in chart.scale.marks)
    ys = "".join(
        f'<span style="bottom:{100 * chart.scale.part(mark):.1f}%">{chart.unit(mark)}</span>'
        for mark in chart.scale.marks
    )
    xs = "".join(
        f'<span style="left:{100 * tick.at:.1f}%"{"" if tick.always else " class=wide"}>{tick.text}</span>'
        for tick in chart.ticks
    )
    numbers = ""
    if 1 < len(chart.panels) <= _MOST_NUMBERED:
        middles = [(panel.number, (panel.left + panel.right) / 2 / WIDTH) for panel in chart.panels]
        spans = "".join(f'<span style="left:{100 * at:.1f}%">{number}</span>' for number, at in middles)
        numbers = f'<div class="numbers" aria-hidden="true">{spans}</div>'
    note = f'<p class="note">{chart.note}</p>' if chart.note else ""
    return (
        f'<figure class="chart"><figcaption><h3>{chart.title}</h3><ul class="key">{key}</ul></figcaption>'
        f'<div class="plot">{numbers}<div class="ys" aria-hidden="true">{ys}</div><div class="canvas">'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img"'
        f' aria-label="{wording.safe(chart.summary)}">{grounds}{lines}{chart.drawing}</svg>'
        f'{"".join(chart.labels)}</div><div class="xs" aria-hidden="true">{xs}</div></div>{note}</figure>'
    )


def _without(title: str, text: str) -> str:
    return f'<figure class="chart"><figcaption><h3>{title}</h3></figcaption><p class="none">{text}</p></figure>'


def _label(colour: str, at: float, up: float, text: str, *, left: bool) -> str:
    side = f"right:{100 * (1 - at):.1f}%" if left else f"left:{100 * at:.1f}%"
    return f'<span class="label {colour}" style="{side};bottom:{100 * up:.1f}%" aria-hidden="true">{text}</span>'


def _steps(panel: Panel, ys: Sequence[float], *, back: bool = False) -> str:
    """A path's way along the cells, each level for as long as it is; runs of one height in one go."""
    rights = [panel.x(cell.start) for cell in panel.cells[1:]] + [panel.right]
    lefts = [panel.left, *rights[:-1]]
    ends, levels = (lefts[::-1], list(ys)[::-1]) if back else (rights, list(ys))
    texts = [f"{y:.1f}".removesuffix(".0") for y in levels]
    path = [texts[0]]
    for number, end in enumerate(ends):
        if number + 1 == len(ends):
            path.append(f"H{end:.1f}")
        elif texts[number + 1] != texts[number]:
            path.append(f"H{end:.1f}V{texts[number + 1]}")
    return "".join(path)


def _line(colour: str, panel: Panel, ys: Sequence[float]) -> str:
    return f'<path class="line {colour}" d="M{panel.left:.1f} {_steps(panel, ys)}"/>'


def _area(colour: str, panel: Panel, tops: Sequence[float], bottoms: Sequence[float] = ()) -> str:
    """What is between two heights, or between one and the ground; nothing where that is nothing."""
    if not any(top < bottom for top, bottom in zip(tops, bottoms or [HEIGHT] * len(tops), strict=True)):
        return ""
    ground = f"V{_steps(panel, bottoms, back=True)}" if bottoms else f"V{HEIGHT:g}H{panel.left:.1f}"
    return f'<path class="area {colour}" d="M{panel.left:.1f} {_steps(panel, tops)}{ground}z"/>'


def _failed(cell: Cell) -> float:
    return cell.per_second(cell.slot.refused + cell.slot.faults)


def _runs(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Consecutive cells with answers."""
    runs: list[list[Cell]] = [[]]
    for cell in cells:
        if cell.slot.took:
            runs[-1].append(cell)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _end(run: Sequence[Cell]) -> float:
    return run[-1].start + run[-1].seconds


def _place(seconds: float) -> float:
    """Where a time is among the bins of a histogram, in bins."""
    bin_ = bin_of(seconds)
    return bin_ + math.log(max(1.0, seconds / edge(bin_))) / math.log(edge(1) / edge(0))


def _one_two_five(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in a range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [lead * 10.0**power for power in powers for lead in (1, 2, 5) if low <= lead * 10.0**power <= high]


def _linear(most: float) -> Scale:
    """An axis from 0 to at least a value, with three to six marks."""
    most = most or 1.0
    power = 10.0 ** math.floor(math.log10(most))
    step = next(lead * power for lead in (0.2, 0.25, 0.5, 1.0, 2.0) if most <= 5 * lead * power)
    return Scale(0.0, most, [step * number for number in range(math.floor(most / step + 1e-9) + 1)])


def _logarithmic(low: float, high: float) -> Scale:
    bottom, top = low / 1.3, high * 1.2
    marks = _one_two_five(bottom, top)
    return Scale(bottom, top, marks if len(marks) <= 8 else [mark for mark in marks if _is_power(mark)], log=True)


def _is_power(value: float) -> bool:
    return math.isclose(math.log10(value), round(math.log10(value)), abs_tol=1e-9)
