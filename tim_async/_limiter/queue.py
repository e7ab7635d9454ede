"""The queue of an endpoint, and the theory of its pace: as many calls a second as it allows, and never one too many.

**What the server counts is arrivals; what a client chooses is departures.**  Between the two lie a busy loop,
connections being set up and the network's jitter, so a limiter that only counts departures must either leave
room for the jitter or be refused.  Responses tell more: a call sent at *s* and answered at *r* arrived at some
*a* with s <= a <= r.

**Slots keep the promise.**  An endpoint of N calls a second has N slots, and a slot is free again one second
after its response.  Its next arrival a' then obeys a' >= s' >= r + 1 >= a + 1: no second ever holds two arrivals
of one slot, hence never more than N, whatever the jitter and whatever the shape of the server's window (a sliding
second; so also a calendar second, or a bucket of N).  With ``strict=True`` this is all, and it is a proof.

**Credit wins back the round trip.**  A slot that waits for r + 1 gives N/(1 + RTT).  But a' >= s' + the fastest
way there, and a <= r - the fastest way back, so a slot may be used again the *smallest* round trip earlier
with the same certainty, as long as that minimum holds.  Beyond it lies the spread of the round trips, where
independent delays average out and correlated ones do not; only trying tells.  `Credit` climbs slowly into
it while nothing is refused and steps back when something is.

**The bucket keeps it smooth.**  Slots alone would release a burst each second.  An aiolimiter bucket a little
above the full rate spreads the calls, yet lets an endpoint catch up with what a busy loop has delayed.

**The rate follows other consumers.**  Clients outside the quota show only as refusals.  `Rate` falls to what the
server last took, by leaving slots unused; it remembers where it was refused, holds there and probes above it.  The
theory of what is learned is at the top of `learning`.

**The queue keeps order.**  aiolimiter lets newcomers overtake waiting callers, and has neither priorities nor a pause.
So callers wait here and never in it: interactive before bulk, first in, first out within a lane (a retry goes before
the first attempts of its lane).  A cancelled caller is removed at once.  A permit is taken last, when a slot and a
connection are free, and the attempt is sent at once: a permit that waits for a connection is an attempt that arrives
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

    __slots__ = ("_blocked", "_free")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._blocked: OrderedDict[RequestQueue, None] = OrderedDict()

    def free(self, queue: RequestQueue) -> bool:
        """Whether a connection is free; if not, ``queue`` advances when one is."""
        if self._free:
            return True
        self._blocked[queue] = None
        return False

    def take(self) -> None:
        """Occupy a connection that `free` found."""
        self._free -= 1

    def give_back(self) -> None:
        """Return a connection; the endpoint that has waited longest advances, or the next if that one cannot."""
        self._free += 1
        while self._free and self._blocked:
            self._blocked.popitem(last=False)[0].advance()


def _closed() -> ClientClosed:
    return ClientClosed("the client was closed")


Waiters = OrderedDict[asyncio.Future[Permit], float]
"""The callers that wait in one lane, in order, each with its deadline."""


class RequestQueue:
    """The queue of one endpoint, in one event loop: its lanes, its pause, and the limiter that it leads to.

    Args:
        limit: what the server allows, calls/s, at least 1.
        strict: learn nothing, and never be refused for the client's own jitter.
        connections: the connections to share; None when they are unlimited.
        limiter: makes the limiter; by default one that has the whole limit for itself.
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
        self._waking = 0
        self._refusal: Callable[[], Exception] | None = None
        self._limiter = LocalLimiter(limit, strict=strict) if limiter is None else limiter(self)

    def now(self) -> float:
        """The event loop's time, by which this endpoint is paced."""
        return self._loop.time()

    @property
    def waiting(self) -> int:
        """Callers that wait for a permit."""
        return self._waiting

    def queued(self, lane: Lane) -> int:
        """Callers that wait in one lane."""
        return len(self._lanes[2 * lane]) + len(self._lanes[2 * lane + 1])

    def head_deadline(self) -> float:
        """The deadline of the head of the queue, by `now`, or infinity."""
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

        Send at once; every `enter` that returned must be followed by one `leave`.

        Args:
            lane: interactive goes before bulk.
            again: whether it is for a retry, which goes before the first attempts of its lane.
            max_wait: the most seconds to wait.
            late: a permit that came too late to be used.  It is returned, and goes to nobody who came later.

        Returns:
            The permit.

        Raises:
            QuotaExhausted: it would take longer, which is raised at once where it can be foreseen.
            ClientClosed: the client was closed meanwhile.
            TIMError: what `refuse` was given.
        """
        now = self._loop.time()
        index = 2 * lane + (not again)
        # Many callers may wait for long, and each costs what its frame holds.
        until = math.inf if max_wait == math.inf else now + max(0.0, max_wait)
        if late is not None:
            self._limiter.release(late, now, Use.UNSENT)
        try:
            if self._refusal is not None:
                raise self._refusal()
            # Callers with a permit that have not woken yet are still ahead.
            if late is None and not self._waiting and not self._waking and self._delay(now, lane) == 0.0:
                return self._take(now)
            waiting = self._join(index, now, until)
        finally:
            if late is not None:  # only now, when this caller has its place again
                self._free_connection()
        del now, late
        try:
            permit = await waiting
        except BaseException:  # a cancellation, or the end of an abandoned coroutine
            if waiting in self._lanes[index]:
                del self._lanes[index][waiting]
                self._waiting -= 1
            elif waiting.done() and not waiting.cancelled() and waiting.exception() is None:  # granted, but never woke
                self._waking -= 1
                self._return_unused(waiting.result())
            raise
        finally:
            if until < math.inf:
                self._expiries.pop(waiting).cancel()
        self._waking -= 1
        woke = self._loop.time()
        if woke - permit.sent > self._limiter.grace:  # the loop was blocked, or the process was suspended
            return await self.enter(lane, True, until - woke, permit)
        permit.sent = woke
        return permit

    def _join(self, index: int, now: float, until: float) -> asyncio.Future[Permit]:
        """Join a lane until a deadline.

        Raises:
            QuotaExhausted: it would foreseeably take longer.
        """
        if until < math.inf and (late := now + self._expected(now, index + 1) - until) > 0.0:
            raise self._exhausted(now, late)
        waiters = self._lanes[index]
        waiting: asyncio.Future[Permit] = self._loop.create_future()
        waiters[waiting] = until
        self._waiting += 1
        if until < math.inf:
            last = max(until, now + self._limiter.latency)
            self._expiries[waiting] = self._loop.call_at(last, self._expire, index, waiting)
        if self._timer.due == math.inf or (
            len(waiters) == 1 and not any(self._lanes[:index])
        ):  # nothing is known of this lane yet
            self.advance()
        return waiting

    def _return_unused(self, permit: Permit) -> None:
        """Return a permit that is not used."""
        self._limiter.release(permit, self._loop.time(), Use.UNSENT)
        self._free_connection()

    def _free_connection(self) -> None:
        """Return the connection of a permit that was returned, and let others go on."""
        if self._connections is not None:
            self._connections.give_back()
        self.advance()

    def leave(self, permit: Permit, *, answered: bool) -> float:
        """Return a permit whose attempt has ended.

        Args:
            permit: what `enter` returned.
            answered: whether there was an answer.

        Returns:
            Seconds since the attempt was sent.
        """
        now = self._loop.time()
        self._limiter.release(permit, now, Use.ANSWERED if answered else Use.UNANSWERED)
        if self._connections is not None:
            self._connections.give_back()
        if self._waiting and self._timer.due == math.inf:
            self.advance()
        return now - permit.sent

    def refused(self, permit: Permit) -> None:
        """The service refused an attempt for its rate; one from before the limit was changed says nothing about it."""
        if permit.sent >= self._limit_set_at:
            self._limiter.refused(permit.sent, self._loop.time())

    def set_limit(self, limit: float, bulk_share: float | None = None) -> None:
        """Change what the server allows, calls/s, and the part of it that bulk may fill; None for unchanged."""
        self._limit_set_at = self._loop.time()
        self._limiter.set_limit(limit, bulk_share)
        self.advance()

    def slow_down(self, accepted: float) -> None:
        """The service alerted that it accepts only a share, 0 to 1, of the calls."""
        self._limiter.slow_down(accepted, self._loop.time())

    def pause(self, seconds: float) -> None:
        """Send nothing for so many seconds, at most 60; a longer pause under way stays."""
        seconds = min(seconds, 60.0)
        self.pause_until(self._loop.time() + seconds)
        self._limiter.paused(seconds)

    def pause_until(self, moment: float) -> None:
        """Send nothing before a moment of the loop's time; a longer pause under way stays."""
        self._paused_until = max(self._paused_until, moment)

    def opens_at(self) -> float:
        """The end of the latest pause, by `now`."""
        return self._paused_until

    def close(self) -> None:
        """Raise `ClientClosed` in every caller that waits or comes."""
        self._timer.cancel()
        self._limiter.close()
        self.refuse(_closed)

    def refuse(self, why: Callable[[], Exception] | None) -> None:
        """Raise an error in every caller that waits or comes, until this is called with None or the queue closed."""
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
                waiting, until = next(iter(waiters.items()))
                if until < now + delay:
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
            self._waking += 1
            waiting.set_result(permit)

    def _expire(self, index: int, waiting: asyncio.Future[Permit]) -> None:
        """The deadline of a caller."""
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
        """Seconds until a permit behind all callers in the first ``lanes``, as far as can be foreseen."""
        ahead = sum(map(len, self._lanes[:lanes]))
        next_one = self._paused_until
        if self._timer.due < math.inf:
            next_one = max(self._timer.due, next_one)
        return max(0.0, next_one - now) + ahead / self._limiter.pace(now)

    def _delay(self, now: float, lane: Lane) -> float:
        """Seconds until one permit for a lane: 0 for now, infinity when that depends on an answer or a connection."""
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
