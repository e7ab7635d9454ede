"""Rows made of what was read of their fields: checked, and noted where something is odd."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ._notes import Notes, suspicion
from ._rows import BadField, Kind, Rejected, Row, shown

_LONGEST_KEPT = 1000


class Checker:
    """Makes rows.

    Args:
        kind: what they are.
        until_now: whether rows without a time may mark conversations read up to now.
        strict_ids: whether to reject ids that are probably wrong, instead of noting them.

    Attributes:
        notes: what is worth saying of the rows so far.
    """

    def __init__(self, kind: Kind, *, until_now: bool, strict_ids: bool) -> None:
        self.notes: Notes = Notes()
        self._kind = kind
        self._until_now = until_now
        self._strict_ids = strict_ids
        self._ids = [(place, column) for place, column in enumerate(kind.columns) if column.is_id]
        self._times = [place for place, column in enumerate(kind.columns) if column.until_now]
        self._empty: dict[str, Any] = {column.name: None for column in kind.columns}

    def row(self, line: int, found: Mapping[str, Any]) -> Row | Rejected:
        """Check a row.

        Args:
            line: its line.
            found: its fields by name.
        """
        try:
            row = self._kind.row(line, found, until_now=self._until_now)
            for place, column in self._ids:
                value = row.values[place]
                if reason := suspicion(column, str(value)):
                    if self._strict_ids:
                        raise BadField(column.name, f"{reason}: {shown(value)}")
                    self.notes.add_suspicion(line, column.name, shown(value), reason)
        except BadField as error:
            return self.rejected(line, error, found)
        for place in self._times:
            self.notes.without_time += row.values[place] is None
        return row

    def rejected(self, line: int, error: BadField, found: Mapping[str, Any] | str) -> Rejected:
        """Reject a row.

        Args:
            line: its line.
            error: what is wrong with it.
            found: its fields by name; or its text, when it could not be taken apart.

        Returns:
            The row with a place for each field, so that it can be mended.
        """
        kept = {"Text": found.rstrip("\r\n")} if isinstance(found, str) else found
        return Rejected(line, error.field, error.reason, self._empty | {name: _cut(kept[name]) for name in kept})


def _cut(value: Any) -> Any:
    """A value as it is kept: as JSON can hold it, and without what is too long to have been valid."""
    if isinstance(value, str) and len(value) > _LONGEST_KEPT:
        return value[:_LONGEST_KEPT] + "…"
    if isinstance(value, dict | list) and len(repr(value)) > _LONGEST_KEPT:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
