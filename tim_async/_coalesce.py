"""Look-ups of one item each, merged into calls of several items: ``tim.lookup``.

The look-ups of one owner (an account, or a group) in the same lane and with equal options share a *loader*.  It
collects them in a *batch*, which becomes one call.  A batch accepts entries until it is full or its call has its
permit: if calls are queued, that wait delays no look-up; on an idle endpoint, the batch first lingers for `LINGER`.

Equal look-ups share one *entry* until its answer has come.  Each caller waits on a future of its own: a cancelled
caller leaves, and a call without waiting callers is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import math
from dataclasses import replace
from typing import Any, TypeVar

from ._call import Call, Caller
from ._fields import malformed
from ._options import Options
from .endpoints import GET_C2C_UNREAD_MSG_NUM, GET_GROUP_MSG_RECEIPT, Body, ItemsEndpoint
from .errors import ClientClosed, QuotaExhausted, TIMError, classify
from .models import Receipt

Item = TypeVar("Item", str, int)
Value = TypeVar("Value")

Waiters = dict[asyncio.Future[Any], float]
"""The callers that wait for one item, each with its deadline for a permit, loop time."""

LINGER = 0.002
"""Seconds for which a batch waits for more entries if no call of the endpoint is queued."""


class Lookup:
    """The look-ups of one client: ``tim.lookup``.

    Await each look-up separately, anywhere in the program: look-ups made within a few milliseconds of each other, or
    while calls are queued, are merged into calls of up to 10 peers or 50 messages.  Equal look-ups share one answer,
    which may have been read just before the later one was made.
    """

    def __init__(self, lookups: Lookups, options: Options) -> None:
        self._lookups = lookups
        self._options = options

    async def c2c_unread_msg_num(self, to_account: str, peer_account: str) -> int:
        """Count an account's unread messages from one peer; merged with others of the same account, 10 a call.

        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            to_account: the account whose unread messages are counted.
            peer_account: the peer.

        Returns:
            The count.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call or this peer failed, e.g. `AccountNotFound`; errors of other peers are not raised.
        """
        return await self._lookups.get(GET_C2C_UNREAD_MSG_NUM, to_account, peer_account, self._options)

    async def group_msg_receipt(self, group_id: str, msg_seq: int) -> Receipt:
        """Get the read receipt of one message; merged with others of the same group, 50 a call.

        https://www.tencentcloud.com/document/product/1047/49439

        Args:
            group_id: the group.
            msg_seq: the message's sequence number.

        Returns:
            The number of members who have read the message, and of those who have not.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed, or this message has no receipt, e.g. `ReceiptUnavailable`.
        """
        return await self._lookups.get(GET_GROUP_MSG_RECEIPT, group_id, msg_seq, self._options)


class Lookups:
    """The pending look-ups of one client, shared with its views."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.loaders: dict[object, Loader] = {}
        self.cancelled: set[asyncio.Task[Any]] = set()
        """Cancelled calls, left by all their callers, that have not ended yet."""

    async def get(self, endpoint: ItemsEndpoint[Item, Value, Any], owner: str, item: Item, options: Options) -> Value:
        """Look up one item.

        Args:
            endpoint: the endpoint to call.
            owner: the account or the group that the item belongs to.
            item: the peer, or the message.
            options: the options of the call.

        Raises:
            ValueError, TypeError: an invalid owner or item; nothing was sent.
            TIMError: the call failed, or its answer has an error for this item.
            RuntimeError: the client belongs to another event loop.
        """
        owner, item = endpoint.check_one(owner, item)
        self.caller.open()
        lane = options.lane_now()
        key = (endpoint, owner, lane, options.timeout, options.max_wait, options.retry)
        loader = self.loaders.get(key)
        if loader is None:
            loader = self.loaders[key] = Loader(self, key, endpoint, owner, replace(options, lane=lane))
        waiter: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        loader.add(item, waiter)
        try:
            return await waiter
        except TIMError as error:
            await asyncio.sleep(0)  # as in `Caller.make`
            self.caller.failed(endpoint, lane, error)
            raise
        except BaseException:  # a cancellation, or the end of a coroutine that is no longer awaited
            loader.leave(item, waiter)
            raise
        finally:
            del waiter  # or the traceback of its error would make a reference cycle

    async def aclose(self) -> None:
        """Fail the batches that linger, and wait for cancelled calls; `Caller` has already ended all others."""
        for loader in [*self.loaders.values()]:
            loader.close()
        if self.cancelled:
            await asyncio.wait(self.cancelled)


class LookupBatch:
    """The look-ups that are merged into one call."""

    __slots__ = ("context", "deadline", "entries", "handle", "sent", "task")

    def __init__(self) -> None:
        self.entries: dict[Any, Waiters] = {}
        """Its items, each with the callers that wait for it."""
        self.deadline = -math.inf
        """The deadline of its call for a permit, the earliest of its callers', loop time; -inf before it starts."""
        self.sent = False
        self.handle: asyncio.Handle | None = None
        self.task: asyncio.Task[Any] | None = None
        # The context of its first caller, not of the caller that fills it.
        self.context = contextvars.copy_context()


class Loader:
    """The pending look-ups of one owner, in one lane, with equal options."""

    __slots__ = ("_batches", "_endpoint", "_key", "_lookups", "_open", "_options", "_owner")

    def __init__(
        self, lookups: Lookups, key: object, endpoint: ItemsEndpoint[Any, Any, Any], owner: str, options: Options
    ) -> None:
        self._lookups = lookups
        self._key = key
        self._endpoint = endpoint
        self._owner = owner
        self._options = options
        self._open: LookupBatch | None = None
        self._batches: dict[Any, LookupBatch] = {}
        """The batch of each item that a look-up can still share."""

    def add(self, item: Any, waiter: asyncio.Future[Any]) -> None:
        """Add a caller to the entry of an equal look-up, or to a new entry."""
        most = self._options.max_wait
        deadline = math.inf if most == math.inf else asyncio.get_running_loop().time() + most
        batch = self._batches.get(item)
        if batch is None:
            self._join(item, {waiter: deadline})
        else:
            batch.entries[item][waiter] = deadline

    def leave(self, item: Any, waiter: asyncio.Future[Any]) -> None:
        """Remove a caller, unless it has got its answer."""
        batch = self._batches.get(item)
        if batch is None or batch.entries[item].pop(waiter, None) is None:
            return
        if not batch.entries[item] and not batch.sent:  # a sent entry can still be shared
            del batch.entries[item]
            del self._batches[item]
        if not any(batch.entries.values()):
            self._detach(batch)
            if batch.handle is not None:
                batch.handle.cancel()
            if batch.task is not None and not batch.task.done():
                self._lookups.cancelled.add(batch.task)
                batch.task.cancel()
            self._remove_if_idle()

    def close(self) -> None:
        """Fail the batch that lingers, if there is one."""
        batch = self._open
        if batch is not None and batch.handle is not None:
            batch.handle.cancel()
            self._fail(batch, self._closed())
            self._remove_if_idle()

    def _closed(self) -> ClientClosed:
        error = ClientClosed("the client was closed")
        error.endpoint = self._endpoint.name
        return error

    def _join(self, item: Any, waiters: Waiters) -> None:
        """Add an entry to the open batch, and start the batch's call if it is full."""
        batch = self._open
        # Callers that join again, after a call without a permit, may have an earlier deadline than the open batch.
        if batch is None or min(waiters.values()) < batch.deadline:
            batch = self._open = LookupBatch()
            loop = asyncio.get_running_loop()
            # If calls are queued, one iteration of the loop is enough to collect all callers that wake together.
            if self._lookups.caller.channel(self._endpoint).queue.waiting or self._options.max_wait <= LINGER:
                batch.handle = loop.call_soon(self._start, batch)
            else:
                batch.handle = loop.call_later(LINGER, self._start, batch)
        batch.entries[item] = waiters
        self._batches[item] = batch
        if len(batch.entries) == self._endpoint.items:
            self._open = None
            if batch.handle is not None:
                batch.handle.cancel()
                self._start(batch)

    def _start(self, batch: LookupBatch) -> None:
        """Start the call of a batch, which then waits for its permit."""
        batch.handle = None
        loop = asyncio.get_running_loop()
        batch.deadline = min(deadline for waiters in batch.entries.values() for deadline in waiters.values())
        left = max(0.0, batch.deadline - loop.time())
        call = Call(self._endpoint, functools.partial(self._body, batch), replace(self._options, max_wait=left))
        batch.task = loop.create_task(self._lookups.caller.make(call), context=batch.context)
        batch.task.add_done_callback(functools.partial(self._done, batch, call))

    def _body(self, batch: LookupBatch) -> Body:
        """Build the fields of a batch's request, and accept no more entries."""
        batch.sent = True
        if self._open is batch:
            self._open = None
        return self._endpoint.build(self._owner, batch.entries)

    def _done(self, batch: LookupBatch, call: Call[Any], task: asyncio.Task[Any]) -> None:
        """Give the result of a batch's call to its callers."""
        batch.task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._lookups.cancelled.discard(task)
        if not any(batch.entries.values()):
            return
        closed = self._lookups.caller.closed
        if task.cancelling() and task.cancelled() and not closed:
            # The task was cancelled from outside.  Callers that were also cancelled leave; the others still wait.
            self._rejoin(batch)
        elif error is None:
            self._answer(batch, task.result(), call.attempts)
        elif isinstance(error, QuotaExhausted) and not closed:
            self._reject_late(batch, error)
        elif task.cancelling() and closed:
            self._fail(batch, self._closed())
        else:
            self._fail(batch, error)
        self._remove_if_idle()
        if isinstance(error, TIMError):
            error.__traceback__ = None  # its frames refer to the batch

    def _answer(self, batch: LookupBatch, result: Any, attempts: int) -> None:
        """Give each caller its item's value or error."""
        values, errors = self._endpoint.values(result), self._endpoint.errors(result)
        self._detach(batch)
        for item, waiters in batch.entries.items():
            for waiter in waiters:
                if waiter.done():  # cancelled
                    continue
                if item in values:
                    waiter.set_result(values[item])
                    continue
                code, info = errors[item].code, errors[item].info
                error = malformed(f"{item!r}: {info}") if code is None else classify(code, info)
                error.endpoint, error.attempts = self._endpoint.name, attempts
                waiter.set_exception(error)

    def _fail(self, batch: LookupBatch, error: BaseException) -> None:
        """Raise the error of a call in each caller."""
        self._detach(batch)
        for waiters in batch.entries.values():
            for waiter in waiters:
                _raise_in(waiter, error)

    def _reject_late(self, batch: LookupBatch, error: QuotaExhausted) -> None:
        """Raise the error in callers whose deadline comes before the expected permit; the others join another batch."""
        # If the wait was predicted, the error is raised before the batch's deadline.
        expected = max(asyncio.get_running_loop().time(), batch.deadline) + error.retry_after
        for waiters in batch.entries.values():
            for waiter, deadline in waiters.items():
                if deadline <= expected:
                    _raise_in(waiter, error)
        self._rejoin(batch)

    def _rejoin(self, batch: LookupBatch) -> None:
        """Move the entries with waiting callers to another batch."""
        self._detach(batch)
        for item, waiters in batch.entries.items():
            left = {waiter: deadline for waiter, deadline in waiters.items() if not waiter.done()}
            if left:
                self._join(item, left)

    def _detach(self, batch: LookupBatch) -> None:
        """Detach a batch: no further look-up joins it or shares its entries."""
        if self._open is batch:
            self._open = None
        for item in batch.entries:
            del self._batches[item]

    def _remove_if_idle(self) -> None:
        """Remove this loader from the client's if it has no pending look-ups."""
        if not self._batches:
            self._lookups.loaders.pop(self._key, None)


def _raise_in(waiter: asyncio.Future[Any], error: BaseException) -> None:
    """Raise a copy of an error in one caller: a shared error would accumulate the tracebacks of all callers."""
    if waiter.done():  # cancelled
        return
    if not isinstance(error, Exception):  # the call's task was cancelled from outside: cancel its callers, too
        waiter.cancel()
        return
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001 - a foreign exception that cannot be copied becomes the cause
        own = RuntimeError(f"the look-up failed: {error!r}")
    if isinstance(error, TIMError):
        own.__cause__, own.__suppress_context__ = error.__cause__, error.__suppress_context__
    else:
        own.__cause__ = error
    waiter.set_exception(own)
