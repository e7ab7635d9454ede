"""A store that many machines share: the rows of a migration on a stream of Redis or Valkey, and any number of workers.

It needs the extra ``redis``, and a server that knows XAUTOCLAIM: Redis 6.2 or later, or any Valkey.

What it guarantees, and how:

- *The last row of a member wins.*  Only that row stays on the stream, and no worker claims a row before all are
  planned.  So workers need no order, and no late attempt can overwrite another value.  A row that was superseded is
  remembered with its values: when the row after it is mended to another member, it becomes pending again.
- *Nothing is lost.*  An outcome is written in one step with the acknowledgement of its entry.  A claim that is not
  renewed for the time of a lease passes to another worker, and the row is sent a second time.
- *Nothing is counted twice.*  Of two workers that both sent a row, as when one was suspended for longer than its lease,
  the first to report the outcome counts.  Outcomes go by entries: one of a row that was mended meanwhile is ignored.
- *Only rows of the file are sent.*  An entry that something else added, or that is no valid row, is rejected.
- *A row without a time of its own* is sent with the store's time, kept there before it is first sent.

What depends on the store's persistence: all of this holds while the store keeps what it has replied.  A store that
restarts, or whose replica takes over, is in its state of some earlier moment: rows whose outcomes came after that are
sent again with the same values, and rows that were not all planned by then are planned again by the same command.
With ``appendfsync everysec`` it is the last second, with snapshots alone the time since the last one, and without
persistence all of it: workers then end with an error, and the file has to be loaded again.  Two things must not be
lost, and wait for all replicas: rows before the first of them can be claimed, and what was mended before it is sent.
And no entry's id is given to two rows, not even by a store that has forgotten the first: an outcome of that would
count for the second.

The state of each row is a number of four bits; an entry stays on the stream once it is settled, so that it can be
verified.  An entry's id is ``<line>-0``; one that was mended or became pending again is put behind all others, and its
id ends with the time in microseconds.
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
    State,
    differing,
    mismatch,
)
from .errors import JournalError

__all__ = ["DEFAULT_LEASE", "DEFAULT_NAME", "RedisStore", "checked_name", "key_of"]

DEFAULT_LEASE = 10.0
"""Seconds without a sign of life after which a worker counts as dead."""
_OFTEN = 3.0
"""Seconds between two signs of life, at most: workers with other leases hear them in time, too."""
_FORGET_AFTER = 3600
"""Seconds of silence after which a worker is not expected to come back."""
_SOON, _LATER = 0.1, 1.0
"""Seconds between two looks for a migration that is not there yet, at first and at most."""


class _Held(NamedTuple):
    """A claimed entry: its id, and whether its row may have been sent by an earlier claim."""

    id: str
    again: bool


class RedisStore(RedisReader):
    """Shares a migration among machines; see `Store` for its methods.

    `open` fails at once where the store cannot be reached, as does what needs neither `open` nor `join`.  From then on,
    and by `join` at any time, an unreachable store is waited for.

    Args:
        store: its URL: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://…`` or ``redis+cluster://…``,
            with a password if the store needs one.  Or a client of ``redis.asyncio``: `Redis`, also one from
            ``Sentinel(…).master_for(…)``, or `RedisCluster`; it is never closed.
        stream: the migration's name; several can be in one database.
        lease: seconds without a sign of life after which others take over what a worker holds; the same for all.
        stop: set when the run is to end; then an unreachable store is not waited for much longer.
        tell: called while something is waited for, with the reason and the seconds so far, and with None afterwards.

    Attributes:
        name: the store as it may be shown.
        stream: as given.

    Raises:
        TypeError, ValueError: a store, a name or a lease that cannot be.
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
        super().__init__(store, stream, stop or asyncio.Event(), tell or _silent)
        self._lease = lease
        self._position = 0
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._began: float | None = None
        self._held: dict[int, _Held] = {}
        self._calls = Calls()
        self._pace: Mapping[str, str] = {}
        self._looked = -math.inf

    # Begin and end

    async def open(self, about: About, *, restart: bool = False) -> About | None:
        """See `Store.open`.  A plan that was cut short begins anew; one that is under way elsewhere then fails."""
        new = uuid.uuid4().hex
        found = await self._call("open", about=replies.about_to_fields(about), restart=restart, new=new)
        self._link.patient = True
        if "about" in found:
            return await self._enter(found, about)
        self._id, self._about, self._position = new, about, 0
        return None

    async def join(self, sdk_app_id: int, base_url: str) -> About | None:
        """See `Store.join`.  Waits for a migration that is not there yet, or whose rows are not all loaded."""
        self._link.patient = True
        began = asyncio.get_running_loop().time()
        looks, waited = 0, 0.0
        while not self._stop.is_set():
            found = await self._call("look", tolerated="none")
            if "about" in found and found["about"].get("complete") == "1":
                if looks > 1:
                    self._tell(None, waited)
                wanted = replace(self._read_about(found), sdk_app_id=sdk_app_id, base_url=base_url)
                return await self._enter(found, wanted)
            waited = asyncio.get_running_loop().time() - began
            if looks:  # the first is not worth a word
                here = "about" in found
                reason = f"not all rows of {self._what} are loaded yet" if here else f"there is no {self._what} yet"
                self._tell(reason, waited, "all are loaded; a load that was cut short needs the same command again")
            looks += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LATER, _SOON * looks)):
                    await self._stop.wait()
        return None

    async def _enter(self, found: Mapping[str, Any], wanted: About) -> About:
        """Take part in a migration, if it is the wanted one."""
        about = self._read_about(found)
        if not (differences := differing(about, wanted)):
            self._id = str(found["about"].get("id"))
            if wanted.sdk_app_id and not about.sdk_app_id:
                bound = replies.about_to_fields(wanted)
                app = {name: bound[name] for name in ("sdk_app_id", "base_url")}
                about = self._read_about(await self._call("bind", app=app))
                differences = differing(about, wanted)  # another worker may have been faster
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
                # What cannot be given back now, others claim once the lease is over.
                self._link.hurry()
                with contextlib.suppress(JournalError):
                    info = self._info(how or "interrupted")
                    await self._call("close", worker=self._worker, info=info, lease=self._idle)
        finally:
            self._id = ""
            await self._link.close()

    # Rows in

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """See `Store.plan`."""
        for first in range(0, len(rows), BATCH):
            part = rows[first : first + BATCH]
            upto = part[-1].line
            await self._call("plan", after=self._position, upto=upto, rows=[replies.packed(row) for row in part])
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
        # By rising line, so that no row is superseded by one of a later step while it still has its old values.
        for first in range(0, len(lines), BATCH):
            part = lines[first : first + BATCH][::-1]
            packed = [replies.packed(given[line]) for line in part]
            reply = await self._call("mend", rows=packed, once=uuid.uuid4().hex, lease=self._idle)
            with self._reading():
                results.update(zip(part, replies.as_list(reply["results"]), strict=True))
        await self.replicated()  # what was mended must not come back with its old values
        many = Counter(results.values())
        skipped, busy = (tuple(sorted(line for line in lines if results[line] == one)) for one in ("skipped", "busy"))
        return Mended(many["left"], many["superseded"], many["rejected"], skipped, busy)

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
            settled = [_addressed(entry, State.REJECTED) | replies.rejection(row) for entry, row in rejected]
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
            # Entries that were claimed by a step whose reply was lost are this worker's, but not in hand.
            exhausted=progress.left == 0 or progress.left == progress.mine == len(self._held),
            held_by_others=max(0, progress.sending - min(progress.mine, len(self._held))),
            rejected=[row for _, row in rejected],
            pace=self._new_pace(reply),
        )

    async def _exchange(self, settled: list[dict[str, Any]], room: int) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        left_first = room > 0 and now >= self._looked + self._lease / 4
        if left_first:
            self._looked = now
        return await self._call(
            "exchange",
            settled=settled,
            room=room,
            lease=self._idle,
            left_first=left_first,
            forget_after=_FORGET_AFTER,
            worker=self._worker,
            info=self._info(),
        )

    @property
    def _idle(self) -> int:
        return math.ceil(1000 * self._lease)

    def _settled(self, outcome: Outcome) -> dict[str, Any]:
        settled = {"id": self._held[outcome.line].id, "line": outcome.line, "state": outcome.state + 1}
        if outcome.state is State.FAILED:
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
            await asyncio.sleep(min(self._lease / 3, _OFTEN))
            ids = [held.id for held in self._held.values()]
            await self._call("keep", ids=ids, worker=self._worker, info=self._info())

    async def save_series(self, series: str) -> None:
        """See `Store.save_series`."""
        await self._call("save_series", series=series, worker=self._worker)

    def _info(self, how: str = "") -> str:
        """What others are to know of this worker."""
        now = time.time()
        info = {"started": self._began or now, "ended": now if how else None, "how": how, "lease": self._lease}
        return json.dumps(info | {"calls": asdict(self._calls)})


def _addressed(entry: replies.Entry, state: State) -> dict[str, Any]:
    """What names an entry that is settled."""
    line = {} if entry.line is None else {"line": entry.line}
    return {"id": entry.id, "state": state + 1, **line}


def _silent(_reason: str | None, _seconds: float, _until: str = "") -> None:
    """Tell nobody."""
