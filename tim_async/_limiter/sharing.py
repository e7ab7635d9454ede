"""One quota for many processes: how a process takes its part of what a store gives out.

**The same promise, kept together.**  The slots of `queue` stand in the store, once for all processes: a process
reserves one for each call, and tells when the answer came; a second after that the slot goes to whoever is
next.  So no second holds more arrivals than slots, whatever the processes' number, load, jitter and clocks.  All
comparisons of time are made by the store's clock: it answers *how long to wait*, and is told *how long ago*.

**Each process brings half of its credit** (`learning.Credit`): of a round trip, the way back counts where a
call was answered, and the way there where the slot's next call comes from, which may be another place.

**Only the head of a queue reserves**, and no more at a time than it takes to cover the store's round trip; bulk takes
small blocks.  So processes get equal parts, a crash wastes a handful of permits for half a second, and the
store hears once for each interactive call or less.

**Lanes hold everywhere.**  Bulk never takes the last few free slots, so that an interactive call of another process
finds one.

**What one learns, all know.**  The adaptive rate and the pauses are in the store: one process refused, all slow down.

**Silence.**  A permit that nobody tells about is free again half a second after it would have been; a living process
keeps those of its calls in flight.

**Without the store** each process goes on with a gate of its own at its share of the rate, or waits.  On leaving, it is
quiet for long enough that what the store let go last has passed; on coming back, it tells the store of the calls it
made alone, and after an outage the store grants nothing before everybody has had the time to do so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from tim_async._lanes import Lane

from .local import Limiter


class StoreAway(Exception):
    """The store cannot be reached, or does not do what it should."""


class Turnstile(Protocol):
    """What a gate must know of the queue before it."""

    def queued(self, lane: Lane) -> int:
        """Calls that wait in one lane."""

    def patience(self) -> float:
        """Until when the first of all will wait, loop time."""

    def advance(self) -> None:
        """Look again who may go."""

    def pause_until(self, moment: float) -> None:
        """Let nothing go before a moment of the loop's time."""


class Sharing(Protocol):
    """One client's part in a shared quota."""

    def limiter(self, command: str, limit: float, strict: bool, queue: Turnstile) -> Limiter:
        """The gate of one endpoint, which may send ``limit`` calls/s from all processes together."""

    async def aclose(self) -> None:
        """Give back what is not used, and end."""


class Quota(Protocol):
    """A quota that several processes share; see `tim_async.quota.RedisQuota`."""

    def share(self, sdk_app_id: int) -> Sharing:
        """Take part in it, in the running event loop."""


Exchange = Callable[[list[str]], Awaitable[list[int]]]
"""Tells the store and hears its answer: the arguments and the reply of ``quota.lua``.  May raise `StoreAway`."""


class Shares(NamedTuple):
    """Parts of an endpoint's limit.

    Attributes:
        bulk: bulk takes no permit while more than this is in use.
        alone: what to go on with while the store is away; None to wait for it.
    """

    bulk: float
    alone: float | None
