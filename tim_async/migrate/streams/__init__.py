"""Migrations on many machines: the rows of a file in a Redis or Valkey, and any number of workers.

::

    source = FileSource("counts.csv", UNREAD)
    async with aclosing(load(source, "redis://store:6379/0")) as events:
        async for event in events:
            ...

and, in any number of processes on any number of hosts::

    async with TIMClient.from_env() as tim, aclosing(work(tim, "redis://store:6379/0")) as events:
        async for event in events:
            ...

`tim_async.migrate.run` with the URL of a store does both: it loads the rows unless they are loaded, and works.
``tim-async migrate load`` and ``work`` are these two on the command line.  `tim_async.migrate._redis` documents the
guarantees, and which of them depend on the store's persistence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from ._fleet import load as load
    from ._fleet import read_fleet as read_fleet
    from ._fleet import work as work
    from ._fleet import write_fleet_rejects as write_fleet_rejects
    from ._names import Fleet as Fleet
    from ._names import Loaded as Loaded
    from ._names import Loading as Loading
    from ._names import StoreError as StoreError
    from ._names import StreamMismatch as StreamMismatch
    from ._names import Worker as Worker

_HOME = {
    "Fleet": "_names",
    "Loaded": "_names",
    "Loading": "_names",
    "StoreError": "_names",
    "StreamMismatch": "_names",
    "Worker": "_names",
    "load": "_fleet",
    "read_fleet": "_fleet",
    "work": "_fleet",
    "write_fleet_rejects": "_fleet",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and reports any other name
    __all__ = list(_HOME)  # mypy would read any but a literal list as empty
    __getattr__, __dir__ = _attach(__name__, _HOME)
