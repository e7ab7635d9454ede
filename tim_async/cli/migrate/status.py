"""``status``: what a journal, or a stream, says at any time."""

from __future__ import annotations

import asyncio
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
from .streams import with_redis
from .tables import counts_as_plain, counts_table, duration, failures_table

if TYPE_CHECKING:
    from rich.table import Table

    from tim_async.migrate import Session, Status
    from tim_async.migrate.streams import Fleet


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
        _write_report(status, report)


def show_stream(url: str, name: str, report: Path | None, rejected: Path | None, *, as_json: bool) -> None:
    """Show what a store knows of a stream and its workers.

    Args:
        url: the store.
        name: the stream's name.
        report: where to write a report; None for nowhere.
        rejected: where to write the rows that failed or were rejected; None for nowhere.
        as_json: whether to print a JSON document instead of tables.

    Raises:
        Misuse: the URL or the name cannot be, or one file would be written over the other.
        Failure: there is no such stream, the store does not say, or a file cannot be written.
    """
    if report is not None and rejected is not None and identity_of(report) == identity_of(rejected):
        raise Misuse(f"--report and --rejected are the same file: {plain(str(report))}")
    with with_redis(url, name):
        from tim_async.migrate.streams import read_fleet, write_fleet_rejects

        fleet = asyncio.run(read_fleet(url, name=name))
        if as_json:
            show_json(_stream_as_plain(fleet))
        else:
            show(*_stream_as_text(fleet))
        if rejected is not None:
            try:
                asyncio.run(write_fleet_rejects(url, rejected, name=name))
            except OSError as error:
                raise _cannot_write(rejected, error) from None
    if report is not None:
        _write_report(fleet.status, report)


def _write_report(status: Status, report: Path) -> None:
    try:
        write_report(status, report)
    except OSError as error:
        raise _cannot_write(report, error) from None


def _cannot_write(path: Path, error: OSError) -> Failure:
    return Failure(f"cannot write {plain(str(path))}: {error.strerror or error}")


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


def _stream_state(fleet: Fleet) -> str:
    """How a stream stands, in a few words."""
    if fleet.missing:
        return f"damaged: {fleet.missing:,} rows are gone without an outcome"
    parts = [] if fleet.complete else [f"loading, {fleet.loaded:,} of {fleet.rows:,} rows are on the stream"]
    if fleet.complete and not fleet.status.counts.left:
        return "finished"
    working = sum(worker.working for worker in fleet.workers)
    parts.append(f"{working} {'worker' if working == 1 else 'workers'} at work" if working else "no worker at work")
    if fleet.rate:
        parts.append(f"{fleet.rate:.1f} rows/s over the last minute")
    if fleet.seconds_left is not None:
        parts.append(f"{duration(fleet.seconds_left)} left")
    return "; ".join(parts)


def _stream_as_text(fleet: Fleet) -> list[Any]:
    status = fleet.status
    app = f", app {status.sdk_app_id} at {plain(status.base_url)}" if status.sdk_app_id else ""
    parts: list[Any] = [
        f"stream {plain(fleet.name)} at {plain(fleet.url)}, {status.kind} {plain(status.source)}{app}: "
        f"{_stream_state(fleet)}\n",
        counts_table(status.counts),
    ]
    if fleet.workers:
        table = make_table("worker", "", "rows", "last seen", right=["rows", "last seen"])
        for worker in fleet.workers:
            how = worker.how.replace("_", " ") or ("at work" if worker.working else "silent")
            table.add_row(plain(worker.name), how, f"{worker.rows:,}", f"{duration(worker.seen)} ago")
        parts += ["", table]
    if status.failures:
        parts += ["", failures_table(status.failures)]
    return parts


def _stream_as_plain(fleet: Fleet) -> dict[str, Any]:
    status = fleet.status
    return {
        "name": fleet.name,
        "url": fleet.url,
        "kind": status.kind,
        "file": status.source,
        "arguments": status.arguments,
        "sdk_app_id": status.sdk_app_id or None,
        "base_url": status.base_url or None,
        "running": status.running,
        "complete": fleet.complete,
        "loaded": fleet.loaded,
        "rows": fleet.rows,
        "missing": fleet.missing,
        "counts": counts_as_plain(status.counts),
        "failures": [asdict(failure) for failure in status.failures],
        "rate": round(fleet.rate, 1),
        "seconds_left": None if fleet.seconds_left is None else round(fleet.seconds_left, 1),
        "workers": [asdict(worker) for worker in fleet.workers],
        "runs": [
            {"started": session.started, "ended": session.ended, "how": session.how, **_sums(session)}
            for session in status.sessions
        ],
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
