"""``status``: what a journal says, at any time."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tim_async.cli.failures import Failure, Misuse
from tim_async.cli.output import make_table, plain, show, show_json
from tim_async.migrate import Series, Slot

from .ending import write_report
from .journals import find_journal, read_journal
from .options import identity_of
from .tables import counts_as_plain, counts_table, duration, failures_table

if TYPE_CHECKING:
    from rich.table import Table

    from tim_async.migrate import Session, Status


def show_status(name: str, report: Path | None, *, as_json: bool) -> None:
    """Show what a journal says.

    Args:
        name: the journal, or the file that it is of.
        report: where to write a report; None for nowhere.
        as_json: whether to print a JSON document instead of tables.

    Raises:
        Misuse: there is no journal, or the report would be written over it.
        Failure: it cannot be read, or the report cannot be written.
    """
    journal = find_journal(name)
    if report is not None and identity_of(report) in (identity_of(journal), identity_of(Path(name))):
        raise Misuse(f"--report and {plain(name)} are the same file, or its journal")
    status = read_journal(journal)
    if as_json:
        show_json(_as_plain(journal, status))
    else:
        show(*_as_text(status))
    if report is not None:
        try:
            write_report(status, report)
        except OSError as error:
            raise Failure(f"cannot write {plain(str(report))}: {error.strerror or error}") from None


def state_of(status: Status) -> str:
    """Whether a migration runs, and if not, what is left of it."""
    if status.running:
        return "running" if status.planned else "running, reading the file"
    if not status.planned:
        return "stopped while reading the file; the same command begins"
    if status.counts.left:
        return "stopped; the same command goes on"
    return "finished"


def _as_text(status: Status) -> list[Any]:
    parts: list[Any] = [
        f"migrate {status.kind} {plain(status.source)}, app {status.sdk_app_id} at {plain(status.base_url)}: "
        f"{state_of(status)}\n",
        counts_table(status.counts),
    ]
    if status.sessions:
        parts += ["", _sessions_table(status)]
    if status.failures:
        parts += ["", failures_table(status.failures)]
    return parts


def _sessions_table(status: Status) -> Table:
    numbers = ("for", "done", "calls/s", "refused", "retried")
    table = make_table("run since", "end", *numbers, right=numbers)
    for session in status.sessions:
        sums = _sums(session)
        seconds = sums["seconds"]
        table.add_row(
            _moment(session.started),
            _end_of(session, status),
            duration(seconds),
            f"{sums['done']:,}",
            f"{sums['done'] / seconds:.1f}" if seconds else "",
            f"{sums['refused']:,}",
            f"{sums['retried']:,}",
        )
    return table


def _end_of(session: Session, status: Status) -> str:
    if session.how:
        return session.how
    return "running" if status.running and session is status.sessions[-1] else "killed"


def _sums(session: Session) -> dict[str, Any]:
    """What the calls of one run come to."""
    series = session.series or Series()
    total = Slot.sum(series.slots)
    # Of a run that was killed no more is known than what was saved of its calls.
    seconds = series.seconds if session.ended is None else session.ended - session.started
    return {
        "seconds": round(seconds, 3),
        "limit": series.limit,
        "sent": total.sent,
        "done": total.done,
        "refused": total.refused,
        "faults": total.faults,
        "retried": total.retried,
    }


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _as_plain(journal: Path, status: Status) -> dict[str, Any]:
    return {
        "journal": str(journal),
        "kind": status.kind,
        "file": status.source,
        "arguments": status.arguments,
        "sdk_app_id": status.sdk_app_id,
        "base_url": status.base_url,
        "running": status.running,
        "planned": status.planned,
        "counts": counts_as_plain(status.counts),
        "failures": [asdict(failure) for failure in status.failures],
        "runs": [
            {"started": session.started, "ended": session.ended, "how": session.how, **_sums(session)}
            for session in status.sessions
        ],
    }
