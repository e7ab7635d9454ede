"""A shared limiter follows the table in `tim_async._limiter.states`, cell by cell."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests import virtual_time
from tim_async import Lane
from tim_async._limiter import states
from tim_async._limiter.fallback import LOSS_SILENCE
from tim_async._limiter.reply import Reply
from tim_async._limiter.request import Request
from tim_async._limiter.sharing import Shares, StoreUnavailable
from tim_async._limiter.states import TRANSITIONS, Action, LimiterEvent, LimiterState

from .support import limiter_of

LIMIT = 50
OVERDUE = 2.5
PROBED = 0.6
"""Seconds within which a report is sent."""
REPLIES = (LimiterEvent.GRANTED, LimiterEvent.SETTLING, LimiterEvent.LOST, LimiterEvent.CANCELLED)
"""The events that end an exchange."""


class HeldStore:
    """Replies to an exchange when the test says so.

    Attributes:
        requests: all requests.
        reply: the reply to the exchange under way.
        deaf: whether the exchange swallows cancellations.
    """

    def __init__(self) -> None:
        self.deaf = False
        self.requests: list[Request] = []
        self.reply: asyncio.Future[Reply] = asyncio.Future()
        self.reply.cancel()  # none is under way
        self.task: asyncio.Task[object] | None = None

    async def exchange(self, request: Request) -> Reply:
        self.requests.append(request)
        self.reply = asyncio.Future()
        self.task = asyncio.current_task()
        reply = self.reply
        while self.deaf and not reply.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([reply])
        return await reply

    def grant(self, **fields: Any) -> None:
        """Reply to the exchange under way."""
        said = {"number": self.requests[-1]["number"], "epoch": "1", "limit": LIMIT, "rate": LIMIT, **fields}
        self.reply.set_result(Reply(**said))


class Walk:
    """Leads a shared limiter through its states by the calls that a client makes.

    It reads the private state, which no public name shows.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = HeldStore()
        self.queue, self.limiter = limiter_of(self.store.exchange, LIMIT, shares=Shares(fallback=1.0), overdue=OVERDUE)
        self.finishing: asyncio.Task[None] | None = None

    @property
    def state(self) -> LimiterState:
        return self.limiter._state

    async def reach(self, state: LimiterState, event: LimiterEvent) -> None:
        """Enter a state, so that the event can happen if it ever can there."""
        if event is not LimiterEvent.FINISHED:
            await self.call()  # its outcome is to be reported
        await self.go(state, exchanging=event in REPLIES)
        assert self.state is state

    async def go(self, state: LimiterState, *, exchanging: bool) -> None:
        """Enter a state, if possible with an exchange under way."""
        match state:
            case LimiterState.ASKING:
                self.limiter.refused(self.loop.time(), self.loop.time())
            case LimiterState.ALONE | LimiterState.RETURNING:
                await self.go(LimiterState.ASKING, exchanging=True)
                self.end_exchange(LimiterEvent.LOST if state is LimiterState.ALONE else LimiterEvent.SETTLING)
            case LimiterState.LEAVING:
                await self.go(LimiterState.ASKING if exchanging else LimiterState.HOLDING, exchanging=exchanging)
                self.limiter.close()
            case LimiterState.CLOSED:
                await self.go(LimiterState.ALONE, exchanging=exchanging)
                self.limiter.close()
        await steps()
        if exchanging and state in (LimiterState.ALONE, LimiterState.RETURNING):
            await asyncio.sleep(LOSS_SILENCE + PROBED)
            self.queue.leave(await self.queue.enter(), answered=True)  # by the fallback share

    async def call(self) -> None:
        """Make one call, as a client does."""
        calling = asyncio.create_task(self.queue.enter())
        await steps()
        self.store.grant(permits=((0.0, 1),))
        self.queue.leave(await calling, answered=True)

    def end_exchange(self, event: LimiterEvent) -> None:
        match event:
            case LimiterEvent.GRANTED:
                self.store.grant()
            case LimiterEvent.SETTLING:
                self.store.grant(settling=10.0)
            case LimiterEvent.LOST:
                self.store.reply.set_exception(StoreUnavailable())
            case LimiterEvent.CANCELLED:
                assert self.store.task is not None
                self.store.task.cancel()

    async def cause(self, event: LimiterEvent) -> bool:
        """Cause an event as a client does; return whether it can happen in this state."""
        if event in REPLIES:
            if self.store.reply.done():
                return False
            self.end_exchange(event)
        match event:
            case LimiterEvent.NEED:
                self.limiter.refused(self.loop.time(), self.loop.time())
            case LimiterEvent.DUE if self.state is LimiterState.LEAVING:
                self.finishing = asyncio.create_task(self.limiter.finish())
            case LimiterEvent.DUE:
                await asyncio.sleep(PROBED)
            case LimiterEvent.CLOSE:
                self.limiter.close()
            case LimiterEvent.FINISHED if self.state in (LimiterState.LEAVING, LimiterState.CLOSED):
                await self.limiter.finish()
            case LimiterEvent.FINISHED:
                return False
        await steps()
        return True

    async def end(self) -> None:
        """Leave no task behind."""
        self.queue.close()
        if not self.store.reply.done():
            self.store.reply.set_exception(StoreUnavailable())
        await steps()
        ending = self.finishing or asyncio.create_task(self.limiter.finish())
        await steps()
        if not self.store.reply.done():
            self.store.reply.set_exception(StoreUnavailable())
        await ending


async def steps() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("event", LimiterEvent)
@pytest.mark.parametrize("state", LimiterState)
def test_every_cell_of_the_table_holds(state: LimiterState, event: LimiterEvent) -> None:
    """The next state and the action: a new exchange, or silence before the fallback share is used."""

    async def main() -> None:
        walk = Walk()
        await walk.reach(state, event)
        told = len(walk.store.requests)
        possible = await walk.cause(event)
        following, action = TRANSITIONS.get((state, event), (state, None))
        if not possible:
            assert (state, event) not in TRANSITIONS
        assert walk.state is following
        assert (len(walk.store.requests) > told) == (action is Action.EXCHANGE)
        if action is Action.WITHDRAW:
            assert walk.limiter.wait(walk.loop.time(), Lane.INTERACTIVE) == pytest.approx(LOSS_SILENCE)
        elif event in REPLIES and following in (LimiterState.ALONE, LimiterState.RETURNING):
            assert walk.limiter.wait(walk.loop.time(), Lane.INTERACTIVE) < LOSS_SILENCE / 2
        await walk.end()

    virtual_time.run(main())


def test_a_pause_during_an_exchange_is_reported_right_after_it() -> None:
    """A tick later another process may have sent ten calls."""

    async def main() -> None:
        walk = Walk()
        await walk.reach(LimiterState.ASKING, LimiterEvent.GRANTED)
        walk.limiter.paused(2.0)
        walk.end_exchange(LimiterEvent.GRANTED)
        await steps()
        assert walk.store.requests[-1].get("pause") == 2_000_000
        walk.end_exchange(LimiterEvent.GRANTED)
        await steps()
        assert walk.state is LimiterState.HOLDING
        await walk.end()

    virtual_time.run(main())


def test_a_reply_to_an_abandoned_exchange_is_ignored() -> None:
    async def main() -> None:
        walk = Walk()
        walk.store.deaf = True
        await walk.reach(LimiterState.ASKING, LimiterEvent.GRANTED)
        late = walk.store.reply
        await asyncio.sleep(OVERDUE + PROBED)
        rate = walk.limiter.rate(walk.loop.time())
        late.set_result(Reply(1, "1", limit=LIMIT, rate=1.0, cuts=5, permits=((0.0, 1),)))
        await steps()
        assert not walk.limiter.shared
        assert walk.limiter.rate(walk.loop.time()) == rate
        await asyncio.sleep(PROBED)
        walk.end_exchange(LimiterEvent.GRANTED)
        await steps()
        assert walk.limiter.shared
        assert walk.limiter.wait(walk.loop.time(), Lane.INTERACTIVE) > 0, "its permit is not used"
        await walk.end()

    virtual_time.run(main())


def test_the_table_in_the_docstring_is_that_of_the_code() -> None:
    assert states.__doc__ is not None
    rows = [
        line.split("  ")
        for line in states.__doc__.splitlines()
        if line.startswith(("event ", *LimiterEvent.__members__))
    ]
    head, *body = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert [row[0] for row in body] == [*LimiterEvent.__members__]
    assert [*head[1:], "CLOSED"] == [*LimiterState.__members__]
    drawn: dict[tuple[LimiterState, LimiterEvent], tuple[LimiterState, Action | None]] = {}
    for name, *cells in body:
        for state, cell in zip(head[1:], cells, strict=True):
            if cell != ".":
                following, _, action = cell.partition(", ")
                drawn[LimiterState[state], LimiterEvent[name]] = (
                    LimiterState[following],
                    Action[action.upper()] if action else None,
                )
    assert drawn == TRANSITIONS
