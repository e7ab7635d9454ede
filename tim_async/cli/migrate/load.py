"""``load``: the rows of a file onto a stream."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tim_async import config
from tim_async.cli import credentials
from tim_async.cli.failures import INTERRUPTED, PARTIAL, Failure, Misuse, plainly
from tim_async.cli.output import make_table, plain, say, show
from tim_async.migrate import KINDS, FileSource, Reading, Resumed, Waiting
from tim_async.regions import Hosts

from .job import take_in
from .options import STDIN, identity_of
from .signals import Stopping, run_stoppable
from .streams import with_redis
from .tables import counts_as_plain, emit, failures_table

if TYPE_CHECKING:
    from tim_async.migrate.streams import Loaded

_EVERY = 10.0
"""Seconds between two lines that say how far it is."""


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """One load as it was asked for.

    Attributes:
        file: the file with the rows as it was given; "-" for standard input.
        url: the store.
        name: the stream's name.
        kind: the name of the kind of the rows; None to tell by their columns.
        source_options: the keyword arguments of the `FileSource`.
        rejected: where rows that cannot be valid go.
        replace: whether a stream of something else is dropped.
        as_json: whether events go to standard output, as JSON lines.
    """

    file: str
    url: str
    name: str
    kind: str | None
    source_options: dict[str, Any]
    rejected: Path
    replace: bool
    as_json: bool


def load_rows(settings: LoadSettings, credentials_file: Path | None) -> int:
    """Put the rows of a file on a stream.

    Args:
        settings: what was asked for.
        credentials_file: where the app is named; None for the environment, which need not name it.

    Returns:
        The exit code.

    Raises:
        Misuse, Failure: it cannot be done.
    """
    app = _app(credentials_file)
    if settings.file != STDIN and identity_of(settings.rejected) == identity_of(Path(settings.file)):
        raise Misuse(f"--rejected and FILE are the same file: {plain(str(settings.rejected))}")
    with with_redis(settings.url, settings.name), _source(settings) as source:
        if not take_in(settings.file, source, as_json=settings.as_json):
            return INTERRUPTED
        try:
            loaded = run_stoppable(lambda stopping: _load(settings, source, app, stopping))
        except OSError as error:
            raise Failure(f"cannot write {plain(str(settings.rejected))}: {error.strerror or error}") from None
    if loaded is None or not loaded.complete:
        if settings.as_json:
            emit("finished", {"ended": "interrupted", "exit_code": INTERRUPTED})
        say("Interrupted; the same command goes on where this stopped.")
        return INTERRUPTED
    return _end(settings, source.kind.name, loaded)


def _app(file: Path | None) -> dict[str, Any]:
    """The app, as far as it is known: who only loads needs no key, and the first worker knows the app too."""
    if file is not None:
        found = credentials.load(file).client_options()
    else:
        # Neither the key, nor the file that may hold it, has to be there.
        wanted = ("TIM_SDK_APP_ID", "TIM_REGION", "TIM_BASE_URL", "TIM_ALLOW_HTTP")
        named = {name: os.environ.get(name, "") for name in wanted}
        with plainly():
            found = config.options(named)
            if "sdk_app_id" not in found or not {"region", "base_url"} & found.keys():
                return {}
            config.require_place(found)
    with plainly():
        return {
            "sdk_app_id": found["sdk_app_id"],
            "base_url": Hosts.of(
                found.get("region"), found.get("base_url"), allow_http=found.get("allow_http", False)
            ).current,
        }


def _source(settings: LoadSettings) -> FileSource:
    """The rows.

    Raises:
        Misuse: a field, a column or a template that cannot be, or a kind that cannot be told.
    """
    from tim_async.migrate._kinds import kind_of

    kind = None if settings.kind is None else KINDS[settings.kind]
    if kind is None:
        path = Path(settings.file)
        if settings.file == STDIN or path.is_fifo() or path.is_char_device():
            raise Misuse("what is read from a pipe needs --kind unread or --kind read")
        kind = kind_of(settings.file, **settings.source_options)
    if kind is None:
        # Whatever keeps it from being one of them, said of the more usual one.
        with contextlib.suppress(ValueError), FileSource(settings.file, KINDS["unread"]) as source:
            for _ in source.read():
                break
        raise Misuse(
            f"{plain(settings.file)} has neither the columns of unread counts nor those of read conversations, or both;"
            " --kind unread or --kind read says what its rows are, and --map what their columns are called"
        )
    try:
        return FileSource(settings.file, kind, **settings.source_options)
    except ValueError as error:
        raise Misuse(str(error)) from None


async def _load(settings: LoadSettings, source: FileSource, app: dict[str, Any], stopping: Stopping) -> Loaded | None:
    """Load, and say how far it is."""
    from tim_async.migrate.streams import Loaded, load

    shown = _Shown(as_json=settings.as_json)
    events = load(
        source,
        settings.url,
        name=settings.name,
        **app,
        replace=settings.replace,
        rejected=settings.rejected,
        stop=stopping.event,
    )
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Loaded):
                return event
            shown.take(event)
    return None


class _Shown:
    """How far a load is, now and then.

    Args:
        as_json: whether as JSON lines on standard output.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._spoken = time.monotonic()
        self._waiting = False

    def take(self, event: Any) -> None:
        """Say what is worth it."""
        match event:
            case Waiting(reason, _, until):
                if not self._waiting:
                    say(f"waiting: {plain(reason)}; it goes on as soon as {until}")
                self._waiting = True
            case Resumed():
                self._waiting = False
            case _ if time.monotonic() >= self._spoken + _EVERY:
                self._spoken = time.monotonic()
                self._tell(event)

    def _tell(self, event: Any) -> None:
        name = "reading" if isinstance(event, Reading) else "loading"
        if self._as_json:
            emit(name, asdict(event))
        elif isinstance(event, Reading):
            say(f"reading: {event.rows:,} rows so far")
        else:
            say(f"loading: {event.loaded:,} of {event.rows:,} rows are on the stream")


def _end(settings: LoadSettings, kind: str, loaded: Loaded) -> int:
    """Say what came of it; the exit code."""
    counts = loaded.counts
    if not counts.total:
        raise Misuse(f"{plain(settings.file)} holds no rows")
    code = PARTIAL if counts.rejected else 0
    rejected = settings.rejected if counts.rejected else None
    if settings.as_json:
        fields = {
            "ended": "nothing to do" if loaded.before else "done",
            "exit_code": code,
            "kind": kind,
            "name": settings.name,
            "loaded": loaded.loaded,
            "counts": counts_as_plain(counts),
            "failures": [asdict(failure) for failure in loaded.failures],
            "rejected": None if rejected is None else str(rejected),
            "warning": loaded.warning,
        }
        emit("finished", fields)
    else:
        table = make_table("", "rows", "", right=["rows"])
        table.add_row("in all", f"{counts.total:,}", f"of kind {kind}")
        table.add_row("loaded", f"{loaded.loaded:,}", f"on the stream {settings.name}")
        table.add_row("rejected", f"{counts.rejected:,}", "cannot be valid")
        table.add_row("superseded", f"{counts.superseded:,}", "a later row is for the same two ids")
        show(table)
        if loaded.failures:
            show("", failures_table(loaded.failures))
        if loaded.before:
            say("Nothing to do: every row has been put on the stream already.")
        elif rejected is not None:
            say(f"{plain(str(rejected))} holds each rejected row with its reason.")
    if loaded.warning:
        say(f"Warning: {loaded.warning}.")
    return code
