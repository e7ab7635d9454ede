"""``work``: the rows of a stream to the service, beside any number of other workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tim_async.cli.failures import FAILED, INTERRUPTED, LIMIT, PARTIAL, plainly
from tim_async.cli.output import say, show
from tim_async.cli.stdio import OutputLost
from tim_async.client import TIMClient
from tim_async.errors import AuthError, InvalidRequest, PermissionDenied
from tim_async.migrate import KINDS, Counts, Ended, Event, MigrateError, Recorder

from .ending import calls, calls_as_plain, complain, end_before_the_first_row, ended_by, how_it_ended, reason_of
from .job import Outcome, conduct
from .options import pace
from .streams import with_redis
from .tables import counts_as_plain, counts_table, emit, failures_table
from .tally import Tally

if TYPE_CHECKING:
    from tim_async.migrate.streams import Fleet

_LOOK = 2.0
"""Seconds for the store to say how the stream stands at the end."""
_GOES_ON = "the other workers go on, and so does the same command"


@dataclass(frozen=True, slots=True)
class WorkSettings:
    """One worker as it was asked for.

    Attributes:
        url: the store with the stream.
        name: the stream's name.
        quota: the store with the quota; None for that of the stream, "" for no common quota.
        rate: calls/s that the service allows.
        share: the part of them to use, above 0 and up to 1.
        concurrency: rows in hand.
        lease: seconds without a sign of life after which others take over what a worker holds.
        max_errors: failed and rejected rows that are borne; None for any number.
        max_outage: seconds that an outage is borne; None for as long as it takes.
        group_check: whether groups are looked up before their rows are sent.
        as_json: whether events go to standard output, as JSON lines.
    """

    url: str
    name: str
    quota: str | None
    rate: float
    share: float
    concurrency: int
    lease: float
    max_errors: int | None
    max_outage: float | None
    group_check: bool
    as_json: bool

    @property
    def limit(self) -> float:
        """Calls/s to the endpoint of the rows."""
        return self.rate * self.share


def work_off(settings: WorkSettings, client_options: dict[str, Any]) -> int:
    """Be a worker until every row of the stream has come to its end.

    Args:
        settings: what was asked for.
        client_options: the credentials, as keyword arguments of a ``TIMClient``.

    Returns:
        The exit code.

    Raises:
        Misuse, Failure: it could not begin.
    """
    endpoints = [kind.endpoint.name for kind in KINDS.values()]
    recorder = Recorder(endpoints, settings.limit)
    quota = settings.url if settings.quota is None else settings.quota or None
    with with_redis(settings.url, settings.name):
        from tim_async.migrate.streams import work

        with plainly():
            client = TIMClient(
                **client_options,
                **pace(endpoints, settings.rate, settings.share, quota),
                on_attempt=recorder.attempt,
            )
        outcome = Outcome(Tally(recorder, settings.limit), recorder)

        def events(stop: asyncio.Event) -> AsyncGenerator[Event, None]:
            return work(
                client,
                settings.url,
                name=settings.name,
                concurrency=settings.concurrency,
                group_check=settings.group_check,
                max_errors=settings.max_errors,
                max_outage=settings.max_outage,
                lease=settings.lease,
                stop=stop,
                recorder=recorder,
            )

        conduct(client, events, outcome, as_json=settings.as_json)
        return _end(settings, outcome)


def _end(settings: WorkSettings, outcome: Outcome) -> int:
    """Say how it ended; the exit code."""
    if not outcome.tally.started:
        from tim_async.migrate.streams import StreamMismatch

        said = "before the first row; nothing was sent."
        return end_before_the_first_row(outcome, (StreamMismatch,), said, as_json=settings.as_json)
    fleet = _fleet(settings)
    counts = fleet.status.counts if fleet is not None else outcome.tally.counts or Counts()
    code = _code(outcome, counts)
    if isinstance(outcome.error, OutputLost):
        raise outcome.error  # nobody is there to be told
    if settings.as_json:
        ended = ended_by(outcome)
        fields = {
            "ended": "failed" if ended is None else ended.value,
            "exit_code": code,
            "reason": reason_of(outcome),
            "counts": counts_as_plain(counts),
            "failures": [asdict(failure) for failure in fleet.status.failures] if fleet is not None else None,
            "name": settings.name,
            **calls_as_plain(outcome),
        }
        emit("finished", fields)
    else:
        show(*_summary(outcome, counts, fleet))
        if counts.failed and ended_by(outcome) in (Ended.DONE, Ended.NOTHING_TO_DO):
            say(
                f"Rows that failed: {counts.failed:,}.  tim-async migrate status --rejected PATH, with the URL and the"
                " name of the stream, writes each with its reason."
            )
    _last_words(outcome, as_json=settings.as_json)
    return code


def _fleet(settings: WorkSettings) -> Fleet | None:
    """The stream as it is now; None when the store does not say so at once."""
    from tim_async.migrate.streams import read_fleet

    async def read() -> Fleet:
        async with asyncio.timeout(_LOOK):
            return await read_fleet(settings.url, name=settings.name)

    try:
        return asyncio.run(read())
    except (MigrateError, TimeoutError):  # the worker has met with the same already, or nothing depends on it
        return None


def _code(outcome: Outcome, counts: Counts) -> int:
    match ended_by(outcome):
        case Ended.INTERRUPTED:
            return INTERRUPTED
        case Ended.LIMIT:
            return LIMIT
        case None:
            return FAILED
    return PARTIAL if counts.failed else 0


def _summary(outcome: Outcome, counts: Counts, fleet: Fleet | None) -> list[Any]:
    parts: list[Any] = [counts_table(counts)]
    if outcome.recorder.sent:
        parts.append(f"\nthis worker: {calls(outcome)}")
    if fleet is not None and fleet.status.failures:
        parts += ["", failures_table(fleet.status.failures)]
    return parts


def _last_words(outcome: Outcome, *, as_json: bool) -> None:
    """Say how it ended, where the summary does not say it all."""
    match outcome.error:
        case None:
            pass
        case PermissionDenied() | InvalidRequest():  # of the look-up: of a row it would be that row's failure
            complain(reason_of(outcome))
            say("No group can be looked up like this; see --no-group-check.")
        case AuthError():
            complain(reason_of(outcome))
            say("No row was marked failed for that; what this worker held is left to the others.")
        case _:
            complain(reason_of(outcome))
    how_it_ended(outcome, _GOES_ON, as_json=as_json)
