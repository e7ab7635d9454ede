"""Reading back what can be read back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tim_async import _arguments
from tim_async._lanes import Lane
from tim_async._outcomes import Outcomes
from tim_async.endpoints import GET_C2C_UNREAD_MSG_NUM
from tim_async.errors import APIError, AuthError, ClientClosed, PermissionDenied, TIMError
from tim_async.models import C2CUnread, Done

from ._rows import READ, Row
from ._sources import Source
from .errors import MigrateError, SourceError
from .ledger import Disk
from .outage import Patience
from .schema import State
from .status import reading, refuse_another

if TYPE_CHECKING:
    from tim_async.client import TIMClient

_WINDOW = 5000
"""Rows that are read back together: enough for an account's peers to meet in the same calls."""
_PEERS = GET_C2C_UNREAD_MSG_NUM.items


@dataclass(frozen=True, slots=True)
class Difference:
    """A conversation whose unread count is not what it should be.

    Attributes:
        line: the row, in the file.
        account: whose unread messages.
        peer: from whom.
        expected: how many there should be: the row's ``C2CUnreadMsgNum``, 0 where it has none.
        found: how many there are; None when the service did not say.
        reason: why it did not, "" when it did.
    """

    line: int
    account: str
    peer: str
    expected: int
    found: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The end of a verification.

    Attributes:
        checked: rows that were read back.
        differences: how many of them differ.
        unreadable: rows that arrived, and that the service offers no way to read back.
    """

    checked: int
    differences: int
    unreadable: int


async def verify(
    client: TIMClient, source: Source, journal: str | Path, *, concurrency: int = 20
) -> AsyncGenerator[Difference | Verified, None]:
    """Read back the unread counts of the conversations that a migration has marked read, 10 a call.

    A count should be the row's ``C2CUnreadMsgNum``, an optional column, or else 0.  It may differ rightly where
    messages came after the row's ``MsgReadTime``.  Unread counts of group members cannot be read back.

    https://www.tencentcloud.com/document/product/1047/41046

    Args:
        client: carries the calls out.
        source: the rows that were migrated.
        journal: the journal of their migration.
        concurrency: calls under way at once, at least 1.

    Yields:
        Each `Difference`, and `Verified` at the end.

    Raises:
        ValueError, TypeError: an argument that cannot be right.
        SourceError: the rows cannot be read, or change meanwhile.
        JournalMismatch: the journal is of other rows, or of another app than the client's.
        JournalError: the journal cannot be read.
        AuthError, PermissionDenied: the service refuses the account as a whole.
        ClientClosed, RuntimeError: the client was closed meanwhile.
        MigrateError: a task of it was cancelled by somebody else.
    """
    _arguments.positive("concurrency", _arguments.number("concurrency", concurrency))
    path = Path(journal)
    disk = Disk()
    windows = _windows(source, path)
    try:
        arrived = await disk.do(_arrived, source, path, client)
        if source.kind is not READ:
            yield Verified(0, 0, arrived)
            return
        checked = differences = 0
        async with contextlib.aclosing(_compared(client, windows, disk, concurrency)) as compared:
            async for differing, rows in compared:
                checked += rows
                for difference in differing:
                    differences += 1
                    yield difference
        yield Verified(checked, differences, 0)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise MigrateError("a task of the verification was cancelled") from None
    finally:
        disk.hurry()
        try:
            await disk.do(windows.close)
        finally:
            await disk.close()


async def _compared(
    client: TIMClient, windows: Generator[list[Row], None, None], disk: Disk, concurrency: int
) -> AsyncGenerator[tuple[list[Difference], int], None]:
    """Read rows back, and give the differences of each call with the number of its rows."""
    patience = Patience(asyncio.Event(), math.inf, lambda *_: None)
    slots = asyncio.Semaphore(concurrency)

    async def calls() -> AsyncGenerator[tuple[str, list[Row]], None]:
        while window := await disk.do(next, windows, None):
            for call in _calls(window):
                yield call
        patience.last_calls = True

    async def count(account: str, rows: list[Row]) -> C2CUnread:
        peers = [str(row.values[1]) for row in rows]

        async def call(_: int) -> C2CUnread:
            async with slots:
                return await client.get_c2c_unread_msg_num(account, peers)

        return await patience.carry_out(call)

    # One more than places: at concurrency 1, too, an outage can be told from one call's own trouble.
    async with (
        contextlib.aclosing(calls()) as items,
        Outcomes(count, items, concurrency + 1, Lane.BULK) as outcomes,
    ):
        async for outcome in outcomes:
            account, rows = outcome.item
            if isinstance(outcome, Done):
                compared = [_compare(account, row, outcome.value) for row in rows]
                yield [difference for difference in compared if difference is not None], len(rows)
                continue
            error = outcome.error
            if not isinstance(error, TIMError) or isinstance(error, AuthError | PermissionDenied | ClientClosed):
                raise error
            yield [_difference(account, row, None, _reason(error)) for row in rows], len(rows)


def _arrived(source: Source, journal: Path, client: TIMClient) -> int:
    """How many rows arrived, by the journal of this source and this app."""
    with reading(journal) as db:
        refuse_another(db, journal, source, sdk_app_id=client.sdk_app_id, base_url=client.base_url)
        (arrived,) = db.execute(
            "SELECT count(*) FROM row WHERE state IN (?, ?)", (State.DONE, State.LOWERED)
        ).fetchone()
        return int(arrived)


def _windows(source: Source, journal: Path) -> Generator[list[Row], None, None]:
    """The rows that arrived, some thousands at a time."""
    with contextlib.ExitStack() as stack:
        rows = source.read()
        if isinstance(rows, Generator):
            stack.callback(rows.close)
        after = 0
        while taken := _taken(journal, after):
            window = []
            for line, identity in taken:
                row = next((row for row in rows if row.line >= line), None)
                if not isinstance(row, Row) or row.line != line or row.identity != identity:
                    raise SourceError(
                        f"{source.name} is not the file that was migrated: its row at line {line} is another"
                    )
                window.append(row)
            yield window
            after = window[-1].line


def _taken(journal: Path, after: int) -> list[tuple[int, bytes]]:
    """Lines and identities of the next rows that arrived."""
    # Opened for each window: a journal that is read for hours could not be tidied up by the run that writes it.
    with reading(journal) as db:
        found = db.execute(
            "SELECT line, identity FROM row WHERE line > ? AND state = ? ORDER BY line LIMIT ?",
            (after, State.DONE, _WINDOW),
        )
        return found.fetchall()


def _calls(window: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows by account, as many together as one call takes."""
    by_account: dict[str, list[Row]] = defaultdict(list)
    for row in window:
        by_account[str(row.values[0])].append(row)
    for account, rows in by_account.items():
        for start in range(0, len(rows), _PEERS):
            yield account, rows[start : start + _PEERS]


def _compare(account: str, row: Row, found: C2CUnread) -> Difference | None:
    peer = str(row.values[1])
    if peer in found.errors:
        error = found.errors[peer]
        return _difference(account, row, None, error.info or f"error {error.code}")
    if found.counts[peer] == _expected(row):
        return None
    return _difference(account, row, found.counts[peer], "")


def _difference(account: str, row: Row, found: int | None, reason: str) -> Difference:
    return Difference(row.line, account, str(row.values[1]), _expected(row), found, reason)


def _expected(row: Row) -> int:
    return int(row.values[3] or 0)


def _reason(error: TIMError) -> str:
    return f"error {error.code}: {error.info}" if isinstance(error, APIError) else str(error)
