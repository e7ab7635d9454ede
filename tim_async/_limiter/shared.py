"""The limiter of an endpoint whose quota is shared by several processes.

The theory is at the top of `sharing`.  The limiter's states and transitions are the table in `states`.  A `request`
reports this process's calls and requests the permits that `demand` counts; `reply` reads the reply.  `permits` keeps
the unused permits and the calls to report, and `fallback` paces the calls while the store is unreachable.
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
from .queue import RequestQueue
from .reply import Reply, StoreView
from .request import SETTLE, Acknowledge, PendingEvents, Request, micro
from .sharing import Exchange, Shares, StoreUnavailable
from .states import TRANSITIONS, Action, LimiterEvent, LimiterState

TICK = 0.1
"""Seconds between checks of an exchange, and between attempts to reach an unreachable store."""
MAX_TICK = 0.3
"""Seconds between attempts of hundreds of processes; less than `SETTLE`."""
REPORT = 0.5
"""Seconds after which calls under way or ended are reported, without a request for permits."""
HEARTBEAT = 20.0
"""Seconds between the requests of an idle process, which keep its membership."""
RECONNECT_ROUND_TRIPS = 8
"""Round trips to reconnect to a store: name, TCP, TLS, AUTH, SELECT, the script."""
REPLY_LIFETIME = 1.0
"""Seconds after a request for which the permits in its reply may be used."""
AGREEMENT_DELAY = 2.0
"""Seconds after a change of the limit in which the store may still apply the old one."""
EPOCH_CHANGES = 3
"""Losses of the store's data, within `EPOCH_CHANGES_WITHIN`, that are logged: a single one is a failover or restart."""
EPOCH_CHANGES_WITHIN = 60.0
"""Seconds within which `EPOCH_CHANGES` are counted."""

_log = logging.getLogger("tim_async")


class SharedLimiter:
    """The `Limiter` of an endpoint whose quota is shared.

    Args:
        exchange: sends a request to the store.
        queue: the calls that wait before this limiter.
        limit: the limit of all processes together, calls/s, at least 1.
        name: the endpoint's name, for the log.
        member: the unique name of this process in the store.
        strict: use no credit, so that the client's own jitter causes no refusals.
        shares: the shares of this process.
        overdue: seconds after which an exchange counts as failed.
        settle: seconds within which every process reconnects to a store after an outage, without network latency.
    """

    grace = GRACE

    def __init__(
        self,
        exchange: Exchange,
        queue: RequestQueue,
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

        self._state = LimiterState.HOLDING
        self._exchanges = Background(self._run_exchanges, self._exchange_failed)
        self._ticker = Timer(self._tick)
        self._requested_at = self._limit_set_at = -math.inf
        self._report_at = math.inf
        self._defect_logged = self._disagreement_logged = False
        self._epoch_changes: deque[float] = deque(maxlen=EPOCH_CHANGES)

        # Reports.
        self._last_request = self._last_reply = 0
        self._last_reply_at = -math.inf
        self._epoch = "0"
        self._pending = PendingEvents()
        self._ledger = Ledger()
        self._sent_at = -math.inf
        # Permits.
        self._store = StoreView(limit)
        self._granted = GrantedPermits()
        self._credit = Credit()
        self._fallback = Fallback(limit, shares, self._store, strict=strict)
        self._own_limiter = LocalLimiter(limit) if shares.own_rates else None
        self._demand = Demand(queue, self._granted, self._store)

    # The `Limiter`, as the queue uses it.

    @property
    def latency(self) -> float:
        """Seconds within which `wait` returns a finite time: some round trips to the store."""
        return min(1.0, max(0.03, 3 * self._store.round_trip))

    @property
    def shared(self) -> bool:
        """Whether the store was reachable at the last exchange."""
        return self._state not in (LimiterState.ALONE, LimiterState.CLOSED)

    @property
    def limit(self) -> float:
        """Calls/s that the service allows, as agreed by all processes."""
        return self._store.limit

    @property
    def processes(self) -> int:
        """Members of the quota, this one included, as of the last reply."""
        return max(1, self._store.members)

    def wait(self, now: float, lane: Lane) -> float:
        """Return the seconds until a permit is free: 0 for now; infinity while unknown, until the store replies."""
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
            self._handle(LimiterEvent.NEED)
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
        self._schedule_tick()
        return permit

    def release(self, permit: Permit, now: float, use: Use) -> None:
        """Return a permit, and keep its call for the next report."""
        answered = use is Use.ANSWERED
        self._ledger.in_flight -= 1
        if use is not Use.UNSENT:
            # The arrival of a call without an answer is unknown.
            self._ledger.cool(now + SECOND - (self._credit.value / 2 if answered else 0.0))
        if self._own_limiter is not None:
            self._own_limiter.release(permit, now, use)
        if permit.release_inner is not None:
            permit.release_inner(permit, now, use)
        elif answered and not self._strict:
            self._credit.answered(now - permit.sent, self._store.limit, self._store.saturated)
        self._schedule_tick()

    def refused(self, sent: float, now: float) -> None:
        """Report the refusal of a call sent at ``sent``."""
        if self._uses_fallback:
            self._fallback.refused(sent, now)
        self._pending.refused(sent)
        self._handle(LimiterEvent.NEED)

    def slow_down(self, accepted: float, now: float) -> None:
        """Report an alert: the server accepts only a share, 0 to 1, of the calls."""
        if self._uses_fallback:
            self._fallback.slow_down(accepted, now)
        self._pending.slow_down(accepted, now)
        self._handle(LimiterEvent.NEED)

    def paused(self, seconds: float) -> None:
        """Report a pause, so that all processes pause."""
        self._pending.pause(self._loop.time() + seconds)
        self._handle(LimiterEvent.NEED)

    def rate(self, now: float) -> float:
        """Return the adaptive rate, calls/s: that of all processes, or of this one while the store is unreachable."""
        shared = min(self._store.limit, self._store.rate)
        return self._fallback.rate(now, otherwise=shared) if self._uses_fallback else shared

    def pace(self, now: float) -> float:
        """Return the calls/s that this process can expect."""
        pace = self.rate(now) if self._uses_fallback else self._store.pace(now)
        return pace if self._own_limiter is None else min(pace, self._own_limiter.pace(now))

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:
        """Change the limit of all processes together, and the part that this one's bulk calls may fill."""
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
        self._handle(LimiterEvent.NEED)  # the other processes learn of it soon

    def close(self) -> None:
        """Request no more permits."""
        self._handle(LimiterEvent.CLOSE)
        self._ticker.cancel()

    async def finish(self) -> None:
        """After `close`: return unused permits, unless the store is unreachable; bounded by ``overdue``."""
        try:
            if not await self._exchanges.finish(self._overdue):
                return  # the store frees the permits' slots after a while
            while (due := self._granted.pop()) is not None:
                self._return_permit(due)
            if self._last_request:
                self._handle(LimiterEvent.DUE)
                await self._exchanges.finish(self._overdue)
        finally:
            self._handle(LimiterEvent.FINISHED)

    # The state.

    @property
    def _uses_fallback(self) -> bool:
        """Whether calls use the fallback share."""
        return self._state in (LimiterState.ALONE, LimiterState.RETURNING)

    def _handle(self, event: LimiterEvent) -> None:
        """Change the state and act by the table in `states`."""
        self._state, action = TRANSITIONS.get((self._state, event), (self._state, None))
        match action:
            case Action.EXCHANGE:
                self._requested_at = self._loop.time()
                self._exchanges.start()
                self._schedule_tick()
            case Action.WITHDRAW:
                self._fallback.begin(self._loop.time(), max(self._granted.latest(), self._sent_at))

    def _tick(self) -> None:
        """Abandon an overdue exchange, or start one: a report, a heartbeat, or a new attempt to reach the store."""
        now = self._loop.time()
        self._return_expired(now)
        if self._exchanges.running:
            if now > self._requested_at + self._overdue:
                self._exchanges.abandon()
                self._store_lost()
        elif self._pending or now >= min(self._report_at, self._requested_at + 0.9 * self._request_interval()):
            self._handle(LimiterEvent.DUE)
        self._schedule_tick()

    def _request_interval(self) -> float:
        """Return the longest time between two requests, seconds."""
        if self._uses_fallback:
            return min(MAX_TICK, max(TICK, self._store.members / 1000))
        if self._ledger.in_flight or self._ledger.unreported() or self._granted:
            return REPORT
        return HEARTBEAT

    def _schedule_tick(self) -> None:
        if self._state in (LimiterState.LEAVING, LimiterState.CLOSED):
            return
        now = self._loop.time()
        since, interval = (now, TICK) if self._exchanges.running else (self._requested_at, self._request_interval())
        report_at = max(now + 0.001, self._report_at)
        due = min(report_at, max(now + 0.001, since + interval * random.uniform(0.9, 1.1)))
        if self._ticker.due > min(report_at, due + 0.3 * (due - now)):  # a timer that is a little late will do
            self._ticker.set(due)

    def _return_expired(self, now: float) -> None:
        """Return the permits that no call used in time."""
        while (due := self._granted.pop(due_by=now - GRACE)) is not None:
            self._return_permit(due)

    def _return_permit(self, due: float) -> None:
        """Return an unused permit: its slot is free when it was before, a credit after the permit was due."""
        self._ledger.cool(due + self._credit.value / 2)

    # The exchange with the store.

    async def _run_exchanges(self) -> None:
        """Exchange requests and replies while there is a need."""
        while True:
            request, lane, acknowledge = self._next_request()
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
                acknowledge()
                self._apply_reply(reply, lane, asked)
            self._queue.advance()
            if self._pending:  # added during the exchange
                self._handle(LimiterEvent.NEED)
            if self._state is not LimiterState.ASKING:
                return

    def _exchange_failed(self, error: BaseException) -> None:
        """Recover from a cancelled or defective exchange: the next call or the next tick starts another."""
        if isinstance(error, asyncio.CancelledError):
            self._handle(LimiterEvent.CANCELLED)
            self._schedule_tick()
            self._queue.advance()
            return
        if not self._defect_logged:
            self._defect_logged = True
            _log.error("a defect in the exchange with the shared quota; treated as an outage", exc_info=error)
        self._store_lost()

    def _store_lost(self) -> None:
        self._handle(LimiterEvent.LOST)
        self._schedule_tick()
        self._queue.advance()

    def _next_request(self) -> tuple[Request, Lane | None, Acknowledge]:
        """Return the next request, the lane it requests permits for, and the callback for its reply."""
        now = self._requested_at = self._loop.time()
        self._report_at = math.inf
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
        if self._state is LimiterState.LEAVING:
            request["leaving"] = True
        if self._ledger.counted(now):
            request["called_lately"] = True
        self._ledger.report(request, now, len(self._granted), self._last_reply)
        return request, lane, self._pending.report(request, now)

    def _apply_reply(self, reply: Reply, lane: Lane | None, asked: float) -> None:
        """Apply the store's reply to a request."""
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
        # The loop time of the reply's clock; later, by the reply's latency, is on the safe side.
        replied_at = now
        if self._store.clock_known and not self._strict:
            estimate = reply.now - self._store.clock_offset + self._store.clock_error
            # The fleet's clock may have fallen behind since; so assume at least the lowest latency.
            replied_at = min(now, max(estimate, now - self._store.min_latency))
        # After a longer exchange, as of a blocked loop, the store may already count the permits as used.
        fresh = now - asked < REPLY_LIFETIME
        for wait, count in reply.permits:
            for _ in range(count):
                if fresh:  # the grace begins with the reply, so that latency makes no permit late
                    self._granted.add(max(now, replied_at + wait), Lane.INTERACTIVE if lane is None else lane)
                else:
                    self._return_permit(replied_at + wait)
        if reply.settling:
            self._fallback.settles(now + reply.settling)
            self._handle(LimiterEvent.SETTLING)
            # Within the silence, so that the store knows of all calls made alone when it grants.
            within = reply.settling - RETURN_SILENCE * random.uniform(0.3, 0.9)
            self._report_at = now + within if within > 0.0 else math.inf
            self._schedule_tick()
        else:
            self._handle(LimiterEvent.GRANTED)

    def _epoch_changed(self, now: float) -> None:
        """Log a store that loses its data repeatedly."""
        self._epoch_changes.append(now)
        if len(self._epoch_changes) == EPOCH_CHANGES and now < self._epoch_changes[0] + EPOCH_CHANGES_WITHIN:
            self._epoch_changes.clear()
            _log.warning(
                "the store of the shared quota has lost its data of %s %d times within a minute; if its memory is full,"
                " set maxmemory-policy to noeviction, otherwise find out what flushes or restarts it",
                self._name,
                EPOCH_CHANGES,
            )

    def _check_agreement(self, limit: float) -> None:
        """Log once that another process has a smaller limit."""
        if self._loop.time() < self._limit_set_at + AGREEMENT_DELAY:
            return
        differs = limit < self._limit and not self._shares.own_rates
        if differs and not self._disagreement_logged:
            _log.warning(
                "%s: this client's rate is %g calls/s, but another process has %g, and the smallest applies to all;"
                " give all processes the same rates",
                self._name,
                self._limit,
                limit,
            )
        self._disagreement_logged = differs
