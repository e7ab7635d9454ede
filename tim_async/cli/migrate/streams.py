"""What the commands that work on a stream have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from tim_async.cli.failures import Failure, Misuse
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
            help="The Redis or Valkey with the stream: redis://HOST:PORT/DB, rediss:// for TLS, or unix://PATH.  "
            f"One with a password is better off in the environment.  [env: {VARIABLE}]",
        )(command)

    return add


def takes_name(command: Command) -> Command:
    """Give a command ``--name``."""
    return click.option(
        "--name",
        default=NAME,
        show_default=True,
        help="What the stream is called; one database can hold several.",
    )(command)


@contextlib.contextmanager
def with_redis() -> Iterator[None]:
    """Say plainly what is missing when redis-py is, and turn what the library raises into one line and an exit code."""
    try:
        from tim_async.migrate import MigrateError
        from tim_async.migrate.errors import SourceError
        from tim_async.migrate.streams import StreamMismatch

        try:
            yield
        except (SourceError, StreamMismatch) as error:
            raise Misuse(plain(str(error))) from None
        except MigrateError as error:
            raise Failure(plain(str(error))) from None
        except ValueError as error:
            raise Misuse(plain(str(error))) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise Failure("this needs redis, which an extra brings: pip install 'tim-async[redis]'") from None
