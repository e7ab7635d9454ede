"""The outcomes of rows, on their way to the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from tim_async.migrate.errors import MigrateError
from tim_async.migrate.journal import shortened
from tim_async.migrate.rejects import document_of
from tim_async.migrate.rows import Kind, Row

from .about import State
from .store import Store

_MOST = 1000
"""Outcomes that are written in one step."""


def cause_of(code: int | None, reason: str) -> str:
    """What failures have in common: the code; or the reason, of which those without a code have few."""
    return f":{reason}" if code is None else str(code)


class StreamOutcomes:
    """Writes outcomes to the store; whoever brings one waits until it is there.

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
        self._broken: MigrateError | None = None
        self._writer = asyncio.get_running_loop().create_task(self._write())

    async def sending(self, lines: list[int], at: int) -> None:
        """Nothing: whoever takes a row from the stream is known to hold it."""

    async def unsent(self, lines: list[int]) -> None:
        """Nothing: all that is still in hand at the end is given back."""

    async def done(self, line: int) -> None:
        """A row was taken."""
        await self._save((str(line), "done", "", "", ""))

    async def lowered(self, line: int, messages: int) -> None:  # noqa: ARG002 - the store keeps no more than how many
        """A row was taken, with a number above the group's messages."""
        await self._save((str(line), "lowered", "", "", ""))

    async def failed(self, line: int, code: int | None, reason: str) -> None:
        """A row was refused."""
        reason = shortened(reason)
        document = json.dumps(document_of(self._kind, self._rows[line], code, reason))
        await self._save((str(line), "failed", cause_of(code, reason), reason, document))

    async def close(self) -> None:
        """Write what is left.

        Raises:
            StoreError: it could not be.
        """
        self._closing = True
        self._some.set()
        await self._writer

    async def _save(self, outcome: tuple[str, str, str, str, str]) -> None:
        if self._broken is not None:
            raise self._broken
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._new.append((outcome, waiter))
        self._some.set()
        await waiter

    async def _write(self) -> None:
        while not (self._closing and not self._new):
            await self._some.wait()
            self._some.clear()
            while self._new:
                batch, self._new = self._new[:_MOST], self._new[_MOST:]
                try:
                    new, state = await self._store.record([outcome for outcome, _ in batch])
                except MigrateError as error:
                    self._broken = error
                    for _, waiter in (*batch, *self._new):
                        if not waiter.done():
                            waiter.set_exception(error)
                            waiter.exception()  # seen: a caller that was cancelled meanwhile will not look
                    raise
                for outcome, waiter in batch:
                    self._rows.pop(int(outcome[0]), None)
                    with contextlib.suppress(asyncio.InvalidStateError):  # of a caller that was cancelled
                        waiter.set_result(None)
                self._written(new, state)
