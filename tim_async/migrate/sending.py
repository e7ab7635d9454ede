"""The sending part of a run: rows go to workers, and each outcome to the ledger.

::

    feeder:  unsettled rows → their groups looked up → `sending` saved → queue
    workers: queue → one call, however long the service is away → outcome saved

A row keeps its place among ``concurrency`` until its outcome is durable, so that a process that is killed leaves no
more rows of unknown fate than that.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tim_async.errors import APIError, AuthError, ClientClosed, TIMError

from ._rows import Kind, Row
from .events import Counts, RowFailed, RowLowered
from .groups import Groups
from .journal import shortened
from .outage import Patience, Stopped, passes
from .supervision import end, result_of, together

if TYPE_CHECKING:
    from tim_async.client import TIMClient


@dataclass(slots=True)
class Outgoing:
    """A row on its way.

    Attributes:
        row: the row.
        since: when an earlier run handed it over, unix seconds; None if none did.
        messages: how many its group holds; None when that is not known.
        begun: whether this run has handed it to the client.
    """

    row: Row
    since: int | None
    messages: int | None = None
    begun: bool = False


class OutcomeSink(Protocol):
    """Where outcomes are saved; whoever brings one waits until it is durable."""

    async def sending(self, lines: list[int], at: int) -> None:
        """Rows are about to be handed to the client, at a unix time in seconds."""

    async def unsent(self, lines: list[int]) -> None:
        """Rows were not handed over after all."""

    async def done(self, line: int) -> None:
        """A row was taken."""

    async def lowered(self, line: int, messages: int) -> None:
        """A row was taken, with a number above the group's messages."""

    async def failed(self, line: int, code: int | None, reason: str) -> None:
        """A row was refused."""


class Counting(Protocol):
    """Knows how many rows are in which state."""

    @property
    def too_many_errors(self) -> str:
        """What is said of more errors than are borne; "" when they are not."""

    def move(self, before: str, after: str, rows: int = 1) -> None:
        """So many rows went from one state to another."""


class Tally:
    """How many rows are in which state, by what this run knows.

    Args:
        counts: by what the journal knew when it began.
        most_errors: failed and rejected rows that are borne; infinity for any number.
    """

    def __init__(self, counts: Counts, most_errors: float = math.inf) -> None:
        self._counts = Counter({name: getattr(counts, name) for name in Counts.__slots__})
        self._most_errors = most_errors

    @property
    def counts(self) -> Counts:
        """The rows by state."""
        return Counts(**self._counts)

    @property
    def too_many_errors(self) -> str:
        """What is said of more errors than are borne; "" when they are not."""
        errors = self._counts["failed"] + self._counts["rejected"]
        if errors <= self._most_errors:
            return ""
        return f"{errors:,} rows failed or were rejected, and {self._most_errors:g} may"

    def move(self, before: str, after: str, rows: int = 1) -> None:
        """So many rows went from one state to another."""
        self._counts[before] -= rows
        self._counts[after] += rows


class Sender:
    """Sends all rows there are.

    Args:
        client: carries the calls out.
        kind: what the rows are.
        concurrency: rows under way at once.
        take: gives the next rows, some hundreds; none at the end.
        groups: looks their groups up; None where that is not wanted.
        ledger: saves what becomes of them.
        tally: counts it.
        patience: outlasts the service.
        stop: set when the run is to end; it is set here, too, when there are too many errors.
        tell: reports a row that failed or was lowered; it may wait.
    """

    def __init__(
        self,
        client: TIMClient,
        kind: Kind,
        concurrency: int,
        *,
        take: Callable[[], Awaitable[list[Outgoing]]],
        groups: Groups | None,
        ledger: OutcomeSink,
        tally: Counting,
        patience: Patience,
        stop: asyncio.Event,
        tell: Callable[[RowFailed | RowLowered], Awaitable[None]],
    ) -> None:
        self._client = client
        self._kind = kind
        self._concurrency = concurrency
        self._take = take
        self._groups = groups
        self._ledger = ledger
        self._tally = tally
        self._patience = patience
        self._stop = stop
        self._tell = tell
        self._queue: asyncio.Queue[Outgoing | None] = asyncio.Queue(concurrency)
        self._slots = asyncio.Semaphore(concurrency)
        # One more than places: at concurrency 1, too, an outage can be told from one row's own trouble.
        self._workers = concurrency + 1
        self._unsent: list[int] = []

    async def send_all(self) -> None:
        """Send until there are no more rows, or until the run is to end and what is under way is finished.

        Raises:
            AuthError, PermissionDenied, ClientClosed: nothing more can be sent.
            OutageTooLong: the service took nothing for longer than allowed.
            SourceError, JournalError: rows can no longer be read, or outcomes no longer be saved.
        """
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._feed()), *(loop.create_task(self._work()) for _ in range(self._workers))]
        try:
            await self._until_done(tasks)
        finally:
            await end(tasks)
        if self._unsent:
            self._tally.move("sending", "pending", len(self._unsent))
            await self._ledger.unsent(self._unsent)

    async def _until_done(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for all, or for the first that fails; in an outage a stop ends them at once."""
        stopping = asyncio.create_task(_set(self._stop))
        pending = set(tasks)
        try:
            while pending:
                waiting = pending if stopping.done() else {*pending, stopping}
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    result_of(task)
                pending -= done
                if stopping in done and self._patience.down:
                    return
        finally:
            await end([stopping])

    async def _feed(self) -> None:
        while not self._stop.is_set() and (window := await self._take()):
            try:
                window = await self._accepted(window)
            except Stopped:
                break
            for piece in _pieces(window, self._concurrency):
                if self._stop.is_set():
                    break
                await self._ledger.sending([outgoing.row.line for outgoing in piece], int(time.time()))
                self._hand_over(piece)
                for outgoing in piece:
                    await self._queue.put(outgoing)
        self._patience.last_calls = True
        for _ in range(self._workers):
            await self._queue.put(None)

    async def _accepted(self, window: list[Outgoing]) -> list[Outgoing]:
        """Those rows whose groups take them, with what is known of the groups; the others fail."""
        if self._groups is None:
            return window
        groups = await self._groups.look_up(str(outgoing.row.values[0]) for outgoing in window)
        accepted: list[Outgoing] = []
        refused: list[Outgoing] = []
        for outgoing in window:
            group = groups[str(outgoing.row.values[0])]
            outgoing.messages = group.messages
            (refused if group.reason else accepted).append(outgoing)
        self._hand_over(refused)
        found = [(outgoing, groups[str(outgoing.row.values[0])]) for outgoing in refused]
        await together(*(self._fail(outgoing, group.code, group.reason) for outgoing, group in found))
        return accepted

    def _hand_over(self, window: list[Outgoing]) -> None:
        """Count rows as under way; those of an earlier run are so already."""
        self._tally.move("pending", "sending", sum(outgoing.since is None for outgoing in window))

    async def _work(self) -> None:
        while (outgoing := await self._queue.get()) is not None:
            try:
                await self._patience.carry_out(self._call(outgoing))
            except Stopped:
                if not outgoing.begun and outgoing.since is None:
                    self._unsent.append(outgoing.row.line)
            except (AuthError, ClientClosed):
                raise
            except TIMError as error:
                await self._fail(outgoing, _code(error), str(error))

    def _call(self, outgoing: Outgoing) -> Callable[[int], Awaitable[None]]:
        """What sends a row and saves its outcome, unless that passes."""
        handed_over = int(time.time())

        async def call(rounds: int) -> None:
            # A row without a time of its own, once it may have been sent, sends the time of then.
            pinned = handed_over if outgoing.since is None and rounds else outgoing.since
            async with self._slots:
                if self._stop.is_set():
                    raise Stopped
                outgoing.begun = True
                try:
                    await self._kind.send(self._client, outgoing.row, pinned)
                except TIMError as error:
                    if passes(error) or isinstance(error, AuthError | ClientClosed):
                        raise
                    await self._fail(outgoing, _code(error), str(error))
                else:
                    await self._succeed(outgoing)

        return call

    async def _succeed(self, outgoing: Outgoing) -> None:
        row, messages = outgoing.row, outgoing.messages
        number = row.values[2]
        if messages is None or not isinstance(number, int) or number <= messages:
            await self._ledger.done(row.line)
            self._tally.move("sending", "done")
            return
        await self._ledger.lowered(row.line, messages)
        self._tally.move("sending", "lowered")
        await self._tell(RowLowered(row.line, row.values, messages))

    async def _fail(self, outgoing: Outgoing, code: int | None, reason: str) -> None:
        row, reason = outgoing.row, shortened(reason)  # what is told is what is kept
        await self._ledger.failed(row.line, code, reason)
        self._tally.move("sending", "failed")
        if self._tally.too_many_errors:
            self._stop.set()
        await self._tell(RowFailed(row.line, row.values, code, reason))


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _pieces(window: list[Outgoing], size: int) -> Iterator[list[Outgoing]]:
    return (window[start : start + size] for start in range(0, len(window), size))


def _code(error: TIMError) -> int | None:
    return error.code if isinstance(error, APIError) else None
