"""A stream as a migration uses it: what can be asked of it, and done to it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from . import scripts
from .about import State, StreamAbout
from .errors import StoreError
from .keys import KEYS, checked_name, keys_of
from .link import TIMEOUT, Link, Tell

T = TypeVar("T")


class Entry(NamedTuple):
    """One entry of a stream as it was taken; nothing of it has been checked.

    Attributes:
        id: its id; ``<line>-0`` for what load put there.
        fields: its fields and their values, in turn.
        pin: the time it is pinned to, unix seconds, "" for none.
        foreign: whether something other than load put it there.
    """

    id: str
    fields: list[str]
    pin: str
    foreign: bool

    @property
    def line(self) -> int:
        """The row's line."""
        return int(self.id.partition("-")[0])


class Store:
    """One stream of a store; to be entered with ``async with``.

    Args:
        url: the store's.
        name: the stream's.
        stop: set when the run is to end; then a store that is away is not waited for much longer.
        tell: called while the store is away, with why and the seconds so far, and with None once it is back.
        patient: whether a store that cannot be reached is waited for at all.

    Attributes:
        name: as given.

    Raises:
        ValueError: a URL or a name that cannot be.
    """

    def __init__(
        self, url: str, name: str, *, stop: asyncio.Event | None = None, tell: Tell | None = None, patient: bool = True
    ) -> None:
        self.name: str = checked_name(name)
        self._keys = keys_of(name)
        self._link = Link(url, self._keys, stop=stop, tell=tell, patient=patient)
        self._stream = ""

    async def __aenter__(self) -> Self:
        await self._link.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._link.__aexit__(kind, error, traceback)

    @property
    def shown(self) -> str:
        """The store's URL as it may be shown."""
        return self._link.shown

    def wait_from_now_on(self) -> None:
        """Be patient: what has been reached once will come back."""
        self._link.patient = True

    # The stream as a whole

    async def look(self) -> StreamAbout | None:
        """What the stream is of; None when there is none."""
        return self._about(await self._link.run(scripts.LOOK))

    async def begin(self, about: StreamAbout, *, replace: bool) -> StreamAbout:
        """Begin the stream, unless there is one; what it is of."""
        reply = await self._link.run(scripts.BEGIN, "replace" if replace else "keep", *about.to_fields())
        return self._known(reply)

    async def bind(self, sdk_app_id: int, base_url: str) -> StreamAbout:
        """Have the stream belong to an app, unless it does; what it is of."""
        return self._known(await self._of_stream(scripts.BIND, str(sdk_app_id), base_url))

    def of(self, about: StreamAbout) -> None:
        """Have all that follows be about this stream, and none that is begun later by the same name."""
        self._stream = about.id

    def _known(self, reply: list[Any]) -> StreamAbout:
        about = self._about(reply)
        if about is None:
            raise self._link.nonsense(ValueError("no stream"))
        return about

    def _about(self, reply: list[Any]) -> StreamAbout | None:
        match reply:
            case ["none"]:
                return None
            case ["stray"]:
                raise StoreError(
                    f"the stream {self.name} at {self.shown} is damaged: some of its keys are gone, or something else"
                    " made them; load with --replace begins anew"
                )
        fields = self._read(lambda: _dict(reply[1]))
        try:
            return StreamAbout.from_fields(fields)
        except ValueError as error:
            raise StoreError(f"{self._keys[0]} at {self.shown} is no stream of a migration: {error}") from None

    # Loading

    async def load(
        self, after: int, upto: int, rows: Sequence[tuple[int, str, bool]], rejected: Sequence[tuple[int, str]]
    ) -> tuple[int, State]:
        """Put rows on the stream.

        Args:
            after: the line that the load has got to, as the caller believes.
            upto: the line that it gets to by these.
            rows: each with its line, its values, and whether it needs a time.
            rejected: each with its line and its document.

        Returns:
            Where the load is now: ``upto``, or another line, when the caller was wrong and nothing was done; and how
            far the stream is.
        """
        args: list[str | int] = [after, upto, len(rows)]
        for line, values, needs_time in rows:
            args += (line, values, int(needs_time))
        for line, document in rejected:
            args += (line, document)
        reply = await self._of_stream(scripts.LOAD, *args)
        return self._read(lambda: (int(reply[1]), State.read(reply[2])))

    async def complete(self) -> State:
        """Have the load be complete.

        Raises:
            StoreError: rows are missing.
        """
        reply = await self._of_stream(scripts.COMPLETE)
        state = self._state(reply)
        if reply[0] == "missing":
            raise self.lost(abs(state.rows - state.settled - state.length))
        return state

    async def outlives(self) -> str:
        """Have what was written outlive the store's restart, where it can; why it may not, "" if it does."""
        reasons = []
        persistence = await self._link.info("persistence")
        if str(persistence.get("aof_enabled", "1")) == "0":
            reasons.append(
                "keeps no append-only file (appendonly is off), so that a restart loses rows, all or those since its"
                " last snapshot"
            )
        else:
            await self._link.wait_for_disk(TIMEOUT / 2)
        policy = str((await self._link.info("memory")).get("maxmemory_policy", ""))
        if policy.startswith("allkeys"):
            reasons.append(f"may throw rows away when its memory is full (maxmemory-policy {policy})")
        return f"the store {' and '.join(reasons)}" if reasons else ""

    # Working

    async def take(self, consumer: str, room: int, idle: float | None) -> tuple[list[Entry], State]:
        """Take rows to be sent.

        Args:
            consumer: who.
            room: how many at most.
            idle: take those first that nobody has answered for in so many seconds; None for new ones only.

        Returns:
            The entries; and how far the stream is.
        """
        reply = await self._of_stream(scripts.TAKE, consumer, room, "" if idle is None else math.ceil(1000 * idle))
        return self._read(lambda: ([_entry(*entry) for entry in reply[1]], State.read(reply[2])))

    async def record(self, outcomes: Sequence[tuple[str, str, str, str, str]]) -> tuple[int, State]:
        """Write outcomes.

        Args:
            outcomes: each an entry's id; "done", "lowered", "failed" or "rejected"; the cause, the reason and the
                document of one that failed or was rejected, else "".

        Returns:
            How many of them nobody had written before; and how far the stream is.
        """
        reply = await self._of_stream(scripts.RECORD, *(text for outcome in outcomes for text in outcome))
        return self._read(lambda: (int(reply[1]), State.read(reply[2])))

    async def keep(self, consumer: str, info: str, lines: Sequence[int]) -> State:
        """Renew the lease on rows, and give a sign of life."""
        return self._state(await self._of_stream(scripts.KEEP, consumer, info, *lines))

    async def leave(self, consumer: str, info: str, series: str) -> State:
        """Give everything back that a worker holds."""
        return self._state(await self._of_stream(scripts.LEAVE, consumer, info, series))

    async def save_series(self, consumer: str, series: str) -> None:
        """Save how a worker's calls went."""
        await self._of_stream(scripts.SERIES, consumer, series)

    # Looking

    async def survey(self) -> tuple[State, int, dict[str, dict[str, str]]]:
        """How far it is; the store's time, unix seconds; and the hashes of causes, firsts, workers, series, pace."""
        reply = await self._of_stream(scripts.SURVEY)
        names = ("causes", "firsts", "workers", "series", "pace")

        def read() -> tuple[State, int, dict[str, dict[str, str]]]:
            hashes = {name: _dict(part) for name, part in zip(names, reply[3:], strict=True)}
            return State.read(reply[1]), int(reply[2]), hashes

        return self._read(read)

    async def documents(self, key: str) -> dict[tuple[int, int], dict[str, Any]]:
        """The rows of ``failed`` or ``rejected``, by the two numbers of an entry's id: the line, and mostly 0."""
        where = self._keys[KEYS.index(key)]
        found: dict[tuple[int, int], dict[str, Any]] = {}
        cursor = 0
        while True:
            cursor, part = await self._link.scan(where, cursor)
            try:
                found.update((_position(id_), dict(json.loads(document))) for id_, document in part.items())
            except (TypeError, ValueError, RecursionError):
                raise StoreError(f"{where} at {self.shown} is damaged: it holds what is no row") from None
            if not cursor:
                return found

    def lost(self, rows: int) -> StoreError:
        """What there is to say of rows that are neither on the stream nor have an outcome."""
        many = f"{rows:,} {'row' if rows == 1 else 'rows'}"
        return StoreError(
            f"{many} of the stream {self.name} went missing at {self.shown} without an outcome: it was trimmed, or some"
            " of it lost; the file has to be loaded again, under another name"
        )

    # One step

    async def _of_stream(self, script: str, *args: str | int) -> list[Any]:
        reply = await self._link.run(script, self._stream, *args)
        if self._read(lambda: reply[0]) == "gone":
            raise StoreError(
                f"the stream {self.name} is gone from {self.shown}: the store has lost it, or it was replaced or"
                " deleted; load the file again"
            )
        return reply

    def _state(self, reply: list[Any]) -> State:
        return self._read(lambda: State.read(reply[1]))

    def _read(self, read: Callable[[], T]) -> T:
        """Read an answer, which may be that of something else than a store."""
        try:
            return read()
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._link.nonsense(error) from error


def _entry(id_: str, fields: list[str], pin: str | None, foreign: int) -> Entry:
    _position(id_)
    return Entry(id_, list(map(str, fields)), pin or "", bool(foreign))


def _position(id_: str) -> tuple[int, int]:
    """An entry's id as two numbers; the second may be left out."""
    line, _, part = id_.partition("-")
    return int(line), int(part or 0)


def _dict(pairs: Any) -> dict[str, str]:
    """What HGETALL answers, as a script hands it on."""
    if isinstance(pairs, dict):
        return pairs
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
