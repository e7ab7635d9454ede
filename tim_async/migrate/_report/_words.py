"""Formatting of numbers, times and untrusted text for the page."""

from __future__ import annotations

import datetime as dt
import html
import re

from tim_async._plaintext import plain

NOTHING = "—"
"""The placeholder for a missing number."""

_SUSPECT = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])|([^\x20-\x7e])")
"""Characters that may be invisible; joiners within emoji and words of other scripts are in no group."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Printable letters, marks and symbols that show nothing."""


def safe(text: str) -> str:
    """Return a text as HTML, for an element or an attribute; invisible and unencodable characters as escapes."""
    return html.escape(_SUSPECT.sub(_visible, plain(text)))


def _visible(match: re.Match[str]) -> str:
    character = match[1]
    if character is None or (character.isprintable() and character not in _BLANK):
        return match[0]
    return character.encode("unicode_escape").decode()


def rows(value: int) -> str:
    """Return a count of rows."""
    return f"{value:,} {'row' if value == 1 else 'rows'}"


def share(part: float, whole: float) -> str:
    """Return a part in per cent; only none is "0%", and only all is "100%"."""
    if whole <= 0:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<0.1%"
    if 99.95 <= percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%" if part and part != whole else f"{percent:.0f}%"


def rate(value: float | None) -> str:
    """Return a rate, calls/s or rows/s, without its unit."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def latency(seconds: float | None) -> str:
    """Return a latency."""
    if seconds is None:
        return NOTHING
    if seconds >= 0.9995:
        return f"{seconds:.3g} s"
    milliseconds = 1000 * seconds
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
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
    """Return a time, unix seconds, in UTC."""
    try:
        return dt.datetime.fromtimestamp(moment, dt.UTC).strftime(pattern)
    except (OverflowError, OSError, ValueError):  # the clock was far off
        return f"{moment:.0f}"
