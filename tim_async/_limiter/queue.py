"""How calls are let go: as many a second as an endpoint allows, and never one too many.

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

**The rate follows other consumers.**  Calls of somebody else on the same quota are invisible but for the
refusals they cause.  `Rate` falls to what the server last took, by leaving slots unused; it remembers where it was
refused, holds there and probes above it.  The theory of what is learned stands at the top of `learning`.

**The turnstile keeps order.**  aiolimiter lets newcomers pass those who wait, and knows neither priorities nor a
pause.  So nobody waits in it: callers wait here, interactive before bulk, first in, first out within a lane
(a call that comes back for another try keeps its seniority and goes before the first tries of its lane).  Whoever
cancels is forgotten at once.  A permit is taken last, when a slot and a connection are there, and the call is sent
at once: a permit that waits for a connection is a call that arrives together with later ones.

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

from .local import Limiter, LocalLimiter, Permit


class Connections:
    """How many requests a caller's own session can carry at once, shared by the endpoints of one client."""

    __slots__ = ("_blocked", "_free")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._blocked: OrderedDict[RequestQueue, None] = OrderedDict()

    def free(self, queue: RequestQueue) -> bool:
        """Whether there is room for one more; if not, ``queue`` is told when there is."""
        if self._free:
            return True
        self._blocked[queue] = None
        return False

    def take(self) -> None:
        """Occupy a connection that `free` found."""
        self._free -= 1

    def give_back(self) -> None:
        """A request has ended; the endpoint that waited longest moves on, or the next if that one cannot."""
        self._free += 1
        while self._free and self._blocked:
            self._blocked.popitem(last=False)[0].advance()


Waiters = OrderedDict[asyncio.Future[Permit], float]
"""Those who wait in one lane, in order, and until when each does."""


class RequestQueue:
    """One endpoint's turnstile: its queue, its pause, and the gate it leads to.

    To be made and used inside one running event loop.

    Args:
        limit: what the server allows, calls/s, at least 1.
        strict: give up all that is learned, and with it the chance of being refused by our own jitter.
        connections: the connections to share when they are fewer than the slots; None when they are not.
        gate: makes what lets calls go; by default one that has the whole limit for itself.
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
        self._paused_until = -math.inf
        self._timer = Timer(self.advance)
        # Interactive retries, interactive, bulk retries, bulk.
        self._lanes: tuple[Waiters, ...] = tuple(OrderedDict() for _ in range(4))
        self._expiries: dict[asyncio.Future[Permit], asyncio.TimerHandle] = {}
        self._waiting = 0
        self._waking = 0
        self._closed = False
        self._limiter = LocalLimiter(limit, strict=strict) if limiter is None else limiter(self)

    def now(self) -> float:
        """The time by which this endpoint is paced: the event loop's."""
        return self._loop.time()

    @property
    def waiting(self) -> int:
        """Calls that stand before the turnstile."""
        return self._waiting

    def queued(self, lane: Lane) -> int:
        """Those of them in one lane."""
        return len(self._lanes[2 * lane]) + len(self._lanes[2 * lane + 1])

    def patience(self) -> float:
        """Until when the first of them waits, by `now`; infinity when it does for ever."""
        waiters = next(filter(None, self._lanes), None)
        return math.inf if waiters is None else next(iter(waiters.values()))

    @property
    def rate(self) -> float:
        """Calls a second that are let go at most, as learned so far."""
        return self._limiter.rate(self._loop.time())

    @property
    def shared(self) -> bool:
        """Whether the permits are shared with other processes, at this moment."""
        return self._limiter.shared

    async def enter(self, lane: Lane = Lane.INTERACTIVE, again: bool = False, max_wait: float = math.inf) -> Permit:
        """Wait for a connection and a permit; then send at once.

        Every `enter` that returned must be followed by one `leave`.

        Args:
            lane: interactive before bulk.
            again: the call has been here before, and goes before those of its lane that have not.
            max_wait: seconds to wait at most.

        Returns:
            The turn; it may be sent now.

        Raises:
            QuotaExhausted: it would take longer, which is raised at once where it can be foreseen; nothing was sent.
            ClientClosed: the client was closed meanwhile; nothing was sent.
        """
        now = self._loop.time()
        # Those granted but not yet awake are still before us.
        if not self._waiting and not self._waking and self._delay(now, lane) == 0.0:
            return self._take(now)
        index = 2 * lane + (not again)
        # Many may wait for long: what their frames hold is what a waiting call costs.
        until = math.inf if max_wait == math.inf else now + max(0.0, max_wait)
        waiting = self._join(index, now, until)
        del now
        try:
            permit = await waiting
        except BaseException:  # a cancellation as a rule; also the end of a coroutine that nobody awaits any more
            if waiting in self._lanes[index]:
                del self._lanes[index][waiting]
                self._waiting -= 1
            elif waiting.done() and not waiting.cancelled() and waiting.exception() is None:  # granted, but never woke
                self._waking -= 1
                self._give_up(waiting.result())
            raise
        finally:
            if until < math.inf:
                self._expiries.pop(waiting).cancel()
        self._waking -= 1
        woke = self._loop.time()
        if woke - permit.sent > self._limiter.grace:  # the loop was blocked, or the process stopped
            return await self._enter_again(permit, lane, until - woke)
        permit.sent = woke
        return permit

    def _join(self, index: int, now: float, until: float) -> asyncio.Future[Permit]:
        """Wait in a lane until some time at most.

        Raises:
            QuotaExhausted: it can be foreseen that it would take longer.
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
        ):  # nothing was known of our lane
            self.advance()
        return waiting

    async def _enter_again(self, late: Permit, lane: Lane, max_wait: float) -> Permit:
        """Give back a turn that came too late, and wait for another."""
        self._give_up(late)
        if self._closed:
            raise ClientClosed("the client was closed")
        return await self.enter(lane, True, max_wait)

    def _give_up(self, permit: Permit) -> None:
        """A turn that was granted is not used."""
        self._limiter.unused(permit)
        if self._connections is not None:
            self._connections.give_back()
        self.advance()

    def leave(self, permit: Permit, *, answered: bool) -> float:
        """The answer has come, or its connection has ended without one.

        Args:
            permit: what `enter` returned.
            answered: whether there was an answer to time.

        Returns:
            Seconds since it was sent.
        """
        now = self._loop.time()
        self._limiter.leave(permit, now, answered=answered)
        if self._connections is not None:
            self._connections.give_back()
        if self._waiting and self._timer.due == math.inf:
            self.advance()
        return now - permit.sent

    def refused(self, permit: Permit) -> None:
        """The server said "too fast" to a call."""
        self._limiter.refused(permit.sent, self._loop.time())

    def slow_down(self, taken: float) -> None:
        """Somebody else says that the server takes only a share, 0 to 1, of what it is asked."""
        self._limiter.slow_down(taken, self._loop.time())

    def pause(self, seconds: float) -> None:
        """Let nothing go for so long, at most a minute; a longer pause already running stays."""
        seconds = min(seconds, 60.0)
        self.pause_until(self._loop.time() + seconds)
        self._limiter.paused(seconds)

    def pause_until(self, moment: float) -> None:
        """Let nothing go before a moment of the loop's time; a longer pause already running stays."""
        self._paused_until = max(self._paused_until, moment)

    def opens_at(self) -> float:
        """The end of the pause that runs, or of the last one, by `now`."""
        return self._paused_until

    def close(self) -> None:
        """Turn away everybody who waits."""
        self._closed = True
        self._timer.cancel()
        self._limiter.close()
        for lane in self._lanes:
            while lane:
                permit, _ = lane.popitem(last=False)
                self._waiting -= 1
                if not permit.done():
                    permit.set_exception(ClientClosed("the client was closed"))

    def advance(self) -> None:
        """Let go whoever may go now, and come back when the next one may."""
        self._timer.cancel()
        while self._waiting:
            now = self._loop.time()
            waiters = next(filter(None, self._lanes))
            urgent = waiters is self._lanes[0] or waiters is self._lanes[1]
            delay = self._delay(now, Lane.INTERACTIVE if urgent else Lane.BULK)
            if delay == 0.0:
                permit, _ = waiters.popitem(last=False)
                self._waiting -= 1
                if not permit.done():  # else it has been cancelled this very moment
                    self._waking += 1
                    permit.set_result(self._take(now))
                continue
            if delay < math.inf:  # otherwise only an answer can help, and it calls us
                permit, until = next(iter(waiters.items()))
                if until < now + delay:
                    self._turn_away(waiters, permit, self._exhausted(now, delay))
                    continue
                # Event loops wait in whole milliseconds: uvloop rounds less to nothing, which would spin.
                self._timer.set(now + max(delay, 1e-3))
            return

    def _expire(self, index: int, permit: asyncio.Future[Permit]) -> None:
        """A caller has waited as long as it would."""
        if permit in self._lanes[index]:
            now = self._loop.time()
            self._turn_away(self._lanes[index], permit, self._exhausted(now, self._expected(now, index)))

    def _turn_away(self, waiters: Waiters, permit: asyncio.Future[Permit], error: QuotaExhausted) -> None:
        del waiters[permit]
        self._waiting -= 1
        if not permit.done():
            permit.set_exception(error)

    def _exhausted(self, now: float, seconds: float) -> QuotaExhausted:
        return QuotaExhausted("no permit within max_wait", retry_after=max(seconds, 1.0 / self._limiter.pace(now)))

    def _expected(self, now: float, lanes: int) -> float:
        """Seconds until the turn of who comes after all that wait in the first ``lanes``, as far as can be foreseen."""
        ahead = sum(map(len, self._lanes[:lanes]))
        next_one = self._paused_until
        if self._timer.due < math.inf:
            next_one = max(self._timer.due, next_one)
        return max(0.0, next_one - now) + ahead / self._limiter.pace(now)

    def _delay(self, now: float, lane: Lane) -> float:
        """Seconds until one call may go: 0 for now, infinity when that depends on what others do."""
        if now < self._paused_until:
            return self._paused_until - now
        if self._connections is not None and not self._connections.free(self):
            return math.inf
        return self._limiter.wait(now, lane)

    def _take(self, now: float) -> Permit:
        """Take what `_delay` found free."""
        if self._connections is not None:
            self._connections.take()
        return self._limiter.take(now)
