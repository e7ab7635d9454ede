"""The commands that make single calls: ``unread``, ``inbox``, ``mark-read``, ``set-unread`` and ``receipts``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tim_async._codes import explanations

from . import credentials
from .failures import PARTIAL, argument_errors
from .output import console_for, examples, json_option, make_table, number_of, plain, say, show, show_json
from .ranges import parse_seqs, parse_time

if TYPE_CHECKING:
    from tim_async._hooks import Hook
    from tim_async.client import TIMClient
    from tim_async.models import C2CUnread, GroupMsgReceipts, ItemError

Value = TypeVar("Value")


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
            show(make_table({"Account": "text", "Unread": "number"}, [(account, total)]))
        return
    result = _call(credentials_file, lambda tim: tim.batch.get_c2c_unread_msg_num(account, peers), -(-len(peers) // 10))
    _show_unread(ctx, {"to_account": account}, result, dict.fromkeys(peers), as_json=as_json)


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
    _show_unread(ctx, {"from_account": account}, result, [*result.counts, *result.errors], as_json=as_json)


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
    with argument_errors():
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
    with argument_errors():
        numbers = parse_seqs(seqs)
    if who:
        if len(numbers) > 1:
            raise click.UsageError(f"--who takes one message, not {len(numbers)}.")
        _show_readers(credentials_file, group, numbers[0], as_json=as_json)
        return
    result = _call(
        credentials_file, lambda tim: tim.batch.get_group_msg_receipt(group, numbers), -(-len(numbers) // 50)
    )
    columns = {"MsgSeq": "number", "Read": "number", "Unread": "number"}
    cells = {seq: (receipt.read_num, receipt.unread_num) for seq, receipt in result.receipts.items()}
    rows = [(seq, *cells.get(seq, ("-", "-"))) for seq in numbers]
    _show_items(ctx, {"group_id": group}, result, "message", columns, rows, as_json=as_json)


def _show_unread(
    ctx: click.Context, given: Mapping[str, str], result: C2CUnread, peers: Iterable[str], *, as_json: bool
) -> None:
    """Print the counts of peers, in their order."""
    rows = [(peer, result.counts.get(peer, "-")) for peer in peers]
    _show_items(ctx, given, result, "peer", {"Peer": "text", "Unread": "number"}, rows, as_json=as_json)


def _show_items(
    ctx: click.Context,
    given: Mapping[str, str],
    result: C2CUnread | GroupMsgReceipts,
    noun: str,
    columns: Mapping[str, str],
    rows: Sequence[tuple[Any, ...]],
    *,
    as_json: bool,
) -> None:
    """Print a result, and explain each code of its errors once; the exit code is 3 if there are any.

    Args:
        ctx: the context of the command.
        given: the argument of the command, for JSON.
        result: the result.
        noun: the name of an item.
        columns: the columns of the table, without that of the errors.
        rows: its rows, each with the item first.
        as_json: whether to print JSON.
    """
    errors: Mapping[Any, ItemError] = result.errors
    if as_json:
        explained = {
            item: {**asdict(error), "meaning": error.meaning, "remedy": error.remedy} for item, error in errors.items()
        }
        show_json({**given, **asdict(result), "errors": explained})
    elif errors:
        show(make_table({**columns, "Error": "text"}, [(*row, _reason(errors.get(row[0]))) for row in rows]))
    else:
        show(make_table(columns, rows))
    if errors:
        failed = f"{number_of(len(errors), noun)} failed."
        say("\n".join([failed, *explanations(error.code for error in errors.values())]))
        ctx.exit(PARTIAL)


def _reason(error: ItemError | None) -> str:
    parts = () if error is None else (error.code, error.info)
    return " ".join(str(part) for part in parts if part)


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
    rows = [*((member, "yes") for member in read), *((member, "no") for member in unread_by)]
    show(make_table({"Member": "text", "Read": "text"}, rows))


def _call(credentials_file: Path | None, work: Callable[[TIMClient], Awaitable[Value]], calls: int = 1) -> Value:
    """Run ``work`` with a client, which makes ``calls`` calls."""
    options = credentials.client_options(credentials_file)

    async def carry_out(on_attempt: Hook | None) -> Value:
        from tim_async.client import TIMClient

        async with TIMClient(**options, on_attempt=on_attempt) as tim:
            return await work(tim)

    with argument_errors(), _progress_bar(calls) as on_attempt:
        return asyncio.run(carry_out(on_attempt))


@contextlib.contextmanager
def _progress_bar(calls: int) -> Iterator[Hook | None]:
    """Show a progress bar within the block, and yield the hook that advances it; None for so few calls, or a pipe."""
    if calls <= 200 or not sys.stderr.isatty():  # 200 calls take about a second
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console_for(sys.stderr), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("calls", total=calls)
        yield lambda attempt: progress.advance(task, attempt.error is None)
