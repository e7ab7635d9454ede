"""How commands fail: exit codes, and the one place where the library's errors become one line each."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tim_async.errors import TIMError

from .stdio import OutputLost

FAILED = 1
USAGE = 2
PARTIAL = 3
LIMIT = 4
INTERRUPTED = 130

_LONGEST = 600
"""Characters of an error that are shown; a path or two may be among them."""


class Failure(click.ClickException):
    """What was asked for could not be done."""

    exit_code = FAILED


class Misuse(click.ClickException):
    """What was asked for can never be done like this: an argument, or the configuration, is at fault."""

    exit_code = USAGE


def described(error: BaseException) -> str:
    """An error as one line; one that no part of this program has foreseen with its class and where it was raised."""
    if _is_foreseen(error):
        text = str(error)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frames = traceback.extract_tb(error.__traceback__)
    where = f", raised at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return (
        f"unexpected {type(error).__name__}: {str(error)[:_LONGEST]}{where}; please report it, with the traceback that"
        " PYTHONDEVMODE=1 shows"
    )


def _is_foreseen(error: BaseException) -> bool:
    from tim_async.migrate.errors import MigrateError  # help needs nothing of it

    return isinstance(error, TIMError | MigrateError | OutputLost)


def trace(error: BaseException) -> None:
    """Show the traceback of an unforeseen error to those who have asked for it."""
    if sys.flags.dev_mode and not _is_foreseen(error):
        traceback.print_exception(error)


@contextmanager
def plainly() -> Iterator[None]:
    """Turn what the library raises within the block into one plain line and an exit code.

    To be put around calls of the library and nothing else: an error of our own should be told as one, see `described`.
    """
    try:
        yield
    except TIMError as error:
        raise Failure(str(error)) from None
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from None
