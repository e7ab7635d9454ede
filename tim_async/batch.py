"""Any number of items over the caps of one call, and any number of calls at once.

Everything here is bounded: items are pulled when there is room for them, and results wait for whoever reads them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from . import arguments
from .endpoints import GET_C2C_UNREAD_MSG_NUM, GET_GROUP_MSG_RECEIPT
from .errors import APIError, AuthError, ClientClosed, PermissionDenied, QuotaExhausted, TIMError
from .lanes import LANE, Lane
from .models import C2CUnread, Done, Failed, GroupMsgReceipts, ItemError

Item = TypeVar("Item")
Value = TypeVar("Value")
Key = TypeVar("Key", str, int)

DEFAULT_CONCURRENCY = 100
"""Calls at once: enough for 200 a second at a round trip of a third of a second, retries included."""


class Chunked(Protocol):
    """What a client must have to be batched: the methods that take a limited number of items."""

    async def get_c2c_unread_msg_num(self, to_account: str, peer_accounts: Iterable[str]) -> C2CUnread:
        """One chunk of peers."""

    async def get_group_msg_receipt(self, group_id: str, msg_seqs: Iterable[int]) -> GroupMsgReceipts:
        """One chunk of messages."""


class Batch:
    """The batching helpers of one client: ``tim.batch``."""

    def __init__(self, client: Chunked) -> None:
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
        to_account = arguments.text("to_account", to_account)
        peers = arguments.texts("peer_accounts", peer_accounts)
        merged = C2CUnread()

        def merge(part: C2CUnread) -> None:
            merged.counts.update(part.counts)
            merged.errors.update(part.errors)

        rows = [(to_account, chunk) for chunk in _chunks(peers, GET_C2C_UNREAD_MSG_NUM.items or len(peers))]
        await self._merge(self._client.get_c2c_unread_msg_num, rows, merge, merged.errors)
        return C2CUnread(_in_order(merged.counts, peers), _in_order(merged.errors, peers))

    async def get_group_msg_receipt(
        self, group_id: str, msg_seqs: Iterable[int], *, chunk: int = GET_GROUP_MSG_RECEIPT.items or 50
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
        group_id = arguments.text("group_id", group_id)
        seqs = arguments.numbers("msg_seqs", msg_seqs)
        arguments.positive("chunk", arguments.number("chunk", chunk))
        merged = GroupMsgReceipts()

        def merge(part: GroupMsgReceipts) -> None:
            merged.receipts.update(part.receipts)
            merged.errors.update(part.errors)

        rows = [(group_id, part) for part in _chunks(seqs, chunk)]
        await self._merge(self._client.get_group_msg_receipt, rows, merge, merged.errors)
        return GroupMsgReceipts(_in_order(merged.receipts, seqs), _in_order(merged.errors, seqs))

    def map(
        self,
        method: Callable[..., Awaitable[Value]],
        rows: Iterable[Item] | AsyncIterable[Item],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> Outcomes[Item, Value]:
        """Call a method for each of any number of rows, in the bulk lane: whatever interactive calls leave.

        ::

            async with tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
                async for outcome in outcomes:
                    match outcome:
                        case Failed(row, error): ...

        Leaving the block, in whatever way, ends what is still under way.

        Args:
            method: a method of the client, or any coroutine function that calls some.
            rows: argument tuples, or mappings of keyword arguments, from any iterable or async iterable.  They
                are pulled one by one, never more than ``2 * concurrency`` beyond what was read of the outcomes.
            concurrency: calls at once.

        Returns:
            An async context manager, which gives an async iterator of `Done` and `Failed`, as they complete.

        Raises:
            ValueError, TypeError: a ``concurrency`` that cannot be right.
        """
        arguments.positive("concurrency", arguments.number("concurrency", concurrency))
        return Outcomes(method, rows, concurrency, Lane.BULK)

    async def _merge(
        self,
        method: Callable[[str, list[Key]], Awaitable[Value]],
        rows: list[tuple[str, list[Key]]],
        merge: Callable[[Value], None],
        errors: dict[Key, ItemError],
    ) -> None:
        turned_away = 0
        async with Outcomes(method, rows, min(len(rows), DEFAULT_CONCURRENCY), LANE.get()) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done):
                    merge(outcome.value)
                elif isinstance(outcome.error, QuotaExhausted) and (turned_away := turned_away + 1) == len(rows):
                    raise outcome.error  # nothing was sent at all
                elif isinstance(outcome.error, (AuthError, PermissionDenied, ClientClosed)) or not isinstance(
                    outcome.error, TIMError
                ):
                    raise outcome.error
                else:
                    errors.update(dict.fromkeys(outcome.item[1], _item_error(outcome.error)))


class Outcomes(Generic[Item, Value]):
    """The outcomes of a ``batch.map``: enter with ``async with``, read with ``async for``, once.

    Workers pull a row only when there is room for its outcome, so what is under way and what waits to be read
    are bounded together.
    """

    def __init__(
        self,
        method: Callable[..., Awaitable[Value]],
        rows: Iterable[Item] | AsyncIterable[Item],
        concurrency: int,
        lane: Lane,
    ) -> None:
        self._method = method
        self._pull = _puller(rows)
        self._concurrency = concurrency
        self._context = contextvars.copy_context()
        self._context.run(LANE.set, lane)
        self._workers: list[asyncio.Task[None]] = []
        self._working = 0
        self._ended = False
        self._broken: BaseException | None = None

    async def __aenter__(self) -> Self:
        if self._workers:
            raise RuntimeError("the outcomes of one map can be entered once")
        self._room = asyncio.Semaphore(2 * self._concurrency)
        self._ready: asyncio.Queue[Done[Item, Value] | Failed[Item] | _End] = asyncio.Queue()
        self._working = self._concurrency
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work(), context=self._context.copy()) for _ in range(self._concurrency)]
        for worker in self._workers:
            # Also called for a worker that was cancelled before its first step.
            worker.add_done_callback(self._left)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        for worker in self._workers:
            worker.cancel()
        # Not a TaskGroup: that would wrap what the block itself raises into an ExceptionGroup.
        await asyncio.wait(self._workers)

    def __aiter__(self) -> Self:
        if not self._workers:
            raise RuntimeError("enter first: async with tim.batch.map(…) as outcomes")
        return self

    async def __anext__(self) -> Done[Item, Value] | Failed[Item]:
        if self._ended:
            raise StopAsyncIteration
        outcome = await self._ready.get()
        if isinstance(outcome, _End):
            self._ended = True
            if outcome.error is not None:
                raise outcome.error
            raise StopAsyncIteration
        self._room.release()
        return outcome

    async def _work(self) -> None:
        try:
            while True:
                await self._room.acquire()
                if self._ended or self._broken is not None:
                    return
                item = await self._pull()
                if item is _EXHAUSTED:
                    return
                self._ready.put_nowait(await self._carry_out(item))
        except BaseException as error:  # of the rows themselves, or a cancellation
            self._broken = error  # at once: no other worker may ask a source that has failed
            raise

    def _left(self, worker: asyncio.Task[None]) -> None:
        """A worker has ended, perhaps before its first step."""
        if worker.cancelled():
            self._broken = self._broken or asyncio.CancelledError()
        else:
            worker.exception()  # it is raised to the reader, after the outcomes of the rows before
        # Those who wait for room have nothing left to pull either.
        self._room.release()
        self._working -= 1
        if not self._working:
            self._ready.put_nowait(_End(self._broken))

    async def _carry_out(self, item: Item) -> Done[Item, Value] | Failed[Item]:
        try:
            args, kwargs = _arguments(item)
            return Done(item, await self._method(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - not swallowed: it is this row's outcome
            return Failed(item, error)


def _arguments(row: object) -> tuple[Iterable[Any], Mapping[str, Any]]:
    if isinstance(row, Mapping):
        return (), row
    if isinstance(row, str | bytes) or not isinstance(row, Iterable):
        raise TypeError(f"a row is a tuple of arguments or a mapping of them, not {type(row).__name__}")
    return row, {}


class _End:
    """The end of all outcomes, by exhaustion or by an error that belongs to no row."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


_EXHAUSTED: Any = object()


def _puller(rows: Iterable[Any] | AsyncIterable[Any]) -> Callable[[], Awaitable[Any]]:
    """A coroutine function that gives the next row, or `_EXHAUSTED`."""
    if isinstance(rows, AsyncIterable):
        source, turn = aiter(rows), asyncio.Lock()

        async def pull_async() -> Any:
            async with turn:  # an async generator cannot be asked by two at once
                return await anext(source, _EXHAUSTED)

        return pull_async
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise TypeError(f"rows must be an iterable of argument tuples, not {type(rows).__name__}")
    iterator = iter(rows)

    async def pull() -> Any:
        return next(iterator, _EXHAUSTED)

    return pull


def _chunks(items: list[Key], size: int) -> Iterator[list[Key]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _in_order(found: dict[Key, Value], order: list[Key]) -> dict[Key, Value]:
    return {key: found[key] for key in order if key in found}


def _item_error(error: TIMError) -> ItemError:
    return ItemError(error.code, error.info) if isinstance(error, APIError) else ItemError(None, str(error))
