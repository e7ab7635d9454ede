"""Lines of delimited text as records: CSV with quotes or without."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence

from ._lines import LONGEST, TOO_LONG

UNCLOSED = "is not CSV: opens a quote that is not closed, or not at a field's end"
"""The problem of a record that does not end where it should."""


class Lines:
    """Lines with their numbers, which can be put back.

    Attributes:
        number: the number of the line that was read last, counted from 1.
    """

    def __init__(self, lines: Iterator[str | None]) -> None:
        self.number: int = 0
        self._lines = lines
        self._again: list[str | None] = []

    def __iter__(self) -> Iterator[str | None]:
        while True:
            while self._again:
                self.number += 1
                yield self._again.pop()
            for line in self._lines:
                self.number += 1
                yield line
                if self._again:
                    break
            else:
                if not self._again:
                    return

    def next(self) -> str | None:
        """Return the next line; "" at the end."""
        line = self._again.pop() if self._again else next(self._lines, "")
        self.number += line != ""
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
    between = f"{quote}{delimiter}{quote}"
    apart = 0  # no line before this one closes a quote that another of them opens
    for line in lines:
        number = lines.number
        if line is None:
            yield number, [], (None,), TOO_LONG
        elif quote is None or quote not in line:
            if not line.isspace():
                yield number, line.rstrip("\r\n").split(delimiter), (line,), ""
        else:
            text = line.rstrip("\r\n")
            fields = text[1:-1].split(between)
            if text[0] == text[-1] == quote and text.count(quote) == 2 * len(fields):  # each field is quoted
                yield number, fields, (line,), ""
                continue
            with contextlib.suppress(csv.Error):  # nearly all end on the line where they begin
                fields = next(csv.reader((line,), delimiter=delimiter, quotechar=quote, strict=True))
                yield number, fields, (line,), ""
                continue
            record = _Quoted(delimiter, quote)
            record.add(line)
            while record.is_open and number >= apart and (more := lines.next()) != "":
                record.add(more)
            problem = UNCLOSED if record.is_open else record.problem
            if not problem:
                yield number, record.fields, record.lines, ""
                continue
            if len(record.lines) > 1:
                # Without this, a file whose lines all open a quote would be read as often as it has lines.
                apart = max(apart, lines.number)
                lines.put_back(record.lines[1:])
                problem = UNCLOSED
            yield number, [], (line,), problem


class _Quoted:
    """A record with quotes.

    Attributes:
        fields: the complete fields.
        lines: its lines so far.
        is_open: whether its last field continues on the next line.
        problem: why it is invalid; "" for no problem.
    """

    def __init__(self, delimiter: str, quote: str) -> None:
        self.fields: list[str] = []
        self.lines: list[str | None] = []
        self.is_open: bool = False
        self.problem: str = ""
        self._delimiter = delimiter
        self._quote = quote
        self._quoted = re.compile(f"(?:[^{re.escape(quote)}]|{re.escape(quote)}{{2}})*+")
        self._parts: list[str] = []
        self._size = 0

    def add(self, line: str | None) -> None:
        """Add its next line."""
        self.lines.append(line)
        self._size += len(line or "")
        if line is None or (self.is_open and self._size > LONGEST):
            self._fail(UNCLOSED)
            return
        text, at = line.rstrip("\r\n"), 0
        while at <= len(text):
            if not self.is_open and not text.startswith(self._quote, at):
                end = text.find(self._delimiter, at)
                end = len(text) if end < 0 else end
                self.fields.append(text[at:end])
                at = end + 1
                continue
            if not self.is_open:
                at += 1
            quoted = self._quoted.match(text, at)
            assert quoted is not None  # the pattern also matches an empty text
            self._parts.append(quoted[0])
            at = quoted.end()
            self.is_open = at == len(text)
            if self.is_open:
                self._parts.append(line[at:])
                return
            self.fields.append("".join(self._parts).replace(self._quote * 2, self._quote))
            self._parts.clear()
            if text[at + 1 : at + 2] not in ("", self._delimiter):
                self._fail(f"is not CSV: {self._delimiter!r} expected after {self._quote!r}")
                return
            at += 2

    def _fail(self, problem: str) -> None:
        self.is_open, self.problem = False, problem
