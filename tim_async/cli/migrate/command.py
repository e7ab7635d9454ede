"""The commands of ``tim-async migrate``."""

from __future__ import annotations

from typing import Any

import click

from tim_async.cli import credentials
from tim_async.cli.output import examples

from . import options as o

_CREDENTIALS = credentials.takes_credentials
_RESUMES = "However it ended, the same command resumes."


def _epilog(*lines: str, codes: dict[str, str], end: str = "") -> str:
    """Examples and exit codes."""
    meanings = "\n".join(f"  {code:<4} {meaning}" for code, meaning in codes.items())
    return examples(*lines) + f"\n\n\b\nExit codes:\n{meanings}" + (f"\n\n{end}" if end else "")


_CODES = {
    "0": "every row was accepted, or as many as --limit allows",
    "1": "failed: the credentials were refused, a file cannot be written, …",
    "2": "wrong usage: bad arguments, a FILE without rows, a journal of something else",
    "3": "finished, and some rows failed or were rejected",
    "4": "stopped by --max-errors or --max-outage",
    "130": "interrupted",
}


@click.group(
    short_help="Migrate a file, resumably.",
    epilog=examples(
        "tim-async migrate unread counts.csv --dry-run",
        "tim-async migrate unread counts.csv --share 0.8 --report counts.html",
        "tim-async migrate unread counts.csv --mended counts.csv.rejected.jsonl",
        "tim-async migrate status counts.csv",
        "tim-async migrate verify reads.csv",
        "tim-async migrate load counts.csv --to redis://store:6379/0",
        "tim-async migrate work --from redis://store:6379/0",
    ),
)
def migrate() -> None:
    """Send the rows of a file, at the pace that the service allows, and account for every one of them.

    A journal beside the file records the state of each row, so that after any stop, be it Ctrl-C, a crash or a loss of
    power, the same command resumes.  Rows that cannot arrive are written to a file with their reasons; edit that file
    and give it to the same command by --mended.

    On many machines: load plans the rows in Redis or Valkey, and work, on as many hosts as wanted, sends them.
    """


@migrate.command(
    cls=o.Remembering,
    params=[o.FILE, *o.SOURCE, *o.KEPT, *o.PACE, *o.BOUNDS, o.GROUP_CHECK, o.LEASE, *o.DRY_RUN, o.JSON_LINES],
    short_help="Set the unread counts of group members.",
    epilog=_epilog(
        "tim-async migrate unread counts.csv",
        "tim-async migrate unread counts.csv.gz --share 0.8 --max-errors 1000",
        "tim-async migrate unread counts.csv --limit 100",
        "tim-async migrate unread subscriptions.jsonl --map GroupId=rid --map Member_Account=u._id "
        "--map UnreadMsgNum=unread --id-format GroupId=rc_{}",
        "zcat counts.csv.gz | tim-async migrate unread - --json | jq .counts",
        codes=_CODES,
        end=_RESUMES,
    ),
)
@_CREDENTIALS
@click.pass_context
def unread(ctx: click.Context, /, **_: Any) -> None:
    """Set the unread counts of group members, from the columns GroupId, Member_Account and UnreadMsgNum of FILE.

    FILE is CSV, TSV or JSON Lines, compressed or not; "-" is standard input.  Of several rows for the same member the
    last one counts.  The service lowers a count above the group's number of messages to that, and keeps no counts in
    ChatRoom, Meeting and AVChatRoom groups; rows of such groups, and of groups that do not exist, fail without being
    sent.
    """
    _carry_out(ctx)


@migrate.command(
    cls=o.Remembering,
    params=[o.FILE, *o.SOURCE, o.UNTIL_NOW, *o.KEPT, *o.PACE, *o.BOUNDS, o.LEASE, o.DRY_RUN[0], o.JSON_LINES],
    short_help="Mark one-to-one conversations read.",
    epilog=_epilog(
        "tim-async migrate read reads.csv",
        "tim-async migrate read reads.jsonl --rate 200 --share 0.5 --report reads.html",
        "tim-async migrate read old.tsv --map Report_Account=user --map Peer_Account=friend --until-now --dry-run",
        codes=_CODES,
        end=_RESUMES,
    ),
)
@_CREDENTIALS
@click.pass_context
def read(ctx: click.Context, /, **_: Any) -> None:
    """Mark one-to-one conversations read, from the columns Report_Account, Peer_Account and MsgReadTime of FILE.

    FILE is CSV, TSV or JSON Lines, compressed or not; "-" is standard input.  What Report_Account was sent by
    Peer_Account before MsgReadTime (unix seconds, or a time with its zone) becomes read.  A row without a time is
    rejected, unless --until-now takes the moment when it is sent.  Of several rows for the same two accounts the last
    one counts.  For each row, the service calls the app's webhook C2C.CallbackAfterMsgReport, if it is enabled.
    """
    _carry_out(ctx)


@migrate.command(
    cls=o.Remembering,
    params=[o.FILE, *o.SOURCE, o.UNTIL_NOW, o.TO, o.NAMED, o.KIND, o.REJECTED, *o.RESTART, o.REPLACE, o.JSON_LINES],
    short_help="Plan the rows of a file in Redis or Valkey, for many workers.",
    epilog=_epilog(
        "tim-async migrate load counts.csv --to redis://store:6379/0",
        "tim-async migrate load reads.csv.gz --to redis://store:6379/0 --kind read --name reads",
        codes={
            "0": "every row is on the stream",
            "1": "failed: the store cannot be reached, refuses, …",
            "2": "wrong usage: bad arguments, a FILE without rows, a stream of something else",
            "3": "every row is on the stream but those that were rejected",
            "130": "interrupted",
        },
        end=_RESUMES,
    ),
)
@_CREDENTIALS
@click.pass_context
def load(ctx: click.Context, /, **_: Any) -> None:
    """Put the rows of FILE on a stream of Redis or Valkey, from which any number of workers take them.

    FILE is read and checked as by unread and read, which also do load and work in one with --journal URL.  Only the
    last of several rows for the same two ids is sent.  No key is needed: where the environment names the app, workers
    of another are refused, and else the first worker's is the app.  Workers may be there already, or come later.
    """
    _carry_out(ctx)


@migrate.command(
    cls=o.Remembering,
    params=[o.FROM, o.NAMED, *o.PACE, *o.BOUNDS, o.GROUP_CHECK, o.LEASE, o.MENDED, o.JSON_LINES],
    short_help="Send the rows of a stream, beside other workers.",
    epilog=_epilog(
        "tim-async migrate work --from redis://store:6379/0",
        "tim-async migrate work --from redis://store:6379/0 --name reads --share 0.8 --max-errors 1000",
        codes={
            **_CODES,
            "0": "every row of the stream was accepted",
            "1": "failed: the credentials were refused, the store refuses or has lost the stream, …",
            "2": "wrong usage: bad arguments, no credentials, a stream for another app",
        },
        end="However it ended, the other workers continue, and the same command resumes.",
    ),
)
@_CREDENTIALS
@click.pass_context
def work(ctx: click.Context, /, **_: Any) -> None:
    """Send the rows that load has put on a stream, until all are processed.

    Any number of workers, on any number of hosts, take rows from the stream, and share the rate: give all of them the
    same --rate and --share, and the same --lease.  The rows of a worker that dies are taken over by the others; at
    most --concurrency rows are then sent a second time.  It waits for the stream, for a load that is not complete, and
    for rows that are leased to others.
    """
    _carry_out(ctx)


@migrate.command(
    params=[o.JOURNAL, o.NAMED, o.REPORT, o.REJECTED_OF, o.JSON],
    short_help="Show the progress of a migration, also while it runs.",
    epilog=examples(
        "tim-async migrate status counts.csv.journal",
        "tim-async migrate status counts.csv --json",
        "tim-async migrate status counts.csv --report counts.html",
        "tim-async migrate status redis://store:6379/0 --rejected failed.jsonl",
    ),
)
@click.pass_context
def status(ctx: click.Context, /, **_: Any) -> None:
    """Show what JOURNAL, or the journal of the file JOURNAL, says: rows by state, failures, runs.

    JOURNAL may also be the URL of a Redis or Valkey with a stream, such as redis://store:6379/0; then it shows that
    stream and its workers.
    """
    from .settings import Settings
    from .status import show_status

    show_status(Settings.of(ctx))


@migrate.command(
    params=[o.JOURNAL, o.NAMED, *o.PACE, o.JSON_LINES],
    short_help="Read back what was migrated, and list differences.",
    epilog=_epilog(
        "tim-async migrate verify reads.csv",
        "tim-async migrate verify reads.csv.journal --share 0.5",
        "tim-async migrate verify reads.csv --json | jq 'select(.event == \"difference\")'",
        codes={
            "0": "no differences",
            "1": "failed",
            "2": "wrong usage: no journal, another app, missing credentials",
            "3": "differences; the output lists them",
            "130": "interrupted",
        },
    ),
)
@_CREDENTIALS
@click.pass_context
def verify(ctx: click.Context, /, **_: Any) -> None:
    """Read back what was migrated by JOURNAL, or by the journal of the file JOURNAL, and list differences.

    JOURNAL may also be the URL of a Redis or Valkey.  Only one-to-one conversations can be read back, by their unread
    counts; the service has no call that reads a group member's count.
    """
    from .settings import Settings
    from .verify import verify_journal

    ctx.exit(verify_journal(Settings.of(ctx)))


@migrate.command(
    "set",
    params=[o.JOURNAL, o.NAMED, *o.NEW_PACE],
    short_help="Change the pace of the runs under way.",
    epilog=examples(
        "tim-async migrate set counts.csv --share 0.5",
        "tim-async migrate set redis://store:6379/0 --rate 400 --share 0.8",
    ),
)
@click.pass_context
def set_(ctx: click.Context, /, rate: float | None, share: float | None, **_: Any) -> None:
    """Change the pace of all runs that work on JOURNAL now: a journal, the file that it is of, or a URL.

    A run that begins later has its own --rate and --share.
    """
    from .settings import Settings
    from .status import set_pace

    del ctx.params["rate"], ctx.params["share"]  # of other runs, and not of this command
    set_pace(Settings.of(ctx), rate, share)


@migrate.command(
    params=[o.URL, o.NAMED, o.YES],
    short_help="Remove a migration from Redis or Valkey.",
    epilog=examples(
        "tim-async migrate drop redis://store:6379/0",
        "tim-async migrate drop redis://store:6379/0 --name reads --yes",
    ),
)
@click.pass_context
def drop(ctx: click.Context, /, **_: Any) -> None:
    """Free the memory of the migration at URL, once nothing needs it any more.

    It asks first while rows are left; where nobody can be asked, --yes is needed.
    """
    from .settings import Settings
    from .status import drop as drop_stream

    drop_stream(Settings.of(ctx))


def _carry_out(ctx: click.Context) -> None:
    # Help needs neither an HTTP client nor a database.
    from .job import carry_out
    from .settings import Settings

    ctx.exit(carry_out(Settings.of(ctx)))
