"""The commands ``migrate unread``, ``read``, ``load``, ``work``, ``status`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tim_async.cli import credentials
from tim_async.cli.output import examples, takes_json

from .options import (
    QUOTA,
    Settings,
    check_share,
    pairs,
    rejected_of,
    takes_file,
    takes_json_lines,
    takes_limits,
    takes_pace,
    takes_quota,
    takes_rejected,
    takes_report,
    takes_rows,
)
from .streams import takes_name, takes_stream

_EXIT_CODES = (
    "\n\n\b\nExit codes:\n"
    "  0    every row was taken\n"
    "  1    failed: the credentials were refused, a file cannot be written, …\n"
    "  2    wrong usage: bad arguments, a FILE without rows, a journal of something else\n"
    "  3    finished, and some rows failed or were rejected\n"
    "  4    stopped by --max-errors or --max-outage\n"
    "  130  interrupted\n\n"
    "Whatever ended it, the same command goes on where it was."
)


@click.group(
    short_help="Migrate a file, resumably.",
    epilog=examples(
        "tim-async migrate unread counts.csv --dry-run",
        "tim-async migrate unread counts.csv --share 0.8 --report counts.html",
        "tim-async migrate status counts.csv",
        "tim-async migrate verify reads.csv",
        "tim-async migrate load counts.csv --to redis://store:6379/0",
        "tim-async migrate work --from redis://store:6379/0",
    ),
)
def migrate() -> None:
    """Carry over the rows of a file, at the pace that the service allows, and account for every one of them.

    What has become of each row is kept in a journal beside the file, so that after any stop, be it Ctrl-C, a crash or a
    loss of power, the same command goes on where it was.  Rows that cannot arrive are written to a file with their
    reasons, which can be mended and migrated in its turn.

    On many machines: load puts the rows on a stream of Redis or Valkey, and work, on as many hosts as wanted, sends
    them.
    """


@migrate.command(
    short_help="Set the unread counts of group members.",
    epilog=examples(
        "tim-async migrate unread counts.csv",
        "tim-async migrate unread counts.csv.gz --share 0.8 --max-errors 1000",
        "tim-async migrate unread subscriptions.jsonl --map GroupId=rid --map Member_Account=u._id "
        "--map UnreadMsgNum=unread --id-format GroupId=rc_{}",
        "zcat counts.csv.gz | tim-async migrate unread - --json | jq .counts",
    )
    + _EXIT_CODES,
)
@takes_rows
@takes_report
@takes_pace
@takes_quota
@takes_limits
@click.option(
    "--no-group-check",
    is_flag=True,
    help="Do not look up each group first.  Rows of groups without unread counts then count as done, "
    "although the service ignores them.",
)
@click.option("--dry-run", is_flag=True, help="Read and check everything, and send nothing; needs no credentials.")
@takes_json_lines
@credentials.takes_credentials
@click.pass_context
def unread(
    ctx: click.Context,
    /,
    file: str,
    dry_run: bool,
    no_group_check: bool,
    credentials_file: Path | None,
    **options: Any,
) -> None:
    """Set the unread counts of group members, from the columns GroupId, Member_Account and UnreadMsgNum of FILE.

    FILE is CSV, TSV or JSON Lines, gzipped or not; "-" is standard input.  Of several rows for the same member the
    last one counts.  The service lowers a count above the group's number of messages to that, and keeps no counts in
    ChatRoom, Meeting and AVChatRoom groups; rows of such groups, and of groups that there are not, fail without being
    sent.
    """
    settings = Settings.of("unread", file, group_check=not no_group_check, **options)
    ctx.exit(_carry_over(settings, credentials_file, dry_run=dry_run))


@migrate.command(
    short_help="Mark one-to-one conversations read.",
    epilog=examples(
        "tim-async migrate read reads.csv",
        "tim-async migrate read reads.jsonl --rate 200 --share 0.5 --report reads.html",
        "tim-async migrate read old.tsv --map Report_Account=user --map Peer_Account=friend --dry-run",
    )
    + _EXIT_CODES,
)
@takes_rows
@takes_report
@takes_pace
@takes_quota
@takes_limits
@click.option("--dry-run", is_flag=True, help="Read and check everything, and send nothing; needs no credentials.")
@takes_json_lines
@credentials.takes_credentials
@click.pass_context
def read(ctx: click.Context, /, file: str, dry_run: bool, credentials_file: Path | None, **options: Any) -> None:
    """Mark one-to-one conversations read, from the columns Report_Account, Peer_Account and MsgReadTime of FILE.

    FILE is CSV, TSV or JSON Lines, gzipped or not; "-" is standard input.  What Report_Account was sent by
    Peer_Account before MsgReadTime (unix seconds, or a time with its zone) becomes read.  Without one, it is the
    moment when the row is sent.  Of several rows for the same two accounts the last one counts.
    """
    settings = Settings.of("read", file, **options)
    ctx.exit(_carry_over(settings, credentials_file, dry_run=dry_run))


@migrate.command(
    short_help="Put the rows of a file on a Redis stream, for many workers.",
    epilog=examples(
        "tim-async migrate load counts.csv --to redis://store:6379/0",
        "tim-async migrate load reads.csv.gz --to redis://store:6379/0 --kind read --name reads",
    )
    + "\n\n\b\nExit codes:\n"
    "  0    every row is on the stream\n"
    "  1    failed: the store cannot be reached, refuses, …\n"
    "  2    wrong usage: bad arguments, a FILE without rows, a stream of something else\n"
    "  3    every row is on the stream but those that were rejected\n"
    "  130  interrupted\n\n"
    "Whatever ended it, the same command goes on where it was.",
)
@takes_file
@takes_stream("--to")
@click.option(
    "--kind",
    type=click.Choice(["unread", "read"]),
    help="Kind of the rows, as in the commands of these names; by default that of their columns.",
)
@takes_rejected
@click.option("--replace", is_flag=True, help="Drop a stream of this name with other rows.")
@takes_json_lines
@credentials.takes_credentials
@click.pass_context
def load(
    ctx: click.Context,
    /,
    file: str,
    format: str | None,  # noqa: A002 - click's name for --format
    columns: tuple[str, ...],
    id_formats: tuple[str, ...],
    rejected: Path | None,
    credentials_file: Path | None,
    **options: Any,
) -> None:
    """Put the rows of FILE on a stream of Redis or Valkey, from which any number of workers take them.

    FILE is read and checked as by unread and read.  Only the last of several rows for the same two ids goes to the
    stream.  No key is needed: where the environment names the app, workers of another are refused, and else the first
    worker's is the app.  Workers may be there already, or come later.
    """
    from .load import LoadSettings, load_rows

    settings = LoadSettings(
        file=file,
        source_options={
            "format": format,
            "columns": pairs("--map", "COLUMN", columns),
            "id_formats": pairs("--id-format", "TEMPLATE", id_formats),
        },
        rejected=rejected_of(file) if rejected is None else rejected,
        **options,
    )
    ctx.exit(load_rows(settings, credentials_file))


@migrate.command(
    short_help="Send the rows of a Redis stream, beside other workers.",
    epilog=examples(
        "tim-async migrate work --from redis://store:6379/0",
        "tim-async migrate work --from redis://store:6379/0 --name reads --share 0.8 --max-errors 1000",
    )
    + "\n\n\b\nExit codes:\n"
    "  0    every row of the stream was taken\n"
    "  1    failed: the credentials were refused, the store refuses or has lost the stream, …\n"
    "  2    wrong usage: bad arguments, no credentials, a stream for another app\n"
    "  3    every row has come to its end, and some failed\n"
    "  4    stopped by --max-errors or --max-outage\n"
    "  130  interrupted\n\n"
    "Whatever ended it, the other workers go on, and so does the same command.",
)
@takes_stream("--from")
@takes_pace
@takes_limits
@click.option(
    "--lease",
    type=click.FloatRange(min=0.5, max=3600),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="Seconds of silence after which other workers take over a worker's rows.",
)
@click.option(
    "--quota",
    metavar="URL",
    envvar=QUOTA,
    help=f"Share the rate with all users of this store's quota; the stream's by default.  [env: {QUOTA}]",
)
@click.option("--no-quota", is_flag=True, help="Use --rate for this worker alone.")
@click.option(
    "--no-group-check",
    is_flag=True,
    help="Do not look up each group first.  Rows of groups without unread counts then count as done, "
    "although the service ignores them.",
)
@takes_json_lines
@credentials.takes_credentials
@click.pass_context
def work(
    ctx: click.Context,
    /,
    quota: str | None,
    no_quota: bool,
    no_group_check: bool,
    credentials_file: Path | None,
    **options: Any,
) -> None:
    """Send the rows that load has put on a stream, until every one has come to its end.

    Any number of workers, on any number of hosts, take rows from the stream, and share the rate: give all of them the
    same --rate and --share, and the same --lease.  What a worker holds when it dies is taken over by the others; at
    most --concurrency rows are then sent a second time.  It waits for the stream, for a load that is not complete, and
    for what the others hold.
    """
    check_share(options["rate"], options["share"])
    if quota and no_quota:
        raise click.UsageError("--quota and --no-quota exclude each other")
    client_options = credentials.load(credentials_file).client_options()
    from .work import WorkSettings, work_off

    settings = WorkSettings(quota="" if no_quota else quota, group_check=not no_group_check, **options)
    ctx.exit(work_off(settings, client_options))


@migrate.command(
    short_help="Show the progress of a migration, also while it runs.",
    epilog=examples(
        "tim-async migrate status counts.csv.journal",
        "tim-async migrate status counts.csv --json",
        "tim-async migrate status counts.csv --report counts.html",
        "tim-async migrate status redis://store:6379/0 --rejected failed.jsonl",
    ),
)
@click.argument("journal")
@takes_name
@takes_report
@click.option(
    "--rejected",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write the failed and rejected rows of a stream, with the reasons, to this file.",
)
@takes_json
def status(journal: str, name: str, report: Path | None, rejected: Path | None, as_json: bool) -> None:
    """Show what JOURNAL, or the journal of the file JOURNAL, says: rows by state, failures, runs.

    JOURNAL may also be the URL of a Redis or Valkey with a stream, such as redis://store:6379/0; then it shows that
    stream and its workers.
    """
    from tim_async._stores import is_url

    from .status import show_status, show_stream
    from .streams import NAME

    if is_url(journal):
        show_stream(journal, name, report, rejected, as_json=as_json)
        return
    if rejected is not None or name != NAME:
        raise click.UsageError("--name and --rejected are for streams; JOURNAL is a file")
    show_status(journal, report, as_json=as_json)


@migrate.command(
    short_help="Read back what was migrated, and list differences.",
    epilog=examples(
        "tim-async migrate verify reads.csv",
        "tim-async migrate verify reads.csv.journal --share 0.5",
        "tim-async migrate verify reads.csv --json | jq 'select(.event == \"difference\")'",
    )
    + "\n\n\b\nExit codes:\n"
    "  0    no differences\n"
    "  1    failed\n"
    "  2    wrong usage: no journal, another file or app, missing credentials\n"
    "  3    differences; the output lists them\n"
    "  130  interrupted",
)
@click.argument("journal")
@takes_pace
@takes_quota
@takes_json_lines
@credentials.takes_credentials
@click.pass_context
def verify(ctx: click.Context, /, journal: str, credentials_file: Path | None, **options: Any) -> None:
    """Read back what was migrated by JOURNAL, or by the journal of the file JOURNAL, and list differences.

    Only one-to-one conversations can be read back, by their unread counts; of a group member's count the service
    tells nobody.
    """
    from .verify import verify_journal

    ctx.exit(verify_journal(journal, credentials_file, **options))


def _carry_over(settings: Settings, credentials_file: Path | None, *, dry_run: bool) -> int:
    """Carry out ``unread`` or ``read``; the exit code."""
    with settings.source() as source:
        if dry_run:
            from .rehearsal import rehearse

            return rehearse(settings, source)
        client_options = credentials.load(credentials_file).client_options()
        from .ending import end
        from .job import carry_out

        outcome = carry_out(settings, source, client_options)
        return end(settings, source, outcome)
