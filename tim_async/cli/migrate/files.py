"""Journals and other files: finding them, checking them, and asking before their loss."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tim_async._stores import is_url, shown_url
from tim_async.cli.failures import Failure, Misuse
from tim_async.cli.output import number_of, plain, say
from tim_async.migrate import render
from tim_async.migrate._files import replacing

if TYPE_CHECKING:
    from tim_async.migrate import DryRun, Notes, Status
    from tim_async.migrate._engine import StoreFactory
    from tim_async.migrate._store import Store

T = TypeVar("T")

STDIN = "-"
_DESCRIPTORS = ("/dev", "/dev/fd", "/proc/self/fd")
"""Folders of names such as /dev/stdin and a shell's <(…), which hold no other files, or lose them at the next start."""
_MAGIC = b"SQLite format 3\x00"


def sibling_path(file: str, suffix: str) -> str:
    """Return a path beside a file of rows; for standard input and other descriptors, one in the current folder."""
    return f"{'stdin' if file == STDIN or str(Path(file).parent) in _DESCRIPTORS else file}.{suffix}"


def find_journal(name: str) -> str:
    """Return the path or URL of a journal.

    Args:
        name: the journal, the file that it belongs to, which may be gone, or the URL of a store; "-" for the journal of
            standard input.

    Raises:
        Misuse: there is no such journal.
    """
    if is_url(name):
        return name
    path, other = Path(name), Path(sibling_path(name, "journal"))
    # A journal that was just created may still be empty.
    if name != STDIN and (_is_database(path) or (path.suffix == ".journal" and path.is_file())):
        return name
    if other.is_file():
        return str(other)
    if name == STDIN or not path.exists():
        raise Misuse(f"there is no journal {plain(str(other))}")
    raise Misuse(f"{plain(name)} is not a journal, and there is no {plain(str(other))}")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def write_report(status: Status, path: Path, notes: Notes, dry_run: DryRun | None = None) -> Path:
    """Write the report of a migration, and return its path.

    Raises:
        OSError: the file is not writable.
    """
    with replacing(path) as file:
        file.write(render(status, notes, dry_run=dry_run))
    return path


async def query(make: StoreFactory, ask: Callable[[Store], Awaitable[T]]) -> T:
    """Open a store for a single query."""
    store = make(asyncio.Event(), lambda *_: None)
    try:
        return await ask(store)
    finally:
        store.hurry()
        await store.close()


def is_pipe(file: str) -> bool:
    """Return whether a file can be read only once."""
    path = Path(file)
    return file == STDIN or path.is_fifo() or path.is_char_device()


def file_identity(path: Path) -> tuple[int, int] | Path:
    """Return a value that is equal for two names of one file."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino


def check_writable(option: str, path: Path) -> None:
    """Check early that a file is writable.

    Args:
        option: the option with the file, for the error.
        path: the file.

    Raises:
        Failure: the file is not writable.
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


def confirm(action: str, *, yes: bool, refusal: str = "") -> None:
    """Ask for confirmation of an irreversible action.

    Args:
        action: the action, as a sentence.
        yes: whether ``--yes`` was given.
        refusal: the remedy if there is no terminal to ask on; "" to proceed without asking then.

    Raises:
        Exit: the answer is no.
        Misuse: there is no terminal, and a ``refusal``.
    """
    if yes:
        say(action)
    elif sys.stdin.isatty() and sys.stderr.isatty():
        if not click.confirm(f"{action}  Continue?", err=True):
            say("Nothing was changed.")
            raise click.exceptions.Exit(1)
    elif refusal:
        raise Misuse(f"{action}  {refusal}")
    else:
        say(action)


def discarded_rows(status: Status) -> str:
    """Describe the rows that are lost with a journal."""
    counts = status.counts
    return f"{number_of(counts.total, 'row')}, {counts.taken:,} of them accepted"


def shell_command(*words: str) -> str:
    """Quote the words of a command for a shell, and remove passwords from URLs."""

    def shown(word: str) -> str:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return f"{name}{equals}{shown_url(value) if is_url(value) else value}"

    return plain(shlex.join(map(shown, words)))
