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


def supersede_planned(db: sqlite3.Connection) -> None:
    """Mark all pending rows of each member but the last as superseded."""
    # SQLite sorts in temporary files, so that memory stays bounded for any number of rows.
    db.execute(
        """
        UPDATE row SET state = ? WHERE line IN (SELECT line FROM (
            SELECT line, lead(line) OVER (PARTITION BY first, second ORDER BY line) AS later FROM row
            WHERE state = ?) WHERE later IS NOT NULL)
        """,
        (RowState.SUPERSEDED, RowState.PENDING),
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
    # The members of the old values and of the new ones: for each, the last row must win again.
    db.execute("CREATE TEMP TABLE member (first, second, PRIMARY KEY (first, second)) WITHOUT ROWID")
    members = (
        "INSERT OR IGNORE INTO member SELECT first, second FROM row WHERE first IS NOT NULL"
        " AND line IN (SELECT value FROM json_each(?))"
    )
    db.execute(members, (lines,))
    db.execute("DELETE FROM problem WHERE line IN (SELECT value FROM json_each(?))", (lines,))
    put(db, [given[line] for line in sorted(taken)])
    db.execute(members, (lines,))
    _supersede(db)
    db.execute("DROP TABLE member")
    db.execute("DELETE FROM claim WHERE line NOT IN (SELECT line FROM row WHERE state = ?)", (RowState.PENDING,))
    states = Counter(
        state for (state,) in fetch(db, "SELECT state FROM row WHERE line IN (SELECT value FROM json_each(?))", lines)
    )
    skipped = tuple(sorted(given.keys() - taken))
    return Mended(states[RowState.PENDING], states[RowState.SUPERSEDED], states[RowState.REJECTED], skipped)


def _supersede(db: sqlite3.Connection) -> None:
    """Make the last row of each of the members pending, unless it is settled, and supersede the others."""
    of_members = "FROM row JOIN member USING (first, second) WHERE state <> ?"
    db.execute(
        f"CREATE TEMP TABLE last AS SELECT max(line) AS line {of_members} GROUP BY first, second", (RowState.REJECTED,)
    )
    last = "(SELECT line FROM last)"
    db.execute(
        f"UPDATE row SET state = ? WHERE state = ? AND line IN {last}",  # noqa: S608
        (RowState.PENDING, RowState.SUPERSEDED),
    )
    db.execute(
        f"UPDATE row SET state = ? WHERE state IN (?, ?) AND line NOT IN {last}"  # noqa: S608
        f" AND line IN (SELECT line {of_members})",
        (RowState.SUPERSEDED, RowState.PENDING, RowState.FAILED, RowState.REJECTED),
    )
    db.execute("DELETE FROM problem WHERE line IN (SELECT line FROM row WHERE state = ?)", (RowState.SUPERSEDED,))
    db.execute("DROP TABLE last")
