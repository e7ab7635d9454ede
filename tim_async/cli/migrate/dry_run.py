"""``--dry-run``: read and check all rows, and send nothing."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tim_async._plaintext import plain_json
from tim_async.cli.failures import PARTIAL
from tim_async.cli.output import make_table, plain, say, show
from tim_async.migrate import READ, DryRun, Notes, Rejected, Row, Source, survey
from tim_async.migrate._breaker import CircuitBreaker
from tim_async.migrate._groups import GroupFound, Groups

from .files import write_report
from .signals import sigterm_as_interrupt
from .tables import counts_table, duration, emit, failure_lines, note_lines, rows_dict, speed

if TYPE_CHECKING:
    from .settings import Settings


class _GroupCounter:
    """A source that counts the rows of each group.

    Args:
        source: the source of the rows.
    """

    def __init__(self, source: Source) -> None:
        self.kind, self.name, self.arguments, self.fingerprint = (
            source.kind,
            source.name,
            source.arguments,
            source.fingerprint,
        )
        self.groups: Counter[str] = Counter()
        self._source = source

    @property
    def notes(self) -> Notes:
        return self._source.notes

    def read(self) -> Iterator[Row | Rejected]:
        for row in self._source.read():
            if isinstance(row, Row):
                self.groups[str(row.values[0])] += 1
            yield row


def survey_file(settings: Settings) -> int:
    """Check all rows, or the mended ones, and print what a run would do with them.

    Returns:
        The exit code: 3 if rows were rejected or would fail.
    """
    from .job import WEBHOOK_NOTE, mended_of, source_of

    rows = source_of(settings)
    source = _GroupCounter(mended_of(settings, rows) or rows)
    with sigterm_as_interrupt():
        found = survey(source, settings.limit, rejected=settings.rejected)
    unusable = _look_up(settings, source.groups) if settings.check_groups else {}
    code = PARTIAL if found.counts.errors or unusable else 0
    bodies = [source.kind.endpoint.build(*row.values[:3]) for row in found.first]
    if settings.report is not None:
        dry_run = DryRun(settings.limit, bodies, found.problems)
        write_report(found.status, settings.report, found.notes, dry_run)
    if settings.as_json:
        fields = {
            "exit_code": code,
            **rows_dict(found.counts, found.failures, found.notes),
            "seconds": round(found.seconds, 1),
            "limit": settings.limit,
            "first": bodies,
            "groups": [{"group": group, "code": one.code, "reason": one.reason} for group, one in unusable.items()],
            "rejected": None if found.rejected is None else str(found.rejected),
            "report": None if settings.report is None else str(settings.report),
        }
        emit("surveyed", fields)
        return code
    show(counts_table(found.counts))
    if found.counts.left:
        show(f"\nestimated time: {duration(found.seconds)} at {speed(settings.limit)}")
    if found.failures:
        show("", *failure_lines(found.failures))
    if unusable:
        show("", _groups_table(unusable, source.groups))
    show(*note_lines(found.notes))
    if bodies:
        show(f"\nfirst requests, to {source.kind.endpoint.command}:", *map(plain_json, bodies))
    for path in (found.rejected, settings.report):
        if path is not None:
            say(f"Wrote {plain(str(path))}.")
    if source.kind is READ:
        say(WEBHOOK_NOTE)
    say("Dry run: nothing was sent.")
    return code


def _look_up(settings: Settings, groups: Counter[str]) -> dict[str, GroupFound]:
    """Return the groups that do not exist or would ignore their rows."""

    async def ask() -> dict[str, GroupFound]:
        breaker = CircuitBreaker(asyncio.Event(), math.inf, lambda *_: None)
        async with settings.client([], lambda _: None) as client:
            return await Groups(client, breaker).look_up(groups)

    with sigterm_as_interrupt():
        found = asyncio.run(ask())
    return {group: one for group, one in found.items() if one.reason}


def _groups_table(unusable: dict[str, GroupFound], groups: Counter[str]) -> Any:
    """Return a table of the groups by reason, each with an example."""
    by_reason: dict[tuple[int | None, str], list[str]] = {}
    for group, one in unusable.items():
        # The service's text may name the group.
        by_reason.setdefault((one.code, one.reason.replace(group, "")), []).append(group)
    rows = [
        (
            "none" if code is None else str(code),
            len(named),
            sum(groups[group] for group in named),
            f"{named[0]}: {unusable[named[0]].reason}",
        )
        for (code, _), named in by_reason.items()
    ]
    return make_table({"code": "text", "groups": "count", "rows": "count", "example": "text"}, rows)
