"""Verification: unread counts read back from the service and compared with the rows."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tim_async import _arguments
from tim_async._lanes import Lane
from tim_async._outcomes import Outcomes
from tim_async.endpoints import GET_C2C_UNREAD_MSG_NUM
from tim_async.models import C2CUnread, Done, item_error

from ._breaker import CircuitBreaker
from ._engine import store_factory
from ._rows import READ, Row
from ._store import About, Store, differing
from .errors import JournalMismatch, MigrateError

if TYPE_CHECKING:
    from tim_async._redis_clients import Client
    from tim_async.client import TIMClient

_WINDOW = 5000
"""Rows that are read back together: enough for the peers of an account to share calls."""
_PEERS = GET_C2C_UNREAD_MSG_NUM.items


@dataclass(frozen=True, slots=True)
class Difference:
    """A conversation whose unread count is not the expected one.

    Attributes:
        line: the line of its row in the file.
        account: the account with the unread messages.
        peer: their sender.
        expected: the expected count: the row's ``C2CUnreadMsgNum``, 0 where it has none.
        found: the count that was read; None when it could not be read.
        reason: the reason why it could not be read; "" when it was read.
        code: the service's code in the reason, if any.
    """

    line: int
    account: str
    peer: str
    expected: int
    found: int | None
    reason: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """The summary of a verification.

    Attributes:
        checked: rows that were read back.
        differences: the number of them that differ, or could not be read.
        unreadable: accepted rows for which the service has no command to read them back.
    """

    checked: int
    differences: int
    unreadable: int


async def verify(
    client: TIMClient, journal: str | Path | Client | Store, *, name: str | None = None, concurrency: int = 20
) -> AsyncGenerator[Difference | Verified, None]:
    """Read back the unread counts of the conversations that a migration has marked read, 10 a call.

    The expected count is the row's ``C2CUnreadMsgNum``, an optional column, or else 0.  A difference is correct where
    messages came after the row's ``MsgReadTime``.  Unread counts of group members cannot be read back.

    https://www.tencentcloud.com/document/product/1047/41046

    Args:
        client: makes the calls.
        journal: the migration: the path of its journal, the URL or a client of its Redis, or its store.
        name: the name of a migration on Redis.
        concurrency: calls under way at once, 1 to 100,000.

    Yields:
        Each `Difference`, and `Verified` at the end.

    Raises:
        ValueError, TypeError: an invalid argument.
        JournalMismatch: the journal belongs to another app than the client's.
        JournalError: the journal cannot be read.
        AuthError, PermissionDenied: the service refuses the account as a whole.
        ClientClosed, RuntimeError: the client was closed meanwhile.
        MigrateError: a task of the verification was cancelled from outside.
    """
    from tim_async.client import TIMClient

    _arguments.kind("client", client, TIMClient)
    _arguments.concurrency(concurrency)
    store = store_factory(journal, name)(asyncio.Event(), lambda *_: None)
    try:
        status = await store.status()
        about = About(status.kind, status.source, "", status.arguments, client.sdk_app_id, client.base_url)
        found = About(status.kind, status.source, "", status.arguments, status.sdk_app_id, status.base_url)
        if differences := differing(found, about):
            raise JournalMismatch(f"{store.name} is the journal {differences}; use the credentials of that app")
        if status.kind != READ.name:
            yield Verified(0, 0, status.counts.taken)
            return
        checked = differing_rows = 0
        async with contextlib.aclosing(_compared(client, store, concurrency)) as compared:
            async for difference in compared:
                checked += 1
                if difference is not None:
                    differing_rows += 1
                    yield difference
        yield Verified(checked, differing_rows, 0)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise MigrateError("a task of the verification was cancelled") from None
    finally:
        store.hurry()
        await store.close()


async def _compared(client: TIMClient, store: Store, concurrency: int) -> AsyncGenerator[Difference | None, None]:
    """Read rows back; yield the difference of each, None for no difference."""
    breaker = CircuitBreaker(asyncio.Event(), math.inf, lambda *_: None)
    slots = asyncio.Semaphore(concurrency)

    async def calls() -> AsyncGenerator[tuple[str, list[Row]], None]:
        after = 0
        while window := [row async for row in store.accepted(after, _WINDOW)]:
            for call in _calls(window):
                yield call
            after = window[-1].line
        breaker.last_calls = True

    async def count(account: str, rows: list[Row]) -> C2CUnread:
        peers = [str(row.values[1]) for row in rows]

        async def call() -> C2CUnread:
            async with slots:
                return await client.get_c2c_unread_msg_num(account, peers)

        return await breaker.call(call)

    # One more than `slots`: even at concurrency 1, the breaker can tell an outage from the failure of one call.
    async with (
        contextlib.aclosing(calls()) as items,
        Outcomes(count, items, concurrency + 1, Lane.BULK) as outcomes,
    ):
        async for outcome in outcomes:
            account, rows = outcome.item
            found = outcome.value if isinstance(outcome, Done) else _failed(outcome.error, rows)
            for row in rows:
                yield _compare(account, row, found)


def _calls(window: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Group rows by account, at most as many together as one call takes."""
    by_account: dict[str, list[Row]] = defaultdict(list)
    for row in window:
        by_account[str(row.values[0])].append(row)
    for account, rows in by_account.items():
        for start in range(0, len(rows), _PEERS):
            yield account, rows[start : start + _PEERS]


def _failed(error: Exception, rows: list[Row]) -> C2CUnread:
    """Return the result of a call that failed: its error for the peer of each row.

    Raises:
        Exception: the error itself, unless it concerns this call alone.
    """
    failed = item_error(error)
    return C2CUnread(errors={str(row.values[1]): failed for row in rows})


def _compare(account: str, row: Row, found: C2CUnread) -> Difference | None:
    peer, expected = str(row.values[1]), int(row.values[3] or 0)
    if peer in found.errors:
        error = found.errors[peer]
        code = "" if error.code is None else f"error {error.code}"
        reason = ": ".join(part for part in (code, error.info) if part)
        return Difference(row.line, account, peer, expected, None, reason, error.code)
    count = found.counts[peer]
    return None if count == expected else Difference(row.line, account, peer, expected, count, "")
