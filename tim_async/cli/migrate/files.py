"""Where journals and other files are: found, checked and asked about."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tim_async._stores import is_url, shown_url
from tim_async.cli.failures import Failure, Misuse
from tim_async.cli.output import plain, say
from tim_async.migrate import JournalMismatch, MigrateError, SourceError, StoreMisconfigured, render
from tim_async.migrate._files import replacing

from .tables import number_of

if TYPE_CHECKING:
    from tim_async.migrate import DryRun, Notes, Status
    from tim_async.migrate._engine import StoreFactory
    from tim_async.migrate._store import Store

T = TypeVar("T")

STDIN = "-"
_MAGIC = b"SQLite format 3\x00"


def sibling_path(file: str, suffix: str) -> str:
    """A path beside a file of rows; that of standard input is in this folder."""
    return f"{'stdin' if file == STDIN else file}.{suffix}"


def find_journal(name: str) -> str:
    """The journal that ``name`` is, or that of the file which ``name`` is, whether or not that still exists.

    Args:
        name: a path, or the URL of a store; "-" for what was read from standard input.

    Raises:
        Misuse: there is none.
    """
    if is_url(name):
        return name
    path, other = Path(name), Path(sibling_path(name, "journal"))
    # One that a run has only just begun may still be empty.
    if name != STDIN and (_is_database(path) or (path.suffix == ".journal" and path.is_file())):
        return name
    if other.is_file():
        return str(other)
    if name == STDIN or not path.exists():
        raise Misuse(f"there is no journal {plain(str(other))}")
    raise Misuse(f"{plain(name)} is no journal, and there is no {plain(str(other))}")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def write_report(status: Status, path: Path, notes: Notes, dry_run: DryRun | None = None) -> Path:
    """Write the report of a migration; the path.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(render(status, notes, dry_run=dry_run))
    return path


async def query(make: StoreFactory, ask: Callable[[Store], Awaitable[T]]) -> T:
    """Ask a store, opened for nothing else."""
    store = make(asyncio.Event(), lambda *_: None)
    try:
        return await ask(store)
    finally:
        store.hurry()
        await store.close()


@contextlib.contextmanager
def migration_errors() -> Iterator[None]:
    """Turn the errors of files and journals within the block into one line and an exit code.

    Raises:
        Misuse: the file is at fault, or the journal is of something else.
        Failure: anything else that a migration raises.
    """
    try:
        yield
    except (SourceError, JournalMismatch, StoreMisconfigured) as error:
        raise Misuse(plain(str(error))) from None
    except MigrateError as error:
        raise Failure(plain(str(error))) from None


def is_pipe(file: str) -> bool:
    """Whether a file can be read once only."""
    path = Path(file)
    return file == STDIN or path.is_fifo() or path.is_char_device()


def file_identity(path: Path) -> tuple[int, int] | Path:
    """The same for two names of one file."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino


def check_writable(option: str, path: Path) -> None:
    """See that a file can be written, now and not only once it is needed.

    Raises:
        Failure: it cannot.
    """
    try:
        if not path.exists() or path.is_file():
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Failure(f"cannot write {plain(str(path))}: {reason}; use another {option}") from None


def confirm(question: str, *, yes: bool, otherwise: str = "") -> None:
    """Ask on a terminal whether to do what cannot be undone.

    Args:
        question: what would be done, as a sentence.
        yes: whether that was answered on the command line.
        otherwise: why it is not done where nobody can be asked; "" to do it there.

    Raises:
        Exit: the answer is no; nothing was done.
        Misuse: nobody can be asked.
    """
    if yes:
        say(question)
    elif sys.stdin.isatty() and sys.stderr.isatty():
        if not click.confirm(f"{question}  Go ahead?", err=True):
            say("Nothing was changed.")
            raise click.exceptions.Exit(1)
    elif otherwise:
        raise Misuse(f"{question}  {otherwise}")
    else:
        say(question)


def discarded_rows(status: Status) -> str:
    """What is lost with a journal."""
    counts = status.counts
    return f"{number_of(counts.total, 'row')}, {counts.taken:,} of them accepted"


def shell_command(*words: str) -> str:
    """Words as a shell takes them, and as they may be shown: URLs without their passwords."""

    def shown(word: str) -> str:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return f"{name}{equals}{shown_url(value) if is_url(value) else value}"

    return plain(shlex.join(map(shown, words)))
