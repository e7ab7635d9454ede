"""What is left behind when a migration has ended, however it has: the rows that did not arrive, a report, a summary."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tim_async.cli.failures import FAILED, INTERRUPTED, LIMIT, PARTIAL, USAGE, Failure, Misuse, described
from tim_async.cli.output import plain, say, show
from tim_async.cli.stdio import OutputLost
from tim_async.errors import AuthError, InvalidRequest, PermissionDenied
from tim_async.migrate import (
    Ended,
    FileSource,
    JournalError,
    JournalMismatch,
    MigrateError,
    SourceError,
    Status,
    read_status,
    render,
    write_rejects,
)
from tim_async.migrate.files import replacing

from .signals import terminated_like_interrupted
from .tables import counts_as_plain, counts_table, duration, emit, failures_table, speed

if TYPE_CHECKING:
    from .job import Outcome
    from .options import Settings

_GOES_ON = "the same command goes on where this stopped"


@dataclass(slots=True)
class Files:
    """What was written beside the journal.

    Attributes:
        rejected: the file of rows that did not arrive; None when there is none.
        report: the report; None when there is none.
        problems: what could not be written, and why.
        interrupted: whether somebody did not want to wait for it.
    """

    rejected: Path | None = None
    report: Path | None = None
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False


def end(settings: Settings, source: FileSource, outcome: Outcome) -> int:
    """Write and say what came of a run.

    Returns:
        The exit code.

    Raises:
        OutputLost: nobody reads what it prints; the files are written.
        Failure, Misuse: there is nothing to say but why it could not begin, or its journal cannot be read any more.
    """
    if not outcome.tally.started:
        said = "while reading; nothing was sent, and the same command begins anew."
        misuse = (SourceError, JournalMismatch)
        return end_before_the_first_row(outcome, misuse, said, as_json=settings.as_json)
    try:
        status = read_status(settings.journal)
    except JournalError as error:
        raise Failure(plain(described(outcome.error or error))) from None
    files = _write(settings, source, outcome, status)
    code = _code(outcome, status, files)
    if isinstance(outcome.error, OutputLost):
        raise outcome.error  # nobody is there to be told
    if settings.as_json:
        emit("finished", _as_plain(settings, outcome, status, files, code))
    else:
        show(*_summary(outcome, status))
    for problem in files.problems:
        complain(problem)
    if files.rejected is not None and not settings.as_json:
        say(_how_to_use(settings, status, files.rejected))
    last_words(outcome, as_json=settings.as_json)
    return code


def end_before_the_first_row(
    outcome: Outcome, misuse: tuple[type[MigrateError], ...], said: str, *, as_json: bool
) -> int:
    """Say why nothing was sent.

    Args:
        outcome: how it ended.
        misuse: errors that are the user's own.
        said: what there is to say of an interruption.
        as_json: whether events go to standard output.

    Returns:
        The exit code of an interruption.

    Raises:
        Misuse, Failure, OutputLost: it was no interruption.
    """
    error = outcome.error
    if isinstance(error, OutputLost):
        raise error
    if isinstance(error, misuse):
        raise Misuse(plain(str(error)))
    if error is not None:
        raise Failure(plain(described(error)))
    if as_json:
        emit("finished", {"ended": Ended.INTERRUPTED.value, "exit_code": INTERRUPTED, "counts": None})
    say(f"Interrupted {said}")
    return INTERRUPTED


def _write(settings: Settings, source: FileSource, outcome: Outcome, status: Status) -> Files:
    """Write the rows that did not arrive, and the report."""
    files = Files()
    rejected, report = settings.rejected, settings.report
    # When there was nothing to do, an earlier run has written it, and somebody may be mending it.
    kept = ended_by(outcome) is Ended.NOTHING_TO_DO and rejected.exists()
    there = kept or _try(files, rejected, lambda: write_rejects(source, settings.journal, rejected))
    if there and status.counts.errors:
        files.rejected = rejected
    if report is not None and _try(files, report, lambda: write_report(status, report)):
        files.report = report
    return files


def _try(files: Files, path: Path, write: Callable[[], object]) -> bool:
    """Write a file; whether it was."""
    try:
        with terminated_like_interrupted():
            write()
    except KeyboardInterrupt:
        files.interrupted = True
        files.problems.append(f"interrupted before {path} was written")
        return False
    except (OSError, MigrateError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        files.problems.append(f"cannot write {path}: {reason}")
        return False
    return True


def write_report(status: Status, path: Path) -> None:
    """Write the report of a migration.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(render(status))


def ended_by(outcome: Outcome) -> Ended | None:
    """Why it ended; None for an error."""
    if outcome.error is not None:
        return None
    return Ended.INTERRUPTED if outcome.finished is None else outcome.finished.ended


def _code(outcome: Outcome, status: Status, files: Files) -> int:
    match ended_by(outcome):
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


def _summary(outcome: Outcome, status: Status) -> list[Any]:
    parts: list[Any] = [counts_table(status.counts)]
    if outcome.recorder.sent:
        parts.append(f"\n{calls(outcome)}")
    if status.failures:
        parts += ["", failures_table(status.failures)]
    return parts


def calls(outcome: Outcome) -> str:
    """The calls of a run in one line."""
    recorder, limit = outcome.recorder, outcome.tally.limit
    return (
        f"{duration(outcome.seconds)} for {recorder.done:,} calls: {_rate(outcome):.1f}/s, "
        f"{100 * _rate(outcome) / limit:.0f} % of {speed(limit)}; "
        f"{recorder.refused:,} refused, {recorder.retried:,} retried"
    )


def calls_as_plain(outcome: Outcome) -> dict[str, Any]:
    """The calls of a run, ready for JSON."""
    recorder, limit = outcome.recorder, outcome.tally.limit
    return {
        "seconds": round(outcome.seconds, 3),
        "rate": round(_rate(outcome), 1),
        "limit": limit,
        "share_of_limit": round(_rate(outcome) / limit, 3),
        "sent": recorder.sent,
        "done": recorder.done,
        "refused": recorder.refused,
        "retried": recorder.retried,
        "faults": recorder.faults,
    }


def _as_plain(settings: Settings, outcome: Outcome, status: Status, files: Files, code: int) -> dict[str, Any]:
    ended = ended_by(outcome)
    return {
        "ended": "failed" if ended is None else ended.value,
        "exit_code": code,
        "reason": reason_of(outcome),
        "counts": counts_as_plain(status.counts),
        "failures": [asdict(failure) for failure in status.failures],
        **calls_as_plain(outcome),
        "journal": str(settings.journal),
        "rejected": None if files.rejected is None else str(files.rejected),
        "report": None if files.report is None else str(files.report),
        "problems": files.problems,
    }


def _rate(outcome: Outcome) -> float:
    """Calls/s that succeeded, on average."""
    return outcome.recorder.done / outcome.seconds if outcome.seconds > 0 else 0.0


def reason_of(outcome: Outcome) -> str:
    """What cut a run short, or the limit that it reached; "" for neither."""
    if outcome.error is not None:
        return described(outcome.error)
    return "" if outcome.finished is None else outcome.finished.reason


def _how_to_use(settings: Settings, status: Status, rejected: Path) -> str:
    return (
        f"Rows that did not arrive: {status.counts.errors:,}.  {plain(str(rejected))} holds each with its reason;"
        f" fix them there and run: tim-async migrate {settings.kind} {plain(shlex.quote(str(rejected)))}"
    )


def last_words(outcome: Outcome, *, as_json: bool) -> None:
    """Say how it ended, where the summary does not say it all."""
    match outcome.error:
        case None:
            pass
        case PermissionDenied() | InvalidRequest():  # of the look-up: of a row it would be that row's failure
            complain(reason_of(outcome))
            say(f"No group can be looked up like this; with --no-group-check as well, {_GOES_ON}.")
        case AuthError():
            complain(reason_of(outcome))
            say(f"No row was marked failed for that; once the credentials are right, {_GOES_ON}.")
        case SourceError():
            complain(reason_of(outcome))
            say(f"With the file as it was, {_GOES_ON}.")
        case _:
            complain(reason_of(outcome))
            say(f"Once that is mended, {_GOES_ON}.")
    how_it_ended(outcome, _GOES_ON, as_json=as_json)


def how_it_ended(outcome: Outcome, goes_on: str, *, as_json: bool) -> None:
    """Say what ended it, where that was no error; and how it goes on."""
    match ended_by(outcome):
        case Ended.INTERRUPTED:
            say(f"Interrupted; {goes_on}.")
        case Ended.LIMIT:
            say(f"Stopped: {plain(reason_of(outcome))}; {goes_on}.")
        case Ended.NOTHING_TO_DO if not as_json:
            say("Nothing to do: every row has come to its end already.")


def complain(message: str) -> None:
    """Say on standard error what failed."""
    click.echo(f"Error: {plain(message)}", err=True)
