"""Runs a migration: client, signals, display, and what has become of it in the end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tim_async.cli.failures import plainly
from tim_async.cli.output import plain, say
from tim_async.client import TIMClient
from tim_async.errors import TIMError
from tim_async.migrate import FileSource, Finished, MigrateError, Recorder, run

from .options import STDIN, Settings
from .progress import Display, display_for, shown
from .signals import stopping, terminated_like_interrupted
from .tally import Tally


@dataclass(slots=True)
class Outcome:
    """What has become of a run.

    Attributes:
        tally: what is known of it.
        recorder: what its calls were counted by.
        finished: its last event; None when something cut it short.
        error: what cut it short; None for a second Ctrl-C, and when nothing did.
        seconds: how long it was sending.
    """

    tally: Tally
    recorder: Recorder
    finished: Finished | None = None
    error: TIMError | MigrateError | BrokenPipeError | None = None
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
            rates={endpoint.name: settings.limit, "get_group_info": settings.lookups},
            on_attempt=recorder.attempt,
        )
    outcome = Outcome(Tally(recorder, settings.limit), recorder)
    try:
        if _take_in(settings, source):
            asyncio.run(_carry_out(settings, source, client, outcome))
    except (TIMError, MigrateError, BrokenPipeError) as error:
        outcome.error = error
    return outcome


def _take_in(settings: Settings, source: FileSource) -> bool:
    """Have what can be read only once copied while Ctrl-C still ends a wait for it; whether it did not."""
    path = Path(settings.file)
    if settings.file == STDIN:
        name = "standard input"
    elif path.is_fifo() or path.is_char_device():
        name = plain(settings.file)
    else:
        return True
    try:
        with terminated_like_interrupted():
            if not settings.as_json:
                say(f"reading {name} to its end")
            source.fingerprint()
    except KeyboardInterrupt:
        return False
    return True


async def _carry_out(settings: Settings, source: FileSource, client: TIMClient, outcome: Outcome) -> None:
    running = asyncio.current_task()
    assert running is not None
    stop = asyncio.Event()
    stopped_at_once = False
    display = display_for(outcome.tally, as_json=settings.as_json)

    def drain() -> None:
        stop.set()
        display.warn("finishing what is under way; Ctrl-C again to stop at once")

    def cut() -> None:
        nonlocal stopped_at_once
        stopped_at_once = True
        running.cancel()

    try:
        async with shown(display):
            with stopping(drain, cut):
                async with client:
                    await _follow(settings, source, client, outcome, stop, display)
    except asyncio.CancelledError:
        if not stopped_at_once:
            raise
        running.uncancel()


async def _follow(
    settings: Settings,
    source: FileSource,
    client: TIMClient,
    outcome: Outcome,
    stop: asyncio.Event,
    display: Display,
) -> None:
    events = run(
        client,
        source,
        settings.journal,
        concurrency=settings.concurrency,
        group_check=settings.group_check,
        max_errors=settings.max_errors,
        max_outage=settings.max_outage,
        stop=stop,
        recorder=outcome.recorder,
    )
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                outcome.tally.take(event)
                display.take(event)
                if isinstance(event, Finished):
                    outcome.finished = event
    finally:
        outcome.seconds = outcome.tally.seconds
