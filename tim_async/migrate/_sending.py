"""The sending part of a run.

::

    exchange: outcomes → store, claims ← store ──> admit: their groups looked up ──> queue
    workers:  queue → one call, however long the service is unreachable → outcome

A row counts against ``concurrency`` from its claim until its outcome is durable.  This bounds the rows whose outcome is
unknown after a kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tim_async.errors import APIError, AuthError, ClientClosed, TIMError, brief

from ._breaker import CircuitBreaker, Stopped
from ._event_queue import EventQueue, Wait
from ._groups import GroupFound, Groups
from ._options import MigrateOptions
from ._recorder import Recorder
from ._rows import Kind
from ._store import Calls, Claim, Exchange, Outcome, Pace, RowState, Store, shortened, with_field
from ._supervision import beside, outlast, result_of, set_within
from .events import Counts, PaceChanged, RowFailed, RowLowered

if TYPE_CHECKING:
    from tim_async.client import TIMClient

_GATHER = 0.02
"""Seconds for which outcomes are gathered: an exchange costs a round trip, or a write to disk, whatever it holds."""
_DRAIN = 5.0
"""Seconds for calls in flight to finish once a run is to end."""
_SOON, _LATER = 0.1, 1.0
"""Seconds between two polls of a store without rows to claim, at first and at most."""

_SILENT_POLLS = 5
"""Polls of such a store before the wait is reported."""


class Sender:
    """Sends all rows that a store gives out.

    Args:
        client: makes the calls.
        kind: the kind of the rows.
        store: gives the rows and takes their outcomes.
        options: the options for sending.
        counts: the rows by state.
        breaker: waits out the service's outages.
        recorder: counts the attempts; None when they are not counted.
        stop: set when the run is to end; set here, too, when there are too many errors.
        events: the queue of the run's events.

    Attributes:
        too_many_errors: the error message when errors exceed ``max_errors``, else "".
    """

    def __init__(
        self,
        client: TIMClient,
        kind: Kind,
        store: Store,
        options: MigrateOptions,
        *,
        counts: Counts,
        breaker: CircuitBreaker,
        recorder: Recorder | None,
        stop: asyncio.Event,
        events: EventQueue,
    ) -> None:
        self._client = client
        self._kind = kind
        self._store = store
        self._groups = Groups(client, breaker) if options.group_check and kind.groups else None
        self._breaker = breaker
        self._recorder = recorder
        self._stop = stop
        self._events = events
        self._wait = Wait(events.emit)
        self._options = options
        self._pace = (options.rate, options.share)
        self._rows_left = options.limit
        # At least two, so that at concurrency 1, too, another row shows whether a failure is an outage.
        self._capacity = max(2, options.concurrency)
        self._enough = self._capacity // 2
        self._slots = asyncio.Semaphore(options.concurrency)
        self._in_flight: set[int] = set()
        self._claimed: asyncio.Queue[list[Claim]] = asyncio.Queue()
        self._queue: asyncio.Queue[Claim] = asyncio.Queue()
        self._outcomes: list[tuple[Outcome, RowFailed | RowLowered | None]] = []
        self._unsent: list[int] = []
        self._exhausted = False
        self._again = 0
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._counts = events.counts = counts
        self.too_many_errors: str = ""
        self._check_errors()

    @property
    def limited(self) -> bool:
        """Whether this run has claimed as many rows as its ``limit``."""
        return self._rows_left == 0

    async def send_all(self) -> None:
        """Send until no rows are left, or until the run is to end and the calls in flight have finished.

        Raises:
            AuthError, PermissionDenied, ClientClosed: nothing more can be sent.
            OutageTooLong: the service accepted nothing for longer than allowed.
            JournalError: the store failed.
        """
        workers = (self._work() for _ in range(self._capacity))
        try:
            await beside(self._exchange_all(), self._admit_all(), self._end(), self._store.keep(), *workers)
        except Stopped:
            pass
        finally:
            if self._outcomes:
                await self._exchange(0)
            if self._unsent:
                await self._store.release(sorted(self._unsent))
                self._counts = self._events.counts = await self._store.counts()

    # Between the store and the workers

    async def _exchange_all(self) -> None:
        """Exchange outcomes for claims until no rows are left to claim and all outcomes are saved."""
        polls = 0
        while True:
            room = self._free()
            reply = await self._exchange(room) if room or self._outcomes else None
            if reply is not None and room:
                self._exhausted = reply.exhausted
            self._breaker.last_calls = self._exhausted or self._rows_left == 0
            if not self._in_flight and not self._free():
                self._wait.end()
                return
            if reply is not None and reply.rejected and not reply.claims:
                continue
            if reply is None or reply.claims or not self._free():
                polls = 0
                self._wait.end()
                await self._gather()
            else:
                polls += 1
                await self._wait_for_others(reply, polls)

    def _free(self) -> int:
        """Return the number of rows that may be claimed now."""
        if self._exhausted or self._stop.is_set():
            return 0
        room = self._capacity - len(self._in_flight) + len(self._outcomes)
        return room if self._rows_left is None else min(room, self._rows_left)

    async def _exchange(self, room: int) -> Exchange:
        finished, self._outcomes = self._outcomes, []
        reply = await self._exchange_shielded([outcome for outcome, _ in finished], room)
        self._counts = self._events.counts = reply.counts
        for outcome, _ in finished:
            self._in_flight.remove(outcome.line)
        for claim in reply.claims:
            self._in_flight.add(claim.row.line)
            self._again += claim.again
        if self._rows_left is not None:
            self._rows_left -= len(reply.claims)
        if reply.claims:
            self._claimed.put_nowait(reply.claims)
        if reply.pace is not None:
            self._set_pace(reply.pace)
        self._check_errors()
        for _, event in finished:
            if event is not None:
                await self._events.row(event)
        for row in reply.rejected:
            await self._events.row(RowFailed(row.line, (), None, with_field(row.field, row.reason)))
        return reply

    async def _exchange_shielded(self, outcomes: list[Outcome], room: int) -> Exchange:
        """Finish an exchange even when the caller is cancelled: its outcomes must not be lost."""
        exchanging: asyncio.Task[Exchange] = asyncio.ensure_future(self._store.exchange(outcomes, room, self._calls()))
        try:
            await outlast(exchanging)
        except asyncio.CancelledError:
            if not exchanging.cancelled() and exchanging.exception() is None:
                self._unsent += [claim.row.line for claim in exchanging.result().claims]
            raise
        return result_of(exchanging)

    def _calls(self) -> Calls:
        total = self._recorder
        if total is None:
            return Calls(again=self._again)
        return Calls(total.sent, total.done, total.refused, total.faults, total.retried, self._again)

    def _set_pace(self, pace: Pace) -> None:
        """Apply a pace set during the run."""
        rate, share = self._pace = (pace.rate or self._pace[0], pace.share or self._pace[1])
        endpoint = self._kind.endpoint.name
        if self._options.shared_quota:
            self._client.set_rate(endpoint, rate, bulk_share=share)
        else:
            self._client.set_rate(endpoint, rate * share)
        self._events.emit(PaceChanged(rate, share))

    def _check_errors(self) -> None:
        errors = self._counts.errors + sum(outcome.state is RowState.FAILED for outcome, _ in self._outcomes)
        if errors > self._options.most_errors and not self.too_many_errors:
            self.too_many_errors = (
                f"{errors:,} failed or rejected rows exceed --max-errors {self._options.most_errors:,.0f}"
            )
            self._stop.set()

    async def _gather(self) -> None:
        """Wait for the first outcome, and then briefly for more."""
        await self._some.wait()
        await set_within(self._many, _GATHER)
        self._some.clear()
        self._many.clear()

    async def _wait_for_others(self, reply: Exchange, polls: int) -> None:
        """Wait briefly for rows that other workers have claimed."""
        if not self._in_flight and polls > _SILENT_POLLS:
            reason = f"{reply.counts.sending:,} rows are leased to other workers"
            self._wait.report(reason, "they have sent them, or their leases end")
        await set_within(self._some, min(_LATER, _SOON * polls))
        self._some.clear()  # or the next wait would end at once: the exchange that follows takes all outcomes

    async def _admit_all(self) -> None:
        """Queue the claimed rows whose groups accept them; the others fail."""
        while True:
            claims = await self._claimed.get()
            try:
                groups = await self._look_up(claims)
            except Stopped:
                groups = {}
            for claim in claims:
                group = groups.get(str(claim.row.values[0]))
                if self._stop.is_set():
                    self._drop(claim)
                elif group is not None and group.reason:
                    self._fail(claim, group.code, group.reason)
                else:
                    claim.messages = None if group is None else group.messages
                    self._queue.put_nowait(claim)

    async def _look_up(self, claims: list[Claim]) -> Mapping[str, GroupFound]:
        if self._groups is None:
            return {}
        return await self._groups.look_up(str(claim.row.values[0]) for claim in claims)

    async def _end(self) -> None:
        """Once the run is to end, give back the queued rows, and wait a bounded time for the calls in flight.

        Raises:
            Stopped: the time is over.
        """
        await self._stop.wait()
        while not self._queue.empty():
            self._drop(self._queue.get_nowait())
        self._wake()
        await asyncio.sleep(0.0 if self._breaker.is_open else _DRAIN)
        raise Stopped

    def _drop(self, claim: Claim) -> None:
        """Give back a row that was not sent."""
        self._in_flight.remove(claim.row.line)
        self._unsent.append(claim.row.line)
        self._wake()

    def _wake(self) -> None:
        self._some.set()
        self._many.set()

    # Workers

    async def _work(self) -> None:
        while True:
            claim = await self._queue.get()
            begun = False

            async def call(claim: Claim = claim) -> None:
                nonlocal begun
                async with self._slots:
                    if self._stop.is_set():
                        raise Stopped
                    begun = True
                    await self._kind.send(self._client, claim.row, claim.since)

            try:
                await self._breaker.call(call)
            except Stopped:
                if not begun:
                    self._drop(claim)
                else:  # its outcome is unknown: it stays claimed
                    self._in_flight.remove(claim.row.line)
                    self._wake()
            except (AuthError, ClientClosed):
                raise
            except TIMError as error:
                self._fail(claim, error.code if isinstance(error, APIError) else None, brief(error))
            else:
                self._succeed(claim)

    def _succeed(self, claim: Claim) -> None:
        row, messages = claim.row, claim.messages
        number = row.values[2]
        if messages is None or not isinstance(number, int) or number <= messages:
            self._settle(Outcome(row.line, RowState.DONE), None)
        else:
            self._settle(Outcome(row.line, RowState.LOWERED), RowLowered(row.line, row.values, messages))

    def _fail(self, claim: Claim, code: int | None, reason: str) -> None:
        row, reason = claim.row, shortened(reason)  # the event has the reason as it is kept
        self._settle(Outcome(row.line, RowState.FAILED, code, reason), RowFailed(row.line, row.values, code, reason))
        self._check_errors()

    def _settle(self, outcome: Outcome, event: RowFailed | RowLowered | None) -> None:
        self._outcomes.append((outcome, event))
        self._some.set()
        if len(self._outcomes) >= self._enough:
            self._many.set()
