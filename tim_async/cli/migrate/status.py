"""The commands ``status``, which shows a journal at any time, and ``set`` and ``drop``, which change it."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from tim_async.cli.failures import Misuse
from tim_async.cli.output import make_table, number_of, plain, print_error, say, show, show_json
from tim_async.migrate import Status
from tim_async.migrate._store import Pace

from .ending import write_files
from .files import confirm, discarded_rows, query
from .settings import Settings, read_journal
from .tables import counts_table, duration, failure_lines, loaded_rows, note_lines, rows_dict

if TYPE_CHECKING:
    from rich.table import Table

    from tim_async.migrate import Notes, Session
    from tim_async.migrate._redis import RedisStore


def show_status(settings: Settings) -> int:
    """Show the status of a journal, and write the files that were asked for.

    Returns:
        The exit code.

    Raises:
        Misuse, MigrateError: there is no journal, or it is not readable.
    """
    status, notes = read_journal(settings)
    dataclasses.replace(settings, file=status.source).check_paths(writes_journal=False)
    if settings.as_json:
        show_json(_as_dict(status, notes))
    else:
        show(*_as_text(status), *note_lines(notes))
    written, problems, code = write_files(settings, status, notes)
    for problem in problems:
        print_error(problem)
    path, to = settings.rejected, written["rejected"]
    if to is not None and to != path:
        say(f"{plain(str(path))} was edited, so the rows were written to {plain(str(to))}.")
    elif path is not None and to is None and not status.counts.errors:
        say(f"No rows failed or were rejected; {plain(str(path))} was not written.")
    return code


def set_pace(settings: Settings) -> None:
    """Change the pace of the active runs of a journal."""
    rate, share = settings.new_rate, settings.new_share
    if rate is None and share is None:
        raise Misuse("give --rate, --share or both")
    status, _ = read_journal(settings)
    asyncio.run(query(settings.make_store, lambda store: store.set_pace(Pace(rate, share))))
    parts = [f"--rate {rate:g}" if rate is not None else "", f"--share {share:g}" if share is not None else ""]
    effect = "active runs apply it to their next rows" if status.running else "no run is active"
    say(f"Set {' and '.join(part for part in parts if part)}; {effect}.")


def drop(settings: Settings) -> None:
    """Remove a migration from its store."""
    status, _ = read_journal(settings)
    if status.counts.left or status.running:
        action = f"drop discards {discarded_rows(status)}, {status.counts.left:,} still to be sent."
        confirm(action, yes=settings.yes, refusal="Use --yes to drop them anyway.")
    asyncio.run(query(settings.make_store, lambda store: cast("RedisStore", store).drop(anyway=True)))
    say(f"Dropped {plain(settings.name)} from {plain(status.journal)}.")


def state_of(status: Status) -> str:
    """Describe in a few words whether a migration is running, and the progress of a stream."""
    if status.missing:
        return f"damaged: {number_of(status.missing, 'row')} missing without an outcome"
    if not status.planned:
        return (
            "running, reading the file"
            if status.running
            else "stopped while reading the file; the same command starts over"
        )
    if not status.counts.left:
        return "finished"
    if not status.name:
        return "running" if status.running else "stopped; the same command resumes"
    working = sum(worker.working for worker in status.workers)
    parts = [f"{number_of(working, 'worker')} active" if working else "no worker active"]
    if status.rate:
        parts.append(f"{status.rate:.1f} rows/s over the last minute")
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    return "; ".join(parts)


def _as_text(status: Status) -> list[Any]:
    where = f"{plain(status.name)} at {plain(status.journal)}, " if status.name else ""
    app = f", app {status.sdk_app_id} at {plain(status.base_url)}" if status.sdk_app_id else ""
    parts: list[Any] = [
        f"{where}migrate {status.kind} {plain(status.source)}{app}: {state_of(status)}\n",
        counts_table(status.counts),
    ]
    if status.workers:
        workers = [
            (
                worker.name,
                worker.how.replace("_", " ") or ("active" if worker.working else "silent"),
                worker.rows,
                f"{duration(worker.seen)} ago",
            )
            for worker in status.workers
        ]
        parts += ["", make_table({"worker": "text", "": "text", "rows": "count", "last seen": "number"}, workers)]
    if status.sessions:
        parts += ["", _sessions_table(status)]
    if status.failures:
        parts += ["", *failure_lines(status.failures)]
    return parts


def _sessions_table(status: Status) -> Table:
    counts = {"refused": "count", "retried": "count"}
    columns = {"run": "text", "for": "number", "done": "count", "calls/s": "rate", **counts}
    rows = [
        (
            f"{_local_time(session.started)} {_outcome_of(session, status)}",
            duration(_seconds(session)),
            session.calls.done,
            None if session.series is None else session.series.rate,
            session.calls.refused,
            session.calls.retried,
        )
        for session in status.sessions
    ]
    return make_table(columns, rows)


def _outcome_of(session: Session, status: Status) -> str:
    if session.how:
        return session.how.replace("_", " ")
    return "running" if status.running and session is status.sessions[-1] else "killed"


def _seconds(session: Session) -> float:
    """Return the seconds of a run; for one that was killed, up to the last save of its calls."""
    if session.ended is not None:
        return session.ended - session.started
    return session.series.seconds if session.series is not None else 0.0


def _local_time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _as_dict(status: Status, notes: Notes) -> dict[str, Any]:
    document: dict[str, Any] = {
        "journal": status.journal,
        "kind": status.kind,
        "file": status.source,
        "arguments": status.arguments,
        "sdk_app_id": status.sdk_app_id or None,
        "base_url": status.base_url or None,
        "running": status.running,
        "planned": status.planned,
        **rows_dict(status.counts, status.failures, notes),
        "runs": [
            {
                "started": session.started,
                "ended": session.ended,
                "how": session.how,
                "seconds": round(_seconds(session), 3),
                "limit": session.series.limit if session.series is not None else None,
                **asdict(session.calls),
            }
            for session in status.sessions
        ],
    }
    if status.name:
        document |= {
            "name": status.name,
            "url": status.journal,
            "complete": status.planned,
            "rows": status.counts.total,
            "loaded": loaded_rows(status.counts),
            "missing": status.missing,
            "rate": round(status.rate, 1),
            "seconds_left": None if status.seconds_left is None else round(status.seconds_left, 1),
            "workers": [asdict(worker) for worker in status.workers],
        }
    return document
