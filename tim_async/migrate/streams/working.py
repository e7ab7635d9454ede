"""Working: rows from a stream, through the client, and their outcomes to the store.

A worker holds at most ``concurrency`` rows.  It answers for them several times in each lease; what nobody has answered
for in a whole one, the others take over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from tim_async import _arguments
from tim_async._lanes import LANE, Lane
from tim_async.migrate._recorder import Recorder
from tim_async.migrate._rows import KINDS, Kind, Rejected, Row
from tim_async.migrate.errors import MigrateError
from tim_async.migrate.events import Counts, Ended, Event, Finished, Resumed, RowFailed, Started, Waiting
from tim_async.migrate.groups import Groups
from tim_async.migrate.outage import OutageTooLong, Patience, Stopped
from tim_async.migrate.rejects import with_field
from tim_async.migrate.runner import DEFAULT_CONCURRENCY
from tim_async.migrate.schema import differing
from tim_async.migrate.sending import Outgoing, Sender
from tim_async.migrate.telling import Telling, running

from .about import State, StreamAbout
from .entries import unpacked
from .errors import StoreAway, StoreError, StreamMismatch
from .fleet import failures_of
from .keys import DEFAULT_NAME
from .outcomes import StreamOutcomes
from .store import Entry, Store
from .tally import FleetTally
from .tasks import together

if TYPE_CHECKING:
    from tim_async.client import TIMClient

DEFAULT_LEASE = 10.0
"""Seconds after which a worker that says nothing counts as dead."""

_OFTEN = 3.0
"""Seconds between two signs of life, at most: workers with other leases hear them in time, too."""
_SAVE_EVERY = 10.0
"""Seconds between two saves of how the calls go."""
_SOON = 0.1
_LATER = 1.0
"""Seconds between two looks at a stream that has nothing to be taken, at first and at most."""
_UNTOLD = 1.0
"""Seconds of such a wait that are not worth a word."""
_DRAIN = 5.0
"""Seconds for the calls under way once the run is to end; rows whose calls are cut short then are sent again."""


async def work(
    client: TIMClient,
    url: str,
    *,
    name: str = DEFAULT_NAME,
    concurrency: int = DEFAULT_CONCURRENCY,
    group_check: bool = True,
    max_errors: int | None = None,
    max_outage: float | None = None,
    lease: float = DEFAULT_LEASE,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    interval: float = 1.0,
) -> AsyncGenerator[Event, None]:
    """Send the rows of a stream, beside any number of other workers, until every row has an outcome.

    It waits for the stream, for a load that is not complete, and for the rows that other workers hold.  The calls are
    bulk: interactive ones of the same client go first.  Leaving the loop stops it at once; setting ``stop`` gives
    the calls under way 5 s to finish.  Either way the rows it still holds are given back.

    Entries are checked like rows of a file: one that cannot be a row, or that `load` did not put there, is rejected
    with its reason, and counts as an error.

    Args:
        client: carries the calls out, at the rate it was made with.
        url: the store, as for `load`.
        name: the stream's.
        concurrency: rows in hand, at least 1.
        group_check: look each group up before its rows are sent, and fail the rows of groups that would ignore them.
        max_errors: stop when more rows than this have failed or been rejected, over all workers; None for no limit.
        max_outage: stop when the service has taken nothing for so many seconds; None to wait as long as it takes.
        lease: seconds without a sign of life after which others take over what it holds; the same for all workers.
        stop: set it to end early.
        recorder: what watches the attempts of ``client``; its series is kept in the store, for the report.
        interval: seconds between two `Progress` events.

    Yields:
        `Started`; then `RowFailed`, `RowLowered`, `Waiting`, `Resumed` and `Progress` as they come, the first two for
        rows of this worker, the last with the counts of all; `Finished` as the last.  What is not read holds it up.

    Raises:
        ValueError, TypeError: an argument that cannot be right.
        StreamMismatch: the stream is for another app.
        StoreError: the store refuses, or has lost the stream or rows of it.
        AuthError, PermissionDenied: the service refuses the account as a whole; no row was marked failed for it.
        InvalidRequest: groups cannot be looked up at all, so that ``group_check`` has to be turned off.
    """
    _arguments.positive("concurrency", _arguments.number("concurrency", concurrency))
    _arguments.positive("interval", interval)
    _arguments.positive("lease", lease)
    if max_errors is not None:
        _arguments.number("max_errors", max_errors)
    if max_outage is not None:
        _arguments.positive("max_outage", max_outage)
    this = _Work(client, url, name, concurrency, group_check, max_errors, max_outage, lease, stop, recorder)
    async with running(this.carry_out()) as task:
        async for event in this.telling.all(task, interval):
            yield event


class _Work:
    def __init__(
        self,
        client: TIMClient,
        url: str,
        name: str,
        concurrency: int,
        group_check: bool,
        max_errors: int | None,
        max_outage: float | None,
        lease: float,
        stop: asyncio.Event | None,
        recorder: Recorder | None,
    ) -> None:
        self._client = client
        self._concurrency = concurrency
        self._group_check = group_check
        self._lease = lease
        self._users_stop = asyncio.Event() if stop is None else stop
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        # This worker's own, so that a limit can end it too.
        self._stop = asyncio.Event()
        self._tally = FleetTally(math.inf if max_errors is None else max_errors, self._stop)
        self.telling = Telling(lambda: self._tally.state and self._tally.counts)
        self._store = Store(url, name, stop=self._stop, tell=self._tell)
        self._patience = Patience(self._stop, math.inf if max_outage is None else max_outage, self.telling.outage)
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._since = time.time()
        self._rows: dict[int, Row] = {}
        self._freed = asyncio.Event()
        self._written = 0
        self._asked = -math.inf
        self._limit = ""
        self._waited: float | None = None
        self._waiting = False

    def _tell(self, reason: str | None, seconds: float) -> None:
        self.telling.emit(Resumed(seconds) if reason is None else Waiting(reason, seconds, "the store is back"))

    # The course of it

    async def carry_out(self) -> Finished:
        """All of it."""
        LANE.set(Lane.BULK)
        try:
            return await together(self._carry_out(), self._heed())
        except StoreAway:
            if not self._users_stop.is_set():
                raise
            return Finished(self._tally.counts, Ended.INTERRUPTED)

    async def _carry_out(self) -> Finished:
        async with self._store:
            return await self._in_store()

    async def _heed(self) -> None:
        await self._users_stop.wait()
        self._stop.set()
        self._freed.set()

    async def _in_store(self) -> Finished:
        about = await self._find()
        if about is None:
            return Finished(Counts(), Ended.INTERRUPTED)
        self._store.of(about)
        await self._check(about)
        state = await self._store.keep(self._consumer, self._info(), [])
        how = "failed"
        try:
            self._tally.hear(state)
            self.telling.emit(Started(self._tally.counts, state.settled > 0))
            nothing = state.over and not self._tally.too_many_errors
            if not nothing:
                await self._send(KINDS[about.kind])
            finished = await self._finished(Ended.NOTHING_TO_DO if nothing else Ended.DONE)
            how = finished.ended.name.lower()
            return finished
        finally:
            await self._leave(how)

    async def _find(self) -> StreamAbout | None:
        """What the stream is of, once there is one; None when it is no longer waited for."""
        while not self._stop.is_set():
            if (about := await self._store.look()) is not None:
                self._come()
                return about
            await self._wait(f"there is no stream {self._store.name} at {self._store.shown} yet", "one is loaded")
        return None

    async def _check(self, about: StreamAbout) -> None:
        if about.kind not in KINDS:
            raise StoreError(f"the stream {self._store.name} holds rows of an unknown kind, {about.kind!r}")
        mine = {"sdk_app_id": self._client.sdk_app_id, "base_url": self._client.base_url}
        about = await self._store.bind(self._client.sdk_app_id, self._client.base_url)
        fields = ("kind", "source", "fingerprint", "arguments", "sdk_app_id", "base_url")
        found: dict[str, Any] = {field: getattr(about, field) for field in fields}
        if differences := differing(found, found | mine):
            raise StreamMismatch(f"the stream {self._store.name} at {self._store.shown} is {differences}")

    async def _send(self, kind: Kind) -> None:
        outcomes = StreamOutcomes(self._store, kind, self._rows, self._heard)

        async def take() -> list[Outgoing]:
            return await self._take(kind, outcomes)

        sender = Sender(
            self._client,
            kind,
            self._concurrency,
            take=take,
            groups=Groups(self._client, self._patience) if self._group_check and kind.groups else None,
            ledger=outcomes,
            tally=self._tally,
            patience=self._patience,
            stop=self._stop,
            tell=self.telling.row,
        )
        try:
            # A lease that can no longer be renewed ends it: the others take everything over.
            beside = (self._keep_lease(), self._keep_series(), self._cut_off(), outcomes.watch())
            await together(sender.send_all(), *beside)
        except OutageTooLong as error:
            self._limit = str(error)
        except Stopped:
            pass  # what is cut short is given back
        finally:
            self._stop.set()  # so that a store that is away does not hold up the end
            await outcomes.close()

    async def _cut_off(self) -> None:
        """Bound the end: a service that does not answer, or a client's retries, would hold it up."""
        await self._stop.wait()
        await asyncio.sleep(_DRAIN)
        raise Stopped

    async def _finished(self, ended: Ended) -> Finished:
        """How it ended, by what the store says last: in this way if every row has its outcome."""
        state, _, found = await self._store.survey()
        self._tally.hear(state)
        limit = self._limit or self._tally.too_many_errors
        if limit or not state.over:
            ended = Ended.LIMIT if limit else Ended.INTERRUPTED
        failures: Counter[int | None] = Counter()
        for failure in failures_of(found["causes"], found["firsts"]):
            failures[failure.code] += failure.rows
        if state.rejected:  # by load; what workers rejected is among the others
            failures[None] += state.rejected
        return Finished(state.counts, ended, dict(failures), limit)

    async def _leave(self, how: str) -> None:
        # From now on a store that is away is not waited for: what is not given back is claimed once the lease is over.
        self._stop.set()
        with contextlib.suppress(MigrateError):
            await self._store.leave(self._consumer, self._info(how), self._session(how))

    # Rows

    async def _take(self, kind: Kind, outcomes: StreamOutcomes) -> list[Outgoing]:
        """Take the next rows to be sent; none when every row of the stream has an outcome."""
        least = max(1, self._concurrency // 8)
        while not self._stop.is_set():
            room = self._concurrency - len(self._rows)
            if room < least:
                await self._some_freed(None)
                continue
            now = self._loop.time()
            # What a dead worker left can wait as long as new rows come, but not for ever.
            claims = self._waited is not None or now >= self._asked + self._lease / 4
            if claims:
                self._asked = now
            found, state = await self._store.take(self._consumer, room, self._lease if claims else None)
            self._tally.hear(state)
            taken = await self._checked(kind, found, outcomes)
            self._patience.last_calls = bool(state.complete) and not found
            if found:
                self._come()
            if taken:
                return taken
            if found:  # and all of it rejected, or in hand already
                continue
            if state.over:
                self._come()
                return []
            await self._wait_for_more(state)
        return []

    async def _wait_for_more(self, state: State) -> None:
        """Wait a little for rows that are not there, or not for this worker.

        Raises:
            StoreError: they never will be.
        """
        if state.missing:
            raise self._store.lost(state.missing)
        if not state.complete:
            reason = f"the load of the stream is at {state.loaded:,} of {state.rows:,} rows"
            await self._wait(reason, "there are more, or else once the same load command is run again")
        elif self._rows:
            await self._some_freed(_SOON)
        else:
            reason = f"{state.sending:,} rows are leased to other workers"
            await self._wait(reason, "they have sent them, or their leases end")

    async def _checked(self, kind: Kind, entries: list[Entry], outcomes: StreamOutcomes) -> list[Outgoing]:
        """Keep the rows that can be valid; the others are rejected, and their entries removed."""
        taken: list[Outgoing] = []
        rejected: list[tuple[str, Rejected]] = []
        for entry in entries:
            if entry.line in self._rows and not entry.foreign:
                continue
            match unpacked(kind, entry):
                case Rejected() as row:
                    rejected.append((entry.id, row))
                case outgoing:
                    self._rows[entry.line] = outgoing.row
                    taken.append(outgoing)
        if rejected:
            await outcomes.rejected(rejected)
            for _, row in rejected:
                await self.telling.row(RowFailed(row.line, (), None, with_field(row.field, row.reason)))
        return taken

    def _heard(self, new: int, state: State) -> None:
        self._written += new
        self._tally.hear(state)
        self._freed.set()

    async def _some_freed(self, seconds: float | None) -> None:
        self._freed.clear()
        if self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            # Not for ever: what sets the end need not free anything.
            async with asyncio.timeout(_LATER if seconds is None else seconds):
                await self._freed.wait()

    async def _wait(self, reason: str, until: str) -> None:
        """Wait a little for something else than the service."""
        now = self._loop.time()
        if self._waited is None:
            self._waited = now
        waited = now - self._waited
        if waited >= _UNTOLD:
            self._waiting = True
            self.telling.emit(Waiting(reason, waited, until))
        await self._some_freed(min(_LATER, _SOON + waited / 4))

    def _come(self) -> None:
        """What was waited for is there."""
        if self._waited is not None and self._waiting:
            self.telling.emit(Resumed(self._loop.time() - self._waited))
        self._waited, self._waiting = None, False

    # Signs of life

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(min(self._lease / 3, _OFTEN))
            self._tally.hear(await self._store.keep(self._consumer, self._info(), list(self._rows)))

    async def _keep_series(self) -> None:
        while self._recorder is not None:
            await asyncio.sleep(_SAVE_EVERY)
            await self._store.save_series(self._consumer, self._session(""))
        await asyncio.Event().wait()

    def _info(self, how: str = "") -> str:
        """What is known of this worker."""
        return json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self._since,
                "rows": self._written,
                "lease": self._lease,
                "how": how,
            }
        )

    def _session(self, how: str) -> str:
        """How its calls went; "" when nobody watched."""
        if self._recorder is None:
            return ""
        session = {
            "started": self._since,
            "ended": time.time() if how else None,
            "how": how,
            "series": self._recorder.series.to_json(),
        }
        return json.dumps(session)
