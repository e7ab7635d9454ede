"""The requests to ``_lua`` and its replies: a migration's identity, its rows, its problems, its counts.

Other programs may write to the store, so everything read here is checked.  A function raises one of `UNREADABLE` for
an invalid value, except for a row: an invalid row is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, NoReturn

from ._rows import BadField, Kind, Rejected, Row, shown
from ._store import About, Claim, Problem, about_from, as_json, shortened, with_field
from .events import Counts

UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError)
"""The exceptions raised by reading damaged values."""

_MOST_NUMBER = 2**53
_LONGEST_ROW = 20_000
"""Characters of a row's values at most: far more than two ids of maximum length and two numbers have."""
_LATEST = 1e11
"""Unix seconds later than any clock shows."""


def as_list(value: Any) -> list[Any]:
    """Return an array of a reply; Lua writes an empty one as an object."""
    if value == {}:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{shown(value)} is not a list")
    return value


def as_number(value: Any) -> int:
    """Return a count or a line."""
    if type(value) is not int or not 0 <= value < _MOST_NUMBER:
        raise ValueError(f"{shown(value)} is not a count")
    return value


def as_time(value: Any) -> float:
    """Return unix seconds, given as text or as a number."""
    seconds = float(str(value))
    if not 0 <= seconds < _LATEST:
        raise ValueError(f"{shown(value)} is not a time")
    return seconds


# The identity


def about_to_fields(about: About) -> dict[str, str]:
    """Return the identity of a migration as the fields of a hash."""
    return {name: as_json(value) for name, value in asdict(about).items()}


def about_of(fields: Mapping[str, str]) -> About:
    """Read the fields of `about_to_fields`."""
    return about_from({name: json.loads(fields[name]) for name in About.__slots__})


# Rows and problems


def packed(row: Row | Rejected) -> dict[str, Any]:
    """Return a planned or mended row as a request has it."""
    if isinstance(row, Row):
        return {"line": row.line, "values": json.dumps(row.values, ensure_ascii=False, separators=(",", ":"))}
    return {"line": row.line, **rejection(row)}


def rejection(row: Rejected) -> dict[str, str]:
    """Return the problem of a rejected row; its cause is the field at fault, or the reason if there is none."""
    reason = shortened(with_field(row.field, row.reason))
    return _problem(f"!{row.field or reason}", reason=reason, fields=dict(row.found))


def failure(code: int | None, reason: str) -> dict[str, str]:
    """Return the problem of a failed row; its cause is the code, or the reason if there is no code: those are few."""
    reason = shortened(reason)
    return _problem(f":{reason}" if code is None else str(code), code=code, reason=reason)


def _problem(cause: str, **document: Any) -> dict[str, str]:
    return {"cause": cause.replace("\0", ""), "document": json.dumps(document)}


def code_and_reason(document: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return the code and the reason of a problem."""
    code, reason = document.get("code"), document["reason"]
    if not isinstance(code, int | None) or not isinstance(reason, str):
        raise TypeError("a code is not a number, or a reason not text")
    return code, reason


def place_of(name: str) -> tuple[int, int]:
    """Return the line of a problem, and a number that orders the problems of foreign entries."""
    line, _, part = name.partition("-")
    return int(line), int(part or -1)


def problem_of(kind: Kind, found: Mapping[str, Any]) -> Problem:
    """Read a failed or rejected row."""
    document = json.loads(found["document"])
    code, reason = code_and_reason(document)
    fields = document.get("fields")
    if fields is None:
        try:
            fields = {name: value for name, value in _fields(kind, found["values"]).items() if value is not None}
        except BadField:  # the store has lost its entry
            fields = {}
    return Problem(place_of(found["name"])[0], code, reason, dict(fields))


class Entry(NamedTuple):
    """A claimed entry of the stream.

    Attributes:
        id: its id.
        line: its row's line; None when another program added it.
        row: the claim, or the row as rejected.
    """

    id: str
    line: int | None
    row: Claim | Rejected


def entry_of(kind: Kind, found: Mapping[str, Any]) -> Entry:
    """Read and check a claimed entry."""
    id_, fields = str(found["id"]), as_list(found["fields"])
    line = as_number(found["line"]) if "line" in found else None
    read: dict[str, Any] = {}
    try:
        if line is None:
            raise BadField("", f"is not a row that was loaded, but entry {id_} of another program")
        read = _fields(kind, dict(zip(fields[::2], fields[1::2], strict=False)).get("v", ""))
        row = kind.row(line, read)
        return Entry(id_, line, Claim(row, _since(found["since"]), found["again"] is True))
    except BadField as error:
        where = int(id_.partition("-")[0]) if line is None else line
        return Entry(id_, line, Rejected(where, error.field, error.reason, read))


def row_of(kind: Kind, line: int, values: str) -> Row:
    """Read and check a row.

    Raises:
        BadField: it is invalid.
    """
    return kind.row(line, _fields(kind, values))


def _since(text: str) -> int:
    try:
        return int(as_time(text))
    except ValueError:
        raise BadField("", f"has been claimed already, at an invalid time: {shown(text)}") from None


def _fields(kind: Kind, text: str) -> dict[str, Any]:
    """Return the values of a row by field."""
    if len(text) > _LONGEST_ROW:
        raise BadField("", f"is longer than {_LONGEST_ROW:,} characters")
    try:
        values = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadField("", f"is not JSON: {shown(text)}") from None
    if not isinstance(values, list) or len(values) != len(kind.columns):
        raise BadField("", f"is not a list of {len(kind.columns)} values: {shown(text)}")
    return {column.name: value for column, value in zip(kind.columns, values, strict=True)}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


# Progress


class FleetProgress(NamedTuple):
    """The progress of a migration.

    Attributes:
        left: rows that are not settled.
        delivered: rows that some worker has claimed, or gave back.
        sending: rows that some worker has claimed; entries of other programs count, too.
        mine: rows that the requesting worker has claimed.
        missing: entries that the store has lost.
        counts: the rows by state.
    """

    left: int
    delivered: int
    sending: int
    mine: int
    missing: int
    counts: Counts


def progress_of(reply: Mapping[str, Any]) -> FleetProgress:
    """Read the progress from a reply that has it."""
    found = {name: as_number(value) for name, value in reply["counts"].items()}
    entries, left = found.pop("entries"), found.pop("left")
    delivered, sending, mine, length = (as_number(reply[name]) for name in ("delivered", "sending", "mine", "length"))
    counts = Counts(pending=max(0, left - sending), sending=min(left, sending), **found)
    return FleetProgress(left, delivered, sending, mine, max(0, entries - length), counts)
