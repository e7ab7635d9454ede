"""The rows that did not arrive, written so that they can be mended and migrated by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SourceError
from .journal import reading
from .rows import Rejected, Row
from .sources import Source


class _Problem(NamedTuple):
    line: int
    code: int | None
    field: str | None
    reason: str


def write_rejects(source: Source, journal: str | Path, to: str | Path) -> int:
    """Write the failed and rejected rows as JSON Lines; blocks.

    Each holds the fields by the vendor's names, ids as they were sent, so that the file can be migrated without the
    options that the first one needed; and ``Line``, ``Code`` and ``Reason``.  A line that could not be taken apart is
    kept as ``Text``.

    Args:
        source: the rows.
        journal: the journal of their migration.
        to: the file to write; replaced as a whole, and removed when there is nothing to write.

    Returns:
        How many rows it holds.

    Raises:
        SourceError: the rows cannot be read, or have changed.
        JournalError: the journal cannot be read.
        OSError: the file cannot be written.
    """
    to = Path(to)
    part = to.with_name(to.name + ".part")
    written = 0
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            for document in _documents(source, Path(journal)):
                # As ASCII: what is not UTF-8 in the source comes as lone surrogates, which no file can hold.
                file.write(json.dumps(document) + "\n")
                written += 1
        if written:
            part.replace(to)
        else:
            to.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)
    return written


def _documents(source: Source, journal: Path) -> Iterator[dict[str, Any]]:
    with reading(journal) as db:
        problems = map(_Problem._make, db.execute("SELECT line, code, field, reason FROM problem ORDER BY line"))
        problem = next(problems, None)
        if problem is None:
            return
        for row in source.read():
            if row.line < problem.line:
                continue
            if row.line > problem.line:
                break
            yield _document(source, row, problem)
            problem = next(problems, None)
            if problem is None:
                return
    raise SourceError(f"{source.name} is not the file that was migrated: it has no row at line {problem.line}")


def _document(source: Source, row: Row | Rejected, problem: _Problem) -> dict[str, Any]:
    if isinstance(row, Row):
        names = [column.name for column in source.kind.columns]
        found = {name: value for name, value in zip(names, row.values, strict=True) if value is not None}
    else:
        found = dict(row.found)
    reason = f"{problem.field}: {problem.reason}" if problem.field else problem.reason
    return {**found, "Line": problem.line, "Code": problem.code, "Reason": reason}
