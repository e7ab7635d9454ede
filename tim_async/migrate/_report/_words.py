"""Numbers, times and other people's text as the page shows them."""

from __future__ import annotations

import datetime as dt
import html
import re

from tim_async._plaintext import plain

NOTHING = "—"
"""What stands where there is no number."""

_SUSPECT = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])|([^\x20-\x7e])")
"""Everything that may be invisible; joiners within emoji and words of other scripts are not."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and symbols without any ink."""


def safe(text: str) -> str:
    """A text as HTML, in an element or an attribute; what cannot be seen, or not be written as UTF-8, as an escape."""
    return html.escape(_SUSPECT.sub(_visible, plain(text)))


def _visible(match: re.Match[str]) -> str:
    character = match[1]
    if character is None or (character.isprintable() and character not in _BLANK):
        return match[0]
    return character.encode("unicode_escape").decode()


def counted(value: int, one: str, many: str) -> str:
    """A count with what is counted."""
    return f"{value:,} {one if value == 1 else many}"


def rows(value: int) -> str:
    """A count of rows."""
    return counted(value, "row", "rows")


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
