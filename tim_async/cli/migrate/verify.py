"""``verify``: what the service says of the rows that a journal says were accepted."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tim_async._codes import explanations
from tim_async.cli.failures import PARTIAL, Failure, Misuse, with_remedy
from tim_async.cli.output import plain, say, show
from tim_async.errors import TIMError
from tim_async.migrate import KINDS, Difference, Status, Verified, verify

from .display import Bar, Display
from .settings import Settings, read_journal
from .signals import StopRequest, run_interruptibly
from .tables import emit, number_of

if TYPE_CHECKING:
    from tim_async._attempts import Attempt
    from tim_async.client import TIMClient

_READS_BACK = "get_c2c_unread_msg_num"


def verify_journal(settings: Settings) -> int:
    """Read back what a journal says was accepted, and print each difference and a summary.

    Returns:
        The exit code.

    Raises:
        Misuse: no journal, or it is of another app.
        Failure: the service, or the journal, failed.
    """
    status, _ = read_journal(settings)
    kind = KINDS.get(status.kind)
    if kind is None:
        raise Misuse(f"{plain(status.journal)} is of an unknown kind of migration, {plain(repr(status.kind))}")
    if not status.planned:
        raise Misuse(f"{plain(status.journal)} is of a file that was not read to its end; nothing can be verified")
    if kind.groups:
        return _report(settings, status, Verified(0, 0, status.counts.taken))
    progress = _Progress()
    client = settings.client([_READS_BACK], progress.attempt)
    try:
        verified = run_interruptibly(lambda stop: _read_back(settings, client, progress, stop))
    except TIMError as error:
        raise Failure(plain(with_remedy(error))) from None
    if verified is None:
        raise KeyboardInterrupt
    code = _report(settings, status, verified)
    for line in () if settings.as_json else explanations(progress.codes):
        say(line)
    return code


def _report(settings: Settings, status: Status, verified: Verified) -> int:
    """Say what was checked, what differs, and what could not be checked; the exit code."""
    code = PARTIAL if verified.differences else 0
    counts = status.counts
    unchecked = {
        "accepted, and nothing reads them back: the service tells no unread count of a group": verified.unreadable,
        "accepted since": counts.taken - verified.checked - verified.unreadable,
        "failed": counts.failed,
        "rejected": counts.rejected,
        "superseded": counts.superseded,
        "still to be sent": counts.left,
    }
    if settings.as_json:
        emit("verified", {**asdict(verified), "unchecked": counts.total - verified.checked, "exit_code": code})
        return code
    show(f"{number_of(verified.checked, 'row')} read back, {number_of(verified.differences, 'difference')}")
    parts = [f"{rows:,} {what}" for what, rows in unchecked.items() if rows > 0]
    if parts:
        say(f"Not checked: {'; '.join(parts)}.")
    return code


async def _read_back(settings: Settings, client: TIMClient, progress: _Progress, stop: StopRequest) -> Verified:
    stop.on_request = stop.cancel  # nothing is lost with it
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
    """How far a verification is; a `View`.

    Attributes:
        differences: those found so far.
        codes: the service's codes among them, in the order in which they came.
    """

    def __init__(self) -> None:
        self.differences: int = 0
        self.codes: dict[int | None, None] = {}
        self._calls = 0

    def attempt(self, attempt: Attempt) -> None:
        """Count a call."""
        if attempt.error is None:
            self._calls += 1

    def line(self) -> str:
        """The calls and differences so far."""
        return f"{number_of(self._calls, 'call')} made, {number_of(self.differences, 'difference')}"

    def bar(self) -> Bar:
        """The same: how many calls it will be is not known."""
        return Bar(None, [self.line()])

    def progress_event(self) -> tuple[str, dict[str, Any]]:
        """The same as an event."""
        return "verifying", {"calls": self._calls, "differences": self.differences}
