"""Any number of items over the caps of one call, any number of pages, and any number of calls at once."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack, overload

from . import _arguments
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
from .errors import (
    APIError,
    AuthError,
    BadResponse,
    ClientClosed,
    PermissionDenied,
    QuotaExhausted,
    Reaction,
    TIMError,
)
from .models import (
    C2CUnread,
    Contact,
    Done,
    GroupMsgReceiptDetail,
    GroupMsgReceipts,
    ItemError,
    RecentContactList,
    RecentContactPage,
)

Item = TypeVar("Item")
Value = TypeVar("Value")
Key = TypeVar("Key", str, int)
Cursor = TypeVar("Cursor", bound=Hashable)
Args = TypeVarTuple("Args")


class _NamedTuple(Protocol):
    """What every `typing.NamedTuple` has."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

    def _asdict(self) -> dict[str, Any]: ...


NamedRow = TypeVar("NamedRow", bound=_NamedTuple | Mapping[str, Any])
"""A row that names its values; the outcome keeps its type."""

DEFAULT_CONCURRENCY = 100
"""Calls at once: enough for 200 a second at a round trip of a third of a second, retries included."""


class Limited(Protocol):
    """What a client must have to be batched: the methods whose calls have a limit."""

    async def get_c2c_unread_msg_num(self, to_account: str, peer_accounts: Iterable[str]) -> C2CUnread:
        """One chunk of peers."""

    async def get_group_msg_receipt(self, group_id: str, msg_seqs: Iterable[int]) -> GroupMsgReceipts:
        """One chunk of messages."""

    async def get_group_msg_receipt_detail(
        self, group_id: str, msg_seq: int, *, read: bool, cursor: str
    ) -> GroupMsgReceiptDetail:
        """One page of members."""

    async def get_recent_contact_list(self, from_account: str, *, page: RecentContactPage | None) -> RecentContactList:
        """One page of conversations."""


class Batch:
    """The batching helpers of one client: ``tim.batch``."""

    def __init__(self, client: Limited) -> None:
        self._client = client

    async def get_c2c_unread_msg_num(self, to_account: str, peer_accounts: Iterable[str]) -> C2CUnread:
        """Count an account's unread messages from each of any number of peers, 10 a call.

        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            to_account: whose unread messages.
            peer_accounts: at least one peer; repeats are folded.

        Returns:
            The counts of all, merged; when a call fails, each of its peers is an error.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            AuthError, PermissionDenied: the account as a whole is refused; the calls not yet made are not made.
            QuotaExhausted: no call had a turn within ``max_wait``.  Where some had, the others' items are errors.
        """
        return await self._merged(
            GET_C2C_UNREAD_MSG_NUM, self._client.get_c2c_unread_msg_num, to_account, peer_accounts
        )

    async def get_group_msg_receipt(
        self, group_id: str, msg_seqs: Iterable[int], *, chunk: int = GET_GROUP_MSG_RECEIPT.items
    ) -> GroupMsgReceipts:
        """Pull the read receipts of any number of messages of one group.

        https://www.tencentcloud.com/document/product/1047/49439

        Args:
            group_id: the group.
            msg_seqs: at least one sequence number; repeats are folded.
            chunk: messages a call; the service names no maximum.

        Returns:
            The receipts of all, merged; when a call fails, each of its messages is an error.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            AuthError, PermissionDenied: the account as a whole is refused; the calls not yet made are not made.
            QuotaExhausted: no call had a turn within ``max_wait``.  Where some had, the others' items are errors.
        """
        _arguments.positive("chunk", _arguments.number("chunk", chunk))
        return await self._merged(GET_GROUP_MSG_RECEIPT, self._client.get_group_msg_receipt, group_id, msg_seqs, chunk)

    def get_group_msg_receipt_detail(self, group_id: str, msg_seq: int, *, read: bool = True) -> AsyncIterator[str]:
        """List all members who have read a group message, or all who have not, page by page.

        A page of 200 is requested once the page before has been consumed, so that leaving the loop leaves nothing
        under way.  While members read the message, pages can shift, and a member can be missed or named twice.

        https://www.tencentcloud.com/document/product/269/77693

        Args:
            group_id: the group.
            msg_seq: the message's sequence number.
            read: True for the members who have read it, False for those who have not.

        Yields:
            User ids.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            TIMError: a page failed; `BadResponse` when the service's cursor does not move.
        """
        GET_GROUP_MSG_RECEIPT_DETAIL.build(group_id, msg_seq, read, "", 1)

        async def fetch(cursor: str) -> tuple[Iterable[str], str | None]:
            page = await self._client.get_group_msg_receipt_detail(group_id, msg_seq, read=read, cursor=cursor)
            return page.accounts, None if page.finished else page.cursor

        return _pages(GET_GROUP_MSG_RECEIPT_DETAIL, fetch, "")

    def get_recent_contact_list(self, from_account: str) -> AsyncIterator[Contact]:
        """List all conversations of an account, one-to-one and in groups, page by page.

        A page is requested once the page before has been consumed, so that leaving the loop leaves nothing under way.
        While messages arrive, pages can shift, and a conversation can be missed or named twice.

        https://www.tencentcloud.com/document/product/1047/43087

        Args:
            from_account: whose conversations.

        Yields:
            The conversations, in the service's order.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            TIMError: a page failed; `BadResponse` when the service's cursor does not move.
        """
        GET_RECENT_CONTACT_LIST.build(from_account, None)

        async def fetch(start: RecentContactPage) -> tuple[Iterable[Contact], RecentContactPage | None]:
            page = await self._client.get_recent_contact_list(from_account, page=start)
            return page.contacts, page.next_page

        return _pages(GET_RECENT_CONTACT_LIST, fetch, RecentContactPage())

    async def get_recent_c2c_unread_msg_num(self, from_account: str) -> C2CUnread:
        """Count an account's unread messages in each of its one-to-one conversations: what an inbox shows.

        The conversations are listed first, page by page, and then counted, 10 a call.

        https://www.tencentcloud.com/document/product/1047/43087,
        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            from_account: whose conversations.

        Returns:
            The counts by peer, in the order of the conversations; when a call fails, each of its peers is an error.
            No conversations, no counts.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            TIMError: the conversations could not be listed, or the account as a whole is refused.
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
        """Call a method for each of any number of rows, in the bulk lane: after all interactive calls.

        ::

            async with tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
                async for outcome in outcomes:
                    match outcome:
                        case Failed(row, error): ...

        Leaving the block cancels the calls still running.

        Type checkers compare tuples with the method's positional parameters, and derive a lambda's parameters from
        them.  Mappings and named tuples are not compared: no type relates their names to those of parameters.

        Args:
            method: a method of the client, or any function that returns an awaitable.
            rows: argument tuples, or mappings of keyword arguments, from any iterable or async iterable.  They are
                pulled lazily, at most ``2 * concurrency`` ahead of the outcomes that have been read.
            concurrency: the number of concurrent calls, 1 or more.

        Returns:
            An async context manager; it yields an async iterator of `Done` and `Failed`, in order of completion.

        Raises:
            ValueError, TypeError: an invalid ``concurrency``, or ``rows`` that are not iterable.
        """
        _arguments.positive("concurrency", _arguments.number("concurrency", concurrency))
        return Outcomes(method, rows, concurrency, Lane.BULK)

    async def _merged(
        self,
        endpoint: ItemsEndpoint[Key, Value],
        method: Callable[[str, Iterable[Key]], Awaitable[Value]],
        owner: str,
        items: Iterable[Key],
        chunk: int = 0,
    ) -> Value:
        owner, keys = endpoint.check(owner, items)
        rows = [(owner, part) for part in _chunks(keys, chunk or endpoint.items)]
        values: dict[Key, Any] = {}
        errors: dict[Key, ItemError] = {}
        turned_away = 0
        async with Outcomes(method, rows, min(len(rows), DEFAULT_CONCURRENCY), LANE.get()) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done):
                    values.update(endpoint.values(outcome.value))
                    errors.update(endpoint.errors(outcome.value))
                elif isinstance(outcome.error, QuotaExhausted) and (turned_away := turned_away + 1) == len(rows):
                    raise outcome.error  # nothing was sent at all
                elif isinstance(outcome.error, (AuthError, PermissionDenied, ClientClosed)) or not isinstance(
                    outcome.error, TIMError
                ):
                    raise outcome.error
                else:
                    errors.update(dict.fromkeys(outcome.item[1], _item_error(outcome.error)))
        return endpoint.result(_in_order(values, keys), _in_order(errors, keys))


async def _pages(
    endpoint: Endpoint[..., Any],
    fetch: Callable[[Cursor], Awaitable[tuple[Iterable[Item], Cursor | None]]],
    first: Cursor,
) -> AsyncIterator[Item]:
    """Give the items of all pages; ``fetch`` returns those of a page and where the next one begins, None at the end."""
    cursor: Cursor | None = first
    seen: set[Cursor] = set()
    while cursor is not None:
        if cursor in seen:
            # The service answered, and would answer the same again.
            error = BadResponse("the next page's cursor is an earlier page's", 200, Reaction.GIVE_UP, False)
            error.endpoint, error.attempts = endpoint.name, 1
            raise error
        seen.add(cursor)
        items, cursor = await fetch(cursor)
        for item in items:
            yield item


def _chunks(items: list[Key], size: int) -> Iterator[list[Key]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _in_order(found: dict[Key, Value], order: list[Key]) -> dict[Key, Value]:
    return {key: found[key] for key in order if key in found}


def _item_error(error: TIMError) -> ItemError:
    return ItemError(error.code, error.info) if isinstance(error, APIError) else ItemError(None, str(error))
