"""Look-ups of one thing each, which merge themselves into calls of many.

Whoever awaits one look-up joins a *group*: the look-ups of one account (or one group chat), with equal options and in
one lane.  A group becomes one call.  It takes members until it is full or has its permit: on an endpoint where calls
wait, that wait is all the time it gets and costs nobody anything; on an idle one it lingers for `LINGER` first.

Equal look-ups share one answer, until it is there.  Each caller waits on a future of its own: who is cancelled leaves,
and a call that nobody waits for any more is given up.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import math
from typing import Any, TypeVar

from ._call import Answered, Caller
from ._channels import Channel
from ._lanes import LANE, Lane
from ._options import Options
from .endpoints import ItemsEndpoint
from .errors import BadResponse, ClientClosed, QuotaExhausted, Reaction, TIMError, classify
from .models import ItemError

Item = TypeVar("Item", str, int)

LINGER = 0.002
"""Seconds that a look-up waits for others to share its call, where no call waits for its turn anyway."""


class Shelf:
    """The look-ups under way that may be in one call."""

    __slots__ = ("endpoint", "key", "lane", "open", "options", "owner", "wanted")

    def __init__(
        self, key: object, endpoint: ItemsEndpoint[Any, Any], owner: str, options: Options, lane: Lane
    ) -> None:
        self.key = key
        self.endpoint = endpoint
        self.owner = owner
        self.options = options
        self.lane = lane
        self.open: Group | None = None
        self.wanted: dict[Any, Wanted] = {}


class Wanted:
    """One item, those who wait for it, and until when each would wait for a turn."""

    __slots__ = ("group", "item", "waiters")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.group: Group | None = None
        self.waiters: dict[asyncio.Future[Any], float] = {}


class Group:
    """One call, and what it is to ask for."""

    __slots__ = ("channel", "context", "deadline", "handle", "sent", "shelf", "task", "waiting", "wanted")

    def __init__(self, shelf: Shelf, channel: Channel) -> None:
        self.shelf = shelf
        self.channel = channel
        self.wanted: dict[Any, Wanted] = {}
        self.waiting = 0
        self.deadline = math.inf
        self.sent = False
        self.handle: asyncio.Handle | None = None
        self.task: asyncio.Task[Answered[Any]] | None = None
        # Its first caller's, not that of whoever happens to fill it.
        self.context = contextvars.copy_context()

    def body(self) -> dict[str, Any]:
        """What the call sends; from now on nobody joins."""
        self.sent = True
        if self.shelf.open is self:
            self.shelf.open = None
        return self.shelf.endpoint.build(self.shelf.owner, self.wanted)


class Lookups:
    """The look-ups under way of one client, shared by all that `TIMClient.with_options` gives."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._shelves: dict[object, Shelf] = {}
        self._given_up: set[asyncio.Task[Answered[Any]]] = set()

    async def get(
        self, endpoint: ItemsEndpoint[Item, Any], owner: str, item: Item, options: Options, mode: tuple[float, ...]
    ) -> Any:
        """Look one item up.

        Args:
            endpoint: what is called.
            owner: the account or the group that it belongs to.
            item: the peer, or the message.
            options: how.
            mode: the same for all options that are equal, but for the lane; quicker to compare.

        Raises:
            TIMError: there is no answer, or the answer has an error for this item.
            RuntimeError: the client is closed, or belongs to another event loop.
        """
        wanted, waiter = self._ask(endpoint, owner, item, options, mode)
        try:
            return await waiter
        except BaseException:  # ours, a cancellation, or the end of a coroutine that nobody awaits any more
            self._leave(wanted, waiter)
            raise
        finally:
            del waiter  # else an error would hold itself, by its traceback

    async def aclose(self) -> None:
        """End those that linger, and see off the calls that were given up; the caller has ended all others."""
        for shelf in [*self._shelves.values()]:
            if shelf.open is not None and shelf.open.handle is not None:
                shelf.open.handle.cancel()
                self._fail(shelf.open, self._closed(shelf.endpoint))
        if self._given_up:
            await asyncio.wait(self._given_up)

    # Joining.

    def _ask(
        self, endpoint: ItemsEndpoint[Any, Any], owner: str, item: Any, options: Options, mode: tuple[float, ...]
    ) -> tuple[Wanted, asyncio.Future[Any]]:
        self._caller.open()
        lane = LANE.get() if options.lane is None else options.lane
        key = (endpoint, owner, lane, mode)
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = Shelf(key, endpoint, owner, options, lane)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        deadline = math.inf if options.max_wait == math.inf else loop.time() + options.max_wait
        wanted = shelf.wanted.get(item)
        if wanted is None:
            wanted = Wanted(item)
            wanted.waiters[waiter] = deadline
            self._join(shelf, wanted)
        else:
            wanted.waiters[waiter] = deadline
            if wanted.group is not None:
                wanted.group.waiting += 1
        return wanted, waiter

    def _join(self, shelf: Shelf, wanted: Wanted) -> None:
        group = shelf.open
        if group is None:
            group = shelf.open = Group(shelf, self._caller.channel(shelf.endpoint))
            loop = asyncio.get_running_loop()
            # Where calls wait, the next step of the loop is early enough for all that were woken together.
            if group.channel.queue.waiting or shelf.options.max_wait <= LINGER:
                group.handle = loop.call_soon(self._start, group)
            else:
                group.handle = loop.call_later(LINGER, self._start, group)
        wanted.group = group
        group.wanted[wanted.item] = shelf.wanted[wanted.item] = wanted
        group.waiting += len(wanted.waiters)
        group.deadline = min(group.deadline, *wanted.waiters.values())
        if len(group.wanted) == shelf.endpoint.items:
            shelf.open = None
            if group.handle is not None:
                group.handle.cancel()
                self._start(group)

    def _start(self, group: Group) -> None:
        group.handle = None
        shelf, loop = group.shelf, asyncio.get_running_loop()
        options, left = shelf.options, group.deadline
        if left < math.inf:
            left = max(0.0, left - loop.time())
        call = self._caller.call(
            shelf.endpoint,
            group.body,
            Options(options.timeout, options.retry, left, shelf.lane),
        )
        group.task = loop.create_task(call, context=group.context)
        group.task.add_done_callback(functools.partial(self._done, group))

    # Leaving.

    def _leave(self, wanted: Wanted, waiter: asyncio.Future[Any]) -> None:
        """A caller is gone; nothing happens when it has its answer."""
        group = wanted.group
        if group is None or wanted.waiters.pop(waiter, None) is None:
            return
        group.waiting -= 1
        if not wanted.waiters and not group.sent:  # a sent one may still be shared while its group is under way
            del group.wanted[wanted.item]
            del group.shelf.wanted[wanted.item]
        if not group.waiting:
            self._remove(group)
            if group.handle is not None:
                group.handle.cancel()
            if group.task is not None and not group.task.done():
                self._given_up.add(group.task)
                group.task.cancel()

    def _remove(self, group: Group) -> None:
        """Take a group from its shelf: nobody may join it or share with it any more."""
        shelf = group.shelf
        if shelf.open is group:
            shelf.open = None
        for item in group.wanted:
            del shelf.wanted[item]
        if not shelf.wanted:
            del self._shelves[shelf.key]

    # Answering.

    def _done(self, group: Group, task: asyncio.Task[Answered[Any]]) -> None:
        """Give everybody what the call has brought."""
        group.task = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._given_up.discard(task)
        if not group.waiting:
            return
        if task.cancelling() and task.cancelled() and not self._caller.closed:
            # Somebody cancelled every task. Callers that were cancelled, too, wait no longer; the others still do.
            self._join_again(group)
        elif error is None:
            self._answer(group, task.result())
        elif isinstance(error, QuotaExhausted) and not self._caller.closed:
            self._turn_away(group, error)
        else:
            self._fail(group, error)
        if isinstance(error, TIMError):
            error.__traceback__ = None  # its frames hold the group

    def _answer(self, group: Group, outcome: Answered[Any]) -> None:
        endpoint = group.shelf.endpoint
        values, errors = endpoint.values(outcome.value), endpoint.errors(outcome.value)
        self._remove(group)
        for item, wanted in group.wanted.items():
            for waiter in _waiting(wanted):
                if item in values:
                    waiter.set_result(values[item])
                else:
                    error = _error_of(item, errors[item])
                    error.endpoint, error.attempts = endpoint.name, outcome.attempts
                    waiter.set_exception(error)

    def _fail(self, group: Group, error: BaseException) -> None:
        self._remove(group)
        for wanted in group.wanted.values():
            for waiter in _waiting(wanted):
                _raise_in(waiter, error)

    def _turn_away(self, group: Group, error: QuotaExhausted) -> None:
        """The group has waited as long as its first member would; those who came later may have time left."""
        # Raised at once, it counts from the end of the first member's patience.
        hopeless = max(asyncio.get_running_loop().time(), group.deadline) + error.retry_after
        for wanted in group.wanted.values():
            for waiter, until in wanted.waiters.items():
                if until <= hopeless and not waiter.done():
                    _raise_in(waiter, error)
        self._join_again(group)

    def _join_again(self, group: Group) -> None:
        """Let those who still wait join another group."""
        self._remove(group)
        shelf = group.shelf
        for wanted in group.wanted.values():
            wanted.waiters = {waiter: until for waiter, until in wanted.waiters.items() if not waiter.done()}
            if wanted.waiters:
                self._shelves[shelf.key] = shelf
                self._join(shelf, wanted)

    @staticmethod
    def _closed(endpoint: ItemsEndpoint[Any, Any]) -> ClientClosed:
        error = ClientClosed("the client was closed")
        error.endpoint = endpoint.name
        return error


def _waiting(wanted: Wanted) -> list[asyncio.Future[Any]]:
    """Those who still wait for an item, which nobody has to remember from now on."""
    waiters = [waiter for waiter in wanted.waiters if not waiter.done()]
    wanted.waiters = {}
    return waiters


def _error_of(item: object, error: ItemError) -> TIMError:
    if error.code is None:
        # The service carried the call out and said so; asking again would be answered the same way.
        return BadResponse(f"{item!r}: {error.info}", 200, Reaction.GIVE_UP, False)
    return classify(error.code, error.info)


def _raise_in(waiter: asyncio.Future[Any], error: BaseException) -> None:
    """Let one caller have an error of its own: one that several raise would grow a traceback of them all."""
    if not isinstance(error, Exception):  # whoever ended the call's task from outside meant its callers as well
        waiter.cancel()
        return
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001 - a foreign exception that cannot be copied is told by its cause
        own = RuntimeError(f"the look-up failed: {error!r}")
    if isinstance(error, TIMError):
        own.__cause__, own.__suppress_context__ = error.__cause__, error.__suppress_context__
    else:
        own.__cause__ = error
    waiter.set_exception(own)
