"""The outcomes of rows, on their way to the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence

from tim_async.migrate._rows import Kind, Rejected, Row
from tim_async.migrate.journal import shortened
from tim_async.migrate.rejects import document_of, with_field

from .about import State
from .errors import StoreError
from .store import Store

_MOST = 1000
"""Outcomes that are written in one step."""


def cause_of(code: int | None, reason: str) -> str:
    """What failures have in common: the code; or the reason, of which those without a code have few."""
    return f":{reason}" if code is None else str(code)


def rejection_of(field: str, reason: str) -> str:
    """What rejected rows have in common: the field at fault; or the reason, where it is the row as a whole."""
    return f"!{field or reason}"


class StreamOutcomes:
    """Writes outcomes to the store; the caller who brings one waits until it is there, or cannot be written.

    One step at a time: what comes meanwhile is gathered for the next.

    Args:
        store: where to.
        kind: what the rows are.
        rows: those in hand, by line; each is taken out once its outcome is written.
        written: called with how many were new, and how far the stream is.
    """

    def __init__(self, store: Store, kind: Kind, rows: dict[int, Row], written: Callable[[int, State], None]) -> None:
        self._store = store
        self._kind = kind
        self._rows = rows
        self._written = written
        self._new: list[tuple[tuple[str, str, str, str, str], asyncio.Future[None]]] = []
        self._some = asyncio.Event()
        self._closing = False
        self._broken: Exception | None = None
        self._writer = asyncio.get_running_loop().create_task(self._write())
        # A callback, since a task that is cancelled before its first step carries nothing out.
        self._writer.add_done_callback(self._ended)

    async def sending(self, lines: list[int], at: int) -> None:
        """Do nothing: the store knows who took a row."""

    async def unsent(self, lines: list[int]) -> None:
        """Nothing: all that is still in hand at the end is given back."""

    async def done(self, line: int) -> None:
        """A row was taken."""
        await self._save((f"{line}-0", "done", "", "", ""))

    async def lowered(self, line: int, messages: int) -> None:  # noqa: ARG002 - the store keeps no more than how many
        """A row was taken, with a number above the group's messages."""
        await self._save((f"{line}-0", "lowered", "", "", ""))

    async def failed(self, line: int, code: int | None, reason: str) -> None:
        """A row was refused."""
        reason = shortened(reason)
        document = json.dumps(document_of(self._kind, self._rows[line], code, reason))
        await self._save((f"{line}-0", "failed", cause_of(code, reason), reason, document))

    async def rejected(self, entries: Sequence[tuple[str, Rejected]]) -> None:
        """Entries cannot be rows; each by its id."""
        saving = []
        for id_, row in entries:
            reason = shortened(with_field(row.field, row.reason))
            document = json.dumps(document_of(self._kind, row, None, reason))
            saving.append(self._save((id_, "rejected", rejection_of(row.field, reason), reason, document)))
        await asyncio.gather(*saving)

    async def close(self) -> None:
        """Write what is left.

        Raises:
            StoreError: it could not be.
        """
        self._closing = True
        self._some.set()
        try:
            await self.watch()
        finally:
            self._writer.cancel()

    async def watch(self) -> None:
        """Wait until nothing more is written.

        Raises:
            Exception: what ended it, when that was not `close`.
        """
        await asyncio.wait([self._writer])
        self._ended(self._writer)
        if self._broken is not None:
            raise self._broken

    async def _save(self, outcome: tuple[str, str, str, str, str]) -> None:
        if self._broken is not None:
            raise self._broken
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._new.append((outcome, waiter))
        self._some.set()
        await waiter

    def _ended(self, writer: asyncio.Task[None]) -> None:
        """See to it that nobody is left waiting, however the writer ended."""
        error = StoreError("outcomes are no longer written") if writer.cancelled() else writer.exception()
        if self._broken is None and isinstance(error, Exception):
            self._broken = error
        for _, waiter in self._new:
            if self._broken is not None and not waiter.done():
                waiter.set_exception(self._broken)
                waiter.exception()  # seen: a caller that was cancelled meanwhile will not look

    async def _write(self) -> None:
        while not (self._closing and not self._new):
            await self._some.wait()
            self._some.clear()
            while self._new:
                batch = self._new[:_MOST]
                new, state = await self._store.record([outcome for outcome, _ in batch])
                del self._new[: len(batch)]
                for (id_, *_), waiter in batch:
                    line, _, part = id_.partition("-")
                    if part == "0":  # or else it was rejected, and is no row
                        self._rows.pop(int(line), None)
                    with contextlib.suppress(asyncio.InvalidStateError):  # of a caller that was cancelled
                        waiter.set_result(None)
                self._written(new, state)
