"""Numbers, times and other people's text as the page shows them."""

from __future__ import annotations

import datetime as dt
import html

from tim_async._plaintext import plain

NOTHING = "—"
"""What stands where there is no number."""


def safe(text: str) -> str:
    """A text as HTML, in an element or an attribute; what cannot be seen, or not be written as UTF-8, as an escape."""
    return html.escape(plain(text))


def number(value: int) -> str:
    """A count in full."""
    return f"{value:,}"


def counted(value: int, one: str, many: str) -> str:
    """A count with what is counted."""
    return f"{value:,} {one if value == 1 else many}"


def rows(value: int) -> str:
    """A count of rows."""
    return counted(value, "row", "rows")


def short(value: float) -> str:
    """A number for an axis, in few characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def share(part: float, whole: float) -> str:
    """A part in per cent; what is neither nothing nor all never looks like it."""
    if whole <= 0:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<0.1%"
    if 99.95 <= percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%" if part and part != whole else f"{percent:.0f}%"


def rate(value: float | None) -> str:
    """Calls or rows a second."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def latency(seconds: float | None) -> str:
    """How long an answer took."""
    if seconds is None:
        return NOTHING
    if seconds >= 0.9995:
        return f"{seconds:.3g} s"
    milliseconds = 1000 * seconds
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def duration(seconds: float) -> str:
    """How long something lasted, in its two largest units."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds else "0 s"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def clock(moment: float, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment, unix seconds, in UTC."""
    try:
        return dt.datetime.fromtimestamp(moment, dt.UTC).strftime(pattern)
    except (OverflowError, OSError, ValueError):  # a clock that was far off
        return f"{moment:.0f}"
