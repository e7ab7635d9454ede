"""The rows that did not arrive, written so that they can be mended and migrated by themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tim_async._plaintext import plain_json

from ._rows import Kind, Rejected, Row
from ._sources import Source
from .errors import SourceError
from .files import replacing
from .schema import checked_problem
from .status import reading, refuse_another


class _Problem(NamedTuple):
    line: int
    code: int | None
    field: str | None
    reason: str
    identity: bytes | None
    """None for a row that was rejected."""


def write_rejects(source: Source, journal: str | Path, to: str | Path) -> int:
    """Write the failed and rejected rows as JSON Lines; blocks.

    Each holds the fields by the vendor's names, ids as they were sent, so that the file can be migrated without the
    options that the first one needed; and ``Line``, ``Code`` and ``Reason``.  A line that could not be taken apart is
    kept as ``Text``.

    Args:
        source: the rows.
        journal: the journal of their migration.
        to: the file to write; replaced as a whole, and removed when there is nothing to write.  What is no regular
            file, such as ``/dev/stdout``, is written to as it is.

    Returns:
        How many rows it holds.

    Raises:
        ValueError: ``to`` is the source or the journal.
        SourceError: the rows cannot be read, or have changed.
        JournalError: the journal cannot be read, or is of something else.
        OSError: the file cannot be written.
    """
    journal, to = Path(journal), Path(to)
    return write_documents(
        to, lambda: _documents(source, journal), lambda path: _refuse_to_overwrite(path, source, journal)
    )


def write_documents(
    to: Path, documents: Callable[[], Iterable[Mapping[str, Any]]], refuse: Callable[[Path], object] = lambda _: None
) -> int:
    """Write documents as JSON Lines; blocks.

    Args:
        to: the file; replaced as a whole, and removed when there is nothing to write.
        documents: gives them, one after the other.
        refuse: raises for a path that must not be written to.

    Returns:
        How many there were.

    Raises:
        OSError: the file cannot be written.
    """
    written = 0
    with replacing(to, refuse) as file:
        for document in documents():
            file.write(plain_json(document) + "\n")
            written += 1
    return written


def _refuse_to_overwrite(path: Path, source: Source, journal: Path) -> None:
    beside = [Path(os.path.realpath(journal) + suffix) for suffix in ("-wal", "-shm", "-journal")]
    for what, kept in {"the source": [Path(source.name)], "the journal": [journal, *beside]}.items():
        if any(_is_same(path, other) for other in kept):
            raise ValueError(f"the rejected rows cannot be written to {path}: that is {what}")


def _is_same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)  # of two that are not there


def _documents(source: Source, journal: Path) -> Iterator[dict[str, Any]]:
    with reading(journal) as db, contextlib.ExitStack() as stack:
        refuse_another(db, journal, source)
        found = db.execute(
            "SELECT problem.line, code, field, reason, identity FROM problem JOIN row USING (line) ORDER BY line"
        )
        stack.callback(found.close)  # or else an error that somebody keeps would keep the journal open
        problems = map(_Problem._make, found)
        problem = next(problems, None)
        if problem is None:
            return
        rows = source.read()
        if isinstance(rows, Generator):
            stack.callback(rows.close)
        for row in rows:
            if row.line < problem.line:
                continue
            if row.line > problem.line or _identity(row) != problem.identity:
                break
            code, reason = checked_problem(problem.code, problem.reason)
            yield document_of(source.kind, row, code, with_field(problem.field, reason))
            problem = next(problems, None)
            if problem is None:
                return
    raise SourceError(f"{source.name} is not the file that was migrated: its row at line {problem.line} is another")


def _identity(row: Row | Rejected) -> bytes | None:
    return row.identity if isinstance(row, Row) else None


def document_of(kind: Kind, row: Row | Rejected, code: int | None, reason: str) -> dict[str, Any]:
    """A row that did not arrive, as it is written.

    Args:
        kind: what it is.
        row: the row.
        code: the service's code, if there was one.
        reason: why, with the field at fault.
    """
    if isinstance(row, Row):
        names = [column.name for column in kind.columns]
        found = {name: value for name, value in zip(names, row.values, strict=True) if value is not None}
    else:
        found = dict(row.found)
    return {**found, "Line": row.line, "Code": code, "Reason": reason}


def with_field(field: str | None, reason: str) -> str:
    """A reason with the field at fault, if it is one field's."""
    return f"{field}: {reason}" if field else reason
