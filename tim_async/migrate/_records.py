"""Lines of delimited text as records: CSV with quotes or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ._lines import LONGEST, TOO_LONG

UNCLOSED = "is not CSV: opens a quote that is not closed, or not at a field's end"
"""The problem of a record that does not end where it should."""


class Lines(Iterator[str | None]):
    """Lines with their numbers, which can be put back.

    Attributes:
        number: the number of the line that was read last, counted from 1.
    """

    def __init__(self, lines: Iterator[str | None]) -> None:
        self.number: int = 0
        self._lines = lines
        self._again: list[str | None] = []

    def __next__(self) -> str | None:
        line = self._again.pop() if self._again else next(self._lines)
        self.number += 1
        return line

    def put_back(self, lines: Sequence[str | None]) -> None:
        """Put back the lines that were read last, to be read again."""
        self._again.extend(reversed(lines))
        self.number -= len(lines)


Record = tuple[int, list[str], Sequence[str | None], str]
"""The line where a record begins, its fields, its lines, and its problem: "" when it can be read."""


def records(lines: Lines, delimiter: str, quote: str | None) -> Iterator[Record]:
    """Yield each record that is not blank.

    Within a quoted field, every character but a quote is literal, and two quotes stand for one.  A quote that is not
    the first character of its field is literal.  If a record with an open quote does not end as it should, only its
    first line is invalid, and the lines after it are read again.

    Args:
        lines: the lines, which are never read beyond the current record.
        delimiter: the character between fields.
        quote: the character around fields that contain the delimiter or the end of a line; None for none.
    """
    apart = 0  # no line before this one closes a quote that another of them opens
    for line in lines:
        number = lines.number
        if line is None:
            yield number, [], (None,), TOO_LONG
        elif quote is None or quote not in line:
            if not line.isspace():
                yield number, line.rstrip("\r\n").split(delimiter), (line,), ""
        else:
            following = lines if number >= apart else iter(())
            fields, taken, problem = _quoted_record(line, following, delimiter, quote)
            if problem and len(taken) > 1:
                # Without this, a file whose lines all open a quote would be read as often as it has lines.
                apart = max(apart, lines.number)
                lines.put_back(taken[1:])
                taken, problem = taken[:1], UNCLOSED
            yield number, fields, taken, problem


def _quoted_record(
    line: str, following: Iterator[str | None], delimiter: str, quote: str
) -> tuple[list[str], list[str | None], str]:
    """Read a record with quotes.

    Args:
        line: its first line.
        following: the lines after it, which are read while a quote is open.
        delimiter: the character between fields.
        quote: the character around fields.

    Returns:
        Its fields, its lines, and its problem; "" for no problem.
    """
    fields: list[str] = []
    taken: list[str | None] = [line]
    size = len(line)
    text, at = line.rstrip("\r\n"), 0
    while at <= len(text):
        if not text.startswith(quote, at):
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            fields.append(text[at:end])
            at = end + 1
            continue
        parts, at = [], at + 1
        while (end := _closing(text, quote, at)) < 0:  # the field continues on the next line
            parts.append(line[at:])
            more = next(following, "")
            if more != "":
                taken.append(more)
            size += len(more or "")
            if not more or size > LONGEST:
                return [], taken, UNCLOSED
            line, at = more, 0
            text = line.rstrip("\r\n")
        parts.append(text[at:end])
        fields.append("".join(parts).replace(quote * 2, quote))
        if text[end + 1 : end + 2] not in ("", delimiter):
            return [], taken, f"is not CSV: {delimiter!r} expected after {quote!r}"
        at = end + 2
    return fields, taken, ""


def _closing(text: str, quote: str, at: int) -> int:
    """Return the index of the quote that closes a field, the first from ``at`` on that is not doubled; -1 for none."""
    end = text.find(quote, at)
    while end >= 0 and text.startswith(quote, end + 1):
        end = text.find(quote, end + 2)
    return end
