"""Where rows come from: CSV, TSV and JSON Lines, each line read, checked and numbered.

A row that cannot be valid is a `Rejected` with its line, field and reason, and never stops those after it.  Reading
the same file again gives the same rows: the journal knows them by their lines.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from ._columns import Columns
from ._lines import LONGEST, STDIN, TOO_LONG, UNCLOSED, Feed, LineError, TextFile
from ._rows import MISSING, BadField, Kind, Rejected, Row
from .errors import SourceError

Format = Literal["csv", "tsv", "jsonl"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl")

_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_DELIMITERS = (",", ";", "\t", "|")
_RETURNS = "{} ends its lines with a carriage return alone; convert it to line feeds"
_LONGEST_KEPT = 1000

_JSON = json.JSONDecoder()
_JSON_WITHOUT_INTEGERS = json.JSONDecoder(parse_int=str)
_JSON_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_DEEPEST = 100
"""Arrays and objects within each other, of a JSON line that can be a row."""


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

    Reading CSV raises ``csv.field_size_limit``, which is one for the whole process, to `LONGEST` if it is lower.

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

    def reserve(self) -> None:
        """Make the temporary file that a pipe will be copied to, if the source is one.

        Raises:
            SourceError: it cannot be made, or there is no such pipe.
        """
        self._file.reserve()

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
        if b"\r" in head.strip() and b"\n" not in head:
            raise SourceError(_RETURNS.format(self._file.name))
        form = self._format or self._format_of(head)
        if form == "jsonl":
            return self._read_json(head)
        return self._read_csv(_DELIMITERS if form == "csv" else ("\t",))

    def _format_of(self, head: bytes) -> Format:
        path = Path(self._file.path)
        suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
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
        absent = set(self._columns.named)  # the optional fields that no row so far has, though they were named
        taken = False
        for number, line in enumerate(self._file.lines(), 1):
            if line is None:
                row: Row | Rejected = Rejected(number, "", TOO_LONG)
            elif line.isspace():
                continue
            else:
                row = self._of_json(number, line, absent)
            if isinstance(row, Row):
                taken, missing = True, ""
            elif missing != "":
                lacks = row.field if row.reason == MISSING else ""
                missing = lacks if missing in (None, lacks) else ""
            yield row
        if missing:
            raise SourceError(f"{self._file.name}: no row has a {missing}; --map {missing}=NAME says what it is called")
        if taken and absent:
            name = min(absent)
            path = self._columns.paths[name]
            raise SourceError(f"{self._file.name}: no row has a {path}; without --map {name}={path} none needs it")

    def _of_json(self, number: int, line: str, absent: set[str]) -> Row | Rejected:
        try:
            found = self._columns.of_document(_document(line))
        except BadField as error:
            return Rejected(number, error.field, error.reason, _kept(line))
        if absent:
            absent.difference_update(found)
        return self._checked(number, found)

    # CSV, TSV

    def _read_csv(self, delimiters: tuple[str, ...]) -> Iterator[Row | Rejected]:
        # By default it is too low for some texts.  `Feed` sees to what a record may hold.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST + 1))
        feed = Feed(self._file.lines())
        header, delimiter = self._header(feed, delimiters)
        of_fields = self._columns.of_fields(header)
        records = csv.reader(feed, delimiter=delimiter, strict=True)
        while True:
            feed.begin()
            try:
                fields = next(records)
                if feed.has_returns:
                    fields = feed.restored(fields)
            except StopIteration:
                return
            except (csv.Error, LineError) as error:
                yield Rejected(feed.first, "", _why(feed, error), _kept(feed.taken[0]))
                feed.take_apart()
                continue
            if len(fields) == len(header):
                row = self._checked(feed.first, of_fields(fields))
            elif feed.is_blank:
                continue
            else:
                many = f"{len(fields)} column{'s' if len(fields) > 1 else ''}"
                row = Rejected(feed.first, "", f"{many} where the header has {len(header)}", _kept(feed.taken[0]))
            yield row
            # What is well-formed is not read again: a text within quotes may look like a row.  But where no field can
            # hold a line's end, two quotes too many may have made one record of several: each line is told of.
            if (
                len(feed.taken) > 1
                and isinstance(row, Rejected)
                and (len(fields) != len(header) or any("\n" in value for value in of_fields(fields).values()))
            ):
                for number, line in feed.rest():
                    yield Rejected(number, "", f"is within the quotes that line {feed.first} opens", _kept(line))

    def _header(self, feed: Feed, delimiters: tuple[str, ...]) -> tuple[list[str], str]:
        name = self._file.name
        self._find_header(feed)
        problem, widest = "", -1
        for delimiter in delimiters:
            feed.give_back(0)
            feed.begin()
            try:
                fields = feed.restored(next(csv.reader(feed, delimiter=delimiter, strict=True)))
                header = [column.strip() for column in fields]
            except (csv.Error, LineError) as error:
                header, found = [], f"has a header that {_why(feed, error)}"
            else:
                found = self._columns.problem_with(header)
                if not found:
                    return header, delimiter
            if len(header) > widest:
                problem, widest = found, len(header)
        if feed.has_returns:
            raise SourceError(_RETURNS.format(name))
        raise SourceError(f"{name} {problem}")

    def _find_header(self, feed: Feed) -> None:
        """Have the feed's record begin with the first line that is not blank."""
        name = self._file.name
        try:
            while not next(feed).strip():
                feed.begin()
            (feed.taken[0] or "").encode()
        except LineError as error:
            raise SourceError(f"{name}: the first line {error}") from None
        except StopIteration:
            raise SourceError(f"{name} is empty") from None
        except UnicodeEncodeError:
            raise SourceError(f"{name}: the header is not UTF-8 text") from None

    def _checked(self, number: int, found: dict[str, Any]) -> Row | Rejected:
        try:
            self._columns.format(found)
            return self.kind.row(number, found)
        except BadField as error:
            return Rejected(number, error.field, error.reason, {name: _cut(value) for name, value in found.items()})


def _why(feed: Feed, error: Exception) -> str:
    """Why a record cannot be read."""
    if isinstance(error, LineError):
        return str(error)
    return UNCLOSED if len(feed.taken) > 1 else f"is not CSV: {error}"


def _document(line: str) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        BadField: it is none.
    """
    # Not as deep as the stack happens to go: the same line is to be the same row wherever it is read.
    if len(line) > _DEEPEST and _is_deep(line):
        raise BadField("", "is not JSON: nested too deeply")
    try:
        document = _loaded(line)
    except json.JSONDecodeError as error:
        raise BadField("", f"is not JSON: {error.msg}") from None
    if not isinstance(document, dict):
        raise BadField("", "is no JSON object")
    return document


def _loaded(line: str) -> Any:
    try:
        return _JSON.decode(line)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more digits than int() takes; it matters only in a field, which refuses it
        return _JSON_WITHOUT_INTEGERS.decode(line)


def _is_deep(line: str) -> bool:
    if line.count("{") + line.count("[") <= _DEEPEST:
        return False
    depth = 0
    for character in _JSON_STRING.sub("", line):
        if character in "[{":
            depth += 1
            if depth > _DEEPEST:
                return True
        elif character in "]}":
            depth -= 1
    return False


def _cut(value: Any) -> Any:
    """A value as it is kept: without what is too long to have been valid."""
    if isinstance(value, str) and len(value) > _LONGEST_KEPT:
        return value[:_LONGEST_KEPT] + "…"
    if isinstance(value, dict | list) and len(repr(value)) > _LONGEST_KEPT:
        return None
    return value


def _kept(line: str | None) -> dict[str, Any]:
    return {"Text": (line or "").rstrip("\r\n")[:_LONGEST_KEPT]}
