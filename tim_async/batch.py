"""Batches of any size, all pages of a list, and many concurrent calls: ``tim.batch``."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple, Unpack, overload

from . import _arguments
from ._fields import malformed
from ._lanes import LANE, Lane
from ._outcomes import Outcomes
from .endpoints import (
    GET_C2C_UNREAD_MSG_NUM,
    GET_GROUP_MSG_RECEIPT,
    GET_GROUP_MSG_RECEIPT_DETAIL,
    GET_RECENT_CONTACT_LIST,
    Endpoint,
    ItemsEndpoint,
)
from .errors import QuotaExhausted
from .models import (
    C2CUnread,
    Contact,
    Done,
    GroupMsgReceipts,
    ItemError,
    RecentContactPage,
    item_error,
)

if TYPE_CHECKING:
    from .client import TIMClient

__all__ = ["DEFAULT_CONCURRENCY", "Batch", "Outcomes"]

Item = TypeVar("Item")
Value = TypeVar("Value")
One = TypeVar("One")
Key = TypeVar("Key", str, int)
Cursor = TypeVar("Cursor", bound=Hashable)
Args = TypeVarTuple("Args")


class _NamedTuple(Protocol):
    """The members of every `typing.NamedTuple`."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

    def _asdict(self) -> dict[str, Any]: ...


NamedRow = TypeVar("NamedRow", bound=_NamedTuple | Mapping[str, Any])
"""A row with named values; its outcome keeps the type."""

DEFAULT_CONCURRENCY = 100
"""Default number of concurrent calls: enough for 200 calls/s at a round trip of 1/3 s, including retries."""


class Batch:
    """The batch methods of one client: ``tim.batch``."""

    def __init__(self, client: TIMClient) -> None:
        self._client = client

    async def get_c2c_unread_msg_num(self, to_account: str, peer_accounts: Iterable[str]) -> C2CUnread:
        """Count an account's unread messages from each of any number of peers, 10 a call.

        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            to_account: the account whose unread messages are counted.
            peer_accounts: at least one peer; duplicates are ignored.

        Returns:
            The counts of all peers, merged; each peer of a failed call is in ``errors``.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            AuthError, PermissionDenied: the service refuses the identifier; no further call is made.
            QuotaExhausted: no call had a permit within ``max_wait``.  If some had, the items of the others are in
                ``errors``.
        """
        return await self._merged(
            GET_C2C_UNREAD_MSG_NUM, self._client.get_c2c_unread_msg_num, to_account, peer_accounts
        )

    async def get_group_msg_receipt(
        self, group_id: str, msg_seqs: Iterable[int], *, chunk: int = GET_GROUP_MSG_RECEIPT.items
    ) -> GroupMsgReceipts:
        """Get the read receipts of any number of messages of one group.

        https://www.tencentcloud.com/document/product/1047/49439

        Args:
            group_id: the group.
            msg_seqs: at least one sequence number; duplicates are ignored.
            chunk: messages per call; the service documents no maximum.

        Returns:
            The receipts of all messages, merged; each message of a failed call is in ``errors``.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            AuthError, PermissionDenied: the service refuses the identifier; no further call is made.
            QuotaExhausted: no call had a permit within ``max_wait``.  If some had, the items of the others are in
                ``errors``.
        """
        _arguments.positive("chunk", _arguments.number("chunk", chunk))
        return await self._merged(GET_GROUP_MSG_RECEIPT, self._client.get_group_msg_receipt, group_id, msg_seqs, chunk)

    def get_group_msg_receipt_detail(self, group_id: str, msg_seq: int, *, read: bool = True) -> AsyncIterator[str]:
        """List all members who have read a group message, or all who have not, page by page.

        A page of 200 is requested once the previous page has been consumed, so that no request is pending when the
        loop is left.  Pages shift while members read the message: a member can be missed or listed twice.

        https://www.tencentcloud.com/document/product/269/77693

        Args:
            group_id: the group.
            msg_seq: the message's sequence number.
            read: True for the members who have read it, False for those who have not.

        Yields:
            User ids.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: a page failed; `BadResponse` when a cursor of the service repeats.
        """
        GET_GROUP_MSG_RECEIPT_DETAIL.build(group_id, msg_seq, read, "", 1)

        async def fetch(cursor: str) -> tuple[Iterable[str], str | None]:
            page = await self._client.get_group_msg_receipt_detail(group_id, msg_seq, read=read, cursor=cursor)
            return page.accounts, None if page.finished else page.cursor

        return _pages(GET_GROUP_MSG_RECEIPT_DETAIL, fetch, "")

    def get_recent_contact_list(self, from_account: str) -> AsyncIterator[Contact]:
        """List all conversations of an account, one-to-one and in groups, page by page.

        A page is requested once the previous page has been consumed, so that no request is pending when the loop is
        left.  Pages shift while messages arrive: a conversation can be missed or listed twice.

        https://www.tencentcloud.com/document/product/1047/43087

        Args:
            from_account: the account whose conversations are listed.

        Yields:
            The conversations, in the service's order.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: a page failed; `BadResponse` when a cursor of the service repeats.
        """
        GET_RECENT_CONTACT_LIST.build(from_account, None)

        async def fetch(start: RecentContactPage) -> tuple[Iterable[Contact], RecentContactPage | None]:
            page = await self._client.get_recent_contact_list(from_account, page=start)
            return page.contacts, page.next_page

        return _pages(GET_RECENT_CONTACT_LIST, fetch, RecentContactPage())

    async def get_recent_c2c_unread_msg_num(self, from_account: str) -> C2CUnread:
        """Count an account's unread messages in each of its one-to-one conversations, e.g. for an inbox.

        First all conversations are listed, page by page; then their unread messages are counted, 10 peers a call.

        https://www.tencentcloud.com/document/product/1047/43087,
        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            from_account: the account whose conversations are listed.

        Returns:
            The counts by peer, in the order of the conversations; each peer of a failed call is in ``errors``.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the conversations could not be listed, or the service refuses the identifier.
        """
        contacts = self.get_recent_contact_list(from_account)
        peers = [contact.id async for contact in contacts if contact.kind == "c2c"]
        return await self.get_c2c_unread_msg_num(from_account, peers) if peers else C2CUnread()

    @overload
    def map(
        self,
        method: Callable[..., Awaitable[Value]],
        rows: Iterable[NamedRow] | AsyncIterable[NamedRow],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> Outcomes[NamedRow, Value]: ...

    @overload
    def map(
        self,
        method: Callable[[Unpack[Args]], Awaitable[Value]],
        rows: Iterable[tuple[*Args]] | AsyncIterable[tuple[*Args]],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> Outcomes[tuple[*Args], Value]: ...

    def map(
        self,
        method: Callable[..., Awaitable[Value]],
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> Outcomes[Any, Value]:
        """Call a method for each of any number of rows, in the bulk lane: interactive calls go first.

        ::

            async with tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
                async for outcome in outcomes:
                    match outcome:
                        case Failed(row, error): ...

        Leaving the block cancels the calls that still run.

        Type checkers check tuples against the method's positional parameters, and infer a lambda's parameters from
        them.  Mappings and named tuples are not checked: no type relates their names to those of parameters.

        Args:
            method: a method of the client, or any function that returns an awaitable.
            rows: argument tuples, or mappings of keyword arguments, from any iterable or async iterable.  They are
                pulled lazily, at most ``2 * concurrency`` ahead of the outcomes that have been read.
            concurrency: the number of concurrent calls, 1 to 100,000.

        Returns:
            An async context manager; it yields an async iterator of `Done` and `Failed`, in order of completion.

        Raises:
            ValueError, TypeError: an invalid ``concurrency``, a ``method`` that is not callable, or ``rows`` that are
                not iterable.
        """
        if not callable(method):  # such as a coroutine; every row would fail
            raise TypeError(f"method must be callable, such as tim.set_unread_msg_num, not a {type(method).__name__}")
        _arguments.concurrency(concurrency)
        return Outcomes(method, rows, concurrency, Lane.BULK)

    async def _merged(
        self,
        endpoint: ItemsEndpoint[Key, One, Value],
        method: Callable[[str, Iterable[Key]], Awaitable[Value]],
        owner: str,
        items: Iterable[Key],
        chunk: int = 0,
    ) -> Value:
        owner, keys = endpoint.check(owner, items)
        size = chunk or endpoint.items
        rows = [(owner, keys[start : start + size]) for start in range(0, len(keys), size)]
        values: dict[Key, One] = {}
        errors: dict[Key, ItemError] = {}
        refused = 0
        async with Outcomes(method, rows, min(len(rows), DEFAULT_CONCURRENCY), LANE.get()) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done):
                    values.update(endpoint.values(outcome.value))
                    errors.update(endpoint.errors(outcome.value))
                elif isinstance(outcome.error, QuotaExhausted) and (refused := refused + 1) == len(rows):
                    raise outcome.error  # nothing was sent at all
                else:
                    errors.update(dict.fromkeys(outcome.item[1], item_error(outcome.error)))
        return endpoint.result(_in_order(values, keys), _in_order(errors, keys))


async def _pages(
    endpoint: Endpoint[..., Any],
    fetch: Callable[[Cursor], Awaitable[tuple[Iterable[Item], Cursor | None]]],
    first: Cursor,
) -> AsyncIterator[Item]:
    """Yield the items of all pages; ``fetch`` returns a page's items and the next cursor, None after the last page."""
    cursor: Cursor | None = first
    seen: set[Cursor] = set()
    while cursor is not None:
        if cursor in seen:
            error = malformed("the next page has the cursor of an earlier page")
            error.endpoint, error.attempts = endpoint.name, 1
            raise error
        seen.add(cursor)
        items, cursor = await fetch(cursor)
        for item in items:
            yield item


def _in_order(found: dict[Key, Value], order: list[Key]) -> dict[Key, Value]:
    return {key: found[key] for key in order if key in found}
