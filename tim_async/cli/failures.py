"""Failures of commands: their exit codes, and their text of one line each."""

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
"""The most characters shown of an error, which may hold a path or two."""


class Failure(click.ClickException):
    """The command failed."""

    exit_code = FAILED


class Misuse(click.ClickException):
    """An argument or the configuration is wrong, so that the command can never succeed."""

    exit_code = USAGE


def describe(error: BaseException) -> str:
    """An error as one line; an unexpected one with its class and the line that raised it."""
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
    """An error as one line that ends with its remedy, where it has one."""
    text = str(error)
    return text if not error.remedy or text.endswith(error.remedy) else f"{text.rstrip(' .')}. {error.remedy}"


def _is_expected(error: BaseException) -> bool:
    from tim_async.migrate.errors import MigrateError  # here, since help needs nothing of it

    return isinstance(error, TIMError | MigrateError | OutputLost)


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an unexpected error in Python's development mode."""
    if sys.flags.dev_mode and not _is_expected(error):
        traceback.print_exception(error)


@contextmanager
def click_errors() -> Iterator[None]:
    """Turn the library's errors within the block into one line and an exit code.

    Only for calls of the library: other errors are defects, see `describe`.
    """
    try:
        yield
    except TIMError as error:
        raise Failure(with_remedy(error)) from None
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from None
