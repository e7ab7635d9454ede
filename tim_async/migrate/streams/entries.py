"""Rows out of the entries of a stream, checked like those of a file: anybody may have written them."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tim_async.migrate._rows import BadField, Kind, Rejected, Row, shown
from tim_async.migrate.sending import Outgoing

from .store import Entry

_MOST = 20_000
"""Characters of the values of a row; two ids of the longest kind and a number are far below."""


def packed(row: Row) -> tuple[str, bool]:
    """Pack a row's values as a stream holds them; and say whether it needs a time."""
    return json.dumps(row.values, ensure_ascii=False, separators=(",", ":")), row.values[2] is None


def unpacked(kind: Kind, entry: Entry) -> Outgoing | Rejected:
    """Read and check an entry."""
    found: dict[str, Any] = {}
    try:
        if entry.foreign:
            raise BadField("", f"is no row that load put on the stream, but entry {entry.id} of something else")
        found = _found(kind, entry)
        row = kind.row(entry.line, found)
        return Outgoing(row, _pin(kind, row, entry))
    except BadField as error:
        return Rejected(entry.line, error.field, error.reason, found)


def _found(kind: Kind, entry: Entry) -> dict[str, Any]:
    """The fields of a row by their names."""
    fields = dict(zip(entry.fields[::2], entry.fields[1::2], strict=False))
    if "v" not in fields:
        raise BadField("", f"has no values; its fields are {shown(list(fields))}")
    text = fields["v"]
    if len(text) > _MOST:
        raise BadField("", f"is longer than {_MOST:,} characters")
    try:
        values = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadField("", f"is not JSON: {shown(text)}") from None
    if not isinstance(values, list) or len(values) != len(kind.columns):
        raise BadField("", f"is no list of {len(kind.columns)} values: {shown(text)}")
    return {column.name: value for column, value in zip(kind.columns, values, strict=True)}


def _pin(kind: Kind, row: Row, entry: Entry) -> int | None:
    """The time that a row without one of its own is pinned to."""
    if row.values[2] is not None:
        return None
    column = kind.columns[2]
    if not entry.pin:
        raise BadField(column.name, "is empty, and the store has kept no time for it")
    try:
        return int(column.check(entry.pin) or 0)
    except ValueError as error:
        raise BadField(column.name, str(error)) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
