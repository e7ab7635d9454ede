"""The gate of an endpoint whose quota is shared; the theory stands at the top of `tim_async._limiter.sharing`."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import random
from collections.abc import Callable

from tim_async._background import Background, Timer
from tim_async._lanes import Lane

from .learning import Credit
from .local import LocalLimiter, Permit
from .permits import REMEMBERED, TICK, PermitOutcomes, micro
from .sharing import Exchange, Shares, StoreAway, Turnstile

HOLD = 0.5
"""Seconds beyond its time for which the slot of a permit stays taken when nobody tells what became of it."""
GRACE = 0.1
"""Seconds after which a permit that was not used is no longer: its slot may have gone to somebody else."""
SETTLE = 0.45
"""Seconds for which a store only listens after an outage, or when it has forgotten what there was."""
QUIET = 0.3
"""Seconds without a call when the store is lost: what was let go together would otherwise meet what each does alone."""
HUSH = 0.15
"""Seconds before a store begins to grant for which nobody calls; longer than a `TICK`."""
FAR_OFF = 0.01
"""Seconds from which an interactive call does not wait for a permit that was asked for bulk."""

_log = logging.getLogger("tim_async")


class SharedLimiter:
    """One endpoint's gate where the quota is shared.

    Args:
        exchange: tells the store.
        turnstile: the queue before this gate.
        limit: what the server allows all processes together, calls/s, at least 1.
        strict: give up the credit, and with it the chance of being refused by our own jitter.
        shares: the parts of the limit that matter to this process.
        overdue: seconds after which an exchange that has neither answered nor failed counts as failed.
    """

    def __init__(
        self,
        exchange: Exchange,
        queue: Turnstile,
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
        self._credit = Credit()
        ceiling = limit * (1.0 if strict else 1.1)
        burst = max(4.0, limit / (50 if strict else 20))
        self._fixed = [
            str(int(limit)),
            str(ceiling),
            str(burst),
            str(1.01 * ceiling / burst),
            str(math.ceil((1.0 - shares.bulk) * limit - 1e-6)),
        ]
        self._most = max(1, int(limit / 10))
        self._bulk_block = max(1, round(limit / 50))

        # Permits in hand: when each is due, its number, whom it was asked for.
        self._granted: list[tuple[float, int, Lane]] = []
        self._outcomes = PermitOutcomes()

        # What to ask and to tell next.
        self._wanted: set[Lane] = set()
        self._asking: Lane | None = None
        self._refusals = 0
        self._refused_at = -math.inf
        self._taken: float | None = None
        self._pause_until: float | None = None
        self._talk = Background(self._converse, self._broke_off)
        self._asked_at = -math.inf
        self._ticker = Timer(self._tick)
        self._closed = False
        self._defect_logged = False

        # What the store said.
        self._heard_at = -math.inf
        self._rate = ceiling
        self._cuts: int | None = None
        self._saturated = False
        self._not_before = -math.inf
        self._each = 1.0 / limit
        self._round_trip = 0.0

        # Without the store, or before it has settled.
        self._reached = True
        self._alone = False
        self._quiet_until = self._settles_at = -math.inf
        self._sent_at = -math.inf
        self._own = None
        if shares.alone is not None:
            own = max(1.0, shares.alone * limit)
            self._own = LocalLimiter(own, strict=strict, burst=max(2.0, own / 20))

    # As a gate.

    @property
    def latency(self) -> float:
        """Seconds that `wait` may need to find out: some round trips to the store."""
        return min(0.25, max(0.03, 3 * self._round_trip))

    @property
    def grace(self) -> float:
        """Seconds for which a permit is this process's without a word."""
        return GRACE

    @property
    def shared(self) -> bool:
        """Whether the store could be reached when it was last asked."""
        return self._reached

    def wait(self, now: float, lane: Lane) -> float:
        """Seconds until one call may go: 0 for now; infinity when the store's answer will tell."""
        self._drop_late(now)
        soonest = self._granted[0][0] - now if self._granted else math.inf
        if soonest <= 0.0:
            return 0.0
        if self._alone:
            return soonest if self._own is None else min(soonest, self._wait_alone(self._own, now, lane))
        if self._needs(lane, now):
            if self._queue.patience() <= self._not_before > now:
                return self._not_before - now
            if lane is not self._asking:
                self._wanted.add(lane)
                self._start()
        return soonest

    def take(self, now: float) -> Permit:
        """Take the permit that `wait` found."""
        self._keep_ticking()
        self._sent_at = now
        if self._granted and self._granted[0][0] <= now:
            number = heapq.heappop(self._granted)[1]
            self._outcomes.sent(number, now)
            return Permit(now, number)
        if self._own is None:
            raise RuntimeError("taken without a permit")
        permit = self._own.take(now)
        permit.number = -1 - random.getrandbits(52)
        self._outcomes.sent(permit.number, now)
        return permit

    def unused(self, permit: Permit) -> None:
        """The call was never sent."""
        self._outcomes.unsent(permit.number)
        if permit.number < 0 and self._own is not None:
            self._own.unused(permit)

    def leave(self, permit: Permit, now: float, *, answered: bool) -> None:
        """The answer has come, or its connection has ended without one."""
        # Without an answer nothing is known of when it arrived.
        self._outcomes.answered(permit.number, now - self._credit.value / 2 if answered else now)
        if permit.number < 0 and self._own is not None:
            self._own.leave(permit, now, answered=answered)
        elif answered and not self._strict:
            self._credit.answered(now - permit.sent, self._limit, self._saturated)
        self._keep_ticking()

    def refused(self, sent: float, now: float) -> None:
        """The server said "too fast" to a call sent at ``sent``."""
        if self._alone and self._own is not None:
            self._own.refused(sent, now)
        self._refusals += 1
        self._refused_at = max(self._refused_at, sent)
        self._start()

    def slow_down(self, taken: float, now: float) -> None:
        """Somebody else says that the server takes only a share, 0 to 1, of what it is asked."""
        if self._alone and self._own is not None:
            self._own.slow_down(taken, now)
        self._taken = taken if self._taken is None else min(taken, self._taken)
        self._refused_at = now
        self._start()

    def paused(self, seconds: float) -> None:
        """All processes pause."""
        self._pause_until = max(self._pause_until or -math.inf, self._loop.time() + seconds)
        self._start()

    def rate(self, now: float) -> float:
        """Calls a second that all processes let go together at most; this one's own while it goes on alone."""
        return self._own.rate(now) if self._alone and self._own is not None else min(self._limit, self._rate)

    def pace(self, now: float) -> float:
        """Calls a second that this process can expect: what it had of late, or all there are when nobody else asks."""
        if self._alone or now > self._heard_at + 1.0:
            return self.rate(now)
        return min(self.rate(now), 1.0 / self._each)

    def close(self) -> None:
        """Ask and expect nothing more."""
        self._closed = True
        self._ticker.cancel()

    async def finish(self) -> None:
        """After `close`: tell the store what is not used, unless it is unreachable; bounded by ``overdue``."""
        if not await self._talk.finish(self._overdue):
            return  # what was granted is free again after a while
        while self._granted:
            self._outcomes.unused(heapq.heappop(self._granted)[1])
        if not self._alone and self._outcomes.due(self._loop.time()):
            self._talk.start()
            await self._talk.finish(self._overdue)

    # With the store.

    def _needs(self, lane: Lane, now: float) -> bool:
        """Whether to ask for a permit: one that was asked for bulk and is far off is not enough for who waits."""
        if not self._granted:
            return True
        return (
            lane is Lane.INTERACTIVE
            and self._granted[0][0] > now + FAR_OFF
            and all(meant_for is not lane for _, _, meant_for in self._granted)
        )

    def _start(self) -> None:
        """Talk to the store, unless that is being done."""
        if not self._closed and not self._alone:
            self._begin()
            self._keep_ticking()

    def _begin(self) -> None:
        if not self._talk.running:
            self._asked_at = self._loop.time()
            self._talk.start()

    async def _converse(self) -> None:
        """Tell and ask until there is nothing more to say."""
        while True:
            self._asking = self._next_lane()
            asked = self._asked_at = self._loop.time()
            request, told = self._request(asked)
            try:
                reply = await self._exchange(request)
            except StoreAway:
                if self._talk.is_current():
                    self._lose()
                return
            if not self._talk.is_current():  # too late: the gate has moved on
                return
            told()
            self._hear(reply, asked)
            self._asking = None
            self._queue.advance()
            if self._closed or self._alone or not (self._wanted or self._has_news()):
                return

    def _broke_off(self, error: BaseException) -> None:
        """A conversation was cancelled, or failed by a defect: the next call or the next tick starts another."""
        if isinstance(error, asyncio.CancelledError):
            self._asking = None
            self._keep_ticking()
            self._queue.advance()
            return
        if not self._defect_logged:
            self._defect_logged = True
            _log.error("a defect in the exchange with the shared quota; treated as an outage", exc_info=error)
        self._lose()

    def _has_news(self) -> bool:
        """Whether others should know something at once."""
        return bool(self._refusals) or self._taken is not None or self._pause_until is not None

    def _next_lane(self) -> Lane | None:
        """For whom to ask next; None when it is enough to tell."""
        now = self._loop.time()
        while self._wanted:
            lane = min(self._wanted)
            self._wanted.remove(lane)
            if self._queue.queued(lane) and self._needs(lane, now):
                return lane
        return None

    def _request(self, now: float) -> tuple[list[str], Callable[[], None]]:
        """The arguments of ``quota.lua``; and what to call when it has taken them."""
        lane, count, budget = self._asking, 0, -1.0
        if lane is not None:
            # Enough for the time until the next ones are there; bulk takes blocks at least.
            block = 1 + int(2 * self._round_trip * self.pace(now))
            if lane is Lane.BULK:
                block = max(block, self._bulk_block)
            count = min(self._queue.queued(lane), block, self._most)
            patience = self._queue.patience() - now
            if patience < math.inf:
                budget = max(0.0, patience)
        if self._refused_at < now - REMEMBERED:  # of before an outage
            self._refusals, self._taken = 0, None
        refusals, taken, pause_until = self._refusals, self._taken, self._pause_until
        report, told = self._outcomes.report(now)
        request = [
            *self._fixed,
            "bulk" if lane is Lane.BULK else "interactive",
            str(count),
            "-1" if budget < 0 else micro(budget),
            micro(self._credit.value / 2),
            micro(HOLD),
            micro(SETTLE),
            "0" if pause_until is None else micro(max(0.0, pause_until - now)),
            "-1" if taken is None else str(taken),
            str(refusals),
            micro(min(REMEMBERED, now - self._refused_at)),
            str(int(self._alone)),
            str(int(self._sent_at > now - REMEMBERED)),
            *report,
        ]

        def all_told() -> None:
            told()
            self._refusals -= refusals
            if self._taken == taken:
                self._taken = None
            if self._pause_until == pause_until:
                self._pause_until = None

        return request, all_told

    def _hear(self, reply: list[int], asked: float) -> None:
        """Take in what ``quota.lua`` answered."""
        settling, rate, opens, cuts, slot_bound, over, *granted = reply
        # Later than the store meant it, by its answer's way here: that is on the safe side.
        now = self._heard_at = self._loop.time()
        self._reached = True
        self._defect_logged = False
        self._round_trip += 0.2 * (now - asked - self._round_trip)
        self._rate = rate / 1e3
        if opens:
            self._queue.pause_until(now + opens / 1e6)
        if self._cuts is not None and cuts > self._cuts:
            self._credit.refused()
        self._cuts = cuts
        if settling:
            self._go_alone()
            self._settles_at = now + settling / 1e6
            self._keep_ticking(settling / 1e6 + 0.001)
        else:
            self._alone = False
        self._not_before = now + over / 1e6
        if granted:
            self._saturated = bool(slot_bound)
            meant_for = self._asking or Lane.INTERACTIVE
            for number, wait in zip(granted[::2], granted[1::2], strict=True):
                heapq.heappush(self._granted, (now + wait / 1e6, number, meant_for))
            each = max(1.0 / self._rate, granted[-1] / 1e6 * 2 / len(granted))
            self._each += 0.3 * (each - self._each)

    def _lose(self) -> None:
        """The store is away."""
        self._reached = False
        self._asking = None
        self._go_alone()
        self._queue.advance()

    def _go_alone(self) -> None:
        """Go on without permits, from a quiet start, and look for the store again and again."""
        if not self._alone:
            self._alone = True
            self._wanted.clear()
            self._quiet_until = QUIET + max((due for due, _, _ in self._granted), default=self._sent_at)
        self._keep_ticking()

    def _wait_alone(self, own: LocalLimiter, now: float, lane: Lane) -> float:
        """Seconds until one call may go without a permit."""
        if now < self._quiet_until:
            return self._quiet_until - now
        if self._quiet_until > -math.inf:
            self._quiet_until = -math.inf
            own.drain()
        # All must have told of their calls when the store begins to grant.
        hushed = self._settles_at + HUSH - now
        return hushed if 0.0 < hushed <= 2 * HUSH else own.wait(now, lane)

    def _drop_late(self, now: float) -> None:
        """Permits that nobody used in time go back."""
        while self._granted and self._granted[0][0] < now - GRACE:
            self._outcomes.unused(heapq.heappop(self._granted)[1])

    def _keep_ticking(self, within: float = math.inf) -> None:
        if self._closed:
            return
        now = self._loop.time()
        if self._ticker.due == math.inf or self._ticker.due > now + within:
            self._ticker.set(now + min(within, TICK * random.uniform(0.8, 1.2)))

    def _tick(self) -> None:
        """Watch the conversation; tell the store what no question takes along; look for a store that is away."""
        now = self._loop.time()
        self._drop_late(now)
        if not self._talk.running:
            self._outcomes.forget(now)
            if self._alone or self._has_news() or self._outcomes.due(now):
                self._begin()
        elif now > self._asked_at + self._overdue:
            self._talk.abandon()
            self._lose()
        if self._alone or self._talk.running or self._granted or self._outcomes:
            self._keep_ticking()
