"""The commands of ``tim-async migrate``: what each takes, says of itself, and carries out."""

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
    """Send the rows of a file, at the pace that the service allows, and account for every one of them.

    A journal beside the file records the state of each row, so that after any stop, be it Ctrl-C, a crash or a loss of
    power, the same command resumes.  Rows that cannot arrive are written to a file with their reasons; edit that file
    and give it to the same command by --mended.

    On many machines: load plans the rows in Redis or Valkey, and work, on as many hosts as wanted, sends them.
    """


class _Command(click.Command):
    """A command that remembers its words, so that it can be printed with another option among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = tuple(args)
        return super().parse_args(ctx, args)


_CODES = (
    "\n\n\b\nExit codes:\n"
    "  0    all rows are accepted, or as many as --limit allows; load: loaded; verify: no differences\n"
    "  1    failed: the credentials were refused, a file or a store cannot be written, …\n"
    "  2    wrong usage: bad arguments, a FILE without rows, a journal of something else\n"
    "  3    finished, and some rows failed or were rejected; verify: differences\n"
    "  4    stopped by --max-errors or --max-outage\n"
    "  130  interrupted\n\n"
    "However it ended, the same command resumes."
)


def _add(name: str, does: str, *params: click.Parameter, short: str, text: str, shown: tuple[str, ...]) -> None:
    """Add a command.

    Args:
        name: its name.
        does: the module here and the function in it that carries it out, given the settings.
        params: its arguments and options.
        short: its help in one line.
        text: its help.
        shown: examples.
    """

    @click.pass_context
    def carry_out(ctx: click.Context, /, **_given: object) -> None:
        # Help needs neither an HTTP client nor a database.
        from .files import migration_errors
        from .settings import Settings

        module, _, function = does.partition(".")
        with migration_errors():
            code = getattr(importlib.import_module(f".{module}", __package__), function)(Settings.of(ctx))
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

    FILE is CSV, TSV or JSON Lines, compressed or not; "-" is standard input.  Of several rows for the same member the
    last one counts.  The service lowers a count above the group's number of messages to that, and keeps no counts in
    ChatRoom, Meeting and AVChatRoom groups; rows of such groups, and of groups that do not exist, fail without being
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

    FILE is CSV, TSV or JSON Lines, compressed or not; "-" is standard input.  What Report_Account was sent by
    Peer_Account before MsgReadTime (unix seconds, or a time with its zone) becomes read.  A row without a time is
    rejected, unless --until-now takes the moment when it is sent.  Of several rows for the same two accounts the last
    one counts.  For each row, the service calls the app's webhook C2C.CallbackAfterMsgReport, if it is enabled.
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
    Put the rows of FILE on a stream of Redis or Valkey, from which any number of workers take them.

    FILE is read and checked as by unread and read, which also do load and work in one with --journal URL.  Only the
    last of several rows for the same two ids is sent.  No key is needed: where the environment names the app, workers
    of another are refused, and else the first worker's is the app.  Workers may be there already, or come later.
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
    short="Send the rows of a stream, beside other workers.",
    text="""
    Send the rows that load has put on a stream, until all are processed.

    Any number of workers, on any number of hosts, take rows from the stream, and share the rate: give all of them the
    same --rate and --share, and the same --lease.  The rows of a worker that dies are taken over by the others; at
    most --concurrency rows are then sent a second time.  It waits for the stream, for a load that is not complete, and
    for rows that are leased to others.
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
    short="Show the progress of a migration, also while it runs.",
    text="""
    Show what JOURNAL, or the journal of the file JOURNAL, says: rows by state, failures, runs.

    JOURNAL may also be the URL of a Redis or Valkey with a stream, such as redis://store:6379/0; then it shows that
    stream and its workers.
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
    short="Read back what was migrated, and list differences.",
    text="""
    Read back what was migrated by JOURNAL, or by the journal of the file JOURNAL, and list differences.

    JOURNAL may also be the URL of a Redis or Valkey.  Only one-to-one conversations can be read back, by their unread
    counts; the service has no call that reads a group member's count.
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
    short="Change the pace of the runs under way.",
    text="""
    Change the pace of all runs that work on JOURNAL now: a journal, the file that it is of, or a URL.

    A run that begins later has its own --rate and --share.
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
    Free the memory of the migration at URL, once nothing needs it any more.

    It asks first while rows are left; where nobody can be asked, --yes is needed.
    """,
    shown=(
        "drop redis://store:6379/0",
        "drop redis://store:6379/0 --name reads --yes",
    ),
)
