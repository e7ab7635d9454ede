"""``--dry-run``: everything is read and checked, and nothing is sent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tim_async.cli.failures import PARTIAL, Failure, Misuse
from tim_async.cli.output import plain, say, show
from tim_async.migrate import JournalError, SourceError, survey

from .tables import counts_as_plain, counts_table, duration, emit, failures_table, speed

if TYPE_CHECKING:
    from tim_async.migrate import FileSource

    from .options import Settings

_MOST_SHOWN = 20


def rehearse(settings: Settings, source: FileSource) -> int:
    """Check all rows, and say what a run would do with them.

    Returns:
        The exit code: 3 when rows were rejected.

    Raises:
        Misuse: the file cannot be read as rows.
        Failure: there is no room to keep track of them meanwhile.
    """
    try:
        found = survey(source, settings.limit)
    except SourceError as error:
        raise Misuse(plain(str(error))) from None
    except JournalError as error:
        raise Failure(plain(str(error))) from None
    code = PARTIAL if found.counts.errors else 0
    if settings.as_json:
        emit(
            "surveyed",
            {
                "exit_code": code,
                "counts": counts_as_plain(found.counts),
                "failures": [asdict(failure) for failure in found.failures],
                "seconds": round(found.seconds, 1),
                "limit": settings.limit,
            },
        )
        return code
    show(counts_table(found.counts))
    if found.counts.left:
        show(f"\nabout {duration(found.seconds)} at {speed(settings.limit)}")
    if found.failures:
        show("", failures_table(found.failures[:_MOST_SHOWN]))
        if len(found.failures) > _MOST_SHOWN:
            show(f"and {len(found.failures) - _MOST_SHOWN:,} other reasons")
    say("A dry run: nothing was sent, and nothing written.")
    return code
