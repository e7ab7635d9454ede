"""Runs a migration: client, signals, display, and what has become of it in the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tim_async.cli.failures import plainly, trace
from tim_async.cli.output import plain, say
from tim_async.client import TIMClient
from tim_async.migrate import Event, FileSource, Finished, MigrateError, Recorder, run

from .options import STDIN, Settings, pace
from .progress import Display, display_for, shown
from .signals import Stopping, interruptible, run_stoppable
from .tally import Tally

Events = Callable[[asyncio.Event], AsyncGenerator[Event, None]]


@dataclass(slots=True)
class Outcome:
    """What has become of a run.

    Attributes:
        tally: what is known of it.
        recorder: what its calls were counted by.
        finished: its last event; None when something cut it short.
        error: what cut it short, foreseen or not; None for a second Ctrl-C, and when nothing did.
        seconds: how long it was sending.
    """

    tally: Tally
    recorder: Recorder
    finished: Finished | None = None
    error: Exception | None = None
    seconds: float = 0.0


def carry_out(settings: Settings, source: FileSource, client_options: dict[str, Any]) -> Outcome:
    """Run a migration to its end, whatever that is, showing how far it is.

    Args:
        settings: what was asked for.
        source: the rows.
        client_options: the credentials, as keyword arguments of a ``TIMClient``.

    Raises:
        Misuse: the credentials cannot be right.
    """
    endpoint = settings.what().endpoint
    recorder = Recorder(endpoint.name, settings.limit)
    with plainly():
        client = TIMClient(
            **client_options,
            **pace([endpoint.name], settings.rate, settings.share, settings.quota),
            on_attempt=recorder.attempt,
        )
    outcome = Outcome(Tally(recorder, settings.limit), recorder)

    def events(stop: asyncio.Event) -> AsyncGenerator[Event, None]:
        return run(
            client,
            source,
            settings.journal,
            concurrency=settings.concurrency,
            group_check=settings.group_check,
            max_errors=settings.max_errors,
            max_outage=settings.max_outage,
            stop=stop,
            recorder=recorder,
        )

    try:
        taken = take_in(settings.file, source, as_json=settings.as_json)
    except MigrateError as error:
        outcome.error = error
        return outcome
    if taken:
        conduct(client, events, outcome, as_json=settings.as_json)
    return outcome


def conduct(client: TIMClient, events: Events, outcome: Outcome, *, as_json: bool) -> None:
    """Follow a run to its end, showing how far it is, and note how it ended.

    Args:
        client: what carries it out; closed at the end.
        events: begins it; given what is set for it to end early.
        outcome: where to note it.
        as_json: whether events go to standard output.
    """
    try:
        run_stoppable(lambda stopping: _conduct(client, events, outcome, stopping, as_json=as_json))
    except Exception as error:  # noqa: BLE001 - whatever it was, the journal knows how far it got, and that is told
        outcome.error = error
        trace(error)


def take_in(file: str, source: FileSource, *, as_json: bool) -> bool:
    """Have what can be read only once copied while Ctrl-C still ends a wait for it; whether it did not.

    Raises:
        SourceError: it cannot be read.
    """
    path = Path(file)
    if file == STDIN:
        name = "standard input"
    elif path.is_fifo() or path.is_char_device():
        name = plain(file)
    else:
        return True
    try:
        with interruptible() as part:
            source.reserve()
            if not as_json:
                say(f"reading {name} to its end")
            with part:
                source.fingerprint()
    except KeyboardInterrupt:
        return False
    return True


async def _conduct(client: TIMClient, events: Events, outcome: Outcome, stopping: Stopping, *, as_json: bool) -> None:
    display = display_for(outcome.tally, as_json=as_json)
    stopping.begun = lambda: display.warn("finishing what is under way; Ctrl-C again to stop at once")

    async def course() -> None:
        async with client:
            await _follow(events(stopping.event), outcome, display)

    await shown(display, course())


async def _follow(events: AsyncGenerator[Event, None], outcome: Outcome, display: Display) -> None:
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                outcome.tally.take(event)
                display.take(event)
                if isinstance(event, Finished):
                    outcome.finished = event
    finally:
        outcome.seconds = outcome.tally.seconds
