"""How commands fail: exit codes, and the one place where the library's errors become one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tim_async.errors import TIMError

FAILED = 1
USAGE = 2
PARTIAL = 3
LIMIT = 4
INTERRUPTED = 130


class Failure(click.ClickException):
    """What was asked for could not be done."""

    exit_code = FAILED


class Misuse(click.ClickException):
    """What was asked for can never be done like this: an argument, or the configuration, is at fault."""

    exit_code = USAGE


@contextmanager
def plainly() -> Iterator[None]:
    """Turn what the library raises within the block into one plain line and an exit code.

    To be put around calls of the library and nothing else: an error of our own should keep its traceback.
    """
    try:
        yield
    except TIMError as error:
        raise Failure(str(error)) from None
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from None
