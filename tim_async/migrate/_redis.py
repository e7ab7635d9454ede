"""A store that many machines share: the rows of a migration on a stream of Redis or Valkey, and any number of workers.

It needs the extra ``redis``, and a server that has XAUTOCLAIM: Redis 6.2 or later, or any Valkey.

Guarantees:

- *The last row of a member wins.*  Only that row stays on the stream, and no worker claims a row before all are
  planned.  So workers need no order, and no late attempt can overwrite another value.  A superseded row is kept with
  its values: when the row after it is mended to another member, it becomes pending again.
- *Nothing is lost.*  An outcome is written in one step with the acknowledgement of its entry.  A claim that is not
  renewed for the length of a lease passes to another worker, and the row is sent a second time.
- *Nothing is counted twice.*  When two workers have sent a row, for instance because one was suspended for longer than
  its lease, the first reported outcome counts.  Outcomes are by entry: that of a row mended meanwhile is ignored.
- *Only rows of the file are sent.*  An entry that another program added, or that is not a valid row, is rejected.
- *A row without a time of its own* is sent with the store's time, which is kept there before it is first sent.

All of this holds as long as the store keeps what it has confirmed, which depends on its persistence.  A store that
restarts, or whose replica takes over, returns to an earlier state: rows whose outcomes came after that are sent again
with the same values, and if not all rows were planned by then, the same command plans them again.  With
``appendfsync everysec`` it loses the last second, with snapshots only the time since the last one, and without
persistence everything: workers then end with an error, and the file has to be loaded again.  Two kinds of data must not
be lost, and wait for all replicas: planned rows before the first of them can be claimed, and mended rows before they
are sent.  And no two rows get the same entry id, even from a store that has lost the first row: an outcome of the first
would count for the second.

The state of each row is a number of four bits; an entry stays on the stream once it is settled, so that it can be
verified.  An entry's id is ``<line>-0``; an entry that was mended or became pending again is added after all others,
and its id ends with the time in microseconds.
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from tim_async._redis_clients import Client

from . import _redis_replies as replies
from ._event_queue import Wait
from ._redis_link import Tell
from ._redis_reader import BATCH, DEFAULT_NAME, RedisReader, checked_name, key_of
from ._rows import Rejected, Row
from ._store import (
    About,
    Calls,
    Claim,
    Exchange,
    Mended,
    Outcome,
    Pace,
    RowState,
    differing,
    mismatch,
)
from ._supervision import set_within
from .errors import JournalError

__all__ = ["DEFAULT_LEASE", "DEFAULT_NAME", "RedisStore", "checked_name", "key_of"]

DEFAULT_LEASE = 10.0
"""Seconds of silence after which a worker counts as dead."""
_LONGEST_SILENCE = 3.0
"""Seconds between two signs of life, at most: in time also for workers with other leases."""
_FORGET_AFTER = 3600
"""Seconds of silence after which a worker is not expected to return."""
_SOON, _LATER = 0.1, 1.0
"""Seconds between two polls for a migration that does not exist yet, at first and at most."""


class _Held(NamedTuple):
    """A claimed entry: its id, and whether its row may have been sent by an earlier claim."""

    id: str
    again: bool


class RedisStore(RedisReader):
    """Shares a migration among machines; see `Store` for its methods.

    `open` fails at once if the store is unreachable, and so do the methods that may be called without it.  After
    `open`, every method waits for an unreachable store; `join` always does.

    Args:
        store: its URL: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://…`` or ``redis+cluster://…``,
            with a password if the store needs one.  Or a client of ``redis.asyncio``: `Redis`, also one from
            ``Sentinel(…).master_for(…)``, or `RedisCluster`; it is never closed.
        stream: the migration's name; several can be in one database.
        lease: seconds of silence after which other workers take over a worker's rows; the same for all.
        stop: set when the run is to end; bounds the wait for an unreachable store.
        tell: called with a `Waiting` during a wait, and with a `Resumed` at its end.

    Attributes:
        name: the store's URL without its password.
        stream: the migration's name.

    Raises:
        TypeError, ValueError: an invalid store, name or lease.
    """

    def __init__(
        self,
        store: str | Client,
        stream: str = DEFAULT_NAME,
        *,
        lease: float = DEFAULT_LEASE,
        stop: asyncio.Event | None = None,
        tell: Tell | None = None,
    ) -> None:
        if not 0 < lease < math.inf:
            raise ValueError(f"lease must be above 0, not {lease}")
        super().__init__(store, stream, stop or asyncio.Event(), tell or (lambda _: None))
        self._lease = lease
        self._position = 0
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._began: float | None = None
        self._held: dict[int, _Held] = {}
        self._calls = Calls()
        self._pace: Mapping[str, str] = {}
        self._took_over = -math.inf

    # Begin and end

    async def open(self, about: About, *, restart: bool = False) -> About | None:
        """See `Store.open`.  An incomplete plan starts over; if another process is still planning, it fails."""
        new = uuid.uuid4().hex
        found = await self._call("open", about=replies.about_to_fields(about), restart=restart, new=new)
        self._link.waits = True
        if "about" in found:
            return await self._enter(found, about)
        self._id, self._about, self._position = new, about, 0
        return None

    async def join(self, sdk_app_id: int, base_url: str) -> About | None:
        """Join a migration, for an app, once it exists and all its rows are loaded.

        Returns:
            Its identity; None when the run is to end before that.

        Raises:
            JournalMismatch: it is for another app.
        """
        self._link.waits = True
        began, polls, wait = asyncio.get_running_loop().time(), 0, Wait(self._tell)
        while not self._stop.is_set():
            found = await self._call("look", tolerated="none")
            if "about" in found and found["about"].get("complete") == "1":
                wait.end()
                wanted = replace(self._read_about(found), sdk_app_id=sdk_app_id, base_url=base_url)
                return await self._enter(found, wanted)
            if polls:  # the first wait is too short to report
                exists = "about" in found
                reason = f"not all rows of {self._shown} are loaded yet" if exists else f"there is no {self._shown} yet"
                wait.report(reason, "all are loaded; a load that was cut short needs the same command again", began)
            polls += 1
            await set_within(self._stop, min(_LATER, _SOON * polls))
        return None

    async def _enter(self, found: Mapping[str, Any], wanted: About) -> About:
        """Join a migration, if it is the expected one."""
        about = self._read_about(found)
        if not (differences := differing(about, wanted)):
            self._id = str(found["about"].get("id"))
            if wanted.sdk_app_id and not about.sdk_app_id:
                bound = replies.about_to_fields(wanted)
                app = {name: bound[name] for name in ("sdk_app_id", "base_url")}
                about = self._read_about(await self._call("bind", app=app))
                differences = differing(about, wanted)  # another worker may have bound it first
        if differences:
            self._id = ""
            raise mismatch(self.name, differences)
        self._about = about
        self._pace = found.get("pace") or {}
        return about

    def hurry(self) -> None:
        """See `Store.hurry`."""
        self._link.hurry()

    async def close(self, how: str = "") -> None:
        """See `Store.close`."""
        try:
            if self._id and (how or self._began is not None):
                # Rows that cannot be given back now are claimed by others once the lease has expired.
                self._link.hurry()
                with contextlib.suppress(JournalError):
                    info = self._info(how or "interrupted")
                    await self._call("close", worker=self._worker, info=info, lease=self._lease_ms)
        finally:
            self._id = ""
            await self._link.close()

    # Rows in

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """See `Store.plan`."""
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            upto = batch[-1].line
            await self._call("plan", after=self._position, upto=upto, rows=[replies.packed(row) for row in batch])
            self._position = upto

    async def planned(self, fingerprint: str) -> None:
        """See `Store.planned`.  Replicas have all rows before the first can be claimed."""
        await self.replicated()
        await self._call("planned", fingerprint=json.dumps(fingerprint))

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """See `Store.mend`."""
        given = {row.line: row for row in rows}  # the last of a line wins
        lines = sorted(given)
        results: dict[int, str] = {}
        # In ascending order, so that no row is superseded by a row of a later batch that still has its old values.
        for first in range(0, len(lines), BATCH):
            batch = lines[first : first + BATCH][::-1]
            packed = [replies.packed(given[line]) for line in batch]
            reply = await self._call("mend", rows=packed, once=uuid.uuid4().hex, lease=self._lease_ms)
            with self._reading():
                results.update(zip(batch, replies.as_list(reply["results"]), strict=True))
        await self.replicated()  # a failover must not bring the old values back
        totals = Counter(results.values())
        skipped, busy = (tuple(line for line in lines if results[line] == one) for one in ("skipped", "busy"))
        return Mended(totals["left"], totals["superseded"], totals["rejected"], skipped, busy)

    # Rows out

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """See `Store.exchange`."""
        self._calls = calls
        if self._began is None:
            self._began = time.time()
        reply = await self._exchange([self._settled(outcome) for outcome in outcomes], room)
        for outcome in outcomes:
            del self._held[outcome.line]
        with self._reading():
            entries = [replies.entry_of(self._kind, entry) for entry in replies.as_list(reply["claims"])]
        rejected = [(entry, entry.row) for entry in entries if isinstance(entry.row, Rejected)]
        if rejected:
            settled = [_addressed(entry, RowState.REJECTED) | replies.rejection(row) for entry, row in rejected]
            reply = await self._exchange(settled, 0)
        claims = []
        for entry in entries:
            if isinstance(entry.row, Claim) and entry.row.row.line not in self._held:
                self._held[entry.row.row.line] = _Held(entry.id, entry.row.again)
                claims.append(entry.row)
        with self._reading():
            progress = replies.progress_of(reply)
        if room > 0 and not entries and progress.left > progress.delivered:
            raise self._error("lost", progress.left - progress.delivered)
        return Exchange(
            claims=claims,
            counts=progress.counts,
            # Entries claimed by a request whose reply was lost are this worker's, but not in `_held`.
            exhausted=progress.left == 0 or progress.left == progress.mine == len(self._held),
            rejected=[row for _, row in rejected],
            pace=self._new_pace(reply),
        )

    async def _exchange(self, settled: list[dict[str, Any]], room: int) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        left_first = room > 0 and now >= self._took_over + self._lease / 4
        if left_first:
            self._took_over = now
        return await self._call(
            "exchange",
            settled=settled,
            room=room,
            lease=self._lease_ms,
            left_first=left_first,
            forget_after=_FORGET_AFTER,
            worker=self._worker,
            info=self._info(),
        )

    @property
    def _lease_ms(self) -> int:
        return math.ceil(1000 * self._lease)

    def _settled(self, outcome: Outcome) -> dict[str, Any]:
        settled = {"id": self._held[outcome.line].id, "line": outcome.line, "state": outcome.state + 1}
        if outcome.state is RowState.FAILED:
            settled |= replies.failure(outcome.code, outcome.reason)
        return settled

    def _new_pace(self, reply: Mapping[str, Any]) -> Pace | None:
        found = reply.get("pace") or {}
        changed = {name: found[name] for name in found if found[name] != self._pace.get(name)}
        self._pace = found
        values: dict[str, float] = {}
        for name, most in (("rate", math.inf), ("share", 1.0)):
            with contextlib.suppress(*replies.UNREADABLE):
                value = float(changed[name].split()[1])
                if 0 < value <= most and value < math.inf:
                    values[name] = value
        return Pace(**values) if values else None

    async def release(self, lines: Sequence[int]) -> None:
        """See `Store.release`."""
        held = [(line, self._held[line]) for line in lines]
        rows = [{"line": line, "id": id_, "unsent": not again} for line, (id_, again) in held]
        await self._call("release", rows=rows, worker=self._worker)
        for line in lines:
            del self._held[line]

    async def keep(self) -> None:
        """See `Store.keep`."""
        while True:
            await asyncio.sleep(min(self._lease / 3, _LONGEST_SILENCE))
            ids = [held.id for held in self._held.values()]
            await self._call("keep", ids=ids, worker=self._worker, info=self._info())

    async def save_series(self, series: str) -> None:
        """See `Store.save_series`."""
        await self._call("save_series", series=series, worker=self._worker)

    def _info(self, how: str = "") -> str:
        """Return this worker's state as JSON, for the status."""
        now = max(self._began or 0.0, time.time())  # the clock may have been set back
        info = {"started": self._began or now, "ended": now if how else None, "how": how, "lease": self._lease}
        return json.dumps(info | {"calls": asdict(self._calls)})


def _addressed(entry: replies.Entry, state: RowState) -> dict[str, Any]:
    """Return the id, the line and the new state of an entry, as a request has them."""
    line = {} if entry.line is None else {"line": entry.line}
    return {"id": entry.id, "state": state + 1, **line}
