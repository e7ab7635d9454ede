"""The command group.  A run ends with an exit code; expected failures show no traceback."""

from __future__ import annotations

import io
import os
import sys

import click

from tim_async import __version__
from tim_async.config import set_up_logging

from .calls import inbox, mark_read, receipts, set_unread, unread
from .demo.command import demo
from .doctor import doctor
from .explain import explain
from .failures import FAILED, INTERRUPTED, describe, print_traceback
from .migrate.command import migrate
from .output import examples, plain, say
from .quota import quota
from .serve import emulator
from .sign import usersig
from .stdio import OutputLost

_NAME = "tim-async"


@click.group(
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
    "  2    wrong usage: bad arguments, missing credentials\n"
    "  3    some items failed; the output names them\n"
    "  4    a migration was stopped by a limit that was set for it\n"
    "  130  interrupted"
    + "\n\n\b\nCredentials, from the environment or from a file that --credentials or TIM_CREDENTIALS names:\n"
    "  TIM_SDK_APP_ID                      the app's SDKAppID\n"
    "  TIM_SECRET_KEY, TIM_SECRET_KEY_FILE the app's secret key, or a file that holds it\n"
    "  TIM_IDENTIFIER                      an admin of the app (default: administrator)\n"
    "  TIM_REGION, TIM_BASE_URL            where the app is, e.g. singapore; or another host\n"
    "  TIM_ALLOW_HTTP=1                    allow http:// to a host that is not this machine\n\n"
    "\b\nHTTPS_PROXY, HTTP_PROXY and NO_PROXY name the proxy, if there is one.\n"
    "TIM_LOG=debug logs each request to standard error; other levels are info, warning and error.",
)
def cli() -> None:
    """Read state of Tencent Cloud Chat (IM): unread counts and read receipts.

    Data goes to standard output, as a table or with --json as one JSON document; what takes long prints JSON lines.
    All else goes to standard error.
    """
    try:
        set_up_logging(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


for _command in (
    demo,
    doctor,
    emulator,
    unread,
    inbox,
    mark_read,
    set_unread,
    receipts,
    migrate,
    quota,
    usersig,
    explain,
):
    cli.add_command(_command)


def _add_version_option(command: click.Command, *, hidden: bool) -> None:
    """Take ``--version`` after each command, too; the help of the first names it."""
    click.version_option(__version__, prog_name=_NAME, message="%(prog)s %(version)s", hidden=hidden)(command)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _add_version_option(inner, hidden=True)


_add_version_option(cli, hidden=False)


def run() -> int:
    """Run the command line.

    Returns:
        The exit code.

    Raises:
        OutputLost: a standard stream cannot be written to.
    """
    try:
        # Not in standalone mode, which exits with 1 on Ctrl-C.
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
        say(f"Error: {plain(describe(error))}")
        return FAILED
    return code if isinstance(code, int) else 0
