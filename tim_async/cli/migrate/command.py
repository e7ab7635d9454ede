"""The commands ``migrate unread``, ``read``, ``status`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tim_async.cli import config
from tim_async.cli.output import examples, takes_json

from .options import Settings, takes_json_lines, takes_limits, takes_pace, takes_report, takes_rows

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
    short_help="Carry over the rows of a file, come what may.",
    epilog=examples(
        "tim-async migrate unread counts.csv --dry-run",
        "tim-async migrate unread counts.csv --share 0.8 --report counts.html",
        "tim-async migrate status counts.csv",
        "tim-async migrate verify reads.csv",
    ),
)
def migrate() -> None:
    """Carry over the rows of a file, at the pace that the service allows, and account for every one of them.

    What has become of each row is kept in a journal beside the file, so that after any stop, be it Ctrl-C, a crash or a
    loss of power, the same command goes on where it was.  Rows that cannot arrive are written to a file with their
    reasons, which can be mended and migrated in its turn.
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
@takes_limits
@click.option(
    "--no-group-check",
    is_flag=True,
    help="Do not look up each group first.  Rows of groups that keep no unread counts then count as taken, "
    "though the service ignores them.",
)
@click.option("--dry-run", is_flag=True, help="Read and check everything, and send nothing; needs no credentials.")
@takes_json_lines
@config.takes_credentials
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
@takes_limits
@click.option("--dry-run", is_flag=True, help="Read and check everything, and send nothing; needs no credentials.")
@takes_json_lines
@config.takes_credentials
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
    short_help="Show how far a migration is, also while it runs.",
    epilog=examples(
        "tim-async migrate status counts.csv.journal",
        "tim-async migrate status counts.csv --json",
        "tim-async migrate status counts.csv --report counts.html",
    ),
)
@click.argument("journal")
@takes_report
@takes_json
def status(journal: str, report: Path | None, as_json: bool) -> None:
    """Show what JOURNAL, or the journal of the file JOURNAL, says: rows by state, failures, runs."""
    from .status import show_status

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
@takes_json_lines
@config.takes_credentials
@click.pass_context
def verify(
    ctx: click.Context, journal: str, rate: float, share: float, as_json: bool, credentials_file: Path | None
) -> None:
    """Read back what was migrated by JOURNAL, or by the journal of the file JOURNAL, and list differences.

    Only one-to-one conversations can be read back, by their unread counts; of a group member's count the service
    tells nobody.
    """
    from .verify import verify_journal

    ctx.exit(verify_journal(journal, credentials_file, rate=rate, share=share, as_json=as_json))


def _carry_over(settings: Settings, credentials_file: Path | None, *, dry_run: bool) -> int:
    """Carry out ``unread`` or ``read``; the exit code."""
    with settings.source() as source:
        if dry_run:
            from .rehearsal import rehearse

            return rehearse(settings, source)
        client_options = config.load(credentials_file).client_options()
        from .ending import end
        from .job import carry_out

        outcome = carry_out(settings, source, client_options)
        return end(settings, source, outcome)
