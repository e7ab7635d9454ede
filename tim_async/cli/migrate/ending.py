"""The end of a migration, whatever the reason: the rejected file, the report and the summary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tim_async.cli.failures import (
    FAILED,
    INTERRUPTED,
    LIMIT,
    PARTIAL,
    USAGE,
    Failure,
    Misuse,
    argument_errors,
    describe,
)
from tim_async.cli.output import number_of, plain, print_error, say, show
from tim_async.cli.stdio import OutputLost
from tim_async.errors import AuthError, InvalidRequest, PermissionDenied, TIMError
from tim_async.migrate import (
    Ended,
    Finished,
    MigrateError,
    Notes,
    SourceError,
    Status,
    StoreMisconfigured,
    write_rejects,
)
from tim_async.migrate.streams._names import Loaded

from .files import STDIN, shell_command, write_report
from .settings import Settings, read_journal
from .signals import sigterm_as_interrupt
from .tables import (
    counts_table,
    duration,
    emit,
    failure_lines,
    loaded_rows,
    note_lines,
    rows_dict,
    speed,
)
from .tally import Tally

_STATUS_TIMEOUT = 2.0
"""Seconds within which a store must report the final status."""
_ONE_TIME_OPTIONS = {"--mended": 1, "--limit": 1, "--restart": 0, "--replace": 0, "--yes": 0, "--dry-run": 0}
"""Options that are not repeated in a printed command, with the number of their values."""


def finish(settings: Settings, tally: Tally) -> int:
    """Write the files, print the summary and return the exit code.

    Raises:
        OutputLost: a standard stream was closed; the files are written.
        Failure, MigrateError: the run did not start, or its journal is no longer readable.
    """
    loaded = isinstance(tally.finished, Loaded) and tally.finished.complete
    if not tally.started and not loaded:
        return _report_unstarted(settings, tally)
    try:
        status, notes = read_journal(settings, _STATUS_TIMEOUT if settings.in_store else None)
    except (MigrateError, TimeoutError) as error:  # probably the reason why the run ended
        if isinstance(error, StoreMisconfigured):
            raise
        raise Failure(plain(describe(tally.error or error))) from None
    written, problems, code = write_files(settings, status, notes)
    code = _exit_code(tally, status, code)
    if isinstance(tally.error, OutputLost):
        raise tally.error
    if settings.as_json:
        fields = _as_dict(tally, status, notes, code)
        paths = {name: None if path is None else str(path) for name, path in written.items()}
        emit("finished", {**fields, **paths, "problems": problems})
    else:
        show(*_summary(settings, tally, status, notes))
    for problem in problems:
        print_error(problem)
    if status.counts.errors and not settings.as_json:
        say(_mend_hint(settings, status, written["rejected"]))
    _print_ending(settings, tally)
    return code


def _report_unstarted(settings: Settings, tally: Tally) -> int:
    """Raise the reason why nothing was sent, or print that it was an interruption and return its exit code."""
    if isinstance(tally.error, OutputLost | TIMError | MigrateError):
        raise tally.error
    if tally.error is not None:
        raise Failure(plain(describe(tally.error)))
    if settings.as_json:
        emit("finished", {"ended": Ended.INTERRUPTED.value, "exit_code": INTERRUPTED, "counts": None})
    say("Interrupted before the first row; nothing was sent.  Run the same command to start over.")
    return INTERRUPTED


def write_files(settings: Settings, status: Status, notes: Notes) -> tuple[dict[str, Path | None], list[str], int]:
    """Write the rejected file and the report, those that were asked for.

    Returns:
        The files written, "rejected" and "report", None for none; the errors; and an exit code.
    """
    written: dict[str, Path | None] = {"rejected": None, "report": None}
    problems, code = [], 0
    writing: list[tuple[str, Path | None, Callable[[Path], Path | None]]] = [
        ("rejected", settings.rejected, lambda path: _write_rejects(settings, path)),
        ("report", settings.report, lambda path: write_report(status, path, notes)),
    ]
    for name, path, write in writing:
        if path is None:
            continue
        try:
            with sigterm_as_interrupt():
                written[name] = write(path)
        except KeyboardInterrupt:
            code = INTERRUPTED
            problems.append(f"interrupted before {path} was written")
        except (OSError, MigrateError, Misuse) as error:
            code = code or FAILED
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            problems.append(f"cannot write {path}: {reason}")
    return written, problems, code


def _write_rejects(settings: Settings, to: Path) -> Path | None:
    """Write the failed and rejected rows of a journal; return the file, or None if there are none."""
    with argument_errors():
        if not settings.in_store:
            return write_rejects(settings.journal, to).path
        from tim_async.migrate.streams import write_fleet_rejects

        return asyncio.run(write_fleet_rejects(settings.journal, to, name=settings.name)).path


# The exit code, the text and the JSON


def _exit_code(tally: Tally, status: Status, written: int) -> int:
    """Return the exit code, given that of writing the files."""
    if tally.ended is None:
        return USAGE if isinstance(tally.error, SourceError) else FAILED
    early = {Ended.INTERRUPTED: INTERRUPTED, Ended.LIMIT: LIMIT}.get(tally.ended)
    return early or written or (PARTIAL if status.counts.errors else 0)


def _summary(settings: Settings, tally: Tally, status: Status, notes: Notes) -> list[Any]:
    parts: list[Any] = [counts_table(status.counts)]
    if isinstance(tally.finished, Loaded):
        loaded = number_of(loaded_rows(status.counts), "row")
        parts.append(f"\nloaded: {loaded} of kind {status.kind}, on the stream {settings.name}")
    elif tally.calls()["sent"]:
        parts.append(f"\n{'this worker: ' if settings.command == 'work' else ''}{_calls(tally)}")
    if status.failures:
        parts += ["", *failure_lines(status.failures)]
    return [*parts, *note_lines(notes)]


def _calls(tally: Tally) -> str:
    """Summarize the calls of a run in one line."""
    calls, share = tally.calls(), tally.share_of_limit
    used = f"{100 * share:.0f} % of {speed(tally.limit)}" if share is not None else "the limit was changed"
    return (
        f"{number_of(calls['done'], 'call')} in {duration(tally.seconds)}: {tally.mean_rate:.1f}/s, {used}; "
        f"{calls['refused']:,} refused, {calls['retried']:,} retried"
    )


def _as_dict(tally: Tally, status: Status, notes: Notes, code: int) -> dict[str, Any]:
    ended, finished, share = tally.ended, tally.finished, tally.share_of_limit
    fields = {
        "ended": "failed" if ended is None else ended.value,
        "exit_code": code,
        "reason": _reason(tally),
        "kind": status.kind,
        "journal": status.journal,
        "name": status.name or None,
        **rows_dict(status.counts, status.failures, notes),
    }
    if isinstance(finished, Loaded):
        return fields | {"loaded": loaded_rows(status.counts), "warning": finished.warning}
    return fields | {
        "seconds": round(tally.seconds, 3),
        "rate": round(tally.mean_rate, 1),
        "limit": tally.limit,
        "share_of_limit": None if share is None else round(share, 3),
        **tally.calls(),
    }


def _reason(tally: Tally) -> str:
    """Return the error that ended a run, or the limit that it reached; "" for neither."""
    if tally.error is not None:
        return describe(tally.error)
    return tally.finished.reason if isinstance(tally.finished, Finished) else ""


def rerun_command(settings: Settings, *more: str) -> str:
    """Return the command of this run with other options, quoted for a shell."""
    words = settings.words
    cut = words.index("--") if "--" in words else len(words)
    kept: list[str] = []
    given = iter(words[:cut])
    for word in given:
        name, equals, _ = word.partition("=")
        if name not in _ONE_TIME_OPTIONS:
            kept.append(word)
        elif _ONE_TIME_OPTIONS[name] and not equals:
            next(given, None)
    command = shell_command("tim-async", "migrate", settings.command, *kept, *more, *words[cut:])
    return f"{command} < /dev/null" if settings.file == STDIN else command


def _mend_hint(settings: Settings, status: Status, rejected: Path | None) -> str:
    errors = f"{number_of(status.counts.errors, 'row')} failed or rejected."
    named = ["--name", settings.name, "--rejected", "PATH", settings.journal]
    if rejected is None:
        how, then = shell_command("tim-async", "migrate", "status", *named), rerun_command(settings, "--mended", "PATH")
        return f"{errors}  To write them to a file with their reasons: {how}; correct them there and run: {then}"
    name = str(rejected)
    fixed = rerun_command(settings, *([f"--mended={name}"] if name.startswith("-") else ["--mended", name]))
    if settings.command == "load":
        work = ["work", "--from", settings.journal, "--name", settings.name]
        fixed = shell_command("tim-async", "migrate", *work, "--mended", str(rejected))
    return f"{errors}  {plain(str(rejected))} lists them with their reasons; correct them there and run: {fixed}"


def _remedy(error: Exception) -> str:
    """Return the first half of a sentence that ends with the command to resume."""
    if isinstance(error, PermissionDenied | InvalidRequest):  # of a group look-up: of a row, it would be a failed row
        return "These credentials cannot look up groups; with --no-group-check"
    if isinstance(error, AuthError):
        return "No row was marked failed; with the right credentials"
    return "Once this is fixed"


def _print_ending(settings: Settings, tally: Tally) -> None:
    """Print the reason of the end, and the way to resume."""
    resumes = "the same command resumes"
    if settings.command == "work":
        resumes = f"the other workers continue, and {resumes}"
    if tally.error is not None:
        print_error(_reason(tally))
        say(f"{_remedy(tally.error)}, {resumes}.")
    if isinstance(tally.finished, Loaded) and tally.finished.warning:
        say(f"Warning: {tally.finished.warning}.")
    match tally.ended:
        case Ended.INTERRUPTED:
            say(f"Interrupted; {resumes}.")
        case Ended.LIMIT:
            say(f"Stopped: {plain(_reason(tally))}; {resumes}.")
        case Ended.ROW_LIMIT:
            limit = number_of(settings.options.limit or 0, "row")
            say(f"Stopped by --limit after {limit}; to send the rest, run: {rerun_command(settings)}")
        case Ended.NOTHING_TO_DO if not settings.as_json:
            say(f"Nothing to do: all rows are already {'loaded' if settings.command == 'load' else 'processed'}.")
