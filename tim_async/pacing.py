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
refusals they cause.  `Rate` falls to what the server last took, once for each event, and climbs back
ever faster while nothing is refused: 2(1 + t) calls/s each second.

**The turnstile keeps order.**  aiolimiter lets newcomers pass those who wait, and knows neither priorities nor a
pause.  So nobody waits in it: callers wait here, interactive before bulk, first in, first out within a lane
(a call that comes back for another try keeps its seniority and goes before the first tries of its lane).  Whoever
cancels is forgotten at once.  A permit is taken last, when a slot and a connection are there, and the call is sent
at once: a permit that waits for a connection is a call that arrives together with later ones.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import OrderedDict, deque
from contextvars import ContextVar

from .errors import ClientClosed
from .learning import Credit, Rate

SECOND = 1.0005
"""The server's second, as we time it: a little longer, for clocks that tick differently."""


class Lane(enum.IntEnum):
    """Who goes first."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    BULK = 1
    """Batches and migrations: whatever interactive calls leave."""


LANE: ContextVar[Lane] = ContextVar("tim_async_lane", default=Lane.INTERACTIVE)
"""The lane of the calls made in this context."""


class Slots:
    """N places, each free again one second after its response, less the credit."""

    __slots__ = ("_answered", "_in_flight", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._in_flight = 0
        self._answered: deque[float] = deque()

    def wait(self, now: float, credit: float) -> float:
        """Seconds until a slot is free: 0 when one is, infinity when only a response can free one."""
        horizon = now - SECOND + credit
        answered = self._answered
        while answered and answered[0] <= horizon:
            answered.popleft()
        if self._in_flight + len(answered) < self._size:
            return 0.0
        return answered[0] - horizon if answered else math.inf

    def take(self) -> None:
        """Occupy a slot that `wait` found free."""
        self._in_flight += 1

    def give_back(self, now: float) -> None:
        """A response, or the end of its connection, has come: the slot's second starts."""
        self._in_flight -= 1
        self._answered.append(now)

    def unused(self) -> None:
        """The call was never sent: the slot is free at once."""
        self._in_flight -= 1

    @property
    def cooling(self) -> int:
        """Calls answered within the last second, or a little more."""
        return len(self._answered)


class Connections:
    """How many requests a caller's own session can carry at once, shared by the endpoints of one client."""

    __slots__ = ("_blocked", "_free")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._blocked: OrderedDict[Pacer, None] = OrderedDict()

    def free(self, pacer: Pacer) -> bool:
        """Whether there is room for one more; if not, ``pacer`` is told when there is."""
        if self._free:
            return True
        self._blocked[pacer] = None
        return False

    def take(self) -> None:
        """Occupy a connection that `free` found."""
        self._free -= 1

    def give_back(self) -> None:
        """A request has ended; the endpoint that waited longest moves on, or the next if that one cannot."""
        self._free += 1
        while self._free and self._blocked:
            self._blocked.popitem(last=False)[0].advance()


class Pacer:
    """One endpoint's turnstile, with its slots, bucket, pause and adaptive rate.

    To be made and used inside one running event loop.

    Args:
        limit: what the server allows, calls/s, at least 1.
        strict: give up all that is learned, and with it the chance of being refused by our own jitter.
        connections: the connections to share when they are fewer than the slots; None when they are not.
    """

    def __init__(self, limit: float, *, strict: bool = False, connections: Connections | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._strict = strict
        self._connections = connections
        self._slots = Slots(int(limit))
        self._credit = Credit()
        burst = max(4.0, limit / (50 if strict else 20))
        # The slots keep the promise; above the limit the bucket only catches up.  Strict does without even that.
        headroom = 1.0 if strict else 1.1
        # Permits are taken one by one at 200 a second, in small blocks where thousands are allowed.
        self._block = max(1, int(burst / 20))
        self._permits = 0
        # At the floor a block costs nearly the whole bucket.
        self._rate = Rate(limit, headroom, floor=1.01 * limit * headroom * self._block / burst)
        # Imported with the first call: it reads its own version at import, which takes longer than all else here.
        from aiolimiter import AsyncLimiter

        self._bucket = AsyncLimiter(burst, burst / self._rate.ceiling)
        self._refusals: deque[float] = deque()
        self._paused_until = -math.inf
        self._saturated = False
        self._cost = 1.0
        self._timer: asyncio.TimerHandle | None = None
        # Interactive retries, interactive, bulk retries, bulk.
        self._lanes: tuple[OrderedDict[asyncio.Future[None], None], ...] = tuple(OrderedDict() for _ in range(4))
        self._waiting = 0
        self._waking = 0

    def now(self) -> float:
        """The time by which this endpoint is paced: the event loop's."""
        return self._loop.time()

    @property
    def waiting(self) -> int:
        """Calls that stand before the turnstile."""
        return self._waiting

    @property
    def rate(self) -> float:
        """Calls a second that are let go at most, as learned so far."""
        return min(self._limit, self._rate.value(self._loop.time()))

    async def enter(self, lane: Lane = Lane.INTERACTIVE, again: bool = False) -> float:
        """Wait for a slot, a connection and a permit; then send at once.

        Every `enter` that returned must be followed by one `leave`.

        Args:
            lane: interactive before bulk.
            again: the call has been here before, and goes before those of its lane that have not.

        Returns:
            The loop time at which it may be sent: now.

        Raises:
            ClientClosed: the client was closed meanwhile; nothing was sent.
        """
        now = self._loop.time()
        # Those granted but not yet awake are still before us.
        if not self._waiting and not self._waking and self._delay(now) == 0.0:
            self._take()
            return now
        place = self._lanes[2 * lane + (not again)]
        turn: asyncio.Future[None] = self._loop.create_future()
        place[turn] = None
        self._waiting += 1
        if self._timer is None:
            self.advance()
        try:
            await turn
        except BaseException:  # a cancellation as a rule; also the end of a coroutine that nobody awaits any more
            if turn in place:
                del place[turn]
                self._waiting -= 1
            elif turn.done() and not turn.cancelled() and turn.exception() is None:  # granted, but never woke
                self._waking -= 1
                self._slots.unused()
                if self._connections is not None:
                    self._connections.give_back()
                self.advance()
            raise
        self._waking -= 1
        return self._loop.time()

    def leave(self, sent: float, *, answered: bool) -> float:
        """The answer has come, or its connection has ended without one.

        Args:
            sent: what `enter` returned.
            answered: whether there was an answer to time.

        Returns:
            Seconds since ``sent``.
        """
        now = self._loop.time()
        self._slots.give_back(now)
        if answered and not self._strict:
            self._credit.answered(now - sent, self._limit, self._saturated)
        if self._connections is not None:
            self._connections.give_back()
        if self._waiting and self._timer is None:
            self.advance()
        return now - sent

    def refused(self, sent: float) -> None:
        """The server said "too fast" to a call sent at ``sent``."""
        now = self._loop.time()
        self._refusals.append(now)
        while self._refusals[0] <= now - 1.0:
            self._refusals.popleft()
        answered = max(self._slots.cooling, len(self._refusals))
        if self._rate.refused(now, sent, 1.0 - len(self._refusals) / answered):
            self._credit.refused()

    def pause(self, seconds: float) -> None:
        """Let nothing go for so long, at most a minute; a longer pause already running stays."""
        self._paused_until = max(self._paused_until, self._loop.time() + min(seconds, 60.0))

    def opens_at(self) -> float:
        """The end of the pause that runs, or of the last one, by `now`."""
        return self._paused_until

    def close(self) -> None:
        """Turn away everybody who waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lane in self._lanes:
            while lane:
                turn, _ = lane.popitem(last=False)
                self._waiting -= 1
                if not turn.done():
                    turn.set_exception(ClientClosed("the client was closed"))

    def advance(self) -> None:
        """Let go whoever may go now, and come back when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            now = self._loop.time()
            delay = self._delay(now)
            if delay > 0.0:
                if delay < math.inf:  # otherwise only an answer can help, and it calls us
                    # Never so short that adding it to the clock changes nothing: that would spin.
                    self._timer = self._loop.call_at(now + max(delay, 1e-4), self._tick)
                return
            turn = self._next()
            if turn is not None:
                self._take()
                self._waking += 1
                turn.set_result(None)

    def _tick(self) -> None:
        self._timer = None
        self.advance()

    def _next(self) -> asyncio.Future[None] | None:
        """Take the first of the first lane off the queue; None when it has been cancelled this very moment."""
        lane = next(filter(None, self._lanes))
        turn, _ = lane.popitem(last=False)
        self._waiting -= 1
        return None if turn.done() else turn

    def _delay(self, now: float) -> float:
        """Seconds until one call may go: 0 for now, infinity when that depends on an answer."""
        if now < self._paused_until:
            return self._paused_until - now
        delay = self._slots.wait(now, self._credit.value)
        if delay > 0.0:
            self._saturated = True
            return delay
        self._saturated = False
        if self._connections is not None and not self._connections.free(self):
            return math.inf
        if not self._permits:
            # A slower rate makes each call cost more of the bucket.
            self._cost = cost = self._rate.cost(now)
            if not self._bucket.has_capacity(cost * self._block):
                # Longer than needed by at most this; the bucket credits what is late, up to its capacity.
                return cost / self._rate.ceiling
        return 0.0

    def _take(self) -> None:
        """Take what `_delay` found free."""
        self._slots.take()
        if self._connections is not None:
            self._connections.take()
        if self._permits:
            self._permits -= 1
            return
        acquiring = self._bucket.acquire(self._cost * self._block)
        try:
            acquiring.send(None)  # runs to its end: there is capacity, and nobody else takes any
        except StopIteration:
            self._permits = self._block - 1
            return
        acquiring.close()
        raise RuntimeError("aiolimiter waited although it had capacity")
