"""One quota for many processes: how each process gets its part from a store.

**The same promise, kept together.**  The store keeps the slots of `queue`, one set for all processes: a permit takes a
slot, and the process tells how many of its calls are out, and when each that has ended is free again: one second after
its answer.  So no second holds more arrivals than slots, whatever the processes' number, load, jitter and clocks.
Requests say *how long ago*, replies *how long to wait*.

**Each process brings half of its credit** (`learning.Credit`): of a round trip, the way back counts where a call was
answered, and the way there counts where the slot's next call is sent, which may be another process.

**No message matters twice, and none must arrive.**  What is out is told as a number and not as a change of it, and what
has ended under the number of the request that told it first.  So any request or reply can be lost, repeated or late.

**Nothing is granted that is not known to be free.**  A permit is due within a short horizon, long enough to ask for
the next one meanwhile.  Who must wait longer stands in the store's queue and is told when to ask again, so that
hundreds of processes share the rate as well as two.  Only the head of a process's queue asks, for a few permits at a
time: processes get equal parts, and a crash wastes a handful of permits for some seconds.

**Lanes hold everywhere.**  Interactive calls go before bulk in the store's queue, and bulk never takes the last few
free slots, so that an interactive call of another process finds one.

**One limit.**  It is the smallest that any active process names.  A process whose rates are its own names none for
others: it asks for less.

**What one process learns, all know.**  The adaptive rate and the pauses are in the store: when one process is refused,
all slow down.

**One clock.**  It is the store's, made even: a process tells how much time has passed since the last reply, and where
the store's clock says much more, or less, it has been set.  Each process knows by its quickest exchange how far that
clock is ahead of its own, so that the way to the store costs nothing; with ``strict`` it assumes the worst instead.

**Silence.**  What a process has out counts until it tells; a living one tells at least every `shared.REPORT` seconds,
and one that is silent for two seconds is taken to have died.

**A store that forgets** begins a new epoch: after a restart, a failover (another server may lack the last writes) or an
eviction nothing is granted until earlier calls are over, or every process has told what it has out.

**Without the store** each process uses its own share of the limit, or waits.  The share is one of as many as there were
members.  Where that is a few calls a second or less, calls go by a timetable, in which the processes alternate;
otherwise by slots of its own, after a silence long enough for the last calls that the store let go.  When the store is
reachable again, the process tells of the calls it made alone; after an outage the store grants nothing until all
processes have had time to do so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from tim_async._lanes import Lane

from .local import Limiter
from .reply import Reply
from .request import Request


class StoreAway(Exception):
    """The store is unreachable, or its reply is not that of ``quota.lua``."""


class QueueView(Protocol):
    """The queue before a limiter, as the limiter sees it."""

    def queued(self, lane: Lane) -> int:
        """Number of calls that wait in one lane."""

    def patience(self) -> float:
        """Deadline of the head of the queue, loop time; infinity without one."""

    def advance(self) -> None:
        """Let the calls go that may go now."""

    def pause_until(self, moment: float) -> None:
        """Let nothing go before a loop time."""

    def refuse(self, why: Callable[[], Exception] | None) -> None:
        """Raise an error in every caller that waits or comes, until this is called with None."""


class Sharing(Protocol):
    """One client's part in a shared quota."""

    def limiter(self, command: str, limit: float, strict: bool, queue: QueueView) -> Limiter:
        """The limiter of one endpoint, which may send ``limit`` calls/s from all processes together."""

    async def aclose(self) -> None:
        """Give unused permits back, and end."""


class Quota(Protocol):
    """A quota that several processes share; see `tim_async.quota.RedisQuota`."""

    def share(self, sdk_app_id: int) -> Sharing:
        """Take part in it, in the running event loop."""


Exchange = Callable[[Request], Awaitable[Reply]]
"""Sends a request to ``quota.lua`` in the store and returns its reply.  May raise `StoreAway`."""


class Shares(NamedTuple):
    """How a process takes part in a quota.

    Attributes:
        bulk: the part of the limit beyond which bulk takes no permit.
        alone: the part that this process uses while the store is away; None for as much as each of the members.
        closed: let no call go while the store is away.
        own_rates: the client's rates are what this process takes at most, and bind no other.
    """

    bulk: float = 1.0
    alone: float | None = None
    closed: bool = False
    own_rates: bool = False
