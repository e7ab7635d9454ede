"""Exit codes, the exceptions that carry them, and one-line messages for errors."""

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

_MAX_CHARACTERS = 800
"""Maximum length of an error message; enough for one with two paths."""


class Failure(click.ClickException):
    """A command that failed."""

    exit_code = FAILED


class Misuse(click.ClickException):
    """An invalid argument or configuration, with which the command can never succeed."""

    exit_code = USAGE


def describe(error: BaseException) -> str:
    """Describe an error in one line; an unexpected one with its class and the line that raised it."""
    if _is_expected(error):
        text = with_remedy(error) if isinstance(error, TIMError) else str(error)
        return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frames = traceback.extract_tb(error.__traceback__)
    where = f", raised at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = f"unexpected {type(error).__name__}: {str(error)[:_MAX_CHARACTERS]}{where}"
    return f"{text}; please report it with the traceback that PYTHONDEVMODE=1 shows"


def with_remedy(error: TIMError) -> str:
    """Describe an error in one line that ends with its remedy, if it has one."""
    text = str(error)
    return text if not error.remedy or text.endswith(error.remedy) else f"{text.rstrip(' .')}. {error.remedy}"


def _is_expected(error: BaseException) -> bool:
    from tim_async.migrate.errors import MigrateError  # help does not need it

    return isinstance(error, TIMError | MigrateError | OutputLost)


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an unexpected error in Python's development mode."""
    if sys.flags.dev_mode and not _is_expected(error):
        traceback.print_exception(error)


@contextmanager
def requires_redis() -> Iterator[None]:
    """Raise the import error of a missing redis-py within the block as a `Failure` with the remedy."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise Failure("Redis and Valkey need the package redis: pip install 'tim-async[redis]'") from None


@contextmanager
def click_errors() -> Iterator[None]:
    """Raise the library's errors within the block as click's, which have a one-line message and an exit code.

    Only for calls of the library: elsewhere, a ValueError is a bug.
    """
    try:
        yield
    except TIMError as error:
        raise Failure(with_remedy(error)) from None
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from None
