"""What the commands that work on a stream have in common."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from tim_async.cli.failures import Failure, Misuse, plainly
from tim_async.cli.output import plain

Command = TypeVar("Command", bound=Callable[..., Any])

NAME = "migration"  # the library's DEFAULT_NAME; help loads nothing of that
VARIABLE = "TIM_REDIS_URL"


def takes_stream(option: str) -> Callable[[Command], Command]:
    """Give a command the URL of the store, by an option of this name, and ``--name``."""

    def add(command: Command) -> Command:
        command = takes_name(command)
        return click.option(
            option,
            "url",
            metavar="URL",
            required=True,
            envvar=VARIABLE,
            help="Redis or Valkey with the stream: redis://HOST:PORT/DB, rediss:// for TLS, or unix://PATH.  "
            f"Put one with a password into the environment.  [env: {VARIABLE}]",
        )(command)

    return add


def takes_name(command: Command) -> Command:
    """Give a command ``--name``."""
    return click.option(
        "--name",
        default=NAME,
        show_default=True,
        help="Name of the stream; one database can hold several.",
    )(command)


@contextlib.contextmanager
def with_redis(url: str, name: str) -> Iterator[None]:
    """Turn what the library raises within the block into one line and an exit code.

    An error that nobody expected keeps its traceback above that line.

    Args:
        url: the store.
        name: the stream's name.

    Raises:
        Misuse: the URL or the name cannot be right, or the file or the stream is at fault.
        Failure: redis-py is not installed, the store cannot be used, or anything else failed.
    """
    try:
        import redis  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise Failure("this needs redis, which an extra brings: pip install 'tim-async[redis]'") from None
    from tim_async._stores import redis_url
    from tim_async.migrate import MigrateError
    from tim_async.migrate.errors import SourceError
    from tim_async.migrate.streams import StreamMismatch
    from tim_async.migrate.streams.keys import checked_name

    with plainly():
        redis_url(url)
        checked_name(name)
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except (SourceError, StreamMismatch) as error:
        raise Misuse(plain(str(error))) from None
    except MigrateError as error:
        raise Failure(plain(str(error))) from None
    except Exception as error:
        traceback.print_exc()
        raise Failure(
            f"unexpected {type(error).__name__}: {plain(str(error))}; the same command resumes. Please report the"
            " traceback above."
        ) from error
