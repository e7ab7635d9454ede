"""Migrations on many machines: the rows of a file on a stream of Redis or Valkey, and any number of workers.

::

    source = FileSource("counts.csv", UNREAD)
    async with aclosing(load(source, "redis://store:6379/0")) as events:
        async for event in events:
            ...

and, in as many processes on as many hosts as wanted::

    async with TIMClient.from_env() as tim, aclosing(work(tim, "redis://store:6379/0")) as events:
        async for event in events:
            ...

``tim-async migrate load`` and ``work`` are these with a face.  It needs the extra ``redis``, and a server that knows
XAUTOCLAIM: Redis 6.2 or later, or any Valkey.

What is guaranteed, and by what:

- *The last row of a member wins.*  As with a file, only that row is on the stream at all: `load` finds the others
  before the first row is there.  So no order has to be kept between workers, and no late attempt can overwrite another
  value.
- *Nothing is lost.*  A row is on the stream until its outcome is in the store, written with its removal in one step.
  What a worker holds when it dies is taken over by the others once its lease has run out, and is sent a second time.
- *Nothing is counted twice.*  Of two workers that both sent a row, as when one was suspended for longer than its lease,
  the first to write the outcome is heard.
- *Only rows of the file are sent.*  An entry that something else added, or that cannot be a row, is rejected.
- *A row without a time of its own*, of kind "read", gets the store's time, written there before it is first sent.

What depends on the store's persistence: everything above holds while the store keeps what it has answered.  Whatever
a store that restarts has kept is its state of some earlier moment; the rows whose outcomes came after that are sent
again, with the same values, and a load that was not yet complete then has to be continued by the same command.  With
``appendfsync everysec`` that is the last second, with snapshots alone the time since the last one, and without
persistence it is all of it: workers then end and say so, and the file has to be loaded again.  Only the times of rows
without their own are drawn anew, up to that much later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from .errors import StoreError as StoreError
    from .errors import StreamMismatch as StreamMismatch
    from .events import Loaded as Loaded
    from .events import Loading as Loading
    from .fleet import Fleet as Fleet
    from .fleet import Worker as Worker
    from .fleet import read_fleet as read_fleet
    from .fleet import write_fleet_rejects as write_fleet_rejects
    from .loading import load as load
    from .working import work as work

_HOME = {
    "Fleet": "fleet",
    "Loaded": "events",
    "Loading": "events",
    "StoreError": "errors",
    "StreamMismatch": "errors",
    "Worker": "fleet",
    "load": "loading",
    "read_fleet": "fleet",
    "work": "working",
    "write_fleet_rejects": "fleet",
}

__all__ = list(_HOME)


if not TYPE_CHECKING:  # to a type checker, a name that is not above is a mistake
    __getattr__, __dir__ = _attach(__name__, _HOME)
