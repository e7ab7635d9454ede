"""The queue of an endpoint, and the theory of its pace: as many calls a second as the limit allows, and never more.

**The server counts arrivals; a client controls departures.**  Between the two lie a busy loop, connections being set
up and the network's jitter, so a limiter that only counts departures must either leave room for the jitter or be
refused.  Responses bound the arrivals: a call sent at *s* and answered at *r* arrived at some *a* with s <= a <= r.

**Slots keep the limit.**  An endpoint of N calls a second has N slots, and a slot is free again one second
after its response.  Its next arrival a' then obeys a' >= s' >= r + 1 >= a + 1: no second ever holds two arrivals
of one slot, hence never more than N, whatever the jitter and the shape of the server's window (a sliding second; so
also a calendar second, or a bucket of N).  With ``strict=True`` this is the whole algorithm, and the proof holds.

**Credit wins back the round trip.**  A slot that waits for r + 1 gives N/(1 + RTT).  But a' >= s' + the fastest
way there, and a <= r - the fastest way back, so a slot may be used again the *smallest* round trip earlier
with the same certainty, as long as that minimum holds.  Beyond it lies the spread of the round trips, where
independent delays average out and correlated ones do not, which only a trial shows.  `Credit` climbs slowly into
it while no call is refused and steps back after a refusal.

**The bucket smooths the calls.**  Slots alone would release a burst each second.  An aiolimiter bucket a little
above the full rate spreads the calls, yet lets an endpoint catch up after the delays of a busy loop.

**The rate adapts to other consumers.**  Clients outside the quota show only as refusals.  `Rate` falls to the rate that
the server last accepted, by leaving slots unused; it remembers where it was refused, holds there and probes above it.
The theory is at the top of `learning`.

**The queue keeps order.**  aiolimiter lets newcomers overtake waiting callers, and has neither priorities nor a pause.
So callers wait here and never in it: interactive before bulk, first in, first out within a lane (a retry goes before
the first attempts of its lane).  A cancelled caller is removed at once.  A permit is taken last, when a slot and a
connection are free, and the attempt is sent at once: if a permit waited for a connection, its attempt would arrive
together with later ones.

The queue is in this module, slots and bucket in `local`, learning in `learning`.  Where several processes share the
quota, the slots are kept in a store: `sharing`.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable

from tim_async._background import Timer
from tim_async._lanes import Lane
from tim_async.errors import ClientClosed, QuotaExhausted

from .local import Limiter, LocalLimiter, Permit, Use


class Connections:
    """The connections of a caller's session, shared by the endpoints of one client."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._blocked: OrderedDict[RequestQueue, None] = OrderedDict()

    def free(self, queue: RequestQueue) -> bool:
        """Whether a connection is free; if not, advance ``queue`` when one is."""
        if self._free:
            return True
        self._blocked[queue] = None
        return False

    def take(self) -> None:
        """Take the connection that `free` found."""
        self._free -= 1

    def give_back(self) -> None:
        """Return a connection, and advance the queue that has waited longest, or the next one if that one cannot."""
        self._free += 1
        while self._free and self._blocked:
            self._blocked.popitem(last=False)[0].advance()


def _closed() -> ClientClosed:
    return ClientClosed("the client was closed")


Waiters = OrderedDict[asyncio.Future[Permit], float]
"""The callers that wait in one lane, in order, each with its deadline."""


class RequestQueue:
    """The queue of one endpoint, in one event loop: its lanes, its pause and its limiter.

    Args:
        limit: calls/s that the server allows, at least 1.
        strict: whether to learn nothing, so that the client's own jitter causes no refusals.
        connections: the connections to share; None when they are unlimited.
        limiter: makes the limiter; by default a `LocalLimiter` with the whole limit.
    """

    def __init__(
        self,
        limit: float,
        *,
        strict: bool = False,
        connections: Connections | None = None,
        limiter: Callable[[RequestQueue], Limiter] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._paused_until = self._limit_set_at = -math.inf
        self._timer = Timer(self.advance)
        # Interactive retries, interactive, bulk retries, bulk.
        self._lanes: tuple[Waiters, ...] = tuple(OrderedDict() for _ in range(4))
        self._expiries: dict[asyncio.Future[Permit], asyncio.TimerHandle] = {}
        self._waiting = 0
        self._refusal: Callable[[], Exception] | None = None
        self._limiter = LocalLimiter(limit, strict=strict) if limiter is None else limiter(self)

    def now(self) -> float:
        """Return the event loop's time, the clock of this queue."""
        return self._loop.time()

    @property
    def waiting(self) -> int:
        """Callers that wait for a permit."""
        return self._waiting

    def queued(self, lane: Lane) -> int:
        """Return the number of callers that wait in one lane."""
        return len(self._lanes[2 * lane]) + len(self._lanes[2 * lane + 1])

    def head_deadline(self) -> float:
        """Return the deadline of the head of the queue, by `now`, or infinity."""
        waiters = next(filter(None, self._lanes), None)
        return math.inf if waiters is None else next(iter(waiters.values()))

    @property
    def rate(self) -> float:
        """The adaptive rate, calls/s."""
        return self._limiter.rate(self._loop.time())

    @property
    def shared(self) -> bool:
        """Whether the permits are shared with other processes now."""
        return self._limiter.shared

    @property
    def limit(self) -> float:
        """Calls/s that the service allows."""
        return self._limiter.limit

    @property
    def processes(self) -> int:
        """Clients that share the limit, this one included."""
        return self._limiter.processes

    async def enter(
        self,
        lane: Lane = Lane.INTERACTIVE,
        again: bool = False,
        max_wait: float = math.inf,
        late: Permit | None = None,
    ) -> Permit:
        """Wait for a connection and a permit.

        The attempt must be sent at once, and every `enter` that returned must be followed by one `leave`.

        Args:
            lane: interactive goes before bulk.
            again: whether it is for a retry, which goes before the first attempts of its lane.
            max_wait: the longest wait, seconds.
            late: an expired permit of this caller.  It is returned, and this caller keeps its place in the queue.

        Returns:
            The permit.

        Raises:
            QuotaExhausted: there is no permit within ``max_wait``; raised at once where that is foreseeable.
            ClientClosed: the client was closed meanwhile.
            TIMError: the error given to `refuse`.
        """
        now = self._loop.time()
        index = 2 * lane + (not again)
        deadline = math.inf if max_wait == math.inf else now + max(0.0, max_wait)
        if late is not None:
            self._limiter.release(late, now, Use.UNSENT)
        try:
            if self._refusal is not None:
                raise self._refusal()
            if late is None and not self._waiting and self._delay(now, lane) == 0.0:
                return self._take(now)
            waiting = self._join(index, now, deadline)
        finally:
            if late is not None:  # only now, when this caller has its place again
                self._free_connection()
        del now, late  # many callers may wait for long: keep their frames small
        try:
            permit = await waiting
        except BaseException:  # a cancellation, or the end of an abandoned coroutine
            if waiting in self._lanes[index]:
                del self._lanes[index][waiting]
                self._waiting -= 1
            elif waiting.done() and not waiting.cancelled() and waiting.exception() is None:  # granted, but never woke
                self._return_unused(waiting.result())
            raise
        finally:
            if deadline < math.inf:
                self._expiries.pop(waiting).cancel()
        woke = self._loop.time()
        if woke - permit.sent > self._limiter.grace:  # the loop was blocked, or the process was suspended
            return await self.enter(lane, True, deadline - woke, permit)
        permit.sent = woke
        return permit

    def _join(self, index: int, now: float, deadline: float) -> asyncio.Future[Permit]:
        """Join a lane until a deadline.

        Raises:
            QuotaExhausted: the deadline is foreseeably too early.
        """
        if deadline < math.inf and (late := now + self._expected(now, index + 1) - deadline) > 0.0:
            raise self._exhausted(now, late)
        waiters = self._lanes[index]
        waiting: asyncio.Future[Permit] = self._loop.create_future()
        waiters[waiting] = deadline
        self._waiting += 1
        if deadline < math.inf:
            last = max(deadline, now + self._limiter.latency)
            self._expiries[waiting] = self._loop.call_at(last, self._expire, index, waiting)
        if self._timer.due == math.inf or (
            len(waiters) == 1 and not any(self._lanes[:index])
        ):  # the timer does not cover this lane yet
            self.advance()
        return waiting

    def _return_unused(self, permit: Permit) -> None:
        """Return an unused permit."""
        self._limiter.release(permit, self._loop.time(), Use.UNSENT)
        self._free_connection()

    def _free_connection(self) -> None:
        """Free the connection of a returned permit, and grant permits to others."""
        if self._connections is not None:
            self._connections.give_back()
        self.advance()

    def leave(self, permit: Permit, *, answered: bool) -> float:
        """Return a permit whose attempt has ended.

        Args:
            permit: the permit that `enter` returned.
            answered: whether there was an answer.

        Returns:
            The seconds since the attempt was sent.
        """
        now = self._loop.time()
        self._limiter.release(permit, now, Use.ANSWERED if answered else Use.UNANSWERED)
        if self._connections is not None:
            self._connections.give_back()
        if self._waiting and self._timer.due == math.inf:
            self.advance()
        return now - permit.sent

    def refused(self, permit: Permit) -> None:
        """Lower the rate after a refusal, unless the attempt was sent before the limit was changed."""
        if permit.sent >= self._limit_set_at:
            self._limiter.refused(permit.sent, self._loop.time())

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:
        """Change the limit, calls/s, and the part of it that bulk may fill; None for unchanged."""
        self._limit_set_at = self._loop.time()
        self._limiter.set_limit(limit, bulk_share)
        self.advance()

    def slow_down(self, accepted: float) -> None:
        """Lower the rate after an alert that the service accepts only a share, 0 to 1, of the calls."""
        self._limiter.slow_down(accepted, self._loop.time())

    def pause(self, seconds: float) -> None:
        """Send nothing for that many seconds, at most 60; a longer pause under way stays."""
        seconds = min(seconds, 60.0)
        self.pause_until(self._loop.time() + seconds)
        self._limiter.paused(seconds)

    def pause_until(self, moment: float) -> None:
        """Send nothing before a moment of the loop's time; a longer pause under way stays."""
        self._paused_until = max(self._paused_until, moment)

    def opens_at(self) -> float:
        """Return the end of the latest pause, by `now`."""
        return self._paused_until

    def close(self) -> None:
        """Raise `ClientClosed` in every caller, waiting or new."""
        self._timer.cancel()
        self._limiter.close()
        self.refuse(_closed)

    def refuse(self, why: Callable[[], Exception] | None) -> None:
        """Raise an error in every caller, waiting or new, until this is called with None or the queue is closed."""
        if self._refusal is _closed:
            return
        self._refusal = why
        if why is None:
            return
        for lane in self._lanes:
            while lane:
                waiting, _ = lane.popitem(last=False)
                self._waiting -= 1
                if not waiting.done():
                    waiting.set_exception(why())

    def advance(self) -> None:
        """Grant the permits that are free now, and set the timer for the next one."""
        self._timer.cancel()
        while self._waiting:
            now = self._loop.time()
            waiters = next(filter(None, self._lanes))
            urgent = waiters is self._lanes[0] or waiters is self._lanes[1]
            delay = self._delay(now, Lane.INTERACTIVE if urgent else Lane.BULK)
            if delay == 0.0:
                waiting, _ = waiters.popitem(last=False)
                self._waiting -= 1
                if not waiting.done():  # else it has just been cancelled
                    self._grant(waiting, now)
                continue
            if delay < math.inf:  # otherwise an answer comes first, and advances the queue
                waiting, deadline = next(iter(waiters.items()))
                if deadline < now + delay:
                    self._reject(waiters, waiting, self._exhausted(now, delay))
                    continue
                # Event loops wait in whole milliseconds; uvloop rounds less to 0, which would spin.
                self._timer.set(now + max(delay, 1e-3))
            return

    def _grant(self, waiting: asyncio.Future[Permit], now: float) -> None:
        try:
            permit = self._take(now)
        except Exception as defect:  # noqa: BLE001 - a defect; the caller would wait forever
            waiting.set_exception(defect)
        else:
            waiting.set_result(permit)

    def _expire(self, index: int, waiting: asyncio.Future[Permit]) -> None:
        """Reject a caller at its deadline."""
        if waiting in self._lanes[index]:
            now = self._loop.time()
            self._reject(self._lanes[index], waiting, self._exhausted(now, self._expected(now, index)))

    def _reject(self, waiters: Waiters, waiting: asyncio.Future[Permit], error: QuotaExhausted) -> None:
        del waiters[waiting]
        self._waiting -= 1
        if not waiting.done():
            waiting.set_exception(error)

    def _exhausted(self, now: float, seconds: float) -> QuotaExhausted:
        return QuotaExhausted("no permit within max_wait", retry_after=max(seconds, 1.0 / self._limiter.pace(now)))

    def _expected(self, now: float, lanes: int) -> float:
        """Return the expected seconds until a permit behind all callers in the first ``lanes``."""
        ahead = sum(map(len, self._lanes[:lanes]))
        next_one = self._paused_until
        if self._timer.due < math.inf:
            next_one = max(self._timer.due, next_one)
        return max(0.0, next_one - now) + ahead / self._limiter.pace(now)

    def _delay(self, now: float, lane: Lane) -> float:
        """Return the seconds until a permit for a lane: 0 for now, infinity until an answer or a connection."""
        if now < self._paused_until:
            return self._paused_until - now
        if self._connections is not None and not self._connections.free(self):
            return math.inf
        return self._limiter.wait(now, lane)

    def _take(self, now: float) -> Permit:
        """Take the permit, and the connection, that `_delay` found free."""
        if self._connections is not None:
            self._connections.take()
        return self._limiter.take(now)
