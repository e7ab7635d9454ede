"""Readers for the fields of an answer: each returns a value of the documented type or raises `BadResponse`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import BadResponse, Reaction, is_code, is_text

_MAX_COUNT = 2**32
"""Upper bound of the service's counts, exclusive."""


def malformed(message: str) -> BadResponse:
    """Return the exception for a successful answer whose fields are not as documented.

    The call was executed, and a retry would get the same answer.
    """
    return BadResponse(message, 200, Reaction.GIVE_UP, outcome_unknown=False)


def rows(answer: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list; items of other types are skipped."""
    return (item for item in _list(answer, name) if isinstance(item, dict))


def objects(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list; an item of another type is an error."""
    items = _list(answer, name)
    if not all(isinstance(item, dict) for item in items):
        raise _undocumented(name)
    return items


def _list(answer: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list, which is absent or null when it is empty."""
    items = answer.get(name)
    if items is None:
        return []
    if not isinstance(items, list):
        raise _undocumented(name)
    return items


def key(row: Mapping[str, Any], name: str) -> object:
    """Return the peer or message that an item belongs to; None if it is of another type."""
    value = row.get(name)
    # Not isinstance: a bool would equal 0 or 1.
    return value if type(value) in (str, int) else None


def count(row: Mapping[str, Any], name: str) -> int:
    """Return a number of messages or members."""
    value = row.get(name)
    if type(value) is int and 0 <= value < _MAX_COUNT:
        return value
    raise _undocumented(name)


def code(row: Mapping[str, Any], name: str) -> int:
    """Return an error code."""
    value = row.get(name)
    if is_code(value):
        return value
    raise _undocumented(name)


def integer(row: Mapping[str, Any], name: str) -> int:
    """Return a non-negative integer of any meaning."""
    value = row.get(name)
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise _undocumented(name)


def flag(row: Mapping[str, Any], name: str) -> bool:
    """Return a boolean, which may be written as 0 or 1."""
    value = row.get(name)
    if value in (0, 1) and isinstance(value, int):
        return bool(value)
    raise _undocumented(name)


def text(row: Mapping[str, Any], name: str) -> str:
    """Return an id or a cursor: a non-empty string that can be sent in a request."""
    value = row.get(name)
    if isinstance(value, str) and value and is_text(value):
        return value
    raise _undocumented(name)


def _undocumented(name: str) -> BadResponse:
    return malformed(f"{name} is missing from the answer or not as documented")
