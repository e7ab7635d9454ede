"""The command ``verify``, which compares the service's counts with the accepted rows of a journal."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tim_async._codes import explanations
from tim_async.cli.failures import PARTIAL, Misuse
from tim_async.cli.output import number_of, plain, say, show
from tim_async.migrate import KINDS, Difference, Status, Verified, verify

from .display import Display
from .settings import Settings, read_journal
from .signals import run_interruptibly
from .tables import emit

if TYPE_CHECKING:
    from tim_async._hooks import Attempt
    from tim_async.client import TIMClient

_READS_BACK = "get_c2c_unread_msg_num"


def verify_journal(settings: Settings) -> int:
    """Read back the accepted rows of a journal, and print each difference and a summary.

    Returns:
        The exit code.

    Raises:
        Misuse: there is no journal, or it belongs to another app.
        TIMError, MigrateError: the service or the journal failed.
    """
    status, _ = read_journal(settings)
    kind = KINDS.get(status.kind)
    if kind is None:
        raise Misuse(f"{plain(status.journal)} has an unknown kind of rows, {plain(repr(status.kind))}")
    if not status.planned:
        raise Misuse(f"nothing to verify in {plain(status.journal)}: its file was not read to the end")
    if kind.groups:
        return _report(settings, status, Verified(0, 0, status.counts.taken))
    progress = _Progress()
    client = settings.client([_READS_BACK], progress.attempt)
    # No grace: a verification has no outcome to save.
    verified = run_interruptibly(lambda _: _read_back(settings, client, progress), grace=lambda: 0.0)
    if verified is None:
        raise KeyboardInterrupt
    code = _report(settings, status, verified)
    for line in () if settings.as_json else explanations(progress.codes):
        say(line)
    return code


def _report(settings: Settings, status: Status, verified: Verified) -> int:
    """Print the numbers of checked, differing and unchecked rows; return the exit code."""
    code = PARTIAL if verified.differences else 0
    counts = status.counts
    unchecked = {
        "accepted: the service has no call that returns a group member's count": verified.unreadable,
        "no longer accepted": counts.taken - verified.checked - verified.unreadable,
        "failed": counts.failed,
        "rejected": counts.rejected,
        "superseded": counts.superseded,
        "still to be sent": counts.left,
    }
    if settings.as_json:
        emit("verified", {**asdict(verified), "unchecked": counts.total - verified.checked, "exit_code": code})
        return code
    show(f"{number_of(verified.checked, 'row')} read back, {number_of(verified.differences, 'difference')}")
    parts = [f"{rows:,} {state}" for state, rows in unchecked.items() if rows > 0]
    if parts:
        say(f"Not checked: {'; '.join(parts)}.")
    return code


async def _read_back(settings: Settings, client: TIMClient, progress: _Progress) -> Verified:
    display = Display(progress, as_json=settings.as_json)

    async def follow() -> Verified:
        options: dict[str, Any] = {"name": settings.name} if settings.in_store else {}
        async with client, contextlib.aclosing(verify(client, settings.journal, **options)) as found:
            async for item in found:
                if isinstance(item, Verified):
                    return item
                progress.differences += 1
                progress.codes[item.code] = None
                if settings.as_json:
                    emit("difference", asdict(item))
                else:
                    display.print_result(_as_text(item))
        raise AssertionError("the last item is the summary")

    return await display.run(follow())


def _as_text(difference: Difference) -> str:
    found = "nothing" if difference.found is None else f"{difference.found:,}"
    return plain(
        f"line {difference.line}: {difference.account} from {difference.peer}: "
        f"{found} instead of {difference.expected:,}" + (f"; {difference.reason}" if difference.reason else "")
    )


class _Progress:
    """The progress of a verification; a `View`.

    Attributes:
        differences: number of differences so far.
        codes: the service's codes among them, in their order.
    """

    def __init__(self) -> None:
        self.differences: int = 0
        self.codes: dict[int | None, None] = {}
        self._calls = 0

    def attempt(self, attempt: Attempt) -> None:
        """Count a successful call."""
        if attempt.error is None:
            self._calls += 1

    def line(self) -> str:
        """Return the numbers of calls and differences so far."""
        return f"{number_of(self._calls, 'call')} made, {number_of(self.differences, 'difference')}"

    def fraction(self) -> None:
        """Return None: the number of calls to come is unknown."""

    def progress_event(self) -> tuple[str, dict[str, Any]]:
        """Return the same numbers as a JSON event."""
        return "verifying", {"calls": self._calls, "differences": self.differences}
