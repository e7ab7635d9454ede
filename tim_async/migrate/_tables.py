"""The beginning of a delimited file: its delimiter, and which of its columns holds which field."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ._columns import Columns
from ._lines import TOO_LONG, Text
from ._records import Lines, Record, records
from ._rows import read_count, shown

Fields = Callable[[list[str]], dict[str, Any]]
"""Finds the fields of a row in those of a record."""

_TAB = {"tab": "\t", r"\t": "\t"}
"""Ways to write a tab where one cannot be typed."""

TAB = "\t"
DELIMITERS = (",", ";", TAB, "|")
"""Those that are tried when none is named."""

_MOST_SHOWN = 12

_SEP = re.compile(r'"?sep=([^\w"\'\\]|\\t)"?', re.IGNORECASE)
"""The line by which a spreadsheet is told the delimiter."""


@dataclass(frozen=True, slots=True)
class Table:
    """Records of a file.

    Attributes:
        width: how many fields each has.
        fields: finds the fields of a row in those of a record.
        records: its records, from the first that is a row.
    """

    width: int
    fields: Fields
    records: Iterator[Record]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How records are written.

    Attributes:
        delimiters: characters that may be between fields.
        quote: the character around fields, "none" for none; None for ``"``, and for none where tabs are between fields.
        header: the names of the columns; None when the first line holds them.
    """

    delimiters: tuple[str, ...]
    quote: str | None
    header: tuple[str, ...] | None

    @classmethod
    def of(cls, delimiter: str | None, quote: str | None, header: Sequence[str] | None) -> Self:
        """Make one of what a user says.

        Args:
            delimiter: a character, or "tab"; None to try the usual ones.
            quote: a character, or "none"; None for the usual one.
            header: names of columns, or None.

        Raises:
            ValueError: one that cannot be right.
        """
        if delimiter is not None:
            delimiter = _TAB.get(delimiter.lower(), delimiter)
            if len(delimiter) != 1 or delimiter in '\r\n"':
                raise ValueError(f"the delimiter must be one character, such as ; or tab, not {delimiter!r}")
        if quote is not None and quote != "none" and (len(quote) != 1 or quote in ("\r", "\n", delimiter)):
            raise ValueError(f"the quote must be none, or one character other than the delimiter, not {quote!r}")
        if header is not None and (isinstance(header, str) or not header):
            raise ValueError(f"the header must be the names of columns, not {header!r}")
        names = None if header is None else tuple(name.strip() for name in header)
        usual = tuple(one for one in DELIMITERS if one != quote)
        return cls(usual if delimiter is None else (delimiter,), quote, names)

    def records(self, lines: Lines, delimiter: str) -> Iterator[Record]:
        """The records with one of the delimiters."""
        quote = self.quote or ("none" if delimiter == "\t" else '"')
        return records(lines, delimiter, None if quote == "none" else quote)


def find_table(text: Text, columns: Columns, dialect: Dialect) -> Table:
    """Find the delimiter and the header.

    Raises:
        ValueError: there is none that fits; the message is the end of a sentence that begins with the file.
    """
    lines = Lines(text.lines())
    first = _first(lines, text)
    delimiters = dialect.delimiters
    if match := _SEP.fullmatch(first.strip("\r\n")):
        if len(delimiters) > 1:
            delimiters = ("\t",) if match[1] == r"\t" else (match[1],)
        first = _first(lines, text)
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
                return Table(len(names), _fields_under(names, columns), found)
            fields = _fields_below(names, columns, dialect.header)
        except ValueError as error:
            if first.count(delimiter) > widest:
                widest, problem = first.count(delimiter), str(error)
            lines.put_back(taken)
        else:
            lines.put_back(taken)
            return Table(len(names), fields, dialect.records(lines, delimiter))
    raise ValueError(problem)


def _first(lines: Lines, text: Text) -> str:
    """The next line that is not blank."""
    for line in lines:
        if line is None:
            raise ValueError(f"has a first line that {TOO_LONG}")
        if line.isspace():
            continue
        if hint := text.hint(line):
            raise ValueError(f"has a first line that is not UTF-8{hint}")
        return line
    raise ValueError("is empty")


def _fields_under(names: list[str], columns: Columns) -> Fields:
    """What finds the fields where the first line names the columns."""
    try:
        return columns.of_fields(names)
    except ValueError as error:
        if names[0].startswith(("{", "[")):
            raise ValueError(f"{error}; --format jsonl reads JSON") from None
        if len(names) == 1 and len(columns.needed) > 1:
            needed = [column.name for column in columns.kind.columns if column.name in columns.needed]
            missing = ", ".join(columns.paths.get(name, name) for name in needed)
            raise ValueError(
                f"has no columns {missing}; there is only {shown(names[0])}; {_separator(names[0], columns)}"
            ) from None
        if any(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
            raise ValueError(f"{error}; --quote '\"' takes the quotes for what they are") from None
        if any(map(_is_count, names)):
            shown_names = ", ".join(map(shown, names[:_MOST_SHOWN])) + (", …" if len(names) > _MOST_SHOWN else "")
            fields = [column.name for column in columns.kind.columns]
            required = sum(column.required for column in columns.kind.columns)
            what = ",".join(fields[: len(names)]) if required <= len(names) <= len(fields) else "NAME,NAME,…"
            raise ValueError(
                f"has no header, but begins with {shown_names}; --no-header --columns {what} says what its columns are"
            ) from None
        raise


def _separator(line: str, columns: Columns) -> str:
    """The remedy for a header that was taken for a single column."""
    for one in DELIMITERS:
        if columns.fit([name.strip().strip('"') for name in line.split(one)]):
            return f"--format csv --delimiter {'tab' if one == TAB else shlex.quote(one)} may be meant"
    return "--delimiter CHAR names what separates columns"


def _fields_below(names: list[str], columns: Columns, header: tuple[str, ...]) -> Fields:
    """What finds the fields where the first line is a row already."""
    if len(names) != len(header):
        raise ValueError(f"has {len(names)} columns in its first line, and --columns names {len(header)}")
    if columns.fit(names):
        raise ValueError("has a header in its first line; leave --no-header and --columns away")
    return columns.of_fields(header)


def _is_count(text: str) -> bool:
    try:
        return read_count(text) >= 0
    except ValueError:
        return False
