"""Carries out ``unread``, ``read``, ``load`` and ``work``: one job, of which ``load`` and ``work`` are the halves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from tim_async.cli.failures import Misuse, trace
from tim_async.cli.output import plain, say
from tim_async.migrate import (
    KINDS,
    READ,
    Event,
    FileSource,
    Finished,
    JournalError,
    Kind,
    MendedSource,
    Recorder,
    Started,
)
from tim_async.migrate._engine import drive

from .display import Display
from .ending import Outcome, end
from .places import STDIN, asked, confirm, explained, forgetting, is_pipe
from .settings import Settings, read_status
from .signals import Stopping, run_stoppable
from .tally import Tally

_HASTE = 0.5
"""Seconds for reading to end: nothing has been sent that would have to finish."""
_WEBHOOK = "C2C.CallbackAfterMsgReport"


def carry_out(settings: Settings) -> int:
    """Carry out a job to its end, whatever that is.

    Returns:
        The exit code.

    Raises:
        Misuse, Failure: it could not begin, or its journal cannot be read any more.
        OutputLost: nobody reads what it prints.
    """
    with explained():
        if settings.dry_run:
            from .rehearsal import rehearse

            return rehearse(settings)
        job = _Job(settings)
        if settings.restart:
            _confirm_restart(settings)
        if settings.file and is_pipe(settings.file) and not settings.as_json:
            say(f"reading {'standard input' if settings.file == STDIN else plain(settings.file)}")
        try:
            run_stoppable(job.run)
        except Exception as error:  # noqa: BLE001 - whatever it was, the journal knows the rows, and that is reported
            job.outcome.error = error
            trace(error)
        return end(settings, job.outcome)


def kind_of(settings: Settings) -> Kind:
    """The kind of the rows of a file.

    Raises:
        Misuse: it cannot be told.
    """
    known = settings.what()
    if known is not None:
        return known
    if is_pipe(settings.file):
        raise Misuse("a pipe needs --kind unread or --kind read")
    from tim_async.migrate._kinds import kind_of as found_in

    found = found_in(settings.file, **settings.source)
    if found is None:
        # The reason why it is not of one kind, told for the more usual one.
        for _ in settings.open_source(KINDS["unread"]).read():
            break
        raise Misuse(
            f"{plain(settings.file)} has neither the columns of unread counts nor those of read conversations, or both;"
            " use --kind unread or --kind read, and --map for columns of other names"
        )
    return found


def _confirm_restart(settings: Settings) -> None:
    """Ask whether what a journal knows may be forgotten, if it knows something."""
    try:
        found = read_status(settings)
    except JournalError as error:
        if settings.in_store or Path(settings.journal).exists():
            say(f"--restart: {plain(str(error))}")
        return
    if found.counts.total:
        confirm(f"--restart forgets {forgetting(found)}.", yes=settings.yes)


def _mended_of(settings: Settings, source: FileSource | None) -> MendedSource:
    """The edited rows."""
    kind = KINDS[read_status(settings).kind] if source is None else source.kind
    options = {name: settings.source[name] for name in ("until_now", "strict_ids") if name in settings.source}
    return MendedSource(str(settings.mended), kind, **options)


class _Job:
    """A run and its display.

    Attributes:
        outcome: how it goes, and in the end how it ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        work = settings.command == "work"
        self._source: FileSource | None = None if work else settings.open_source(kind_of(settings))
        kinds = list(KINDS.values()) if self._source is None else [self._source.kind]
        endpoints = [kind.endpoint.name for kind in kinds]
        self._recorder = Recorder(endpoints, settings.limit)
        self._client = None if settings.command == "load" else settings.client(endpoints, self._recorder.attempt)
        self._mended = None if settings.mended is None else _mended_of(settings, self._source)
        self.outcome = Outcome(Tally(self._recorder, settings.options.rate, settings.options.share), self._recorder)

    async def run(self, stopping: Stopping) -> None:
        """Follow it to its end, and show it meanwhile."""
        display = Display(self.outcome.tally, as_json=self._settings.as_json)

        def begun() -> None:
            if self.outcome.tally.started:
                display.say("finishing the calls under way; Ctrl-C again to stop at once")
            else:
                asyncio.get_running_loop().call_later(_HASTE, stopping.cut)

        stopping.begun = begun
        await display.during(self._follow(display, stopping.event))

    async def _follow(self, display: Display, stop: asyncio.Event) -> None:
        tally = self.outcome.tally
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._client is not None:
                    await stack.enter_async_context(self._client)
                events = await stack.enter_async_context(contextlib.aclosing(self._events(stop)))
                async for event in events:
                    tally.take(event)
                    document = tally.document_of(event)
                    if isinstance(event, Started) and event.counts.left and await self._kind() is READ:
                        display.happened(
                            f"note: for each row, the service calls the app's webhook {_WEBHOOK}, if it is enabled",
                            None,
                        )
                        document = document and (document[0], {**document[1], "webhook": _WEBHOOK})
                    display.happened(tally.news(event), document)
                    if isinstance(event, Finished):
                        self.outcome.finished = event
        finally:
            self.outcome.seconds = tally.seconds

    def _events(self, stop: asyncio.Event) -> AsyncGenerator[Event, None]:
        settings = self._settings
        if self._client is None:
            from tim_async.migrate.streams import load

            assert self._source is not None
            return load(
                self._source,
                settings.journal,
                name=settings.name,
                restart=settings.restart,
                stop=stop,
                **settings.app(),
            )
        return drive(
            self._client,
            settings.make_store,
            self._source,
            self._mended,
            settings.restart,
            stop,
            self._recorder,
            settings.options,
        )

    async def _kind(self) -> Kind | None:
        """The kind of the rows; of a stream only known once it is there."""
        if self._source is not None:
            return self._source.kind
        return KINDS.get((await asked(self._settings.make_store, lambda store: store.status())).kind)
