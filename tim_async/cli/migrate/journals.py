"""The journal that ``status`` and ``verify`` are about: named itself, or by the file it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tim_async.cli.failures import Failure, Misuse
from tim_async.cli.output import plain

from .options import STDIN, journal_of

if TYPE_CHECKING:
    from tim_async.migrate import Status

_MAGIC = b"SQLite format 3\x00"


def find_journal(name: str) -> Path:
    """The journal that ``name`` is, or that of the file which ``name`` is, whether or not that is still there.

    Args:
        name: a path; "-" for what was read from standard input.

    Raises:
        Misuse: there is none.
    """
    path, beside = Path(name), journal_of(name)
    # One that a run has only just begun may still be empty.
    if name != STDIN and (_is_database(path) or (path.suffix == ".journal" and path.is_file())):
        return path
    if beside.is_file():
        return beside
    if name == STDIN or not path.exists():
        raise Misuse(f"there is no journal {plain(str(beside))}")
    raise Misuse(f"{plain(name)} is no journal, and there is no {plain(str(beside))}")


def read_journal(path: Path) -> Status:
    """What a journal says.

    Raises:
        Failure: it cannot be read.
    """
    from tim_async.migrate import JournalError, read_status

    try:
        return read_status(path)
    except JournalError as error:
        raise Failure(plain(str(error))) from None


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
