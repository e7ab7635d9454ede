"""One quota for many processes: how each process gets its part from a store.

**The same promise, kept together.**  The store keeps the slots of `queue`, one set for all processes: a process
reserves a slot for each call and reports when the answer came; a second later the slot is free for the next call of
any process.  So no second holds more arrivals than slots, whatever the processes' number, load, jitter and clocks.
Times are compared by the store's clock alone: its replies say *how long to wait*, requests say *how long ago*.

**Each process brings half of its credit** (`learning.Credit`): of a round trip, the way back counts where a call was
answered, and the way there counts where the slot's next call is sent, which may be another process.

**Only the head of a queue reserves**, and no more permits at a time than cover the store's round trip; bulk reserves
small blocks.  So processes get equal parts, a crash wastes a handful of permits for half a second, and the store is
asked at most once for each interactive call.

**Lanes hold everywhere.**  Bulk never takes the last few free slots, so that an interactive call of another process
finds one.

**What one process learns, all know.**  The adaptive rate and the pauses are in the store: when one process is refused,
all slow down.

**Silence.**  A permit whose outcome is never reported is free again half a second after its time; a living process
renews the permits of its calls in flight.

**Without the store** each process uses its own share of the limit, or waits.  It begins with a silence long enough for
the last calls that the store let go.  When the store is reachable again, the process reports the calls it made alone;
after an outage the store grants nothing until all processes have had time to do so.
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
    """Parts of an endpoint's limit.

    Attributes:
        bulk: bulk takes no permit while more than this is in use.
        alone: the part that this process uses while the store is away; None to wait for the store.
    """

    bulk: float
    alone: float | None
