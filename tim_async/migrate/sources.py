"""Where rows come from: CSV, TSV and JSON Lines, each line read, checked and numbered.

A row that cannot be valid is a `Rejected` with its line, field and reason, and never stops those after it.  Reading
the same file again gives the same rows: the journal knows them by their lines.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from .columns import Columns
from .errors import SourceError
from .lines import LONGEST, STDIN, TextFile
from .rows import MISSING, BadField, Kind, Rejected, Row

Format = Literal["csv", "tsv", "jsonl"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl")

_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_DELIMITERS = (",", ";", "\t", "|")
_TOO_LONG = f"is longer than {LONGEST:,} bytes, which no row is"
_LONGEST_KEPT = 1000


class Source(Protocol):
    """Rows that can be read again in the same order, and know whether they are the same.

    Its methods are called outside the event loop, one at a time, and may block.
    """

    @property
    def kind(self) -> Kind:
        """What the rows are."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What shapes its rows, apart from the file, as JSON can hold it."""

    def fingerprint(self) -> str:
        """The same text as long as the rows are the same."""

    def read(self) -> Iterator[Row | Rejected]:
        """Each row, by rising line."""


class FileSource:
    """The rows of a file; a context manager that forgets, at its end, what it has copied from a pipe.

    Args:
        path: a file, plain or gzipped; "-" for standard input.
        kind: what its rows are.
        format: "csv", "tsv" or "jsonl"; None to tell by its name, or else by what is in it.
        columns: which column or dotted JSON path holds a field, where it is not named after the field.
        id_formats: templates of ids by field, such as ``{"GroupId": "room_{}"}``; ``{}`` is the id as read, and
            ``{name}`` any other column.

    Raises:
        ValueError: an unknown field or format, or a template that cannot be right.
    """

    def __init__(
        self,
        path: str | Path,
        kind: Kind,
        *,
        format: Format | None = None,  # noqa: A002 - what it is called everywhere
        columns: Mapping[str, str] | None = None,
        id_formats: Mapping[str, str] | None = None,
    ) -> None:
        if format is not None and format not in FORMATS:
            raise ValueError(f"no format {format!r}; one of {', '.join(FORMATS)}")
        self.kind = kind
        self._file = TextFile(str(path))
        self._format: Format | None = format
        self._columns = Columns(kind, columns or {}, id_formats or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    @property
    def name(self) -> str:
        """The absolute path; "-" for standard input."""
        return STDIN if self._file.path == STDIN else str(Path(self._file.path).absolute())

    @property
    def arguments(self) -> dict[str, Any]:
        """What shapes its rows, apart from the file: the keyword arguments it was made with."""
        return {
            "format": self._format,
            "columns": dict(sorted(self._columns.paths.items())),
            "id_formats": dict(sorted(self._columns.templates.items())),
        }

    def fingerprint(self) -> str:
        """The SHA-256 of the file.

        Raises:
            SourceError: it cannot be read.
        """
        return self._file.fingerprint()

    def read(self) -> Iterator[Row | Rejected]:
        """Read and check each row.

        Raises:
            SourceError: the file cannot be read as rows at all.
        """
        head = self._file.head()
        form = self._format or self._format_of(head)
        if form == "jsonl":
            return self._read_json(head)
        return self._read_csv(_DELIMITERS if form == "csv" else ("\t",))

    def _format_of(self, head: bytes) -> Format:
        path = Path(self._file.path)
        suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
        known = _SUFFIXES.get(suffix.lower())
        if known is not None and self._file.path != STDIN:
            return known
        start = head.lstrip()[:1]
        if start in (b"{", b"["):
            return "jsonl"
        first = head.partition(b"\n")[0]
        return "tsv" if first.count(b"\t") > first.count(b",") else "csv"

    # JSON Lines

    def _read_json(self, head: bytes) -> Iterator[Row | Rejected]:
        if head.lstrip().startswith(b"["):
            raise SourceError(
                f"{self._file.name} is one JSON array; make it JSON Lines, one object a line, e.g. with jq -c '.[]'"
            )
        missing: str | None = None  # the field that every row so far lacks
        for number, line in enumerate(self._file.lines(), 1):
            if line is None:
                row: Row | Rejected = Rejected(number, "", _TOO_LONG)
            elif line.isspace():
                continue
            else:
                row = self._of_json(number, line)
            lacks = row.field if isinstance(row, Rejected) and row.reason == MISSING else ""
            missing = lacks if missing is None or lacks == missing else ""
            yield row
        if missing:
            raise SourceError(f"{self._file.name}: no row has a {missing}; --map {missing}=NAME says what it is called")

    def _of_json(self, number: int, line: str) -> Row | Rejected:
        try:
            document = json.loads(line)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            return Rejected(number, "", f"is not JSON: {reason}", _kept(line))
        except RecursionError:
            return Rejected(number, "", "is not JSON: nested too deeply", _kept(line))
        if not isinstance(document, dict):
            return Rejected(number, "", "is no JSON object", _kept(line))
        return self._checked(number, self._columns.of_document(document))

    # CSV, TSV

    def _read_csv(self, delimiters: tuple[str, ...]) -> Iterator[Row | Rejected]:
        feed = _Feed(self._file.lines())
        header, delimiter = self._header(feed, delimiters)
        of_fields = self._columns.of_fields(header)
        records = csv.reader(feed, delimiter=delimiter, strict=True)
        while True:
            feed.begin()
            try:
                fields = next(records)
            except StopIteration:
                return
            except (csv.Error, _TooLongError) as error:
                row: Row | Rejected = Rejected(feed.first, "", str(error), _kept(feed.text))
            else:
                if not fields:
                    continue
                row = self._of_fields(feed, fields, len(header), of_fields)
            if feed.spans_lines and isinstance(row, Rejected):
                # An opening quote too many swallows the rows after it; they are read again, each by itself.
                feed.give_back()
            yield row

    def _of_fields(
        self, feed: _Feed, fields: list[str], width: int, of_fields: Callable[[list[str]], dict[str, Any]]
    ) -> Row | Rejected:
        if len(fields) != width:
            many = f"{len(fields)} column{'s' if len(fields) > 1 else ''}"
            return Rejected(feed.first, "", f"{many} where the header has {width}", _kept(feed.text))
        return self._checked(feed.first, of_fields(fields))

    def _header(self, feed: _Feed, delimiters: tuple[str, ...]) -> tuple[list[str], str]:
        name = self._file.name
        line = ""
        while not line.strip():
            feed.begin()
            try:
                line = next(feed)
            except _TooLongError as error:
                raise SourceError(f"{name}: the first line {error}") from None
            except StopIteration:
                raise SourceError(f"{name} is empty") from None
        if "\r" in line.rstrip("\r\n"):
            raise SourceError(f"{name} ends its lines with a carriage return alone; convert it to line feeds")
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError:
                raise SourceError(f"{name}: the header is not UTF-8 text") from None
        problem = ""
        for delimiter in delimiters:
            try:
                header = [column.strip() for column in next(csv.reader([line], delimiter=delimiter, strict=True))]
            except csv.Error as error:
                raise SourceError(f"{name}: the header is not CSV: {error}") from None
            found = self._columns.problem_with(header)
            if not found:
                return header, delimiter
            problem = problem or found
        raise SourceError(f"{name} {problem}")

    def _checked(self, number: int, found: dict[str, Any]) -> Row | Rejected:
        found = self._columns.formatted(found)
        try:
            return self.kind.row(number, found)
        except BadField as error:
            return Rejected(number, error.field, error.reason, found)


class _TooLongError(Exception):
    def __init__(self) -> None:
        super().__init__(_TOO_LONG)


class _Feed:
    """The lines of a CSV file, and which of them the record that is being read has taken."""

    def __init__(self, lines: Iterator[str | None]) -> None:
        self._lines = lines
        self._again: list[str | None] = []
        self._taken: list[str | None] = []
        self.first = 0
        self._number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self._taken.append(line)
        if line is None:
            raise _TooLongError
        return line

    def begin(self) -> None:
        """A record begins with the next line."""
        self._number += len(self._taken)
        self.first = self._number + 1
        self._taken.clear()

    @property
    def text(self) -> str:
        """The record's first line."""
        return (self._taken[0] if self._taken else None) or ""

    @property
    def spans_lines(self) -> bool:
        """Whether the record took more than one line."""
        return len(self._taken) > 1

    def give_back(self) -> None:
        """Have all but the record's first line read again."""
        self._again.extend(reversed(self._taken[1:]))
        del self._taken[1:]


def _kept(line: str) -> dict[str, Any]:
    return {"Text": line.rstrip("\r\n")[:_LONGEST_KEPT]}
