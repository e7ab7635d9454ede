"""The limiter of an endpoint whose quota is shared by several processes.

The theory is at the top of `sharing`.  The limiter's states and transitions are the table in `states`.  A `request`
tells the store what concerns other processes and asks for what `demand` says; its reply is read in `reply`.  `permits`
keeps the permits in hand and what the store must know of the others, and `fallback` paces the calls while the store is
away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque

from tim_async._background import Background, Timer
from tim_async._lanes import Lane

from .demand import Demand
from .fallback import RETURN_SILENCE, Fallback
from .learning import Credit
from .local import SECOND, LocalLimiter, Permit, Use
from .permits import GRACE, GrantedPermits, Ledger
from .reply import Reply, StoreView
from .request import SETTLE, Acknowledge, PendingEvents, Request, micro
from .sharing import Exchange, QueueView, Shares, StoreUnavailable
from .states import TRANSITIONS, Action, Event, State

TICK = 0.1
"""Seconds between looks at an exchange, and between attempts to reach a store that is away."""
MAX_TICK = 0.3
"""The same where hundreds of processes try; less than `SETTLE`."""
REPORT = 0.5
"""Seconds after which the store is told of calls that are under way or have ended, when nothing is asked anyway."""
HEARTBEAT = 20.0
"""Seconds after which an idle process says that it still takes part."""
RECONNECT_ROUND_TRIPS = 8
"""To reach a store that is back: name, TCP, TLS, AUTH, SELECT, the script."""
REPLY_LIFETIME = 1.0
"""Seconds after a request for which the permits in its reply may be used."""
AGREEMENT_DELAY = 2.0
"""Seconds after a change of the limit in which the old one may still hold: the store keeps it for some time."""
EPOCH_CHANGES = 3
"""Times within `EPOCH_CHANGES_WITHIN` from which a store that forgets is logged."""
EPOCH_CHANGES_WITHIN = 60.0
"""Seconds."""

_log = logging.getLogger("tim_async")


class SharedLimiter:
    """One endpoint's limiter where the quota is shared; a `Limiter`.

    Args:
        exchange: tells and asks the store.
        queue: the calls that wait before this limiter.
        limit: what the server allows all processes together, calls/s, at least 1.
        name: the endpoint's, for the log.
        member: what this process is called in the store; no other has the same name.
        strict: give up the credit, and with it the chance of being refused by our own jitter.
        shares: how this process takes part.
        overdue: seconds after which an exchange that has neither answered nor failed counts as failed.
        settle: seconds within which every process reaches a store that is back, where the way to it takes no time.
    """

    def __init__(
        self,
        exchange: Exchange,
        queue: QueueView,
        limit: float,
        *,
        name: str,
        member: str,
        strict: bool,
        shares: Shares,
        overdue: float,
        settle: float = SETTLE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._exchange = exchange
        self._queue = queue
        self._limit = limit
        self._name = name
        self._member = member
        self._strict = strict
        self._shares = shares
        self._overdue = overdue
        self._settle = settle

        self._state = State.HOLDING
        self._exchanges = Background(self._run_exchanges, self._exchange_failed)
        self._ticker = Timer(self._tick)
        self._requested_at = self._limit_set_at = -math.inf
        self._defect_logged = self._disagreement_logged = False
        self._epoch_changes: deque[float] = deque(maxlen=EPOCH_CHANGES)

        # To be told.
        self._last_request = self._last_reply = 0
        self._last_reply_at = -math.inf
        self._epoch = "0"
        self._pending = PendingEvents()
        self._ledger = Ledger()
        self._sent_at = -math.inf
        # By which calls may go.
        self._store = StoreView(limit)
        self._granted = GrantedPermits()
        self._credit = Credit()
        self._fallback = Fallback(limit, shares, self._store, strict=strict)
        self._own_limiter = LocalLimiter(limit) if shares.own_rates else None
        # To be asked.
        self._demand = Demand(queue, self._granted, self._store)

    # What the queue asks and tells.

    @property
    def latency(self) -> float:
        """Seconds that `wait` may need to find out: some round trips to the store."""
        return min(1.0, max(0.03, 3 * self._store.round_trip))

    @property
    def grace(self) -> float:
        """Seconds for which a permit is this process's without a report."""
        return GRACE

    @property
    def shared(self) -> bool:
        """Whether the store could be reached when it was last asked."""
        return self._state not in (State.ALONE, State.CLOSED)

    @property
    def limit(self) -> float:
        """Calls/s that the service allows, as all processes together say."""
        return self._store.limit

    @property
    def processes(self) -> int:
        """Clients that take part, as far as the store has said."""
        return max(1, self._store.members)

    def wait(self, now: float, lane: Lane) -> float:
        """Seconds until one call may go: 0 for now; infinity when the store's reply will tell."""
        self._return_expired(now)
        if self._own_limiter is not None and (delay := self._own_limiter.wait(now, lane)) > 0.0:
            return delay
        soonest = self._granted.soonest() - now
        if soonest <= 0.0:
            return 0.0
        if self._uses_fallback:
            return min(soonest, self._fallback.wait(now, lane))
        asking = self._demand.wait(lane, now)
        if asking == 0.0:
            self._demand.add(lane)
            self._handle(Event.NEED)
            return soonest
        return min(soonest, asking)

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        self._sent_at = now
        granted = self._granted.pop(due_by=now) is not None
        permit = Permit(now) if granted else self._fallback.take(now)
        if self._own_limiter is not None:
            self._own_limiter.take(now)
        self._ledger.in_flight += 1
        self._keep_ticking()
        return permit

    def release(self, permit: Permit, now: float, use: Use) -> None:
        """Return a permit, and note for the store when its call no longer counts."""
        answered = use is Use.ANSWERED
        self._ledger.in_flight -= 1
        if use is not Use.UNSENT:
            # The arrival of a call without an answer is unknown.
            self._ledger.cool(now + SECOND - (self._credit.value / 2 if answered else 0.0))
        if self._own_limiter is not None:
            self._own_limiter.release(permit, now, use)
        if permit.source is not None:
            permit.source.release(permit, now, use)
        elif answered and not self._strict:
            self._credit.answered(now - permit.sent, self._store.limit, self._store.saturated)
        self._keep_ticking()

    def refused(self, sent: float, now: float) -> None:
        """The server said "too fast" to a call sent at ``sent``."""
        if self._uses_fallback:
            self._fallback.refused(sent, now)
        self._pending.refused(sent)
        self._handle(Event.NEED)

    def slow_down(self, accepted: float, now: float) -> None:
        """An alert says that the server accepts only a share, 0 to 1, of the calls."""
        if self._uses_fallback:
            self._fallback.slow_down(accepted, now)
        self._pending.slow_down(accepted, now)
        self._handle(Event.NEED)

    def paused(self, seconds: float) -> None:
        """All processes pause."""
        self._pending.pause(self._loop.time() + seconds)
        self._handle(Event.NEED)

    def rate(self, now: float) -> float:
        """Calls/s that all processes let go together at most; this one's own while it is without the store."""
        shared = min(self._store.limit, self._store.rate)
        return self._fallback.rate(now, otherwise=shared) if self._uses_fallback else shared

    def pace(self, now: float) -> float:
        """Calls/s that this process can expect."""
        pace = self.rate(now) if self._uses_fallback else self._store.pace(now)
        return pace if self._own_limiter is None else min(pace, self._own_limiter.pace(now))

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:
        """Change what the server allows all processes together, and the part that this one's bulk calls may fill."""
        if limit < self._limit:
            self._credit.start_over()
        self._limit, self._limit_set_at = limit, self._loop.time()
        if bulk_share is not None:
            self._shares = self._shares._replace(bulk=bulk_share)
        if self._own_limiter is None:
            self._store.limit = limit
        else:
            self._own_limiter.set_limit(limit)
        self._fallback.set_limit(limit)
        self._handle(Event.NEED)  # the others should know soon

    def close(self) -> None:
        """Ask for no more permits."""
        self._handle(Event.CLOSE)
        self._ticker.cancel()

    async def finish(self) -> None:
        """After `close`: tell the store what is not used, unless it is unreachable; bounded by ``overdue``."""
        try:
            if not await self._exchanges.finish(self._overdue):
                return  # the permits' slots are free again after a while
            while (due := self._granted.pop()) is not None:
                self._return_permit(due)
            if self._last_request:
                self._handle(Event.DUE)
                await self._exchanges.finish(self._overdue)
        finally:
            self._handle(Event.FINISHED)

    # The state.

    @property
    def _uses_fallback(self) -> bool:
        """Whether calls use the fallback share."""
        return self._state in (State.ALONE, State.RETURNING)

    def _handle(self, event: Event) -> None:
        """Go where the table in `states` leads."""
        self._state, action = TRANSITIONS.get((self._state, event), (self._state, None))
        match action:
            case Action.EXCHANGE:
                self._requested_at = self._loop.time()
                self._exchanges.start()
                self._keep_ticking()
            case Action.WITHDRAW:
                self._fallback.begin(self._loop.time(), max(self._granted.latest(), self._sent_at))

    def _tick(self) -> None:
        """Watch the exchange; report what no question took along; try a store that is away; be heard of."""
        now = self._loop.time()
        self._return_expired(now)
        if self._exchanges.running:
            if now > self._requested_at + self._overdue:
                self._exchanges.abandon()
                self._store_lost()
        elif self._pending or now >= self._requested_at + 0.9 * self._request_interval():
            self._handle(Event.DUE)
        self._keep_ticking()

    def _request_interval(self) -> float:
        """Seconds between two requests at most."""
        if self._uses_fallback:
            return min(MAX_TICK, max(TICK, self._store.members / 1000))
        if self._ledger.in_flight or self._ledger.unreported() or self._granted:
            return REPORT
        return HEARTBEAT

    def _keep_ticking(self, within: float = math.inf) -> None:
        if self._state in (State.LEAVING, State.CLOSED):
            return
        now = self._loop.time()
        since, rhythm = (now, TICK) if self._exchanges.running else (self._requested_at, self._request_interval())
        within = min(within, max(0.001, since + rhythm * random.uniform(0.9, 1.1) - now))
        if self._ticker.due > now + 1.3 * within:
            self._ticker.set(now + within)

    def _return_expired(self, now: float) -> None:
        """Permits that no call used in time go back."""
        while (due := self._granted.pop(due_by=now - GRACE)) is not None:
            self._return_permit(due)

    def _return_permit(self, due: float) -> None:
        """A permit's slot is free as it was before, a credit after the permit was due."""
        self._ledger.cool(due + self._credit.value / 2)

    # The exchange with the store.

    async def _run_exchanges(self) -> None:
        """Ask and tell, until there is nothing more to say."""
        while True:
            request, lane, told = self._next_request()
            asked = self._requested_at
            try:
                reply = await self._exchange(request)
            except StoreUnavailable:
                if self._exchanges.is_current():
                    self._store_lost()
                return
            if not self._exchanges.is_current():  # abandoned as overdue; its reply no longer counts
                return
            self._last_request = max(self._last_request, reply.number)
            self._demand.clear()
            if not reply.stale:
                told()
                self._apply_reply(reply, lane, asked)
            self._queue.advance()
            if self._pending:  # it came during the exchange
                self._handle(Event.NEED)
            if self._state is not State.ASKING:
                return

    def _exchange_failed(self, error: BaseException) -> None:
        """The exchange's task was cancelled, or failed by a defect: the next call or the next tick starts another."""
        if isinstance(error, asyncio.CancelledError):
            self._handle(Event.CANCELLED)
            self._keep_ticking()
            self._queue.advance()
            return
        if not self._defect_logged:
            self._defect_logged = True
            _log.error("a defect in the exchange with the shared quota; treated as an outage", exc_info=error)
        self._store_lost()

    def _store_lost(self) -> None:
        self._handle(Event.LOST)
        self._keep_ticking()
        self._queue.advance()

    def _next_request(self) -> tuple[Request, Lane | None, Acknowledge]:
        """What to ask and tell now, for which lane, and what to call when the store has it."""
        now = self._requested_at = self._loop.time()
        self._last_request += 1
        request: Request = {
            "id": self._member,
            "number": self._last_request,
            "heard": self._last_reply,
            "heard_ago": micro(now - self._last_reply_at) if self._last_reply else 0,
            "round_trip": micro(self._store.round_trip),
            "epoch": self._epoch,
            "limit": self._limit,
            "binding": not self._shares.own_rates,
            "strict": self._strict,
            "bulk_share": self._shares.bulk,
            "lead": micro(self._credit.value / 2),
            "settle": micro(self._settle + RECONNECT_ROUND_TRIPS * self._store.round_trip),
            "horizon": micro(self._demand.horizon),
        }
        if self._store.clock_known and not self._strict:
            request["at"] = str(micro(now + self._store.clock_offset + self._store.clock_error))
        lane = self._demand.ask(request, now)
        if self._uses_fallback:
            request["alone"] = True
        if self._state is State.LEAVING:
            request["leaving"] = True
        if self._ledger.counted(now):
            request["called_lately"] = True
        self._ledger.report(request, now, len(self._granted), self._last_reply)
        return request, lane, self._pending.report(request, now)

    def _apply_reply(self, reply: Reply, lane: Lane | None, asked: float) -> None:
        """Take in the store's reply to a request."""
        now = self._loop.time()
        self._defect_logged = False
        if reply.epoch != self._epoch:
            if self._epoch != "0":
                self._epoch_changed(now)
                self._ledger.report_again(self._last_reply)
            self._epoch = reply.epoch
        self._last_reply, self._last_reply_at = reply.number, now
        if self._store.update(reply, lane, asked, now):
            self._credit.refused()
        self._check_agreement(reply.limit)
        if reply.opens:
            self._queue.pause_until(now + reply.opens)
        # Later than the store meant it, by the reply's way here, is on the safe side.
        known = self._store.clock_known and not self._strict
        meant = now
        if known:
            # The fleet's clock may have fallen behind since; then no more than the quickest way here is taken off.
            meant = min(
                now, max(reply.now - self._store.clock_offset + self._store.clock_error, now - self._store.min_latency)
            )
        # A blocked loop may hear of permits that the store, hearing nothing, already takes for spent.
        fresh = now - asked < REPLY_LIFETIME
        for wait, count in reply.permits:
            for _ in range(count):
                if fresh:  # on its way it has not become late: the grace begins with the reply
                    self._granted.add(max(now, meant + wait), Lane.INTERACTIVE if lane is None else lane)
                else:
                    self._return_permit(meant + wait)
        if reply.settling:
            self._fallback.settles(now + reply.settling)
            self._handle(Event.SETTLING)
            # Once more when all calls made alone have been sent, and then when it grants.
            silent = reply.settling - RETURN_SILENCE / 2
            self._keep_ticking(silent if silent > 0.001 else reply.settling + 0.001)
        else:
            self._handle(Event.GRANTED)

    def _epoch_changed(self, now: float) -> None:
        """The store has forgotten what it knew: once is a failover or a restart."""
        self._epoch_changes.append(now)
        if len(self._epoch_changes) == EPOCH_CHANGES and now < self._epoch_changes[0] + EPOCH_CHANGES_WITHIN:
            self._epoch_changes.clear()
            _log.warning(
                "the store of the shared quota has forgotten what it knew of %s %d times within a minute: is its memory"
                " full (maxmemory-policy should be noeviction), or is it flushed or restarted?",
                self._name,
                EPOCH_CHANGES,
            )

    def _check_agreement(self, limit: float) -> None:
        """Log once that other processes name a smaller limit."""
        if self._loop.time() < self._limit_set_at + AGREEMENT_DELAY:
            return
        differs = limit < self._limit and not self._shares.own_rates
        if differs and not self._disagreement_logged:
            _log.warning(
                "%s: this client's rate is %g calls/s, but another process names %g, which all keep to; give all"
                " processes the same rates",
                self._name,
                self._limit,
                limit,
            )
        self._disagreement_logged = differs
