"""One quota for many processes, each of which gets its permits from a store.

**The same promise, for all processes.**  The store keeps the slots of `queue`, one set for all processes: a permit
takes a slot, and the process reports the number of its calls that are out, and the time at which the slot of each ended
call is free again: one second after its answer.  So no second holds more arrivals than slots, whatever the processes'
number, load, jitter and clocks.  Requests state times as seconds *ago*, replies as seconds *to wait*.

**Each process contributes half of its credit** (`learning.Credit`): of a round trip, the way back counts in the process
whose call was answered, and the way there in the process that sends the slot's next call, which may be another.

**Every message is idempotent, and may be lost.**  A request has the number of calls that are out, not the change of it,
and lists ended calls under the number of the request that reported them first.  So any request or reply can be lost,
repeated or late.

**A slot is granted only when the time at which it is free is known.**  A permit is due within a short horizon, long
enough to request the next one meanwhile.  A process that must wait longer is queued in the store, which replies with
the time to ask again, so that hundreds of processes share the rate as well as two.  Only the head of a process's queue
requests permits, a few at a time: processes get equal parts, and a crash wastes a handful of permits for some seconds.

**Lanes hold everywhere.**  Interactive calls go before bulk in the store's queue, and bulk never takes the last few
free slots, so that an interactive call of another process finds one.

**One limit.**  It is the smallest that any active process names.  The rates of a process with ``own_rates`` limit that
process alone.

**Shared learning.**  The adaptive rate and the pauses are in the store: when one process is refused, all slow down.

**One clock.**  It is the store's, without its jumps: a process reports the time since the last reply, and a store whose
clock has advanced by much more, or less, has had its clock set.  Each process estimates by its quickest exchange how
far that clock is ahead of its own, so that network latency costs nothing; with ``strict`` it assumes the worst case.

**Crashes.**  The calls of a process count until it reports their end.  A running process reports at least every
`shared.REPORT` seconds; one that sends nothing for two seconds is taken to have died.

**A store that has lost its data** begins a new epoch: after a restart, a failover (another server may lack the last
writes) or an eviction nothing is granted until earlier calls no longer count, or every process has reported its calls.

**Without the store** each process uses its own share of the limit, or waits.  By default the share is 1 / members, as
last known.  Where that is a few calls a second or less, calls follow a timetable, in which the processes alternate;
otherwise the process has slots of its own, after a silence long enough for the last calls that the store permitted.
When the store is reachable again, the process reports the calls it made alone; after an outage the store grants nothing
until all processes have had time to do so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from .local import Limiter
from .queue import RequestQueue
from .reply import Reply
from .request import Request


class StoreUnavailable(Exception):
    """The store is unreachable, or its reply is not that of ``quota.lua``."""


class Sharing(Protocol):
    """One client's membership in a shared quota."""

    def limiter(self, command: str, limit: float, strict: bool, queue: RequestQueue) -> Limiter:
        """Return the limiter of one endpoint; ``limit`` is the calls/s of all processes together."""

    async def aclose(self) -> None:
        """Return unused permits, and end the membership."""


class Quota(Protocol):
    """A quota that several processes share; see `tim_async.quota.RedisQuota`."""

    def share(self, sdk_app_id: int) -> Sharing:
        """Join the quota, in the running event loop."""


Exchange = Callable[[Request], Awaitable[Reply]]
"""Sends a request to ``quota.lua`` in the store and returns its reply.  May raise `StoreUnavailable`."""


class Shares(NamedTuple):
    """The shares of a process in a quota.

    Attributes:
        bulk: the part of the limit beyond which bulk takes no permit.
        fallback: the part that this process uses while the store is unreachable; None for 1 / members.
        fail_closed: whether calls wait while the store is unreachable.
        own_rates: whether the client's rates are maxima for this process alone, which bind no other.
    """

    bulk: float = 1.0
    fallback: float | None = None
    fail_closed: bool = False
    own_rates: bool = False
