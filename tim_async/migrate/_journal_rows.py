"""Planning and mending the rows of a journal: of the rows of one member, only the last is sent.

Everything here blocks, and is part of the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from ._journal_file import fetch
from ._rows import Rejected, Row
from ._store import Mended, RowState, shortened


def put(db: sqlite3.Connection, rows: Sequence[Row | Rejected]) -> None:
    """Write rows, replacing those of the same lines."""
    db.executemany(
        "INSERT OR REPLACE INTO row VALUES (?, ?, ?, ?, ?, ?)",
        (
            (row.line, RowState.PENDING, *row.values, *((None,) * (4 - len(row.values))))
            if isinstance(row, Row)
            else (row.line, RowState.REJECTED, None, None, None, None)
            for row in rows
        ),
    )
    db.executemany(
        "INSERT OR REPLACE INTO problem VALUES (?, NULL, ?, ?, ?)",
        (
            (row.line, row.field, shortened(row.reason), json.dumps(dict(row.found)))
            for row in rows
            if isinstance(row, Rejected)
        ),
    )


def supersede(db: sqlite3.Connection) -> None:
    """Of the rows of each member, make the last pending, unless it is settled, and supersede the others."""
    # SQLite sorts in temporary files, so that memory stays bounded for any number of rows.
    db.execute(
        """
        UPDATE row SET state = CASE state WHEN :superseded THEN :pending ELSE :superseded END WHERE line IN (
            SELECT line FROM (
                SELECT line, state, lead(line) OVER (PARTITION BY first, second ORDER BY line) AS later FROM row
                WHERE state <> :rejected)
            WHERE CASE WHEN later IS NULL THEN state = :superseded ELSE state IN (:pending, :failed) END)
        """,
        {state.name.lower(): state for state in RowState},
    )


def mend(db: sqlite3.Connection, rows: Sequence[Row | Rejected]) -> Mended:
    """Give failed, rejected and pending rows new values; see `Store.mend`."""
    given = {row.line: row for row in rows}  # the last of a line wins
    found = fetch(
        db,
        "SELECT line FROM row WHERE line IN (SELECT value FROM json_each(?)) AND state IN (?, ?, ?)",
        json.dumps(list(given)),
        *(RowState.PENDING, RowState.FAILED, RowState.REJECTED),
    )
    taken = {line for (line,) in found}
    lines = json.dumps(sorted(taken))
    db.execute("DELETE FROM problem WHERE line IN (SELECT value FROM json_each(?))", (lines,))
    put(db, [given[line] for line in sorted(taken)])
    supersede(db)
    db.execute("DELETE FROM problem WHERE line IN (SELECT line FROM row WHERE state = ?)", (RowState.SUPERSEDED,))
    db.execute("DELETE FROM claim WHERE line NOT IN (SELECT line FROM row WHERE state = ?)", (RowState.PENDING,))
    states = Counter(
        state for (state,) in fetch(db, "SELECT state FROM row WHERE line IN (SELECT value FROM json_each(?))", lines)
    )
    skipped = tuple(sorted(given.keys() - taken))
    return Mended(states[RowState.PENDING], states[RowState.SUPERSEDED], states[RowState.REJECTED], skipped)
