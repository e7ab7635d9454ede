"""What is left behind when a migration has ended, however it has: the rows that did not arrive, a report, a summary."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tim_async.cli.failures import FAILED, INTERRUPTED, LIMIT, PARTIAL, USAGE, Failure, Misuse, described
from tim_async.cli.output import plain, say, show
from tim_async.cli.stdio import OutputLost
from tim_async.errors import AuthError, InvalidRequest, PermissionDenied
from tim_async.migrate import (
    Counts,
    Ended,
    Finished,
    JournalMismatch,
    MigrateError,
    Notes,
    Recorder,
    SourceError,
    Status,
    write_rejects,
)

from .places import STDIN, asked, quoted, write_report
from .signals import terminated_like_interrupted
from .tables import (
    complain,
    counts_as_plain,
    counts_table,
    duration,
    emit,
    failures_as_plain,
    failures_table,
    notes_as_text,
    speed,
)
from .tally import Tally

if TYPE_CHECKING:
    from .settings import Settings

_LOOK = 2.0
"""Seconds for a store to say how a migration stands at the end."""
_NOT_AGAIN = {"--mended": 1, "--limit": 1, "--restart": 0, "--yes": 0, "--dry-run": 0}
"""Options that are not repeated in a command that is printed, with how many values each has."""


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        tally: what is known of it.
        recorder: counted its calls.
        finished: its last event; None when something cut it short.
        error: what cut it short, foreseen or not; None for a second Ctrl-C, and when nothing did.
        seconds: how long it was sending.
    """

    tally: Tally
    recorder: Recorder
    finished: Finished | None = None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def ended(self) -> Ended | None:
        """Why it ended; None for an error."""
        if self.error is not None:
            return None
        return Ended.INTERRUPTED if self.finished is None else self.finished.ended

    @property
    def reason(self) -> str:
        """The error, or the limit that was reached; "" for neither."""
        if self.error is not None:
            return described(self.error)
        return "" if self.finished is None else self.finished.reason


@dataclass(slots=True)
class _Files:
    """What was written beside the journal.

    Attributes:
        rejected: the file of rows that did not arrive; None when there is none.
        report: the report; None when there is none.
        problems: what could not be written, and why.
        interrupted: whether a signal came meanwhile.
    """

    rejected: Path | None = None
    report: Path | None = None
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False


def end(settings: Settings, outcome: Outcome) -> int:
    """Write and say how a run ended.

    Returns:
        The exit code.

    Raises:
        OutputLost: nobody reads what it prints; the files are written.
        Failure, Misuse: it did not begin, or its journal cannot be read any more.
    """
    if not outcome.tally.started:
        return _not_begun(settings, outcome)
    try:
        status, notes = _look(settings)
    except (MigrateError, TimeoutError) as error:
        # What keeps the journal from being read has ended the run, too.
        raise Failure(plain(described(outcome.error or error))) from None
    files = _write(settings, status)
    code = _code(outcome, status, files)
    if isinstance(outcome.error, OutputLost):
        raise outcome.error
    if settings.as_json:
        emit("finished", _as_plain(outcome, status, files, notes, code))
    else:
        show(*_summary(settings, outcome, status, notes))
    for problem in files.problems:
        complain(problem)
    if status.counts.errors and not settings.as_json:
        say(_how_to_mend(settings, status.counts, files.rejected))
    _last_words(settings, outcome)
    return code


def _not_begun(settings: Settings, outcome: Outcome) -> int:
    """Say why nothing was sent; the exit code of an interruption."""
    error = outcome.error
    if isinstance(error, OutputLost):
        raise error
    if isinstance(error, SourceError | JournalMismatch):
        raise Misuse(plain(str(error)))
    if error is not None:
        raise Failure(plain(described(error)))
    if settings.as_json:
        emit("finished", {"ended": Ended.INTERRUPTED.value, "exit_code": INTERRUPTED, "counts": None})
    say("Interrupted before the first row; nothing was sent, and the same command starts over.")
    return INTERRUPTED


def _look(settings: Settings) -> tuple[Status, Notes]:
    async def look() -> tuple[Status, str]:
        async with asyncio.timeout(_LOOK if settings.in_store else None):
            return await asked(settings.make_store, lambda store: store.status()), await asked(
                settings.make_store, lambda store: store.note("notes")
            )

    status, notes = asyncio.run(look())
    return status, Notes.from_json(notes)


# Files


def _write(settings: Settings, status: Status) -> _Files:
    """Write the rows that did not arrive, and the report."""
    files = _Files()
    if settings.rejected is not None:
        rejected = settings.rejected
        files.rejected = _tried(files, rejected, lambda: write_rejects_of(settings, rejected))
    if settings.report is not None:
        report = settings.report
        files.report = _tried(files, report, lambda: write_report(status, report))
    return files


def write_rejects_of(settings: Settings, to: Path) -> Path | None:
    """Write the failed and rejected rows of a journal; the file, or None when there are none."""
    if not settings.in_store:
        return write_rejects(settings.journal, to).path
    from tim_async.migrate.streams import write_fleet_rejects

    return asyncio.run(write_fleet_rejects(settings.journal, to, name=settings.name)).path


def _tried(files: _Files, path: Path, write: Callable[[], Path | None]) -> Path | None:
    """Write a file; where it is."""
    try:
        with terminated_like_interrupted():
            return write()
    except KeyboardInterrupt:
        files.interrupted = True
        files.problems.append(f"interrupted before {path} was written")
    except (OSError, MigrateError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        files.problems.append(f"cannot write {path}: {reason}")
    return None


# The end in words, in JSON and as a number


def _code(outcome: Outcome, status: Status, files: _Files) -> int:
    match outcome.ended:
        case Ended.INTERRUPTED:
            return INTERRUPTED
        case Ended.LIMIT:
            return LIMIT
        case None:
            return USAGE if isinstance(outcome.error, SourceError) else FAILED
    if files.interrupted:
        return INTERRUPTED
    if files.problems:
        return FAILED
    return PARTIAL if status.counts.errors else 0


def _summary(settings: Settings, outcome: Outcome, status: Status, notes: Notes) -> list[Any]:
    parts: list[Any] = [counts_table(status.counts)]
    if outcome.recorder.sent:
        parts.append(f"\n{'this worker: ' if settings.command == 'work' else ''}{_calls(outcome)}")
    if status.failures:
        parts += ["", failures_table(status.failures)]
    return [*parts, *notes_as_text(notes)]


def _calls(outcome: Outcome) -> str:
    """The calls of a run in one line."""
    tally, recorder = outcome.tally, outcome.recorder
    share = tally.share_of_limit
    used = f"{100 * share:.0f} % of {speed(tally.limit)}" if share is not None else "the limit changed meanwhile"
    return (
        f"{duration(outcome.seconds)} for {recorder.done:,} calls: {tally.mean_rate:.1f}/s, {used}; "
        f"{recorder.refused:,} refused, {recorder.retried:,} retried"
    )


def _as_plain(outcome: Outcome, status: Status, files: _Files, notes: Notes, code: int) -> dict[str, Any]:
    tally = outcome.tally
    share = tally.share_of_limit
    return {
        "ended": "failed" if outcome.ended is None else outcome.ended.value,
        "exit_code": code,
        "reason": outcome.reason,
        "kind": status.kind,
        "counts": counts_as_plain(status.counts),
        "failures": failures_as_plain(status.failures),
        "notes": json.loads(notes.to_json()),
        "seconds": round(outcome.seconds, 3),
        "rate": round(tally.mean_rate, 1),
        "limit": tally.limit,
        "share_of_limit": None if share is None else round(share, 3),
        **tally.calls(),
        "journal": status.journal,
        "name": status.name or None,
        "rejected": None if files.rejected is None else str(files.rejected),
        "report": None if files.report is None else str(files.report),
        "problems": files.problems,
    }


def again(settings: Settings, *more: str) -> str:
    """The same command with other options, as a shell takes it.

    Args:
        settings: what was asked for.
        more: the options.
    """
    words = list(settings.words)
    cut = words.index("--") if "--" in words else len(words)
    kept: list[str] = []
    given = iter(words[:cut])
    for word in given:
        name, equals, _ = word.partition("=")
        if name not in _NOT_AGAIN:
            kept.append(word)
        elif _NOT_AGAIN[name] and not equals:
            next(given, None)
    command = quoted(["tim-async", "migrate", settings.command, *kept, *more, *words[cut:]])
    return f"{command} < /dev/null" if settings.file == STDIN else command


def _how_to_mend(settings: Settings, counts: Counts, rejected: Path | None) -> str:
    errors = f"Rows that did not arrive: {counts.errors:,}."
    if rejected is not None:
        fixed = again(settings, "--mended", str(rejected))
        return f"{errors}  {plain(str(rejected))} holds each with its reason; fix them there and run: {fixed}"
    words = ["tim-async", "migrate", "status", "--name", settings.name, "--rejected", "PATH", settings.journal]
    return f"{errors}  To have each with its reason: {quoted(words)}; then: {again(settings, '--mended', 'PATH')}"


def _remedy(error: Exception) -> str:
    if isinstance(error, PermissionDenied | InvalidRequest):  # of the look-up: of a row it would be that row's failure
        return "Groups cannot be looked up with these credentials; with --no-group-check"
    if isinstance(error, AuthError):
        return "No row was marked failed for that; with the right credentials"
    return "Once that is fixed"


def _last_words(settings: Settings, outcome: Outcome) -> None:
    """Say how it ended, where the summary does not say it all."""
    resumes = "the same command resumes"
    if settings.command == "work":
        resumes = f"the other workers continue, and {resumes}"
    if outcome.error is not None:
        complain(outcome.reason)
        say(f"{_remedy(outcome.error)}, {resumes}.")
    match outcome.ended:
        case Ended.INTERRUPTED:
            say(f"Interrupted; {resumes}.")
        case Ended.LIMIT:
            say(f"Stopped: {plain(outcome.reason)}; {resumes}.")
        case Ended.ROW_LIMIT:
            say(f"Stopped by --limit after {settings.options.limit:,} rows; the rest is sent by: {again(settings)}")
        case Ended.NOTHING_TO_DO if not settings.as_json:
            say("Nothing to do: all rows are already processed.")
