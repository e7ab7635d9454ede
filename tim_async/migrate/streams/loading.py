"""Loading: the rows of a file, checked and without those that later ones supersede, onto a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tim_async.migrate._rows import Rejected, Row
from tim_async.migrate._sources import Source
from tim_async.migrate.errors import JournalError, SourceError
from tim_async.migrate.events import Counts, Reading, Resumed, Waiting
from tim_async.migrate.journal import Journal, Unsettled, shortened
from tim_async.migrate.ledger import Disk
from tim_async.migrate.outage import Stopped
from tim_async.migrate.rejects import document_of, with_field, write_documents, write_rejects
from tim_async.migrate.schema import About, FailureCount, differing
from tim_async.migrate.telling import Telling, running

from .about import StreamAbout
from .entries import packed
from .errors import StoreAway, StreamMismatch
from .events import Loaded, Loading
from .fleet import by_line
from .keys import DEFAULT_NAME
from .store import Store

_BATCH = 500
"""Rows that are put on the stream in one step: a thousandth of a second of the store's time."""

LoadEvent = Reading | Loading | Waiting | Resumed | Loaded


async def load(
    source: Source,
    url: str,
    *,
    name: str = DEFAULT_NAME,
    sdk_app_id: int | None = None,
    base_url: str | None = None,
    replace: bool = False,
    rejected: str | Path | None = None,
    stop: asyncio.Event | None = None,
) -> AsyncGenerator[LoadEvent, None]:
    """Put the rows of a source on a stream, or resume that.

    Each step puts some hundred rows there and advances the position of the load, both or neither; so whatever ends a
    load, the same call resumes it.  Workers may be there already, or come later.

    Args:
        source: the rows, such as a `FileSource`.
        url: the store: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with a password if it needs one.
        name: what to call the stream; several can be in one database.
        sdk_app_id: the app that the rows are for; None to leave it to the first worker.
        base_url: where the app is; goes with ``sdk_app_id``.
        replace: drop a stream of this name that is of something else.
        rejected: where rows that cannot be valid are written, as by `write_rejects`; None for nowhere.
        stop: set it to end the load early.

    Yields:
        `Reading` while the rows are read and checked, `Loading` while they go to the stream, `Waiting` and `Resumed`
        when the store is away meanwhile; `Loaded` as the last.

    Raises:
        ValueError: a URL or a name that cannot be.
        SourceError: the rows cannot be read, or change while they are loaded.
        StreamMismatch: the stream is of something else; nothing was changed.
        StoreError: the store refuses, cannot be reached in the first place, or loses the stream.
        JournalError: there is no room for temporary files.
        OSError: ``rejected`` cannot be written.
    """
    this = _Load(source, url, name, sdk_app_id, base_url, replace, rejected, stop)
    async with running(this.carry_out()) as task:
        async for event in this.telling.all(task):
            yield event


class _Load:
    def __init__(
        self,
        source: Source,
        url: str,
        name: str,
        sdk_app_id: int | None,
        base_url: str | None,
        replace: bool,
        rejected: str | Path | None,
        stop: asyncio.Event | None,
    ) -> None:
        self._app = {} if sdk_app_id is None else {"sdk_app_id": sdk_app_id, "base_url": base_url or ""}
        self._replace = replace
        self._rejected = rejected
        self._stop = asyncio.Event() if stop is None else stop
        self.telling = Telling()
        self._store = Store(url, name, stop=self._stop, tell=self._tell, patient=False)
        self._loop = asyncio.get_running_loop()
        self._disk = Disk()
        self._loaded = 0
        # Seen by the thread between two rows, however many there are.
        self._abandoned = threading.Event()
        self._source = _Stoppable(source, lambda: self._abandoned.is_set() or self._stop.is_set())

    def _tell(self, reason: str | None, seconds: float) -> None:
        self.telling.emit(Resumed(seconds) if reason is None else Waiting(reason, seconds, "the store is back"))

    async def carry_out(self) -> Loaded:
        """All of it."""
        try:
            async with self._store:
                return await self._in_store()
        except StoreAway:
            if not self._stop.is_set():
                raise
            return Loaded(False, False, Counts(), 0)
        finally:
            self._abandoned.set()
            await self._disk.close()

    async def _in_store(self) -> Loaded:
        fingerprint = await self._disk.do(self._source.fingerprint)
        found = await self._store.look()
        # Who loads is there to see whether the store is: only one that goes away later is waited for.
        self._store.wait_from_now_on()
        wanted = About(self._source.kind.name, self._source.name, fingerprint, dict(self._source.arguments), 0, "")
        if found is not None and (differences := self._differences(found, wanted)):
            if not self._replace:
                raise await self._mismatch(found, differences)
        elif found is not None and found.complete:
            return await self._known(found)
        try:
            temporary = await self._disk.do(lambda: tempfile.TemporaryDirectory(prefix="tim-async-"))
        except OSError as error:
            raise JournalError(f"no place for a temporary journal: {error.strerror or error}") from None
        try:
            return await self._load(Path(temporary.name) / "journal", wanted, found)
        finally:
            await self._disk.do(temporary.cleanup)

    def _differences(self, found: StreamAbout, wanted: About) -> str:
        then = asdict(found)
        if not found.sdk_app_id:
            then |= self._app
        now = {key: value for key, value in asdict(wanted).items() if key not in ("sdk_app_id", "base_url")}
        return differing(then, now | self._app)

    async def _mismatch(self, found: StreamAbout, differences: str) -> StreamMismatch:
        self._store.of(found)
        state, _, _ = await self._store.survey()
        return StreamMismatch(
            f"the stream {self._store.name} at {self._store.shown} is {differences}; {state.counts.left:,} of its"
            f" {state.rows:,} rows have no outcome yet. Give this file a stream of its own by --name, or drop that one"
            " by --replace."
        )

    async def _known(self, found: StreamAbout) -> Loaded:
        """What there is to say of a stream that is complete."""
        self._store.of(found)
        state, _, _ = await self._store.survey()
        counts = Counts(pending=state.rows, rejected=state.rejected, superseded=state.superseded)
        if self._rejected is not None and state.rejected:
            documents = await self._store.documents("rejected")
            await self._disk.do(_write_again, Path(self._rejected), documents)
        return Loaded(True, True, counts, state.loaded, found.failures)

    async def _load(self, path: Path, wanted: About, found: StreamAbout | None) -> Loaded:
        journal = await self._disk.do(Journal, path, wanted)
        rows = _Rows(self._source, journal)
        counts = Counts()
        try:
            await self._disk.do(self._plan, journal)
            counts = await self._disk.do(journal.counts)
            failures = await self._disk.do(journal.failures)
            about = await self._begin(wanted, found, counts, failures)
            await self._put(about, rows)
            state = await self._store.complete()
            if self._rejected is not None:
                await self._disk.do(write_rejects, self._source, path, self._rejected)
            warning = await self._store.outlives()
            return Loaded(bool(state.complete), False, counts, state.loaded, failures, warning)
        except Stopped:
            return Loaded(False, False, counts, self._loaded)
        finally:
            self._abandoned.set()
            await self._disk.do(rows.close)
            await self._disk.do(journal.close)

    def _plan(self, journal: Journal) -> None:
        for taken in journal.plan(self._source.read()):
            self._loop.call_soon_threadsafe(self.telling.emit, Reading(taken))

    async def _begin(
        self, wanted: About, found: StreamAbout | None, counts: Counts, failures: list[FailureCount]
    ) -> StreamAbout:
        about = StreamAbout(
            id=uuid.uuid4().hex,
            kind=wanted.kind,
            source=wanted.source,
            fingerprint=wanted.fingerprint,
            arguments=wanted.arguments,
            sdk_app_id=int(str(self._app.get("sdk_app_id", 0))),
            base_url=str(self._app.get("base_url", "")),
            rows=counts.pending,
            rejected=counts.rejected,
            superseded=counts.superseded,
            failures=failures,
        )
        another = found is not None and bool(self._differences(found, wanted))
        begun = await self._store.begin(about, replace=another)
        if differences := self._differences(begun, wanted):  # another load was faster
            raise await self._mismatch(begun, differences)
        self._store.of(begun)
        if self._app and not begun.sdk_app_id:
            begun = await self._store.bind(about.sdk_app_id, about.base_url)
            if differences := self._differences(begun, wanted):
                raise await self._mismatch(begun, differences)
        return begun

    async def _put(self, about: StreamAbout, rows: _Rows) -> None:
        """Put all rows on the stream that are not there."""
        position = about.position
        await self._disk.do(rows.begin, position)
        while True:
            upto, good, bad = await self._disk.do(rows.next)
            if not good and not bad:
                return
            there, state = await self._store.load(position, upto, good, bad)
            if there == upto:
                position = upto
            else:
                # An answer was lost, another load puts rows there too, or the store has gone back to an earlier state.
                position = there
                await self._disk.do(rows.begin, position)
            self._loaded = state.loaded
            self.telling.emit(Loading(state.loaded, about.rows))


class _Stoppable:
    """A source that is read until the load is to end.

    Args:
        source: the rows.
        stopped: whether it is.
    """

    def __init__(self, source: Source, stopped: Callable[[], bool]) -> None:
        self._source = source
        self._stopped = stopped
        self.kind = source.kind
        self.name = source.name
        self.arguments = source.arguments
        self.fingerprint = source.fingerprint

    def read(self) -> Iterator[Row | Rejected]:
        """Read each row.

        Raises:
            Stopped: the load is to end.
        """
        with contextlib.ExitStack() as stack:
            rows = self._source.read()
            if isinstance(rows, Generator):
                stack.callback(rows.close)
            for row in rows:
                if self._stopped():
                    raise Stopped
                yield row


class _Rows:
    """The rows that are to be on the stream, from any line on; it blocks.

    Args:
        source: where they are.
        journal: knows which of them.
    """

    def __init__(self, source: Source, journal: Journal) -> None:
        self._source = source
        self._journal = journal
        self._rows: Iterator[Row | Rejected] = iter(())
        self._wanted: list[Unsettled] = []
        self._at = 0
        self._after = 0

    def begin(self, after: int) -> None:
        """Begin after a line."""
        self.close()
        self._rows = self._source.read()
        self._wanted, self._at = [], 0
        self._after = after
        self._known = after

    def next(self) -> tuple[int, list[tuple[int, str, bool]], list[tuple[int, str]]]:
        """The next rows: the line they end at; the good ones, and the rejected ones.

        Raises:
            SourceError: the file has changed.
        """
        good: list[tuple[int, str, bool]] = []
        bad: list[tuple[int, str]] = []
        upto = self._after
        while len(good) + len(bad) < _BATCH:
            wanted = self._next_wanted()
            row = next((row for row in self._rows if row.line > self._after), None)
            if row is None:
                if wanted is not None:
                    raise self._changed()
                break
            upto = self._after = row.line
            if isinstance(row, Rejected):
                reason = shortened(with_field(row.field, row.reason))
                bad.append((row.line, json.dumps(document_of(self._source.kind, row, None, reason))))
            elif wanted is not None and row.line == wanted.line:
                if row.identity != wanted.identity:
                    raise self._changed()
                good.append((row.line, *packed(row)))
                self._at += 1
            elif wanted is not None and row.line > wanted.line:
                raise self._changed()
        return upto, good, bad

    def _next_wanted(self) -> Unsettled | None:
        if self._at == len(self._wanted):
            self._wanted, self._at = self._journal.unsettled(self._known, _BATCH), 0
            if self._wanted:
                self._known = self._wanted[-1].line
        return self._wanted[self._at] if self._wanted else None

    def _changed(self) -> SourceError:
        return SourceError(f"{self._source.name} has changed while its rows were loaded")

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._rows, Generator):
            self._rows.close()


def _write_again(path: Path, documents: dict[tuple[int, int], dict[str, Any]]) -> None:
    """Write the rejected rows of an earlier load that did not get so far."""
    if not path.exists():  # or else somebody may be mending them
        write_documents(path, lambda: by_line(documents))
