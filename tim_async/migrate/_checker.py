"""The check of each row of a file: valid, valid with a note on a suspicious id, or rejected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tim_async import _arguments

from ._notes import Notes, suspicion
from ._rows import BadField, Kind, Rejected, Row, shown

_MAX_KEPT = 1000


class Checker:
    """The checker of a file's rows.

    Args:
        kind: the kind of the rows.
        until_now: whether rows without a time may mark conversations read up to now.
        strict_ids: whether to reject ids that are probably wrong, instead of noting them.

    Attributes:
        notes: notes on the rows so far.
    """

    def __init__(self, kind: Kind, *, until_now: bool, strict_ids: bool) -> None:
        _arguments.kind("kind", kind, Kind)
        _arguments.kind("until_now", until_now, bool)
        _arguments.kind("strict_ids", strict_ids, bool)
        self.notes: Notes = Notes()
        self._kind = kind
        self._until_now = until_now
        self._strict_ids = strict_ids
        self._empty: dict[str, Any] = {column.name: None for column in kind.columns}

    def row(self, line: int, found: Mapping[str, Any]) -> Row | Rejected:
        """Check a row.

        Args:
            line: its line.
            found: its fields as read, by name.
        """
        try:
            row = self._kind.row(line, found, until_now=self._until_now)
            for column, value in zip(self._kind.columns, row.values, strict=True):
                if column.is_id and (reason := suspicion(column, str(value))):
                    if self._strict_ids:
                        raise BadField(column.name, f"{reason}: {shown(value)}")
                    self.notes.add_suspicion(line, column.name, shown(value), reason)
                self.notes.without_time += column.until_now and value is None  # after the ids, which may reject it
        except BadField as error:
            return self.rejected(line, error, found)
        return row

    def rejected(self, line: int, error: BadField, found: Mapping[str, Any] | str) -> Rejected:
        """Reject a row.

        Args:
            line: its line.
            error: the fault.
            found: its fields as read, by name; or its text, when it could not be parsed.

        Returns:
            The row with an entry for each field, so that people can fill it in.
        """
        kept = {"Text": found.rstrip("\r\n")} if isinstance(found, str) else found
        return Rejected(line, error.field, error.reason, self._empty | {name: _cut(kept[name]) for name in kept})


def _cut(value: Any) -> Any:
    """Return a value as it is kept: JSON-serializable, and cut when too long to be valid."""
    if isinstance(value, str) and len(value) > _MAX_KEPT:
        return value[:_MAX_KEPT] + "…"
    if isinstance(value, dict | list) and len(repr(value)) > _MAX_KEPT:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
