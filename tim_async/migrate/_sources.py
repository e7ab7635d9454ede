"""Sources of rows: CSV, TSV and JSON files.  Each row is read once, checked, and identified by its line.

An invalid row is a `Rejected` with its line, field and reason, and never stops the rows after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

from tim_async import _arguments

from ._checker import Checker
from ._columns import Columns, list_in, paths_in
from ._documents import documents
from ._lines import STDIN, UTF_8, Text, TextFile, text_encoding
from ._notes import Notes
from ._rows import BadField, Kind, Rejected, Row, read_line, shown
from ._tables import Dialect, find_table
from .errors import SourceError

Format = Literal["csv", "tsv", "jsonl"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl")

_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".zst")
_DOCUMENTS_SAMPLED = 20
"""Documents whose paths an error lists when no document has a field."""


@runtime_checkable
class Source(Protocol):
    """Rows that are read once, and a fingerprint of their origin.

    Its methods are called outside the event loop, one at a time, and may block.
    """

    @property
    def kind(self) -> Kind:
        """The kind of its rows."""

    @property
    def name(self) -> str:
        """Its name in the journal, in messages and in reports."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The options that determine its rows, JSON-serializable."""

    @property
    def notes(self) -> Notes:
        """Notes on the rows read so far."""

    def read(self) -> Iterator[Row | Rejected]:
        """Yield the rows, in ascending order of line."""

    def fingerprint(self) -> str:
        """Return the same text as long as the rows are the same; "" when unknown, e.g. of a file that is gone."""


class _TextSource:
    """The base of sources that read a text file."""

    def __init__(self, path: str | Path, encoding: str, checker: Checker, columns: Columns) -> None:
        _arguments.kind("path", os.fspath(path), str)
        self.kind: Kind = columns.kind
        self._file = TextFile(os.fspath(path), encoding)
        self._checker = checker
        self._columns = columns
        self._arguments: dict[str, Any] = {}
        self._reading: Generator[Row | Rejected] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reading is not None:
            with contextlib.suppress(ValueError):  # a thread is still blocked on a pipe without a writer
                self._reading.close()

    @property
    def name(self) -> str:
        """The absolute path; "-" for standard input."""
        return STDIN if self._file.path == STDIN else str(Path(self._file.path).absolute())

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that determine its rows, apart from the path."""
        return self._arguments

    @property
    def notes(self) -> Notes:
        """Notes on the rows read so far."""
        return self._checker.notes

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file; "" when it is gone, and when a pipe is empty or was read in part.

        Raises:
            SourceError: the file cannot be read.
        """
        return self._file.fingerprint()

    def read(self) -> Iterator[Row | Rejected]:
        """Read and check each row.

        Raises:
            SourceError: the file cannot be read as rows or has none, or is a pipe that was read before.
        """
        self._reading = self._read()
        return self._reading

    def _read(self) -> Generator[Row | Rejected]:
        self._checker.notes = Notes()
        empty = True
        with self._file.open() as text:
            for row in self._rows(text):
                empty = False
                yield _hinted(row, text) if isinstance(row, Rejected) else row
        if empty:
            raise SourceError(f"{self._file.name} has no rows")

    def _rows(self, text: Text) -> Iterator[Row | Rejected]:
        raise NotImplementedError


class FileSource(_TextSource):
    r"""A file of rows; a context manager, which closes a file that was not read to its end.

    Args:
        path: a file, plain or compressed with gzip or zstd; "-" for standard input.
        kind: the kind of its rows.
        format: "csv", "tsv" or "jsonl"; None to detect it from the name, or else from the content.  "jsonl" is JSON of
            any layout: an object a line, objects over several lines, or an array of objects.
        columns: the column or dotted JSON path of a field, by field, where it is not named after the field.
        id_formats: templates of ids by field, such as ``{"GroupId": "room_{}"}``; ``{}`` is the id as read, and
            ``{name}`` any other column.
        delimiter: the character between the fields of CSV, or "tab"; None to detect it from the header.
        quote: the character around fields of CSV, or "none"; None for ``"``, or "none" when the delimiter is a tab.
        encoding: Python's name of the file's encoding; None for UTF-8.
        null: a text that stands for an absent value, such as ``\N``.
        header: the column names of CSV whose first line does not hold them.
        until_now: accept rows without a time, which mark a conversation read up to the time when they are first sent.
        strict_ids: reject ids that are probably wrong, instead of noting them.

    Attributes:
        kind: the kind of its rows.

    Raises:
        ValueError, TypeError: an unknown field, format or encoding, an invalid template, or contradictory arguments.
    """

    def __init__(
        self,
        path: str | Path,
        kind: Kind,
        *,
        format: Format | None = None,  # noqa: A002 - the usual name
        columns: Mapping[str, str] | None = None,
        id_formats: Mapping[str, str] | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        encoding: str | None = None,
        null: str | None = None,
        header: Sequence[str] | None = None,
        until_now: bool = False,
        strict_ids: bool = False,
    ) -> None:
        if format is not None and format not in FORMATS:
            raise ValueError(f"unknown format {format!r}; the formats are {', '.join(FORMATS)}")
        for name, value in {"delimiter": delimiter, "quote": quote, "encoding": encoding, "null": null}.items():
            _arguments.kind(name, "" if value is None else value, str)
        for name, mapping in {"columns": columns, "id_formats": id_formats}.items():
            _arguments.kind(name, mapping or {}, Mapping)
        csv_only = {"delimiter": delimiter, "quote": quote, "header": header}
        given = [name for name, value in csv_only.items() if value is not None]
        if given and format == "jsonl":
            raise ValueError(f"{given[0]} is for CSV; leave it out for JSON")
        super().__init__(
            path,
            UTF_8 if encoding is None else text_encoding(encoding),
            Checker(kind, until_now=until_now, strict_ids=strict_ids),
            Columns(kind, columns or {}, id_formats or {}, null, until_now=until_now),
        )
        self._format: Format | None = "csv" if given and format is None else format
        self._dialect = Dialect.of("tab" if format == "tsv" and delimiter is None else delimiter, quote, header)
        if format == "tsv" and self._dialect.delimiters != ("\t",):
            raise ValueError(f"the delimiter of TSV is a tab, not {delimiter!r}; use the format csv for another one")
        if self._dialect.header is not None:
            try:
                self._columns.field_reader(self._dialect.header)
            except ValueError as error:
                raise ValueError(f"the given header {error}") from None
        self._arguments = {
            "format": format,
            "columns": dict(sorted(self._columns.paths.items())),
            "id_formats": dict(sorted(self._columns.templates.items())),
            "delimiter": delimiter,
            "quote": quote,
            "encoding": encoding,
            "null": null,
            "header": None if header is None else list(header),
            "until_now": until_now,
            "strict_ids": strict_ids,
        }

    def _rows(self, text: Text) -> Iterator[Row | Rejected]:
        file_format = self._detected_format(text)
        if file_format == "jsonl":
            return self._document_rows(text)
        if file_format == "tsv":
            return self._record_rows(text, dataclasses.replace(self._dialect, delimiters=("\t",)))
        return self._record_rows(text, self._dialect)

    def _detected_format(self, text: Text) -> Format:
        if self._format is not None:
            return self._format
        path = Path(self._file.path)
        suffix = Path(path.stem).suffix if path.suffix.lower() in _COMPRESSED else path.suffix
        known = _SUFFIXES.get(suffix.lower())
        if known is not None and self._file.path != STDIN:
            return known
        return "jsonl" if text.head.lstrip().startswith(("{", "[")) else "csv"

    def _document_rows(self, text: Text) -> Iterator[Row | Rejected]:
        absent = set(self._columns.needed)
        paths: dict[str, None] = {}
        objects, list_name = 0, ""
        for line, document, written in documents(text, self._file.name):
            try:
                if isinstance(document, BadField):
                    raise document
                objects += 1
                if objects <= _DOCUMENTS_SAMPLED:
                    paths |= dict.fromkeys(paths_in(document))
                    list_name = list_name or list_in(document)
                found = self._columns.read_document(document)
            except BadField as error:
                if error.field:  # a duplicate name, hence not absent
                    absent.clear()
                yield self._checker.rejected(line, error, written)
                continue
            absent.difference_update(found)
            yield self._row(line, found)
        if objects and absent:
            if not paths and list_name:
                jq = shlex.quote(f".[{json.dumps(list_name)}][]")
                raise SourceError(
                    f"{self._file.name} has a list of objects in {shown(list_name)}; extract them with: jq {jq}"
                )
            raise SourceError(f"{self._file.name}: no row has a {self._columns.missing(absent, list(paths))}")

    def _record_rows(self, text: Text, dialect: Dialect) -> Iterator[Row | Rejected]:
        try:
            read, records = find_table(text, self._columns, dialect)
        except ValueError as error:
            raise SourceError(f"{self._file.name} {error}") from None
        for line, fields, lines, problem in records:
            found: dict[str, Any] = {}
            try:
                if problem:
                    raise BadField("", problem)
                found = read(fields)
            except BadField as error:
                yield self._checker.rejected(line, error, lines[0] or "")
            else:
                yield self._row(line, found)
            if len(lines) == 1:
                continue
            # A column that is not read may hold lines, even lines that look like rows.  A field that is read cannot:
            # there, two stray quotes may have merged several records, so that each of the lines is rejected.
            if found and not any(value and text.end in value for value in found.values()):
                self.notes.add_record(line)
                continue
            for number, other in enumerate(lines[1:], line + 1):
                if other and not other.isspace():
                    swallowed = BadField("", f"is within the quotes that line {line} opens")
                    yield self._checker.rejected(number, swallowed, other)

    def _row(self, line: int, found: dict[str, Any]) -> Row | Rejected:
        try:
            self._columns.apply_templates(found)
        except BadField as error:
            return self._checker.rejected(line, error, found)
        return self._checker.row(line, found)


class MendedSource(_TextSource):
    """Failed and rejected rows after their correction; the line of each is its ``Line``.

    Args:
        path: a file that `write_rejects` wrote: JSON Lines with the fields by the vendor's names, ids as they are sent,
            and ``Line``.  ``Code``, ``Reason`` and ``Text`` are ignored, but a row with a ``Text`` whose fields are all
            empty is rejected again with both.  "-" for standard input.
        kind: the kind of its rows.
        until_now: as for `FileSource`.
        strict_ids: as for `FileSource`.

    Attributes:
        kind: the kind of its rows.
    """

    def __init__(self, path: str | Path, kind: Kind, *, until_now: bool = False, strict_ids: bool = False) -> None:
        checker = Checker(kind, until_now=until_now, strict_ids=strict_ids)
        super().__init__(path, UTF_8, checker, Columns(kind, {}, {}))

    def _rows(self, text: Text) -> Iterator[Row | Rejected]:
        for number, document, _ in documents(text, self._file.name):
            try:
                if isinstance(document, BadField):
                    raise document
                line, found = read_line(document.get("Line")), self._columns.read_document(document)
            except ValueError as error:
                raise SourceError(
                    f"{self._file.name}, line {number}: {error}; each row needs the Line that it had when rejected"
                ) from None
            unparsed = document.get("Text")
            if isinstance(unparsed, str) and not any(found.values()):  # not filled in
                yield self._checker.rejected(line, BadField("", str(document.get("Reason") or "is empty")), unparsed)
            else:
                yield self._checker.row(line, found)


def _hinted(row: Rejected, text: Text) -> Rejected:
    """Return the rejected row; where its text could not be decoded, with a hint at the encoding."""
    hint = text.hint(str(row.found.get(row.field)))
    return dataclasses.replace(row, reason=row.reason + hint) if hint else row
