"""A shared migration as anybody may look at it at any time, without taking part."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from . import _redis_replies as replies
from ._redis_link import TIMEOUT, Link, Tell
from ._redis_status import failures_of, status_of
from ._rows import KINDS, BadField, Kind, Row
from ._store import About, FailureCount, Pace, Problem, Status
from .errors import JournalError
from .events import Counts

DEFAULT_NAME = "migration"
"""The name of a shared migration, unless there are several in one database."""
LAYOUT = 2
"""Version of what ``_lua`` keeps; to be raised when its keys or fields change their meaning."""

_NAME = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")
BATCH = 500
"""Rows in one step: some thousandths of a second of the store's time."""
_REASONS = {
    "none": "there is no {what}",
    "old": "{what} was loaded by an earlier release; finish it with that one, or load the file under another --name",
    "stray": "{what} is damaged: some of its keys are gone, or something else made them; --restart starts over",
    "gone": "{what} is gone: another load replaced it, it was dropped, or the store has lost it; load the file again",
    "incomplete": "{what} went back to an earlier state, in which not all rows were loaded; run the same load command"
    " again",
    "full": "something else has added entries to {what}, and no row can be put behind them; load the file under another"
    " --name",
    "left": "{rows:,} rows of {what} are left: send them first, or drop it with --yes",
    "lost": "{what} has lost {rows:,} rows without an outcome: it was trimmed, or damaged; load the file again by"
    " --restart, or under another --name",
}
"""What the errors of ``_lua`` mean."""


def checked_name(name: str) -> str:
    """Check the name of a shared migration.

    Raises:
        ValueError: it cannot be one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a stream's name is 1 to 100 characters without white space and braces, not {name!r}")
    return name


def key_of(name: str, part: str) -> str:
    """A key of a shared migration; one hash tag keeps all of them on one node of a cluster."""
    return f"tim_async:{{migration:{name}}}:{LAYOUT}:{part}"


class RedisReader:
    """What is known of a shared migration.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with a password if the store needs one.
        stream: the migration's name; several can be in one database.
        stop: set when the run is to end; then an unreachable store is not waited for much longer.
        tell: called while something is waited for, with the reason and the seconds so far, and with None afterwards.

    Attributes:
        name: the URL without its password.
        stream: as given.

    Raises:
        ValueError: a URL or a name that cannot be.
    """

    def __init__(self, url: str, stream: str, stop: asyncio.Event, tell: Tell) -> None:
        self.stream: str = checked_name(stream)
        old = f"tim_async:{{migration:{stream}}}:about"
        self._link = Link(url, [self._key("about"), old], stop, tell)
        self.name: str = self._link.shown
        self._id = ""
        self._about: About | None = None

    def _key(self, part: str) -> str:
        return key_of(self.stream, part)

    @property
    def _what(self) -> str:
        return f"stream {self.stream} at {self.name}"

    async def counts(self) -> Counts:
        """See `Store.counts`."""
        reply = await self._call("counts")
        with self._reading():
            return replies.progress_of(reply).counts

    async def failures(self) -> list[FailureCount]:
        """See `Store.failures`."""
        reply = await self._call("failures")
        with self._reading():
            return failures_of(reply)

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
        place: int | None = after
        while place is not None and most > 0:
            reply = await self._call("accepted", after=place, most=min(most, BATCH))
            rows = []
            with self._reading():
                place = reply.get("after")
                for found in replies.as_list(reply["rows"])[:most]:
                    with contextlib.suppress(BadField):  # nobody has sent it
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
            raise JournalError(f"{self._what} holds rows of an unknown kind, {kind!r}")
        return KINDS[kind]

    async def _scan(self, part: str) -> AsyncIterator[tuple[str, str]]:
        """The fields of a hash, each at least once."""
        cursor = -1
        while cursor:
            cursor, found = await self._link.scan(self._key(part), max(0, cursor))
            for pair in found.items():
                yield pair

    async def drop(self, *, anyway: bool = False) -> None:
        """Erase the migration, and free its memory.

        Args:
            anyway: although rows are left.

        Raises:
            JournalError: rows are left, or there is no such migration.
        """
        await self._call("drop", anyway=anyway)

    async def outlives(self) -> str:
        """Have what was written outlive a restart of the store, where it can; why it may not, "" if it does."""
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
            reasons.append(f"may evict rows when its memory is full (maxmemory-policy {policy})")
        return f"the store {' and '.join(reasons)}" if reasons else ""

    # One step

    async def _call(self, op: str, *, tolerated: str = "", **arguments: Any) -> dict[str, Any]:
        """Have the store carry out an operation.

        Args:
            op: its name in ``_lua``.
            tolerated: an error that the caller takes as a reply.
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
        what = self._what
        return JournalError(_REASONS.get(name, f"{what} is damaged: {name!r}").format(what=what, rows=rows))

    def _read_about(self, found: Mapping[str, Any]) -> About:
        with self._reading():
            return replies.about_of(found["about"])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what reading a damaged reply raises into a plain error."""
        try:
            yield
        except replies.UNREADABLE as error:
            raise JournalError(
                f"{self._what} is damaged: {type(error).__name__}: {error}; --restart starts over"
            ) from error
