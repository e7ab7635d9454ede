"""``verify``: what the service says of the rows that a journal says were taken."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn

from tim_async.cli import credentials
from tim_async.cli.failures import PARTIAL, Failure, Misuse, plainly
from tim_async.cli.output import console_for, plain, say, show
from tim_async.client import TIMClient
from tim_async.errors import TIMError
from tim_async.migrate import (
    KINDS,
    Difference,
    FileSource,
    JournalMismatch,
    Kind,
    MigrateError,
    SourceError,
    Status,
    Verified,
    verify,
)
from tim_async.migrate.supervision import beside

from .journals import find_journal, read_journal
from .options import STDIN, check_share, pace
from .tables import emit

if TYPE_CHECKING:
    from tim_async._attempts import Attempt

_REFRESH = 0.25
"""Seconds between two drawings of the spinner."""
_READS_BACK = "get_c2c_unread_msg_num"
_NO_WAY = (
    "Nothing can be read back: the service tells nobody the unread count of a group member."
    "  What it took is in the journal; see tim-async migrate status."
)


def verify_journal(
    name: str, credentials_file: Path | None, *, rate: float, share: float, quota: str | None, as_json: bool
) -> int:
    """Read back what a journal says was taken, and print each difference and a summary.

    Args:
        name: the journal, or the file that it is of.
        credentials_file: where credentials are; None for the environment.
        rate: calls/s that the service allows.
        share: the part of them to use.
        quota: the store with the quota of the whole fleet; None for a rate of its own.
        as_json: whether to print JSON lines.

    Returns:
        The exit code.

    Raises:
        Misuse: no journal, or it is of another file or another app.
        Failure: the service, or the journal, failed.
    """
    check_share(rate, share)
    journal = find_journal(name)
    status = read_journal(journal)
    kind = KINDS.get(status.kind)
    if kind is None:
        raise Misuse(f"{plain(str(journal))} is of a migration of {plain(repr(status.kind))}, which is not known here")
    if kind.groups:
        if as_json:
            emit("verified", {"checked": 0, "differences": 0, "unreadable": status.counts.taken, "exit_code": 0})
        else:
            say(_NO_WAY)
        return 0
    if not status.planned:
        raise Misuse(f"{plain(str(journal))} is of a file that was not read to its end; there is nothing to verify")
    client_options = credentials.load(credentials_file).client_options()
    shown = _Shown(as_json=as_json)
    with plainly():
        client = TIMClient(**client_options, **pace([_READS_BACK], rate, share, quota), on_attempt=shown.attempt)
    with _source(_rows_of(name, journal, status), kind, status) as source, shown:
        try:
            verified = asyncio.run(beside(_read_back(source, journal, client, shown), shown.keep_fresh()))
        except (SourceError, JournalMismatch) as error:
            raise Misuse(plain(str(error))) from None
        except (MigrateError, TIMError) as error:
            raise Failure(plain(str(error))) from None
    code = PARTIAL if verified.differences else 0
    if as_json:
        emit("verified", {**asdict(verified), "exit_code": code})
    else:
        show(_summary(verified))
    return code


def _source(path: str, kind: Kind, status: Status) -> FileSource:
    """The rows of a journal.

    Raises:
        Misuse: they were not read from a file by these commands, as it seems.
    """
    names = ("format", "columns", "id_formats")
    try:
        return FileSource(path, kind, **{name: status.arguments[name] for name in names})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Misuse(
            f"the journal does not say how its rows were read: {plain(type(error).__name__)}: {plain(str(error))}"
        ) from None


def _summary(verified: Verified) -> str:
    text = f"{verified.checked:,} rows read back, {verified.differences:,} differences"
    if verified.unreadable:
        text += f"; {verified.unreadable:,} could not be read back"
    return text


def _rows_of(name: str, journal: Path, status: Status) -> str:
    """Where the rows of a journal are by now: as named, as they were, or beside the journal."""
    if status.source == STDIN:
        if sys.stdin.isatty():
            raise Misuse("the rows came from standard input; pass them again, as in: tim-async migrate verify - < FILE")
        return STDIN
    given = Path(name)
    if given.is_file() and given.resolve() != journal.resolve():
        return name
    beside = journal.parent / Path(status.source).name
    return str(beside) if beside.is_file() and not Path(status.source).is_file() else status.source


async def _read_back(source: FileSource, journal: Path, client: TIMClient, shown: _Shown) -> Verified:
    """Show each difference; the summary."""
    async with client, contextlib.aclosing(verify(client, source, journal)) as found:
        async for item in found:
            if isinstance(item, Verified):
                return item
            shown.take(item)
    raise AssertionError("the last item is the summary")


class _Shown:
    """Differences on standard output, and on a terminal how far it is.

    Args:
        as_json: whether differences are printed as JSON lines.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not (self._as_json and sys.stdout.isatty()):
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.completed:,.0f} calls made"),
                console=console_for(sys.stderr),
                transient=True,
                auto_refresh=False,  # not by a thread of its own, whose failures nobody would hear of
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def attempt(self, attempt: Attempt) -> None:
        """Count a call."""
        if self._progress is not None and self._task is not None and attempt.error is None:
            self._progress.advance(self._task)

    async def keep_fresh(self) -> None:
        """Draw how far it is every so often."""
        while self._progress is not None:
            self._progress.refresh()
            await asyncio.sleep(_REFRESH)

    def take(self, difference: Difference) -> None:
        """Print a difference."""
        if self._as_json:
            emit("difference", asdict(difference))
            return
        found = "nothing" if difference.found is None else f"{difference.found:,}"
        text = plain(
            f"line {difference.line}: {difference.account} from {difference.peer}: "
            f"{found} instead of {difference.expected:,}" + (f"; {difference.reason}" if difference.reason else "")
        )
        if self._progress is not None and sys.stdout.isatty():
            self._progress.console.print(text, soft_wrap=True)  # the same terminal, above the spinner
        else:
            show(text)
