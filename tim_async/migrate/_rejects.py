"""The failed and rejected rows as a file that people correct, and that a run takes back by ``mended``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tim_async._plaintext import plain_json

from . import _journal
from ._files import followed, replacing
from ._store import Problem
from .errors import JournalError

_WINDOW = 1000
_BESIDE = ("", "-wal", "-shm", "-journal", ".lock")
"""What belongs to a journal."""


class Written(NamedTuple):
    """What was written.

    Attributes:
        path: the file; None when there was nothing to write.
        rows: how many rows it holds.
    """

    path: Path | None
    rows: int


def write_rejects(journal: str | Path, to: str | Path) -> Written:
    """Write the failed and rejected rows of a journal as JSON Lines; blocks.

    Each holds the fields by the vendor's names, ids as they were sent; and ``Line``, ``Code`` and ``Reason``.  A row
    that could not be taken apart has the line as ``Text``, and fields that are null.  A file that somebody has edited
    since it was written is left as it is: the rows then go to a file of a similar name.

    Args:
        journal: the journal.
        to: the file; removed when there is nothing to write.  What is no regular file, such as ``/dev/stdout``, is
            written to as it is.

    Raises:
        ValueError: ``to`` is the journal, or the file of the rows.
        JournalError: the journal cannot be read.
        OSError: the file cannot be written.
    """
    journal, to = Path(journal), Path(to)
    precious = {Path(os.path.realpath(journal) + suffix): "the journal" for suffix in _BESIDE}
    refuse_to_overwrite(to, {Path(_journal.read_source(journal)): "the file of the rows", **precious})

    def note(name: str, value: str | None) -> str:
        try:
            return _journal.keep_note(journal, name, value)
        except JournalError:
            if value is None:
                raise
            return value  # where the journal may only be read; a file that is not known later is not overwritten then

    return write_problems(_problems(journal), to, note)


def refuse_to_overwrite(to: Path, precious: Mapping[Path, str]) -> None:
    """Check that a file is none of these, and that writing it overwrites none.

    Raises:
        ValueError: it is, or would.
    """
    for path, what in precious.items():
        if _is_same(to, path) or _is_same(to.with_name(f"{to.name}.part"), path):
            raise ValueError(f"the rejected rows cannot be written to {to}: that is {what}, or would overwrite it")


def _problems(journal: Path) -> Iterator[Problem]:
    after = 0
    while found := _journal.read_problems(journal, after, _WINDOW):
        yield from found
        after = found[-1].line


def write_problems(problems: Iterable[Problem], to: Path, note: Callable[[str, str | None], str]) -> Written:
    """Write problems as JSON Lines.

    Args:
        problems: the rows, by line.
        to: the file.
        note: reads, or with a value keeps, a text under a name in the journal: the SHA-256 of a file as it was written,
            by which one that was edited since is known.

    Raises:
        OSError: the file cannot be written.
    """
    chosen = to

    def choose(part: Path) -> Path:
        nonlocal chosen
        target = followed(to)
        digest = _sha256(part)
        path = _free_name(target, digest, note)
        if path != target:
            chosen = to.with_name(path.name)
        if rows:  # before the file is there: one that is not known would pass for an edited one
            note(_name(path), digest)
        return path

    rows = 0
    with replacing(to, choose) as file:
        for problem in problems:
            file.write(_line(problem))
            rows += 1
    return Written(chosen if rows else None, rows)


def _line(problem: Problem) -> str:
    # What was read may hold NaN, which is not JSON.
    document = json.loads(json.dumps(problem.to_document()), parse_constant=str)
    return plain_json(document) + "\n"


def _free_name(to: Path, digest: str, note: Callable[[str, str | None], str]) -> Path:
    """The file itself, or the first of its numbered names that holds nothing which somebody has edited."""
    number = 1
    path = to
    while path.exists() and (
        (number > 1 and not path.is_file()) or _sha256(path) not in (digest, note(_name(path), None))
    ):
        number += 1
        path = to.with_name(f"{to.stem}-{number}{to.suffix}")
    return path


def _name(path: Path) -> str:
    # Names need not be text.
    return f"{_journal.FILE}{os.fsencode(path.resolve()).decode('utf-8', 'backslashreplace')}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)  # of two that are not there
