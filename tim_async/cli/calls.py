"""The commands that make single calls: ``unread``, ``inbox``, ``mark-read``, ``set-unread`` and ``receipts``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from tim_async._codes import explanations

from . import credentials
from .failures import PARTIAL, click_errors
from .output import console_for, examples, json_option, make_table, number_of, plain, say, show, show_json
from .ranges import parse_seqs, parse_time

if TYPE_CHECKING:
    from tim_async._hooks import Attempt
    from tim_async.client import TIMClient
    from tim_async.models import C2CUnread, GroupMsgReceipts, ItemError

    Errors = Mapping[str, ItemError] | Mapping[int, ItemError]

Value = TypeVar("Value")

_REFRESH_INTERVAL = 0.25
"""Seconds between two updates of a progress bar."""


@click.command(
    short_help="Count unread one-to-one messages.",
    epilog=examples(
        "tim-async unread alice",
        "tim-async unread alice bob carol",
        "tim-async unread alice bob carol --json | jq .counts",
    ),
)
@click.argument("account")
@click.argument("peers", metavar="[PEER]...", nargs=-1)
@json_option
@credentials.option
@click.pass_context
def unread(
    ctx: click.Context, account: str, peers: tuple[str, ...], as_json: bool, credentials_file: Path | None
) -> None:
    """Count ACCOUNT's unread one-to-one messages, in total or from each PEER.

    Accepts any number of peers: 10 per call, up to 200 calls/s.  Exit code 3 if some peers failed.
    """
    if not peers:
        total = _call(credentials_file, lambda tim: tim.get_all_c2c_unread_msg_num(account))
        if as_json:
            show_json({"to_account": account, "all_c2c_unread_msg_num": total})
        else:
            table = make_table("Account", "Unread", right=["Unread"])
            table.add_row(account, str(total))
            show(table)
        return
    result = _call(credentials_file, lambda tim: tim.batch.get_c2c_unread_msg_num(account, peers), -(-len(peers) // 10))
    if as_json:
        show_json({"to_account": account, **_as_dict(result)})
    else:
        _show_unread(result, dict.fromkeys(peers))
    _report_errors(ctx, result.errors, "peer")


@click.command(
    short_help="Count unread messages by conversation.",
    epilog=examples("tim-async inbox alice", "tim-async inbox alice --json | jq .counts"),
)
@click.argument("account")
@json_option
@credentials.option
@click.pass_context
def inbox(ctx: click.Context, account: str, as_json: bool, credentials_file: Path | None) -> None:
    """Count ACCOUNT's unread messages in each of its one-to-one conversations.

    Lists the conversations page by page, pinned and newest first, and counts 10 per call.  Exit code 3 if some counts
    failed.
    """
    result = _call(credentials_file, lambda tim: tim.batch.get_recent_c2c_unread_msg_num(account))
    if as_json:
        show_json({"from_account": account, **_as_dict(result)})
    else:
        _show_unread(result, [*result.counts, *result.errors])
    _report_errors(ctx, result.errors, "peer")


@click.command(
    "mark-read",
    short_help="Mark a one-to-one conversation read.",
    epilog=examples(
        "tim-async mark-read alice bob",
        "tim-async mark-read alice bob --time 1756602000",
        "tim-async mark-read alice bob --time 2025-08-31T09:00:00+08:00",
    ),
)
@click.argument("report_account")
@click.argument("peer_account")
@click.option(
    "--time",
    "moment",
    metavar="SECONDS|ISO-8601",
    help="Time before which messages become read: Unix seconds, or ISO 8601 with a time zone; by default, the service's"
    " current time.",
)
@json_option
@credentials.option
def mark_read(
    report_account: str, peer_account: str, moment: str | None, as_json: bool, credentials_file: Path | None
) -> None:
    """Mark the messages that REPORT_ACCOUNT has received from PEER_ACCOUNT as read."""
    with click_errors():
        seconds = None if moment is None else parse_time(moment)
    _call(credentials_file, lambda tim: tim.admin_set_msg_read(report_account, peer_account, msg_read_time=seconds))
    if as_json:
        show_json({"report_account": report_account, "peer_account": peer_account, "msg_read_time": seconds})
    else:
        until = "" if seconds is None else f" before {seconds}"
        say(f"Marked as read for {plain(report_account)}: all messages from {plain(peer_account)}{until}.")


@click.command(
    "set-unread",
    short_help="Set a group member's unread count.",
    epilog=examples(
        "tim-async set-unread @TGS#public alice 12",
        "tim-async set-unread @TGS#public alice 0 --json",
    ),
)
@click.argument("group")
@click.argument("member")
@click.argument("count", type=click.IntRange(min=0))
@json_option
@credentials.option
def set_unread(group: str, member: str, count: int, as_json: bool, credentials_file: Path | None) -> None:
    """Set MEMBER's unread message count in GROUP to COUNT, without a notification.

    The service silently lowers a COUNT above the group's number of messages to that number.  For ChatRoom, Meeting and
    AVChatRoom groups it reports success and does nothing.
    """
    _call(credentials_file, lambda tim: tim.set_unread_msg_num(group, member, count))
    if as_json:
        show_json({"group_id": group, "member_account": member, "unread_msg_num": count})
    else:
        say(f"Set the unread count of {plain(member)} in {plain(group)} to {count}.")


@click.command(
    short_help="Show the read receipts of group messages.",
    epilog=examples(
        "tim-async receipts @TGS#public 1-500",
        "tim-async receipts @TGS#public 7 12 100-120,140",
        "tim-async receipts @TGS#public 1-500 --json",
        "tim-async receipts @TGS#public 120 --who",
    ),
)
@click.argument("group")
@click.argument("seqs", metavar="SEQ...", nargs=-1, required=True)
@click.option("--who", is_flag=True, help="List the members who have and who have not read one message.")
@json_option
@credentials.option
@click.pass_context
def receipts(
    ctx: click.Context, group: str, seqs: tuple[str, ...], who: bool, as_json: bool, credentials_file: Path | None
) -> None:
    """Show how many members of GROUP have read each message.

    Each SEQ is a message number or a range such as 1-500; 50 messages per call.  Exit code 3 if some messages have no
    receipt.
    """
    with click_errors():
        numbers = parse_seqs(seqs)
    if who:
        if len(numbers) > 1:
            raise click.UsageError(f"--who takes one message, not {len(numbers)}.")
        _show_readers(credentials_file, group, numbers[0], as_json=as_json)
        return
    result = _call(
        credentials_file, lambda tim: tim.batch.get_group_msg_receipt(group, numbers), -(-len(numbers) // 50)
    )
    if as_json:
        show_json({"group_id": group, **_as_dict(result)})
    else:
        table = make_table(
            "MsgSeq", "Read", "Unread", *_error_column(result.errors), right=["MsgSeq", "Read", "Unread"]
        )
        for seq in numbers:
            if seq in result.receipts:
                table.add_row(str(seq), str(result.receipts[seq].read_num), str(result.receipts[seq].unread_num))
            else:
                table.add_row(str(seq), "-", "-", _reason(result.errors[seq]))
        show(table)
    _report_errors(ctx, result.errors, "message")


def _show_unread(result: C2CUnread, peers: Iterable[str]) -> None:
    """Print the counts of peers in their order, and the errors in a third column."""
    table = make_table("Peer", "Unread", *_error_column(result.errors), right=["Unread"])
    for peer in peers:
        if peer in result.counts:
            table.add_row(peer, str(result.counts[peer]))
        else:
            table.add_row(peer, "-", _reason(result.errors[peer]))
    show(table)


def _show_readers(credentials_file: Path | None, group: str, seq: int, *, as_json: bool) -> None:
    async def list_both(tim: TIMClient) -> tuple[list[str], list[str]]:
        members = tim.batch.get_group_msg_receipt_detail
        return [member async for member in members(group, seq)], [
            member async for member in members(group, seq, read=False)
        ]

    read, unread_by = _call(credentials_file, list_both)
    if as_json:
        show_json({"group_id": group, "msg_seq": seq, "read": read, "unread": unread_by})
        return
    table = make_table("Member", "Read")
    for members, answer in ((read, "yes"), (unread_by, "no")):
        for member in members:
            table.add_row(member, answer)
    show(table)


def _call(credentials_file: Path | None, work: Callable[[TIMClient], Awaitable[Value]], calls: int = 1) -> Value:
    """Run ``work`` with a client, which makes ``calls`` calls."""
    options = credentials.load(credentials_file).client_options()

    async def carry_out(on_attempt: Callable[[Attempt], None] | None = None) -> Value:
        from tim_async.client import TIMClient

        async with TIMClient(**options, on_attempt=on_attempt) as tim:
            return await work(tim)

    async def carry_out_with_bar() -> Value:
        from tim_async.migrate._supervision import beside

        with _Bar(calls) as bar:
            return await beside(carry_out(bar.attempt), bar.keep_refreshing())

    with click_errors():
        # 200 calls take about a second.
        return asyncio.run(carry_out_with_bar() if calls > 200 and sys.stderr.isatty() else carry_out())


class _Bar:
    """A transient progress bar on standard error."""

    def __init__(self, calls: int) -> None:
        from rich.progress import Progress

        # rich would refresh it from a thread, whose errors would be lost.
        self._progress = Progress(
            console=console_for(sys.stderr), auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._task = self._progress.add_task("calls", total=calls)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def attempt(self, attempt: Attempt) -> None:
        """Count a call whose attempt succeeded."""
        if attempt.error is None:
            self._progress.advance(self._task)

    async def keep_refreshing(self) -> None:
        """Redraw the bar every `_REFRESH_INTERVAL` seconds."""
        while True:
            self._progress.refresh()
            await asyncio.sleep(_REFRESH_INTERVAL)


def _error_column(errors: Errors) -> list[str]:
    return ["Error"] if errors else []


def _reason(error: ItemError) -> str:
    return " ".join(part for part in ("" if error.code is None else str(error.code), error.info) if part)


def _as_dict(result: C2CUnread | GroupMsgReceipts) -> dict[str, Any]:
    """Return a result as plain data, with the meaning and remedy of each error."""
    errors = {
        item: {**asdict(error), "meaning": error.meaning, "remedy": error.remedy}
        for item, error in result.errors.items()
    }
    return {**asdict(result), "errors": errors}


def _report_errors(ctx: click.Context, errors: Errors, item: str) -> None:
    """Print the number of failed items, and explain each code once; the exit code is then 3."""
    if errors:
        failed = f"{number_of(len(errors), item)} failed."
        say("\n".join([failed, *explanations(error.code for error in errors.values())]))
        ctx.exit(PARTIAL)
