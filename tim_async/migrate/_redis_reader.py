"""Read access to a shared migration, at any time and without joining it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tim_async._redis_clients import Client

from . import _redis_replies as replies
from ._event_queue import Wait
from ._redis_link import TIMEOUT, RedisLink, Tell
from ._redis_status import status_of
from ._rows import KINDS, BadField, Kind, Row
from ._store import About, Pace, Problem, Status
from .errors import JournalError
from .events import Counts

DEFAULT_NAME = "migration"
"""The default name of a shared migration; several in one database need different names."""
LAYOUT = 2
"""The version of the data of ``_lua``, to be raised when its keys or fields change their meaning."""

_PARTS = (
    "rows",
    "counts",
    "states",
    "moved",
    "replaced",
    "claims",
    "problems",
    "causes",
    "workers",
    "series",
    "recent",
    "pace",
    "notes",
)
_NAME = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")
_REPLICAS, _SILENT, _POLL = 60.0, 2.0, 0.1
"""Seconds to wait for replicas at most, before the wait is reported, and between two polls."""
BATCH = 500
"""Rows in one request: a few milliseconds of the store's time."""
_REASONS = {
    "none": "there is no {what}",
    "old": "{what} was loaded by an earlier release; finish it with that one, or load the file under another --name",
    "new": "{what} was loaded by a later release; use that one, or load the file under another --name",
    "stray": "{what} is damaged: some of its keys are gone, or belong to something else; --restart starts over",
    "gone": "{what} is gone: another load replaced it, it was dropped, or the store has lost it; load the file again",
    "incomplete": "{what} went back to an earlier state, in which not all rows were loaded; run the same load command"
    " again",
    "full": "another program has added entries to {what}, and no row can be added after them; load the file under"
    " another --name",
    "left": "{rows:,} rows of {what} are left: send them first, or drop it with --yes",
    "lost": "{what} has lost {rows:,} rows without an outcome: it was trimmed, or damaged; load the file again by"
    " --restart, or under another --name",
}
"""The messages for the errors of ``_lua``."""


def checked_name(name: str) -> str:
    """Return a name of a shared migration.

    Raises:
        ValueError: it is invalid.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a stream's name is 1 to 100 characters without white space and braces, not {name!r}")
    return name


def key_of(name: str, part: str) -> str:
    """Return a key of a shared migration; one hash tag keeps all keys on one node of a cluster."""
    return f"tim_async:{{migration:{name}}}:{LAYOUT}:{part}"


def _keys_of(name: str) -> list[str]:
    """Return the keys in the order in which ``_lua/keys.lua`` names them."""
    unversioned = [f"tim_async:{{migration:{name}}}:{part}" for part in ("about", "layout")]
    return [key_of(name, "about"), *unversioned, *(key_of(name, part) for part in _PARTS)]


class RedisReader:
    """Reads a shared migration.

    Args:
        store: its URL, as `tim_async._stores` reads it; or a client of ``redis.asyncio``, which is never closed.
        stream: the migration's name; several can be in one database.
        stop: set when the run is to end; bounds the wait for an unreachable store.
        tell: called with a `Waiting` during a wait, and with a `Resumed` at its end.

    Attributes:
        name: the store's URL without its password.
        stream: the migration's name.

    Raises:
        TypeError, ValueError: an invalid store or name.
    """

    def __init__(self, store: str | Client, stream: str, stop: asyncio.Event, tell: Tell) -> None:
        self.stream: str = checked_name(stream)
        self._stop = stop
        self._tell = tell
        self._link = RedisLink(store, _keys_of(stream), stop, tell)
        self.name: str = self._link.shown
        self._id = ""
        self._about: About | None = None

    @property
    def _shown(self) -> str:
        return f"stream {self.stream} at {self.name}"

    async def counts(self) -> Counts:
        """See `Store.counts`."""
        reply = await self._call("counts")
        with self._reading():
            return replies.progress_of(reply).counts

    async def status(self) -> Status:
        """See `Store.status`."""
        reply = await self._call("status")
        series = {name: text async for name, text in self._scan("series")}
        with self._reading():
            return status_of(self.name, self.stream, reply, series)

    async def problems(self) -> AsyncIterator[Problem]:
        """See `Store.problems`."""
        kind = await self._look_up_kind()
        names = {name async for name, _ in self._scan("problems")}
        with self._reading():
            ordered = sorted(names, key=replies.place_of)
        for first in range(0, len(ordered), BATCH):
            reply = await self._call("problems", names=ordered[first : first + BATCH])
            with self._reading():
                found = [replies.problem_of(kind, problem) for problem in replies.as_list(reply["problems"])]
            for problem in found:
                yield problem

    async def accepted(self, after: int, most: int) -> AsyncIterator[Row]:
        """See `Store.accepted`."""
        kind = await self._look_up_kind()
        last: int | None = after
        while last is not None and most > 0:
            reply = await self._call("accepted", after=last, most=min(most, BATCH))
            rows = []
            with self._reading():
                last = reply.get("after")
                for found in replies.as_list(reply["rows"])[:most]:
                    with contextlib.suppress(BadField):  # an invalid row was never sent
                        rows.append(replies.row_of(kind, replies.as_number(found["line"]), found["values"]))
            most -= len(rows)
            for row in rows:
                yield row

    async def set_pace(self, pace: Pace) -> None:
        """See `Store.set_pace`."""
        changed = {name: str(value) for name, value in asdict(pace).items() if value is not None}
        await self._call("set_pace", pace=changed)

    async def note(self, name: str, value: str | None = None) -> str:
        """See `Store.note`."""
        given = {} if value is None else {"value": value}
        return str((await self._call("note", name=name, **given))["value"])

    async def _look_up_kind(self) -> Kind:
        if self._about is None:
            self._about = self._read_about(await self._call("look"))
        return self._kind

    @property
    def _kind(self) -> Kind:
        kind = "" if self._about is None else self._about.kind
        if kind not in KINDS:
            raise JournalError(f"{self._shown} holds rows of an unknown kind, {kind!r}")
        return KINDS[kind]

    async def _scan(self, part: str) -> AsyncIterator[tuple[str, str]]:
        """Yield the fields of a hash, each at least once."""
        cursor = "0"
        while True:
            reply = await self._call("scan", part=part, cursor=cursor)
            with self._reading():
                cursor, found = str(reply["cursor"]), replies.as_list(reply["fields"])
                pairs = list(zip(found[::2], found[1::2], strict=True))
            for pair in pairs:
                yield pair
            if cursor == "0":
                return

    async def drop(self, *, anyway: bool = False) -> None:
        """Erase the migration, and free its memory.

        Args:
            anyway: erase it even if rows are left.

        Raises:
            JournalError: rows are left, or there is no such migration.
        """
        await self._call("drop", anyway=anyway)

    async def make_durable(self) -> str:
        """Wait until all writes would survive a restart of the store and a failover, as far as its settings allow.

        Returns:
            The reasons why they may not survive; "" for none.
        """
        reasons = []
        info = await self._info_of("persistence", "memory")
        if info.get("aof_enabled", "1") == "0":
            reasons.append(
                "keeps no append-only file (appendonly is off), so that a restart loses rows, all or those since its"
                " last snapshot"
            )
        else:
            await self._link.wait_for_disk(TIMEOUT / 2)
        if not await self.replicated():
            reasons.append("has a replica that lags, so that a failover now loses rows")
        policy = info.get("maxmemory_policy", "")
        if policy.startswith("allkeys"):
            reasons.append(f"may evict rows when its memory is full (maxmemory-policy {policy})")
        return f"the store {' and '.join(reasons)}" if reasons else ""

    async def replicated(self) -> bool:
        """Wait until all replicas have all writes so far; return whether they have.

        The command WAIT would not do: it is for the writes of its own connection, and a client may use another one.
        """
        loop = asyncio.get_running_loop()
        began, wanted, wait = loop.time(), -1, Wait(self._tell)
        while True:
            info = await self._info_of("replication")
            if wanted < 0:
                wanted = int(info.get("master_repl_offset", "0"))
            behind = [one for one in info.values() if (offset := _offset(one)) is not None and offset < wanted]
            waited = loop.time() - began
            if not behind or waited >= _REPLICAS or self._stop.is_set():
                wait.end()
                return not behind
            if waited >= _SILENT:
                wait.report(f"a replica of the store at {self.name} lags", "it has all rows", began)
            await asyncio.sleep(_POLL)

    async def _info_of(self, *sections: str) -> dict[str, str]:
        """Return the sections of INFO that the user may read."""
        lines = str((await self._call("info", sections=sections)).get("info", "")).splitlines()
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}

    # One request

    async def _call(self, op: str, *, tolerated: str = "", **arguments: Any) -> dict[str, Any]:
        """Execute an operation in the store, and return its reply.

        Args:
            op: its name in ``_lua``.
            tolerated: an error that is returned as a reply.
            arguments: its arguments.
        """
        request = {"op": op, **arguments}
        if self._id:
            request["id"] = self._id
        reply = await self._link.run(request)
        error = reply.get("error", tolerated)
        if error != tolerated:
            raise self._error(str(error), reply.get("rows", 0))
        return reply

    def _error(self, name: str, rows: int = 0) -> JournalError:
        what = self._shown
        return JournalError(_REASONS.get(name, f"{what} is damaged: {name!r}").format(what=what, rows=rows))

    def _read_about(self, found: Mapping[str, Any]) -> About:
        with self._reading():
            return replies.about_of(found["about"])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn the exceptions raised by a damaged reply into a `JournalError`."""
        try:
            yield
        except replies.UNREADABLE as error:
            raise JournalError(
                f"{self._shown} is damaged: {type(error).__name__}: {error}; --restart starts over"
            ) from error


def _offset(text: str) -> int | None:
    """Return the replication offset from INFO's line on a replica; None if it is not online."""
    found = re.search(r"state=online,offset=(\d+)", text)
    return int(found[1]) if found else None
