"""Exit codes, the exceptions that carry them, and one-line messages for errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tim_async._plaintext import plain
from tim_async.errors import TIMError

from .stdio import OutputLost

FAILED = 1
USAGE = 2
PARTIAL = 3
LIMIT = 4
INTERRUPTED = 130

_MAX_CHARACTERS = 800
"""Maximum length of an error message; enough for one with two paths."""


class Failure(click.ClickException):
    """A command that failed."""

    exit_code = FAILED


class Misuse(click.ClickException):
    """An invalid argument or configuration, with which the command can never succeed."""

    exit_code = USAGE


def library_error(error: BaseException) -> click.ClickException | None:
    """Return an error of the library as click's, with a message in one line and an exit code; None for a bug."""
    from tim_async.migrate.errors import (  # help does not need it
        JournalMismatch,
        MigrateError,
        SourceError,
        StoreMisconfigured,
    )

    if isinstance(error, TIMError):
        text = str(error)
        if error.remedy and not text.endswith(error.remedy):
            text = f"{text.rstrip(' .')}. {error.remedy}"
        return Failure(plain(text))
    if isinstance(error, SourceError | JournalMismatch | StoreMisconfigured):
        return Misuse(plain(str(error)))
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "redis":
        return Failure("Redis and Valkey need the package redis: pip install 'tim-async[redis]'")
    # An ImportError that the library raises itself names no module, and states the remedy.
    if isinstance(error, MigrateError) or (isinstance(error, ImportError) and error.name is None):
        return Failure(plain(str(error)))
    return None


def describe(error: BaseException) -> str:
    """Describe an error in one line; an unexpected one with its class and the line that raised it."""
    if isinstance(error, OutputLost):
        return str(error)
    if (expected := library_error(error)) is not None:
        text = expected.message
        return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frames = traceback.extract_tb(error.__traceback__)
    where = f", raised at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = f"unexpected {type(error).__name__}: {str(error)[:_MAX_CHARACTERS]}{where}"
    return f"{text}; please report it with the traceback that PYTHONDEVMODE=1 shows"


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an unexpected error in Python's development mode."""
    if sys.flags.dev_mode and not isinstance(error, OutputLost) and library_error(error) is None:
        traceback.print_exception(error)


@contextmanager
def argument_errors() -> Iterator[None]:
    """Raise the library's refusals of arguments within the block as `Misuse`.

    Only for calls of the library: elsewhere, a ValueError is a bug.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from None
