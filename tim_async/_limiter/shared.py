"""The limiter of an endpoint whose quota is shared by several processes.

The theory is at the top of `sharing`.  The limiter's states and transitions are the table in `states`.  A `request`
tells the store what concerns other processes and asks for what `demand` says; its reply is read in `reply`.  `permits`
keeps the permits in hand, and `fallback` paces the calls while the store is away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random

from tim_async._background import Background, Timer
from tim_async._lanes import Lane

from .demand import Demand
from .fallback import Fallback
from .learning import Credit
from .local import Permit, Use
from .permits import GRACE, TICK, GrantedPermits, PermitOutcomes
from .reply import Reply, StoreView
from .request import REMEMBERED, News, Request, Told, micro, terms
from .sharing import Exchange, QueueView, Shares, StoreAway
from .states import TRANSITIONS, Action, Event, State

_log = logging.getLogger("tim_async")


class SharedLimiter:
    """One endpoint's limiter where the quota is shared; a `Limiter`.

    Args:
        exchange: tells and asks the store.
        queue: the calls that wait before this limiter.
        limit: what the server allows all processes together, calls/s, at least 1.
        strict: give up the credit, and with it the chance of being refused by our own jitter.
        shares: the parts of the limit that matter to this process.
        overdue: seconds after which an exchange that has neither answered nor failed counts as failed.
    """

    def __init__(
        self,
        exchange: Exchange,
        queue: QueueView,
        limit: float,
        *,
        strict: bool,
        shares: Shares,
        overdue: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._exchange = exchange
        self._queue = queue
        self._limit = limit
        self._strict = strict
        self._overdue = overdue
        self._bulk_share = shares.bulk
        self._terms = terms(limit, shares.bulk, strict=strict)

        self._state = State.HOLDING
        self._talk = Background(self._converse, self._broke_off)
        self._ticker = Timer(self._tick)
        self._asked_at = -math.inf
        self._defect_logged = False

        # To be told.
        self._news = News()
        self._outcomes = PermitOutcomes()
        self._sent_at = -math.inf
        # By which calls may go.
        self._store = StoreView(limit, self._terms["ceiling"])
        self._granted = GrantedPermits()
        self._credit = Credit()
        self._fallback = Fallback(limit, shares.alone, strict=strict)
        # To be asked.
        self._demand = Demand(queue, self._granted, self._store, limit)

    # What the queue asks and tells.

    @property
    def latency(self) -> float:
        """Seconds that `wait` may need to find out: some round trips to the store."""
        return min(0.25, max(0.03, 3 * self._store.round_trip))

    @property
    def grace(self) -> float:
        """Seconds for which a permit is this process's without a report."""
        return GRACE

    @property
    def shared(self) -> bool:
        """Whether the store could be reached when it was last asked."""
        return self._state not in (State.ALONE, State.CLOSED)

    def wait(self, now: float, lane: Lane) -> float:
        """Seconds until one call may go: 0 for now; infinity when the store's reply will tell."""
        self._return_late(now)
        soonest = self._granted.soonest() - now
        if soonest <= 0.0:
            return 0.0
        if self._apart:
            return min(soonest, self._fallback.wait(now, lane))
        if self._granted.lack(lane, now):
            if self._queue.patience() <= self._store.not_before > now:
                return self._store.not_before - now
            self._demand.add(lane)
            self._on(Event.NEED)
        return soonest

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        self._keep_ticking()
        self._sent_at = now
        number = self._granted.pop(due_by=now)
        permit = self._fallback.take(now) if number is None else Permit(now, number)
        self._outcomes.sent(permit.number, now)
        return permit

    def leave(self, permit: Permit, now: float, use: Use) -> None:
        """Return a permit, and note its outcome for the store."""
        answered = use is Use.ANSWERED
        if use is Use.UNSENT:
            self._outcomes.unsent(permit.number)
        else:
            # The arrival of a call without an answer is unknown.
            self._outcomes.answered(permit.number, now - self._credit.value / 2 if answered else now)
        if permit.number < 0:
            self._fallback.leave(permit, now, use)
        elif answered and not self._strict:
            self._credit.answered(now - permit.sent, self._limit, self._store.saturated)
        self._keep_ticking()

    def refused(self, sent: float, now: float) -> None:
        """The server said "too fast" to a call sent at ``sent``."""
        if self._apart:
            self._fallback.refused(sent, now)
        self._news.refused(sent)
        self._on(Event.NEED)

    def slow_down(self, taken: float, now: float) -> None:
        """An alert says that the server takes only a share, 0 to 1, of the calls."""
        if self._apart:
            self._fallback.slow_down(taken, now)
        self._news.slow_down(taken, now)
        self._on(Event.NEED)

    def paused(self, seconds: float) -> None:
        """All processes pause."""
        self._news.pause(self._loop.time() + seconds)
        self._on(Event.NEED)

    def rate(self, now: float) -> float:
        """Calls/s that all processes let go together at most; this one's own while it is without the store."""
        shared = min(self._limit, self._store.rate)
        return self._fallback.rate(now, otherwise=shared) if self._apart else shared

    def pace(self, now: float) -> float:
        """Calls/s that this process can expect."""
        return self.rate(now) if self._apart else self._store.pace(now)

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:
        """Change what the server allows all processes together, and the part that this one's bulk calls may fill."""
        if limit < self._limit:
            self._credit.start_over()
        self._limit = limit
        self._bulk_share = self._bulk_share if bulk_share is None else bulk_share
        self._terms = terms(limit, self._bulk_share, strict=self._strict)
        self._store.set_limit(limit, self._terms["ceiling"])
        self._fallback.set_limit(limit)
        self._demand.set_limit(limit)
        self._on(Event.NEED)  # the store should have as many slots soon

    def close(self) -> None:
        """Ask for no more permits."""
        self._on(Event.CLOSE)
        self._ticker.cancel()

    async def finish(self) -> None:
        """After `close`: tell the store what is not used, unless it is unreachable; bounded by ``overdue``."""
        try:
            if not await self._talk.finish(self._overdue):
                return  # the permits' slots are free again after a while
            while (number := self._granted.pop()) is not None:
                self._outcomes.unused(number)
            if self._outcomes.due(self._loop.time()):
                self._on(Event.DUE)
                await self._talk.finish(self._overdue)
        finally:
            self._on(Event.FINISHED)

    # The state.

    @property
    def _apart(self) -> bool:
        """Whether calls use the fallback share."""
        return self._state in (State.ALONE, State.RETURNING)

    def _on(self, event: Event) -> None:
        """Go where the table in `states` leads."""
        self._state, action = TRANSITIONS.get((self._state, event), (self._state, None))
        match action:
            case Action.TALK:
                self._asked_at = self._loop.time()
                self._talk.start()
                self._keep_ticking()
            case Action.WITHDRAW:
                self._fallback.begin(max(self._granted.latest(), self._sent_at))

    def _tick(self) -> None:
        """Watch the exchange; report the outcomes that no question took along; try a store that is away."""
        now = self._loop.time()
        self._return_late(now)
        if not self._talk.running:
            self._outcomes.forget(now)
            if self._apart or self._news or self._outcomes.due(now):
                self._on(Event.DUE)
        elif now > self._asked_at + self._overdue:
            self._talk.abandon()
            self._lost()
        if self._apart or self._talk.running or self._granted or self._outcomes:
            self._keep_ticking()

    def _keep_ticking(self, within: float = math.inf) -> None:
        if self._state in (State.LEAVING, State.CLOSED):
            return
        now = self._loop.time()
        if self._ticker.due == math.inf or self._ticker.due > now + within:
            self._ticker.set(now + min(within, TICK * random.uniform(0.8, 1.2)))

    def _return_late(self, now: float) -> None:
        """Permits that no call used in time go back."""
        while (number := self._granted.pop(due_by=now - GRACE)) is not None:
            self._outcomes.unused(number)

    # The exchange with the store.

    async def _converse(self) -> None:
        """Ask and tell, until there is nothing more to say."""
        while True:
            request, told = self._next_request()
            asked = self._asked_at
            try:
                reply = await self._exchange(request)
            except StoreAway:
                if self._talk.is_current():
                    self._lost()
                return
            if not self._talk.is_current():  # abandoned as overdue; its reply no longer counts
                return
            told()
            self._hear(reply, request, asked)
            self._queue.advance()
            if self._news:  # it came during the exchange
                self._on(Event.NEED)
            if self._state is not State.ASKING:
                return

    def _broke_off(self, error: BaseException) -> None:
        """The exchange's task was cancelled, or failed by a defect: the next call or the next tick starts another."""
        if isinstance(error, asyncio.CancelledError):
            self._on(Event.CANCELLED)
            self._keep_ticking()
            self._queue.advance()
            return
        if not self._defect_logged:
            self._defect_logged = True
            _log.error("a defect in the exchange with the shared quota; treated as an outage", exc_info=error)
        self._lost()

    def _lost(self) -> None:
        self._on(Event.LOST)
        self._keep_ticking()
        self._queue.advance()

    def _next_request(self) -> tuple[Request, Told]:
        """What to ask and tell now; and what to call when the store has it."""
        now = self._asked_at = self._loop.time()
        request: Request = {**self._terms, "lead": micro(self._credit.value / 2)}
        self._demand.ask(request, now)
        if self._apart:
            request["alone"] = True
        if self._sent_at > now - REMEMBERED:
            request["called_lately"] = True
        tellings = (self._news.tell(request, now), self._outcomes.tell(request, now))

        def told() -> None:
            for each in tellings:
                each()

        return request, told

    def _hear(self, reply: Reply, request: Request, asked: float) -> None:
        """Take in the store's reply to a request."""
        # Later than the store meant it, by its reply's way here: that is on the safe side.
        now = self._loop.time()
        self._defect_logged = False
        if self._store.hear(reply, asked, now):
            self._credit.refused()
        if reply.opens:
            self._queue.pause_until(now + reply.opens)
        self._demand.clear()
        lane = Lane.BULK if request.get("lane") == "bulk" else Lane.INTERACTIVE
        for number, wait in reply.permits:
            self._granted.add(now + wait, number, lane)
        if reply.settling:
            self._fallback.settles(now + reply.settling)
            self._on(Event.SETTLING)
            self._keep_ticking(reply.settling + 0.001)
        else:
            self._on(Event.GRANTED)
