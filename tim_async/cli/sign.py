"""The command ``usersig``, the only one that prints a secret."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import click

from . import credentials
from .failures import argument_errors
from .output import examples, json_option, say, show_json

_DAY = 86_400


@click.command(
    short_help="Generate a UserSig.",
    epilog=examples(
        "tim-async usersig",
        "tim-async usersig --identifier alice --expire 604800",
        "tim-async usersig --json | jq -r .usersig",
    ),
)
@click.option("--identifier", metavar="ACCOUNT", help="Account to sign for; TIM_IDENTIFIER by default.")
@click.option(
    "--expire",
    metavar="SECONDS",
    type=click.IntRange(min=1),
    default=_DAY,
    show_default=True,
    help="Seconds until it expires.",
)
@json_option
@credentials.option
def usersig(identifier: str | None, expire: int, as_json: bool, credentials_file: Path | None) -> None:
    """Generate a UserSig, with which an account can sign in until it expires.

    The UserSig of an admin gives access to the whole app: this is the only command that prints a secret.  It is
    generated locally, without a call.
    """
    from tim_async import _arguments
    from tim_async.usersig import check_key, sign

    found = credentials.load(credentials_file)
    issued_at = int(time.time())
    with argument_errors():
        check_key(found["secret_key"])
        given = found.get("identifier", "administrator") if identifier is None else identifier
        who = _arguments.text("identifier", given)
        signed = sign(found["sdk_app_id"], found["secret_key"], who, issued_at=issued_at, expire=expire)
    if as_json:
        show_json(
            {
                "sdk_app_id": found["sdk_app_id"],
                "identifier": who,
                "issued_at": issued_at,
                "expire": expire,
                "usersig": signed,
            }
        )
    else:
        click.echo(signed)
        say(f"Valid until {_until(issued_at + expire)}.")


def _until(moment: int) -> str:
    try:
        return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(sep=" ")
    except (ValueError, OverflowError, OSError):  # thousands of years ahead
        return f"{moment}, unix seconds"
