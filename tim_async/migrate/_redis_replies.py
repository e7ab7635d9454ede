"""What goes to ``_lua`` and comes back: what a migration is of, its rows, its problems, its counts.

Anybody may write to a store.  So everything is checked that is read here; a reader raises one of `UNREADABLE` for what
it cannot use, apart from rows: one that is invalid is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, NoReturn

from ._rows import BadField, Kind, Rejected, Row, shown
from ._store import About, Claim, Problem, shortened, with_field
from .events import Counts

UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError)
"""What reading damaged values raises."""

_MOST_NUMBER = 2**53
_LONGEST_ROW = 20_000
"""Characters of the values of a row; two ids of the longest kind and two numbers are far below."""
_LATEST = 1e11
"""Unix seconds beyond any clock."""


def as_list(value: Any) -> list[Any]:
    """An array of a reply; Lua writes an empty one as an object."""
    if value == {}:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{shown(value)} is no list")
    return value


def as_number(value: Any) -> int:
    """A count or a line."""
    if type(value) is not int or not 0 <= value < _MOST_NUMBER:
        raise ValueError(f"{shown(value)} is no count")
    return value


def as_moment(value: Any) -> float:
    """Unix seconds, as text or as a number."""
    moment = float(str(value))
    if not 0 <= moment < _LATEST:
        raise ValueError(f"{shown(value)} is no time")
    return moment


# What it is of


def about_to_fields(about: About) -> dict[str, str]:
    """What a migration is of, as the fields of a hash."""
    # As JSON in ASCII: the name of a file need not be text.
    return {name: json.dumps(value, sort_keys=True) for name, value in asdict(about).items()}


def about_of(fields: Mapping[str, str]) -> About:
    """Read what `about_to_fields` wrote."""
    found = {name: json.loads(fields[name]) for name in About.__slots__}
    about = About(**found)
    texts = (about.kind, about.source, about.fingerprint, about.base_url)
    if not all(isinstance(text, str) for text in texts) or not isinstance(about.arguments, dict):
        raise TypeError("it does not say what it is of")
    as_number(about.sdk_app_id)
    return about


# Rows and problems


def packed(row: Row | Rejected) -> dict[str, Any]:
    """A row to be planned, or one that is mended."""
    if isinstance(row, Row):
        return {"line": row.line, "values": json.dumps(row.values, ensure_ascii=False, separators=(",", ":"))}
    return {"line": row.line, **rejection(row)}


def rejection(row: Rejected) -> dict[str, str]:
    """Why a row was rejected; rejected rows have the field at fault in common, or the reason where there is none."""
    reason = shortened(with_field(row.field, row.reason))
    return _problem(f"!{row.field or reason}", reason=reason, fields=dict(row.found))


def failure(code: int | None, reason: str) -> dict[str, str]:
    """Why a row failed; failed rows have the code in common, or the reason, of which those without a code have few."""
    reason = shortened(reason)
    return _problem(f":{reason}" if code is None else str(code), code=code, reason=reason)


def _problem(cause: str, **document: Any) -> dict[str, str]:
    return {"cause": cause.replace("\0", ""), "document": json.dumps(document)}


def code_and_reason(document: Mapping[str, Any]) -> tuple[int | None, str]:
    """The code and the reason of a problem."""
    code, reason = document.get("code"), document["reason"]
    if not isinstance(code, int | None) or not isinstance(reason, str):
        raise TypeError("a code is no number, or a reason no text")
    return code, reason


def place_of(name: str) -> tuple[int, int]:
    """The line of a problem, and a number to order those of foreign entries by."""
    line, _, part = name.partition("-")
    return int(line), int(part or -1)


def problem_of(kind: Kind, found: Mapping[str, Any]) -> Problem:
    """A failed or rejected row, as the store has it."""
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
        line: its row's line; None when something else added it.
        row: the claim, or why it is invalid.
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
            raise BadField("", f"is no row that load put on the stream, but entry {id_} of something else")
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
        return int(as_moment(text))
    except ValueError:
        raise BadField("", f"has been claimed already, at a time that is none: {shown(text)}") from None


def _fields(kind: Kind, text: str) -> dict[str, Any]:
    """The values of a row by the names of their fields."""
    if len(text) > _LONGEST_ROW:
        raise BadField("", f"is longer than {_LONGEST_ROW:,} characters")
    try:
        values = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadField("", f"is not JSON: {shown(text)}") from None
    if not isinstance(values, list) or len(values) != len(kind.columns):
        raise BadField("", f"is no list of {len(kind.columns)} values: {shown(text)}")
    return {column.name: value for column, value in zip(kind.columns, values, strict=True)}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


# How far it is


class Progress(NamedTuple):
    """How far a migration is.

    Attributes:
        left: rows that are not settled.
        delivered: those that some worker has claimed, or gave back.
        sending: those that some worker has claimed; entries of something else count, too.
        mine: those that the worker which asked has.
        missing: entries that the store has lost.
        counts: the rows by state.
    """

    left: int
    delivered: int
    sending: int
    mine: int
    missing: int
    counts: Counts


def progress_of(reply: Mapping[str, Any]) -> Progress:
    """How far a migration is, as every such reply says."""
    found = {name: as_number(value) for name, value in reply["counts"].items()}
    entries, left = found.pop("entries"), found.pop("left")
    delivered, sending, mine, length = (as_number(reply[name]) for name in ("delivered", "sending", "mine", "length"))
    counts = Counts(pending=max(0, left - sending), sending=min(left, sending), **found)
    return Progress(left, delivered, sending, mine, max(0, entries - length), counts)
