"""Detection of the delimiter and the header of a delimited file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from ._columns import Columns, FieldReader, listed
from ._lines import TOO_LONG, Text
from ._records import Lines, Record, records
from ._rows import read_count, shown

_TAB = "\t"
_TAB_NAMES = ("tab", r"\t")
"""Notations of a tab, where one cannot be typed."""
_DELIMITERS = (",", ";", _TAB, "|")
"""The delimiters that are tried by default."""
_SEP = re.compile(r'"?sep=([^\w"\'\\]|\\t)"?', re.IGNORECASE)
"""The line that declares the delimiter to a spreadsheet."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a delimited file.

    Attributes:
        delimiters: the characters that may be between fields.
        quote: the character around fields, or "none"; None for ``"``, or "none" when the delimiter is a tab.
        header: the names of the columns; None when the first line holds them.
    """

    delimiters: tuple[str, ...]
    quote: str | None
    header: tuple[str, ...] | None

    @classmethod
    def of(cls, delimiter: str | None, quote: str | None, header: Sequence[str] | None) -> Self:
        """Return the dialect of a user's options.

        Args:
            delimiter: a character, or "tab"; None to try the usual ones.
            quote: a character, or "none"; None for the usual one.
            header: names of columns, or None.

        Raises:
            ValueError: an invalid option.
        """
        if delimiter is not None:
            delimiter = _TAB if delimiter.lower() in _TAB_NAMES else delimiter
            if len(delimiter) != 1 or delimiter in '\r\n"':
                raise ValueError(f"the delimiter must be one character, such as ; or tab, not {delimiter!r}")
        if quote is not None and quote != "none" and (len(quote) != 1 or quote in ("\r", "\n", delimiter)):
            raise ValueError(f"the quote must be none, or one character other than the delimiter, not {quote!r}")
        if header is not None and (isinstance(header, str) or not header):
            raise ValueError(f"the header must be the names of columns, not {header!r}")
        names = None if header is None else tuple(name.strip() for name in header)
        usual = tuple(one for one in _DELIMITERS if one != quote)
        return cls(usual if delimiter is None else (delimiter,), quote, names)

    def records(self, lines: Lines, delimiter: str) -> Iterator[Record]:
        """Return the records, split at one of the delimiters."""
        quote = self.quote or ("none" if delimiter == _TAB else '"')
        return records(lines, delimiter, None if quote == "none" else quote)


def find_table(text: Text, columns: Columns, dialect: Dialect) -> tuple[FieldReader, Iterator[Record]]:
    """Find the delimiter and the header.

    Returns:
        The function that finds the fields of a row in those of a record, and the records, from the first row on.

    Raises:
        ValueError: none fits; the message continues a sentence that begins with the file.
    """
    lines = Lines(text.lines())
    first = _first_line(lines, text)
    delimiters = dialect.delimiters
    if match := _SEP.fullmatch(first.strip("\r\n")):
        if len(delimiters) > 1:
            delimiters = (_TAB,) if match[1] == r"\t" else (match[1],)
        first = _first_line(lines, text)
    lines.put_back([first])
    widest, problem = -1, ""
    for delimiter in delimiters:
        found = dialect.records(lines, delimiter)
        _, record, taken, bad = next(found)
        names = [name.strip() for name in record]
        try:
            if bad:
                raise ValueError(f"has a first line that {bad}")
            if dialect.header is None:
                return _with_header(names, columns), found
            fields = _without_header(names, columns, dialect.header)
        except ValueError as error:
            if first.count(delimiter) > widest:
                widest, problem = first.count(delimiter), str(error)
            lines.put_back(taken)
        else:
            lines.put_back(taken)
            return fields, dialect.records(lines, delimiter)
    raise ValueError(problem)


def _first_line(lines: Lines, text: Text) -> str:
    """Return the next line that is not blank."""
    for line in lines:
        if line is None:
            raise ValueError(f"has a first line that {TOO_LONG}")
        if line.isspace():
            continue
        if hint := text.hint(line):
            raise ValueError(f"has a first line that is not UTF-8{hint}")
        return line
    raise ValueError("is empty")


def _with_header(names: list[str], columns: Columns) -> FieldReader:
    """Return the field reader of a file whose first line names the columns."""
    try:
        return columns.field_reader(names)
    except ValueError as error:
        if names[0].startswith(("{", "[")):
            raise ValueError(f"{error}; --format jsonl reads JSON") from None
        if len(names) == 1 and len(columns.needed) > 1:
            needed = [column.name for column in columns.kind.columns if column.name in columns.needed]
            missing = ", ".join(columns.paths.get(name, name) for name in needed)
            raise ValueError(
                f"has no columns {missing}; found only {shown(names[0])}; {_separator(names[0], columns)}"
            ) from None
        if any(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
            raise ValueError(f"{error}; --quote '\"' removes the quotes") from None
        if any(map(_is_count, names)):
            fields = [column.name for column in columns.kind.columns]
            required = sum(column.required for column in columns.kind.columns)
            header = ",".join(fields[: len(names)]) if required <= len(names) <= len(fields) else "NAME,NAME,…"
            raise ValueError(
                f"has no header, but begins with {listed(names)}; --no-header --columns {header} names its columns"
            ) from None
        raise


def _separator(line: str, columns: Columns) -> str:
    """Return the remedy for a header that was read as a single column."""
    for one in _DELIMITERS:
        if columns.fit([name.strip().strip('"') for name in line.split(one)]):
            return f"try --format csv --delimiter {'tab' if one == _TAB else shlex.quote(one)}"
    return "name the delimiter with --delimiter CHAR"


def _without_header(names: list[str], columns: Columns, header: tuple[str, ...]) -> FieldReader:
    """Return the field reader of a file whose first line is a row already."""
    if len(names) != len(header):
        raise ValueError(f"has {len(names)} columns in its first line, and --columns names {len(header)}")
    if columns.fit(names):
        raise ValueError("has a header in its first line; leave --no-header and --columns out")
    return columns.field_reader(header)


def _is_count(text: str) -> bool:
    try:
        return read_count(text) >= 0
    except ValueError:
        return False
