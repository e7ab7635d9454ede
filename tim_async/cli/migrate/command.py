"""The commands of ``tim-async migrate``: their parameters, help texts and implementations."""

from __future__ import annotations

import importlib
import inspect

import click

from tim_async.cli import credentials
from tim_async.cli.output import examples

from . import options as o


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
    """Send the rows of a file at the rate that the service allows, and account for every row.

    A journal beside the file records the state of each row, so that the same command resumes after Ctrl-C, a crash or a
    power failure.  Failed and rejected rows are written to a file with their reasons; correct them there, and pass that
    file to the same command with --mended.

    On many machines: load plans the rows in Redis or Valkey, and work, on any number of hosts, sends them.
    """


class _Command(click.Command):
    """A command that keeps its command line, to print it with other options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = tuple(args)
        return super().parse_args(ctx, args)


_CODES = (
    "\n\n\b\nExit codes:\n"
    "  0    all rows accepted, or as many as --limit allows; load: all rows loaded; verify: no differences\n"
    "  1    failed: credentials refused, a file or a store not writable, …\n"
    "  2    usage error: invalid arguments, a FILE without rows, a journal of another migration\n"
    "  3    finished, but some rows failed or were rejected; verify: differences\n"
    "  4    stopped by --max-errors or --max-outage\n"
    "  130  interrupted\n\n"
    "After 1, 4 and 130, the same command resumes a migration."
)


def _add(name: str, function: str, *params: click.Parameter, short: str, text: str, shown: tuple[str, ...]) -> None:
    """Add a command.

    Args:
        name: the name of the command.
        function: its implementation in this package, as "module.function"; takes the settings.
        params: its arguments and options.
        short: its one-line help.
        text: its help.
        shown: examples.
    """

    @click.pass_context
    def carry_out(ctx: click.Context, /, **_given: object) -> None:
        # Help must not import an HTTP client or a database.
        from .settings import Settings

        module, _, attribute = function.partition(".")
        code = getattr(importlib.import_module(f".{module}", __package__), attribute)(Settings.of(ctx))
        ctx.exit(code or 0)

    calls = o.JSON_LINES in params
    migrate.command(
        name,
        cls=_Command,
        params=list(params),
        help=inspect.cleandoc(text),
        short_help=short,
        epilog=examples(*(f"tim-async migrate {example}" for example in shown)) + (_CODES if calls else ""),
    )(credentials.option(carry_out) if calls else carry_out)


_SENDS = (*o.FILES, *o.PACE, *o.LIMITS, o.LEASE, o.DRY_RUN)

_add(
    "unread",
    "job.run_job",
    *(o.FILE, *o.SOURCE, *_SENDS, o.CHECK_GROUPS, o.GROUP_CHECK, o.JSON_LINES),
    short="Set the unread counts of group members.",
    text="""
    Set the unread counts of group members, from the columns GroupId, Member_Account and UnreadMsgNum of FILE.

    FILE is CSV, TSV or JSON Lines, compressed or not; "-" is standard input.  Of several rows for the same member, the
    last one is sent.  The service lowers a count above the group's number of messages to that number, and has no counts
    in ChatRoom, Meeting and AVChatRoom groups; rows of such groups, and of groups that do not exist, fail without being
    sent.
    """,
    shown=(
        "unread counts.csv",
        "unread counts.csv.gz --share 0.8 --max-errors 1000",
        "unread counts.csv --limit 100",
        "unread subscriptions.jsonl --map GroupId=rid --map Member_Account=u._id "
        "--map UnreadMsgNum=unread --id-format GroupId=rc_{}",
        "unread counts.csv --json | jq .counts",
    ),
)

_add(
    "read",
    "job.run_job",
    *(o.FILE, *o.SOURCE, o.UNTIL_NOW, *_SENDS, o.JSON_LINES),
    short="Mark one-to-one conversations read.",
    text="""
    Mark one-to-one conversations read, from the columns Report_Account, Peer_Account and MsgReadTime of FILE.

    FILE is CSV, TSV or JSON Lines, compressed or not; "-" is standard input.  Messages from Peer_Account to
    Report_Account before MsgReadTime (Unix seconds, or ISO 8601 with a time zone) become read.  A row without a time is
    rejected, unless --until-now uses the time of sending.  Of several rows for the same two accounts, the last one is
    sent.  For each row, the service calls the app's webhook C2C.CallbackAfterMsgReport, if it is enabled.
    """,
    shown=(
        "read reads.csv",
        "read reads.jsonl --rate 200 --share 0.5 --report reads.html",
        "read old.tsv --map Report_Account=user --map Peer_Account=friend --until-now --dry-run",
    ),
)

_add(
    "load",
    "job.run_job",
    *(o.FILE, *o.SOURCE, o.UNTIL_NOW, o.TO, o.NAME, o.KIND, o.REJECTED, *o.RESTART, o.REPLACE, o.JSON_LINES),
    short="Plan the rows of a file in Redis or Valkey, for many workers.",
    text="""
    Put the rows of FILE on a stream in Redis or Valkey, from which any number of workers send them.

    FILE is read and checked as by unread and read, which load and work in one command with --journal URL.  Of several
    rows for the same two ids, only the last one is sent.  Needs no secret key: the app is that of the environment, or
    else of the first worker, and workers of other apps are refused.  Workers may start before or after load.
    """,
    shown=(
        "load counts.csv --to redis://store:6379/0",
        "load reads.csv.gz --to redis://store:6379/0 --kind read --name reads",
    ),
)

_add(
    "work",
    "job.run_job",
    *(o.FROM, o.NAME, *o.PACE, *o.LIMITS, o.LEASE, o.GROUP_CHECK, o.MENDED, o.JSON_LINES),
    short="Send the rows of a stream, along with other workers.",
    text="""
    Send the rows that load has put on a stream, until all are processed.

    Any number of workers on any number of hosts share the rows and the rate: use the same --rate, --share and --lease
    for all of them.  If a worker dies, the others take over its rows; at most --concurrency rows are then sent twice.
    A worker waits for the stream, for an incomplete load, and for rows that are leased to others.
    """,
    shown=(
        "work --from redis://store:6379/0",
        "work --from redis://store:6379/0 --name reads --share 0.8 --max-errors 1000",
    ),
)

_add(
    "status",
    "status.show_status",
    *(o.JOURNAL, o.NAME, o.REPORT, o.REJECTED_OF, o.JSON),
    short="Show the progress of a migration, even while it runs.",
    text="""
    Show the state of a migration: rows by state, failures and runs.

    JOURNAL is a journal, a file with a journal beside it, or the URL of a Redis or Valkey with a stream, such as
    redis://store:6379/0; the status of a stream includes its workers.
    """,
    shown=(
        "status counts.csv.journal",
        "status counts.csv --json",
        "status counts.csv --report counts.html",
        "status redis://store:6379/0 --rejected failed.jsonl",
    ),
)

_add(
    "verify",
    "verify.verify_journal",
    *(o.JOURNAL, o.NAME, *o.PACE, o.JSON_LINES),
    short="Read back the migrated conversations and list differences.",
    text="""
    Read back the unread counts of the migrated conversations, and list differences.

    JOURNAL is a journal, a file with a journal beside it, or the URL of a Redis or Valkey.  Only one-to-one
    conversations can be read back: the service has no call that returns a group member's count.
    """,
    shown=(
        "verify reads.csv",
        "verify reads.csv.journal --share 0.5",
        "verify reads.csv --json | jq 'select(.event == \"difference\")'",
    ),
)

_add(
    "set",
    "status.set_pace",
    *(o.JOURNAL, o.NAME, *o.NEW_PACE),
    short="Change the pace of active runs.",
    text="""
    Change the pace of all active runs of JOURNAL: a journal, a file with a journal beside it, or a URL.

    Runs that start later use their own --rate and --share.
    """,
    shown=(
        "set counts.csv --share 0.5",
        "set redis://store:6379/0 --rate 400 --share 0.8",
    ),
)

_add(
    "drop",
    "status.drop",
    *(o.URL, o.NAME, o.YES),
    short="Remove a migration from Redis or Valkey.",
    text="""
    Remove the migration at URL from Redis or Valkey, and free its memory.

    Asks for confirmation if rows are left or workers are active; without a terminal, that needs --yes.
    """,
    shown=(
        "drop redis://store:6379/0",
        "drop redis://store:6379/0 --name reads --yes",
    ),
)
