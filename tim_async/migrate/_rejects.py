"""The rejected file: failed and rejected rows, for people to correct and for a run to read back by ``mended``."""

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
from ._files import followed, part_of, replacing
from ._journal_file import journal_files
from ._store import Problem
from .errors import JournalError

_WINDOW = 1000


class Written(NamedTuple):
    """A rejected file that was written.

    Attributes:
        path: the file; None when there was nothing to write.
        rows: the number of its rows.
    """

    path: Path | None
    rows: int


def write_rejects(journal: str | Path, to: str | Path) -> Written:
    """Write the failed and rejected rows of a journal as JSON Lines; blocks.

    Each has the fields by the vendor's names, ids as they were sent, and ``Line``, ``Code`` and ``Reason``.  A row that
    could not be parsed has its line as ``Text``, and null fields.  A file that was edited since it was written is kept:
    the rows then go to a numbered file beside it.

    Args:
        journal: the journal.
        to: the file; removed when there is nothing to write.  Anything but a regular file, such as ``/dev/stdout``, is
            written to directly.

    Raises:
        ValueError: ``to`` is the journal, or the file of the rows.
        JournalError: the journal cannot be read.
        OSError: the file cannot be written.
    """
    journal, to = Path(journal), Path(to)
    protected = dict.fromkeys(journal_files(journal), "the journal")
    refuse_to_overwrite(to, {Path(_journal.read_source(journal)): "the file of the rows", **protected})

    def note(name: str, value: str | None) -> str:
        try:
            return _journal.keep_note(journal, name, value)
        except JournalError:
            if value is None:
                raise
            return value  # a read-only journal; without the note, a later run takes the file for an edited one

    return write_problems(_problems(journal), to, note)


def refuse_to_overwrite(to: Path, protected: Mapping[Path, str]) -> None:
    """Check that writing a file overwrites no protected one.

    Args:
        to: the file.
        protected: a description of each protected file.

    Raises:
        ValueError: the file, or its ``.part``, is a protected one.
    """
    for path, description in protected.items():
        if _is_same(to, path) or _is_same(part_of(to), path):
            raise ValueError(
                f"the rejected rows cannot be written to {to}: that is {description}, or would overwrite it"
            )


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
        note: reads a text by its name in the journal, or stores it when given a value.  The texts are the SHA-256 of
            the files as written, which show later edits.

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
        if rows:  # before the file exists: without its note it would pass for an edited one
            note(_note_name(path), digest)
        return path

    rows = 0
    with replacing(to, choose) as file:
        for problem in problems:
            file.write(_line(problem))
            rows += 1
    return Written(chosen if rows else None, rows)


def _line(problem: Problem) -> str:
    # Values as read may hold NaN, which is not JSON.
    document = json.loads(json.dumps(problem.to_document()), parse_constant=str)
    return plain_json(document) + "\n"


def _free_name(to: Path, digest: str, note: Callable[[str, str | None], str]) -> Path:
    """Return the file itself, or the first of its numbered names, that is free or holds an unedited file."""
    number = 1
    path = to
    while path.exists() and (
        (number > 1 and not path.is_file()) or _sha256(path) not in (digest, note(_note_name(path), None))
    ):
        number += 1
        path = to.with_name(f"{to.stem}-{number}{to.suffix}")
    return path


def _note_name(path: Path) -> str:
    # Names of files need not be valid text.
    return f"{_journal.FILE}{os.fsencode(path.resolve()).decode('utf-8', 'backslashreplace')}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)  # when one does not exist
