"""The commands ``unread``, ``read``, ``load`` and ``work``: one job, of which ``load`` and ``work`` are the halves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path

from tim_async.cli.failures import Misuse, print_traceback
from tim_async.cli.output import plain
from tim_async.cli.stdio import OutputLost
from tim_async.migrate import (
    KINDS,
    READ,
    Event,
    FileSource,
    JournalError,
    JournalMismatch,
    Kind,
    MendedSource,
    Recorder,
    Started,
)
from tim_async.migrate._engine import drive
from tim_async.migrate._kinds import kind_of
from tim_async.migrate.streams._names import Loaded

from . import signals
from .display import Display
from .ending import finish
from .files import STDIN, confirm, discarded_rows, is_pipe, query
from .settings import Settings, read_journal
from .tally import Tally

_READ_GRACE = 0.5
"""Seconds for reading to stop; no calls are in progress that would have to finish."""
_CALLBACK = "C2C.CallbackAfterMsgReport"
WEBHOOK_NOTE = f"note: for each row, the service calls the app's webhook {_CALLBACK}, if it is enabled"


def run_job(settings: Settings) -> int:
    """Run a job to its end; return the exit code.

    Raises:
        Misuse, Failure: the job could not start, or its journal is no longer readable.
        OutputLost: a standard stream was closed.
    """
    if settings.dry_run:
        from .dry_run import survey_file

        return survey_file(settings)
    job = _Job(settings)
    if settings.restart:
        _confirm_restart(settings)
    try:
        signals.run_interruptibly(job.run, lambda: signals.GRACE if job.tally.started else _READ_GRACE)
    except Exception as error:  # noqa: BLE001 - `finish` reports it, with the state of the rows
        job.tally.error = error
        print_traceback(error)
    return finish(settings, job.tally)


def source_of(settings: Settings) -> FileSource:
    """Return the rows of a file, of the kind that was given or else detected from the columns.

    Raises:
        Misuse: the kind cannot be detected, or an option is invalid.
    """
    try:
        if settings.kind is not None:
            return FileSource(settings.file, KINDS[settings.kind], **settings.source)
        if is_pipe(settings.file):
            raise Misuse("the kind of the rows cannot be detected in a pipe; use --kind unread or --kind read")
        kind = kind_of(settings.file, **settings.source)
        if kind is not None:
            return FileSource(settings.file, kind, **settings.source)
        # Raise the reason, with the columns of the more common kind.
        with FileSource(settings.file, KINDS["unread"], **settings.source) as source:
            next(iter(source.read()))
    except ValueError as error:
        raise Misuse(plain(str(error))) from None
    raise Misuse(
        f"the kind of the rows in {plain(settings.file)} is ambiguous: it has the columns of neither kind, or of both;"
        " use --kind unread or --kind read, and --map for columns with other names"
    )


def mended_of(settings: Settings, source: FileSource | None) -> MendedSource | None:
    """Return the rows of the edited file, if one was given."""
    if settings.mended is None:
        return None
    kind = KINDS[read_journal(settings)[0].kind] if source is None else source.kind
    options = {name: settings.source[name] for name in ("until_now", "strict_ids") if name in settings.source}
    return MendedSource(settings.mended, kind, **options)


def _confirm_restart(settings: Settings) -> None:
    """Ask for confirmation of --restart if the journal has rows."""
    journal = Path(settings.journal)
    try:
        found, _ = read_journal(settings)
        lost = discarded_rows(found) if found.counts.total else ""
    except JournalError:
        unreadable = not settings.in_store and journal.is_file() and journal.stat().st_size
        lost = f"{plain(str(journal))}, which is not readable" if unreadable else ""
    if lost:
        confirm(f"--restart discards {lost}.", yes=settings.yes)


class _Job:
    """A run and its display.

    Attributes:
        tally: the progress of the run, and finally its outcome.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = None if settings.command == "work" else source_of(settings)
        kinds = list(KINDS.values()) if self._source is None else [self._source.kind]
        endpoints = [kind.endpoint.name for kind in kinds]
        self._recorder = Recorder(endpoints, settings.limit)
        self._client = None if settings.command == "load" else settings.client(endpoints, self._recorder.attempt)
        self._mended = mended_of(settings, self._source)
        self.tally = Tally(self._recorder, settings.options.rate, settings.options.share)

    async def run(self, stop: asyncio.Event) -> None:
        """Run to the end, or until ``stop`` is set, and show the progress meanwhile."""
        display = Display(self.tally, as_json=self._settings.as_json)

        def lost(error: OutputLost) -> None:
            self.tally.error = error
            stop.set()

        async def announce_stop() -> None:
            await stop.wait()
            if self.tally.started and self.tally.error is None:
                display.say("finishing the calls in progress; press Ctrl-C again to stop now")

        display.on_output_lost = lost
        await display.run(self._follow(display, stop), announce_stop())

    async def _follow(self, display: Display, stop: asyncio.Event) -> None:
        file = self._settings.file
        if file and is_pipe(file):
            display.show_event(f"reading {'standard input' if file == STDIN else plain(file)}", None)
        async with contextlib.AsyncExitStack() as stack:
            if self._client is not None:
                await stack.enter_async_context(self._client)
            events = await stack.enter_async_context(contextlib.aclosing(self._events(stop)))
            async for event in events:
                self.tally.add(event)
                document = self.tally.json_event(event)
                if isinstance(event, Started) and event.counts.left and await self._kind() is READ:
                    display.show_event(WEBHOOK_NOTE, None)
                    document = document and (document[0], {**document[1], "webhook": _CALLBACK})
                display.show_event(self.tally.message(event), document)

    async def _kind(self) -> Kind | None:
        """Return the kind of the rows; a worker reads it from the stream."""
        if self._source is not None:
            return self._source.kind
        return KINDS.get((await query(self._settings.make_store, lambda store: store.status())).kind)

    def _events(self, stop: asyncio.Event) -> AsyncGenerator[Event | Loaded, None]:
        if self._client is None:
            return self._load(stop)
        return drive(
            self._client,
            self._settings.make_store,
            self._source,
            self._mended,
            restart=self._settings.restart,
            stop=stop,
            recorder=self._recorder,
            options=dataclasses.replace(self._settings.options, shared_quota=self._settings.quota_url is not None),
        )

    async def _load(self, stop: asyncio.Event) -> AsyncGenerator[Event | Loaded, None]:
        from tim_async.migrate.streams import load

        settings = self._settings
        assert self._source is not None
        for restart in (settings.restart, True):
            events = load(
                self._source, settings.journal, name=settings.name, restart=restart, stop=stop, **settings.app()
            )
            try:
                async with contextlib.aclosing(events):
                    async for event in events:
                        yield event
                return
            except JournalMismatch:
                if restart or not settings.replace:
                    raise
