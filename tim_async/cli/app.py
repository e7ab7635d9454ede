"""The command group, and `run`, which turns errors into exit codes and messages without a traceback."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from tim_async import __version__
from tim_async.config import set_up_logging

from .calls import inbox, mark_read, receipts, set_unread, unread
from .demo.command import demo
from .doctor import doctor
from .explain import explain
from .failures import FAILED, INTERRUPTED, describe, library_error, print_traceback
from .migrate.command import migrate
from .output import examples, print_error, say
from .quota import quota
from .serve import emulator
from .sign import usersig
from .stdio import OutputLost

_NAME = "tim-async"


class _Commands(click.Group):
    """The command group, which raises the library's errors as click's."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise  # the regular end of --help and others, without an import of the error classes
        except Exception as error:
            expected = library_error(error)
            if expected is None:
                raise
            raise expected from None


@click.group(
    cls=_Commands,
    commands=[demo, doctor, emulator, unread, inbox, mark_read, set_unread, receipts, migrate, quota, usersig, explain],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "tim-async demo",
        "tim-async doctor",
        "tim-async unread alice bob carol",
        "tim-async receipts @TGS#public 1-500 --json",
        "tim-async migrate unread counts.csv --dry-run",
        "tim-async quota redis://store:6379/0 --watch",
        "tim-async explain 70009",
    )
    + "\n\n\b\nExit codes:\n"
    "  0    done\n"
    "  1    failed\n"
    "  2    usage error: invalid arguments, missing credentials\n"
    "  3    some items failed; the output lists them\n"
    "  4    a migration was stopped by --max-errors or --max-outage\n"
    "  130  interrupted"
    + "\n\n\b\nCredentials, from the environment or from the file given by --credentials or TIM_CREDENTIALS:\n"
    "  TIM_SDK_APP_ID                      the app's SDKAppID\n"
    "  TIM_SECRET_KEY, TIM_SECRET_KEY_FILE the app's secret key, or a file that contains it\n"
    "  TIM_IDENTIFIER                      an admin of the app (default: administrator)\n"
    "  TIM_REGION, TIM_BASE_URL            the app's region, e.g. singapore; or the URL of another host\n"
    "  TIM_ALLOW_HTTP=1                    allow http:// to hosts other than this machine\n\n"
    "\b\nHTTPS_PROXY, HTTP_PROXY and NO_PROXY configure a proxy.\n"
    "TIM_LOG=debug logs each request to standard error; other levels are info, warning and error.",
)
def cli() -> None:
    """Read state of Tencent Cloud Chat (IM): unread counts and read receipts.

    Results go to standard output: a table, or with --json a JSON document; long-running commands print JSON Lines.
    Messages go to standard error.
    """
    try:
        set_up_logging(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _add_version_option(command: click.Command, *, hidden: bool) -> None:
    """Add ``--version`` to a command and its subcommands; only the first one's help shows it."""
    click.version_option(__version__, prog_name=_NAME, message="%(prog)s %(version)s", hidden=hidden)(command)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _add_version_option(inner, hidden=True)


_add_version_option(cli, hidden=False)


def run() -> int:
    """Run the command line.

    Returns:
        The exit code.

    Raises:
        OutputLost: a standard stream is not writable.
    """
    try:
        # Standalone mode would exit with 1 on Ctrl-C.
        code = cli.main(prog_name=_NAME, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip("\n"))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OutputLost:
        raise
    except Exception as error:  # noqa: BLE001 - the outermost handler: reported as unexpected
        print_traceback(error)
        print_error(describe(error))
        return FAILED
    return code if isinstance(code, int) else 0
